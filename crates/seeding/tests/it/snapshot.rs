//! Snapshots: taken whole or not at all, verified to the last bit, read without a change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_types::{ActivationId, Generation, Lineage, Millis, NodeId, ReplicaId, StoreId};
use seeding::SeedFault;
use seeding::snapshot::{SNAPSHOTS, Shelf, SnapshotId, SnapshotManifest, SnapshotOrder};
use seeding::trash;
use storage::disk::{Disk, OpenMode, RealDisk};
use storage::identity::CopyIdentity;
use storage::state::map::{MapEngine, MapState};
use storage::state::rocks::{SharedResources, StateBudget};
use storage::state::{StateEngine, StateStore};
use tempfile::TempDir;

use crate::common::{DAG, DATABASE, End, FusedDisk, all_rows, fill, position};

const LINEAGE: Lineage = Lineage { epoch: 3, activation: ActivationId([7; 16]) };

fn order(id: u128, now: u64) -> SnapshotOrder {
    SnapshotOrder {
        id: SnapshotId(id),
        copy: CopyIdentity {
            dag: DAG,
            node: NodeId(7),
            store: StoreId([5; 16]),
            database: DATABASE,
            generation: Generation(1),
            replica: ReplicaId(3),
        },
        database_name: "DB1".into(),
        lineage: LINEAGE,
        now: Millis(now),
        protected: false,
        scheduled: true,
        made_by: "schedule".into(),
        reason: String::new(),
    }
}

/// A copy in RocksDB on the real disk, with a shelf beside it.
struct Real {
    home: TempDir,
    engine: SharedResources,
    store: Arc<dyn StateStore>,
    shelf: Shelf,
}

impl Real {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let budget = StateBudget {
            block_cache_bytes: 8 << 20,
            unflushed_bytes: 64 << 20,
            ..Default::default()
        };
        let engine = SharedResources::new(budget).unwrap();
        let store = engine.create(&home.path().join("gen-1-3/state")).unwrap();
        fill(&*store, 1, 40, 20_000, 41);
        let shelf = Shelf::of(Arc::new(RealDisk::new()), home.path());
        Self { home, engine, store, shelf }
    }

    fn take(&self, id: u128, now: u64) -> (SnapshotManifest, u64) {
        let mut read = 0;
        let mut pace = |bytes| {
            read += bytes;
            true
        };
        let taken = self.shelf.take(&order(id, now), self.store.clone(), &self.engine, &mut pace);
        (taken.unwrap(), read)
    }

    fn verify(&self, id: u128) -> (Vec<String>, Vec<String>) {
        let (verdict, damaged) =
            self.shelf.verify(SnapshotId(id), &self.engine, Millis(9), &mut |_| true).unwrap();
        (verdict.findings, damaged)
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("gen-1-3/state")
    }
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << (at % 8);
    file.write_all_at(&byte, at).unwrap();
}

#[test]
fn a_snapshot_reads_as_the_copy_did_whatever_comes_later() {
    let copy = Real::new();
    let before = all_rows(&*copy.store);
    let (taken, read) = copy.take(1, 100);
    assert_eq!((taken.position, taken.node, taken.lineage), (position(41), NodeId(7), LINEAGE));
    assert_eq!(read, taken.total_bytes(), "each file is read once for its digest");
    fill(&*copy.store, 500, 30, 20_000, 90);
    let kept = copy.shelf.list().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].manifest.as_ref(), Ok(&taken));
    assert_eq!((kept[0].bad(), &kept[0].verdict), (None, &None));
    let files = |folder: PathBuf| {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let names = files(copy.shelf.files(SnapshotId(1)));
    let first = copy.shelf.open(SnapshotId(1), &copy.engine).unwrap();
    let second = copy.shelf.open(SnapshotId(1), &copy.engine).unwrap();
    assert_eq!(all_rows(&*first), before);
    assert_eq!(all_rows(&*second), before);
    drop((first, second));
    assert_eq!(files(copy.shelf.files(SnapshotId(1))), names, "reading changes nothing");
    assert_eq!(copy.verify(1), (vec![], vec![]));
    let kept = copy.shelf.find(SnapshotId(1)).unwrap().unwrap();
    assert!(kept.verdict.unwrap().is_good());
}

