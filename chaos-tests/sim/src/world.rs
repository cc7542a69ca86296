//! The world of one run: nodes, network, clients, and the time that they share.
//!
//! One tick is one millisecond. In each tick the network moves what is due, then every node runs
//! until it has nothing to do, in the order of their numbers, then the clients do. Nothing runs
//! beside anything else, so the order of all that happens follows from the schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dag_types::{DatabaseId, Generation, LogId, ReplicaId};
use history::journal::{self, BootOf, CopyOf, LineageText, Role};
use replication::{Event, GroupEvent};
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::gates::Gates;
use crate::network::Network;
use crate::node::{Assigned, LINEAGE, NANOS, Node, Noted, Rt, Shared, runtime, store};
use crate::operator::Operations;
use crate::panics;
use crate::promise::Promise;
use crate::schedule::Schedule;
use crate::seeds::Seeds;
use crate::server::{Acknowledged, serve};
use crate::shape::{DATA_NODES, NODES, Placement, databases};
use crate::trace::Trace;
use crate::work::{Deliverer, Work};

/// Where requests of clients are carried out: the runtimes of the nodes that run.
type Doors = Arc<Mutex<BTreeMap<u64, Door>>>;

struct Door {
    runtime: tokio::runtime::Handle,
    shared: Arc<Shared>,
    dice: Dice,
}

/// Everything of one run.
pub struct World {
    /// What it is made from.
    pub schedule: Schedule,
    /// Milliseconds since the beginning.
    pub now_ms: u64,
    /// All nodes.
    pub nodes: BTreeMap<u64, Node>,
    /// What lies between them.
    pub network: Network,
    /// The clients' side.
    pub work: Arc<Work>,
    /// What happened, as a hash.
    pub trace: Trace,
    /// Where copies stand.
    pub placements: BTreeMap<DatabaseId, Placement>,
    /// What the rules of this crate found broken.
    pub findings: Vec<String>,
    /// Nodes whose disk was harmed: a copy there may be Failed.
    pub harmed: BTreeSet<u64>,
    /// Copies that Failed while they ran.
    pub failed: BTreeMap<(u64, DatabaseId), String>,
    /// Copies that lost what no check can find, and were taken out of service.
    pub condemned: BTreeMap<(u64, DatabaseId), ReplicaId>,
    /// All copies that were opened on a node, also those that others took the place of.
    held: BTreeMap<(u64, DatabaseId, ReplicaId), Assigned>,
    /// Databases whose next vote but so many ends the node that tells of it.
    pub traps: BTreeMap<DatabaseId, u64>,
    /// Nodes that told of such a vote.
    pub sprung: Vec<u64>,
    /// What copies told.
    pub promises: BTreeMap<(u64, DatabaseId, ReplicaId), Promise>,
    /// The nodes' journals so far.
    pub journal: Vec<journal::Entry>,
    /// What is known of the gates.
    pub gates: Gates,
    /// What is known of long operations.
    pub operations: Operations,
    /// What is known of copies that are built.
    pub seeds: Seeds,
    /// Numbers for new replicas.
    pub next_replica: u64,
    clients: tokio::runtime::Runtime,
    doors: Doors,
    deliver: Deliverer,
    checked: BTreeSet<(u64, u64, DatabaseId)>,
    /// Changes of each node's copies that were looked at.
    seen_changes: BTreeMap<u64, u64>,
    dice: Dice,
}

