//! A copy's directory and the node's root: who may open what.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dag_types::{
    ActivationId, DagId, DatabaseId, Generation, Lineage, LogId, Millis, NodeId, ReplicaId, StoreId,
};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart, OpenFault};
use storage::disk::{Disk, SimDisk, SimDiskOptions, read_whole, replace_whole};
use storage::identity::{CopyIdentity, NodeRoot, RootFault};
use storage::log::{EntryCache, LogEntry, LogOpenFault, VoteRecord};
use storage::state::applied_write;
use storage::state::map::MapEngine;
use storage::volume::{Pumped, Volume, VolumeDriver, VolumeOptions};

const ROOT: &str = "/node";
const NODE: NodeId = NodeId(7);
const STORE: StoreId = StoreId([5; 16]);
const DATABASE: DatabaseId = DatabaseId(16);

/// A node on a simulated disk.
struct Node {
    disk: SimDisk,
    place: CopyPlace,
    driver: VolumeDriver,
}

impl Node {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed, SimDiskOptions::default());
        NodeRoot::format(&disk, Path::new(ROOT), NODE, STORE).unwrap();
        let node = Self::start(disk).unwrap();
        node.place.root.join(DagId([1; 16])).unwrap();
        node
    }

    fn start(disk: SimDisk) -> Result<Self, RootFault> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let root = Arc::new(NodeRoot::start(shared.clone(), Path::new(ROOT), NODE, 99)?);
        let (volume, driver) = Volume::simulated(shared, VolumeOptions::default());
        let cache = Arc::new(EntryCache::new(1 << 20));
        let folder = PathBuf::from("/volume/db-16");
        disk.create_dir_all(&folder).unwrap();
        for folder in ["/", "/volume"] {
            disk.sync_dir(Path::new(folder)).unwrap();
        }
        Ok(Self { disk, place: CopyPlace { root, volume, cache, folder }, driver })
    }

    /// Everything ends, the machine starts again.
    fn restart(self) -> Self {
        let disk = self.disk.clone();
        drop(self);
        disk.crash();
        Self::start(disk).unwrap()
    }

    fn identity(&self, replica: u64) -> CopyIdentity {
        self.place.root.copy_identity(DATABASE, Generation(1), ReplicaId(replica))
    }

    fn engine(&self) -> MapEngine {
        MapEngine::new(Arc::new(self.disk.clone()))
    }

    fn create(&self, replica: u64) -> Result<CopyDirectory, OpenFault> {
        let identity = self.identity(replica);
        CopyDirectory::create(&self.place, identity, CopyStart::Empty, &self.engine())
    }

    /// Opens a copy, when those that were dropped before are closed.
    fn open(&mut self, replica: u64) -> Result<CopyDirectory, OpenFault> {
        self.settle(100);
        CopyDirectory::open(&self.place, self.identity(replica), &self.engine())
    }

    fn settle(&mut self, now: u64) {
        while !matches!(self.driver.pump(Millis(now)), Pumped::Wait(_)) {}
    }

    fn append(&mut self, copy: &CopyDirectory, index: u64) {
        let id = LogId { term: 1, index };
        let payload = Bytes::from(vec![index as u8; 100]);
        let result = Arc::new(Mutex::new(None));
        let told = result.clone();
        let done = Box::new(move |outcome| *told.lock().unwrap() = Some(outcome));
        copy.log.append(vec![LogEntry { id, kind: 1, payload }], done);
        self.settle(100 + index);
        assert_eq!(*result.lock().unwrap(), Some(Ok(())));
    }

    /// Applies through `index`, flushes, tells the log.
    fn flush(&mut self, copy: &CopyDirectory, index: u64) {
        let id = LogId { term: 1, index };
        let chain = copy.log.chain_at(index).unwrap();
        copy.state.write(&[applied_write(id, chain)]).unwrap();
        copy.state.flush().unwrap();
        copy.log.set_flushed((id, chain));
    }
}

fn meta_path() -> PathBuf {
    PathBuf::from("/volume/db-16/gen-1-3/META")
}

#[test]
fn a_copy_comes_back_with_its_log_and_state_after_a_crash() {
    let mut node = Node::new(1);
    let copy = node.create(3).unwrap();
    for index in 0..10 {
        node.append(&copy, index);
    }
    node.flush(&copy, 6);
    copy.log.purge(LogId { term: 1, index: 4 }).unwrap();
    node.settle(500);
    drop(copy);
    let mut node = node.restart();
    let copy = node.open(3).unwrap();
    assert_eq!(copy.log.bounds().last.unwrap().index, 9);
    assert_eq!(copy.log.bounds().purged.unwrap().index, 4);
    assert_eq!(copy.log.flushed().unwrap().0.index, 6);
}

