//! What a node keeps on its disk: the root, the volume with all logs, the states, their flusher.
//!
//! ```text
//!  <root>/node.meta, LOCK      who this node is (storage)
//!  <root>/formation            to which DAG it belongs
//!  <root>/copies/DATABASE/     the copies of one database
//!  <root>/paths                other folders of databases (paths.rs)
//! ```
//! Everything here blocks and is called from blocking threads.

pub mod paths;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dag_types::{DatabaseId, Generation, Millis, NodeId, ReplicaId, StoreId};
use replication::{Machine, OpenCopy};
use seeding::install::{self, InstallOrder};
use seeding::reform::{self, ReformOrder};
use seeding::{SeedFault, target};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart, OpenFault};
use storage::disk::{Disk, RealDisk};
use storage::flusher::{Attached, FlushRules, Flusher, Pressure};
use storage::identity::{CopyIdentity, NodeRoot, RootFault};
use storage::log::EntryCache;
use storage::resources::{open_files_per_copy, raise_open_files};
use storage::state::StateEngine;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::volume::{Volume, VolumeOptions};
use thiserror::Error;

use crate::settings::Settings;
use paths::KnownPaths;

const COPIES: &str = "copies";
/// Copies that open files are reckoned for; with more of them, files are opened more often.
const COPIES_RECKONED: u64 = 128;

/// Why a node's store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootFault),
    /// The root holds something, and not the record that says whose it is.
    #[error(
        "{folder} holds copies or a formation and no node.meta: the root is damaged; restore \
         node.meta, or remove the folder and let this node come back as a new store"
    )]
    Headless {
        /// The root.
        folder: PathBuf,
    },
    /// Files, threads, memory.
    #[error("{operation}: {detail}")]
    System {
        /// Verb and object.
        operation: &'static str,
        /// The system's own words.
        detail: String,
    },
}

/// A node's store, open.
pub struct Store {
    /// The root.
    pub root: Arc<NodeRoot>,
    /// The disk below it.
    pub disk: Arc<dyn Disk>,
    volume: Volume,
    cache: Arc<EntryCache>,
    engine: Arc<SharedResources>,
    flusher: Flusher,
    paths: KnownPaths,
    copies: Mutex<HashMap<DatabaseId, Held>>,
}

struct Held {
    copy: Arc<OpenCopy>,
    attached: Attached,
    identity: CopyIdentity,
    path: PathBuf,
}

/// A copy that was opened.
pub struct Opened {
    /// The copy.
    pub copy: Arc<OpenCopy>,
    /// Where it lies.
    pub path: PathBuf,
    /// It is new here, and how it came to be.
    pub born: Option<&'static str>,
}