impl World {
    /// A world before its first tick; with `keep_trace` the trace is kept as text.
    pub fn new(schedule: &Schedule, keep_trace: bool) -> Self {
        panics::keep();
        let _ = panics::take();
        let dice = Dice::new(schedule.seed);
        let trace = Trace::new(keep_trace);
        let weather = &schedule.weather;
        let network = Network::new(dice.fork("network"), weather.clone(), trace.clone());
        let doors = Doors::default();
        let deliver = deliverer(&doors, &trace);
        let work = Work::new(trace.clone(), network.clone(), deliver.clone());
        let mut nodes: BTreeMap<u64, Node> =
            (1..=NODES).map(|id| (id, Node::new(id, &dice, weather, &trace))).collect();
        let mut placements = BTreeMap::new();
        for database in databases() {
            let placement = Placement::first(database);
            for (replica, node) in &placement.members {
                let generation = Generation::FIRST;
                let assigned = Assigned { replica: *replica, generation, born: false };
                let node = nodes.get_mut(&node.0).expect("a node of the shape");
                node.assigned.insert(database, assigned);
            }
            placements.insert(database, placement);
        }
        Self {
            schedule: schedule.clone(),
            now_ms: 0,
            nodes,
            network,
            work,
            trace,
            placements,
            findings: Vec::new(),
            harmed: BTreeSet::new(),
            failed: BTreeMap::new(),
            condemned: BTreeMap::new(),
            held: BTreeMap::new(),
            traps: BTreeMap::new(),
            sprung: Vec::new(),
            promises: BTreeMap::new(),
            journal: Vec::new(),
            gates: Gates::new(weather.lease_times()),
            operations: Operations::default(),
            seeds: Seeds::default(),
            deliver: deliver.clone(),
            next_replica: 200,
            clients: runtime(&mut dice.fork("clients")),
            doors,
            checked: BTreeSet::new(),
            seen_changes: BTreeMap::new(),
            dice: dice.fork("world"),
        }
    }

    /// Other dice for a use of the world's.
    pub fn dice(&self, label: &str) -> Dice {
        self.dice.fork(label)
    }

