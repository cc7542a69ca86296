//! One run of a schedule, from the first tick to the verdict.
//!
//! The phases: *setup* makes the groups and mailboxes; *before*, the clients work undisturbed;
//! *faults*, they work while the schedule's faults come and go; then everything is healed and must
//! become well; *after*, they work again; at last every mailbox is read and all copies are compared
//! at one mark. What was asked, answered and journalled is judged by `history`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dag_types::{DatabaseId, Millis};
use history::event::{CopyDigest, ExpectedCopies, Phase, Run};
use history::{History, Report, Verdict, journal, judge};
use mailbox::Command;
use mailbox::command::CreateMailbox;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::faults::UnderWay;
use crate::founding;
use crate::gates;
use crate::heal::{heal, is_level, repeat, standing};
use crate::nemesis::{FAULTS_MIN, Planned};
use crate::operator;
use crate::panics;
use crate::schedule::Schedule;
use crate::seeds::Counts;
use crate::server::Request;
use crate::shape::{DATA_NODES, NODES, Placement, databases, mailbox_databases};
use crate::work::{Client, address, mailbox_id};
use crate::world::{World, lock};

/// The mark at which copies are compared.
const MARK: u64 = 1;
/// What came of a run.
pub struct Outcome {
    /// Hash of everything that happened.
    pub trace: u64,
    /// The trace as text, where it was asked for.
    pub trace_text: Option<String>,
    /// What the clients and the nodes said.
    pub history: History,
    /// The verdicts; `None` where the run did not come to its end.
    pub report: Option<Report>,
    /// Rules of this crate that were broken, and panics.
    pub findings: Vec<String>,
    /// Virtual milliseconds.
    pub simulated_ms: u64,
    /// Faults that happened.
    pub faults: usize,
    /// Gates that a running node closed while faults came and went, because its lease ended or it had
    /// slept, and gates that opened.
    pub gates: (u64, u64),
    /// Steps of long operations that succeeded, and that a node refused.
    pub steps: (u64, u64),
    /// How copies that were built from others fared.
    pub seeds: Counts,
}

impl Outcome {
    /// Whether nothing was found and every rule held.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.report.as_ref().is_some_and(Report::is_good)
    }

    /// Whether every rule held and yet the run proves too little: faults that it was to have did not
    /// happen, because others had taken away what they needed (V1).
    pub fn proves_too_little(&self) -> bool {
        let held = self.report.as_ref().is_some_and(Report::is_good);
        let short = |finding: &String| finding.starts_with("V1: ");
        held && !self.findings.is_empty() && self.findings.iter().all(short)
    }

    /// What was found, in a line for each.
    pub fn words(&self) -> Vec<String> {
        let mut words = self.findings.clone();
        for (rule, verdict) in self.report.iter().flat_map(|report| &report.verdicts) {
            match verdict {
                Verdict::Violated(violation) => {
                    words.push(format!("{rule}: {}", violation.message))
                }
                Verdict::Unknown(why) => words.push(format!("{rule} unknown: {why}")),
                Verdict::Held(_) | Verdict::NotPromised(_) => {}
            }
        }
        words
    }

    /// The first finding, cut to what stays the same from run to run: its rule.
    pub fn kind(&self) -> Option<String> {
        let words = self.words();
        let first = words.first()?;
        Some(first.split([':', ' ']).next().unwrap_or_default().to_owned())
    }
}

/// Runs a schedule.
pub fn run(schedule: &Schedule, keep_trace: bool) -> Outcome {
    let mut world = World::new(schedule, keep_trace);
    let mut record = Record::default();
    let ended = catch_unwind(AssertUnwindSafe(|| phases(&mut world, &mut record)));
    if ended.is_err() {
        let what = panics::take().unwrap_or_else(|| "without words".to_owned());
        world.findings.push(format!("P1: a task panicked: {what}"));
        // Its runtimes are in no order any more; what was recorded is all there is.
    }
    let broken = broken_answers(&world);
    world.findings.extend(broken);
    let history = record.history(&mut world, schedule);
    let complete = ended.is_ok_and(|complete| complete);
    let report = complete.then(|| judge(&history));
    let (trace, trace_text) = (world.trace.hash(), world.trace.text());
    let outcome = Outcome {
        trace,
        trace_text,
        history,
        report,
        findings: std::mem::take(&mut world.findings),
        simulated_ms: world.now_ms,
        faults: record.under_way.happened.len(),
        gates: (world.gates.lapsed, world.gates.opened),
        steps: (world.operations.done, world.operations.refused),
        seeds: world.seeds.counts,
    };
    // A node that panicked may panic again while it is taken apart.
    let _ = catch_unwind(AssertUnwindSafe(|| world.end()));
    let _ = catch_unwind(AssertUnwindSafe(|| drop(world)));
    let _ = panics::take();
    outcome
}

