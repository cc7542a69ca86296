//! Between the messages on the wire and the values of `dag-types`.
//!
//! Towards the wire nothing can fail. From the wire a field may be missing or have the wrong length;
//! [`BadMessage`] names it.

use dag_types::{
    ActivationId, CopyStatus, DagId, DatabaseId, Generation, Lineage, MailboxId, Millis, StoreId,
};

use crate::admin::v1 as admin;
use crate::mailbox::v1 as mailbox;
use crate::problem::Problem;
use crate::reason::Reason;

/// A field that is missing or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` must be {wanted}")]
pub struct BadMessage {
    /// The field's name in the proto file.
    pub field: &'static str,
    /// What it should have been.
    pub wanted: &'static str,
}

impl From<BadMessage> for Problem {
    fn from(bad: BadMessage) -> Self {
        Self::new(Reason::InvalidRequest, bad.to_string()).check(bad.field)
    }
}

/// A `CommitToken` whose fields were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Whose log.
    pub database: DatabaseId,
    /// The newest lineage that the answering node knows.
    pub lineage: Lineage,
    /// Which incarnation of the database's group.
    pub generation: Generation,
    /// A change's own entry, or what a read has seen.
    pub log_index: u64,
}

impl From<Token> for mailbox::CommitToken {
    fn from(token: Token) -> Self {
        Self {
            database_id: token.database.0,
            lineage: Some(token.lineage.into()),
            generation: token.generation.0,
            log_index: token.log_index,
        }
    }
}

impl TryFrom<&mailbox::CommitToken> for Token {
    type Error = BadMessage;
    fn try_from(token: &mailbox::CommitToken) -> Result<Self, BadMessage> {
        Ok(Self {
            database: DatabaseId(token.database_id),
            lineage: lineage(token.lineage.as_ref())?,
            generation: Generation(token.generation),
            log_index: token.log_index,
        })
    }
}

/// Reads a token that must be there.
pub fn token(token: Option<&mailbox::CommitToken>) -> Result<Token, BadMessage> {
    token.ok_or(BadMessage { field: "token", wanted: "present" })?.try_into()
}

impl From<Lineage> for mailbox::Lineage {
    fn from(lineage: Lineage) -> Self {
        let activation_id = bytes::Bytes::copy_from_slice(&lineage.activation.0);
        Self { epoch: lineage.epoch, activation_id }
    }
}

impl TryFrom<&mailbox::Lineage> for Lineage {
    type Error = BadMessage;
    fn try_from(lineage: &mailbox::Lineage) -> Result<Self, BadMessage> {
        let activation = activation_id(&lineage.activation_id)?;
        Ok(Self { epoch: lineage.epoch, activation })
    }
}

/// Reads a lineage that must be there.
pub fn lineage(lineage: Option<&mailbox::Lineage>) -> Result<Lineage, BadMessage> {
    lineage.ok_or(BadMessage { field: "lineage", wanted: "present" })?.try_into()
}

/// Reads an activation's id.
pub fn activation_id(bytes: &[u8]) -> Result<ActivationId, BadMessage> {
    ActivationId::from_slice(bytes).ok_or(BadMessage { field: "activation_id", wanted: "16 bytes" })
}

/// Reads a DAG's id. Sixteen zeros are none.
pub fn dag_id(bytes: &[u8]) -> Result<DagId, BadMessage> {
    let bad = BadMessage { field: "dag_id", wanted: "16 bytes that are not all zero" };
    DagId::from_slice(bytes).filter(|id| *id != DagId::NIL).ok_or(bad)
}

/// Reads a store's id. Sixteen zeros are none.
pub fn store_id(bytes: &[u8]) -> Result<StoreId, BadMessage> {
    let bad = BadMessage { field: "store_id", wanted: "16 bytes that are not all zero" };
    StoreId::from_slice(bytes).filter(|id| *id != StoreId::NIL).ok_or(bad)
}

/// Reads a mailbox's id.
pub fn mailbox_id(text: &str) -> Result<MailboxId, BadMessage> {
    text.parse().map_err(|_| BadMessage { field: "mailbox_id", wanted: "32 hexadecimal digits" })
}

/// Milliseconds since 1970 as a timestamp.
pub fn timestamp(at: Millis) -> prost_types::Timestamp {
    let seconds = i64::try_from(at.0 / 1_000).expect("a 64-bit count of milliseconds fits");
    prost_types::Timestamp { seconds, nanos: (at.0 % 1_000) as i32 * 1_000_000 }
}

/// A timestamp as milliseconds since 1970; nothing before 1970 and nothing after the year 9999.
pub fn millis(at: &prost_types::Timestamp) -> Result<Millis, BadMessage> {
    const LAST_SECOND: i64 = 253_402_300_799;
    let bad = BadMessage { field: "timestamp", wanted: "between 1970 and 9999" };
    if !(0..=LAST_SECOND).contains(&at.seconds) || !(0..1_000_000_000).contains(&at.nanos) {
        return Err(bad);
    }
    Ok(Millis(at.seconds as u64 * 1_000 + at.nanos as u64 / 1_000_000))
}

