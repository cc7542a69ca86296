//! A running node: what its services and its driver share.
//!
//! A node is first [`Stage::Unprovisioned`], and answers only who it is. Once it is a member it has
//! a [`Member`]: what it knows of the others, and the groups of its copies.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant as StdInstant;

use active_manager::control::{ControlState, DatabaseRecord};
use bytes::Bytes;
use dac::LeaseTimes;
use dac::gate::Saved;
use dac::message::Holder;
use dag_api::{Problem, Token};
use dag_format::links;
use dag_types::{Boot, DatabaseId, Generation, Lineage, Millis, NodeId, StoreId};
use replication::link::grpc::{GrpcLink, GrpcOptions, PeerServer};
use replication::{Committed, Confirmed, EventSink, Group, GroupEvent, Registry};
use storage::flusher::Pressure;
use storage::state::StateRead;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Kind, Permit};
use crate::clock;
use crate::failures::Failures;
use crate::formation::{Formation, Own, Refusal, Stage};
use crate::gate::{self, NodeGate};
use crate::held::Held;
use crate::journal::{Acknowledged, CopyOf, Event, Journal, Role};
use crate::operations::Operations;
use crate::peers::Peers;
use crate::reports::Reports;
use crate::scrub::Scrubs;
use crate::seeds::{Seeds, giver};
use crate::service::deadline;
use crate::settings::Settings;
use crate::snapshots::Snapshots;
use crate::status::{self, Hint};
use crate::steps::Steps;
use crate::store::Store;
use crate::tls::Tls;
use crate::tls::dial::Dial;
use crate::tls::door::{self, Door};
use crate::watchers::Watchers;

/// A node.
pub struct Node {
    /// From its file.
    pub settings: Settings,
    /// What it shows and whom it trusts; none without TLS.
    pub tls: Option<Arc<Tls>>,
    /// How it connects to other nodes.
    pub dial: Dial,
    /// Its disk.
    pub store: Store,
    /// Who is let in.
    pub admission: Admission,
    /// What it says happened.
    pub journal: Arc<Journal>,
    /// What the others say.
    pub reports: Reports,
    /// Who waits for changes of mailboxes.
    pub watchers: Arc<Watchers>,
    /// When it started; milliseconds since 1970.
    pub started_at: Millis,
    /// When it started, for ages.
    pub started: StdInstant,
    /// Wakes the driver.
    pub wake: Arc<Notify>,
    /// Threads for work that mail does not wait for.
    pub bulk: Handle,
    /// The node is being stopped.
    pub stopping: CancellationToken,
    /// Long operations that it carries out as the control leader.
    pub operations: Operations,
    /// Steps of long operations that it took.
    pub steps: Steps,
    /// Copies that are stopped while it is decided which one their database goes on from.
    pub held: Held,
    /// Why copies of this node have failed.
    pub failed: Failures,
    /// Copies that are given to other nodes, and those that are built here.
    pub seeds: Seeds,
    /// How far its copies were read through.
    pub scrubs: Scrubs,
    /// Snapshots of its copies.
    pub snapshots: Snapshots,
    stage: watch::Sender<Stage>,
    control: watch::Sender<Option<Arc<ControlState>>>,
    member: OnceLock<Member>,
    peer_listener: Mutex<Option<TcpListener>>,
    generations: Arc<Mutex<HashMap<DatabaseId, Generation>>>,
}

/// What a node has once it belongs to a DAG.
pub struct Member {
    /// What was agreed when the DAG was formed.
    pub formation: Formation,
    /// The others.
    pub peers: Arc<Peers>,
    /// Whether its databases may serve.
    pub gate: Arc<NodeGate>,
    /// The groups of its copies.
    pub registry: Registry,
}

impl Member {
    /// How long leases last in this DAG.
    pub fn lease_times(&self) -> LeaseTimes {
        gate::lease_times(self.formation.definition().control_timeouts)
    }
}

/// What a proposal came to.
pub struct Answer {
    /// The machine's reply.
    pub reply: Bytes,
    /// Where the entry stands.
    pub token: Token,
}

/// A state to read from, and how new it is.
pub struct Reading {
    /// The snapshot.
    pub view: Arc<dyn StateRead>,
    /// Everything up to there is in it.
    pub token: Token,
    /// None: it is labelled as possibly old, and needs no leave to serve.
    pub confirmed: Option<(Group, Confirmed)>,
}

