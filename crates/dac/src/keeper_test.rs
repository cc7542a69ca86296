//! Who is fed what, and in which order.

use std::collections::BTreeSet;
use std::vec;

use dag_types::{Boot, RegisteredNode, RegisteredSite, StoreId};

use super::*;
use crate::gate::Saved;
use crate::message::{NotGranted, Refusal};

const OWN: NodeId = NodeId(1);
const TERM: u64 = 7;
const TIMES: LeaseTimes = LeaseTimes::DEFAULT;

fn holder() -> Holder {
    Holder { node: OWN, store: StoreId([1; 16]), boot: Boot { counter: 1, id: 11 } }
}

fn registry(grant: Option<GrantId>) -> Registry {
    let Holder { node, store, boot } = holder();
    let lists = vec![BTreeSet::from([OWN])];
    Registry {
        chain: LineageChain::first(ActivationId([1; 16])),
        sites: vec![RegisteredSite { name: "A".into(), started: true, lists }],
        nodes: vec![RegisteredNode { node, site: "A".into(), store, boot, grant }],
    }
}

struct Shell {
    keeper: Keeper,
    gate: DacGate,
}

impl Shell {
    fn new() -> Self {
        let saved = Saved { chain: registry(None).chain, promise: None };
        let gate = DacGate::at_boot(Millis(0), holder(), TIMES, saved);
        Self { keeper: Keeper::new(holder(), TIMES), gate }
    }

    fn look(&mut self, now: u64, office: Option<u64>) -> bool {
        let leader = Some(if office.is_some() { OWN } else { NodeId(9) });
        self.keeper.look(Millis(now), Seen { leader, office, store_failed: false })
    }

    /// Feeds all that waits at one moment.
    fn feed(&mut self, now: u64) -> Vec<Action> {
        let mut all = Vec::new();
        while let Some(actions) = self.keeper.step(&mut self.gate, now * NANOS) {
            all.extend(actions);
        }
        all
    }

    fn hear(&mut self, now: u64, heard: Heard) -> Vec<Action> {
        self.keeper.take_in(heard);
        self.feed(now)
    }

    fn message(&mut self, now: u64, message: Message) -> Vec<Action> {
        let lineage = registry(None).chain.last();
        self.hear(now, Heard::Message { from: NodeId(9), lineage, message })
    }
}

#[test]
fn a_control_leader_grants_to_itself_by_the_same_rules_and_without_the_network() {
    let mut shell = Shell::new();
    assert!(shell.look(1000, Some(TERM)), "it takes office");
    let asked = shell.hear(1000, Heard::Applied(registry(None)));
    assert_eq!(asked, [], "its own question is not answered yet, so its request was refused");
    shell.keeper.tick();
    let asked = shell.feed(1600);
    let round = |request| Action::Round { term: TERM, node: OWN, request };
    assert_eq!(asked, [round(2)]);
    let done = |term| Heard::Round { term, node: OWN, request: 2, registry: registry(None) };
    assert_eq!(shell.hear(1700, done(TERM - 1)), [], "of an earlier term, for nobody");
    let asked = shell.hear(1700, done(TERM));
    let [Action::Record { term: TERM, opening }] = asked[..] else { panic!("{asked:?}") };
    let grant = opening.grant;
    let recorded = Heard::Recorded { term: TERM, grant, registry: registry(Some(grant)) };
    let opened = shell.hear(1900, recorded);
    let until = Millis(1600) + TIMES.lease;
    let lease = Lease { grant, granter: OWN, sent: 1600 * NANOS, ttl: TIMES.lease, until };
    assert_eq!(opened, [Action::Opened(grant, Some(lease))]);
    assert!(shell.keeper.turned(true) && !shell.keeper.turned(true));
}

#[test]
fn a_granter_ends_with_its_term_and_the_next_one_has_heard_nothing() {
    let mut shell = Shell::new();
    assert!(shell.look(1000, Some(TERM)));
    shell.hear(1000, Heard::Applied(registry(None)));
    shell.keeper.tick();
    shell.feed(1600);
    assert!(shell.keeper.confirmation(Millis(1600)).unwrap().holds());
    assert!(shell.look(1600, Some(TERM + 1)));
    assert!(!shell.keeper.confirmation(Millis(1600)).unwrap().holds());
    assert!(!shell.look(1700, None));
    assert!(shell.keeper.granter().is_none());
}

#[test]
fn what_a_peer_says_opens_nothing_and_whoever_asks_is_shown_the_chain() {
    let mut shell = Shell::new();
    shell.look(1000, None);
    let asked = shell.hear(1000, Heard::Applied(registry(None)));
    let [Action::Tell(NodeId(9), Message::Renewal(renewal))] = asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!((renewal.request, renewal.holds), (1, None));
    let shown = shell.message(1001, Message::AskLineage);
    let chain = registry(None).chain;
    assert_eq!(shown, [Action::Tell(NodeId(9), Message::Lineage(chain))]);
    let why = NotGranted::UnknownNode(OWN);
    assert_eq!(shell.message(1002, Message::Refusal(Refusal { request: 1, why })), []);
    assert!(shell.gate.closed(Millis(1002)).is_some());
}

#[test]
fn a_failed_store_is_fed_once_and_closes_for_good() {
    let mut shell = Shell::new();
    let failed = Seen { leader: None, office: None, store_failed: true };
    shell.keeper.look(Millis(5), failed);
    shell.keeper.look(Millis(6), failed);
    assert_eq!(shell.keeper.work.len(), 1);
    shell.feed(6);
    assert_eq!(shell.gate.closed(Millis(6)), Some(Closed::StoreFailed));
}
