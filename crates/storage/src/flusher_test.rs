use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use dag_types::Chain;

use super::*;

const KIB: u64 = 1 << 10;

fn rules() -> FlushRules {
    FlushRules {
        copy_bytes: 10 * KIB,
        node_bytes: 20 * KIB,
        slow_bytes: 30 * KIB,
        stop_bytes: 40 * KIB,
        age_max: Millis(1000),
    }
}

fn position(index: u64) -> Position {
    (LogId { term: 1, index }, Chain([u8::try_from(index % 251).unwrap(); 16]))
}

/// A copy that writes down what is done to it.
#[derive(Default)]
struct Probe {
    bytes: AtomicU64,
    applied: AtomicU64,
    log_fails: AtomicBool,
    flush_fails: AtomicBool,
    /// The log keeps its answers until they are taken from here.
    log_waits: AtomicBool,
    waiting: Mutex<Vec<LogSynced>>,
    done: Mutex<Vec<String>>,
}

impl Probe {
    fn new(bytes: u64, applied: u64) -> Arc<Self> {
        let probe = Self::default();
        probe.bytes.store(bytes, Ordering::SeqCst);
        probe.applied.store(applied, Ordering::SeqCst);
        Arc::new(probe)
    }

    fn note(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    fn answer_log(&self) {
        for synced in std::mem::take(&mut *self.waiting.lock().unwrap()) {
            synced(Ok(()));
        }
    }
}

impl Flushable for Probe {
    fn unflushed_bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    fn applied(&self) -> Result<Option<Position>, StateError> {
        let index = self.applied.load(Ordering::SeqCst);
        Ok((index > 0).then(|| position(index)))
    }

    fn sync_log(&self, through: LogId, synced: LogSynced) {
        self.note(format!("sync {}", through.index));
        if self.log_waits.load(Ordering::SeqCst) {
            self.waiting.lock().unwrap().push(synced);
        } else if self.log_fails.load(Ordering::SeqCst) {
            synced(Err("the disk said no".into()));
        } else {
            synced(Ok(()));
        }
    }

    fn flush_state(&self) -> Result<(), StateError> {
        self.note("flush".into());
        if self.flush_fails.load(Ordering::SeqCst) {
            return Err(StateError::Full { operation: "flush", detail: "planted".into() });
        }
        self.bytes.store(0, Ordering::SeqCst);
        // Entries are applied while a state is flushed.
        self.applied.fetch_add(5, Ordering::SeqCst);
        Ok(())
    }

    fn flushed(&self, position: Position) {
        self.note(format!("flushed {}", position.0.index));
    }

