//! A node from its first moment to its last.
//!
//! Start: settings, the root (locked, and the start counted, before anything else), listeners,
//! what was agreed about a DAG; then the services, the driver, and waiting. Everything that fails
//! before that ends the process with a sentence that says what and why.
//!
//! Stop (SIGTERM or SIGINT): what is served here is handed to other copies, the listeners take nothing new, groups are stopped, states are flushed,
//! logs closed. A kill at any moment is normal, and only costs the next start a longer replay.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::transport::Server;

use crate::driver;
use crate::formation::{LoadError, Stage};
use crate::journal::{CopyOf, Event, Journal};
use crate::node::Node;
use crate::service::admin::{AdminServer, lead_seeds};
use crate::service::health::Health;
use crate::service::mailbox::MailboxServer;
use crate::service::snapshots::SnapshotServer;
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::tls::door::{self, Door};
use crate::tls::{self, Tls};
use crate::{balance, bulk, gate, hooks, leave, operations, scrub, seeds, snapshots, sweep, tidy};

/// Why a node cannot run.
#[derive(Debug, Error)]
pub enum Error {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was agreed about a DAG cannot be read.
    #[error(transparent)]
    Formation(#[from] LoadError),
    /// A listener.
    #[error("listen.{name} = {address}: {source}")]
    Listen {
        /// Which.
        name: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The store and what was agreed do not belong together.
    #[error("{0}")]
    Membership(String),
    /// The journal.
    #[error("open the journal: {0}")]
    Journal(std::io::Error),
    /// The runtime.
    #[error("{0}")]
    System(String),
}

/// How long the services may take to end what they are doing.
const GRACE: Duration = Duration::from_secs(3);

/// Runs a node until it is told to stop.
pub fn run(settings: Settings) -> Result<(), Error> {
    let tls = Tls::open(&settings).map_err(|problems| Error::System(problems.join("; ")))?;
    let store = Store::open(&settings)?;
    let stage = Stage::load(&*store.disk, store.root.folder())?;
    check_belonging(&store, &stage)?;
    let listen = settings.listen.clone();
    let peers = bind("peers", listen.peers)?;
    let clients = bind("clients", listen.clients)?;
    let admin = bind("admin", listen.admin)?;
    let boot = store.root.identity().boot;
    let journal = Journal::open(settings.journal_path().as_deref(), settings.node(), boot);
    let journal = journal.map_err(Error::Journal)?;
    let store_text = store.root.identity().store.to_string();
    journal.write(&Event::Started { store: store_text });
    let runtime = runtime(settings.worker_threads)?;
    let bulk = bulk::runtime().map_err(|error| no_runtime(&error))?;
    let node = runtime.block_on(async {
        let node =
            Arc::new(Node::new(settings, store, stage, journal, peers, tls, bulk.handle().clone()));
        serve(&node, clients, admin).await?;
        Ok::<_, Error>(node)
    })?;
    bulk.shutdown_timeout(GRACE);
    runtime.shutdown_timeout(GRACE);
    close(&node);
    Ok(())
}

fn runtime(worker_threads: usize) -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = match worker_threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if worker_threads > 0 {
        builder.worker_threads(worker_threads);
    }
    let built = builder.enable_all().max_blocking_threads(64).thread_name("holdfast").build();
    built.map_err(|error| no_runtime(&error))
}

fn no_runtime(error: &std::io::Error) -> Error {
    Error::System(format!("start the runtime: {error}"))
}

/// A store of another DAG is refused: it would bring foreign votes and foreign mail.
fn check_belonging(store: &Store, stage: &Stage) -> Result<(), Error> {
    let found = store.root.identity().dag;
    let agreed = match stage {
        Stage::Member(formation) => Some(formation.dag()),
        Stage::Unprovisioned | Stage::Prepared(_) => None,
    };
    if found == dag_types::DagId::NIL || agreed == Some(found) {
        return Ok(());
    }
    Err(Error::Membership(match agreed {
        Some(agreed) => format!(
            "the store belongs to DAG {found} and the file `formation` beside it to DAG {agreed}: \
             files of two nodes were mixed; restore the root folder as it was"
        ),
        None => format!(
            "the store belongs to DAG {found} and the file `formation` is missing beside it; \
             restore it, or let this node come back as a new store"
        ),
    }))
}

fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| Error::Listen { name, address, source })
}

