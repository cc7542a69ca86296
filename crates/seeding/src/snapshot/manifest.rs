//! What a snapshot says of itself.

use bytes::Bytes;
use dag_types::{
    ActivationId, Chain, DagId, DatabaseId, Generation, Lineage, LogId, Millis, NodeId, ReplicaId,
};
use prost::Message;
use storage::state::Position;

use super::SnapshotOrder;

const VERSION: u32 = 1;

/// A snapshot, of any database on any node. Made at random, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u128);

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for SnapshotId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = u128::from_str_radix(text, 16).ok().map(Self);
        id.filter(|id| id.to_string() == text).ok_or("an id has 32 hexadecimal digits")
    }
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name in the state's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub blake3: [u8; 32],
}

/// What a snapshot holds, and how it came to be. Written once, last of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotManifest {
    /// Which one.
    pub id: SnapshotId,
    /// Of which DAG.
    pub dag: DagId,
    /// Of which database.
    pub database: DatabaseId,
    /// What people called it.
    pub database_name: String,
    /// Which incarnation of its group.
    pub generation: Generation,
    /// The newest lineage that the node knew.
    pub lineage: Lineage,
    /// On which node it was taken.
    pub node: NodeId,
    /// Of which copy.
    pub replica: ReplicaId,
    /// The last entry whose effects are in it; read from the files themselves.
    pub position: Position,
    /// Wall-clock time.
    pub taken: Millis,
    /// It goes only when a person says so.
    pub protected: bool,
    /// Taken by schedule.
    pub scheduled: bool,
    /// By whom.
    pub made_by: String,
    /// Why.
    pub reason: String,
    /// Its files, ordered by name.
    pub files: Vec<SnapshotFile>,
}

#[derive(Clone, PartialEq, Message)]
struct FileRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    #[prost(bytes = "bytes", tag = "3")]
    blake3: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    dag: Bytes,
    #[prost(uint64, tag = "4")]
    database: u64,
    #[prost(string, tag = "5")]
    database_name: String,
    #[prost(uint32, tag = "6")]
    generation: u32,
    #[prost(uint64, tag = "7")]
    epoch: u64,
    #[prost(bytes = "bytes", tag = "8")]
    activation: Bytes,
    #[prost(uint64, tag = "9")]
    node: u64,
    #[prost(uint64, tag = "10")]
    replica: u64,
    #[prost(uint64, tag = "11")]
    term: u64,
    #[prost(uint64, tag = "12")]
    index: u64,
    #[prost(bytes = "bytes", tag = "13")]
    chain: Bytes,
    #[prost(uint64, tag = "14")]
    taken_ms: u64,
    #[prost(bool, tag = "15")]
    protected: bool,
    #[prost(bool, tag = "16")]
    scheduled: bool,
    #[prost(string, tag = "17")]
    made_by: String,
    #[prost(string, tag = "18")]
    reason: String,
    #[prost(message, repeated, tag = "19")]
    files: Vec<FileRow>,
}

impl SnapshotManifest {
    pub(super) fn of(order: &SnapshotOrder, at: Position, files: Vec<SnapshotFile>) -> Self {
        let SnapshotOrder { id, copy, database_name, lineage, now, .. } = order;
        Self {
            id: *id,
            dag: copy.dag,
            database: copy.database,
            database_name: database_name.clone(),
            generation: copy.generation,
            lineage: *lineage,
            node: copy.node,
            replica: copy.replica,
            position: at,
            taken: *now,
            protected: order.protected,
            scheduled: order.scheduled,
            made_by: order.made_by.clone(),
            reason: order.reason.clone(),
            files,
        }
    }

    /// Bytes of all its files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (at, chain) = self.position;
        let file = |file: &SnapshotFile| FileRow {
            name: file.name.clone(),
            bytes: file.bytes,
            blake3: Bytes::copy_from_slice(&file.blake3),
        };
        let row = Row {
            version: VERSION,
            id: Bytes::copy_from_slice(&self.id.0.to_be_bytes()),
            dag: Bytes::copy_from_slice(&self.dag.0),
            database: self.database.0,
            database_name: self.database_name.clone(),
            generation: self.generation.0,
            epoch: self.lineage.epoch,
            activation: Bytes::copy_from_slice(&self.lineage.activation.0),
            node: self.node.0,
            replica: self.replica.0,
            term: at.term,
            index: at.index,
            chain: Bytes::copy_from_slice(&chain.0),
            taken_ms: self.taken.0,
            protected: self.protected,
            scheduled: self.scheduled,
            made_by: self.made_by.clone(),
            reason: self.reason.clone(),
            files: self.files.iter().map(file).collect(),
        };
        row.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let row = Row::decode(bytes).ok().filter(|row| row.version == VERSION)?;
        let file = |file: FileRow| {
            let blake3 = file.blake3[..].try_into().ok()?;
            // A name that leads out of the folder was never written.
            let plain = !file.name.is_empty() && !file.name.contains(['/', '\0']);
            plain.then_some(SnapshotFile { name: file.name, bytes: file.bytes, blake3 })
        };
        let at = LogId { term: row.term, index: row.index };
        Some(Self {
            id: SnapshotId(u128::from_be_bytes(row.id[..].try_into().ok()?)),
            dag: DagId::from_slice(&row.dag)?,
            database: DatabaseId(row.database),
            database_name: row.database_name,
            generation: Generation(row.generation),
            lineage: Lineage {
                epoch: row.epoch,
                activation: ActivationId::from_slice(&row.activation)?,
            },
            node: NodeId(row.node),
            replica: ReplicaId(row.replica),
            position: (at, Chain(row.chain[..].try_into().ok()?)),
            taken: Millis(row.taken_ms),
            protected: row.protected,
            scheduled: row.scheduled,
            made_by: row.made_by,
            reason: row.reason,
            files: row.files.into_iter().map(file).collect::<Option<_>>()?,
        })
    }
}

/// Bytes with a checksum behind them.
pub(super) fn guarded(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat()
}

/// The bytes before a checksum that fits.
pub(super) fn unguarded(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = SnapshotId(0xab);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ab", &format!("{id}.new"), &id.to_string().to_uppercase()] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }
}
