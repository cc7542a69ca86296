//! The real file system.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{BLOCK, Disk, DiskFile, DiskLock, Links, OpenMode, PIECE};

/// Whether the fallback to buffered writes was told in this process.
static TOLD: AtomicBool = AtomicBool::new(false);

/// The file system of the machine. Paths are used as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk {
    buffered: bool,
}

impl RealDisk {
    /// Files opened with [`OpenMode::Direct`] bypass the page cache where the file system can.
    pub fn new() -> Self {
        Self::default()
    }

    /// Never bypasses the page cache, as on a file system that cannot.
    pub fn buffered() -> Self {
        Self { buffered: true }
    }

    fn open_direct(self, path: &Path) -> io::Result<RealFile> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if !self.buffered {
            match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
                Ok(fd) => return RealFile::direct(File::from(fd)),
                Err(Errno::INVAL) => tell_fallback(path),
                Err(fault) => return Err(fault.into()),
            }
        }
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(RealFile { file: File::from(fd), aligned: true, device: None })
    }
}

fn tell_fallback(path: &Path) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            path = %path.display(),
            "the file system refuses unbuffered writes (O_DIRECT); the log goes through the page \
             cache and syncs every file: safe, but slower"
        );
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let plain = |flags: OFlags, mode: Mode| -> io::Result<RealFile> {
            let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?;
            Ok(RealFile { file: File::from(fd), aligned: false, device: None })
        };
        let file = match mode {
            OpenMode::Read => {
                let opened = plain(OFlags::RDONLY, Mode::empty())?;
                // Without it a volume reads megabytes ahead in one go, and logs wait behind that.
                let _ = rustix::fs::fadvise(&opened.file, 0, None, Advice::Random);
                opened
            }
            OpenMode::Create => plain(
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
                Mode::RUSR | Mode::WUSR | Mode::RGRP,
            )?,
            OpenMode::Direct => self.open_direct(path)?,
        };
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, folder: &Path) -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn links(&self, path: &Path) -> io::Result<Links> {
        let facts = fs::metadata(path)?;
        Ok(Links { count: facts.nlink(), file: Some((facts.dev(), facts.ino())) })
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(path)?;
        Ok(volume.f_bavail * volume.f_frsize)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<DiskLock> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        write_all(&file, owner.as_bytes(), 0)?;
        Ok(Box::new(file))
    }
}

/// An open file, buffered or not.
struct RealFile {
    file: File,
    /// Whether whole blocks are demanded, also where the fallback would not need them.
    aligned: bool,
    /// The device, where the file bypasses the page cache.
    device: Option<u64>,
}

impl RealFile {
    fn direct(file: File) -> io::Result<Self> {
        let device = rustix::fs::fstat(&file)?.st_dev;
        Ok(Self { file, aligned: true, device: Some(device) })
    }

    fn check_alignment(&self, bytes: &[u8], offset: u64) {
        let whole = bytes.as_ptr().addr().is_multiple_of(BLOCK)
            && bytes.len().is_multiple_of(BLOCK)
            && offset.is_multiple_of(BLOCK as u64);
        assert!(!self.aligned || whole, "unbuffered files take whole, aligned blocks");
    }
}

fn write_all(file: impl AsFd, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                data = &data[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(())
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_alignment(buffer, offset);
        let mut done = 0;
        while done < buffer.len() {
            let end = buffer.len().min(done + PIECE);
            match rustix::io::pread(&self.file, &mut buffer[done..end], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_alignment(data, offset);
        write_all(&self.file, data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn flush_group(&self) -> Option<u64> {
        self.device
    }
}
