//! The same over the real disk and RocksDB.

use std::path::Path;
use std::sync::Arc;

use dag_types::{Generation, Millis, NodeId, ReplicaId, StoreId};
use seeding::install::{InstallOrder, install};
use seeding::limit::RateLimit;
use seeding::source::{Served, Source, SourceRules};
use seeding::target::{SYNC_BYTES, SeedOrder, Step, Target, seed_folder};
use seeding::wire::{CheckpointId, Origin};
use storage::copy_directory::CopyPlace;
use storage::disk::{Disk, RealDisk};
use storage::identity::NodeRoot;
use storage::log::EntryCache;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::state::{StateEngine, StateStore};
use storage::volume::{Volume, VolumeOptions};

use crate::common::{DAG, DATABASE, MEMBERS, all_rows, fill, position};

fn place(disk: &Arc<dyn Disk>, root: &Path) -> CopyPlace {
    NodeRoot::format(&**disk, &root.join("node"), NodeId(7), StoreId([5; 16])).unwrap();
    let node = NodeRoot::start(disk.clone(), &root.join("node"), NodeId(7), 1).unwrap();
    node.join(DAG).unwrap();
    let start = std::time::Instant::now();
    let clock = Arc::new(move || Millis(start.elapsed().as_millis() as u64));
    let volume = Volume::start(disk.clone(), VolumeOptions::default(), clock).unwrap();
    let folder = root.join("db-16");
    disk.create_dir_all(&folder).unwrap();
    CopyPlace { root: Arc::new(node), volume, cache: Arc::new(EntryCache::new(1 << 20)), folder }
}

struct Giver {
    source: Source,
    store: Arc<dyn StateStore>,
    engine: SharedResources,
    next: u128,
}

impl Giver {
    fn new(disk: &Arc<dyn Disk>, root: &Path, bodies: u64) -> Self {
        let engine = SharedResources::new(StateBudget::default()).unwrap();
        let store = engine.create(&root.join("peer/state")).unwrap();
        fill(&*store, 1, bodies, 100_000, 41);
        let folder = root.join("peer/seed-source");
        let rules = SourceRules::default();
        let source =
            Source::open(disk.clone(), &folder, rules, RateLimit::none(), Millis(0)).unwrap();
        Self { source, store, engine, next: 0 }
    }

    /// Serves a target to its end, or until so many bytes have come.
    fn serve(&mut self, target: &mut Target, until: u64) -> bool {
        let replica = target.order().identity.replica;
        while target.received_bytes() < until {
            let request = match target.step(Millis(0), None).unwrap() {
                Step::Built => return true,
                Step::Ask(request) => request,
                _ => continue,
            };
            let replies = loop {
                match self.source.serve(Millis(0), replica, &request).unwrap() {
                    Served::Replies(replies) => break replies,
                    _ => self.take(),
                }
            };
            for reply in replies {
                target.step(Millis(0), Some(reply)).unwrap();
            }
        }
        false
    }

    fn take(&mut self) {
        self.next += 1;
        let origin = Origin {
            dag: DAG,
            database: DATABASE,
            generation: Generation(1),
            replica: ReplicaId(5),
            node: NodeId(5),
        };
        let id = CheckpointId(self.next);
        self.source.take(Millis(0), id, origin, &*self.store, &self.engine, MEMBERS).unwrap();
    }
}

#[test]
fn a_rocksdb_copy_is_seeded_broken_off_resumed_rotten_repaired_and_opens() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let place = place(&disk, root.path());
    let mut giver = Giver::new(&disk, root.path(), 500);
    let identity = place.root.copy_identity(DATABASE, Generation(1), ReplicaId(9));
    let staged = seed_folder(&place.folder, ReplicaId(9));
    let open = || {
        let order = SeedOrder { identity, at_least: None, reserve_bytes: 0, link_from: None };
        Target::open(disk.clone(), &staged, order).unwrap()
    };
    let mut target = open();
    assert!(!giver.serve(&mut target, 40 << 20));
    drop(target);
    // The live state goes on meanwhile; the checkpoint does not change.
    fill(&*giver.store, 9000, 50, 10_000, 90);
    let mut target = open();
    assert!(target.progress().bytes >= SYNC_BYTES);
    assert!(giver.serve(&mut target, u64::MAX));
    let manifest = target.manifest().unwrap().clone();
    assert_eq!(manifest.position, position(41));
    assert_eq!(&manifest.membership[..], b"members");
    assert!(target.received_bytes() <= manifest.total_bytes() - SYNC_BYTES);
    drop(target);
    let order = InstallOrder { place: place.clone(), identity, staged: staged.clone(), vote: None };
    let copy = install(&order, &giver.engine).unwrap();
    let taken = giver.engine.open(&giver.source.files_of(manifest.checkpoint)).unwrap();
    assert_eq!(all_rows(&*copy.state), all_rows(&*taken));
    assert_eq!(copy.log.bounds().last, Some(position(41).0));
    assert!(!staged.exists());
    drop((copy, taken));
    place.volume.stop();
}