    /// World's time in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ms * 1_000_000
    }

    /// One tick.
    pub fn tick(&mut self) {
        self.now_ms += 1;
        self.trace.set_now(self.now_ns());
        self.network.step(self.now_ms);
        self.nodes.values_mut().for_each(Node::tick);
        self.clients.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        self.gather();
        self.watch_gates();
        self.watch_operations();
        self.watch_seeds();
        panics::go_on();
    }

    /// So many ticks.
    pub fn advance(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.tick());
    }

    /// Ticks until something holds, at most so many; whether it held.
    pub fn until(&mut self, limit_ms: u64, mut holds: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..limit_ms {
            if holds(self) {
                return true;
            }
            self.tick();
        }
        holds(self)
    }

    /// Gives a node power.
    pub fn start(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node of the shape");
        if node.life.is_some() {
            return;
        }
        self.trace.tell(format!("start node {id}"));
        self.failed.retain(|(node, _), _| *node != id);
        node.start(&self.network, &self.deliver);
        let life = node.life.as_ref().expect("just started");
        let door = Door {
            runtime: life.handle(),
            shared: life.shared.clone(),
            dice: self.dice.fork(&format!("door {id} {}", self.now_ms)),
        };
        lock(&self.doors).insert(id, door);
    }

    /// Ends a node's process, by a loss of power or without.
    pub fn stop(&mut self, id: u64, power_loss: bool) {
        let node = self.nodes.get_mut(&id).expect("a node of the shape");
        if node.life.is_none() {
            return;
        }
        self.trace.tell(format!("stop node {id}, power loss {power_loss}"));
        let off = node.disk.is_off();
        lock(&self.doors).remove(&id);
        if let Some(shared) = node.stop(&self.network, power_loss) {
            self.gather_from(&shared, off);
        }
        self.checked.retain(|(node, _, _)| *node != id);
        self.seen_changes.remove(&id);
        self.note_stopped(id);
    }

    /// Runs something in a node's runtime and waits for its result.
    pub fn ask<T, F>(
        &mut self,
        id: u64,
        limit_ms: u64,
        make: impl FnOnce(Arc<Shared>) -> F,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let node = self.nodes.get_mut(&id).expect("a node of the shape");
        let shared = node.life.as_ref()?.shared.clone();
        let (done, mut waiting) = oneshot::channel();
        let future = make(shared);
        node.spawn(async move { drop(done.send(future.await)) });
        for _ in 0..limit_ms {
            match waiting.try_recv() {
                Ok(result) => return Some(result),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => self.tick(),
            }
        }
        waiting.try_recv().ok()
    }

    /// Ends every node: what they share with one another keeps them alive otherwise.
    pub fn end(&mut self) {
        (1..=NODES).for_each(|id| self.stop(id, false));
        self.network.clear();
    }

    /// Runs something among the clients.
    pub fn spawn_client(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.clients.spawn(future);
    }

    /// The node that serves a database, by its own cached knowledge.
    pub fn serving(&self, database: DatabaseId) -> Option<u64> {
        let serves = |node: &&Node| {
            let group = node.group(database);
            node.paused_ms.is_none() && group.is_some_and(|group| group.serving().is_ok())
        };
        // Of several that believe so, the one of the greatest term.
        let term = |node: &&Node| node.group(database).map(|group| group.status().term);
        self.nodes.values().filter(serves).max_by_key(term).map(|node| node.id)
    }

    /// Notes a broken rule.
    pub fn find(&mut self, what: String) {
        self.trace.tell(format!("FOUND {what}"));
        self.findings.push(what);
    }

    /// Takes what the nodes noted in this tick, and turns those off that lost power in it.
    fn gather(&mut self) {
        let running: Vec<(u64, Arc<Shared>)> = self
            .nodes
            .values()
            .filter_map(|node| Some((node.id, node.life.as_ref()?.shared.clone())))
            .collect();
        for (id, shared) in running {
            let off = self.nodes[&id].disk.is_off();
            // A copy can be opened and tell of its next entry within one tick: what it was opened
            // with comes first.
            if !off {
                self.check_opened(id, &shared);
            }
            self.gather_from(&shared, off);
        }
    }

    fn gather_from(&mut self, shared: &Shared, power_off: bool) {
        let events = std::mem::take(&mut *lock(&shared.journal));
        for (at, noted) in events {
            match noted {
                Noted::Copy(event) => {
                    // Nobody heard what was told when the power went. A cut that was begun may be
                    // on disk.
                    let begun = matches!(event.event, Event::Cut { durable: false, .. });
                    if !power_off || begun {
                        self.note_event(shared, at, event);
                    }
                }
                // The answer is on its way, whatever becomes of the power.
                Noted::Acknowledged(acknowledged) => self.note_acknowledged(shared, acknowledged),
                Noted::Seed(database, note) => {
                    if !power_off || note.is_certain() {
                        self.note_seed(shared.node, database, note);
                    }
                }
                Noted::Gate(clock, event) => {
                    if !power_off {
                        self.note_gate(shared.node, &event);
                        self.note_step(shared.node, &event);
                        self.write_journal_at((at, clock), shared, event);
                    }
                }
            }
        }
    }

    fn note_event(&mut self, shared: &Shared, at: u64, event: GroupEvent) {
        let node = shared.node;
        let GroupEvent { database, replica, event } = event;
        let Some(assigned) = self.held.get(&(node, database, replica)).copied() else { return };
        let copy = copy_of(database, assigned);
        let ran_ms = self.nodes[&node].ran_ms;
        let promise = self.promises.entry((node, database, replica)).or_default();
        let noted = match event {
            Event::Durable { last } => {
                promise.durable(last.index, ran_ms);
                None
            }
            Event::Cut { last, durable } => {
                promise.cut(last.map(|last| last.index), durable);
                None
            }
            Event::Applied { .. } | Event::Installed { .. } => None,
            Event::Voted { term, replica, committed } => {
                promise.voted = promise.voted.max(term);
                self.check_term(node, database, assigned, term);
                if !committed {
                    self.note_vote(node, database, assigned.replica);
                }
                self.spring(node, database, committed);
                // A committed one is the vote that others gave to the leader of this term.
                let voted_for = replica.0;
                (!committed).then_some(journal::Event::Voted { copy, term, voted_for })
            }
            Event::Role { role, term } => {
                self.check_term(node, database, assigned, term);
                role_of(role).map(|role| journal::Event::Role { copy, term, role })
            }
            Event::Mounted(mounted) => {
                let LogId { term, index } = mounted.at;
                Some(journal::Event::Mounted { copy, term, index })
            }
            Event::Dismounted { why } => {
                Some(journal::Event::Dismounted { copy, why: why.to_owned() })
            }
            Event::Failed { reason } => {
                self.copy_failed(node, database, &reason);
                Some(journal::Event::ReplicaFailed { copy, why: reason })
            }
            Event::LongerLog { .. } => None,
        };
        if let Some(event) = noted {
            self.write_journal(at, shared, event);
        }
    }

    fn spring(&mut self, node: u64, database: DatabaseId, committed: bool) {
        match self.traps.get_mut(&database) {
            Some(0) if !committed => {
                self.traps.remove(&database);
                self.sprung.push(node);
            }
            Some(left) if !committed => *left -= 1,
            _ => {}
        }
    }

    /// A term belongs to the generation of the copy: no vote of another one may ever reach it.
    fn check_term(&mut self, node: u64, database: DatabaseId, assigned: Assigned, term: u64) {
        let of_term = Generation::of_term(term);
        if term != 0 && of_term != assigned.generation {
            self.find(format!(
                "G1: node {node} database {database} of generation {} is in term {term} of \
                 generation {of_term}",
                assigned.generation
            ));
        }
    }

    /// A copy Failed. Where no fault was made on its disk, that is a finding.
    pub fn copy_failed(&mut self, node: u64, database: DatabaseId, reason: &str) {
        // What panics while an entry is applied is caught there, and fails the copy.
        panics::forgive(reason);
        self.failed.insert((node, database), reason.to_owned());
        if !self.harmed.contains(&node) {
            self.find(format!(
                "F1: node {node} database {database} Failed without a fault of its disk: {reason}"
            ));
        }
    }

    fn check_opened(&mut self, node: u64, shared: &Shared) {
        let (opened, failed, not_started) = {
            let state = shared.state();
            if self.seen_changes.insert(node, state.changes) == Some(state.changes) {
                return;
            }
            (state.opened.clone(), state.failed.clone(), state.not_started.clone())
        };
        if let Some(why) = not_started
            && self.checked.insert((node, 1, DatabaseId::CONTROL))
            && !self.harmed.contains(&node)
        {
            self.find(format!("F2: node {node} does not start: {why}"));
        }
        for (database, (replica, reason)) in failed {
            if self.checked.insert((node, 1_000_000 + replica.0, database)) {
                self.copy_failed(node, database, &reason);
            }
        }
        for (database, opened) in opened {
            let key = (node, 1000 + opened.replica.0, database);
            if self.checked.insert(key) {
                self.note_opened(node, shared, database, opened);
            }
        }
    }

    /// What a copy told before must still be there when it is opened again.
    fn note_opened(
        &mut self,
        node: u64,
        shared: &Shared,
        database: DatabaseId,
        opened: crate::node::Opened,
    ) {
        let owner = self.nodes.get_mut(&node).expect("a node of the shape");
        let before = owner.assigned.get(&database).map(|assigned| assigned.replica);
        // What its control log gave it counts; a stray copy was given by nobody.
        let given = node <= DATA_NODES && database >= DatabaseId::FIRST_MAILBOX_DATABASE;
        if before != Some(opened.replica) && !given {
            return;
        }
        let assigned = Assigned { born: true, ..opened.assigned };
        owner.assigned.insert(database, assigned);
        self.held.insert((node, database, opened.replica), assigned);
        if before != Some(opened.replica) {
            self.failed.remove(&(node, database));
        }
        if self.condemned.get(&(node, database)) == Some(&opened.replica) {
            shared.bar(database);
        }
        let copy = copy_of(database, assigned);
        let (store, path) = (store(node).to_string(), format!("db-{database}/{}", copy.replica));
        if opened.made {
            let why = if opened.seeded { "seed" } else { "create" };
            let (store, path, why) = (store.clone(), path.clone(), why.to_owned());
            let born = journal::Event::ReplicaBorn { copy, store, path, why };
            self.write_journal(self.now_ns(), shared, born);
        }
        let event = journal::Event::ReplicaOpened { copy, store, path };
        self.write_journal(self.now_ns(), shared, event);
        let key = (node, database, opened.replica);
        let Some(promise) = self.promises.get_mut(&key) else { return };
        let (found, kept) = (opened.last.map(|last| last.index), promise.kept());
        let lost_vote = opened.vote_term < promise.voted;
        let lost_at = promise.lost_at(found);
        promise.opened(found);
        let voted = promise.voted;
        if !lost_vote && lost_at.is_none() {
            return;
        }
        let slow = self.schedule.slows_disk_of(node);
        let unclaimed = lost_at.is_some_and(|at| {
            let (ran, patience) = (self.nodes[&node].stopped_ran_ms, unclaimed_ms(slow));
            at + patience > ran
        });
        let what = format!(
            "node {node} database {database}: it told to hold entry {kept:?} and a vote of term \
             {}, and was opened with {:?} and a vote of term {}",
            voted, opened.last, opened.vote_term
        );
        if self.harmed.contains(&node) && unclaimed && !lost_vote {
            // The disk lost a write that no later one had vouched for. No check can find that; a
            // second copy holds the entry, and this one comes back by reseed.
            self.trace.tell(format!("condemned: {what}"));
            self.condemned.insert((node, database), opened.replica);
            shared.bar(database);
        } else {
            self.find(format!("D1: {what}"));
        }
    }

    fn note_acknowledged(&mut self, shared: &Shared, acknowledged: Acknowledged) {
        let Acknowledged { at_ns, clock_ns, database, at, chain, durable, applied, .. } =
            acknowledged;
        let Acknowledged { request_id, replica, deadline_ns, .. } = acknowledged;
        let generation = Generation::of_term(at.term).0;
        let copy = CopyOf { database: database.0, generation, replica };
        let event = journal::Event::Acknowledged {
            copy,
            term: at.term,
            index: at.index,
            chain,
            durable,
            applied,
            request: request_id,
            deadline: deadline_ns,
        };
        self.write_journal_at((at_ns, clock_ns), shared, event);
    }

    /// Writes a line into a node's journal.
    pub fn write_journal(&mut self, at: u64, shared: &Shared, event: journal::Event) {
        let clock = shared.clock.boottime().0 * NANOS;
        self.write_journal_at((at, clock), shared, event);
    }

    /// The same about a moment that both clocks are known of.
    fn write_journal_at(
        &mut self,
        (at, clock): (u64, u64),
        shared: &Shared,
        event: journal::Event,
    ) {
        let boot = *lock(&shared.boot);
        self.journal.push(journal::Entry {
            at,
            clock: Some(clock),
            node: shared.node,
            boot: BootOf { counter: boot.counter, id: boot.id },
            lineage: Some(LineageText(LINEAGE)),
            event,
        });
    }
}

