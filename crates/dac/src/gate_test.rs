//! What opens a gate, what extends it, what closes it.

use std::collections::BTreeSet;
use std::vec;

use dag_types::{LineageStep, RegisteredNode, RegisteredSite, StoreId};

use super::*;
use crate::message::QuestionId;

const NODE: NodeId = NodeId(1);
const LEADER: NodeId = NodeId(9);
const GRANT: GrantId = GrantId { term: 3, number: 1 };
const TIMES: LeaseTimes = LeaseTimes::DEFAULT;

fn holder() -> Holder {
    Holder { node: NODE, store: StoreId([1; 16]), boot: Boot { counter: 4, id: 44 } }
}

fn chain(ids: &[u8]) -> LineageChain {
    let kinds = [LineageKind::ActivateFenced; 9];
    chain_of(ids, &kinds)
}

fn chain_of(ids: &[u8], kinds: &[LineageKind]) -> LineageChain {
    let start = LineageChain::first(ActivationId([ids[0]; 16]));
    ids[1..].iter().enumerate().fold(start, |chain, (i, id)| {
        let lineage = Lineage { epoch: i as u64 + 2, activation: ActivationId([*id; 16]) };
        chain.extended(LineageStep { lineage, kind: kinds[i], rejected: vec![] }).unwrap()
    })
}

fn registry(ids: &[u8], started: bool) -> Registry {
    let Holder { node, store, boot } = holder();
    Registry {
        chain: chain(ids),
        sites: vec![RegisteredSite {
            name: "A".into(),
            started,
            lists: vec![BTreeSet::from([node])],
        }],
        nodes: vec![RegisteredNode { node, site: "A".into(), store, boot, grant: None }],
    }
}

fn at(ms: u64) -> Millis {
    Millis(ms)
}

/// A gate that has asked request 1 at 1000.
fn asking() -> DacGate {
    let saved = Saved { chain: chain(&[1]), promise: None };
    let mut gate = DacGate::at_boot(at(1000), holder(), TIMES, saved);
    assert_eq!(gate.step(at(1000), Input::Applied(registry(&[1], true))), []);
    let asked = gate.step(at(1000), Input::ControlLeader(Some(LEADER)));
    assert_eq!(requests(&asked), [(1, None)]);
    gate
}

fn grant(gate: &DacGate, request: u64) -> Input {
    let (holder, lineage) = (gate.holder(), gate.chain().last());
    Input::Grant(Grant { request, holder, lineage, grant: GRANT, ttl: TIMES.lease })
}

fn open() -> DacGate {
    let mut gate = asking();
    let input = grant(&gate, 1);
    gate.step(at(1100), input);
    assert_eq!(gate.opening(), Some((GRANT, at(9000))));
    gate
}

