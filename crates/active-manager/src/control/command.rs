//! What is asked of the DAG. Tags are for ever: a log written today is read by every later version.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{Boot, GrantId, Lineage, NodeId, StoreId};

use super::activation::{ActivationPolicy, MoveCause, Settings};
use super::definition::{Definition, NodeDefinition};
use super::operation::OperationKind;

/// One entry of the control log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Milliseconds since 1970 where it was proposed; stamps and expiry only.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// Who asked, for the audit: an operator, or `node 3`.
    #[prost(string, tag = "2")]
    pub who: String,
    /// From where.
    #[prost(string, tag = "3")]
    pub from: String,
    /// Why, in the operator's words.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// What.
    #[prost(
        oneof = "Order",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 40, 41, 42, \
                43, 50, 51, 52, 53, 54, 55, 60, 61, 62"
    )]
    pub order: Option<Order>,
}

/// What is asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Order {
    /// The first entry of a DAG.
    #[prost(message, tag = "10")]
    CreateDag(CreateDag),
    /// A node started.
    #[prost(message, tag = "11")]
    RegisterBoot(RegisterBoot),
    /// A new mailbox database.
    #[prost(message, tag = "12")]
    CreateDatabase(CreateDatabase),
    /// Blocks, allows or limits activation on a node.
    #[prost(message, tag = "13")]
    SetNodePolicy(SetNodePolicy),
    /// Blocks or allows activation of a database.
    #[prost(message, tag = "14")]
    SetDatabasePolicy(SetDatabasePolicy),
    /// Suspends a copy, or only its activation.
    #[prost(message, tag = "15")]
    SuspendCopy(CopySuspension),
    /// Takes a suspension back.
    #[prost(message, tag = "16")]
    ResumeCopy(CopySuspension),
    /// Orders the copies of a database.
    #[prost(message, tag = "17")]
    SetPreference(SetPreference),
    /// Begins maintenance of a node.
    #[prost(message, tag = "18")]
    DrainNode(NodeOrder),
    /// Ends maintenance of a node.
    #[prost(message, tag = "19")]
    UndrainNode(NodeOrder),
    /// Changes settings of the DAG.
    #[prost(message, tag = "20")]
    SetSettings(Settings),
    /// A node's gate is about to be granted.
    #[prost(message, tag = "21")]
    OpenGate(OpenGate),
    /// An active copy moves for balance or to another site.
    #[prost(message, tag = "22")]
    RecordMove(RecordMove),
    /// A long operation.
    #[prost(message, tag = "23")]
    BeginOperation(BeginOperation),
    /// A step of it is about to be sent.
    #[prost(message, tag = "24")]
    BeginStep(BeginStep),
    /// A step of it was answered.
    #[prost(message, tag = "25")]
    EndStep(EndStep),
    /// The operation is over, or shall be.
    #[prost(message, tag = "26")]
    EndOperation(EndOperation),
    /// The voters of a database changed.
    #[prost(message, tag = "27")]
    PlaceVoters(PlaceVoters),
    /// A copy is built anew from another one.
    #[prost(message, tag = "40")]
    SeedCopy(SeedCopy),
    /// The new copy is built and takes its place.
    #[prost(message, tag = "41")]
    AdvanceSeed(AdvanceSeed),
    /// The new copy is admitted, or given up.
    #[prost(message, tag = "42")]
    EndSeed(EndSeed),
    /// A database has one copy less.
    #[prost(message, tag = "43")]
    RemoveCopy(RemoveCopy),
    /// A node begins to leave, or stays after all.
    #[prost(message, tag = "50")]
    RetireNode(RetireNode),
    /// Other nodes vote in the control group.
    #[prost(message, tag = "51")]
    PlaceControlVoters(PlaceControlVoters),
    /// A node that was leaving is gone.
    #[prost(message, tag = "52")]
    RemoveNode(RemoveNode),
    /// A node begins to join, or a new store takes the place of a lost one.
    #[prost(message, tag = "53")]
    AdmitNode(AdmitNode),
    /// A node that was joining is settled.
    #[prost(message, tag = "54")]
    SettleNode(SettleNode),
    /// A node that was joining does not join after all.
    #[prost(message, tag = "55")]
    DismissNode(DismissNode),
    /// A database whose majority is lost goes on from one copy, in a new generation.
    #[prost(message, tag = "60")]
    ReformDatabase(ReformDatabase),
    /// The new generation serves.
    #[prost(message, tag = "61")]
    EndReform(EndReform),
    /// Something was done with a snapshot; for the audit alone.
    #[prost(message, tag = "62")]
    NoteSnapshot(NoteSnapshot),
}