/// How long a log may take to vouch for its last write, by the node's own clock.
fn unclaimed_ms(slow_disk: bool) -> u64 {
    if slow_disk { 1_500 } else { 100 }
}

fn copy_of(database: DatabaseId, assigned: Assigned) -> CopyOf {
    CopyOf { database: database.0, generation: assigned.generation.0, replica: assigned.replica.0 }
}

fn role_of(role: replication::Role) -> Option<Role> {
    match role {
        replication::Role::Learner => Some(Role::Learner),
        replication::Role::Follower => Some(Role::Follower),
        replication::Role::Candidate => Some(Role::Candidate),
        replication::Role::Leader => Some(Role::Leader),
        replication::Role::Stopped => None,
    }
}

fn deliverer(doors: &Doors, trace: &Trace) -> Deliverer {
    let (doors, trace) = (doors.clone(), trace.clone());
    Arc::new(move |node, request, patience, answer| {
        let mut doors = lock(&doors);
        let Some(door) = doors.get_mut(&node) else { return };
        let (shared, noted, clock) = (door.shared.clone(), door.shared.clone(), trace.clone());
        let note = move |acknowledged| noted.note_acknowledged(acknowledged);
        let handled = async move {
            answer(serve(shared, request, patience, note, move || clock.now_ns()).await);
        };
        door.runtime.spawn(Rt::scope(door.dice.next(), handled));
    })
}

/// A lock that outlives a panic: the panic is the finding.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}
