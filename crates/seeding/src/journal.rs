//! A staged replica's durable record: what was ordered, whence it comes, which ranges are durable.
//!
//! Framed records are appended and synced, each **after** what it claims. A crash can tear the last
//! of them; reading ends at the first that does not hold, so damage costs some ranges, which are
//! fetched again, and never lets one count that is not there. At each opening the record is written
//! anew from what held, under a passing name, and takes its place by a rename.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_format::record::{self, Place};
use prost::Message;
use storage::disk::{Disk, DiskFile, OpenMode, read_whole};

const KIND: u8 = 0x51;
const VERSION: u8 = 1;

/// One claim.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(oneof = "Claim", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub(crate) claim: Option<Claim>,
}

/// What an entry says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Claim {
    /// Whose replica is built here: the owner's text, compared whole.
    #[prost(string, tag = "1")]
    Order(String),
    /// The bytes come from this checkpoint; no range counts any more.
    #[prost(bytes = "vec", tag = "2")]
    Manifest(Vec<u8>),
    /// A file of the checkpoint before, which may agree with the new one's.
    #[prost(message, tag = "3")]
    Held(Held),
    /// Ranges of a file are durable.
    #[prost(message, tag = "4")]
    Ranges(Ranges),
    /// A range is not what it was.
    #[prost(message, tag = "5")]
    Lost(Range),
    /// What people were shown: phase, bytes, total.
    #[prost(message, tag = "6")]
    Shown(Shown),
    /// All of it is durable and was compared.
    #[prost(bool, tag = "7")]
    Verified(bool),
    /// The state is not the checkpoint's files: it is filled with rows, and this is what it cost.
    #[prost(message, tag = "8")]
    Rows(Spent),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Spent {
    #[prost(uint64, tag = "1")]
    pub(crate) received: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) spared: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Held {
    #[prost(uint32, tag = "1")]
    pub(crate) file: u32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) ranges: Vec<Range>,
}

/// An empty list says that a file without ranges, or one that was linked, is there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ranges {
    #[prost(uint32, tag = "1")]
    pub(crate) file: u32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) ranges: Vec<Range>,
    /// The file is whole, and has its length.
    #[prost(bool, tag = "3")]
    pub(crate) whole: bool,
    /// It is another name of the source's own file.
    #[prost(bool, tag = "4")]
    pub(crate) linked: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Range {
    #[prost(uint32, tag = "1")]
    pub(crate) file: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) range: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) digest: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Shown {
    #[prost(uint32, tag = "1")]
    pub(crate) phase: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) bytes: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) total: u64,
}

/// An open record.
pub(crate) struct Journal {
    file: Arc<dyn DiskFile>,
    end: u64,
}

impl Journal {
    /// What held of the record at `path`; nothing where there is none.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<Claim>> {
        match read_whole(disk, path) {
            Ok(bytes) => Ok(claims(&bytes)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(fault) => Err(fault),
        }
    }

    /// Replaces the record by one with these claims, durably, and opens it.
    pub(crate) fn begin(disk: &dyn Disk, path: &Path, claims: Vec<Claim>) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let beside: PathBuf = path.with_extension("new");
        if disk.exists(&beside)? {
            disk.remove_file(&beside)?;
        }
        let mut journal = Self { file: disk.open(&beside, OpenMode::Create)?, end: 0 };
        journal.append(claims)?;
        disk.rename(&beside, path)?;
        disk.sync_dir(folder)?;
        Ok(journal)
    }

    /// Durable on return. After an error the record is not used any more.
    pub(crate) fn append(&mut self, claims: Vec<Claim>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for claim in claims {
            let payload = Entry { claim: Some(claim) }.encode_to_vec();
            let place = place(self.end + bytes.len() as u64);
            bytes.extend_from_slice(&record::header(KIND, VERSION, place, &[&payload]));
            bytes.extend_from_slice(&payload);
        }
        self.file.write_at(&bytes, self.end)?;
        self.file.sync()?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

fn place(position: u64) -> Place {
    Place { segment: 0, position, session: 0 }
}

/// Claims from the front, as far as they hold.
fn claims(bytes: &[u8]) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut at = 0;
    while let Ok(found) = record::read(&bytes[at..], place(at as u64)) {
        let entry = Entry::decode(found.payload).ok().and_then(|entry| entry.claim);
        let (KIND, VERSION, Some(claim)) = (found.kind, found.version, entry) else { break };
        claims.push(claim);
        at += found.bytes();
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::disk::{SimDisk, SimDiskOptions};

    fn ranges(file: u32) -> Claim {
        let range = Range { file, range: 1, digest: vec![7; 32] };
        Claim::Ranges(Ranges { file, ranges: vec![range], whole: false, linked: false })
    }

    #[test]
    fn a_torn_or_rotten_record_ends_where_it_does_not_hold() {
        let disk = SimDisk::new(1, SimDiskOptions::default());
        let path = Path::new("/record");
        let mut journal = Journal::begin(&disk, path, vec![Claim::Order("me".into())]).unwrap();
        for file in 0..9 {
            journal.append(vec![ranges(file)]).unwrap();
        }
        let whole = read_whole(&disk, path).unwrap();
        let all = claims(&whole);
        assert_eq!(all.len(), 10);
        for cut in 0..whole.len() {
            let held = claims(&whole[..cut]);
            assert_eq!(held[..], all[..held.len()], "cut at {cut}");
            assert!(held.len() < 10);
            let mut rotten = whole.clone();
            rotten[cut] ^= 4;
            let held = claims(&rotten);
            assert!(held.len() < 10 && held[..] == all[..held.len()], "rot at {cut}");
        }
    }

    #[test]
    fn what_was_appended_survives_every_power_loss() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed, SimDiskOptions::default());
            let path = Path::new("/record");
            let mut journal = Journal::begin(&disk, path, vec![Claim::Order("me".into())]).unwrap();
            journal.append(vec![ranges(3)]).unwrap();
            disk.crash();
            assert_eq!(Journal::read(&disk, path).unwrap().len(), 2);
        }
    }
}
