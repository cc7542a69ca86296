//! Both disks keep the same promises; the simulated one also breaks everything it may break.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::disk::{
    AlignedBuffer, BLOCK, Disk, DiskFile, OpenMode, RealDisk, SimDisk, SimDiskOptions, read_whole,
    replace_whole, take_lock,
};

struct Subject {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Subject {
    fn real(disk: RealDisk) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { disk: Arc::new(disk), root: folder.path().into(), _folder: Some(folder) }
    }

    fn simulated() -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
        disk.create_dir_all(Path::new("/root")).unwrap();
        Self { disk, root: "/root".into(), _folder: None }
    }

    fn each(check: impl Fn(&Subject)) {
        for subject in
            [Self::real(RealDisk::new()), Self::real(RealDisk::buffered()), Self::simulated()]
        {
            check(&subject);
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|fault| fault.kind())
    }
}

fn block(fill: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(BLOCK);
    buffer.push(&[fill; BLOCK]);
    buffer
}

#[test]
fn a_file_is_made_once_and_opened_only_where_it_is() {
    Subject::each(|subject| {
        let path = subject.at("file");
        for mode in [OpenMode::Read, OpenMode::Direct] {
            let opened = subject.disk.open(&path, mode);
            assert_eq!(Subject::kind(opened), Some(ErrorKind::NotFound));
        }
        subject.disk.open(&path, OpenMode::Create).unwrap();
        let again = subject.disk.open(&path, OpenMode::Create);
        assert_eq!(Subject::kind(again), Some(ErrorKind::AlreadyExists));
        assert!(subject.disk.exists(&path).unwrap());
    });
}

#[test]
fn bytes_are_read_back_where_they_were_written() {
    Subject::each(|subject| {
        let file = subject.disk.open(&subject.at("file"), OpenMode::Create).unwrap();
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello ", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 11);
        assert_eq!(read_whole(&*subject.disk, &subject.at("file")).unwrap(), b"hello world");
        let mut beyond = [0; 3];
        let read = file.read_at(&mut beyond, 9);
        assert_eq!(Subject::kind(read), Some(ErrorKind::UnexpectedEof));
        file.set_len(5).unwrap();
        file.set_len(7).unwrap();
        assert_eq!(read_whole(&*subject.disk, &subject.at("file")).unwrap(), b"hello\0\0");
    });
}

#[test]
fn unbuffered_files_take_whole_blocks() {
    Subject::each(|subject| {
        drop(subject.disk.open(&subject.at("file"), OpenMode::Create).unwrap());
        let file = subject.disk.open(&subject.at("file"), OpenMode::Direct).unwrap();
        file.write_at(block(1).padded(), BLOCK as u64).unwrap();
        file.write_at(block(2).padded(), 0).unwrap();
        file.sync().unwrap();
        let mut back = AlignedBuffer::new(2 * BLOCK);
        file.read_at(back.blocks_mut(2 * BLOCK), 0).unwrap();
        assert!(back.filled()[..BLOCK].iter().all(|byte| *byte == 2));
        assert!(back.filled()[BLOCK..].iter().all(|byte| *byte == 1));
    });
}

#[test]
fn names_are_listed_in_order_renamed_over_and_removed() {
    Subject::each(|subject| {
        let disk = &subject.disk;
        disk.create_dir_all(&subject.at("a/b")).unwrap();
        disk.create_dir_all(&subject.at("a/b")).unwrap();
        for name in ["z", "m", "a/inner"] {
            replace_whole(&**disk, &subject.at(name), name.as_bytes()).unwrap();
        }
        disk.rename(&subject.at("z"), &subject.at("m")).unwrap();
        assert_eq!(read_whole(&**disk, &subject.at("m")).unwrap(), b"z");
        disk.rename(&subject.at("a"), &subject.at("c")).unwrap();
        assert_eq!(read_whole(&**disk, &subject.at("c/inner")).unwrap(), b"a/inner");
        assert_eq!(disk.list(&subject.root).unwrap(), [Path::new("c"), Path::new("m")]);
        disk.remove_dir_all(&subject.at("c")).unwrap();
        disk.remove_dir_all(&subject.at("c")).unwrap();
        disk.remove_file(&subject.at("m")).unwrap();
        assert_eq!(Subject::kind(disk.remove_file(&subject.at("m"))), Some(ErrorKind::NotFound));
        assert_eq!(Subject::kind(disk.list(&subject.at("c"))), Some(ErrorKind::NotFound));
        disk.sync_dir(&subject.root).unwrap();
    });
}

