//! Who a node is, on its own disk: the root folder and what it remembers.
//!
//! ```text
//!  <root>/LOCK        held while the node runs
//!  <root>/node.meta   dag, node, store, boot counter, newest lineage, what each copy did last
//! ```
//! A disk that was wiped, cloned or turned back must not pass for the one it was. So the root is
//! formatted once, by a command, with a random store id; every start counts a boot and makes it
//! durable before anything else happens; the newest lineage is durable before the node acts on it;
//! and of every copy the root remembers the replica id, the last opening and the vote, so that a
//! copy that was turned back differs from what the root knows, and the other way round.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dag_format::FormatError;
use dag_format::meta::{CopyMemory, NodeMeta, TakenStep};
use dag_types::{
    ActivationId, Boot, DagId, DatabaseId, Generation, Lineage, NodeId, ReplicaId, StoreId,
};
use thiserror::Error;

use crate::disk::{Disk, DiskLock, read_whole, replace_whole, take_lock};
use crate::log::VoteRecord;

/// What writes the records, for people.
pub(crate) const WRITER: &str = concat!("holdfast ", env!("CARGO_PKG_VERSION"));

const META: &str = "node.meta";
const LOCK: &str = "LOCK";

/// Who a node is since its last start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The DAG, or [`DagId::NIL`] while the node belongs to none.
    pub dag: DagId,
    /// The node.
    pub node: NodeId,
    /// Made when the root was formatted.
    pub store: StoreId,
    /// This start.
    pub boot: Boot,
}

/// Whose copy a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyIdentity {
    /// The DAG.
    pub dag: DagId,
    /// The node.
    pub node: NodeId,
    /// The node's store.
    pub store: StoreId,
    /// The database.
    pub database: DatabaseId,
    /// The incarnation of the database's group.
    pub generation: Generation,
    /// The copy.
    pub replica: ReplicaId,
}

/// Why a root cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootFault {
    /// The disk failed or is full.
    #[error("{operation} in {folder}: {detail}")]
    Disk {
        /// Verb and object.
        operation: &'static str,
        /// The root.
        folder: String,
        /// The system's own words.
        detail: String,
    },
    /// Nobody has formatted it.
    #[error("{folder} is not a node's root; it is made when the node is set up, never by itself")]
    NotFormatted {
        /// The root.
        folder: String,
    },
    /// It is somebody's already.
    #[error("{folder} is the root of node {node} already; it is not formatted again")]
    Formatted {
        /// The root.
        folder: String,
        /// Whose it is.
        node: NodeId,
    },
    /// Another process runs on it.
    #[error("{folder} is in use by another process")]
    InUse {
        /// The root.
        folder: String,
    },
    /// It is another node's.
    #[error("{folder} belongs to node {found}, the settings say node {expected}")]
    OtherNode {
        /// The root.
        folder: String,
        /// The node in the settings.
        expected: NodeId,
        /// The node whose root it is.
        found: NodeId,
    },
    /// It is in another DAG.
    #[error("this node belongs to the DAG {found}, not to {expected}; wipe it first if it should")]
    OtherDag {
        /// The DAG that asked.
        expected: DagId,
        /// The DAG it belongs to.
        found: DagId,
    },
    /// Its record is damaged, or from a newer Holdfast. Nothing was changed.
    #[error("{folder}: {fault}")]
    Record {
        /// The root.
        folder: String,
        /// What is wrong with it.
        fault: FormatError,
    },
}

/// A node's root, locked and counted as started.
pub struct NodeRoot {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    held: Mutex<Held>,
    _lock: DiskLock,
}

struct Held {
    meta: NodeMeta,
    /// Votes are in memory that are not in the file.
    votes_changed: bool,
    fault: Option<RootFault>,
}