#[test]
fn what_a_snapshot_alone_holds_is_what_the_copy_gave_up_since() {
    let copy = Real::new();
    let (first, _) = copy.take(1, 100);
    let space = copy.shelf.space(SnapshotId(1));
    assert_eq!(space.bytes, first.total_bytes());
    assert!(space.alone < space.bytes / 4, "nearly all of it is the copy's too: {space:?}");
    let (second, read) = copy.take(2, 200);
    assert!(read < second.total_bytes() / 4, "what another snapshot holds is not read again");
    let digests = |taken: &SnapshotManifest| {
        taken.files.iter().filter(|file| file.bytes > 10_000).cloned().collect::<Vec<_>>()
    };
    assert_eq!(digests(&first), digests(&second));
    let Real { home, engine, store, shelf } = copy;
    drop(store);
    std::fs::remove_dir_all(home.path().join("gen-1-3")).unwrap();
    assert!(shelf.space(SnapshotId(1)).alone < space.bytes / 4, "the other snapshot has it too");
    assert_eq!(shelf.remove(SnapshotId(2)), Ok(true));
    let space = shelf.space(SnapshotId(1));
    assert_eq!(space.alone, space.bytes);
    assert_eq!(all_rows(&*shelf.open(SnapshotId(1), &engine).unwrap()).len(), 82);
}

#[test]
fn a_flipped_bit_in_any_file_is_found_and_named_and_the_snapshot_is_never_read_again() {
    let copy = Real::new();
    let (taken, _) = copy.take(1, 100);
    for at in 0..taken.files.len() {
        let n = 2 + at as u128;
        let (other, _) = copy.take(n, 100);
        let folder = copy.shelf.files(SnapshotId(n));
        let file = &other.files[at.min(other.files.len() - 1)];
        let (name, path) = (file.name.clone(), folder.join(&file.name));
        // The engine's own log is switched off, and has no bit to flip.
        if file.bytes == 0 {
            continue;
        }
        // A file of its own, so that the others stay as they are.
        std::fs::copy(&path, folder.join("beside")).unwrap();
        std::fs::rename(folder.join("beside"), &path).unwrap();
        flip(&path, file.bytes / 2);
        let (findings, damaged) = copy.verify(n);
        assert_eq!(damaged, [name.clone()]);
        assert_eq!(findings, [format!("the file {name} is not as it was written")]);
        flip(&path, file.bytes / 2);
        assert!(!copy.verify(n).0.is_empty(), "what was bad once stays bad");
        let refused = copy.shelf.open(SnapshotId(n), &copy.engine).map(drop);
        assert!(matches!(refused, Err(SeedFault::Order { .. })), "{refused:?}");
    }
    assert_eq!(copy.verify(1), (vec![], vec![]));
}

#[test]
fn a_missing_file_a_strange_one_and_a_damaged_manifest_are_found() {
    let copy = Real::new();
    for id in 1..=3 {
        copy.take(id, 100);
    }
    let file = |id, name: &str| copy.shelf.files(SnapshotId(id)).join(name);
    std::fs::remove_file(file(1, "CURRENT")).unwrap();
    assert_eq!(copy.verify(1).1, ["CURRENT"]);
    std::fs::write(file(2, "more.sst"), b"x").unwrap();
    assert_eq!(copy.verify(2).0, ["the file more.sst does not belong to it"]);
    let manifest =
        copy.home.path().join(SNAPSHOTS).join(SnapshotId(3).to_string()).join("manifest");
    flip(&manifest, 30);
    let kept = copy.shelf.find(SnapshotId(3)).unwrap().unwrap();
    assert!(kept.bad().unwrap().contains("manifest"), "{kept:?}");
    assert_eq!(copy.shelf.clean(), Ok(0), "a damaged one is shown, not tidied away");
    assert!(copy.shelf.open(SnapshotId(3), &copy.engine).is_err());
}

#[test]
fn a_file_that_the_copy_still_uses_is_known_as_the_very_same() {
    let copy = Real::new();
    let (taken, _) = copy.take(1, 100);
    let shared = |name: &str| copy.shelf.shares(SnapshotId(1), name, &copy.state());
    let body = taken.files.iter().find(|file| file.name.ends_with(".blob")).unwrap();
    assert!(shared(&body.name));
    assert!(!shared("CURRENT"), "a copy of its own");
    assert!(!shared("not-there.sst"));
}

#[test]
fn what_is_deleted_lies_in_the_trash_and_is_deleted_once() {
    let copy = Real::new();
    copy.take(1, 100);
    copy.take(2, 200);
    assert_eq!(copy.shelf.discard(SnapshotId(1), Millis(300)), Ok(true));
    assert_eq!(copy.shelf.discard(SnapshotId(1), Millis(300)), Ok(false));
    assert_eq!(copy.shelf.remove(SnapshotId(1)), Ok(false));
    let disk = RealDisk::new();
    let gone = trash::list(&disk, copy.home.path(), Millis(400)).unwrap();
    assert_eq!(gone[0].name, Path::new(&format!("snapshot-{}", SnapshotId(1))));
    assert_eq!(gone[0].since, Millis(300));
    let left: Vec<_> = copy.shelf.list().unwrap().into_iter().map(|kept| kept.id).collect();
    assert_eq!(left, [SnapshotId(2)]);
}

