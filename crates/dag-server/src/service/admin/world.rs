//! How nodes and copies stand, as decisions about moves want it: this node's own knowledge.

use std::collections::BTreeMap;
use std::time::Duration;

use active_manager::report::{ControlReport, CopyReport, GateReport, NodeReport, Reports};
use dag_api::admin::v1 as api;
use dag_types::{CopyStatus, DatabaseId, Lineage, Millis, NodeId};

use super::AdminServer;
use super::show::{VERSION, known_copies};
use crate::clock;
use crate::node::Member;
use crate::reports::Facts;

impl AdminServer {
    /// Everything that was heard, in the words of decisions. What is older than `fresh` was said by a
    /// node that does not answer now.
    pub fn reports(&self, member: &Member, fresh: Duration) -> Reports {
        let group = member.registry.get(DatabaseId::CONTROL);
        let control = group.map(|group| group.status());
        let copies = known_copies(&self.node);
        let newest = newest_mounts(&copies);
        let gates = self.gates(member);
        Reports {
            at_ms: clock::wall().0,
            control: ControlReport {
                leader: control.as_ref().and_then(|status| status.leader).map(|at| at.node),
                term: control.map_or(0, |status| status.term),
            },
            nodes: gates.iter().map(|gate| self.node_report(gate, fresh)).collect(),
            copies: copies
                .iter()
                .filter(|copy| copy.database_id != DatabaseId::CONTROL.0)
                .map(|copy| copy_report(copy, &newest))
                .collect(),
        }
    }

    fn own_facts(&self) -> Facts {
        Facts {
            version: VERSION.to_owned(),
            insecure: self.is_insecure(),
            disk_low: self.node.admission.disk_is_low(),
            clock_skew: Millis(0),
        }
    }

    fn node_report(&self, gate: &api::GateStatus, fresh: Duration) -> NodeReport {
        let node = NodeId(gate.node_id);
        let own = node == self.node.id();
        let reachable = own || gate.age_ms < fresh.as_millis() as u64;
        let lineage = gate.lineage.as_ref().and_then(|lineage| Lineage::try_from(lineage).ok());
        let facts = match own {
            true => Some(self.own_facts()),
            false => self.node.reports.of(node).and_then(|report| report.facts),
        };
        NodeReport {
            node,
            reachable,
            last_heard: Millis(gate.age_ms),
            gate: match gate.state() {
                api::GateState::Open => GateReport::Open(Millis(gate.left_ms)),
                api::GateState::Closed => GateReport::Closed(gate.closed_because.clone()),
                api::GateState::None | api::GateState::Unspecified => GateReport::Unknown,
            },
            lineage: lineage.unwrap_or_default(),
            control_copy_runs: reachable,
            admin_answers: reachable,
            disk_low: facts.as_ref().is_some_and(|facts| facts.disk_low),
            clock_skew: facts.as_ref().map_or(Millis(0), |facts| facts.clock_skew),
            insecure: facts.as_ref().is_some_and(|facts| facts.insecure),
            version: facts.map(|facts| facts.version).unwrap_or_default(),
            does_not_hear: Vec::new(),
        }
    }
}

/// Where each database was mounted last: of two copies that say they are mounted one is an old
/// word of a node that was lost, and it has the smaller term.
fn newest_mounts(copies: &[api::DatabaseCopy]) -> BTreeMap<u64, (u32, u64)> {
    let mut newest = BTreeMap::new();
    for copy in copies.iter().filter(|copy| copy.status() == api::CopyStatus::Mounted) {
        let known = newest.entry(copy.database_id).or_insert((0, 0));
        *known = (*known).max((copy.generation, copy.term));
    }
    newest
}

fn copy_report(copy: &api::DatabaseCopy, newest: &BTreeMap<u64, (u32, u64)>) -> CopyReport {
    let mounted = copy.status() == api::CopyStatus::Mounted;
    let replaced = newest.get(&copy.database_id) > Some(&(copy.generation, copy.term));
    let status =
        if mounted && replaced { CopyStatus::ServiceDown } else { copy_status(copy.status()) };
    CopyReport {
        database: DatabaseId(copy.database_id),
        node: NodeId(copy.node_id),
        status,
        since: Millis(0),
        copy_queue: copy.copy_queue_length,
        copy_queue_age: Millis(0),
        replay_queue: copy.replay_queue_length,
        replay_queue_age: Millis(0),
        digest_equal: true,
        last_index: copy.last_log_index,
    }
}

fn copy_status(status: api::CopyStatus) -> CopyStatus {
    use api::CopyStatus as S;
    match status {
        S::Mounted => CopyStatus::Mounted,
        S::Dismounted => CopyStatus::Dismounted,
        S::Mounting => CopyStatus::Mounting,
        S::Dismounting => CopyStatus::Dismounting,
        S::Healthy => CopyStatus::Healthy,
        // Of what nobody knows nothing is hoped.
        S::Initializing | S::Unspecified => CopyStatus::Initializing,
        S::Resynchronizing => CopyStatus::Resynchronizing,
        S::Seeding => CopyStatus::Seeding,
        S::SeedingSource => CopyStatus::SeedingSource,
        S::Suspended => CopyStatus::Suspended,
        S::Failed => CopyStatus::Failed,
        S::FailedAndSuspended => CopyStatus::FailedAndSuspended,
        S::DisconnectedAndHealthy => CopyStatus::DisconnectedAndHealthy,
        S::DisconnectedAndResynchronizing => CopyStatus::DisconnectedAndResynchronizing,
        S::ServiceDown => CopyStatus::ServiceDown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_word_of_a_lost_node_is_not_taken_for_the_active_copy() {
        let copy = |node, term| api::DatabaseCopy {
            database_id: 16,
            node_id: node,
            generation: 1,
            term,
            status: api::CopyStatus::Mounted.into(),
            ..api::DatabaseCopy::default()
        };
        let copies = [copy(1, 5), copy(2, 6)];
        let newest = newest_mounts(&copies);
        assert_eq!(copy_report(&copies[0], &newest).status, CopyStatus::ServiceDown);
        assert_eq!(copy_report(&copies[1], &newest).status, CopyStatus::Mounted);
    }
}