    fn failed(&self, fault: FlushFault) {
        self.note(format!("failed: {fault}"));
    }
}

fn answers() -> (impl Fn(&'static str) -> Flushed, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let asker = move |who: &'static str| -> Flushed {
        let sender = sender.clone();
        Box::new(move |result| {
            let result = result.map(|position| position.map(|(at, _)| at.index));
            sender.send(format!("{who}: {result:?}")).unwrap();
        })
    };
    (asker, receiver)
}

fn run(flusher: &Flusher, now: u64) -> usize {
    (0..100).take_while(|_| flusher.step(Millis(now))).count()
}

fn load(slot: u64, unflushed_bytes: u64, since: u64) -> CopyLoad {
    let since = (unflushed_bytes > 0).then_some(Millis(since));
    CopyLoad { slot: Slot(slot), unflushed_bytes, since, asked: false }
}

#[test]
fn the_rules_choose_by_request_then_bytes_then_age_and_say_why() {
    let asked = CopyLoad { asked: true, ..load(9, 0, 0) };
    let table: [(&str, bool, Vec<CopyLoad>, Option<(u64, FlushReason)>); 10] = [
        ("nobody is there", false, vec![], None),
        ("nothing is unflushed", false, vec![load(1, 0, 0)], None),
        ("little and young", false, vec![load(1, 100, 4500)], None),
        (
            "one copy's share",
            false,
            vec![load(1, 100, 0), load(2, 10 * KIB, 4900)],
            Some((2, FlushReason::CopyBytes { bytes: 10 * KIB })),
        ),
        (
            "the node's budget, the one with the most",
            false,
            vec![load(1, 9 * KIB, 4990), load(2, 9 * KIB + 1, 4999), load(3, 2 * KIB, 4990)],
            Some((2, FlushReason::NodeBytes { node_bytes: 20 * KIB + 1, bytes: 9 * KIB + 1 })),
        ),
        (
            "the oldest",
            false,
            vec![load(1, 9 * KIB, 4990), load(2, 1, 3500), load(3, 1, 3000)],
            Some((3, FlushReason::Age { age: Millis(2000) })),
        ),
        ("just too young", false, vec![load(1, 1, 4001)], None),
        (
            "bytes before age",
            false,
            vec![load(1, 1, 0), load(2, 10 * KIB, 4999)],
            Some((2, FlushReason::CopyBytes { bytes: 10 * KIB })),
        ),
        (
            "closing takes the largest first",
            true,
            vec![load(1, 1, 4999), load(2, 2, 4999)],
            Some((2, FlushReason::Closing)),
        ),
        (
            "asked for, with nothing to write",
            false,
            vec![load(1, 50 * KIB, 0), asked],
            Some((9, FlushReason::Asked)),
        ),
    ];
    for (case, closing, copies, expected) in table {
        let choice = rules().choose(Millis(5000), closing, &copies);
        assert_eq!(choice.map(|choice| (choice.slot.0, choice.reason)), expected, "{case}");
    }
}

#[test]
fn pressure_grows_with_what_all_copies_hold_also_between_the_flushers_looks() {
    let flusher = Flusher::inline(rules());
    let (first, second) = (Probe::new(0, 1), Probe::new(0, 1));
    let (one, other) = (flusher.attach(first.clone()), flusher.attach(second.clone()));
    let table = [
        (0, 0, Pressure::None),
        (15 * KIB, 15 * KIB - 1, Pressure::None),
        (15 * KIB, 15 * KIB, Pressure::Slow),
        (0, 30 * KIB, Pressure::Slow),
        (39 * KIB, KIB, Pressure::Stop),
        (KIB, KIB, Pressure::None),
    ];
    for (bytes, other_bytes, expected) in table {
        first.bytes.store(bytes, Ordering::SeqCst);
        second.bytes.store(other_bytes, Ordering::SeqCst);
        one.pressure();
        assert_eq!(other.pressure(), expected, "{bytes} {other_bytes}");
        assert_eq!(flusher.unflushed_bytes(), bytes + other_bytes);
    }
    first.bytes.store(50 * KIB, Ordering::SeqCst);
    assert_eq!(one.pressure(), Pressure::Stop);
    drop(one);
    assert_eq!(other.pressure(), Pressure::None, "who is detached does not count");
    run(&flusher, 0);
    assert_eq!(flusher.unflushed_bytes(), KIB);
}

#[test]
fn rules_that_contradict_each_other_are_all_named() {
    assert_eq!(rules().validate(), []);
    assert_eq!(FlushRules::default().validate(), []);
    let wrong = FlushRules { copy_bytes: 0, slow_bytes: 20 * KIB, ..rules() };
    let lower: Vec<&str> =
        wrong.validate().into_iter().map(|RulesError::Order { lower, .. }| lower).collect();
    assert_eq!(lower, ["0", "node_bytes"]);
}

#[test]
fn the_log_is_synced_first_and_only_what_was_applied_before_the_flush_is_published() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    let _attached = flusher.attach(copy.clone());
    run(&flusher, 0);
    assert_eq!(copy.done(), ["sync 7", "flush", "flushed 7"]);
    assert_eq!(run(&flusher, 0), 0);
}

#[test]
fn nothing_is_flushed_while_the_log_is_not_synced() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    copy.log_waits.store(true, Ordering::SeqCst);
    let _attached = flusher.attach(copy.clone());
    run(&flusher, 0);
    assert_eq!(run(&flusher, 10_000), 0);
    assert_eq!(copy.done(), ["sync 7"]);
    copy.answer_log();
    run(&flusher, 10_000);
    assert_eq!(copy.done(), ["flush", "flushed 7"]);
}

#[test]
fn a_log_that_cannot_sync_fails_the_copy_and_its_state_is_not_flushed() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    copy.log_fails.store(true, Ordering::SeqCst);
    let _attached = flusher.attach(copy.clone());
    run(&flusher, 0);
    let failed = "failed: sync the log before a flush: the disk said no";
    assert_eq!(copy.done(), ["sync 7", failed]);
    assert_eq!(run(&flusher, 10_000), 0, "a failed copy is left alone");
}

#[test]
fn a_flush_that_fails_publishes_nothing_and_is_not_tried_again() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    copy.flush_fails.store(true, Ordering::SeqCst);
    let attached = flusher.attach(copy.clone());
    let (asker, answers) = answers();
    attached.flush(asker("before"));
    run(&flusher, 0);
    let failed = "failed: flush the state: the volume is full: planted";
    assert_eq!(copy.done(), ["sync 7", "flush", failed]);
    copy.flush_fails.store(false, Ordering::SeqCst);
    attached.flush(asker("after"));
    assert_eq!(run(&flusher, 10_000), 0);
    assert_eq!(copy.done(), [""; 0]);
    for who in ["before", "after"] {
        let answer = answers.try_recv().unwrap();
        assert!(answer.starts_with(&format!("{who}: Err(State(Full")), "{answer}");
    }
}

