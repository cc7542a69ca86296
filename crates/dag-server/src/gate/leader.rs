//! What the granter needs of a quorum: rounds and records, while the control group is led here.
//!
//! A granter is as old as its term of office and knows nothing of earlier ones. What it needs of a
//! quorum is asked for by tasks of their own, which come back through the inbox and name their
//! term, so that an answer for an earlier term is for nobody.

use std::sync::Arc;

use active_manager::control::command::OpenGate;
use active_manager::control::{Command, ControlState, Order, Outcome, Response};
use dac::granter::Opening;
use dac::keeper::Heard;
use dac::message::Holder;
use dag_types::{DatabaseId, NodeId, Registry};
use prost::Message as _;
use replication::Group;
use tokio::time::Instant;

use super::NodeGate;
use crate::clock;
use crate::journal::{BootOf, Event};
use crate::machine::View;
use crate::node::Node;

/// The control group as its leader's granter uses it.
#[derive(Clone)]
pub struct Office {
    pub node: Arc<Node>,
    pub gate: Arc<NodeGate>,
    pub group: Group,
    pub term: u64,
    /// Nothing is waited for longer than one attempt.
    pub patience: std::time::Duration,
}

impl Office {
    /// Begins a quorum round now, and tells the loop when it is done. One that fails is forgotten:
    /// the next renewal comes.
    pub fn round(&self, node: NodeId, request: u64) {
        let office = self.clone();
        tokio::spawn(async move {
            let by = Instant::now() + office.patience;
            if let Err(error) = office.group.read_barrier(by).await {
                return tracing::debug!(%error, peer = %node, "no quorum round for a gate");
            }
            let Some(registry) = office.registry().await else { return };
            let term = office.term;
            office.gate.tell(Heard::Round { term, node, request, registry });
        });
    }

    /// Proposes the record of an opening, and tells the loop when it is committed.
    pub fn record(&self, opening: Opening) {
        let office = self.clone();
        tokio::spawn(async move {
            if !office.commit(&opening).await {
                return;
            }
            let Some(registry) = office.registry().await else { return };
            let (term, grant) = (office.term, opening.grant);
            office.gate.tell(Heard::Recorded { term, grant, registry });
        });
    }

    async fn commit(&self, opening: &Opening) -> bool {
        let Opening { grant, holder, lineage } = *opening;
        let Holder { node, store, boot } = holder;
        let order = Order::OpenGate(OpenGate::new(node, store, boot, lineage, grant));
        let who = format!("node {}", self.node.id());
        let (at_ms, order) = (clock::wall().0, Some(order));
        let command = Command { at_ms, who, order, ..Command::default() }.encode_to_vec();
        let by = Instant::now() + self.patience;
        let committed = match self.group.propose(command.into(), by).await {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!(%error, peer = %holder.node, "an opening was not recorded");
                return false;
            }
        };
        let outcome = Response::decode(committed.reply).ok().and_then(|reply| reply.outcome);
        if !matches!(outcome, Some(Outcome::Changed(_))) {
            tracing::debug!(?outcome, peer = %holder.node, "an opening was refused");
            return false;
        }
        self.node.journal.write(&Event::GrantCommitted {
            grant: grant.number,
            to_node: holder.node.0,
            to_boot: BootOf { counter: holder.boot.counter, id: holder.boot.id },
            term: grant.term,
        });
        true
    }

    /// What the applied control log says now. Reading waits for the disk at times.
    async fn registry(&self) -> Option<Registry> {
        let view = self.group.view();
        let reading = move || ControlState::read(&View(&*view));
        let state = match tokio::task::spawn_blocking(reading).await.ok()? {
            Ok(state) => state?,
            Err(fault) => {
                tracing::error!(%fault, "the control group's state cannot be read");
                return None;
            }
        };
        let registry = state.registry();
        registry.inspect_err(|error| tracing::error!(%error, "the lineage is no chain")).ok()
    }
}

/// The control group of this node, where one runs.
pub fn control_group(node: &Node) -> Option<Group> {
    node.member().ok()?.registry.get(DatabaseId::CONTROL)
}