/// What a run gathers beside the world.
#[derive(Default)]
struct Record {
    under_way: UnderWay,
    phases: Vec<(u64, Phase)>,
    digests: Vec<CopyDigest>,
}

/// True where the run came to its end.
fn phases(world: &mut World, record: &mut Record) -> bool {
    if !setup(world) {
        return false;
    }
    for database in mailbox_databases() {
        start_clients(world, database);
    }
    record.phases.push((world.now_ns(), Phase::Before));
    world.advance(world.schedule.before_ms);
    record.phases.push((world.now_ns(), Phase::Faults));
    faults(world, record);
    record.under_way.end(world);
    if !heal(world) || !operator::all_over(world) {
        return false;
    }
    demand_gates(world);
    demand_seeds(world);
    record.phases.push((world.now_ns(), Phase::After));
    world.advance(600);
    world.work.going.store(false, Ordering::Relaxed);
    world.until(3_000, |world| world.work.open.load(Ordering::Relaxed) == 0);
    // Damage that nobody had read before may show as late as this.
    let sound = |world: &World| world.failed.is_empty() && world.condemned.is_empty();
    read_everything(world) && (sound(world) || heal(world)) && compare_copies(world, record)
}

/// Starts all nodes, forms the groups and makes the mailboxes; false where that fails.
pub fn setup(world: &mut World) -> bool {
    (1..=NODES).for_each(|id| world.start(id));
    let up = |world: &World| {
        let mut all = world.nodes.values();
        all.all(|node| node.assigned.keys().all(|database| node.group(*database).is_some()))
    };
    if !world.until(2_000, up) {
        world.find("S1: the nodes do not start".to_owned());
        return false;
    }
    make_group(world, DatabaseId::CONTROL)
        && found(world)
        && mailbox_databases().all(|database| make_group(world, database))
        && make_mailboxes(world)
}

/// Makes the DAG and its databases in the control log, and waits until the gates are open.
fn found(world: &mut World) -> bool {
    for command in founding::commands() {
        let mut waiting = insist(world, Request::Control(command));
        if !world.until(6_000, |_| waiting.try_is_done()) {
            world.find("S4: the DAG is not made".to_owned());
            return false;
        }
    }
    let expected = &founding::state().databases;
    let is_open = |world: &World| {
        (1..=DATA_NODES).all(|id| {
            let control =
                world.nodes[&id].life.as_ref().and_then(|life| life.shared.state().control.clone());
            world.gate_is_open(id) && control.is_some_and(|state| state.databases == *expected)
        })
    };
    let open = world.until(6_000, is_open);
    if !open {
        let how = gates::standing(world);
        world.find(format!("S5: the gates do not open, or the control log is another: {how}"));
    }
    open
}

fn make_group(world: &mut World, database: DatabaseId) -> bool {
    let placement = world.placements[&database].clone();
    let node = placement.members[&Placement::founder(database)].0;
    let (voters, all) = (placement.as_members(true), placement.as_members(false));
    let made = world.ask(node, 2_000, |shared| async move {
        let Some(group) = shared.group(database) else { return false };
        group.initialize(&voters).await.is_ok()
    });
    let joined = made == Some(true)
        && repeat(world, database, move |group| {
            let all = all.clone();
            async move {
                let deadline = Instant::now() + Duration::from_millis(2_000);
                group.add_learners(&all, deadline).await.is_ok()
            }
        });
    if !joined {
        let how = standing(world, database);
        world.find(format!("S2: the group of database {database} is not formed: {how}"));
    }
    joined
}

