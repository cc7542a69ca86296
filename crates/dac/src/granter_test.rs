//! When a control leader grants, and when a takeover is safe.

use std::collections::BTreeSet;
use std::vec;

use dag_types::{ActivationId, LineageChain, StoreId};

use super::*;

const OWN: NodeId = NodeId(9);
const TERM: u64 = 3;
const TIMES: LeaseTimes = LeaseTimes::DEFAULT;

/// Sites A (1, 2) and B (3, 4), both started.
fn registry() -> Registry {
    let node = |id: u64| RegisteredNode {
        node: NodeId(id),
        site: if id < 3 { "A" } else { "B" }.into(),
        store: StoreId([id as u8; 16]),
        boot: Boot { counter: 1, id },
        grant: None,
    };
    let site = |name: &str, ids: [u64; 2]| RegisteredSite {
        name: name.into(),
        started: true,
        lists: vec![ids.into_iter().map(NodeId).collect()],
    };
    Registry {
        chain: LineageChain::first(ActivationId([1; 16])),
        sites: vec![site("A", [1, 2]), site("B", [3, 4])],
        nodes: (1..5).map(node).collect(),
    }
}

fn holder(id: u64) -> Holder {
    let node = registry().node(NodeId(id)).unwrap().clone();
    Holder { node: node.node, store: node.store, boot: node.boot }
}

struct Leader {
    granter: Granter,
    registry: Registry,
    questions: BTreeMap<u64, Question>,
}

impl Leader {
    fn new(now: u64) -> Self {
        let granter = Granter::take_office(Millis(now), OWN, TERM, TIMES);
        Self { granter, registry: registry(), questions: BTreeMap::new() }
    }

    fn step(&mut self, now: u64, input: Input) -> Vec<Action> {
        let actions = self.granter.step(Millis(now), &self.registry, input);
        for action in &actions {
            if let Action::Ask(node, question) = action {
                self.questions.insert(node.0, *question);
            }
        }
        actions.into_iter().filter(|action| !matches!(action, Action::Ask(..))).collect()
    }

    /// The node answers the last question that it was asked.
    fn hear(&mut self, now: u64, id: u64, held: Option<u64>) {
        let lineage = self.registry.chain.last();
        let answer = Answer {
            id: self.questions[&id].id,
            holder: holder(id),
            lineage,
            held: held.map(Millis),
        };
        self.step(now, Input::Answer(answer));
    }

    fn confirmed(&self, now: u64) -> bool {
        self.granter.confirmation(Millis(now), &self.registry).holds()
    }

    fn renewal(&self, id: u64, request: u64, holds: Option<GrantId>) -> Input {
        let lineage = self.registry.chain.last();
        Input::Renewal(Renewal { request, holder: holder(id), lineage, holds })
    }

    /// Drives an opening request to its grant.
    fn open(&mut self, now: u64, id: u64) -> Grant {
        let renewal = self.renewal(id, 1, None);
        assert_eq!(self.step(now, renewal), [Action::Round { node: NodeId(id), request: 1 }]);
        let actions = self.step(now, Input::RoundDone { node: NodeId(id), request: 1 });
        let [Action::Record(opening)] = actions[..] else { panic!("{actions:?}") };
        self.registry.nodes[id as usize - 1].grant = Some(opening.grant);
        let actions = self.step(now, Input::Recorded(opening.grant));
        let [Action::Send(_, grant)] = actions[..] else { panic!("{actions:?}") };
        grant
    }
}

/// A leader that asked at 1000 and heard one node of each site.
fn confirmed() -> Leader {
    let mut leader = Leader::new(1000);
    leader.step(1000, Input::Tick);
    leader.hear(1100, 1, None);
    leader.hear(1100, 3, None);
    leader
}

