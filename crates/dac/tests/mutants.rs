//! Each rule has a claim that breaks when the rule is left out.
//!
//! One process plants one fault at a time, so all of them run in one test.

use std::collections::BTreeSet;

use dac::closed::Closed;
use dac::gate::{Action, DacGate, Input, Saved};
use dac::granter::{self, Fence, Granter};
use dac::message::{Answer, Grant, Holder, Renewal};
use dac::mount::{Mount, admit_entry};
use dac::step_fence::{StepFence, StepId};
use dac::times::LeaseTimes;
use dag_types::{
    ActivationId, Boot, GrantId, Kinship, Lineage, LineageChain, LineageKind, LineageStep, Millis,
    Mutant, NodeId, RegisteredNode, RegisteredSite, Registry, StoreId,
};

const TIMES: LeaseTimes = LeaseTimes::DEFAULT;
const NODE: NodeId = NodeId(1);

fn holder() -> Holder {
    Holder { node: NODE, store: StoreId([1; 16]), boot: Boot { counter: 1, id: 1 } }
}

fn chain() -> LineageChain {
    LineageChain::first(ActivationId([1; 16]))
}

fn link(epoch: u64, id: u8) -> LineageStep {
    let lineage = Lineage { epoch, activation: ActivationId([id; 16]) };
    LineageStep { lineage, kind: LineageKind::ActivateUnfenced, rejected: vec![] }
}

fn registry() -> Registry {
    let Holder { node, store, boot } = holder();
    let lists = vec![BTreeSet::from([node])];
    Registry {
        chain: chain(),
        sites: vec![RegisteredSite { name: "A".into(), started: true, lists }],
        nodes: vec![RegisteredNode { node, site: "A".into(), store, boot, grant: None }],
    }
}

fn gate() -> DacGate {
    let saved = Saved { chain: chain(), promise: None };
    let mut gate = DacGate::at_boot(Millis(0), holder(), TIMES, saved);
    gate.step(Millis(0), Input::Applied(registry()));
    gate.step(Millis(0), Input::ControlLeader(Some(NodeId(9))));
    gate
}

fn grant(request: u64) -> Input {
    let (holder, lineage) = (holder(), chain().last());
    let grant = GrantId { term: 1, number: 1 };
    Input::Grant(Grant { request, holder, lineage, grant, ttl: TIMES.lease })
}

fn closed_at_boot() -> bool {
    let saved = Saved { chain: chain(), promise: None };
    let gate = DacGate::at_boot(Millis(0), holder(), TIMES, saved);
    gate.closed(Millis(0)) == Some(Closed::NeverOpened)
}

fn counts_from_sending() -> bool {
    let mut gate = gate();
    gate.step(Millis(1000), grant(1));
    gate.opening().map(|(_, until)| until) == Some(TIMES.lease)
}

fn counts_from_its_own_request() -> bool {
    let mut gate = gate();
    gate.step(Millis(10), grant(1));
    gate.step(Millis(2000), Input::Tick);
    gate.step(Millis(3000), Input::Tick);
    gate.step(Millis(3100), grant(2));
    gate.opening().map(|(_, until)| until) == Some(TIMES.lease + Millis(2000))
}

fn takeover_waits_longer_than_a_lease() -> bool {
    let granter = Granter::take_office(Millis(0), NodeId(9), 1, TIMES);
    granter.fence(TIMES.lease + TIMES.margin, &[NODE]) != Fence::Passed
}

fn peers_open_nothing() -> bool {
    let mut gate = gate();
    let open_for = Some(TIMES.lease);
    gate.step(Millis(1), Input::Peer { node: NodeId(2), lineage: chain().last(), open_for });
    gate.closed(Millis(1)).is_some()
}

fn refused(granter: &mut Granter, now: Millis) -> bool {
    let (holder, lineage) = (holder(), chain().last());
    let renewal = Renewal { request: 1, holder, lineage, holds: None };
    let actions = granter.step(now, &registry(), granter::Input::Renewal(renewal));
    actions.iter().any(|action| matches!(action, granter::Action::Refuse(..)))
}

fn unconfirmed_is_refused() -> bool {
    refused(&mut Granter::take_office(Millis(0), NodeId(9), 1, TIMES), Millis(0))
}

fn confirmation_lapses() -> bool {
    let mut granter = Granter::take_office(Millis(0), NodeId(9), 1, TIMES);
    let asked = granter.step(Millis(0), &registry(), granter::Input::Tick);
    let [granter::Action::Ask(_, question)] = asked[..] else { panic!("{asked:?}") };
    let (holder, lineage) = (holder(), chain().last());
    let answer = Answer { id: question.id, holder, lineage, held: None };
    granter.step(Millis(1), &registry(), granter::Input::Answer(answer));
    assert!(!refused(&mut granter.clone(), Millis(2)));
    refused(&mut granter, TIMES.lease)
}

fn forks_are_seen() -> bool {
    let once = chain().extended(link(2, 2)).unwrap();
    let twice = chain().extended(link(2, 3)).unwrap().extended(link(3, 4)).unwrap();
    once.kinship(&twice) == Kinship::Forked
}

fn older_entries_have_no_effect() -> bool {
    let mount = Mount { chain: chain().extended(link(2, 2)).unwrap(), node: NODE, term: 1 };
    admit_entry(Some(&mount), chain().last(), 1).is_err()
}

fn older_steps_are_refused() -> bool {
    let mut fence = StepFence::default();
    fence.admit(1, StepId { term: 2, step: 1 }).unwrap();
    fence.admit(1, StepId { term: 1, step: 2 }).is_err()
}

#[test]
fn each_rule_has_a_claim_that_breaks_without_it() {
    let claims: [(Mutant, fn() -> bool); 10] = [
        (Mutant::GateOpenAtBoot, closed_at_boot),
        (Mutant::LeaseFromReceipt, counts_from_sending),
        (Mutant::LatestSendingTime, counts_from_its_own_request),
        (Mutant::NoDriftMargin, takeover_waits_longer_than_a_lease),
        (Mutant::PeerOpensGate, peers_open_nothing),
        (Mutant::ColdStartUnconfirmed, unconfirmed_is_refused),
        (Mutant::ConfirmationNeverLapses, confirmation_lapses),
        (Mutant::LineageByNumber, forks_are_seen),
        (Mutant::OlderLineageApplied, older_entries_have_no_effect),
        (Mutant::StaleStepAccepted, older_steps_are_refused),
    ];
    assert_eq!(claims.map(|(mutant, _)| mutant), Mutant::PROTOCOL);
    for (mutant, claim) in claims {
        Mutant::plant(None);
        assert!(claim(), "{mutant:?}: the claim does not hold with every rule in place");
        Mutant::plant(Some(mutant));
        let survived = claim();
        Mutant::plant(None);
        assert!(!survived, "{mutant:?}: the claim holds although the rule is left out");
    }
    // What the shell does first is always to save.
    let mut gate = gate();
    gate.step(Millis(10), grant(1));
    let newer = chain().extended(LineageStep { kind: LineageKind::ActivateFenced, ..link(2, 2) });
    let actions = gate.step(Millis(20), Input::Chain(newer.unwrap()));
    assert!(matches!(actions[..], [Action::Closed(_), Action::SaveLineage(_)]), "{actions:?}");
}