fn make_mailboxes(world: &mut World) -> bool {
    let mut waiting = Vec::new();
    for database in mailbox_databases() {
        for number in 1..=world.schedule.weather.mailboxes {
            let mailbox = mailbox_id(database, number);
            let create = CreateMailbox::new(mailbox, vec![address(mailbox)]);
            let request_id = format!("create-{database}-{number}");
            let command = Command::new(request_id.clone(), Millis(1), create.into());
            let command = command.encode_to_bytes();
            waiting.push(insist(world, Request::Write { database, request_id, command }));
        }
    }
    let done = world.until(6_000, |_| waiting.iter_mut().all(|waiting| waiting.try_is_done()));
    if !done {
        world.find("S3: the mailboxes are not made".to_owned());
    }
    done
}

/// A command for the control group's log, about a node that the DAG does not have: it is rejected,
/// and replicated like any other.
fn register_boot(node: u64) -> Bytes {
    use active_manager::control::{Order, RegisterBoot};
    founding::encoded(Order::RegisterBoot(RegisterBoot {
        node,
        store: Bytes::copy_from_slice(&[0xee; 16]),
        boot_counter: 1,
        boot_id: node,
    }))
}

/// Whether a task among the clients has ended, and how.
struct Waiting {
    done: oneshot::Receiver<bool>,
    result: Option<bool>,
}

impl Waiting {
    fn try_is_done(&mut self) -> bool {
        if self.result.is_none() {
            self.result = self.done.try_recv().ok();
        }
        self.result == Some(true)
    }
}

fn insist(world: &World, request: Request) -> Waiting {
    let (done, waiting) = oneshot::channel();
    let work = world.work.clone();
    world.spawn_client(async move {
        let nodes = if matches!(request, Request::Control(_)) { NODES } else { DATA_NODES };
        let _ = done.send(work.insist(request, nodes, Duration::from_secs(5)).await);
    });
    Waiting { done: waiting, result: None }
}

fn start_clients(world: &World, database: DatabaseId) {
    let weather = &world.schedule.weather;
    for number in 1..=weather.clients {
        let name = format!("c{database}-{number}");
        let dice = world.dice(&name);
        let (mailboxes, think_ms) = (weather.mailboxes, weather.think_ms);
        let client = Client::new(world.work.clone(), dice, database, mailboxes, think_ms, name);
        world.spawn_client(client.run());
    }
}

fn faults(world: &mut World, record: &mut Record) {
    world.gates.count_from_here();
    let mut planned = world.schedule.faults.clone();
    planned.sort_by_key(|planned| planned.at_ms);
    let mut next = 0;
    let mut boots = 0;
    let mut asked = world.schedule.asked.clone();
    for ms in 0..world.schedule.faults_ms {
        let due = planned[next..].iter().take_while(|planned| planned.at_ms <= ms).count();
        let due: Vec<Planned> = planned[next..next + due].to_vec();
        next += due.len();
        record.under_way.step(world, &due);
        for asked in asked.extract_if(.., |asked| asked.at_ms <= ms) {
            world.ask_for(&asked);
        }
        if ms % 200 == 0 {
            boots += 1;
            drop(insist(world, Request::Control(register_boot(100 + boots))));
        }
        world.tick();
    }
    let happened = record.under_way.happened.len();
    if happened < FAULTS_MIN.min(planned.len()) {
        world.find(format!("V1: only {happened} faults of {} happened", planned.len()));
    }
}

/// A run that cuts a node off for longer than a lease must have seen gates close and open.
fn demand_gates(world: &mut World) {
    let (closed, opened) = (world.gates.closed, world.gates.opened);
    if world.schedule.outlasts_a_lease() && (closed == 0 || opened == 0) {
        world.find(format!("V1: {closed} gates closed under faults and {opened} opened"));
    }
}