impl Store {
    /// Opens a node's root, or formats an empty folder, and counts this start.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::default());
        let folder = &settings.root;
        format_if_empty(&*disk, folder, settings.node())?;
        let boot_id = uuid::Uuid::new_v4().as_u64_pair().0;
        let root = NodeRoot::start(disk.clone(), folder, settings.node(), boot_id)?;
        let began = Instant::now();
        let clock = move || Millis(began.elapsed().as_millis() as u64);
        let volume = Volume::start(disk.clone(), VolumeOptions::default(), Arc::new(clock))
            .map_err(|e| system("start the log thread", e))?;
        let memory = settings.budget.memory.0;
        let flusher = Flusher::start(FlushRules::for_budget(memory), clock)
            .map_err(|e| system("start the flusher", e))?;
        let engine = SharedResources::new(StateBudget {
            block_cache_bytes: settings.budget.cache.0 as usize,
            unflushed_bytes: memory as usize,
            open_files_per_copy: files_per_copy()?,
            ..StateBudget::default()
        });
        let paths = KnownPaths::open(disk.clone(), folder).map_err(|e| system("read paths", e))?;
        let entries = EntryCache::BUDGET_BYTES.min(memory as usize / 4);
        Ok(Self {
            root: Arc::new(root),
            disk,
            volume,
            cache: Arc::new(EntryCache::new(entries)),
            engine: Arc::new(engine.map_err(|e| system("set up the state engine", e))?),
            flusher,
            paths,
            copies: Mutex::default(),
        })
    }

    /// Opens the copy that this store was given, or makes it where it never was.
    ///
    /// The root remembers every replica id that it ever held, so what is gone is not made again:
    /// it is missing, and the copy has failed.
    pub fn open_copy(
        &self,
        database: DatabaseId,
        generation: Generation,
        replica: ReplicaId,
    ) -> Result<Opened, OpenFault> {
        let place = self.place(database, "");
        let identity = self.root.copy_identity(database, generation, replica);
        let born = self.root.remembered(database, replica).is_none();
        let directory = if born {
            CopyDirectory::create(&place, identity, CopyStart::Empty, &*self.engine)?
        } else {
            CopyDirectory::open(&place, identity, &*self.engine)?
        };
        Ok(self.keep(directory, born.then_some("create")))
    }

    /// Opens a copy that was built from another one, or puts it in place where it was built and
    /// is not there yet. What was never built is missing, and the copy has failed. `path` as in
    /// [`Self::place`].
    pub fn open_seeded(
        &self,
        database: DatabaseId,
        generation: Generation,
        replica: ReplicaId,
        path: &str,
    ) -> Result<Opened, SeedFault> {
        let place = self.place(database, path);
        let identity = self.root.copy_identity(database, generation, replica);
        let staged = target::seed_folder(&place.folder, replica);
        let installed = install::is_installed(&place, &identity)?;
        if !installed && !self.disk.exists(&staged).unwrap_or(false) {
            let folder = install::copy_folder(&place, &identity).display().to_string();
            return Err(OpenFault::Missing { folder }.into());
        }
        let order = InstallOrder { place, identity, staged, vote: None };
        let directory = install::install(&order, &*self.engine)?;
        Ok(self.keep(directory, (!installed).then_some("seed")))
    }

    /// Opens the first copy of a new generation of its group, or makes it of the copy that this node
    /// had in the generation before, which nobody has open and which stays as it is.
    pub fn open_reformed(
        &self,
        database: DatabaseId,
        (generation, replica): (Generation, ReplicaId),
        path: &str,
        from: ReplicaId,
        machine: &dyn Machine,
    ) -> Result<Opened, SeedFault> {
        let place = self.place(database, path);
        let new = self.root.copy_identity(database, generation, replica);
        let old = self.root.copy_identity(database, Generation(generation.0 - 1), from);
        let installed = install::is_installed(&place, &new)?;
        if !installed && self.root.remembered(database, replica).is_some() {
            let folder = install::copy_folder(&place, &new).display().to_string();
            return Err(OpenFault::Missing { folder }.into());
        }
        let order = ReformOrder { place, old, new };
        let own = self.root.identity().node;
        let directory = reform::reform(&order, &*self.engine, |log, state| {
            let levelled = replication::reform::level(machine, log, state, (replica, own));
            levelled.map_err(|fault| fault.to_string())
        })?;
        Ok(self.keep(directory, (!installed).then_some("reform")))
    }

    fn keep(&self, directory: CopyDirectory, born: Option<&'static str>) -> Opened {
        let (path, identity) = (directory.path().to_path_buf(), *directory.identity());
        let copy = OpenCopy::new(directory, self.engine(), self.volume.clone());
        let attached = self.flusher.attach(copy.clone());
        let held = Held { copy: copy.clone(), attached, identity, path: path.clone() };
        self.held().insert(identity.database, held);
        Opened { copy, path, born }
    }

    /// Where copies of a database lie. `path`: its folder, as the control log has it; empty: the one
    /// below the root.
    pub fn place(&self, database: DatabaseId, path: &str) -> CopyPlace {
        self.place_in(match path {
            "" => self.root.folder().join(COPIES).join(database.to_string()),
            path => PathBuf::from(path),
        })
    }

    /// The place of copies in a folder.
    pub fn place_in(&self, folder: PathBuf) -> CopyPlace {
        CopyPlace {
            root: self.root.clone(),
            volume: self.volume.clone(),
            cache: self.cache.clone(),
            folder,
        }
    }

    fn is_below_root(&self, folder: &Path) -> bool {
        folder.starts_with(self.root.folder().join(COPIES))
    }

    /// The folder in which the open copy of a database lies.
    pub fn folder_of(&self, database: DatabaseId) -> Option<PathBuf> {
        let held = self.held();
        held.get(&database).and_then(|held| held.path.parent().map(Path::to_path_buf))
    }

    /// The open copy's own folder.
    pub fn path_of(&self, database: DatabaseId) -> Option<PathBuf> {
        self.held().get(&database).map(|held| held.path.clone())
    }

    /// What states are opened with.
    pub fn engine(&self) -> Arc<dyn StateEngine> {
        self.engine.clone()
    }

    /// The folders that databases have or had here, whatever is in them.
    pub fn folders(&self) -> std::io::Result<Vec<(DatabaseId, PathBuf)>> {
        let copies = self.root.folder().join(COPIES);
        let names = match self.disk.list(&copies) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let number = |name: PathBuf| {
            let database = DatabaseId(name.to_str()?.parse().ok()?);
            Some((database, copies.join(name)))
        };
        let mut folders: Vec<_> = names.into_iter().filter_map(number).collect();
        let own = |(database, folder): &(DatabaseId, PathBuf)| self.is_owner(*database, folder);
        folders.extend(self.paths.all().into_iter().filter(own));
        Ok(folders)
    }

    /// Closes a copy whose group was stopped; gives where it lies.
    pub fn close_copy(&self, database: DatabaseId) -> Option<PathBuf> {
        let Held { copy, attached, path, .. } = self.held().remove(&database)?;
        drop(attached);
        close(database, &copy).then_some(path)
    }

    /// An open copy.
    pub fn copy(&self, database: DatabaseId) -> Option<Arc<OpenCopy>> {
        self.held().get(&database).map(|held| held.copy.clone())
    }

    /// All open copies, by database.
    pub fn copies(&self) -> BTreeMap<DatabaseId, Arc<OpenCopy>> {
        self.held().iter().map(|(database, held)| (*database, held.copy.clone())).collect()
    }

    /// Whether proposals to a copy should go slower, or not be taken.
    pub fn pressure(&self, database: DatabaseId) -> Pressure {
        self.held().get(&database).map_or(Pressure::None, |held| held.attached.pressure())
    }

    /// Bytes left on the volume.
    pub fn free_bytes(&self) -> std::io::Result<u64> {
        self.volume.free_bytes(self.root.folder())
    }

    /// Flushes and closes every copy, then the threads. Groups and views are gone by now. Gives the
    /// copies that were closed.
    pub fn close(&self) -> Vec<(CopyIdentity, PathBuf)> {
        self.flusher.close();
        let held = std::mem::take(&mut *self.held());
        let mut closed = Vec::new();
        for (database, Held { copy, attached, identity, path }) in held {
            drop(attached);
            if close(database, &copy) {
                closed.push((identity, path));
            }
        }
        self.volume.stop();
        closed
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<DatabaseId, Held>> {
        self.copies.lock().expect("no panic while the copies are locked")
    }
}

