//! The transitions of the control group.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{Boot, DatabaseId, Generation, LogId, NodeId, StateView, StoreId};
use prost::Message;

use super::command::{
    Command, CreateDag, CreateDatabase, EndReform, Founder, NoteSnapshot, Order, RecordMove,
    ReformDatabase, RegisterBoot, SnapshotNote,
};
use super::definition::{Definition, NodeDefinition, is_name, name_problem};
use super::record::{
    AUDIT, AuditRow, COUNTERS, Counters, DAG, DATABASES, DagRecord, DatabaseRecord, LINEAGE,
    LineageLink, LinkKind, NAMES, NODES, NamedDatabase, NodeRecord, ReplicaRecord, SITES,
    SiteRecord, number_key, text_key,
};
use super::response::{
    BootRegistered, BootTurnedBack, Changed, DagCreated, DagExists, DatabaseCreated, FailedCheck,
    InvalidName, NameTaken, NoDag, Outcome, Problems, Rejection, RequestIdReused, Response,
    UnknownNode, UnknownStore,
};
use super::state::ControlState;
use super::{
    apply_activation as activation, apply_joining as joining, apply_members as members,
    apply_operation as operation, apply_reform as reform, apply_seed as seed,
};
use crate::change::{Applied, Change, Digest, Fault, decode, read, read_digest};
use crate::placement::{self, PlacedCopy, Placement, Wish};
use crate::request::{self, Seen};

/// Audit rows that are kept; the oldest goes when one more comes.
const AUDIT_ROWS_MAX: u64 = 10_000;

/// The effect of one entry of the control log. The same input gives the same output, for ever.
pub fn apply<V: StateView>(
    view: &V,
    at: LogId,
    command: &Command,
) -> Result<Applied<Response>, Fault<V::Error>> {
    let mut change = Change::new(view);
    let order = command.order.as_ref().ok_or(Fault::UnknownCommand)?;
    let verdict = match order {
        Order::CreateDag(order) => create_dag(&mut change, command, order)?,
        Order::RegisterBoot(order) => register_boot(&mut change, order)?,
        Order::CreateDatabase(order) => create_database(&mut change, command, order)?,
        Order::BeginOperation(order) => operation::begin(&mut change, command, order)?,
        Order::BeginStep(order) => operation::begin_step(&mut change, at, command, order)?,
        Order::EndStep(order) => operation::end_step(&mut change, at, command, order)?,
        Order::EndOperation(order) => operation::end(&mut change, command, order)?,
        Order::SeedCopy(order) => seed::begin(&mut change, at, command, order)?,
        Order::AdvanceSeed(order) => seed::advance(&mut change, at, command, order)?,
        Order::EndSeed(order) => seed::end(&mut change, at, command, order)?,
        Order::RemoveCopy(order) => seed::remove(&mut change, order)?,
        Order::RetireNode(order) => members::retire(&mut change, at, order)?,
        Order::PlaceControlVoters(order) => members::place_voters(&mut change, at, order)?,
        Order::RemoveNode(order) => members::remove(&mut change, at, order)?,
        Order::AdmitNode(order) => joining::admit(&mut change, at, order)?,
        Order::SettleNode(order) => joining::settle(&mut change, at, order)?,
        Order::DismissNode(order) => joining::dismiss(&mut change, at, order)?,
        Order::ReformDatabase(order) => reform::reform(&mut change, at, command, order)?,
        Order::EndReform(order) => reform::end(&mut change, at, order)?,
        Order::NoteSnapshot(order) => note_snapshot(&mut change, order)?,
        other => activation::change(&mut change, at, command, other)?,
    };
    let response = match verdict {
        Verdict::Done(outcome) => {
            audit(&mut change, at, command, order, true)?;
            outcome.into()
        }
        Verdict::AlreadyDone(outcome) => outcome.into(),
        Verdict::Refused(rejection) => {
            audit(&mut change, at, command, order, false)?;
            rejection.into()
        }
    };
    change.finish(response)
}

/// The content digest of the control group's state.
pub fn digest<V: StateView>(view: &V) -> Result<Digest, Fault<V::Error>> {
    read_digest(view)
}

/// What a command comes to.
pub(super) enum Verdict {
    Done(Outcome),
    /// An equal command did it before: nothing is changed, and the audit has its row already.
    AlreadyDone(Outcome),
    Refused(Rejection),
}