#[test]
fn a_folder_has_one_owner_at_a_time() {
    Subject::each(|subject| {
        let path = subject.at("LOCK");
        let first = take_lock(&*subject.disk, &path, "the first, with a long name").unwrap();
        assert!(first.is_some());
        assert!(take_lock(&*subject.disk, &path, "the second").unwrap().is_none());
        drop(first);
        assert!(take_lock(&*subject.disk, &path, "the second").unwrap().is_some());
        assert_eq!(read_whole(&*subject.disk, &path).unwrap(), b"the second");
    });
}

/// What a random run of calls gave.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Kind(ErrorKind),
    Bytes(Vec<u8>),
    Names(Vec<PathBuf>),
}

fn answer<T>(result: io::Result<T>, ok: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|fault| Answer::Kind(fault.kind()), ok)
}

/// One random call, the same for the same numbers.
fn call(subject: &Subject, numbers: [u64; 4]) -> Answer {
    const NAMES: [&str; 6] = ["one", "two", "d", "d/one", "d/two", "e/one"];
    let disk = &subject.disk;
    let path = |number: u64| subject.at(NAMES[number as usize % NAMES.len()]);
    let (this, other) = (path(numbers[1]), path(numbers[2]));
    let open = |mode| disk.open(&this, mode);
    let write = |file: Arc<dyn DiskFile>| {
        file.write_at(&[numbers[3] as u8; 300], numbers[2] % 9000).and_then(|()| file.sync())
    };
    match numbers[0] % 9 {
        0 if NAMES[numbers[1] as usize % 6] != "d" => {
            answer(open(OpenMode::Create).and_then(write), |()| Answer::Done)
        }
        1 => answer(read_whole(&**disk, &this), Answer::Bytes),
        2 if NAMES[numbers[1] as usize % NAMES.len()] != "d" => {
            answer(replace_whole(&**disk, &this, &[numbers[3] as u8; 50]), |()| Answer::Done)
        }
        3 => answer(disk.create_dir_all(&subject.at(["d", "e"][numbers[1] as usize % 2])), |()| {
            Answer::Done
        }),
        4 if NAMES[numbers[1] as usize % 6] != "d" && NAMES[numbers[2] as usize % 6] != "d" => {
            answer(disk.rename(&this, &other), |()| Answer::Done)
        }
        5 => answer(disk.list(&subject.root), Answer::Names),
        6 if NAMES[numbers[1] as usize % 6] != "d" => {
            answer(disk.remove_file(&this), |()| Answer::Done)
        }
        7 if numbers[2].is_multiple_of(6) => {
            answer(disk.remove_dir_all(&subject.at("d")), |()| Answer::Done)
        }
        8 => answer(disk.exists(&this), |there| Answer::Bytes(vec![u8::from(there)])),
        _ => Answer::Done,
    }
}

#[test]
fn random_calls_have_the_same_effect_on_both_disks() {
    let mut state = 42u64;
    let mut number = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut done = 0;
    for _ in 0..30 {
        let subjects = [Subject::real(RealDisk::new()), Subject::simulated()];
        for step in 0..200 {
            let numbers = [number(), number(), number(), number()];
            let [real, simulated] = subjects.each_ref().map(|subject| call(subject, numbers));
            assert_eq!(real, simulated, "step {step}: {numbers:?}");
            done += usize::from(!matches!(real, Answer::Kind(_)));
        }
    }
    assert!(done > 2000, "most calls should do something: {done}");
}

// What only the simulated disk can show.

fn sim() -> SimDisk {
    let disk = SimDisk::new(9, SimDiskOptions::default());
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn segment(disk: &SimDisk, name: &str, blocks: usize) -> Arc<dyn DiskFile> {
    let path = Path::new("/d").join(name);
    let file = disk.open(&path, OpenMode::Create).unwrap();
    file.write_at(&vec![0; blocks * BLOCK], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.open(&path, OpenMode::Direct).unwrap()
}

#[test]
fn what_was_synced_survives_every_crash_and_what_was_not_may_be_torn() {
    let (mut torn, mut lost, mut kept) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed, SimDiskOptions::default());
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let file = segment(&disk, "s", 3);
        file.write_at(block(1).padded(), 0).unwrap();
        file.sync().unwrap();
        file.write_at(block(2).padded(), BLOCK as u64).unwrap();
        disk.crash();
        assert!(file.sync().is_err(), "files of an earlier life are dead");
        let bytes = read_whole(&disk, Path::new("/d/s")).unwrap();
        assert!(bytes[..BLOCK].iter().all(|byte| *byte == 1));
        match bytes[BLOCK..2 * BLOCK].iter().filter(|byte| **byte == 2).count() {
            0 => lost += 1,
            BLOCK => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(torn > 10 && lost > 10 && kept > 10, "{torn} torn, {lost} lost, {kept} kept");
}

#[test]
fn names_that_were_not_synced_are_lost_in_some_crashes() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed, SimDiskOptions::default());
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        replace_whole(&disk, Path::new("/d/durable"), b"old").unwrap();
        let file = disk.open(Path::new("/d/new"), OpenMode::Create).unwrap();
        file.write_at(b"new", 0).unwrap();
        file.sync().unwrap();
        disk.rename(Path::new("/d/new"), Path::new("/d/durable")).unwrap();
        disk.crash();
        match &read_whole(&disk, Path::new("/d/durable")).unwrap()[..] {
            b"old" => lost += 1,
            b"new" => kept += 1,
            other => panic!("neither old nor new: {other:?}"),
        }
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
}