impl Reading {
    /// Right before the answer leaves: whether this node still serves what was read.
    pub fn still(&self) -> Result<(), Problem> {
        let Some((group, confirmed)) = &self.confirmed else { return Ok(()) };
        let still = group.still_read(confirmed);
        still.map_err(|error| status::read(&error, self.token.database, None))
    }
}

impl Node {
    /// A node on its open store. It does nothing yet.
    pub fn new(
        settings: Settings,
        store: Store,
        stage: Stage,
        journal: Journal,
        peer_listener: TcpListener,
        tls: Option<Arc<Tls>>,
        bulk: Handle,
    ) -> Self {
        Self {
            admission: Admission::new(settings.budget.clone()),
            settings,
            dial: Dial::new(tls.clone()),
            tls,
            journal: Arc::new(journal),
            reports: Reports::default(),
            watchers: Arc::default(),
            started_at: clock::wall(),
            started: StdInstant::now(),
            wake: Arc::new(Notify::new()),
            stopping: CancellationToken::new(),
            operations: Operations::default(),
            steps: Steps::of(&store.root),
            held: Held::default(),
            failed: Failures::default(),
            scrubs: Scrubs::default(),
            seeds: Seeds::default(),
            bulk,
            snapshots: Snapshots::default(),
            stage: watch::Sender::new(stage),
            control: watch::Sender::new(None),
            member: OnceLock::new(),
            peer_listener: Mutex::new(Some(peer_listener)),
            generations: Arc::default(),
            store,
        }
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        self.settings.node()
    }

    /// Its store.
    pub fn store_id(&self) -> StoreId {
        self.store.root.identity().store
    }

    /// This start.
    pub fn boot(&self) -> Boot {
        self.store.root.identity().boot
    }

    /// How far it is with belonging to a DAG.
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// What it has as a member.
    pub fn member(&self) -> Result<&Member, Problem> {
        self.member.get().ok_or_else(status::unprovisioned)
    }

    /// The applied control log; none where there is nothing in it yet.
    pub fn control(&self) -> Option<Arc<ControlState>> {
        self.control.borrow().clone()
    }

    /// Tells of every change of the applied control log.
    pub fn control_changes(&self) -> watch::Receiver<Option<Arc<ControlState>>> {
        self.control.subscribe()
    }

    /// Whether a copy is built anywhere, as far as this node knows.
    pub fn is_seeding(&self) -> bool {
        self.control.borrow().as_ref().is_some_and(|state| !state.seeds.is_empty())
    }

    /// Publishes the applied control log.
    pub fn publish(&self, state: ControlState) {
        self.control.send_replace(Some(Arc::new(state)));
    }

    /// The newest lineage.
    pub fn lineage(&self) -> Lineage {
        self.member.get().map(|member| member.peers.lineage()).unwrap_or_default()
    }

    /// A database of the DAG, if this node's control log tells of it yet.
    pub fn database(&self, id: DatabaseId) -> Option<DatabaseRecord> {
        self.control()?.database(id).cloned()
    }

    fn own(&self) -> Own {
        let listen = self.settings.listen.peers;
        let anywhere = listen.ip().is_unspecified();
        let peer_address = if anywhere { String::new() } else { listen.to_string() };
        Own { node: self.id(), store: self.store_id(), peer_address }
    }

    // --- Belonging to a DAG ---------------------------------------------------------------------

    /// Carries out a round of creation: `next` decides, and what it decides is made durable before
    /// anybody hears of it. Gives whether anything was changed.
    pub fn advance(
        self: &Arc<Self>,
        next: impl FnOnce(&Stage, &Own) -> Result<Stage, Refusal>,
    ) -> Result<bool, Refusal> {
        let mut result = Ok(false);
        self.stage.send_if_modified(|stage| {
            result = next(stage, &self.own()).and_then(|next| {
                if next == *stage {
                    return Ok(false);
                }
                next.save(&*self.store.disk, self.store.root.folder())?;
                *stage = next;
                Ok(true)
            });
            matches!(result, Ok(true))
        });
        if result == Ok(true) {
            self.join().map_err(Refusal::Disk)?;
        }
        result
    }