impl Verdict {
    pub(super) fn refused(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }

    pub(super) fn failed(check: FailedCheck) -> Self {
        Self::Refused(Rejection::Check(check))
    }

    pub(super) fn changed() -> Self {
        Self::Done(Outcome::Changed(Changed { was_so: false }))
    }

    pub(super) fn was_so() -> Self {
        Self::AlreadyDone(Outcome::Changed(Changed { was_so: true }))
    }
}

// --- CreateDag ---------------------------------------------------------------------------------

fn create_dag<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    order: &CreateDag,
) -> Result<Verdict, Fault<V::Error>> {
    if let Some(dag) = read::<V, DagRecord>(change.before(), DAG, "the DAG's record")? {
        return Ok(match dag.dag == order.dag {
            true => Verdict::AlreadyDone(Outcome::DagCreated(DagCreated { replayed: true })),
            false => Verdict::refused(Rejection::DagExists(DagExists { dag: dag.dag })),
        });
    }
    let definition = order.definition.clone().unwrap_or_default();
    let problems = creation_problems(order, &definition);
    if !problems.is_empty() {
        return Ok(Verdict::refused(Rejection::InvalidDefinition(Problems { problems })));
    }
    put_dag(change, command, order, &definition);
    let nodes = definition.nodes.iter().map(|node| node_record(node, &order.founders));
    let nodes: Vec<NodeRecord> = nodes.collect();
    for node in &nodes {
        change.put(number_key(NODES, node.node), node);
    }
    put_first_databases(change, command, &definition, &nodes);
    Ok(Verdict::Done(Outcome::DagCreated(DagCreated { replayed: false })))
}

fn creation_problems(order: &CreateDag, definition: &Definition) -> Vec<String> {
    let mut problems = definition.problems();
    if order.dag.len() != 16 || order.activation.len() != 16 {
        problems.push("the ids of the DAG and of the first link need sixteen bytes each".into());
    }
    for node in &definition.nodes {
        if store_of(node.node, &order.founders) == StoreId::NIL {
            problems.push(format!("the store of node {} is not named", node.node));
        }
    }
    problems
}

fn store_of(node: u64, founders: &[Founder]) -> StoreId {
    let founder = founders.iter().find(|founder| founder.node == node);
    founder.and_then(|founder| StoreId::from_slice(&founder.store)).unwrap_or(StoreId::NIL)
}

fn put_dag<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    order: &CreateDag,
    definition: &Definition,
) {
    change.put(
        DAG,
        &DagRecord {
            dag: order.dag.clone(),
            name: definition.name.clone(),
            primary_site: definition.sites.first().cloned().unwrap_or_default(),
            created_at_ms: command.at_ms,
            database_timeouts: definition.database_timeouts,
            control_timeouts: definition.control_timeouts,
        },
    );
    change.put(
        number_key(LINEAGE, 1),
        &LineageLink {
            epoch: 1,
            activation: order.activation.clone(),
            kind: LinkKind::First.into(),
            parent: Bytes::new(),
            started_sites: definition.sites.clone(),
            at_ms: command.at_ms,
            who: command.who.clone(),
            rejected: Vec::new(),
        },
    );
    for name in &definition.sites {
        change.put(text_key(SITES, name), &SiteRecord { name: name.clone(), started: true });
    }
}

pub(super) fn node_record(node: &NodeDefinition, founders: &[Founder]) -> NodeRecord {
    NodeRecord {
        node: node.node,
        name: node.name.clone(),
        site: node.site.clone(),
        witness: node.witness,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        admin_address: node.admin_address.clone(),
        store: Bytes::copy_from_slice(&store_of(node.node, founders).0),
        boot_counter: 0,
        boot_id: 0,
        ..NodeRecord::default()
    }
}