#[test]
fn a_log_that_goes_away_without_an_answer_fails_the_copy_not_the_flusher() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    copy.log_waits.store(true, Ordering::SeqCst);
    let _attached = flusher.attach(copy.clone());
    let other = Probe::new(1, 3);
    let _other = flusher.attach(other.clone());
    run(&flusher, 0);
    copy.waiting.lock().unwrap().clear();
    run(&flusher, 5000);
    let failed = "failed: sync the log before a flush: the log went away";
    assert_eq!(copy.done(), ["sync 7", failed]);
    assert_eq!(other.done(), ["sync 3", "flush", "flushed 3"]);
}

#[test]
fn a_late_answer_of_a_log_is_not_taken_for_another_flush() {
    let flusher = Flusher::inline(rules());
    let (first, second) = (Probe::new(10 * KIB, 7), Probe::new(10 * KIB, 8));
    for copy in [&first, &second] {
        copy.log_waits.store(true, Ordering::SeqCst);
    }
    let attached = flusher.attach(first.clone());
    run(&flusher, 0);
    // The first flush ends by a dropped answer; what its log says later belongs to nothing.
    let late = first.waiting.lock().unwrap().pop().unwrap();
    let number = flusher.shared.work().current.as_ref().unwrap().number;
    flusher.shared.log_synced(number, Err("gone".into()));
    run(&flusher, 0);
    drop(attached);
    let _second = flusher.attach(second.clone());
    run(&flusher, 0);
    assert_eq!(second.done(), ["sync 8"]);
    late(Ok(()));
    assert_eq!(run(&flusher, 0), 0);
    assert_eq!(second.done(), [""; 0], "its own log has not answered");
}

#[test]
fn who_asks_gets_a_flush_that_began_after_the_question() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    let attached = flusher.attach(copy.clone());
    copy.log_waits.store(true, Ordering::SeqCst);
    run(&flusher, 0);
    let (asker, answers) = answers();
    // The flush of position 7 is under way: it does not answer who applied 9 and asks now.
    copy.applied.store(9, Ordering::SeqCst);
    attached.flush(asker("now"));
    copy.log_waits.store(false, Ordering::SeqCst);
    copy.answer_log();
    assert!(flusher.step(Millis(0)));
    assert!(answers.try_recv().is_err());
    run(&flusher, 0);
    assert_eq!(answers.try_recv().unwrap(), "now: Ok(Some(14))");
}

#[test]
fn a_state_with_nothing_applied_is_flushed_without_its_log() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 0));
    let _attached = flusher.attach(copy.clone());
    run(&flusher, 0);
    assert_eq!(copy.done(), ["flush"]);
}

#[test]
fn age_counts_from_the_first_look_and_again_from_the_last_flush() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(1, 7));
    let _attached = flusher.attach(copy.clone());
    assert_eq!(run(&flusher, 5000), 0);
    assert_eq!(run(&flusher, 5999), 0);
    run(&flusher, 6000);
    assert_eq!(copy.done(), ["sync 7", "flush", "flushed 7"]);
    copy.bytes.store(1, Ordering::SeqCst);
    assert_eq!(run(&flusher, 9000), 0);
    run(&flusher, 10_000);
    assert_eq!(copy.done(), ["sync 12", "flush", "flushed 12"]);
}

#[test]
fn a_copy_that_is_detached_is_flushed_no_more_and_its_askers_are_told() {
    let (flusher, copy) = (Flusher::inline(rules()), Probe::new(10 * KIB, 7));
    let (asker, answers) = answers();
    let attached = flusher.attach(copy.clone());
    attached.flush(asker("waits"));
    drop(attached);
    assert_eq!(answers.try_recv().unwrap(), "waits: Err(Detached)");
    assert_eq!(run(&flusher, 10_000), 0);
    assert_eq!(copy.done(), [""; 0]);
}

#[test]
fn a_thread_flushes_what_is_due_what_is_asked_for_and_the_rest_at_close() {
    let flusher = Flusher::start(rules(), || Millis(0)).unwrap();
    let (large, small) = (Probe::new(10 * KIB, 7), Probe::new(1, 3));
    let _large = flusher.attach(large.clone());
    let attached = flusher.attach(small.clone());
    let (asker, answers) = answers();
    attached.flush(asker("small"));
    let wait = Duration::from_secs(20);
    assert_eq!(answers.recv_timeout(wait).unwrap(), "small: Ok(Some(3))");
    small.bytes.store(1, Ordering::SeqCst);
    flusher.close();
    assert_eq!(large.done(), ["sync 7", "flush", "flushed 7"]);
    assert_eq!(small.done(), ["sync 3", "flush", "flushed 3", "sync 8", "flush", "flushed 8"]);
}
