//! Hand-made histories: a sound one, and for each rule the smallest change that breaks it.

use dag_types::{ActivationId, Lineage};

use super::*;
use crate::Nanos;
use crate::event::{CopyDigest, ExpectedCopies, Fault, Phase, Run};
use crate::journal::{BootOf, CopyOf, Entry, Event, GateLease, LineageText};
use crate::op::*;

const BOOT: BootOf = BootOf { counter: 1, id: 77 };
const COPY: CopyOf = CopyOf { database: 16, generation: 1, replica: 1 };

fn lineage(epoch: u64) -> Lineage {
    Lineage { epoch, activation: ActivationId([epoch as u8; 16]) }
}

fn place() -> Place {
    Place { mailbox: "ada".into(), folder: "INBOX".into() }
}

fn flags(names: &[&str]) -> Flags {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Builds a history in which operations follow one another, unless told otherwise.
#[derive(Default)]
struct Story {
    history: History,
    clock: Nanos,
    index: u64,
}

impl Story {
    fn add(&mut self, op: Op, answer: Option<Answer>) -> &mut Operation {
        self.index += 1;
        let token = Token { database: 16, lineage: lineage(1), generation: 1, index: self.index };
        let outcome = match answer {
            Some(answer) => Outcome::Ok { answer, token: Some(token) },
            None => Outcome::Unknown { reason: "the history ends before".into() },
        };
        let id = self.history.operations.len() as u64 + 1;
        let invoked = self.clock;
        let returned = Some(self.clock + 5);
        self.clock += 10;
        let operation = Operation { id, client: id % 3, invoked, returned, op, outcome };
        self.history.operations.push(operation);
        self.history.operations.last_mut().expect("just added")
    }

    fn append(&mut self, key: &str, uid: u64, modseq: u64) -> &mut Operation {
        let answer = Answer::Appended { at: vec![AppendedAt { uid_validity: 1, uid, modseq }] };
        self.add(append_op(key), Some(answer))
    }

    fn append_unknown(&mut self, key: &str) -> &mut Operation {
        self.add(append_op(key), None)
    }

    fn store(&mut self, uid: u64, name: &str, modseq: u64) -> &mut Operation {
        let result = StoreResult::Changed;
        let answer = Answer::Stored { result, modseq: Some(modseq), flags: None };
        let (change, flags) = (Change::Add, flags(&[name]));
        self.add(
            Op::Store { place: place(), uid, change, flags, unchanged_since: None },
            Some(answer),
        )
    }

    fn expunge(&mut self, uid: u64, modseq: u64) -> &mut Operation {
        let answer = Answer::Expunged { uids: vec![uid], modseq };
        self.add(Op::Expunge { place: place(), uids: vec![uid] }, Some(answer))
    }

    fn read(&mut self, messages: &[SeenMessage], uid_next: u64, modseq: u64) -> &mut Operation {
        let seen =
            Seen { uid_validity: 1, uid_next, highest_modseq: modseq, messages: messages.to_vec() };
        let op = Op::Read { place: place(), mode: ReadMode::Linearizable };
        self.add(op, Some(Answer::Seen(seen)))
    }

    fn note(&mut self, node: u64, event: Event) -> &mut Entry {
        let at = self.clock;
        self.clock += 10;
        let lineage = Some(LineageText(lineage(1)));
        self.history.journal.push(Entry { at, clock: None, node, boot: BOOT, lineage, event });
        self.history.journal.last_mut().expect("just added")
    }

    fn verdict(&self, rule: Rule) -> Verdict {
        rule.check(&self.history)
    }
}

fn append_op(key: &str) -> Op {
    let (key, body) = (key.to_owned(), format!("body of {key}"));
    Op::Append { places: vec![place()], key, body, flags: Flags::new() }
}

fn message(key: &str, uid: u64, modseq: u64, names: &[&str]) -> SeenMessage {
    let (key, body) = (key.to_owned(), format!("body of {key}"));
    SeenMessage { uid, key, body, modseq, flags: flags(names) }
}

fn acknowledged(term: u64, index: u64, chain: &str, deadline: Nanos) -> Event {
    Event::Acknowledged {
        copy: COPY,
        term,
        index,
        chain: chain.into(),
        durable: index,
        applied: index,
        request: "r".into(),
        deadline,
    }
}

fn lease(grant: u64, sent: Nanos, until: Nanos) -> GateLease {
    GateLease { grant, granter: 9, term: 1, sent, ttl: 1000, until }
}

fn grant(grant: u64, to_node: u64) -> Event {
    Event::GrantCommitted { grant, to_node, to_boot: BOOT, term: 1 }
}

/// A sound history that touches every rule.
fn sound() -> Story {
    let mut story = Story::default();
    story.history.run = Run {
        promised_faults: vec!["crash".into()],
        acknowledged_min: 1,
        copies: vec![ExpectedCopies { database: 16, copies: 2 }],
        gated: true,
        ..Run::default()
    };
    story.note(1, Event::Started { store: "aa".into() });
    story.note(9, grant(5, 1));
    story.note(1, Event::GateOpened(lease(5, 0, 1000)));
    let (store, path) = ("aa".to_owned(), "/copies/16".to_owned());
    let why = "create".to_owned();
    let born = Event::ReplicaBorn { copy: COPY, store: store.clone(), path: path.clone(), why };
    story.note(1, born);
    story.note(1, Event::ReplicaOpened { copy: COPY, store, path });
    story.note(1, Event::Voted { copy: COPY, term: 1, voted_for: 1 });
    story.note(1, acknowledged(1, 3, "c3", 900));
    story.append("a", 1, 2);
    story.append("b", 2, 3);
    story.append_unknown("c").returned = None;
    story.store(1, "seen", 5);
    let seen = [message("a", 1, 5, &["seen"]), message("b", 2, 3, &[])];
    story.read(&seen, 3, 5);
    let late = [message("a", 1, 5, &["seen"]), message("b", 2, 3, &[]), message("c", 3, 6, &[])];
    story.read(&late, 4, 6);
    story.expunge(2, 7);
    story.read(&[late[0].clone(), late[2].clone()], 4, 7);
    let first = story.history.operations[0].invoked;
    let last = story.history.operations.last().expect("there are some").invoked;
    story.history.phases =
        vec![(0, Phase::Before), (first + 7, Phase::Faults), (last, Phase::After)];
    let kind = "crash".to_owned();
    story.history.faults =
        vec![Fault { kind, nodes: vec![1], from: 0, to: Some(5), detail: String::new() }];
    for replica in [1, 2] {
        let digest = "d1".to_owned();
        story.history.digests.push(CopyDigest {
            database: 16,
            replica,
            node: replica,
            index: 9,
            digest,
        });
    }
    story
}

#[track_caller]
fn breaks(story: &Story, rule: Rule, subject: &str) {
    match story.verdict(rule) {
        Verdict::Violated(violation) => {
            assert!(violation.subject.starts_with(subject), "{violation:?}");
            let part = crate::minimise::minimise(&story.history, &violation);
            assert!(rule.is_broken_on(&part, &violation.subject));
            assert!(!crate::timeline::draw(&story.history, &part).is_empty());
        }
        other => panic!("{rule} should be violated ({subject}): {other:?}"),
    }
}

#[test]
fn a_sound_history_holds_every_rule_and_each_rule_looked_at_something() {
    let report = judge(&sound().history);
    for (rule, verdict) in &report.verdicts {
        assert!(matches!(verdict, Verdict::Held(count) if *count > 0), "{rule}: {verdict:?}");
    }
}

#[test]
fn m1_finds_an_acknowledged_message_that_is_gone() {
    let mut story = sound();
    story.append("d", 4, 8);
    story.read(&[message("a", 1, 5, &["seen"]), message("c", 3, 6, &[])], 5, 8);
    breaks(&story, Rule::M1, "lost");
}

#[test]
fn m1_finds_a_message_at_two_uids() {
    let mut story = sound();
    story.read(&[message("c", 3, 6, &[]), message("c", 4, 8, &[])], 5, 8);
    breaks(&story, Rule::M1, "double");
}

#[test]
fn m1_finds_a_message_that_nobody_appended() {
    let mut story = sound();
    story.read(&[message("z", 4, 8, &[])], 5, 8);
    breaks(&story, Rule::M1, "phantom");
}

#[test]
fn m1_finds_a_message_whose_append_failed() {
    let mut story = sound();
    story.append_unknown("d").outcome = Outcome::Fail { reason: "over quota".into() };
    story.read(&[message("d", 4, 8, &[])], 5, 8);
    breaks(&story, Rule::M1, "not appended");
}

#[test]
fn m1_finds_a_changed_body() {
    let mut story = sound();
    let mut changed = message("c", 3, 6, &[]);
    changed.body = "other".into();
    story.read(&[changed], 4, 7);
    breaks(&story, Rule::M1, "other body");
}

#[test]
fn m1_is_unknown_where_nothing_was_read_after_the_last_change() {
    let mut story = sound();
    story.append("d", 4, 8);
    assert!(matches!(story.verdict(Rule::M1), Verdict::Unknown(_)));
}

#[test]
fn m2_finds_a_reused_uid() {
    let mut story = sound();
    story.append("d", 2, 8);
    breaks(&story, Rule::M2, "uid reused");
}

#[test]
fn m2_finds_a_list_out_of_order_and_a_uid_at_uidnext() {
    let mut story = sound();
    story.read(&[message("c", 3, 6, &[]), message("a", 1, 5, &["seen"])], 4, 7);
    breaks(&story, Rule::M2, "list out of order");
    let mut story = sound();
    story.read(&[message("c", 3, 6, &[])], 3, 7);
    breaks(&story, Rule::M2, "list out of order");
}

#[test]
fn m2_finds_a_uid_below_a_uidnext_that_was_told() {
    let mut story = sound();
    story.read(&[], 10, 7);
    story.append("d", 4, 8);
    breaks(&story, Rule::M2, "uidnext went back");
}

#[test]
fn m3_finds_appends_against_their_real_order() {
    let mut story = sound();
    story.append("d", 9, 8);
    story.append("e", 8, 9);
    breaks(&story, Rule::M3, "order");
}

#[test]
fn m3_finds_an_unknown_append_that_took_a_uid_before_its_call() {
    let mut story = sound();
    story.append("d", 9, 8);
    story.append_unknown("e").returned = None;
    story.read(&[message("e", 8, 9, &[]), message("d", 9, 8, &[])], 10, 9);
    breaks(&story, Rule::M3, "order");
}

#[test]
fn m4_finds_one_modseq_for_two_changes() {
    let mut story = sound();
    story.append("d", 4, 7);
    breaks(&story, Rule::M4, "modseq twice");
}

#[test]
fn m4_finds_a_modseq_that_goes_back_between_changes_and_in_reads() {
    let mut story = sound();
    story.append("d", 4, 20);
    story.append("e", 5, 19);
    breaks(&story, Rule::M4, "modseq went back");
    let mut story = sound();
    story.append("d", 4, 8);
    story.read(&[], 5, 7);
    breaks(&story, Rule::M4, "modseq went back");
}

#[test]
fn m4_finds_a_message_above_the_highest_modseq() {
    let mut story = sound();
    story.read(&[message("c", 3, 60, &[])], 4, 7);
    breaks(&story, Rule::M4, "modseq above highest");
}

#[test]
fn m4_finds_flags_that_changed_under_one_modseq() {
    let mut story = sound();
    story.read(&[message("c", 3, 6, &["seen"])], 4, 7);
    breaks(&story, Rule::M4, "flags changed under one modseq");
}

#[test]
fn m5_finds_a_lost_store() {
    let mut story = sound();
    story.store(1, "flagged", 8);
    story.read(&[message("a", 1, 8, &["seen"]), message("c", 3, 6, &[])], 4, 8);
    breaks(&story, Rule::M5, "flags ada/INBOX 1");
}

#[test]
fn m5_finds_a_conditional_store_that_was_carried_out_in_spite_of_its_condition() {
    let mut story = sound();
    let changed = story.store(1, "flagged", 8);
    let Op::Store { unchanged_since, .. } = &mut changed.op else { unreachable!() };
    *unchanged_since = Some(4);
    breaks(&story, Rule::M5, "flags ada/INBOX 1");
}

#[test]
fn m5_finds_flags_that_nobody_set() {
    let mut story = sound();
    story.read(&[message("a", 1, 5, &["seen"]), message("c", 3, 9, &["seen"])], 4, 9);
    breaks(&story, Rule::M5, "flags from nowhere");
}

#[test]
fn m6_finds_a_stale_read() {
    let mut story = sound();
    story.read(&[message("c", 3, 6, &[])], 4, 7);
    breaks(&story, Rule::M6, "stale read");
}

#[test]
fn m6_finds_a_read_of_an_expunged_message() {
    let mut story = sound();
    let back = [message("a", 1, 5, &["seen"]), message("b", 2, 3, &[]), message("c", 3, 6, &[])];
    story.read(&back, 4, 7);
    breaks(&story, Rule::M6, "expunged message read");
}

#[test]
fn m6_lets_a_labelled_read_be_old_but_without_holes() {
    let mut story = sound();
    let labelled = Op::Read { place: place(), mode: ReadMode::Labelled };
    story.read(&[message("a", 1, 2, &[])], 2, 2).op = labelled.clone();
    assert!(story.verdict(Rule::M6).is_good());
    story.read(&[message("c", 3, 6, &[])], 4, 6).op = labelled;
    breaks(&story, Rule::M6, "hole in a labelled read");
}

#[test]
fn m9_finds_copies_that_differ_at_one_mark() {
    let mut story = sound();
    story.history.digests[1].digest = "d2".into();
    breaks(&story, Rule::M9, "digests differ");
}

#[test]
fn m9_is_unknown_where_a_copy_was_not_compared() {
    let mut story = sound();
    story.history.digests[1].index = 8;
    assert!(matches!(story.verdict(Rule::M9), Verdict::Unknown(_)));
}

fn with_lineage(operation: &mut Operation, to: Lineage) {
    let Outcome::Ok { token: Some(token), .. } = &mut operation.outcome else { unreachable!() };
    token.lineage = to;
}

#[test]
fn i1_finds_an_answer_of_an_older_lineage() {
    let mut story = sound();
    with_lineage(story.append("d", 4, 8), lineage(2));
    story.append("e", 5, 9);
    breaks(&story, Rule::I1, "older lineage");
}

#[test]
fn i1_finds_two_activations_of_one_epoch_unless_one_is_declared_rejected() {
    let mut story = sound();
    let other = ActivationId([99; 16]);
    with_lineage(story.append("d", 4, 8), Lineage { epoch: 1, activation: other });
    breaks(&story, Rule::I1, "two lineages of epoch 1");
    story.history.run.rejected_activations = vec![other.to_string()];
    assert!(story.verdict(Rule::I1).is_good());
}

#[test]
fn i2_finds_two_contents_at_one_index() {
    let mut story = sound();
    story.note(1, acknowledged(1, 3, "other", 900));
    breaks(&story, Rule::I2, "two contents");
}

#[test]
fn i2_finds_two_acknowledging_leaders_of_one_term() {
    let mut story = sound();
    let entry = story.note(2, acknowledged(1, 4, "c4", 900));
    let Event::Acknowledged { copy, .. } = &mut entry.event else { unreachable!() };
    copy.replica = 2;
    breaks(&story, Rule::I2, "two leaders");
}

#[test]
fn i2_finds_two_appends_at_one_index() {
    let mut story = sound();
    story.append("d", 4, 8);
    story.index -= 1;
    story.append("e", 5, 9);
    breaks(&story, Rule::I2, "two appends");
}

#[test]
fn i3_finds_a_boot_that_went_back() {
    let mut story = sound();
    story.note(1, Event::Started { store: "aa".into() });
    breaks(&story, Rule::I3, "boot went back");
}

#[test]
fn i3_finds_a_lineage_that_went_back_on_a_node() {
    let mut story = sound();
    story.note(1, Event::Stopped).lineage = Some(LineageText(lineage(4)));
    story.note(1, Event::Stopped).lineage = Some(LineageText(lineage(3)));
    breaks(&story, Rule::I3, "lineage went back on node");
}

#[test]
fn i3_finds_a_second_vote_in_a_term_and_one_in_an_older_term() {
    for (term, voted_for) in [(1, 2), (0, 1)] {
        let mut story = sound();
        story.note(1, Event::Voted { copy: COPY, term, voted_for });
        breaks(&story, Rule::I3, "vote went back");
    }
}

#[test]
fn i3_finds_a_client_that_counts_an_older_lineage() {
    let mut story = sound();
    let newer = story.append("d", 4, 8);
    newer.client = 50;
    with_lineage(newer, lineage(2));
    let older = story.append("e", 5, 9);
    older.client = 50;
    breaks(&story, Rule::I3, "lineage went back for client");
}

#[test]
fn i4_finds_an_answer_while_the_gate_is_closed() {
    let mut story = sound();
    story.note(1, Event::GateClosed { why: "lease end".into() });
    story.note(1, acknowledged(1, 4, "c4", 900));
    breaks(&story, Rule::I4, "answer with a closed gate");
}

#[test]
fn i4_finds_an_answer_after_a_restart_that_nobody_opened_the_gate_for() {
    let mut story = sound();
    story.note(1, Event::Started { store: "bb".into() });
    story.note(1, acknowledged(1, 4, "c4", 900));
    breaks(&story, Rule::I4, "answer with a closed gate");
}

#[test]
fn i4_finds_a_deadline_past_the_lease() {
    let mut story = sound();
    story.note(1, acknowledged(1, 4, "c4", 1001));
    breaks(&story, Rule::I4, "answer past the lease");
}

#[test]
fn i4_goes_by_the_nodes_own_clock_where_it_is_not_the_one_that_all_share() {
    let mut story = sound();
    story.clock = 5_000;
    story.note(1, acknowledged(1, 4, "c4", 1000)).clock = Some(999);
    assert!(matches!(story.verdict(Rule::I4), Verdict::Held(_)));
    story.note(1, acknowledged(1, 5, "c5", 1000)).clock = Some(1001);
    breaks(&story, Rule::I4, "answer past the lease");
}

#[test]
fn i4_finds_a_lease_that_does_not_count_from_its_request() {
    let mut story = sound();
    story.note(1, Event::GateExtended(lease(5, 10, 1011)));
    breaks(&story, Rule::I4, "lease too long");
}

#[test]
fn i5_finds_an_opening_without_a_grant() {
    let mut story = sound();
    story.note(2, Event::GateOpened(lease(6, 0, 1000)));
    breaks(&story, Rule::I5, "opened without a grant");
}

#[test]
fn i5_finds_an_opening_by_a_grant_of_another_lineage() {
    let mut story = sound();
    story.note(9, grant(6, 2)).lineage = Some(LineageText(lineage(2)));
    story.note(2, Event::GateOpened(lease(6, 0, 1000)));
    breaks(&story, Rule::I5, "opened without a grant");
}

#[test]
fn i5_finds_an_extension_of_a_closed_gate() {
    let mut story = sound();
    story.note(1, Event::GateClosed { why: "clock jump".into() });
    story.note(1, Event::GateExtended(lease(5, 0, 1000)));
    breaks(&story, Rule::I5, "extended while closed");
}

#[test]
fn i13_finds_a_read_as_of_an_older_index() {
    let mut story = sound();
    story.index = 3;
    story.read(&[message("a", 1, 5, &["seen"]), message("c", 3, 6, &[])], 4, 7);
    breaks(&story, Rule::I13, "older answer");
}

#[test]
fn i14_finds_a_replica_id_on_two_stores() {
    let mut story = sound();
    let (store, path) = ("bb".into(), "/copies/16".into());
    story.note(2, Event::ReplicaOpened { copy: COPY, store, path });
    breaks(&story, Rule::I14, "replica on two stores");
}

#[test]
fn i14_finds_a_replica_id_that_is_used_twice() {
    let mut story = sound();
    let (store, path, why) = ("aa".into(), "/copies/17".into(), "reseed".into());
    story.note(1, Event::ReplicaBorn { copy: COPY, store, path, why });
    breaks(&story, Rule::I14, "replica id used twice");
}

#[test]
fn i14_finds_two_owners_of_a_directory_and_none_after_a_restart() {
    let opened = |replica| Event::ReplicaOpened {
        copy: CopyOf { replica, ..COPY },
        store: "aa".into(),
        path: "/copies/16".into(),
    };
    let mut story = sound();
    story.note(1, Event::Started { store: "cc".into() });
    story.note(1, opened(1));
    assert!(story.verdict(Rule::I14).is_good());
    story.note(1, opened(7));
    breaks(&story, Rule::I14, "two owners");
}

#[test]
fn v1_refuses_a_run_with_too_little_work_in_any_phase() {
    let mut story = sound();
    story.history.phases[2].0 = story.clock + 100;
    breaks(&story, Rule::V1, "too little work After");
    let mut story = sound();
    story.history.phases[1].0 = 0;
    breaks(&story, Rule::V1, "too little work Before");
}

#[test]
fn v1_refuses_a_run_whose_promised_fault_did_not_happen() {
    let mut story = sound();
    story.history.faults.clear();
    breaks(&story, Rule::V1, "no fault crash");
}

#[test]
fn a_run_without_gates_does_not_promise_their_rules() {
    let mut story = sound();
    story.history.run.gated = false;
    for rule in [Rule::I4, Rule::I5] {
        assert!(matches!(story.verdict(rule), Verdict::NotPromised(_)));
    }
}

#[test]
fn a_history_reads_back_what_was_stored() {
    let story = sound();
    let mut stored = Vec::new();
    for line in story.history.lines() {
        serde_json::to_writer(&mut stored, &line).expect("a vector takes everything");
        stored.push(b'\n');
    }
    let mut read = History::read(stored.as_slice()).expect("it was just stored");
    assert_eq!(read, story.history);
    let cut = stored.len() - 3;
    read = History::read(&stored[..cut]).expect("a torn last line is passed over");
    assert_eq!(read.journal.len(), story.history.journal.len() - 1);
    assert!(History::read(&b"{\"line\":\"nonsense\"}\n"[..]).is_err());
}
