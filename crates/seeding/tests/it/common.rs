//! A disk that dies at a chosen operation, and nodes on it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dag_types::{
    Chain, DagId, DatabaseId, Generation, LogId, Millis, NodeId, ReplicaId, StoreId, Write,
};
use seeding::SeedFault;
use seeding::limit::RateLimit;
use seeding::progress::Progress;
use seeding::source::{Served, Source, SourceRules};
use seeding::target::{SeedOrder, Step, Target, seed_folder};
use seeding::wire::{CheckpointId, Origin, Reply};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart, OpenFault};
use storage::disk::{Disk, DiskFile, DiskLock, OpenMode, SimDisk, SimDiskOptions, Syncing};
use storage::identity::{CopyIdentity, NodeRoot};
use storage::log::EntryCache;
use storage::state::map::{MapEngine, MapState};
use storage::state::{Row, StateRead, StateStore, applied_write};
use storage::volume::{Pumped, Volume, VolumeDriver, VolumeOptions};

pub const DAG: DagId = DagId([1; 16]);
pub const DATABASE: DatabaseId = DatabaseId(16);
pub const MEMBERS: &[u8] = &[0x01];

/// A simulated disk whose changes fail from the nth on: what a killed process did not do any more.
#[derive(Clone)]
pub struct FusedDisk {
    pub sim: SimDisk,
    left: Arc<AtomicU64>,
    /// Syncs that nobody carries out before they are asked for, where syncs are held.
    held: Arc<Mutex<Option<Vec<HeldSync>>>>,
}

type HeldSync = (Arc<dyn DiskFile>, Sender<io::Result<()>>);

impl FusedDisk {
    pub fn new(seed: u64) -> Self {
        let sim = SimDisk::new(seed, SimDiskOptions::default());
        Self { sim, left: Arc::new(AtomicU64::new(u64::MAX)), held: Arc::default() }
    }

    /// From now on a sync that is begun is over only when [`FusedDisk::sync_held`] is called: the disk is
    /// slow.
    pub fn hold_syncs(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    /// Carries out what was held, and gives how many syncs that were.
    pub fn sync_held(&self) -> usize {
        let held = self.held.lock().unwrap().as_mut().map(std::mem::take).unwrap_or_default();
        for (file, told) in &held {
            told.send(file.sync()).unwrap();
        }
        held.len()
    }

    /// So many more changes succeed.
    pub fn burn_after(&self, changes: u64) {
        self.left.store(changes, Ordering::SeqCst);
    }

    pub fn whole(&self) {
        self.burn_after(u64::MAX);
    }

    pub fn is_burnt(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn spend(&self) -> io::Result<()> {
        let spent =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        spent.map(|_| ()).map_err(|_| io::Error::other("the process was killed here"))
    }
}

impl Disk for FusedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::Create {
            self.spend()?;
        }
        Ok(Arc::new(FusedFile { inner: self.sim.open(path, mode)?, disk: self.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        self.sim.rename(from, to)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.sim.list(folder)
    }
    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.spend()?;
        self.sim.create_dir_all(folder)
    }
    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.spend()?;
        self.sim.sync_dir(folder)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        self.sim.remove_file(path)
    }
    /// File by file, as a real one does, so that it can end in the middle.
    fn remove_dir_all(&self, folder: &Path) -> io::Result<()> {
        if let Ok(names) = self.sim.list(folder) {
            for name in names {
                self.remove_dir_all(&folder.join(name))?;
            }
            self.spend()?;
            return self.sim.remove_dir_all(folder);
        }
        if self.sim.exists(folder)? { self.remove_file(folder) } else { Ok(()) }
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.sim.exists(path)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        self.sim.link(from, to)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.sim.free_bytes(path)
    }
    fn lock(&self, path: &Path, owner: &str) -> io::Result<DiskLock> {
        self.spend()?;
        self.sim.lock(path, owner)
    }
    fn take_latency(&self) -> Duration {
        self.sim.take_latency()
    }
}

struct FusedFile {
    inner: Arc<dyn DiskFile>,
    disk: FusedDisk,
}

impl DiskFile for FusedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.spend()?;
        self.inner.write_at(data, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.spend()?;
        self.inner.sync()
    }
    fn begin_sync(&self) -> Syncing {
        let mut held = self.disk.held.lock().unwrap();
        let Some(held) = held.as_mut() else { return Syncing::Over(self.sync()) };
        let (told, result) = channel();
        held.push((self.inner.clone(), told));
        Syncing::UnderWay(result)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.spend()?;
        self.inner.set_len(bytes)
    }
    fn flush_group(&self) -> Option<u64> {
        self.inner.flush_group()
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Kill,
    PowerLoss,
}

impl End {
    pub fn happen(self, disk: &FusedDisk) {
        match self {
            Self::Kill => disk.sim.kill(),
            Self::PowerLoss => disk.sim.crash(),
        }
        disk.whole();
        *disk.held.lock().unwrap() = None;
    }
}

pub fn position(index: u64) -> (LogId, Chain) {
    (LogId { term: 1, index }, Chain([index as u8; 16]))
}

/// Bytes that no two seeds share and nothing compresses.
pub fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..bytes).map(next).collect::<Vec<u8>>().into()
}

