//! A disk whose unbuffered writes are carried out by a thread of their own, so that whoever writes
//! can fetch the next bytes meanwhile.
//!
//! It promises what an operating system's cache promises: a read sees what was written before it, a
//! sync waits for all of it, and a write that failed is told by the next call to its file, at the
//! latest by its sync; from then on every call fails. At most [`AHEAD`] writes wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{AlignedBuffer, Disk, DiskFile, DiskLock, Links, OpenMode, PIECE, Syncing, abandoned};

/// Writes that wait at most; each holds its bytes in memory.
pub const AHEAD: usize = 3;

const UNPOISONED: &str = "nothing panics while it holds the lock";

/// See the module.
pub struct WriteBehind {
    disk: Arc<dyn Disk>,
    queue: Arc<Queue>,
}

struct Queue {
    jobs: Sender<Job>,
    spare: Mutex<Spare>,
}

/// Buffers that were written. So many are made, and no more: whoever wants another one waits for it.
struct Spare {
    written: Receiver<AlignedBuffer>,
    made: usize,
}

enum Job {
    Write {
        to: Arc<Behind>,
        bytes: AlignedBuffer,
        offset: u64,
    },
    SetLen {
        of: Arc<Behind>,
        bytes: u64,
    },
    Sync {
        of: Arc<Behind>,
        told: Sender<io::Result<()>>,
    },
    /// Everything before this was done.
    Tell(Sender<()>),
}

impl WriteBehind {
    /// Writes behind to this disk until the last of its files is dropped.
    pub fn new(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let (jobs, waiting) = channel();
        let (back, written) = channel();
        let writer = move || {
            while let Ok(job) = waiting.recv() {
                carry_out(job, &back);
            }
        };
        std::thread::Builder::new().name("write-behind".into()).spawn(writer)?;
        let spare = Mutex::new(Spare { written, made: 0 });
        Ok(Self { disk, queue: Arc::new(Queue { jobs, spare }) })
    }
}

fn carry_out(job: Job, back: &Sender<AlignedBuffer>) {
    // Who asked may be gone by now.
    let _ = match job {
        Job::Write { to, mut bytes, offset } => {
            to.attempt(|file| write(file, bytes.padded(), offset));
            back.send(bytes).ok()
        }
        Job::SetLen { of, bytes } => Some(of.attempt(|file| file.set_len(bytes))),
        Job::Sync { of, told } => told.send(of.sound().and_then(|()| of.file.sync())).ok(),
        Job::Tell(waiter) => waiter.send(()).ok(),
    };
}

fn write(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut pieces = (offset..).step_by(PIECE).zip(bytes.chunks(PIECE));
    pieces.try_for_each(|(offset, piece)| file.write_at(piece, offset))
}

impl Queue {
    fn add(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).map_err(|_| abandoned())
    }

    /// A buffer for the next write.
    fn spare(&self) -> io::Result<AlignedBuffer> {
        let mut spare = self.spare.lock().expect(UNPOISONED);
        match spare.written.try_recv() {
            Ok(buffer) => Ok(buffer),
            Err(_) if spare.made <= AHEAD => {
                spare.made += 1;
                Ok(AlignedBuffer::new(0))
            }
            Err(_) => spare.written.recv().map_err(|_| abandoned()),
        }
    }
}

/// A file and what became of the writes to it.
struct Behind {
    file: Arc<dyn DiskFile>,
    fault: Mutex<Option<(io::ErrorKind, String)>>,
}

impl Behind {
    /// After a failure nothing is known of the file, and nothing more is done to it.
    fn attempt(&self, act: impl FnOnce(&dyn DiskFile) -> io::Result<()>) {
        if self.sound().is_ok()
            && let Err(fault) = act(&*self.file)
        {
            *self.fault.lock().expect(UNPOISONED) = Some((fault.kind(), fault.to_string()));
        }
    }

    fn sound(&self) -> io::Result<()> {
        match &*self.fault.lock().expect(UNPOISONED) {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }
}

struct BehindFile {
    behind: Arc<Behind>,
    queue: Arc<Queue>,
}

impl BehindFile {
    /// Waits until everything that was written so far is on its way to the disk.
    fn settled(&self) -> io::Result<&dyn DiskFile> {
        let (waiter, done) = channel();
        self.queue.add(Job::Tell(waiter))?;
        done.recv().map_err(|_| abandoned())?;
        self.behind.sound()?;
        Ok(&*self.behind.file)
    }
}

impl DiskFile for BehindFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.settled()?.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut buffer = AlignedBuffer::new(data.len());
        buffer.push(data);
        self.write_buffer(buffer, offset).map(drop)
    }

    fn write_buffer(&self, buffer: AlignedBuffer, offset: u64) -> io::Result<AlignedBuffer> {
        self.behind.sound()?;
        let capacity = buffer.capacity();
        self.queue.add(Job::Write { to: self.behind.clone(), bytes: buffer, offset })?;
        let mut spare = self.queue.spare()?;
        spare.reset(capacity);
        Ok(spare)
    }

    fn sync(&self) -> io::Result<()> {
        self.begin_sync().wait()
    }

    fn begin_sync(&self) -> Syncing {
        let (told, result) = channel();
        match self.queue.add(Job::Sync { of: self.behind.clone(), told }) {
            Ok(()) => Syncing::UnderWay(result),
            Err(ended) => Syncing::Over(Err(ended)),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.settled()?.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.behind.sound()?;
        self.queue.add(Job::SetLen { of: self.behind.clone(), bytes })
    }

    fn flush_group(&self) -> Option<u64> {
        self.behind.file.flush_group()
    }
}