fn refusal(actions: &[Action]) -> &NotGranted {
    match actions {
        [Action::Refuse(_, refusal)] => &refusal.why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn half_of_every_started_site_confirms_and_a_silent_site_does_not() {
    let mut leader = Leader::new(1000);
    leader.step(1000, Input::Tick);
    assert!(!leader.confirmed(1000));
    leader.hear(1100, 1, None);
    leader.hear(1100, 2, None);
    assert!(!leader.confirmed(1100), "site B is silent");
    let words = leader.granter.confirmation(Millis(1100), &leader.registry).words();
    assert!(words.contains("site B: 0 of 2 data nodes heard, silent: 3, 4"), "{words}");
    leader.hear(1200, 4, None);
    assert!(leader.confirmed(1200));
}

#[test]
fn one_holder_of_a_grant_confirms_until_its_grant_ends() {
    let mut leader = Leader::new(1000);
    leader.step(1000, Input::Tick);
    leader.hear(1100, 1, Some(3000));
    // Counted from the sending of the question, less the margin.
    assert!(leader.confirmed(3749));
    assert!(!leader.confirmed(3750));
}

#[test]
fn a_stopped_site_is_not_asked_for() {
    let mut leader = Leader::new(1000);
    leader.registry.sites[1].started = false;
    leader.step(1000, Input::Tick);
    leader.hear(1100, 1, None);
    assert!(leader.confirmed(1100));
}

#[test]
fn confirmation_lapses_one_lease_less_the_margin_after_its_question() {
    let leader = confirmed();
    assert!(leader.confirmed(8749));
    assert!(!leader.confirmed(8750));
}

#[test]
fn while_a_sites_list_changes_half_of_both_lists_is_needed() {
    let mut leader = confirmed();
    leader.registry.sites[1].lists.push(BTreeSet::from([NodeId(4)]));
    assert!(!leader.confirmed(1200), "node 3 is no half of the new list");
    leader.hear(1200, 4, None);
    assert!(leader.confirmed(1200));
}

#[test]
fn an_answer_of_another_term_another_node_or_another_disk_does_not_count() {
    let wrong: [fn(&mut Answer); 3] = [
        |answer| answer.id.term = TERM - 1,
        |answer| answer.holder = holder(4),
        |answer| answer.holder.store = StoreId([9; 16]),
    ];
    for spoil in wrong {
        let mut leader = Leader::new(1000);
        leader.step(1000, Input::Tick);
        leader.hear(1100, 1, None);
        let lineage = leader.registry.chain.last();
        let id = leader.questions[&3].id;
        let mut answer = Answer { id, holder: holder(3), lineage, held: None };
        spoil(&mut answer);
        leader.step(1100, Input::Answer(answer));
        assert!(!leader.confirmed(1100), "{answer:?}");
    }
}

#[test]
fn an_answer_to_a_forgotten_question_is_dropped() {
    let mut leader = Leader::new(1000);
    leader.step(1000, Input::Tick);
    let old = leader.questions[&3];
    leader.step(9000, Input::Tick);
    leader.hear(9100, 1, None);
    let lineage = leader.registry.chain.last();
    let late = Answer { id: old.id, holder: holder(3), lineage, held: None };
    leader.step(9100, Input::Answer(late));
    assert!(!leader.confirmed(9100));
}

#[test]
fn an_answer_of_another_lineage_does_not_confirm() {
    let mut leader = Leader::new(1000);
    leader.step(1000, Input::Tick);
    leader.hear(1100, 1, None);
    let lineage = Lineage { epoch: 2, activation: ActivationId([2; 16]) };
    let id = leader.questions[&3].id;
    leader.step(1100, Input::Answer(Answer { id, holder: holder(3), lineage, held: None }));
    assert!(!leader.confirmed(1100));
}

#[test]
fn an_opening_is_recorded_before_it_is_granted() {
    let mut leader = confirmed();
    let grant = leader.open(1200, 1);
    assert_eq!(grant.grant, GrantId { term: TERM, number: 1 });
    assert_eq!((grant.holder, grant.ttl), (holder(1), TIMES.lease));
}

#[test]
fn an_opening_whose_record_is_not_in_the_log_is_not_granted() {
    let mut leader = confirmed();
    let renewal = leader.renewal(1, 1, None);
    leader.step(1200, renewal);
    leader.step(1200, Input::RoundDone { node: NodeId(1), request: 1 });
    let grant = GrantId { term: TERM, number: 1 };
    let actions = leader.step(1200, Input::Recorded(grant));
    assert_eq!(refusal(&actions), &NotGranted::NotTheLastOpening(grant));
}

#[test]
fn a_renewal_names_the_last_opening_also_after_the_leader_changed() {
    let mut leader = confirmed();
    let before = GrantId { term: 2, number: 7 };
    leader.registry.nodes[0].grant = Some(before);
    let renewal = leader.renewal(1, 5, Some(before));
    leader.step(1200, renewal);
    let actions = leader.step(1300, Input::RoundDone { node: NodeId(1), request: 5 });
    let [Action::Send(_, grant)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!((grant.request, grant.grant), (5, before));
    let other = leader.renewal(1, 6, Some(GrantId { term: 2, number: 6 }));
    assert!(matches!(refusal(&leader.step(1300, other)), NotGranted::NotTheLastOpening(_)));
}

#[test]
fn lists_lineage_store_and_boot_are_checked_on_what_the_round_showed() {
    let changes: [fn(&mut Registry); 5] = [
        |registry| registry.sites[0].started = false,
        |registry| registry.chain = LineageChain::first(ActivationId([2; 16])),
        |registry| registry.nodes[0].store = StoreId([8; 16]),
        |registry| registry.nodes[0].boot.counter = 2,
        |registry| drop(registry.nodes.remove(0)),
    ];
    for change in changes {
        let mut leader = confirmed();
        let renewal = leader.renewal(1, 1, None);
        leader.step(1200, renewal);
        change(&mut leader.registry);
        let actions = leader.step(1300, Input::RoundDone { node: NodeId(1), request: 1 });
        refusal(&actions);
    }
}

#[test]
fn an_unconfirmed_leader_refuses_and_says_which_site_is_silent() {
    let mut leader = Leader::new(1000);
    let renewal = leader.renewal(1, 1, None);
    let actions = leader.step(1000, renewal);
    let NotGranted::NotConfirmed(words) = refusal(&actions) else { panic!("{actions:?}") };
    assert!(words.contains("site A") && words.contains("start one of them"), "{words}");
}

#[test]
fn a_round_that_began_for_an_older_request_answers_no_newer_one() {
    let mut leader = confirmed();
    let renewal = leader.renewal(1, 1, None);
    leader.step(1200, renewal);
    let renewal = leader.renewal(1, 2, None);
    leader.step(1300, renewal);
    assert_eq!(leader.step(1400, Input::RoundDone { node: NodeId(1), request: 1 }), []);
}

#[test]
fn a_takeover_waits_from_the_later_of_office_and_last_grant() {
    let mut leader = confirmed();
    let site = [NodeId(1), NodeId(2)];
    let wait = TIMES.takeover_wait().0;
    let until = Millis(1000 + wait);
    assert_eq!(leader.granter.fence(Millis(1200), &site), Fence::Wait { until });
    leader.open(2000, 1);
    let until = Millis(2000 + wait);
    assert_eq!(leader.granter.fence(until - Millis(1), &site), Fence::Wait { until });
    assert_eq!(leader.granter.fence(until, &site), Fence::Passed);
    // Grants to others do not matter.
    assert_eq!(leader.granter.fence(Millis(1000 + wait), &[NodeId(2)]), Fence::Passed);
}

#[test]
fn every_data_node_is_asked_once_per_renewal() {
    let mut granter = Granter::take_office(Millis(0), OWN, TERM, TIMES);
    let ask =
        |granter: &mut Granter, now| granter.step(Millis(now), &registry(), Input::Tick).len();
    assert_eq!(ask(&mut granter, 0), 4);
    assert_eq!(ask(&mut granter, 499), 0);
    assert_eq!(granter.next_deadline(), Millis(500));
    assert_eq!(ask(&mut granter, 500), 4);
}
