//! The gate in words, for operators.

use dac::granter::{Confirmation, SiteVoice};
use dag_api::admin::v1 as api;
use dag_types::NodeId;

use super::{NodeGate, UNPOISONED};
use crate::clock;

impl NodeGate {
    /// How this node's gate stands now.
    pub fn show(&self, own: NodeId, witness: bool) -> api::GateStatus {
        let leader = *self.leader.lock().expect(UNPOISONED);
        let confirmation = self.confirmation.lock().expect(UNPOISONED).as_ref().map(confirmed);
        let gate = self.gate();
        let now = clock::boottime();
        let closed = gate.closed(now);
        let state = match &closed {
            _ if witness => api::GateState::None,
            None => api::GateState::Open,
            Some(_) => api::GateState::Closed,
        };
        let opening = gate.opening().filter(|_| closed.is_none());
        let words = |words: Option<String>| words.filter(|_| !witness).unwrap_or_default();
        api::GateStatus {
            node_id: own.0,
            state: state.into(),
            since_ms: now.saturating_sub(gate.since()).0,
            opening: opening.map(|(grant, _)| grant.to_string()).unwrap_or_default(),
            left_ms: opening.map_or(0, |(_, until)| until.saturating_sub(now).0),
            silent_because: words(gate.silent_because().map(str::to_owned)),
            refused_because: words(gate.refused().map(ToString::to_string)),
            closed_because: words(closed.map(|why| why.to_string())),
            control_leader: leader.map_or(0, |leader| leader.0),
            lineage: Some(gate.chain().last().into()),
            age_ms: 0,
            confirmation,
        }
    }
}

fn confirmed(confirmation: &Confirmation) -> api::GateConfirmation {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let voice = |voice: &SiteVoice| api::SiteVoice {
        site: voice.site.clone(),
        heard: numbers(&voice.heard),
        silent: numbers(&voice.silent),
        enough: voice.enough,
    };
    api::GateConfirmation {
        holds: confirmation.holds(),
        holder: confirmation.holder.map_or(0, |node| node.0),
        sites: confirmation.sites.iter().map(voice).collect(),
        message: confirmation.words(),
    }
}

/// What is wrong with a gate, in one sentence; none where nothing is.
pub fn complaint(gate: &api::GateStatus) -> Option<String> {
    if gate.state() != api::GateState::Closed {
        return None;
    }
    let mut text = format!("the gate of node {} is closed: {}", gate.node_id, gate.closed_because);
    for (head, words) in [
        ("it does not ask for a grant", &gate.silent_because),
        ("the control leader grants nothing", &gate.refused_because),
    ] {
        if !words.is_empty() {
            text.push_str(&format!("; {head}: {words}"));
        }
    }
    Some(text)
}
