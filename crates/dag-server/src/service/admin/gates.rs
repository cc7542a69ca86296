//! Every node's gate, from what this node knows by itself: its own, and the others' last words.

use dag_api::admin::v1 as api;
use dag_types::NodeId;

use super::AdminServer;
use crate::gate::show::complaint;
use crate::node::Member;
use crate::peers;

impl AdminServer {
    /// This node's own gate; none while it belongs to no DAG.
    pub(super) fn own_gate(&self) -> Option<api::GateStatus> {
        let member = self.node.member().ok()?;
        let own = self.node.id();
        let witness = member.peers.member(own).is_some_and(|peer| peer.witness);
        Some(member.gate.show(own, witness))
    }

    /// The gate of each member, by what was heard; none while this node belongs to no DAG.
    pub(crate) fn known_gates(&self) -> Vec<api::GateStatus> {
        self.node.member().map(|member| self.gates(member)).unwrap_or_default()
    }

    /// The gate of each member.
    pub(super) fn gates(&self, member: &Member) -> Vec<api::GateStatus> {
        let members = member.peers.members();
        members.iter().filter_map(|(id, peer)| self.gate_of(*id, peer)).collect()
    }

    fn gate_of(&self, id: NodeId, peer: &peers::Member) -> Option<api::GateStatus> {
        if id == self.node.id() {
            return self.own_gate();
        }
        let report = self.node.reports.of(id);
        let unheard = || self.node.started.elapsed().as_millis() as u64;
        let age_ms = report.as_ref().map_or_else(unheard, |report| report.age_ms());
        let node_id = id.0;
        Some(match report.and_then(|report| report.gate) {
            Some(gate) => api::GateStatus { age_ms, ..gate },
            None if peer.witness => {
                let state = api::GateState::None.into();
                api::GateStatus { node_id, state, age_ms, ..api::GateStatus::default() }
            }
            None => api::GateStatus { node_id, age_ms, ..api::GateStatus::default() },
        })
    }
}

/// Gates that are closed, with what helps. What a node said long ago is no news of it.
pub(super) fn warnings(gates: &[api::GateStatus]) -> Vec<api::Warning> {
    let fresh = |gate: &&api::GateStatus| gate.age_ms < crate::reports::STALE.as_millis() as u64;
    let warn = |gate: &api::GateStatus| {
        let message = complaint(gate)?;
        Some(api::Warning {
            code: "GATE_CLOSED".into(),
            severity: api::Severity::Error.into(),
            message,
            node_id: gate.node_id,
            database_id: 0,
        })
    };
    gates.iter().filter(fresh).filter_map(warn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_is_named_with_every_reason_and_an_open_or_old_one_is_not() {
        let gate = |state: api::GateState, age_ms| api::GateStatus {
            node_id: 3,
            state: state.into(),
            closed_because: "the lease ended".into(),
            silent_because: "it knows no control leader".into(),
            age_ms,
            ..api::GateStatus::default()
        };
        let closed = warnings(&[gate(api::GateState::Closed, 0)]);
        assert_eq!((closed.len(), closed[0].node_id), (1, 3));
        for part in ["node 3", "the lease ended", "no control leader"] {
            assert!(closed[0].message.contains(part), "{}", closed[0].message);
        }
        let others = [
            gate(api::GateState::Open, 0),
            gate(api::GateState::None, 0),
            gate(api::GateState::Unspecified, 0),
            gate(api::GateState::Closed, 60_000),
        ];
        assert!(warnings(&others).is_empty());
    }
}