    /// Becomes a running member where the stage says so. Repeating it is harmless.
    pub fn join(self: &Arc<Self>) -> Result<(), String> {
        let Stage::Member(formation) = self.stage() else { return Ok(()) };
        if self.member.get().is_some() {
            return Ok(());
        }
        let root = &self.store.root;
        root.join(formation.dag()).map_err(|fault| fault.to_string())?;
        if root.lineage().0.epoch < formation.lineage().epoch {
            let saved = root.save_lineage(formation.lineage(), Bytes::new());
            saved.map_err(|fault| fault.to_string())?;
        }
        let (lineage, beside) = root.lineage();
        let chain = links::chain_of(lineage, &beside).map_err(|fault| fault.to_string())?;
        self.journal.set_lineage(lineage);
        let holder = Holder { node: self.id(), store: self.store_id(), boot: self.boot() };
        let times = gate::lease_times(formation.definition().control_timeouts);
        let saved = Saved { chain: chain.clone(), promise: root.promise() };
        let gate = Arc::new(NodeGate::at_boot(holder, times, saved));
        let own = (holder.node, holder.store, holder.boot);
        let peers = Arc::new(Peers::founded(&formation, own, chain));
        peers.tell_of_chains(gate.clone());
        let link = GrpcLink::new(peers.endpoints(self.dial.clone()), GrpcOptions::default());
        let options = options(&formation, &self.settings);
        let (link, sink) = (Arc::new(link), self.event_sink());
        let registry = Registry::gated(options, link, peers.clone(), sink, gate.clone());
        registry.serve_seeds(giver::server(self));
        self.serve_peers(&registry);
        let member = Member { formation, peers, gate, registry };
        assert!(self.member.set(member).is_ok(), "joined once, under the stage's lock or at start");
        tracing::info!(lineage = %self.lineage(), "member of a DAG");
        self.wake.notify_one();
        Ok(())
    }