/// The control group itself and the directory: databases that every DAG has.
fn put_first_databases<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    definition: &Definition,
    nodes: &[NodeRecord],
) {
    let founding = definition.founding_replicas();
    let mut counters = Counters {
        next_database: DatabaseId::FIRST_MAILBOX_DATABASE.0,
        next_replica: founding.len() as u64 + 1,
        next_audit: 1,
        operations: 0,
    };
    let mut copies: Vec<ReplicaRecord> = founding
        .iter()
        .map(|copy| ReplicaRecord {
            replica: copy.replica.0,
            node: copy.node.0,
            store: store_on(nodes, copy.node),
            voter: copy.voter,
            ..ReplicaRecord::default()
        })
        .collect();
    copies.sort_by_key(|copy| (!copy.voter, copy.node));
    let control = DatabaseRecord {
        database: DatabaseId::CONTROL.0,
        name: "control".to_string(),
        generation: Generation::FIRST.0,
        active_site: String::new(),
        replicas: copies,
        created_at_ms: command.at_ms,
        reasons: placement::control_voters(&definition.dag()).findings,
        reforming: 0,
    };
    put_database(change, &control);
    let everywhere = Wish { everywhere: true, ..Wish::default() };
    let placed = placement::place(&definition.dag(), &everywhere)
        .expect("a definition without problems has a data node");
    let directory = database_record(
        DatabaseId::DIRECTORY,
        "directory",
        command.at_ms,
        placed,
        nodes,
        &mut counters,
    );
    put_database(change, &directory);
    change.put(COUNTERS, &counters);
}

pub(super) fn put_database<V: StateView>(change: &mut Change<'_, V>, database: &DatabaseRecord) {
    change.put(number_key(DATABASES, database.database), database);
    let name = database.name.to_ascii_lowercase();
    change.put(text_key(NAMES, &name), &NamedDatabase { database: database.database });
}

/// Gives out the replica ids of a new database.
fn database_record(
    id: DatabaseId,
    name: &str,
    at_ms: u64,
    placed: Placement,
    nodes: &[NodeRecord],
    counters: &mut Counters,
) -> DatabaseRecord {
    let first = counters.next_replica;
    counters.next_replica += placed.copies.len() as u64;
    let number = |(i, copy): (usize, &PlacedCopy)| ReplicaRecord {
        replica: first + i as u64,
        node: copy.node.0,
        store: store_on(nodes, copy.node),
        voter: copy.voter,
        ..ReplicaRecord::default()
    };
    DatabaseRecord {
        database: id.0,
        name: name.to_string(),
        generation: Generation::FIRST.0,
        active_site: placed.active_site.unwrap_or_default(),
        replicas: placed.copies.iter().enumerate().map(number).collect(),
        created_at_ms: at_ms,
        reasons: placed.reasons,
        reforming: 0,
    }
}

fn store_on(nodes: &[NodeRecord], id: NodeId) -> Bytes {
    let node = nodes.iter().find(|node| node.id() == id);
    node.map(|node| node.store.clone()).expect("placement names nodes of the DAG only")
}

// --- RegisterBoot ------------------------------------------------------------------------------

fn register_boot<V: StateView>(
    change: &mut Change<'_, V>,
    order: &RegisterBoot,
) -> Result<Verdict, Fault<V::Error>> {
    if read::<V, DagRecord>(change.before(), DAG, "the DAG's record")?.is_none() {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    }
    let key = number_key(NODES, order.node);
    let Some(mut node) = read::<V, NodeRecord>(change.before(), &key, "a node")? else {
        let unknown = UnknownNode { node: order.node };
        return Ok(Verdict::refused(Rejection::UnknownNode(unknown)));
    };
    if node.store != order.store {
        let unknown = UnknownStore { node: order.node, registered: node.store };
        return Ok(Verdict::refused(Rejection::UnknownStore(unknown)));
    }
    let boot = Boot { counter: order.boot_counter, id: order.boot_id };
    if boot == node.boot() && boot.counter > 0 {
        let done = BootRegistered { replayed: true };
        return Ok(Verdict::AlreadyDone(Outcome::BootRegistered(done)));
    }
    if boot.counter <= node.boot_counter {
        return Ok(Verdict::refused(Rejection::BootTurnedBack(BootTurnedBack {
            node: order.node,
            counter: boot.counter,
            registered_counter: node.boot_counter,
        })));
    }
    node.boot_counter = boot.counter;
    node.boot_id = boot.id;
    change.put(key, &node);
    Ok(Verdict::Done(Outcome::BootRegistered(BootRegistered { replayed: false })))
}

// --- CreateDatabase ----------------------------------------------------------------------------