#[test]
fn a_crash_at_any_moment_of_making_and_opening_never_fails_a_copy() {
    let mut made = 0;
    for seed in 0..40 {
        let mut node = Node::new(seed);
        // What is under way when the power goes is chosen by failing one of the calls.
        node.disk.fail_sync("", seed % 20, std::io::ErrorKind::Other);
        let first = node.create(3).map(drop);
        node = node.restart();
        match node.open(3) {
            Ok(_) => made += 1,
            Err(OpenFault::Missing { .. }) => {
                assert!(first.is_err(), "a copy that was made is there");
                match node.create(3) {
                    Ok(_) => made += 1,
                    Err(fault) => panic!("seed {seed}: {fault}"),
                }
            }
            Err(fault) => panic!("seed {seed}: {fault}"),
        }
        node.disk.fail_sync("", seed % 7, std::io::ErrorKind::Other);
        drop(node.open(3));
        node = node.restart();
        node.open(3).expect("an interrupted opening is no fault");
    }
    assert_eq!(made, 40);
}

#[test]
fn a_copy_has_one_owner_at_a_time() {
    let mut node = Node::new(2);
    let copy = node.create(3).unwrap();
    assert!(matches!(node.open(3), Err(OpenFault::InUse { .. })));
    drop(copy);
    assert!(node.open(3).is_ok());
}

#[test]
fn a_replica_id_is_never_used_twice_even_after_the_copy_is_gone() {
    let mut node = Node::new(3);
    drop(node.create(3).unwrap());
    assert!(matches!(node.create(3), Err(OpenFault::Used { .. })));
    node.settle(100);
    CopyDirectory::discard(&node.place, &node.identity(3)).unwrap();
    assert!(matches!(node.open(3), Err(OpenFault::Missing { .. })));
    assert!(matches!(node.create(3), Err(OpenFault::Used { .. })));
    assert!(node.create(4).is_ok());
    let trash = node.disk.list(Path::new("/volume/db-16/trash")).unwrap();
    assert_eq!(trash, [Path::new("gen-1-3")], "deleting is renaming");
    CopyDirectory::empty_trash(&node.place).unwrap();
    assert!(!node.disk.exists(Path::new("/volume/db-16/trash")).unwrap());
}

#[test]
fn a_directory_of_another_replica_is_refused() {
    let mut node = Node::new(4);
    drop(node.create(3).unwrap());
    let from = Path::new("/volume/db-16/gen-1-3");
    node.disk.rename(from, Path::new("/volume/db-16/gen-1-8")).unwrap();
    let fault = node.open(8).err().unwrap();
    assert!(matches!(fault, OpenFault::Foreign { what: "the replica", .. }), "{fault}");
}

#[test]
fn a_copy_from_another_store_is_refused() {
    let node = Node::new(5);
    drop(node.create(3).unwrap());
    let disk = node.disk.clone();
    drop(node);
    disk.remove_dir_all(Path::new(ROOT)).unwrap();
    NodeRoot::format(&disk, Path::new(ROOT), NODE, StoreId([6; 16])).unwrap();
    let mut node = Node::start(disk).unwrap();
    node.place.root.join(DagId([1; 16])).unwrap();
    let fault = node.open(3).err().unwrap();
    assert!(matches!(fault, OpenFault::Foreign { what: "the store", .. }), "{fault}");
}

#[test]
fn a_copy_that_was_turned_back_is_refused() {
    let mut node = Node::new(6);
    drop(node.create(3).unwrap());
    let old = read_whole(&node.disk, &meta_path()).unwrap();
    drop(node.open(3).unwrap());
    replace_whole(&node.disk, &meta_path(), &old).unwrap();
    let fault = node.open(3).err().unwrap();
    assert!(matches!(fault, OpenFault::TurnedBack { what: "the copy", .. }), "{fault}");
}

#[test]
fn a_root_that_was_turned_back_is_noticed_by_its_copies() {
    let mut node = Node::new(7);
    drop(node.create(3).unwrap());
    let root = Path::new("/node/node.meta");
    let old = read_whole(&node.disk, root).unwrap();
    drop(node.open(3).unwrap());
    drop(node.open(3).unwrap());
    let disk = node.disk.clone();
    drop(node);
    replace_whole(&disk, root, &old).unwrap();
    let mut node = Node::start(disk).unwrap();
    let fault = node.open(3).err().unwrap();
    assert!(matches!(fault, OpenFault::TurnedBack { what: "the node's root", .. }), "{fault}");
}