impl NodeRoot {
    /// Makes a new root. `store` is random, and new with every format. Durable on return.
    pub fn format(
        disk: &dyn Disk,
        folder: &Path,
        node: NodeId,
        store: StoreId,
    ) -> Result<(), RootFault> {
        assert!(store != StoreId::NIL, "a store's id is made at random");
        let made = |operation| move |fault| disk_fault(operation, folder, &fault);
        disk.create_dir_all(folder).map_err(made("make the root"))?;
        match read_meta(disk, folder) {
            Ok(meta) => {
                return Err(RootFault::Formatted { folder: shown(folder), node: meta.node });
            }
            Err(RootFault::NotFormatted { .. }) => {}
            Err(fault) => return Err(fault),
        }
        let meta = NodeMeta {
            writer: WRITER.into(),
            dag: DagId::NIL,
            node,
            store,
            boot_counter: 0,
            boot_id: 0,
            lineage: Lineage::default(),
            links: Bytes::new(),
            copies: Vec::new(),
            promise: None,
            steps: Vec::new(),
        };
        replace_whole(disk, &folder.join(META), &meta.encode())
            .map_err(made("write the root's record"))?;
        if let Some(above) = folder.parent() {
            disk.sync_dir(above).map_err(made("sync the folder above the root"))?;
        }
        Ok(())
    }

    /// Locks a root and counts this start; `boot_id` is random, and new with every start. The start
    /// is durable on return.
    pub fn start(
        disk: Arc<dyn Disk>,
        folder: &Path,
        node: NodeId,
        boot_id: u64,
    ) -> Result<Self, RootFault> {
        let mut meta = read_meta(&*disk, folder)?;
        if meta.node != node {
            let folder = shown(folder);
            return Err(RootFault::OtherNode { folder, expected: node, found: meta.node });
        }
        let owner = format!("node {node} store {}\n", meta.store);
        let lock = take_lock(&*disk, &folder.join(LOCK), &owner)
            .map_err(|fault| disk_fault("lock the root", folder, &fault))?
            .ok_or_else(|| RootFault::InUse { folder: shown(folder) })?;
        meta.boot_counter += 1;
        meta.boot_id = boot_id;
        meta.writer = WRITER.into();
        let held = Held { meta, votes_changed: false, fault: None };
        let root = Self { disk, folder: folder.into(), held: Mutex::new(held), _lock: lock };
        root.change(|_| ())?;
        Ok(root)
    }

    /// Who this node is.
    pub fn identity(&self) -> NodeIdentity {
        let meta = &self.held().meta;
        NodeIdentity {
            dag: meta.dag,
            node: meta.node,
            store: meta.store,
            boot: Boot { counter: meta.boot_counter, id: meta.boot_id },
        }
    }

    /// The identity of a copy on this node.
    pub fn copy_identity(
        &self,
        database: DatabaseId,
        generation: Generation,
        replica: ReplicaId,
    ) -> CopyIdentity {
        let NodeIdentity { dag, node, store, .. } = self.identity();
        CopyIdentity { dag, node, store, database, generation, replica }
    }

    /// The root's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the node a member of a DAG, for good. Repeating it is harmless. Durable on return.
    pub fn join(&self, dag: DagId) -> Result<(), RootFault> {
        let found = self.identity().dag;
        if found == dag {
            return Ok(());
        }
        if found != DagId::NIL {
            return Err(RootFault::OtherDag { expected: dag, found });
        }
        self.change(|meta| meta.dag = dag)
    }

    /// The newest lineage that this node knows, and the links behind it as they were saved.
    pub fn lineage(&self) -> (Lineage, Bytes) {
        let meta = &self.held().meta;
        (meta.lineage, meta.links.clone())
    }

    /// Saves a newer lineage. Whether it is newer, the caller knows by its links; here it is only
    /// asserted that the epoch does not go back. Durable on return, before the node acts on it.
    pub fn save_lineage(&self, lineage: Lineage, links: Bytes) -> Result<(), RootFault> {
        let before = self.lineage();
        assert!(before.0.epoch <= lineage.epoch, "a lineage does not go back");
        if before == (lineage, links.clone()) {
            return Ok(());
        }
        self.change(|meta| {
            meta.lineage = lineage;
            meta.links = links;
            // Only a complete activation, or a person's choice, makes a newer lineage, and either
            // ends what was pending.
            meta.promise = None;
        })
    }

    /// The unfenced activation that this node promised to take part in, if one is pending.
    pub fn promise(&self) -> Option<ActivationId> {
        self.held().meta.promise
    }

    /// Gives the promise, or takes a voided one back. Durable on return, before the node acts on it.
    pub fn save_promise(&self, promise: Option<ActivationId>) -> Result<(), RootFault> {
        if self.promise() == promise {
            return Ok(());
        }
        self.change(|meta| meta.promise = promise)
    }

    /// The highest step of each long operation that this node took.
    pub fn taken_steps(&self) -> Vec<TakenStep> {
        self.held().meta.steps.clone()
    }

