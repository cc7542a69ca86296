//! What a source and a target say to each other, and how it is checked.
//!
//! A checkpoint is a list of files; a file is a run of ranges of [`RANGE_BYTES`]; a range travels
//! as frames of at most [`FRAME_BYTES`]. Each frame has a crc32 over its bytes and its place, so
//! that damage is found where it happens; each range has a blake3 digest, which the target keeps
//! and compares again with what an earlier life of its process left.

use bytes::Bytes;
use dag_types::{Chain, DagId, DatabaseId, Generation, LogId, NodeId, ReplicaId};
use prost::Message;
use storage::state::Position;
use thiserror::Error;

use crate::delta::{DeltaReply, DeltaRequest};

/// Bytes of a range; the last one of a file may be shorter.
pub const RANGE_BYTES: u64 = if SMALL { 4 << 10 } else { 4 << 20 };
/// Bytes of a frame at most.
pub const FRAME_BYTES: usize = if SMALL { 1 << 10 } else { 256 << 10 };
/// For a simulation, whose states are small: a seed has a middle there too.
pub(crate) const SMALL: bool = cfg!(feature = "mutants");
/// Files of a checkpoint at most.
const FILES_MAX: usize = 1 << 20;
/// Bytes of a file's name at most.
const NAME_MAX: usize = 255;

/// BLAKE3.
pub type Digest = [u8; 32];

/// One checkpoint of one copy; random, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointId(pub u128);

impl std::fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Whose copy a checkpoint was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The DAG.
    pub dag: DagId,
    /// The database.
    pub database: DatabaseId,
    /// The incarnation of its group.
    pub generation: Generation,
    /// The copy.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Its name, without folders.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

impl FileEntry {
    /// How many ranges it has.
    pub fn ranges(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(RANGE_BYTES)).expect("a file under 16 PiB")
    }

    /// Bytes of one of its ranges.
    pub fn range_bytes(&self, range: u32) -> u64 {
        let start = u64::from(range) * RANGE_BYTES;
        assert!(start < self.bytes, "the range lies inside the file");
        (self.bytes - start).min(RANGE_BYTES)
    }
}

/// What a checkpoint holds. Position and members were read from the checkpoint itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which one.
    pub checkpoint: CheckpointId,
    /// Whose.
    pub origin: Origin,
    /// Where the state ends.
    pub position: Position,
    /// The group's members at that position, as `replication` wrote them; empty: none yet.
    pub membership: Bytes,
    /// Its files, ordered by name.
    pub files: Vec<FileEntry>,
    /// The source also answers questions about its rows.
    pub gives_rows: bool,
}

/// What a target asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The manifest of this checkpoint where it is still there, else of another one.
    Open {
        /// The one that the target has begun with.
        known: Option<CheckpointId>,
    },
    /// The digests of a file's ranges, of which the target holds an older version.
    Digests {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// The file's number in the manifest.
        file: u32,
    },
    /// The bytes of one range.
    Read {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// The file's number in the manifest.
        file: u32,
        /// The range's number in the file.
        range: u32,
    },
    /// About the checkpoint's rows.
    Delta {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// What.
        ask: DeltaRequest,
    },
    /// The target needs the checkpoint no more.
    Close,
}

/// What a source answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Open`].
    Opened(Manifest),
    /// To [`Request::Digests`].
    Digests {
        /// The file.
        file: u32,
        /// One for each range.
        ranges: Vec<Digest>,
    },
    /// To [`Request::Read`], one after the other.
    Frame(Frame),
    /// To [`Request::Delta`].
    Delta(DeltaReply),
    /// To any of them.
    Refused(Refusal),
}

/// A piece of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The file.
    pub file: u32,
    /// Where the bytes begin in it.
    pub offset: u64,
    /// They themselves.
    pub bytes: Bytes,
    /// Over file, offset and bytes.
    pub crc: u32,
    /// With the last frame of a range: the range's digest.
    pub end: Option<Digest>,
}

/// Why a source does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The checkpoint is gone; the target opens another one.
    #[error("the checkpoint is gone")]
    Gone,
    /// There is no such file or range in it.
    #[error("the checkpoint has no such file or range")]
    Unknown,
    /// The copy cannot be a source: it is failed, suspended, or itself being seeded.
    #[error("this copy cannot be a source now")]
    Unfit,
    /// Too many seeds are served already.
    #[error("this node serves as many seeds as it may")]
    Busy,
}