impl From<CopyStatus> for admin::CopyStatus {
    fn from(status: CopyStatus) -> Self {
        match status {
            CopyStatus::Mounted => Self::Mounted,
            CopyStatus::Dismounted => Self::Dismounted,
            CopyStatus::Mounting => Self::Mounting,
            CopyStatus::Dismounting => Self::Dismounting,
            CopyStatus::Healthy => Self::Healthy,
            CopyStatus::Initializing => Self::Initializing,
            CopyStatus::Resynchronizing => Self::Resynchronizing,
            CopyStatus::Seeding => Self::Seeding,
            CopyStatus::SeedingSource => Self::SeedingSource,
            CopyStatus::Suspended => Self::Suspended,
            CopyStatus::Failed => Self::Failed,
            CopyStatus::FailedAndSuspended => Self::FailedAndSuspended,
            CopyStatus::DisconnectedAndHealthy => Self::DisconnectedAndHealthy,
            CopyStatus::DisconnectedAndResynchronizing => Self::DisconnectedAndResynchronizing,
            CopyStatus::ServiceDown => Self::ServiceDown,
        }
    }
}

impl TryFrom<admin::CopyStatus> for CopyStatus {
    type Error = BadMessage;
    fn try_from(status: admin::CopyStatus) -> Result<Self, BadMessage> {
        Ok(match status {
            admin::CopyStatus::Unspecified => {
                return Err(BadMessage { field: "status", wanted: "a copy's status" });
            }
            admin::CopyStatus::Mounted => Self::Mounted,
            admin::CopyStatus::Dismounted => Self::Dismounted,
            admin::CopyStatus::Mounting => Self::Mounting,
            admin::CopyStatus::Dismounting => Self::Dismounting,
            admin::CopyStatus::Healthy => Self::Healthy,
            admin::CopyStatus::Initializing => Self::Initializing,
            admin::CopyStatus::Resynchronizing => Self::Resynchronizing,
            admin::CopyStatus::Seeding => Self::Seeding,
            admin::CopyStatus::SeedingSource => Self::SeedingSource,
            admin::CopyStatus::Suspended => Self::Suspended,
            admin::CopyStatus::Failed => Self::Failed,
            admin::CopyStatus::FailedAndSuspended => Self::FailedAndSuspended,
            admin::CopyStatus::DisconnectedAndHealthy => Self::DisconnectedAndHealthy,
            admin::CopyStatus::DisconnectedAndResynchronizing => {
                Self::DisconnectedAndResynchronizing
            }
            admin::CopyStatus::ServiceDown => Self::ServiceDown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token {
        database: DatabaseId(16),
        lineage: Lineage { epoch: 2, activation: ActivationId([9; 16]) },
        generation: Generation(1),
        log_index: 77,
    };

    #[test]
    fn a_token_reads_back() {
        assert_eq!(Token::try_from(&mailbox::CommitToken::from(TOKEN)), Ok(TOKEN));
    }

    #[test]
    fn a_token_without_its_lineage_is_refused_by_name() {
        let cut = mailbox::CommitToken { lineage: None, ..TOKEN.into() };
        assert_eq!(Token::try_from(&cut).unwrap_err().field, "lineage");
        assert_eq!(token(None).unwrap_err().field, "token");
        let short = mailbox::Lineage { epoch: 2, activation_id: vec![9; 15].into() };
        assert_eq!(lineage(Some(&short)).unwrap_err().field, "activation_id");
    }

    #[test]
    fn ids_of_zeros_or_of_another_length_are_refused() {
        assert_eq!(dag_id(&[1; 16]), Ok(DagId([1; 16])));
        assert_eq!(store_id(&[1; 16]), Ok(StoreId([1; 16])));
        for bytes in [&[0; 16][..], &[1; 15], &[1; 17], &[]] {
            assert!(dag_id(bytes).is_err() && store_id(bytes).is_err(), "{bytes:?}");
        }
        assert!(mailbox_id("00").is_err());
    }

    #[test]
    fn a_time_reads_back_to_the_millisecond_and_nonsense_is_refused() {
        for at in [0, 999, 1_000, 1_764_000_000_123] {
            assert_eq!(millis(&timestamp(Millis(at))), Ok(Millis(at)));
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (253_402_300_800, 0)] {
            assert!(millis(&prost_types::Timestamp { seconds, nanos }).is_err());
        }
    }

    #[test]
    fn every_copy_status_has_its_own_value_on_the_wire() {
        let mut statuses = 0;
        for number in 1..=i32::MAX {
            let Ok(wire) = admin::CopyStatus::try_from(number) else { break };
            let status = CopyStatus::try_from(wire).unwrap();
            assert_eq!(admin::CopyStatus::from(status), wire);
            statuses += 1;
        }
        assert_eq!(statuses, 15);
        assert!(CopyStatus::try_from(admin::CopyStatus::Unspecified).is_err());
    }
}