/// See [`Order::ReformDatabase`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReformDatabase {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// The generation that lost its majority.
    #[prost(uint32, tag = "2")]
    pub generation: u32,
    /// The node whose copy the new generation is made of.
    #[prost(uint64, tag = "3")]
    pub node: u64,
    /// That copy.
    #[prost(uint64, tag = "4")]
    pub replica: u64,
    /// The last openings of the gates of the nodes that are given up: where one of them was opened
    /// since the checks were made, the order is refused.
    #[prost(message, repeated, tag = "5")]
    pub openings: Vec<SeenOpening>,
    /// The operation that asks.
    #[prost(uint64, tag = "6")]
    pub operation: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "7")]
    pub term: u64,
}

/// The last opening of a gate that somebody saw.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeenOpening {
    /// Whose.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The control term of its grant; 0: it never was opened.
    #[prost(uint64, tag = "2")]
    pub grant_term: u64,
    /// Its number in that term.
    #[prost(uint64, tag = "3")]
    pub grant_number: u64,
}

/// See [`Order::EndReform`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndReform {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// The generation that serves now.
    #[prost(uint32, tag = "2")]
    pub generation: u32,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// See [`Order::NoteSnapshot`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoteSnapshot {
    /// Of which database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where it lies.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// 32 hexadecimal digits.
    #[prost(string, tag = "3")]
    pub snapshot: String,
    /// What was done.
    #[prost(enumeration = "SnapshotNote", tag = "4")]
    pub what: i32,
}

/// What was done with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SnapshotNote {
    /// Never written.
    Unspecified = 0,
    /// A person had it taken.
    Taken = 1,
    /// A person had it deleted.
    Deleted = 2,
    /// It went before its time, because its volume had too little left.
    Dropped = 3,
    /// It was found damaged, and is not used any more.
    Damaged = 4,
}

/// See [`Order::RetireNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RetireNode {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// It does not leave after all.
    #[prost(bool, tag = "2")]
    pub stays: bool,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// See [`Order::PlaceControlVoters`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlaceControlVoters {
    /// The nodes that vote; all others learn.
    #[prost(uint64, repeated, tag = "1")]
    pub nodes: Vec<u64>,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// See [`Order::RemoveNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveNode {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// See [`Order::AdmitNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdmitNode {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub node: Option<NodeDefinition>,
    /// Sixteen bytes: the only store that is this node from now on.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
    /// A node of this number is a member, and its store is lost for good.
    #[prost(bool, tag = "3")]
    pub replaces: bool,
    /// The last opening of the lost store's gate: where it was opened since the checks were made, the
    /// order is refused.
    #[prost(message, optional, tag = "4")]
    pub opening: Option<SeenOpening>,
    /// The witness that leaves when this one has its vote; 0: none.
    #[prost(uint64, tag = "5")]
    pub retires: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "6")]
    pub term: u64,
}

/// See [`Order::SettleNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SettleNode {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// See [`Order::DismissNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DismissNode {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes: its store.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
    /// The witness that stays after all; 0: none.
    #[prost(uint64, tag = "3")]
    pub keeps: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "4")]
    pub term: u64,
}

/// See [`Order::SeedCopy`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SeedCopy {
    /// Chosen by the caller; a repetition gets the first answer.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// The database.
    #[prost(uint64, tag = "2")]
    pub database: u64,
    /// Where the copy is built.
    #[prost(uint64, tag = "3")]
    pub node: u64,
    /// From the copy on this node while it can be reached; 0: from the best one. The node itself: the
    /// copy moves to another path of its node.
    #[prost(uint64, tag = "4")]
    pub from: u64,
    /// Bytes per second; 0: no limit.
    #[prost(uint64, tag = "5")]
    pub limit: u64,
    /// The node has no copy yet.
    #[prost(bool, tag = "6")]
    pub adds: bool,
    /// The folder of the database in which it is built; empty: where the copy is that it replaces,
    /// or below the node's root.
    #[prost(string, tag = "7")]
    pub path: String,
    /// Everything is sent, also what an old copy there has.
    #[prost(bool, tag = "8")]
    pub whole: bool,
}