fn requests(actions: &[Action]) -> Vec<(u64, Option<GrantId>)> {
    let request = |action: &Action| match action {
        Action::Request(_, renewal) => Some((renewal.request, renewal.holds)),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn is_open(gate: &DacGate, now: u64) -> bool {
    gate.closed(at(now)).is_none()
}

#[test]
fn a_gate_is_closed_at_every_start_and_asks_only_what_the_control_log_knows_of_it() {
    let saved = Saved { chain: chain(&[1]), promise: None };
    let mut gate = DacGate::at_boot(at(1000), holder(), TIMES, saved);
    assert_eq!(gate.closed(at(1000)), Some(Closed::NeverOpened));
    assert_eq!(gate.step(at(1000), Input::ControlLeader(Some(LEADER))), []);
    let mut other = registry(&[1], true);
    other.nodes[0].boot.counter = 3;
    assert_eq!(gate.step(at(1001), Input::Applied(other.clone())), []);
    assert!(gate.silent_because().unwrap().contains("not in its control log"));
    // A grant all the same opens nothing.
    let input = grant(&gate, 1);
    gate.step(at(1002), input);
    assert!(!is_open(&gate, 1002));
    other.nodes[0].boot = holder().boot;
    assert_eq!(requests(&gate.step(at(1003), Input::Applied(other))), [(1, None)]);
}

#[test]
fn the_lease_counts_from_the_sending_of_the_request() {
    let mut gate = asking();
    let input = grant(&gate, 1);
    let actions = gate.step(at(1900), input);
    assert_eq!(actions[0], Action::Opened { grant: GRANT, until: at(9000) });
    assert!(is_open(&gate, 8999));
    assert_eq!(gate.closed(at(9000)), Some(Closed::LeaseEnded));
}

#[test]
fn an_older_requests_grant_extends_only_from_its_own_sending() {
    let mut gate = open();
    assert_eq!(requests(&gate.step(at(2600), Input::Tick)), [(2, Some(GRANT))]);
    assert_eq!(requests(&gate.step(at(3100), Input::Tick)), [(3, Some(GRANT))]);
    let (second, third) = (grant(&gate, 2), grant(&gate, 3));
    assert_eq!(gate.step(at(3200), second), [Action::Extended { until: at(10_600) }]);
    assert_eq!(gate.step(at(3300), third), [Action::Extended { until: at(11_100) }]);
}

#[test]
fn a_grant_is_used_once_and_never_shortens_the_lease() {
    let mut gate = open();
    gate.step(at(2600), Input::Tick);
    gate.step(at(3100), Input::Tick);
    let (second, third) = (grant(&gate, 2), grant(&gate, 3));
    gate.step(at(3200), third);
    assert_eq!(gate.step(at(3300), second.clone()), []);
    assert_eq!(gate.step(at(3300), second), []);
    assert_eq!(gate.opening(), Some((GRANT, at(11_100))));
}

#[test]
fn the_gate_closes_by_itself_and_a_late_grant_does_not_open_it() {
    let mut gate = open();
    gate.step(at(8900), Input::Tick);
    let late = grant(&gate, 2);
    let actions = gate.step(at(9000), Input::Tick);
    assert_eq!(actions[0], Action::Closed(Closed::LeaseEnded));
    // It asks at once for a new opening, and what was asked before is forgotten.
    assert_eq!(requests(&actions), [(3, None)]);
    assert_eq!(gate.step(at(9001), late), []);
    assert!(!is_open(&gate, 9001));
}

#[test]
fn time_alone_closes_the_gate_without_a_step() {
    let gate = open();
    assert!(is_open(&gate, 8999));
    assert!(!is_open(&gate, 30_000));
}

#[test]
fn a_grant_for_another_disk_start_or_lineage_opens_nothing() {
    let wrong: [fn(&mut Grant); 4] = [
        |grant| grant.holder.store = StoreId([2; 16]),
        |grant| grant.holder.boot.id = 45,
        |grant| grant.holder.node = NodeId(2),
        |grant| grant.lineage.epoch = 2,
    ];
    for spoil in wrong {
        let mut gate = asking();
        let Input::Grant(mut grant) = grant(&gate, 1) else { unreachable!() };
        spoil(&mut grant);
        gate.step(at(1100), Input::Grant(grant));
        assert!(!is_open(&gate, 1100), "{grant:?}");
    }
}

#[test]
fn a_peers_word_opens_and_extends_nothing() {
    let mut gate = asking();
    let lineage = gate.chain().last();
    let word = Input::Peer { node: NodeId(2), lineage, open_for: Some(at(8000)) };
    gate.step(at(1100), word.clone());
    assert!(!is_open(&gate, 1100));
    let mut gate = open();
    gate.step(at(8000), word);
    assert!(!is_open(&gate, 9000));
}

#[test]
fn a_newer_lineage_closes_at_once_and_counts_once_it_is_saved() {
    let mut gate = open();
    let newer = registry(&[1, 2], true);
    let lineage = newer.chain.last();
    let actions = gate.step(at(2000), Input::Applied(newer.clone()));
    assert_eq!(actions[0], Action::Closed(Closed::NewerLineage(lineage)));
    assert_eq!(actions[1], Action::SaveLineage(newer.chain.clone()));
    assert_eq!(actions.len(), 2, "nothing is asked before the lineage is on the disk");
    assert_eq!(gate.chain().last().epoch, 1);
    let actions = gate.step(at(2001), Input::LineageSaved(lineage));
    assert_eq!(gate.chain().last(), lineage);
    assert_eq!(requests(&actions).len(), 1);
}

#[test]
fn an_older_lineage_changes_nothing() {
    let saved = Saved { chain: chain(&[1, 2]), promise: None };
    let mut gate = DacGate::at_boot(at(1000), holder(), TIMES, saved);
    assert_eq!(gate.step(at(1000), Input::Chain(chain(&[1]))), []);
    assert_eq!(gate.chain().last().epoch, 2);
}

#[test]
fn a_fork_closes_whatever_the_numbers_say() {
    let mut gate = open();
    let fork = chain(&[7, 8, 9]);
    let actions = gate.step(at(2000), Input::Chain(fork.clone()));
    assert_eq!(actions, [Action::Closed(Closed::Forked(fork.last()))]);
    assert!(gate.silent_because().unwrap().contains("FORKED"));
}

#[test]
fn an_open_gate_that_meets_an_unfenced_child_of_its_lineage_is_forked() {
    let child = chain_of(&[1, 2], &[LineageKind::ActivateUnfenced]);
    let mut gate = open();
    gate.step(at(2000), Input::Chain(child.clone()));
    assert_eq!(gate.closed(at(2000)), Some(Closed::Forked(child.last())));
    // A closed one comes back to it.
    let mut gate = asking();
    let actions = gate.step(at(2000), Input::Chain(child.clone()));
    assert_eq!(actions, [Action::SaveLineage(child)]);
}

#[test]
fn a_persons_choice_ends_the_fork() {
    let mut gate = open();
    let lost = gate.chain().last().activation;
    let other = chain_of(&[1, 2], &[LineageKind::ActivateUnfenced]);
    gate.step(at(2000), Input::Chain(other.clone()));
    let lineage = Lineage { epoch: 3, activation: ActivationId([3; 16]) };
    let link = LineageStep { lineage, kind: LineageKind::Accept, rejected: vec![lost] };
    let healed = other.extended(link).unwrap();
    gate.step(at(3000), Input::Chain(healed));
    gate.step(at(3001), Input::LineageSaved(lineage));
    assert_eq!(gate.silent_because(), None);
}

#[test]
fn a_stopped_site_and_a_failed_store_close_the_gate_and_keep_it_silent() {
    let mut gate = open();
    let actions = gate.step(at(2000), Input::Applied(registry(&[1], false)));
    assert_eq!(actions, [Action::Closed(Closed::SiteStopped("A".into()))]);
    assert_eq!(gate.step(at(9000), Input::Tick), []);
    let mut gate = open();
    let actions = gate.step(at(2000), Input::StoreFailed);
    assert_eq!(actions, [Action::Closed(Closed::StoreFailed)]);
    assert_eq!(gate.step(at(9000), Input::Tick), []);
}

#[test]
fn a_later_registered_start_of_the_same_node_closes_the_gate() {
    let mut gate = open();
    let mut registry = registry(&[1], true);
    registry.nodes[0].boot = Boot { counter: 4, id: 45 };
    let actions = gate.step(at(2000), Input::Applied(registry));
    assert_eq!(actions, [Action::Closed(Closed::Superseded)]);
}

#[test]
fn a_machine_that_slept_finds_its_gate_closed() {
    let mut gate = open();
    assert_eq!(gate.step(at(1200), Input::Clocks { monotonic: at(200) }), []);
    assert_eq!(requests(&gate.step(at(3000), Input::Clocks { monotonic: at(2000) })).len(), 1);
    let actions = gate.step(at(5000), Input::Clocks { monotonic: at(2100) });
    assert_eq!(actions[0], Action::Closed(Closed::ClockJump(at(1900))));
}

#[test]
fn a_clock_that_goes_back_closes_the_gate() {
    let mut gate = open();
    assert!(!is_open(&gate, 1000));
    let actions = gate.step(at(1000), Input::Tick);
    assert_eq!(actions[0], Action::Closed(Closed::ClockJump(at(100))));
}

#[test]
fn a_permit_ends_with_its_attempt_and_inside_the_lease() {
    let gate = open();
    let database = DatabaseId(16);
    let permit = gate.permit(at(1100), database, None).unwrap();
    assert_eq!(permit.deadline(), at(2700));
    let long = gate.permit(at(1100), database, Some(at(60_000))).unwrap();
    assert_eq!(long.deadline(), at(2700));
    let short = gate.permit(at(1100), database, Some(at(1200))).unwrap();
    assert_eq!(short.deadline(), at(1200));
    assert_eq!(short.check_time(at(1200)), Err(Closed::Deadline));
    let refused = gate.permit(at(8000), database, None);
    assert_eq!(refused, Err(Closed::TooShort { left: at(1000), wanted: at(1600) }));
    assert_eq!(gate.permit(at(9000), database, None), Err(Closed::LeaseEnded));
}

#[test]
fn an_answer_needs_the_very_opening_that_the_permit_was_given_in() {
    let mut gate = open();
    let permit = gate.permit(at(1100), DatabaseId(16), None).unwrap();
    assert_eq!(gate.upholds(at(1200), &permit), Ok(()));
    assert_eq!(gate.upholds(at(2700), &permit), Err(Closed::Deadline));
    gate.step(at(1300), Input::Applied(registry(&[1], false)));
    assert_eq!(gate.upholds(at(1300), &permit), Err(Closed::SiteStopped("A".into())));
    let asked = gate.step(at(1400), Input::Applied(registry(&[1], true)));
    let request = requests(&asked)[0].0;
    let input = grant(&gate, request);
    gate.step(at(1500), input);
    assert!(is_open(&gate, 1500));
    assert_eq!(gate.upholds(at(1500), &permit), Err(Closed::AnotherOpening));
}

fn question(gate: &DacGate, number: u64) -> Input {
    let id = QuestionId { term: 3, number };
    Input::Question(Question { id, from: LEADER, lineage: gate.chain().last() })
}

#[test]
fn an_answer_says_what_is_left_and_binds_for_two_leases() {
    let mut gate = open();
    let input = question(&gate, 1);
    let actions = gate.step(at(2000), input);
    let Action::Answer(to, answer) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((*to, answer.held), (LEADER, Some(at(7000))));
    let activation = ActivationId([5; 16]);
    let word = NoPart::WordGiven { leader: LEADER, left: at(1) };
    let reasons = gate.reasons_against_part(at(17_999), activation, &[NODE]);
    assert!(reasons.contains(&word), "{reasons:?}");
    assert_eq!(gate.reasons_against_part(at(17_999), activation, &[NODE, LEADER]), []);
    assert_eq!(gate.reasons_against_part(at(18_000), activation, &[NODE]), []);
}

#[test]
fn a_node_that_just_started_has_heard_everybody() {
    let gate = asking();
    let just = NoPart::JustStarted { ago: at(15_999), needed: at(16_000) };
    let activation = ActivationId([5; 16]);
    assert_eq!(gate.reasons_against_part(at(16_999), activation, &[NODE]), [just]);
    assert_eq!(gate.reasons_against_part(at(17_000), activation, &[NODE]), []);
}

#[test]
fn a_promise_closes_the_gate_and_answers_nobody_until_it_is_void_or_complete() {
    let mut gate = open();
    gate.step(at(20_000), Input::Tick);
    let activation = ActivationId([5; 16]);
    let participants = vec![NODE];
    let take = Input::TakePart { activation, participants };
    assert_eq!(gate.step(at(20_001), take), [Action::SavePromise(activation)]);
    gate.step(at(20_002), Input::PromiseSaved(activation));
    let input = question(&gate, 1);
    assert_eq!(gate.step(at(20_003), input), []);
    let saved = Saved { chain: chain(&[1]), promise: Some(activation) };
    let mut after_a_start = DacGate::at_boot(at(30_000), holder(), TIMES, saved);
    let input = question(&after_a_start, 2);
    assert_eq!(after_a_start.step(at(30_001), input), []);
    gate.step(at(20_004), Input::PromiseVoid(activation));
    let input = question(&gate, 3);
    assert!(!gate.step(at(20_005), input).is_empty());
}

#[test]
fn a_question_of_another_lineage_gets_no_answer() {
    let mut gate = open();
    let lineage = Lineage { epoch: 2, activation: ActivationId([2; 16]) };
    let id = QuestionId { term: 3, number: 1 };
    let actions = gate.step(at(1200), Input::Question(Question { id, from: LEADER, lineage }));
    assert_eq!(actions, [Action::AskChain(LEADER)]);
}

#[test]
fn a_refused_gate_asks_again_after_a_renewal_and_keeps_the_reason() {
    let mut gate = asking();
    let why = NotGranted::SiteStopped("A".into());
    gate.step(at(1100), Input::Refusal(Refusal { request: 1, why: why.clone() }));
    assert_eq!(gate.refused(), Some(&why));
    assert_eq!(gate.next_deadline(), Some(at(1600)));
    assert_eq!(requests(&gate.step(at(1599), Input::Tick)), []);
    assert_eq!(requests(&gate.step(at(1600), Input::Tick)), [(2, None)]);
}

#[test]
fn an_opening_request_is_one_at_a_time() {
    let mut gate = asking();
    assert_eq!(requests(&gate.step(at(1500), Input::Tick)), []);
    let first = grant(&gate, 1);
    assert_eq!(requests(&gate.step(at(2600), Input::Tick)), [(2, None)]);
    gate.step(at(2700), first);
    assert!(!is_open(&gate, 2700), "the first request was given up");
}