/// Waits until everything asked of a copy is durable; whether it was closed in good order.
fn close(database: DatabaseId, copy: &OpenCopy) -> bool {
    let (done, waiting) = std::sync::mpsc::channel();
    copy.close(Box::new(move |result| drop(done.send(result))));
    match waiting.recv() {
        Ok(Ok(())) => return true,
        Ok(Err(fault)) => tracing::warn!(db = %database, %fault, "close a copy"),
        Err(_) => tracing::warn!(db = %database, "a copy was not closed in good order"),
    }
    false
}

/// Formatting says which disk this is, and nothing of any DAG. A folder that holds anything of a
/// node is never formatted again.
fn format_if_empty(disk: &dyn Disk, folder: &Path, node: NodeId) -> Result<(), StoreError> {
    let exists =
        |name: &str| disk.exists(&folder.join(name)).map_err(|e| system("look into the root", e));
    if exists("node.meta")? {
        return Ok(());
    }
    if exists(COPIES)? || exists("formation")? {
        return Err(StoreError::Headless { folder: folder.into() });
    }
    let store = StoreId(*uuid::Uuid::new_v4().as_bytes());
    tracing::info!(%store, folder = %folder.display(), "format an empty root");
    Ok(NodeRoot::format(disk, folder, node, store)?)
}

fn files_per_copy() -> Result<i32, StoreError> {
    let limit = raise_open_files().map_err(|e| system("raise the limit of open files", e))?;
    let files = open_files_per_copy(limit, COPIES_RECKONED).or_else(|too_few| {
        tracing::warn!(%too_few, "few open files");
        open_files_per_copy(limit, 1)
    });
    let files = files.map_err(|e| system("reckon open files", e))?;
    Ok(files.min(storage::resources::COPY_MAX) as i32)
}

fn system(operation: &'static str, detail: impl ToString) -> StoreError {
    StoreError::System { operation, detail: detail.to_string() }
}
