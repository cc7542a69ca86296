//! The applied position: which entry of the log the state holds the effects of.
//!
//! It is the first row of the first table, and whoever applies entries writes it in the same batch
//! as their effects. The chain beside it is the hash of all entries up to there: a log whose chain
//! differs at that index is not the log that this state came from.

use bytes::Bytes;
use dag_types::{Chain, LogId, Write};

use super::{StateError, StateRead};

/// Where the row lies.
pub const APPLIED_KEY: &[u8] = &[0x00];

/// An applied entry, and the chain through it.
pub type Position = (LogId, Chain);

/// Term and index as 8 bytes each with the highest byte first, then the chain.
const LEN: usize = 8 + 8 + 16;

/// The applied position of a state; `None` where nothing was applied yet.
pub fn applied(state: &dyn StateRead) -> Result<Option<Position>, StateError> {
    state.get(APPLIED_KEY)?.map(|row| decode(&row)).transpose()
}

/// The write that belongs into the batch of an applied entry's effects.
pub fn applied_write(at: LogId, chain: Chain) -> Write {
    let mut value = Vec::with_capacity(LEN);
    value.extend_from_slice(&at.term.to_be_bytes());
    value.extend_from_slice(&at.index.to_be_bytes());
    value.extend_from_slice(&chain.0);
    Write::Put { key: Bytes::from_static(APPLIED_KEY), value: Bytes::from(value) }
}

fn decode(row: &[u8]) -> Result<Position, StateError> {
    let row: &[u8; LEN] = row.try_into().map_err(|_| {
        StateError::corrupt(APPLIED_KEY, format!("{} bytes instead of {LEN}", row.len()))
    })?;
    let number = |at: usize| u64::from_be_bytes(row[at..at + 8].try_into().expect("eight bytes"));
    let chain = Chain(row[16..].try_into().expect("sixteen bytes"));
    Ok((LogId { term: number(0), index: number(8) }, chain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_gives_back_what_was_written_in_a_fixed_layout() {
        let at = LogId { term: 0x0102, index: 3 };
        let Write::Put { key, value } = applied_write(at, Chain([9; 16])) else {
            panic!("a position is put");
        };
        assert_eq!(key, APPLIED_KEY);
        assert_eq!(value[..16], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(decode(&value), Ok((at, Chain([9; 16]))));
    }

    #[test]
    fn a_row_of_another_length_is_corrupt() {
        assert!(matches!(decode(&[0; 31]), Err(StateError::Corrupt { .. })));
    }
}