impl Disk for WriteBehind {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        if mode != OpenMode::Direct {
            return Ok(file);
        }
        let behind = Arc::new(Behind { file, fault: Mutex::default() });
        Ok(Arc::new(BehindFile { behind, queue: self.queue.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.disk.create_dir_all(folder)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_dir(folder)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(folder)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn links(&self, path: &Path) -> io::Result<Links> {
        self.disk.links(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.resolve(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<DiskLock> {
        self.disk.lock(path, owner)
    }

    fn take_latency(&self) -> Duration {
        self.disk.take_latency()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BLOCK, SimDisk, SimDiskOptions};

    fn file(sim: &SimDisk) -> Arc<dyn DiskFile> {
        let path = Path::new("/file");
        sim.open(path, OpenMode::Create).expect("made");
        sim.sync_dir(Path::new("/")).expect("its name is durable");
        let behind = WriteBehind::new(Arc::new(sim.clone())).expect("a thread");
        behind.open(path, OpenMode::Direct).expect("opened")
    }

    fn block(byte: u8) -> AlignedBuffer {
        let mut block = AlignedBuffer::new(BLOCK);
        block.push(&[byte; BLOCK]);
        block
    }

    #[test]
    fn what_was_written_is_read_and_durable_once_it_is_synced() {
        let sim = SimDisk::new(1, SimDiskOptions::default());
        let file = file(&sim);
        // More than wait at a time, and some of them over one another.
        for n in 0..20_u8 {
            let place = u64::from(n % 7) * BLOCK as u64;
            file.write_at(block(n).filled(), place).expect("taken");
        }
        let mut read = AlignedBuffer::new(BLOCK);
        file.read_at(read.blocks_mut(BLOCK), 5 * BLOCK as u64).expect("read");
        assert_eq!(read.filled(), [19; BLOCK]);
        assert_eq!(file.len().expect("a length"), 7 * BLOCK as u64);
        file.set_len(5 * BLOCK as u64).expect("cut");
        file.sync().expect("synced");
        sim.crash();
        let again = sim.open(Path::new("/file"), OpenMode::Read).expect("it is there");
        again.read_at(read.blocks_mut(BLOCK), 4 * BLOCK as u64).expect("read");
        assert_eq!(read.filled(), [18; BLOCK]);
        assert_eq!(again.len().expect("a length"), 5 * BLOCK as u64);
    }

    #[test]
    fn a_write_of_several_pieces_lands_whole_and_where_it_should() {
        let sim = SimDisk::new(1, SimDiskOptions::default());
        let file = file(&sim);
        // Two whole pieces and a part of a third, behind what was there before.
        let bytes = 2 * PIECE + 3 * BLOCK;
        let content: Vec<u8> = (0..bytes).map(|at| (at / 7 % 251) as u8).collect();
        let mut buffer = AlignedBuffer::new(bytes);
        buffer.push(&content);
        file.write_at(block(9).filled(), 0).expect("taken");
        file.write_buffer(buffer, BLOCK as u64).expect("taken");
        file.sync().expect("synced");
        sim.crash();
        let again = sim.open(Path::new("/file"), OpenMode::Read).expect("it is there");
        assert_eq!(again.len().expect("a length"), (BLOCK + bytes) as u64);
        let mut read = AlignedBuffer::new(BLOCK + bytes);
        again.read_at(read.blocks_mut(BLOCK + bytes), 0).expect("read");
        assert_eq!(read.filled()[..BLOCK], [9; BLOCK]);
        assert!(read.filled()[BLOCK..] == content);
    }

    /// Its writes fail from the third on.
    struct Failing(Mutex<u32>);

    impl DiskFile for Failing {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            let mut left = self.0.lock().expect(UNPOISONED);
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn flush_group(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_write_that_failed_is_told_by_the_sync_and_by_every_call_after_it() {
        let sim = SimDisk::new(1, SimDiskOptions::default());
        let disk = WriteBehind::new(Arc::new(sim)).expect("a thread");
        let file: Arc<dyn DiskFile> = Arc::new(Failing(Mutex::new(2)));
        let behind = Arc::new(Behind { file, fault: Mutex::default() });
        let file = BehindFile { behind, queue: disk.queue.clone() };
        for n in 0..2 {
            file.write_at(block(n).filled(), 0).expect("taken");
        }
        file.sync().expect("so far all is well");
        file.write_at(block(3).filled(), 0).expect("taken; it fails behind");
        let full = io::ErrorKind::StorageFull;
        assert_eq!(file.sync().unwrap_err().kind(), full);
        assert_eq!(file.sync().unwrap_err().kind(), full, "it never becomes well again");
        assert_eq!(file.write_at(block(4).filled(), 0).unwrap_err().kind(), full);
        assert_eq!(file.len().unwrap_err().kind(), full);
    }
}