    /// Lets the other nodes in.
    fn serve_peers(&self, registry: &Registry) {
        let listener = self.peer_listener.lock().expect(UNPOISONED).take();
        let listener = listener.expect("a node joins once");
        let service = PeerServer::service(registry.acceptor());
        let (door, stopping) = (Door::for_members(self.tls.clone()), self.stopping.clone());
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a bound listener");
            let services = GrpcOptions::default().server().add_service(service);
            if let Err(error) = door::serve(services, listener, door, stopping).await {
                tracing::error!(%error, "the listener for other nodes ended");
            }
        });
    }

    // --- Groups ---------------------------------------------------------------------------------

    /// Remembers which incarnation a copy belongs to, before its group starts and tells events.
    pub fn note_generation(&self, database: DatabaseId, generation: Generation) {
        self.generations.lock().expect(UNPOISONED).insert(database, generation);
    }

    /// The copy of a database on this node, or where to go instead.
    pub fn group(&self, database: DatabaseId) -> Result<Group, Problem> {
        if self.stopping.is_cancelled() {
            return Err(status::shutting_down());
        }
        if let Some(group) = self.member()?.registry.get(database) {
            return Ok(group);
        }
        match self.failed.of(database) {
            None => Err(status::not_active(database, self.hint(database))),
            Some(reason) => {
                let error = replication::ProposeError::Failed { reason };
                Err(status::propose(&error, database, self.hint(database)))
            }
        }
    }

    /// Fails this node's copy of a database, because its files are not as they were written. Another
    /// copy takes over, and a new one is built in its place.
    pub fn fail_copy(self: &Arc<Self>, database: DatabaseId, why: &str) {
        let group = self.member().ok().and_then(|member| member.registry.get(database));
        let Some(group) = group else { return };
        let spec = group.spec();
        if !self.failed.note(database, spec.replica, why) {
            return;
        }
        tracing::error!(db = %database, why, "the copy is Failed");
        let copy = CopyOf::new(database, spec.generation, spec.replica);
        self.journal.write(&Event::ReplicaFailed { copy, why });
        let node = self.clone();
        tokio::spawn(async move {
            let Ok(member) = node.member() else { return };
            member.registry.stop(database).await;
            node.seeds.close_source(database);
            let closing = node.clone();
            let closed = tokio::task::spawn_blocking(move || closing.store.close_copy(database));
            drop(closed.await);
            node.wake.notify_one();
        });
    }

    /// Where a database is active, as far as this node knows: by its own copy's leader, else by
    /// what the others said.
    pub fn hint(&self, database: DatabaseId) -> Option<Hint> {
        let member = self.member.get()?;
        let led = member.registry.get(database).and_then(|group| group.leader());
        let led = led.map(|leader| leader.node).filter(|node| *node != self.id());
        let node = led.or_else(|| self.reports.active(database).filter(|n| *n != self.id()))?;
        self.endpoint(node, database).map(|endpoint| Hint { node, endpoint })
    }

    /// The node where a database is active, this one included.
    pub fn active_node(&self, database: DatabaseId) -> Option<NodeId> {
        let member = self.member.get()?;
        let group = member.registry.get(database);
        if group.is_some_and(|group| group.serving().is_ok()) {
            return Some(self.id());
        }
        self.hint(database).map(|hint| hint.node)
    }

    /// A node's listener for those who ask for a database: operators for the control group, front
    /// ends for all others.
    pub fn endpoint(&self, node: NodeId, database: DatabaseId) -> Option<String> {
        let member = self.member.get()?.peers.member(node)?;
        let address = match database {
            DatabaseId::CONTROL => member.admin_address,
            _ => member.client_address,
        };
        Some(self.dial.url(&address))
    }

    /// Lets a request in.
    pub fn admit(&self, database: DatabaseId, kind: Kind, bytes: u64) -> Result<Permit, Problem> {
        if kind == Kind::Write && self.store.pressure(database) == Pressure::Stop {
            return Err(status::admission(&crate::admission::Refusal::Flushing));
        }
        let permit = self.admission.admit(database, kind, bytes);
        permit.map_err(|refusal| status::admission(&refusal))
    }

    /// Proposes a command, and waits until it is applied.
    pub async fn propose(
        &self,
        database: DatabaseId,
        request: &str,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let group = match self.group(database) {
            Ok(group) => group,
            Err(problem) => return Err(self.without_copy(database, problem, deadline).await),
        };
        if self.store.pressure(database) == Pressure::Slow {
            tokio::time::sleep(SLOW_DOWN).await;
        }
        deadline::check(deadline)?;
        let committed = group.propose(command, deadline).await;
        let committed =
            committed.map_err(|error| status::propose(&error, database, self.hint(database)))?;
        if self.journal.is_kept() {
            self.journal_answer(&group, &committed, request, deadline);
        }
        let token = self.token(&group, committed.at.index);
        Ok(Answer { reply: committed.reply, token })
    }

    /// A linearizable view.
    pub async fn read(&self, database: DatabaseId, deadline: Instant) -> Result<Reading, Problem> {
        let group = match self.group(database) {
            Ok(group) => group,
            Err(problem) => return Err(self.without_copy(database, problem, deadline).await),
        };
        let confirmed = group.confirm_read(deadline).await;
        let confirmed =
            confirmed.map_err(|error| status::read(&error, database, self.hint(database)))?;
        let token = self.token(&group, confirmed.at.index);
        Ok(Reading { view: group.view(), token, confirmed: Some((group, confirmed)) })
    }

    /// Where an answer belongs.
    pub fn token(&self, group: &Group, log_index: u64) -> Token {
        let spec = group.spec();
        let lineage = self.lineage();
        Token { database: spec.database, lineage, generation: spec.generation, log_index }
    }

    fn journal_answer(
        &self,
        group: &Group,
        committed: &Committed,
        request: &str,
        deadline: Instant,
    ) {
        let at = committed.at;
        let spec = group.spec();
        let Some(copy) = self.store.copy(spec.database) else { return };
        let log = copy.log();
        let left = deadline.saturating_duration_since(Instant::now());
        let unleased = || clock::boottime_ns() + left.as_nanos() as u64;
        let leased = committed.counts_until.map(|until| until.0 * 1_000_000);
        self.journal.write(&Event::Acknowledged(Acknowledged {
            copy: CopyOf::new(spec.database, spec.generation, spec.replica),
            term: at.term,
            index: at.index,
            chain: log.chain_at(at.index).map(|chain| chain.to_string()).unwrap_or_default(),
            durable: log.bounds().durable.map_or(0, |at| at.index),
            // It was applied before it was answered.
            applied: at.index,
            request,
            deadline: leased.unwrap_or_else(unleased),
        }));
    }

    // --- Events ---------------------------------------------------------------------------------

    /// Where groups tell what happens to them: the journal, and the driver's bell.
    fn event_sink(&self) -> EventSink {
        let (journal, wake) = (self.journal.clone(), self.wake.clone());
        let generations = self.generations.clone();
        let watchers = self.watchers.clone();
        Arc::new(move |GroupEvent { database, replica, event }| {
            match &event {
                replication::Event::Applied { .. } => watchers.applied(database),
                replication::Event::Durable { .. } | replication::Event::Voted { .. } => {}
                _ => watchers.look(database),
            }
            let known = generations.lock().expect(UNPOISONED).get(&database).copied();
            let copy = CopyOf::new(database, known.unwrap_or_default(), replica);
            tell(&journal, copy, &event);
            if matters(database, &event) {
                wake.notify_one();
            }
        })
    }
}