#[test]
fn one_sync_covers_unbuffered_writes_to_other_files_but_no_growth_and_no_buffered_ones() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed, SimDiskOptions::default());
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let (first, second) = (segment(&disk, "1", 2), segment(&disk, "2", 2));
        assert!(first.flush_group().is_some() && first.flush_group() == second.flush_group());
        first.write_at(block(7).padded(), 0).unwrap();
        second.sync().unwrap();
        disk.crash();
        assert_eq!(read_whole(&disk, Path::new("/d/1")).unwrap()[0], 7);
    }
    let grown = (0..50).filter(|seed| {
        let disk = SimDisk::new(*seed, SimDiskOptions::default());
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let (first, second) = (segment(&disk, "1", 1), segment(&disk, "2", 1));
        first.write_at(block(7).padded(), BLOCK as u64).unwrap();
        second.sync().unwrap();
        disk.crash();
        read_whole(&disk, Path::new("/d/1")).unwrap().get(BLOCK) == Some(&7)
    });
    assert!(grown.count() < 50, "a growing file is not covered by another's sync");
}

#[test]
fn a_failed_sync_loses_what_a_later_one_claims() {
    let disk = sim();
    let file = segment(&disk, "s", 1);
    file.write_at(block(5).padded(), 0).unwrap();
    disk.fail_sync("/d/s", 0, ErrorKind::Other);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    disk.crash();
    assert_eq!(read_whole(&disk, Path::new("/d/s")).unwrap()[0], 0);
}

#[test]
fn a_full_disk_takes_no_growth_and_still_takes_writes_in_place() {
    let disk = sim();
    let file = segment(&disk, "s", 2);
    disk.set_capacity(disk.used_bytes());
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 0);
    file.write_at(block(1).padded(), 0).unwrap();
    let grown = file.write_at(block(1).padded(), 2 * BLOCK as u64);
    assert_eq!(Subject::kind(grown), Some(ErrorKind::StorageFull));
    disk.remove_file(Path::new("/d/s")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 2 * BLOCK as u64);
}

#[test]
fn damage_from_outside_sets_off_no_fault_that_waits_for_a_call() {
    let (disk, path) = (sim(), Path::new("/d/s"));
    let file = segment(&disk, "s", 3);
    disk.misdirect_write(path, 2 * BLOCK as u64);
    disk.fail_sync("/d/s", 0, ErrorKind::Other);
    disk.replace_bytes(path, 5, &[7, 7]).unwrap();
    assert_eq!(disk.content(path).unwrap()[4..8], [0, 7, 7, 0]);
    let behind = disk.replace_bytes(path, 3 * BLOCK as u64 - 1, &[7, 7]);
    assert_eq!(Subject::kind(behind), Some(ErrorKind::UnexpectedEof));
    file.write_at(block(1).padded(), 0).unwrap();
    let bytes = disk.content(path).unwrap();
    assert_eq!((bytes[5], bytes[2 * BLOCK]), (7, 1), "the node's own write is led astray");
    assert!(file.sync().is_err(), "and its own sync fails");
    disk.crash();
    assert_eq!(disk.content(path).unwrap()[4..8], [0, 7, 7, 0], "it needs no sync");
}

#[test]
fn calls_cost_time_that_the_caller_is_told_once() {
    let disk = sim();
    let file = segment(&disk, "s", 1);
    disk.take_latency();
    file.sync().unwrap();
    assert!(disk.take_latency() >= SimDiskOptions::default().sync_latency);
    assert_eq!(disk.take_latency(), std::time::Duration::ZERO);
}