/// A copy on a simulated disk that dies at a chosen change.
fn fused(seed: u64) -> (FusedDisk, MapEngine, Arc<dyn StateStore>) {
    let disk = FusedDisk::new(seed);
    disk.create_dir_all(Path::new("/db")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let engine = MapEngine::new(shared.clone());
    let store: Arc<dyn StateStore> =
        Arc::new(MapState::create(shared, Path::new("/db/state")).unwrap());
    fill(&*store, seed, 12, 3_000, 40);
    disk.sync_dir(Path::new("/db")).unwrap();
    (disk, engine, store)
}

#[test]
fn a_kill_or_a_power_loss_at_any_change_leaves_a_whole_snapshot_or_none() {
    let (mut whole, mut none) = (0, 0);
    for end in [End::Kill, End::PowerLoss] {
        for changes in 0.. {
            let (disk, engine, store) = fused(changes);
            let shelf = Shelf::of(Arc::new(disk.clone()), Path::new("/db"));
            disk.burn_after(changes);
            let taken = shelf.take(&order(1, 5), store.clone(), &engine, &mut |_| true);
            let finished = !disk.is_burnt();
            drop(store);
            end.happen(&disk);
            shelf.clean().unwrap();
            let kept = shelf.list().unwrap();
            let rubbish = disk.list(shelf.folder()).unwrap_or_default();
            assert_eq!(rubbish.len(), kept.len(), "{end:?} at {changes}: {rubbish:?}");
            if let Some(kept) = kept.first() {
                let verdict = shelf.verify(kept.id, &engine, Millis(6), &mut |_| true).unwrap();
                assert_eq!(verdict.0.findings, Vec::<String>::new(), "{end:?} at {changes}");
                whole += 1;
            } else {
                assert!(taken.is_err(), "{end:?} at {changes}: acknowledged and gone");
                none += 1;
            }
            if finished {
                break;
            }
        }
    }
    assert!(whole >= 2 && none > 20, "{whole} whole, {none} none");
}

#[test]
fn a_kill_or_a_power_loss_while_one_is_removed_leaves_it_whole_or_gone() {
    for end in [End::Kill, End::PowerLoss] {
        for changes in 0.. {
            let (disk, engine, store) = fused(changes);
            let shelf = Shelf::of(Arc::new(disk.clone()), Path::new("/db"));
            shelf.take(&order(1, 5), store.clone(), &engine, &mut |_| true).unwrap();
            disk.burn_after(changes);
            let removed = match changes % 2 {
                0 => shelf.remove(SnapshotId(1)),
                _ => shelf.discard(SnapshotId(1), Millis(6)),
            };
            let finished = !disk.is_burnt();
            drop(store);
            end.happen(&disk);
            shelf.clean().unwrap();
            match shelf.list().unwrap().first() {
                Some(kept) => {
                    assert!(removed.is_err(), "{end:?} at {changes}: acknowledged and there");
                    let verdict = shelf.verify(kept.id, &engine, Millis(7), &mut |_| true).unwrap();
                    assert!(verdict.0.is_good(), "{end:?} at {changes}: {verdict:?}");
                }
                None => assert!(disk.list(shelf.folder()).unwrap_or_default().is_empty()),
            }
            if finished {
                break;
            }
        }
    }
}

#[test]
fn work_that_is_broken_off_is_no_verdict_and_no_snapshot() {
    let (disk, engine, store) = fused(1);
    let shelf = Shelf::of(Arc::new(disk.clone()), Path::new("/db"));
    assert!(shelf.take(&order(1, 5), store.clone(), &engine, &mut |_| false).is_err());
    assert_eq!(shelf.list(), Ok(vec![]));
    assert_eq!(shelf.clean(), Ok(0), "what was begun is gone");
    shelf.take(&order(2, 5), store.clone(), &engine, &mut |_| true).unwrap();
    assert!(shelf.verify(SnapshotId(2), &engine, Millis(6), &mut |_| false).is_err());
    assert_eq!(shelf.find(SnapshotId(2)).unwrap().unwrap().verdict, None);
    let manifest = Path::new("/db/snapshots").join(SnapshotId(2).to_string()).join("manifest");
    assert!(disk.open(&manifest, OpenMode::Read).is_ok());
}
