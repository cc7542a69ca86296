//! Identities. Each is a type of its own, so that a node cannot be handed over as a replica.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// A text that is not the identity it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not {what}: 32 hexadecimal digits are needed")]
pub struct ParseIdError {
    what: &'static str,
}

/// Sixteen bytes made once, at random, by the shell that creates the thing; shown in hexadecimal.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// No identity: what an empty store carries. Never a valid identity.
            pub const NIL: Self = Self([0; 16]);

            /// Reads the identity from exactly sixteen bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self).ok_or(ParseIdError { what: $what })
            }
        }
    };
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(id)
}

random_id!(
    /// A database availability group, made by `dagctl dag create`.
    DagId,
    "a DAG's id"
);
random_id!(
    /// A node's store (the root directory that it was formatted with). A node that comes back with
    /// another store id has lost its disk, or runs from a clone.
    StoreId,
    "a store's id"
);
random_id!(
    /// The random half of a link of the lineage chain.
    ActivationId,
    "an activation's id"
);
random_id!(
    /// A user's mailbox. Never reused, and the same wherever the mailbox moves.
    MailboxId,
    "a mailbox's id"
);

/// A number given out once and never again.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number_id!(
    /// A member of the DAG, as numbered in the node's own settings. 1 and above.
    NodeId,
    u64
);
number_id!(
    /// One replicated log and its copies: a mailbox database, the directory, or the control group.
    DatabaseId,
    u64
);
number_id!(
    /// A copy of one database: its Raft id. Given out by the control group and never used twice:
    /// a seed, a reseed, a wiped disk, a moved path all make a new one.
    ReplicaId,
    u64
);
number_id!(
    /// Which incarnation of a database's Raft group; grows when the group is re-formed after a
    /// site was lost. Raft's term is `generation << 32 | n`, so a vote of an older one never wins.
    Generation,
    u32
);

impl DatabaseId {
    /// The control group (Active Manager's log).
    pub const CONTROL: Self = Self(0);
    /// The directory: address to mailbox to database.
    pub const DIRECTORY: Self = Self(1);
    /// The first id that a mailbox database may have.
    pub const FIRST_MAILBOX_DATABASE: Self = Self(16);
}

impl Generation {
    /// The incarnation that a group is created with.
    pub const FIRST: Self = Self(1);

    /// The smallest Raft term of this generation.
    pub fn base_term(self) -> u64 {
        u64::from(self.0) << 32
    }

    /// The generation that a Raft term belongs to.
    pub fn of_term(term: u64) -> Self {
        Self((term >> 32) as u32)
    }
}

/// One start of a node: a counter fsynced at each start, and a random id made at the same time.
///
/// A smaller counter, or an equal one with another id, comes from a disk that was turned back or
/// cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Boot {
    /// Starts of this store so far; the first start is 1.
    pub counter: u64,
    /// Random, to tell a clone's start from the original's.
    pub id: u64,
}

/// The last link of the chain of all site activations that a node knows.
///
/// Equal values are the same lineage. Which of two different ones is newer is decided by their
/// chains, never by comparing these numbers, so there is no order here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lineage {
    /// Grows by one with each link.
    pub epoch: u64,
    /// Tells two links of the same epoch apart: a fork.
    pub activation: ActivationId,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.activation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_id_reads_back_what_it_shows() {
        let id = DagId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<DagId>(), Ok(id));
    }

    #[test]
    fn a_text_that_is_not_32_hexadecimal_digits_is_no_id() {
        for text in
            ["", "00", "zz23456789abcdef0123456789abcdef", "é123456789abcdef0123456789abcde"]
        {
            assert!(text.parse::<StoreId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_term_names_its_generation() {
        assert_eq!(Generation::of_term(Generation(7).base_term() + 3), Generation(7));
    }
}