fn create_database<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    order: &CreateDatabase,
) -> Result<Verdict, Fault<V::Error>> {
    let content = order.encode_to_vec();
    if !request::is_request_id(&order.request_id) {
        return Ok(Verdict::refused(Rejection::RequestIdReused(RequestIdReused {})));
    }
    match request::seen(change.before(), &order.request_id, &content)? {
        Seen::Replay(first) => {
            let mut first: DatabaseCreated = decode("a remembered answer", first)?;
            first.replayed = true;
            return Ok(Verdict::AlreadyDone(Outcome::DatabaseCreated(first)));
        }
        Seen::Reused => {
            return Ok(Verdict::refused(Rejection::RequestIdReused(RequestIdReused {})));
        }
        Seen::New => {}
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let placed = match check_new_database(&state, order) {
        Ok(placed) => placed,
        Err(rejection) => return Ok(Verdict::Refused(rejection)),
    };
    let mut counters: Counters =
        read(change.before(), COUNTERS, "the counters")?.expect("written with the DAG");
    let id = DatabaseId(counters.next_database);
    counters.next_database += 1;
    let database =
        database_record(id, &order.name, command.at_ms, placed, &state.nodes, &mut counters);
    put_database(change, &database);
    change.put(COUNTERS, &counters);
    let created = DatabaseCreated { database: Some(database), replayed: false };
    request::remember(change, command.at_ms, &order.request_id, &content, &created)?;
    Ok(Verdict::Done(Outcome::DatabaseCreated(created)))
}

fn check_new_database(
    state: &ControlState,
    order: &CreateDatabase,
) -> Result<Placement, Rejection> {
    if !is_name(&order.name) {
        let problem = name_problem("a database's name", &order.name);
        return Err(Rejection::InvalidName(InvalidName { problem }));
    }
    if let Some(other) = state.database_named(&order.name) {
        let taken = NameTaken { name: order.name.clone(), database: other.database };
        return Err(Rejection::NameTaken(taken));
    }
    let wish = Wish {
        site: Some(order.site.clone()).filter(|site| !site.is_empty()),
        nodes: order.nodes.iter().map(|node| NodeId(*node)).collect(),
        everywhere: false,
    };
    let mut dag = state.placement();
    let unsettled = |node: &NodeRecord| node.is_leaving() || node.is_joining();
    dag.nodes.retain(|node| !state.node(node.id).is_some_and(unsettled));
    placement::place(&dag, &wish).map_err(|reasons| {
        let problems = reasons.iter().map(ToString::to_string).collect();
        Rejection::NoPlacement(Problems { problems })
    })
}

// --- NoteSnapshot ------------------------------------------------------------------------------

/// The audit's row is all that it is for; what has no sense is refused, and stands there too.
fn note_snapshot<V: StateView>(
    change: &mut Change<'_, V>,
    order: &NoteSnapshot,
) -> Result<Verdict, Fault<V::Error>> {
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    if state.node(NodeId(order.node)).is_none() {
        return Ok(Verdict::refused(Rejection::UnknownNode(UnknownNode { node: order.node })));
    }
    let digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if order.snapshot.len() != 32 || !digits(&order.snapshot) {
        let id = &order.snapshot;
        let needed = "32 hexadecimal digits";
        return Ok(Verdict::failed(FailedCheck::new("snapshot-id", "snapshot", id, needed)));
    }
    match order.what() {
        SnapshotNote::Unspecified => Ok(Verdict::failed(FailedCheck::new(
            "snapshot-note",
            "snapshot",
            "nothing",
            "what was done with it",
        ))),
        _ => Ok(Verdict::changed()),
    }
}

// --- Audit -------------------------------------------------------------------------------------

fn audit<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &Order,
    accepted: bool,
) -> Result<(), Fault<V::Error>> {
    let (action, object) = audited(order);
    let row = AuditRow {
        index: at.index,
        at_ms: command.at_ms,
        who: command.who.clone(),
        from: command.from.clone(),
        reason: command.reason.clone(),
        action: action.to_string(),
        object,
        accepted,
    };
    let mut counters = change.pending_or_before::<Counters>(COUNTERS, "the counters")?;
    change.put(number_key(AUDIT, counters.next_audit), &row);
    if let Some(oldest) = counters.next_audit.checked_sub(AUDIT_ROWS_MAX) {
        change.delete(number_key(AUDIT, oldest));
    }
    counters.next_audit += 1;
    change.put(COUNTERS, &counters);
    Ok(())
}