/// See [`Order::AdvanceSeed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdvanceSeed {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where the copy was built.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// The new copy.
    #[prost(uint64, tag = "3")]
    pub replica: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// What came of building it, for people.
    #[prost(string, tag = "5")]
    pub outcome: String,
    /// Who votes in the group itself, by a membership that is one set and committed. Empty: of an
    /// earlier version.
    #[prost(uint64, repeated, tag = "6")]
    pub voters: Vec<u64>,
}

/// See [`Order::EndSeed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndSeed {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where the copy stands.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// The new copy.
    #[prost(uint64, tag = "3")]
    pub replica: u64,
    /// The control term of the leader that asks.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// Its digest was equal to the active copy's at one mark.
    #[prost(bool, tag = "5")]
    pub succeeded: bool,
    /// What came of it, for people.
    #[prost(string, tag = "6")]
    pub outcome: String,
}

/// See [`Order::RemoveCopy`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveCopy {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where the copy stands.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// As in [`AdvanceSeed::voters`].
    #[prost(uint64, repeated, tag = "3")]
    pub voters: Vec<u64>,
}

/// See [`Order::SetNodePolicy`]. What is left out stays as it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetNodePolicy {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// During maintenance: the policy that its end restores.
    #[prost(enumeration = "ActivationPolicy", optional, tag = "2")]
    pub policy: Option<i32>,
    /// 0: no limit.
    #[prost(uint32, optional, tag = "3")]
    pub maximum_active: Option<u32>,
    /// 0: no limit.
    #[prost(uint32, optional, tag = "4")]
    pub preferred_active: Option<u32>,
}

/// See [`Order::SetDatabasePolicy`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetDatabasePolicy {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Of all its copies.
    #[prost(enumeration = "ActivationPolicy", tag = "2")]
    pub policy: i32,
}

/// See [`Order::SuspendCopy`] and [`Order::ResumeCopy`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CopySuspension {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where the copy stands.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// Log goes on; only activation is suspended, or resumed.
    #[prost(bool, tag = "3")]
    pub activation_only: bool,
}

/// See [`Order::SetPreference`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetPreference {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Every node that has a copy, the most preferred first.
    #[prost(uint64, repeated, tag = "2")]
    pub nodes: Vec<u64>,
}

/// See [`Order::DrainNode`] and [`Order::UndrainNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeOrder {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
}

/// See [`Order::OpenGate`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenGate {
    /// Whose gate.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes: the disk that it runs from.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
    /// The start of the node.
    #[prost(uint64, tag = "3")]
    pub boot_counter: u64,
    /// The start of the node.
    #[prost(fixed64, tag = "4")]
    pub boot_id: u64,
    /// The lineage.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// Sixteen bytes: the lineage.
    #[prost(bytes = "bytes", tag = "6")]
    pub activation: Bytes,
    /// The control term of the leader that grants.
    #[prost(uint64, tag = "7")]
    pub grant_term: u64,
    /// Counts the grants of that term.
    #[prost(uint64, tag = "8")]
    pub grant_number: u64,
}

impl OpenGate {
    /// The record of one opening.
    pub fn new(node: NodeId, store: StoreId, boot: Boot, lineage: Lineage, grant: GrantId) -> Self {
        Self {
            node: node.0,
            store: Bytes::copy_from_slice(&store.0),
            boot_counter: boot.counter,
            boot_id: boot.id,
            epoch: lineage.epoch,
            activation: Bytes::copy_from_slice(&lineage.activation.0),
            grant_term: grant.term,
            grant_number: grant.number,
        }
    }
}

