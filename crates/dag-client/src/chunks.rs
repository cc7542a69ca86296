//! A message cut into what one frame may carry.

use bytes::Bytes;
use dag_api::limits::{CHUNK_BYTES_MAX, SINGLE_FRAME_BYTES_MAX};
use dag_api::mailbox::v1::BodyChunk;

/// The chunks of a message: one up to the single-frame limit, an empty one for an empty message,
/// else several of equal size.
pub(crate) fn chunks(content: &Bytes) -> impl Iterator<Item = BodyChunk> + Send + use<> {
    let content = content.clone();
    let step = if fits_one_frame(&content) { content.len().max(1) } else { CHUNK_BYTES_MAX };
    (0..content.len().max(1)).step_by(step).map(move |offset| {
        let data = content.slice(offset..content.len().min(offset + step));
        let crc32 = crc32fast::hash(&data);
        BodyChunk { offset: offset as u64, data, crc32 }
    })
}

pub(crate) fn fits_one_frame(content: &[u8]) -> bool {
    content.len() <= SINGLE_FRAME_BYTES_MAX
}

pub(crate) fn digest(content: &[u8]) -> Bytes {
    Bytes::copy_from_slice(blake3::hash(content).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_one_another_and_make_up_the_message() {
        for size in [0, 1, SINGLE_FRAME_BYTES_MAX, SINGLE_FRAME_BYTES_MAX + 1, 5 * CHUNK_BYTES_MAX]
        {
            let content: Bytes = (0..size).map(|at| at as u8).collect::<Vec<_>>().into();
            let mut again = Vec::new();
            for chunk in chunks(&content) {
                assert_eq!(chunk.offset, again.len() as u64);
                assert_eq!(chunk.crc32, crc32fast::hash(&chunk.data));
                again.extend_from_slice(&chunk.data);
            }
            assert_eq!(again, content);
            let count = if fits_one_frame(&content) { 1 } else { size.div_ceil(CHUNK_BYTES_MAX) };
            assert_eq!(chunks(&content).count(), count, "{size}");
        }
    }
}