/// A reply that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireFault {
    /// Bytes were damaged on the way or at the source.
    #[error("{file} at {offset} arrived damaged")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// The reply is not one to what was asked.
    #[error("the source answered something else: {what}")]
    Unasked {
        /// What.
        what: &'static str,
    },
    /// A manifest makes no sense.
    #[error("the manifest is not usable: {why}")]
    Manifest {
        /// Why.
        why: &'static str,
    },
}

impl Frame {
    /// A frame with its checksum.
    pub fn new(file: u32, offset: u64, bytes: Bytes, end: Option<Digest>) -> Self {
        let crc = checksum(file, offset, &bytes);
        Self { file, offset, bytes, crc, end }
    }

    /// Whether it arrived as it was sent.
    pub fn holds(&self) -> bool {
        self.crc == checksum(self.file, self.offset, &self.bytes)
    }
}

fn checksum(file: u32, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The digest of a range.
pub fn digest(bytes: &[u8]) -> Digest {
    *blake3::hash(bytes).as_bytes()
}

/// Whether a name can stand for a file in a folder, and for nothing outside of it.
fn plain(name: &str) -> bool {
    let strange = |c: char| c == '/' || c == '\\' || c.is_control();
    !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('.') && !name.contains(strange)
}

impl Manifest {
    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Refuses what a target could not put in a folder. Nothing that arrives is trusted: a name
    /// with a slash would write into somebody else's.
    pub fn check(&self) -> Result<(), WireFault> {
        let refuse = |why| Err(WireFault::Manifest { why });
        if self.files.is_empty() || self.files.len() > FILES_MAX {
            return refuse("it names no files, or too many");
        }
        if !self.files.iter().all(|file| plain(&file.name)) {
            return refuse("a file's name is not a plain name");
        }
        if !self.files.is_sorted_by(|a, b| a.name < b.name) {
            return refuse("its files are not in order, or one stands twice");
        }
        let sum = self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
        match sum.is_some_and(|sum| sum <= 1 << 52) {
            true => Ok(()),
            false => refuse("it is larger than any volume"),
        }
    }

    /// As bytes, for the target's record and the source's own.
    pub fn encode(&self) -> Vec<u8> {
        let (id, chain) = self.position;
        let files =
            self.files.iter().map(|file| StoredFile { name: file.name.clone(), bytes: file.bytes });
        StoredManifest {
            checkpoint: self.checkpoint.0.to_be_bytes().to_vec(),
            dag: self.origin.dag.0.to_vec(),
            database: self.origin.database.0,
            generation: self.origin.generation.0,
            replica: self.origin.replica.0,
            node: self.origin.node.0,
            term: id.term,
            index: id.index,
            chain: chain.0.to_vec(),
            membership: self.membership.clone(),
            files: files.collect(),
            gives_rows: self.gives_rows,
        }
        .encode_to_vec()
    }

    /// From bytes; checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireFault> {
        let malformed = || WireFault::Manifest { why: "it cannot be read" };
        let stored = StoredManifest::decode(bytes).map_err(|_| malformed())?;
        let checkpoint = <[u8; 16]>::try_from(&stored.checkpoint[..]).map_err(|_| malformed())?;
        let chain = <[u8; 16]>::try_from(&stored.chain[..]).map_err(|_| malformed())?;
        let files =
            stored.files.into_iter().map(|file| FileEntry { name: file.name, bytes: file.bytes });
        let manifest = Self {
            checkpoint: CheckpointId(u128::from_be_bytes(checkpoint)),
            origin: Origin {
                dag: DagId::from_slice(&stored.dag).ok_or_else(malformed)?,
                database: DatabaseId(stored.database),
                generation: Generation(stored.generation),
                replica: ReplicaId(stored.replica),
                node: NodeId(stored.node),
            },
            position: (LogId { term: stored.term, index: stored.index }, Chain(chain)),
            membership: stored.membership,
            files: files.collect(),
            gives_rows: stored.gives_rows,
        };
        manifest.check()?;
        Ok(manifest)
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredManifest {
    #[prost(bytes = "vec", tag = "1")]
    checkpoint: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    dag: Vec<u8>,
    #[prost(uint64, tag = "3")]
    database: u64,
    #[prost(uint32, tag = "4")]
    generation: u32,
    #[prost(uint64, tag = "5")]
    replica: u64,
    #[prost(uint64, tag = "6")]
    node: u64,
    #[prost(uint64, tag = "7")]
    term: u64,
    #[prost(uint64, tag = "8")]
    index: u64,
    #[prost(bytes = "vec", tag = "9")]
    chain: Vec<u8>,
    #[prost(bytes = "bytes", tag = "10")]
    membership: Bytes,
    #[prost(message, repeated, tag = "11")]
    files: Vec<StoredFile>,
    #[prost(bool, tag = "12")]
    gives_rows: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredFile {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(names: &[&str]) -> Manifest {
        let origin = Origin {
            dag: DagId([1; 16]),
            database: DatabaseId(2),
            generation: Generation(3),
            replica: ReplicaId(4),
            node: NodeId(5),
        };
        let file = |name: &&str| FileEntry { name: (*name).to_owned(), bytes: 9 };
        Manifest {
            checkpoint: CheckpointId(7),
            origin,
            position: (LogId { term: 1, index: 2 }, Chain([3; 16])),
            membership: Bytes::from_static(b"members"),
            files: names.iter().map(file).collect(),
            gives_rows: true,
        }
    }

    #[test]
    fn a_manifest_comes_back_from_its_bytes() {
        let manifest = manifest(&["000004.sst", "CURRENT"]);
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn names_that_lead_out_of_the_folder_or_stand_twice_are_refused() {
        for names in [&["../x"][..], &["a/b"], &[".."], &[""], &["b", "a"], &["a", "a"], &[]] {
            assert!(manifest(names).check().is_err(), "{names:?}");
        }
    }

    #[test]
    fn a_frame_that_was_changed_or_moved_does_not_hold() {
        let frame = Frame::new(1, 4096, Bytes::from_static(b"bytes"), None);
        assert!(frame.holds());
        assert!(!Frame { offset: 0, ..frame.clone() }.holds());
        assert!(!Frame { file: 2, ..frame.clone() }.holds());
        assert!(!Frame { bytes: Bytes::from_static(b"bytez"), ..frame }.holds());
    }

    #[test]
    fn ranges_cover_a_file_without_gap_or_overlap() {
        for bytes in [0, 1, RANGE_BYTES - 1, RANGE_BYTES, RANGE_BYTES + 1, 3 * RANGE_BYTES] {
            let file = FileEntry { name: "f".into(), bytes };
            let sum: u64 = (0..file.ranges()).map(|range| file.range_bytes(range)).sum();
            assert_eq!(sum, bytes);
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use fuzzing::{Target, answer};

    #[test]
    fn a_manifest_is_refused_or_reads_back() {
        let file = |name: &str, bytes| FileEntry { name: name.into(), bytes };
        let manifest = Manifest {
            checkpoint: CheckpointId(7),
            origin: Origin {
                dag: DagId([1; 16]),
                database: DatabaseId(16),
                generation: Generation(1),
                replica: ReplicaId(2),
                node: NodeId(3),
            },
            position: (LogId { term: 4, index: 5 }, Chain([6; 16])),
            membership: Bytes::from_static(b"members"),
            files: vec![file("000010.sst", 5 << 20), file("CURRENT", 16)],
            gives_rows: true,
        };
        let words: [&[u8]; 3] = [b"..", b"/", b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"];
        let samples = vec![manifest.encode()];
        let target = Target { name: "manifest", samples, words: &words, longest: 1_000 };
        fuzzing::run(target, |bytes| match Manifest::decode(bytes) {
            Err(error) => answer(&error),
            Ok(manifest) => {
                assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
                assert!(manifest.total_bytes() <= 1 << 52);
                for file in &manifest.files {
                    let ranges = file.ranges();
                    let sum: u64 = (0..ranges.min(3)).map(|range| file.range_bytes(range)).sum();
                    assert!(sum <= file.bytes && (ranges > 3 || sum == file.bytes));
                }
                manifest.files.len().min(4) as u64
            }
        });
    }
}