/// See [`Order::RecordMove`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RecordMove {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// From which node.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// To which node.
    #[prost(uint64, tag = "3")]
    pub to: u64,
    /// Why.
    #[prost(enumeration = "MoveCause", tag = "4")]
    pub cause: i32,
    /// A person acknowledged that it moved only just now.
    #[prost(bool, tag = "5")]
    pub acknowledged: bool,
    /// The operation that moves it: told again by the next control leader, it is the same move. 0: of
    /// an earlier version.
    #[prost(uint64, tag = "6")]
    pub operation: u64,
}

/// See [`Order::PlaceVoters`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlaceVoters {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// The nodes whose copies vote from now on. The site with the strict majority of them is where
    /// the database is active, unless its voters are balanced.
    #[prost(uint64, repeated, tag = "2")]
    pub nodes: Vec<u64>,
}

/// See [`Order::BeginOperation`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginOperation {
    /// Chosen by the caller; a repetition gets the first answer.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// What it does.
    #[prost(enumeration = "OperationKind", tag = "2")]
    pub kind: i32,
    /// To what.
    #[prost(string, tag = "3")]
    pub object: String,
    /// The plan that it carries out.
    #[prost(string, tag = "4")]
    pub plan: String,
}

/// See [`Order::BeginStep`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginStep {
    /// Which operation.
    #[prost(uint64, tag = "1")]
    pub operation: u64,
    /// The next number, or the last one again where it has no answer.
    #[prost(uint32, tag = "2")]
    pub step: u32,
    /// The control term of the leader that sends it.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// To whom.
    #[prost(uint64, tag = "4")]
    pub node: u64,
    /// What.
    #[prost(string, tag = "5")]
    pub what: String,
    /// It takes back what earlier steps did.
    #[prost(bool, tag = "6")]
    pub undoes: bool,
}

/// See [`Order::EndStep`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndStep {
    /// Which operation.
    #[prost(uint64, tag = "1")]
    pub operation: u64,
    /// Which step.
    #[prost(uint32, tag = "2")]
    pub step: u32,
    /// The control term in which it was begun.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// It did what it should.
    #[prost(bool, tag = "4")]
    pub succeeded: bool,
    /// What came of it.
    #[prost(string, tag = "5")]
    pub outcome: String,
}

/// How an operation is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Ending {
    /// Never written.
    Unspecified = 0,
    /// It reached its end.
    Done = 1,
    /// It cannot go on.
    Failed = 2,
    /// A person asks to end it: no further step forward is begun.
    Cancel = 3,
    /// What a cancelled operation had to take back is taken back.
    Cancelled = 4,
}

/// See [`Order::EndOperation`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndOperation {
    /// Which operation.
    #[prost(uint64, tag = "1")]
    pub operation: u64,
    /// How.
    #[prost(enumeration = "Ending", tag = "2")]
    pub ending: i32,
    /// What came of it.
    #[prost(string, tag = "3")]
    pub outcome: String,
}

/// Makes the DAG: its nodes, the first link of its lineage, the directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateDag {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub dag: Bytes,
    /// From `dag.toml`.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<Definition>,
    /// The store of each node of the definition.
    #[prost(message, repeated, tag = "3")]
    pub founders: Vec<Founder>,
    /// Sixteen bytes: the id of the first link.
    #[prost(bytes = "bytes", tag = "4")]
    pub activation: Bytes,
}

/// A node as it was when the DAG was created.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Founder {
    /// The node's number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
}

/// Registers a start of a node. Registered iff the counter is greater than the registered one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterBoot {
    /// The node's number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
    /// Starts of this store so far.
    #[prost(uint64, tag = "3")]
    pub boot_counter: u64,
    /// Tells a clone's start from the original's.
    #[prost(fixed64, tag = "4")]
    pub boot_id: u64,
}

/// Makes a mailbox database, with its replica ids.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateDatabase {
    /// Chosen by the caller; a repetition gets the first answer.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Unique regardless of case.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where the copies stand, in the order of preference; empty: chosen by load.
    #[prost(uint64, repeated, tag = "3")]
    pub nodes: Vec<u64>,
    /// The site where it is active; empty: the primary site.
    #[prost(string, tag = "4")]
    pub site: String,
}