/// Whether the driver has to look: anything but the daily work, and every change of the control
/// group's state.
fn matters(database: DatabaseId, event: &replication::Event) -> bool {
    use replication::Event as E;
    match event {
        E::Applied { .. } => database == DatabaseId::CONTROL,
        E::Durable { .. } | E::Cut { .. } | E::Voted { .. } | E::LongerLog { .. } => false,
        E::Role { .. }
        | E::Mounted(_)
        | E::Dismounted { .. }
        | E::Installed { .. }
        | E::Failed { .. } => true,
    }
}

fn tell(journal: &Journal, copy: CopyOf, event: &replication::Event) {
    use replication::Event as E;
    match event {
        E::Role { role, term } => {
            let role = match role {
                replication::Role::Leader => Role::Leader,
                replication::Role::Candidate => Role::Candidate,
                replication::Role::Follower => Role::Follower,
                replication::Role::Learner => Role::Learner,
                replication::Role::Stopped => return,
            };
            journal.write(&Event::Role { copy, term: *term, role });
        }
        E::Voted { term, replica, committed: false } => {
            journal.write(&Event::Voted { copy, term: *term, voted_for: replica.0 });
        }
        E::Mounted(mounted) => {
            let (term, index) = (mounted.at.term, mounted.at.index);
            journal.write(&Event::Mounted { copy, term, index });
        }
        E::Dismounted { why } => journal.write(&Event::Dismounted { copy, why }),
        E::Failed { reason } => journal.write(&Event::ReplicaFailed { copy, why: reason }),
        E::Voted { committed: true, .. }
        | E::LongerLog { .. }
        | E::Durable { .. }
        | E::Cut { .. }
        | E::Applied { .. }
        | E::Installed { .. } => {}
    }
}

/// What groups are run with.
fn options(formation: &Formation, settings: &Settings) -> replication::Options {
    let timeouts = formation.definition().database_timeouts.unwrap_or_default();
    let largest = replication::MAX_COMMAND_BYTES as u64;
    let group_bytes = settings.budget.in_flight_per_database.0.max(largest);
    let node_bytes = settings.budget.in_flight.0.max(group_bytes).min(u64::from(u32::MAX));
    replication::Options {
        timeouts: replication::Timeouts {
            heartbeat: timeouts.heartbeat_ms.into(),
            election_min: timeouts.election_ms_min.into(),
            election_max: timeouts.election_ms_max.into(),
        },
        node_bytes: node_bytes as usize,
        group_bytes: group_bytes as usize,
        ..replication::Options::default()
    }
}

/// The journal's line on where a copy lies.
pub fn journal_opening(node: &Node, copy: CopyOf, path: &Path, born: Option<&'static str>) {
    let store = node.store_id().to_string();
    if let Some(why) = born {
        node.journal.write(&Event::ReplicaBorn { copy, store: store.clone(), path, why });
    }
    node.journal.write(&Event::ReplicaOpened { copy, store, path });
}

/// How much a proposal waits while the flusher is behind.
const SLOW_DOWN: std::time::Duration = std::time::Duration::from_millis(5);

const UNPOISONED: &str = "no holder of this lock panics";