/// A run that is to build copies must have built one.
fn demand_seeds(world: &mut World) {
    world.check_voters();
    let counts = world.seed_counts();
    world.seeds.counts = counts;
    if world.schedule.seeds() && counts.finished == 0 {
        world.find(format!("V1: {} seeds were begun and none was finished", counts.begun));
    }
}

fn read_everything(world: &mut World) -> bool {
    let mut waiting = Vec::new();
    for database in mailbox_databases() {
        let name = format!("r{database}");
        let mailboxes = world.schedule.weather.mailboxes;
        let dice = world.dice(&name);
        let reader = Client::new(world.work.clone(), dice, database, mailboxes, 1, name);
        let (done, result) = oneshot::channel();
        world.spawn_client(async move {
            let _ = done.send(reader.read_all(Duration::from_secs(8)).await);
        });
        waiting.push(Waiting { done: result, result: None });
    }
    let read = world.until(10_000, |_| waiting.iter_mut().all(Waiting::try_is_done));
    if !read {
        world.find("L4: mailboxes cannot be read after healing".to_owned());
    }
    read
}

fn compare_copies(world: &mut World, record: &mut Record) -> bool {
    databases().all(|database| {
        let marked = repeat(world, database, |group| async move {
            group.mark_digest(MARK, Instant::now() + Duration::from_millis(1_000)).await.is_ok()
        });
        let level = marked && world.until(5_000, |world| is_level(world, database));
        if !level {
            let how = standing(world, database);
            world.find(format!("L5: database {database} takes no digest mark: {how}"));
        }
        collect_digests(world, record, database);
        level
    })
}

fn collect_digests(world: &World, record: &mut Record, database: DatabaseId) {
    for node in world.nodes.values() {
        let Some(group) = node.group(database) else { continue };
        let marks = group.digest_marks().unwrap_or_default();
        record.digests.extend(marks.into_iter().filter(|at| at.mark == MARK).map(|at| {
            CopyDigest {
                database: database.0,
                replica: group.replica().0,
                node: node.id,
                index: at.at.index,
                digest: at.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            }
        }));
    }
}

impl Record {
    fn history(&mut self, world: &mut World, schedule: &Schedule) -> History {
        let copies = world.placements.iter().map(|(database, placement)| ExpectedCopies {
            database: database.0,
            copies: placement.members.len(),
        });
        let run = Run {
            reproduce: format!("sim run --seed {} --count 1", schedule.seed),
            promised_faults: promised(schedule),
            acknowledged_min: 3,
            copies: copies.collect(),
            gated: true,
            rejected_activations: Vec::new(),
        };
        let mut journal = std::mem::take(&mut world.journal);
        journal.extend(starts(&journal));
        journal.sort_by_key(|entry| {
            let first = matches!(entry.event, journal::Event::Started { .. });
            (entry.at, entry.node, !first)
        });
        History {
            run,
            operations: std::mem::take(&mut *world.work.operations()),
            faults: self.under_way.happened.clone(),
            phases: std::mem::take(&mut self.phases),
            digests: std::mem::take(&mut self.digests),
            journal,
        }
    }
}

/// The faults without which the run proves nothing.
fn promised(schedule: &Schedule) -> Vec<String> {
    let planned = schedule.faults.iter().filter(|planned| planned.fault.always_happens());
    let kinds: BTreeSet<&str> = planned.map(|planned| planned.fault.kind()).collect();
    kinds.into_iter().map(str::to_owned).collect()
}

/// Each boot began right before its first line.
fn starts(journal: &[journal::Entry]) -> Vec<journal::Entry> {
    let mut first: BTreeMap<(u64, u64), &journal::Entry> = BTreeMap::new();
    for entry in journal {
        let known = first.entry((entry.node, entry.boot.counter)).or_insert(entry);
        if entry.at < known.at {
            *known = entry;
        }
    }
    let start = |entry: &&journal::Entry| journal::Entry {
        event: journal::Event::Started { store: crate::node::store(entry.node).to_string() },
        ..(*entry).clone()
    };
    first.values().map(start).collect()
}

/// What answers could not be, and were, are findings too.
fn broken_answers(world: &World) -> Vec<String> {
    lock(&world.work.broken).iter().map(|what| format!("A1: {what}")).collect()
}