/// What the audit calls an order, and what it is about.
fn audited(order: &Order) -> (&'static str, String) {
    let copy = |database: u64, node: u64| format!("database {database} on node {node}");
    match order {
        Order::CreateDag(order) => {
            let name = order.definition.as_ref().map(|definition| definition.name.clone());
            ("create dag", name.unwrap_or_default())
        }
        Order::RegisterBoot(order) => {
            ("register boot", format!("node {} start {}", order.node, order.boot_counter))
        }
        Order::CreateDatabase(order) => ("create database", order.name.clone()),
        Order::SetNodePolicy(order) => ("set node policy", format!("node {}", order.node)),
        Order::SetDatabasePolicy(order) => {
            ("set database policy", format!("database {}", order.database))
        }
        Order::SuspendCopy(order) if order.activation_only => {
            ("suspend activation", copy(order.database, order.node))
        }
        Order::SuspendCopy(order) => ("suspend copy", copy(order.database, order.node)),
        Order::ResumeCopy(order) => ("resume copy", copy(order.database, order.node)),
        Order::SetPreference(order) => ("set preference", format!("database {}", order.database)),
        Order::DrainNode(order) => ("drain", format!("node {}", order.node)),
        Order::UndrainNode(order) => ("undrain", format!("node {}", order.node)),
        Order::SetSettings(_) => ("set settings", "dag".into()),
        Order::OpenGate(order) => ("open gate", format!("node {}", order.node)),
        Order::RecordMove(order) => {
            let RecordMove { database, from, to, .. } = order;
            ("move", format!("database {database} from node {from} to node {to}"))
        }
        Order::BeginOperation(order) => ("begin operation", order.object.clone()),
        Order::BeginStep(order) => {
            ("begin step", format!("operation {} step {}", order.operation, order.step))
        }
        Order::EndStep(order) => {
            ("end step", format!("operation {} step {}", order.operation, order.step))
        }
        Order::PlaceVoters(order) => ("place voters", format!("database {}", order.database)),
        Order::EndOperation(order) => ("end operation", format!("operation {}", order.operation)),
        Order::SeedCopy(order) => ("seed copy", copy(order.database, order.node)),
        Order::AdvanceSeed(order) => ("put copy in place", copy(order.database, order.node)),
        Order::EndSeed(order) if order.succeeded => {
            ("admit copy", copy(order.database, order.node))
        }
        Order::EndSeed(order) => ("give seed up", copy(order.database, order.node)),
        Order::RemoveCopy(order) => ("remove copy", copy(order.database, order.node)),
        Order::RetireNode(order) if order.stays => ("keep node", format!("node {}", order.node)),
        Order::RetireNode(order) => ("retire node", format!("node {}", order.node)),
        Order::PlaceControlVoters(order) => {
            ("place control voters", format!("nodes {:?}", order.nodes))
        }
        Order::RemoveNode(order) => ("remove node", format!("node {}", order.node)),
        Order::AdmitNode(order) => {
            let node = order.node.as_ref().map_or(0, |node| node.node);
            let action = if order.replaces { "replace node" } else { "admit node" };
            (action, format!("node {node}"))
        }
        Order::SettleNode(order) => ("settle node", format!("node {}", order.node)),
        Order::DismissNode(order) => ("dismiss node", format!("node {}", order.node)),
        Order::ReformDatabase(order) => {
            let ReformDatabase { database, node, .. } = order;
            ("form database anew", format!("database {database} from node {node}"))
        }
        Order::EndReform(order) => {
            let EndReform { database, generation, .. } = order;
            ("end forming anew", format!("database {database} generation {generation}"))
        }
        Order::NoteSnapshot(order) => {
            let action = match order.what() {
                SnapshotNote::Unspecified => "note snapshot",
                SnapshotNote::Taken => "take snapshot",
                SnapshotNote::Deleted => "delete snapshot",
                SnapshotNote::Dropped => "drop snapshot",
                SnapshotNote::Damaged => "snapshot damaged",
            };
            let NoteSnapshot { snapshot, database, node, .. } = order;
            // A caller's text is bounded before it is kept.
            let id: String = snapshot.chars().take(32).collect();
            (action, format!("snapshot {id} of {}", copy(*database, *node)))
        }
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