pub fn put(key: &[u8], value: Bytes) -> Write {
    Write::Put { key: Bytes::copy_from_slice(key), value }
}

/// Some index rows, `bodies` bodies, members, and a position.
pub fn fill(store: &dyn StateStore, seed: u64, bodies: u64, body_bytes: usize, index: u64) {
    for n in 0..bodies {
        let id = blake3::hash(&(seed + n).to_le_bytes());
        let body = put(&[&[0x80], &id.as_bytes()[..]].concat(), noise(seed + n, body_bytes));
        store.write(&[body, put(&[0x10, n as u8], noise(n, 40))]).unwrap();
    }
    store.write(&[put(MEMBERS, Bytes::from_static(b"members"))]).unwrap();
    let (id, chain) = position(index);
    store.write(&[applied_write(id, chain)]).unwrap();
    store.flush().unwrap();
}

pub fn all_rows(view: &dyn StateRead) -> Vec<Row> {
    view.scan(&[0], &[0xff; 40], usize::MAX).unwrap()
}

/// A copy somewhere that can be a source.
pub struct Peer {
    pub source: Source,
    pub store: Arc<dyn StateStore>,
    pub disk: Arc<dyn Disk>,
    engine: MapEngine,
    pub origin: Origin,
    next: u128,
    pub taken: u32,
}

impl Peer {
    pub fn new(seed: u64, bodies: u64, body_bytes: usize) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(FusedDisk::new(seed));
        disk.create_dir_all(Path::new("/peer")).unwrap();
        let engine = MapEngine::new(disk.clone());
        let store: Arc<dyn StateStore> =
            Arc::new(MapState::create(disk.clone(), Path::new("/peer/state")).unwrap());
        fill(&*store, seed, bodies, body_bytes, 40 + seed);
        let source = Self::reopened(&disk);
        let origin = Origin {
            dag: DAG,
            database: DATABASE,
            generation: Generation(1),
            replica: ReplicaId(50 + seed),
            node: NodeId(50 + seed),
        };
        Self { source, store, disk, engine, origin, next: u128::from(seed) << 64, taken: 0 }
    }

    fn reopened(disk: &Arc<dyn Disk>) -> Source {
        let folder = Path::new("/peer/seed-source");
        Source::open(disk.clone(), folder, SourceRules::default(), RateLimit::none(), Millis(0))
            .unwrap()
            .giving_rows(Arc::new(MapEngine::new(disk.clone())))
    }

    /// The source's process ends and starts again.
    pub fn restart(&mut self) {
        self.source = Self::reopened(&self.disk);
    }

    pub fn take(&mut self, now: Millis) {
        self.next += 1;
        self.taken += 1;
        let id = CheckpointId(self.next);
        let taken = self.source.take(now, id, self.origin, &*self.store, &self.engine, MEMBERS);
        taken.unwrap();
    }
}

/// A node with a database's folder.
pub struct Node {
    pub disk: FusedDisk,
    pub place: CopyPlace,
    pub driver: VolumeDriver,
}

impl Node {
    pub fn new(seed: u64) -> Self {
        let disk = FusedDisk::new(seed);
        NodeRoot::format(&disk, Path::new("/node"), NodeId(7), StoreId([5; 16])).unwrap();
        let node = Self::start(disk);
        node.place.root.join(DAG).unwrap();
        node
    }