    /// Replaces them. Durable on return, before the step that was added is carried out.
    pub fn save_steps(&self, steps: Vec<TakenStep>) -> Result<(), RootFault> {
        if self.held().meta.steps == steps {
            return Ok(());
        }
        self.change(|meta| meta.steps = steps)
    }

    /// Why the root takes nothing any more, if so: the store has failed, and with it the node.
    pub fn fault(&self) -> Option<RootFault> {
        self.held().fault.clone()
    }

    /// What the root knows of a copy.
    pub fn remembered(&self, database: DatabaseId, replica: ReplicaId) -> Option<CopyMemory> {
        find(&self.held().meta.copies, database, replica).copied()
    }

    /// Notes that a copy was opened. Durable on return.
    pub(crate) fn remember_open(
        &self,
        database: DatabaseId,
        replica: ReplicaId,
        opens: u64,
    ) -> Result<(), RootFault> {
        self.change(|meta| {
            let boot_counter = meta.boot_counter;
            let memory = entry(&mut meta.copies, database, replica);
            (memory.opens, memory.boot_counter) = (opens, boot_counter);
        })
    }

    /// Notes a vote; true where [`NodeRoot::write_votes`] must be called for it.
    pub(crate) fn note_vote(
        &self,
        database: DatabaseId,
        replica: ReplicaId,
        vote: VoteRecord,
    ) -> bool {
        let mut held = self.held();
        let memory = entry(&mut held.meta.copies, database, replica);
        if memory.vote.is_some_and(|before| before.term >= vote.term) {
            return false;
        }
        memory.vote = Some(vote);
        !std::mem::replace(&mut held.votes_changed, true)
    }

    /// Makes noted votes durable, all of them at once.
    pub(crate) fn write_votes(&self) -> Result<(), RootFault> {
        if !self.held().votes_changed {
            return Ok(());
        }
        self.change(|_| ())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no panic while the root's record is locked")
    }

    /// Changes the record and makes it durable. After a failure nothing is tried again, but for a full
    /// disk, which has room again some day: until then the record stands as it was.
    fn change(&self, change: impl FnOnce(&mut NodeMeta)) -> Result<(), RootFault> {
        let mut held = self.held();
        if let Some(fault) = held.fault.clone() {
            return Err(fault);
        }
        let before = held.meta.clone();
        change(&mut held.meta);
        held.votes_changed = false;
        let written = replace_whole(&*self.disk, &self.folder.join(META), &held.meta.encode());
        written.map_err(|fault| {
            let full = fault.kind() == io::ErrorKind::StorageFull;
            let fault = disk_fault("write the root's record", &self.folder, &fault);
            match full {
                true => held.meta = before,
                false => held.fault = Some(fault.clone()),
            }
            fault
        })
    }
}

fn key(memory: &CopyMemory) -> (DatabaseId, ReplicaId) {
    (memory.database, memory.replica)
}

fn find(copies: &[CopyMemory], database: DatabaseId, replica: ReplicaId) -> Option<&CopyMemory> {
    let at = copies.binary_search_by_key(&(database, replica), key).ok()?;
    copies.get(at)
}

fn entry(
    copies: &mut Vec<CopyMemory>,
    database: DatabaseId,
    replica: ReplicaId,
) -> &mut CopyMemory {
    let at = copies.binary_search_by_key(&(database, replica), key).unwrap_or_else(|at| {
        let memory = CopyMemory { database, replica, opens: 0, boot_counter: 0, vote: None };
        copies.insert(at, memory);
        at
    });
    &mut copies[at]
}

fn read_meta(disk: &dyn Disk, folder: &Path) -> Result<NodeMeta, RootFault> {
    let bytes = match read_whole(disk, &folder.join(META)) {
        Ok(bytes) => bytes,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            return Err(RootFault::NotFormatted { folder: shown(folder) });
        }
        Err(fault) => return Err(disk_fault("read the root's record", folder, &fault)),
    };
    NodeMeta::decode(&bytes).map_err(|fault| RootFault::Record { folder: shown(folder), fault })
}

fn shown(folder: &Path) -> String {
    folder.display().to_string()
}

fn disk_fault(operation: &'static str, folder: &Path, fault: &io::Error) -> RootFault {
    RootFault::Disk { operation, folder: shown(folder), detail: fault.to_string() }
}