#[test]
fn a_log_that_was_turned_back_behind_its_vote_is_noticed() {
    let mut node = Node::new(8);
    let copy = node.create(3).unwrap();
    let log = Path::new("/volume/db-16/gen-1-3/log/0000000000000001.seg");
    let old = read_whole(&node.disk, log).unwrap();
    let vote = VoteRecord { term: 5, voted_for: 3, committed: true };
    copy.log.save_vote(vote, Box::new(|result| assert_eq!(result, Ok(()))));
    node.settle(100);
    drop(copy);
    let mut node = node.restart();
    assert_eq!(node.open(3).unwrap().log.vote(), Some(vote));
    node.settle(100);
    let mut node = node.restart();
    replace_whole(&node.disk, log, &old).unwrap();
    let fault = node.open(3).err().unwrap();
    let remembered = LogOpenFault::VoteWentBack { remembered: 5, found: None };
    assert_eq!(fault, OpenFault::Log(remembered));
}

#[test]
fn a_directory_of_a_newer_format_is_refused_before_a_byte_is_written() {
    let mut node = Node::new(9);
    drop(node.create(3).unwrap());
    let bytes = read_whole(&node.disk, &meta_path()).unwrap();
    let place = dag_format::record::Place::default();
    let payload = dag_format::record::read(&bytes, place).unwrap().payload;
    let mut newer = dag_format::record::header(0x41, 2, place, &[payload]).to_vec();
    newer.extend_from_slice(payload);
    replace_whole(&node.disk, &meta_path(), &newer).unwrap();
    let all = |node: &Node| {
        let read = |path: &PathBuf| read_whole(&node.disk, path).unwrap();
        node.disk.files().iter().map(|path| (path.clone(), read(path))).collect::<Vec<_>>()
    };
    let before = all(&node);
    let fault = node.open(3).err().unwrap();
    assert!(fault.to_string().contains("use a newer Holdfast"), "{fault}");
    assert_eq!(all(&node), before);
}

#[test]
fn a_damaged_meta_is_refused() {
    let mut node = Node::new(10);
    drop(node.create(3).unwrap());
    node.disk.flip_bit(&meta_path(), 30, 2).unwrap();
    assert!(matches!(node.open(3), Err(OpenFault::Meta { .. })));
}

#[test]
fn a_seeded_copy_begins_behind_its_state_and_nowhere_else() {
    let mut node = Node::new(11);
    let source = node.create(3).unwrap();
    for index in 0..5 {
        node.append(&source, index);
    }
    node.flush(&source, 4);
    let position = source.log.flushed().unwrap();
    for (replica, position, fits) in
        [(4, position, true), (5, (LogId { term: 1, index: 3 }, position.1), false)]
    {
        let state = PathBuf::from(format!("/volume/db-16/incoming-{replica}"));
        source.state.checkpoint(&state).unwrap();
        let start = CopyStart::Seeded { state, position, vote: None };
        let identity = node.identity(replica);
        let made = CopyDirectory::create(&node.place, identity, start, &node.engine());
        match made {
            Ok(copy) => {
                assert!(fits);
                assert_eq!(copy.log.bounds().last, Some(position.0));
                assert_eq!(copy.log.bounds().purged, Some(position.0));
            }
            Err(fault) => assert!(!fits && matches!(fault, OpenFault::OtherState { .. })),
        }
    }
    let mut node = node.restart();
    assert_eq!(node.open(4).unwrap().log.bounds().last, Some(position.0));
}

#[test]
fn a_staged_state_replaces_the_old_one_at_the_next_open() {
    let mut node = Node::new(12);
    let source = node.create(3).unwrap();
    let behind = node.create(4).unwrap();
    for index in 0..5 {
        node.append(&source, index);
    }
    node.flush(&source, 4);
    let position = source.log.flushed().unwrap();
    let incoming = Path::new("/volume/db-16/incoming");
    source.state.checkpoint(incoming).unwrap();
    behind.stage_state(incoming).unwrap();
    drop((source, behind));
    let mut node = node.restart();
    let copy = node.open(4).unwrap();
    assert_eq!(copy.log.flushed(), Some(position));
    copy.log.purge(position.0).unwrap();
    assert_eq!(copy.log.bounds().last, Some(position.0));
}

#[test]
fn a_missing_state_fails_the_copy_instead_of_coming_back_empty() {
    let mut node = Node::new(13);
    let copy = node.create(3).unwrap();
    let state = copy.state_path();
    drop(copy);
    node.disk.remove_dir_all(&state).unwrap();
    assert!(matches!(node.open(3), Err(OpenFault::State(_))));
}