async fn serve(node: &Arc<Node>, clients: TcpListener, admin: TcpListener) -> Result<(), Error> {
    node.join().map_err(Error::Membership)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(dag_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Error::System(format!("set up reflection: {error}")))?;
    let mail = server()
        .add_service(MailboxServer::service(node.clone()))
        .add_service(health.clone())
        .add_service(reflection.clone());
    let operators = server()
        .add_service(AdminServer::service(node.clone()))
        .add_service(SnapshotServer::service(node.clone()))
        .add_service(reflection);
    let stopping = || node.stopping.clone();
    let door = Door::for_clients(node.tls.clone());
    let mail = tokio::spawn(door::serve(mail, listener(clients)?, door, stopping()));
    let door = Door::for_members(node.tls.clone());
    let operators = tokio::spawn(door::serve(operators, listener(admin)?, door, stopping()));
    let hangup = listen(SignalKind::hangup())?;
    tokio::spawn(tls::keep_fresh(node.tls.clone(), hangup, stopping()));
    let driver = tokio::spawn(driver::run(node.clone(), Health::new(reporter)));
    let keeper = tokio::spawn(gate::keeper::run(node.clone()));
    tokio::spawn(operations::take_up_left(node.clone()));
    tokio::spawn(balance::run(node.clone()));
    tokio::spawn(hooks::watch(node.clone()));
    tokio::spawn(driver::collect_reports(node.clone()));
    tokio::spawn(driver::keep_house(node.clone()));
    tokio::spawn(sweep::run(node.clone()));
    tokio::spawn(lead_seeds(node.clone()));
    tokio::spawn(seeds::keep_house(node.clone()));
    let builder = tokio::spawn(seeds::builder::run(node.clone()));
    scrub::start(node)
        .map_err(|error| Error::System(format!("start the scrub thread: {error}")))?;
    tokio::spawn(snapshots::notes::tell(node.clone()));
    snapshots::keeper::start(node)
        .map_err(|error| Error::System(format!("start the snapshot thread: {error}")))?;
    tidy::start(&node).map_err(|error| Error::System(format!("start the tidy thread: {error}")))?;
    tracing::info!(
        store = %node.store_id(),
        boot = node.boot().counter,
        insecure = node.settings.insecure,
        tls = node.tls.is_some(),
        "started"
    );
    for warning in node.tls.iter().flat_map(|tls| tls.warnings()) {
        tracing::warn!(code = warning.code, "{}", warning.text);
    }
    wait_for_signal().await?;
    tracing::info!("stopping");
    leave::hand_over(node).await;
    node.stopping.cancel();
    let ended = async { tokio::join!(mail, operators, driver, keeper, builder) };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("clients still had calls under way");
    }
    if let Ok(member) = node.member() {
        member.registry.shutdown().await;
    }
    Ok(())
}

fn listener(bound: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    tokio::net::TcpListener::from_std(bound)
        .map_err(|error| Error::System(format!("use a listener: {error}")))
}

/// Mail comes in bodies of some ten kilobytes: the default windows and frames of HTTP/2 would cost
/// twice the processor time. A client that stopped answering must not hold its share for ever.
fn server() -> Server {
    const WINDOW: u32 = 1 << 20;
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_frame_size(256 << 10)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| Error::System(format!("hear signals: {error}")))
}

async fn wait_for_signal() -> Result<(), Error> {
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Flushes and closes what the groups have left.
fn close(node: &Node) {
    for (spec, path) in node.store.close() {
        let copy = CopyOf::new(spec.database, spec.generation, spec.replica);
        node.journal.write(&Event::ReplicaClosed { copy, path: &path });
    }
    node.journal.write(&Event::Stopped);
    node.journal.flush();
}