    pub fn start(disk: FusedDisk) -> Self {
        Self::start_at(disk, "/volume/db-16")
    }

    pub fn start_at(disk: FusedDisk, folder: &str) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let root = NodeRoot::start(shared.clone(), Path::new("/node"), NodeId(7), 99).unwrap();
        let (volume, driver) = Volume::simulated(shared, VolumeOptions::default());
        let folder = PathBuf::from(folder);
        disk.create_dir_all(&folder).unwrap();
        for above in folder.ancestors() {
            disk.sync_dir(above).unwrap();
        }
        let cache = Arc::new(EntryCache::new(1 << 20));
        let place = CopyPlace { root: Arc::new(root), volume, cache, folder };
        Self { disk, place, driver }
    }

    pub fn end(self, how: End) -> Self {
        let (disk, folder) = (self.disk.clone(), self.place.folder.clone());
        drop(self);
        how.happen(&disk);
        Self::start_at(disk, folder.to_str().unwrap())
    }

    pub fn identity(&self, replica: u64) -> CopyIdentity {
        self.place.root.copy_identity(DATABASE, Generation(1), ReplicaId(replica))
    }

    pub fn engine(&self) -> MapEngine {
        MapEngine::new(Arc::new(self.disk.clone()))
    }

    pub fn create(&mut self, replica: u64) -> CopyDirectory {
        let (identity, engine) = (self.identity(replica), self.engine());
        CopyDirectory::create(&self.place, identity, CopyStart::Empty, &engine).unwrap()
    }

    pub fn open(&mut self, replica: u64) -> Result<CopyDirectory, OpenFault> {
        self.settle();
        CopyDirectory::open(&self.place, self.identity(replica), &self.engine())
    }

    pub fn close(&mut self, copy: CopyDirectory) {
        drop(copy);
        self.settle();
    }

    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if matches!(self.driver.pump(Millis(100)), Pumped::Wait(_)) {
                return;
            }
        }
        panic!("the log never rests");
    }

    pub fn seed(&self, replica: u64) -> Result<Target, SeedFault> {
        let folder = seed_folder(&self.place.folder, ReplicaId(replica));
        Target::open(Arc::new(self.disk.clone()), &folder, self.order(replica))
    }

    pub fn order(&self, replica: u64) -> SeedOrder {
        let identity = self.identity(replica);
        SeedOrder { identity, at_least: None, reserve_bytes: 0, link_from: None }
    }
}

/// What one more step of a seed led to.
pub enum Went {
    On,
    Built,
}

/// One step of a target, whose questions the peer answers at once. `mangle` is the network.
pub fn advance(
    target: &mut Target,
    peer: &mut Peer,
    now: Millis,
    mangle: &mut dyn FnMut(Reply) -> Option<Reply>,
) -> Result<Went, SeedFault> {
    let before = target.progress();
    let request = match target.step(now, None)? {
        Step::Built => return Ok(Went::Built),
        Step::Ask(request) => request,
        Step::Wait => panic!("every question was answered"),
        Step::Again | Step::Reconnect => {
            never_back(before, target.progress());
            return Ok(Went::On);
        }
    };
    let replica = target.order().identity.replica;
    let replies = loop {
        match peer.source.serve(now, replica, &request)? {
            Served::Replies(replies) => break replies,
            Served::NeedsCheckpoint => peer.take(now),
            Served::Later(_) => panic!("this source has no limit"),
        }
    };
    for reply in replies {
        let Some(reply) = mangle(reply) else {
            target.disconnected();
            break;
        };
        if target.step(now, Some(reply))? == Step::Reconnect {
            break;
        }
        never_back(before, target.progress());
    }
    Ok(Went::On)
}

pub fn never_back(before: Progress, after: Progress) {
    assert!(before.phase <= after.phase, "{before:?} {after:?}");
    assert!(before.bytes <= after.bytes && before.total <= after.total, "{before:?} {after:?}");
}

pub fn build(target: &mut Target, peer: &mut Peer) -> Result<(), SeedFault> {
    for tick in 0..1_000_000 {
        if let Went::Built = advance(target, peer, Millis(tick), &mut Some)? {
            return Ok(());
        }
    }
    panic!("a seed never ended");
}
