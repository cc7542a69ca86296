//! Requests that were carried out, so that a repetition gets the first answer again.
//!
//! A request id is remembered for a day with the answer and a hash of what was asked. Time comes
//! with the commands. Each new request forgets a few that are too old, so the table stays bounded
//! without a task that sweeps it.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use dag_types::StateView;
use prost::Message;

use crate::change::{Change, Fault, read};

/// How long a request id is remembered.
pub(crate) const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;
/// Old requests that one new request forgets: more than one, so that the table shrinks.
const FORGOTTEN_AT_ONCE: usize = 4;
/// Bytes of a request id.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;

const BY_ID: u8 = 0xc0;
const BY_TIME: u8 = 0xc1;

#[derive(Clone, PartialEq, prost::Message)]
struct Remembered {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
    /// The first 16 bytes of BLAKE3 of what was asked.
    #[prost(bytes = "bytes", tag = "2")]
    content: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    response: Bytes,
}

/// What is known of a request id.
pub(crate) enum Seen {
    /// Nothing: carry it out.
    New,
    /// It was carried out, and this was the answer.
    Replay(Bytes),
    /// It was carried out with another content.
    Reused,
}

/// Whether a text may be a request id: 1 to 128 visible ASCII characters.
pub(crate) fn is_request_id(id: &str) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

pub(crate) fn seen<V: StateView>(
    view: &V,
    request_id: &str,
    content: &[u8],
) -> Result<Seen, Fault<V::Error>> {
    let known: Option<Remembered> = read(view, &by_id(request_id), "a remembered request")?;
    Ok(match known {
        None => Seen::New,
        Some(known) if known.content == hash(content) => Seen::Replay(known.response),
        Some(_) => Seen::Reused,
    })
}

/// Remembers the answer to a request, and forgets a few old ones.
pub(crate) fn remember<V: StateView>(
    change: &mut Change<'_, V>,
    at_ms: u64,
    request_id: &str,
    content: &[u8],
    response: &impl Message,
) -> Result<(), Fault<V::Error>> {
    forget_old(change, at_ms)?;
    let response = response.encode_to_vec().into();
    change.put(by_id(request_id), &Remembered { at_ms, content: hash(content), response });
    change.put(by_time(at_ms, request_id), &());
    Ok(())
}

fn forget_old<V: StateView>(
    change: &mut Change<'_, V>,
    now_ms: u64,
) -> Result<(), Fault<V::Error>> {
    let horizon = by_time(now_ms.saturating_sub(REMEMBERED_MS), "");
    let old =
        change.before().scan(&[BY_TIME], &horizon, FORGOTTEN_AT_ONCE).map_err(Fault::Store)?;
    for (key, _) in old {
        // Table byte and time stand before the id.
        change.delete([&[BY_ID], &key[9..]].concat());
        change.delete(key);
    }
    Ok(())
}

fn by_id(request_id: &str) -> Vec<u8> {
    [&[BY_ID], request_id.as_bytes()].concat()
}

fn by_time(at_ms: u64, request_id: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(9 + request_id.len());
    key.extend_from_slice(&[BY_TIME]);
    key.extend_from_slice(&at_ms.to_be_bytes());
    key.extend_from_slice(request_id.as_bytes());
    key.freeze()
}

fn hash(content: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&blake3::hash(content).as_bytes()[..16])
}
