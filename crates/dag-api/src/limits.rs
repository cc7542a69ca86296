//! The API's limits, in one place for servers, clients and tools. Beyond one of them a call is
//! refused with [`Reason::TooLarge`](crate::Reason::TooLarge) or
//! [`Reason::LimitExceeded`](crate::Reason::LimitExceeded), naming the value and the limit.

use std::time::Duration;

/// Bytes of a message.
pub const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a message that travels in one frame: by a unary call, or as the only chunk in a
/// session. Larger ones are sent in chunks.
pub const SINGLE_FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one chunk of several.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Recipients of one delivery to one database.
pub const RECIPIENTS_MAX: usize = 1_000;
/// Messages that one call may change.
pub const MESSAGES_PER_CALL_MAX: u64 = 1_000;
/// Entries of one page; more is taken for this.
pub const PAGE_MAX: u32 = 1_000;
/// Bytes of a request id.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of a delivery id.
pub const DELIVERY_ID_BYTES_MAX: usize = 512;
/// Bytes that one gRPC message may have on the wire: tonic's own default for what it receives.
pub const WIRE_BYTES_MAX: usize = 4 << 20;
/// The longest time that a node works on one attempt.
pub const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// Whether a text may serve as a request id: visible ASCII.
pub fn is_request_id(id: &str) -> bool {
    is_caller_id(id, REQUEST_ID_BYTES_MAX)
}

/// Whether a text may serve as a delivery id: visible ASCII.
pub fn is_delivery_id(id: &str) -> bool {
    is_caller_id(id, DELIVERY_ID_BYTES_MAX)
}

fn is_caller_id(id: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_caller_is_visible_ascii_of_bounded_length() {
        assert!(is_request_id(&"x".repeat(REQUEST_ID_BYTES_MAX)));
        assert!(is_delivery_id(&"x".repeat(DELIVERY_ID_BYTES_MAX)));
        assert!(!is_request_id(&"x".repeat(REQUEST_ID_BYTES_MAX + 1)));
        assert!(!is_delivery_id(&"x".repeat(DELIVERY_ID_BYTES_MAX + 1)));
        for id in ["", "a b", "\u{e4}", "a\n"] {
            assert!(!is_request_id(id) && !is_delivery_id(id), "{id:?}");
        }
    }
}