// The root.

#[test]
fn every_start_counts_durably() {
    let mut node = Node::new(20);
    for counter in 1..5 {
        assert_eq!(node.place.root.identity().boot.counter, counter);
        node = node.restart();
    }
}

#[test]
fn a_root_is_formatted_once_and_never_by_a_start() {
    let disk = SimDisk::new(1, SimDiskOptions::default());
    let started = NodeRoot::start(Arc::new(disk.clone()), Path::new(ROOT), NODE, 1);
    assert!(matches!(started, Err(RootFault::NotFormatted { .. })));
    NodeRoot::format(&disk, Path::new(ROOT), NODE, STORE).unwrap();
    let again = NodeRoot::format(&disk, Path::new(ROOT), NODE, STORE);
    assert!(matches!(again, Err(RootFault::Formatted { .. })));
}

#[test]
fn a_root_serves_one_process_and_its_own_node_only() {
    let node = Node::new(21);
    let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
    let second = NodeRoot::start(disk.clone(), Path::new(ROOT), NODE, 1);
    assert!(matches!(second, Err(RootFault::InUse { .. })));
    let other = NodeRoot::start(disk, Path::new(ROOT), NodeId(8), 1);
    assert!(matches!(other, Err(RootFault::OtherNode { .. })));
    assert_eq!(node.place.root.identity().boot.counter, 1, "neither counted as a start");
}

#[test]
fn a_node_belongs_to_one_dag() {
    let node = Node::new(22);
    assert_eq!(node.place.root.join(DagId([1; 16])), Ok(()), "repeating it is harmless");
    let other = node.place.root.join(DagId([2; 16]));
    assert!(matches!(other, Err(RootFault::OtherDag { .. })));
    let node = node.restart();
    assert_eq!(node.place.root.identity().dag, DagId([1; 16]));
}

#[test]
fn the_newest_lineage_survives_a_crash_right_after_it_was_saved() {
    let node = Node::new(23);
    let lineage = Lineage { epoch: 4, activation: ActivationId([4; 16]) };
    node.place.root.save_lineage(lineage, Bytes::from_static(b"links")).unwrap();
    let node = node.restart();
    assert_eq!(node.place.root.lineage(), (lineage, Bytes::from_static(b"links")));
}

#[test]
fn a_failed_root_takes_nothing_any_more() {
    let node = Node::new(24);
    node.disk.fail_sync("node.meta", 0, std::io::ErrorKind::Other);
    let lineage = |epoch| Lineage { epoch, activation: ActivationId([4; 16]) };
    assert!(node.place.root.save_lineage(lineage(4), Bytes::new()).is_err());
    assert!(node.place.root.save_lineage(lineage(5), Bytes::new()).is_err());
    assert!(node.place.root.fault().is_some());
}

#[test]
fn a_root_on_a_full_disk_stays_as_it_was_and_goes_on_when_there_is_room() {
    let node = Node::new(25);
    let root = &node.place.root;
    let lineage = |epoch| Lineage { epoch, activation: ActivationId([4; 16]) };
    root.save_lineage(lineage(4), Bytes::new()).unwrap();
    node.disk.set_capacity(node.disk.used_bytes());
    assert!(root.save_lineage(lineage(5), Bytes::new()).is_err());
    assert_eq!((root.lineage().0, root.fault()), (lineage(4), None));
    node.disk.set_capacity(1 << 30);
    root.save_lineage(lineage(6), Bytes::new()).unwrap();
    let node = node.restart();
    assert_eq!(node.place.root.lineage().0, lineage(6));
}

#[test]
fn a_promise_and_the_steps_taken_outlive_a_start_and_a_newer_lineage_ends_the_promise() {
    let node = Node::new(31);
    let root = &node.place.root;
    let promise = ActivationId([7; 16]);
    let step = dag_format::meta::TakenStep { operation: 3, term: 4, step: 5 };
    root.save_promise(Some(promise)).unwrap();
    root.save_steps(vec![step]).unwrap();
    let node = node.restart();
    let root = &node.place.root;
    assert_eq!((root.promise(), root.taken_steps()), (Some(promise), vec![step]));
    let lineage = Lineage { epoch: 9, activation: ActivationId([9; 16]) };
    root.save_lineage(lineage, Bytes::new()).unwrap();
    let node = node.restart();
    let root = &node.place.root;
    assert_eq!((root.promise(), root.taken_steps()), (None, vec![step]));
}
