//! Between the values of `seeding` and the messages of `holdfast.peer.v1`.

use bytes::Bytes;
use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, ReplicaId};
use seeding::wire::{CheckpointId, Digest, Frame, Manifest, Refusal, Reply, Request};

type Ask = pb::seed_request::Request;
type Answer = pb::seed_reply::Reply;

/// A request as a frame.
pub fn request(
    database: DatabaseId,
    replica: ReplicaId,
    limit: u64,
    request: &Request,
) -> pb::Frame {
    let bytes = |id: &CheckpointId| Bytes::copy_from_slice(&id.0.to_be_bytes());
    let ask = match request {
        Request::Open { known } => {
            let known = known.as_ref().map(bytes).unwrap_or_default();
            Ask::Open(pb::SeedOpen { known })
        }
        Request::Digests { checkpoint, file } => {
            Ask::Digests(pb::SeedDigests { checkpoint: bytes(checkpoint), file: *file })
        }
        Request::Read { checkpoint, file, range } => {
            let checkpoint = bytes(checkpoint);
            Ask::Read(pb::SeedRead { checkpoint, file: *file, range: *range })
        }
        Request::Close => Ask::Close(pb::SeedClose {}),
    };
    let (database, replica) = (database.0, replica.0);
    let request = pb::SeedRequest { database, replica, limit, request: Some(ask) };
    pb::Frame { frame: Some(pb::frame::Frame::SeedRequest(request)) }
}

/// What was asked; nothing where it is of a newer version or malformed.
pub fn read_request(request: &pb::SeedRequest) -> Option<Request> {
    let id = |bytes: &Bytes| Some(CheckpointId(u128::from_be_bytes(bytes[..].try_into().ok()?)));
    Some(match request.request.as_ref()? {
        Ask::Open(open) if open.known.is_empty() => Request::Open { known: None },
        Ask::Open(open) => Request::Open { known: Some(id(&open.known)?) },
        Ask::Digests(ask) => Request::Digests { checkpoint: id(&ask.checkpoint)?, file: ask.file },
        Ask::Read(ask) => {
            Request::Read { checkpoint: id(&ask.checkpoint)?, file: ask.file, range: ask.range }
        }
        Ask::Close(_) => Request::Close,
        Ask::Delta(_) => return None,
    })
}

/// A reply as a frame.
pub fn reply(reply: Reply) -> pb::Frame {
    let answer = match reply {
        Reply::Opened(manifest) => Answer::Manifest(manifest.encode().into()),
        Reply::Digests { file, ranges } => {
            let ranges = ranges.iter().map(|digest| Bytes::copy_from_slice(digest)).collect();
            Answer::Digests(pb::SeedRangeDigests { file, ranges })
        }
        Reply::Frame(Frame { file, offset, bytes, crc, end }) => {
            let end = end.map(|end| Bytes::copy_from_slice(&end)).unwrap_or_default();
            Answer::Frame(pb::SeedFrame { file, offset, bytes, crc, end })
        }
        Reply::Refused(refusal) => Answer::Refusal(match refusal {
            Refusal::Gone => pb::SeedRefusal::Gone.into(),
            Refusal::Unknown => pb::SeedRefusal::Unknown.into(),
            Refusal::Unfit => pb::SeedRefusal::Unfit.into(),
            Refusal::Busy => pb::SeedRefusal::Busy.into(),
        }),
    };
    pb::Frame { frame: Some(pb::frame::Frame::SeedReply(pb::SeedReply { reply: Some(answer) })) }
}

/// What was answered; nothing where it cannot be understood.
pub fn read_reply(reply: pb::SeedReply) -> Option<Reply> {
    let digest = |bytes: &Bytes| Digest::try_from(&bytes[..]).ok();
    Some(match reply.reply? {
        Answer::Manifest(bytes) => Reply::Opened(Manifest::decode(&bytes).ok()?),
        Answer::Digests(answer) => {
            let ranges: Option<Vec<Digest>> = answer.ranges.iter().map(digest).collect();
            Reply::Digests { file: answer.file, ranges: ranges? }
        }
        Answer::Frame(pb::SeedFrame { file, offset, bytes, crc, end }) => {
            let end = if end.is_empty() { None } else { Some(digest(&end)?) };
            Reply::Frame(Frame { file, offset, bytes, crc, end })
        }
        Answer::Refusal(refusal) => Reply::Refused(match pb::SeedRefusal::try_from(refusal) {
            Ok(pb::SeedRefusal::Gone) => Refusal::Gone,
            Ok(pb::SeedRefusal::Unknown) => Refusal::Unknown,
            Ok(pb::SeedRefusal::Busy) => Refusal::Busy,
            // Of what a newer version says only the refusal counts.
            Ok(pb::SeedRefusal::Unfit | pb::SeedRefusal::Unspecified) | Err(_) => Refusal::Unfit,
        }),
        Answer::Delta(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_come_back_as_they_were() {
        let checkpoint = CheckpointId(7 << 100);
        for asked in [
            Request::Open { known: None },
            Request::Open { known: Some(checkpoint) },
            Request::Digests { checkpoint, file: 3 },
            Request::Read { checkpoint, file: 3, range: 9 },
            Request::Close,
        ] {
            let frame = request(DatabaseId(16), ReplicaId(9), 100, &asked).frame;
            let Some(pb::frame::Frame::SeedRequest(sent)) = frame else { panic!("{asked:?}") };
            assert_eq!((sent.database, sent.replica, sent.limit), (16, 9, 100));
            assert_eq!(read_request(&sent), Some(asked));
        }
        let frame = |end| Reply::Frame(Frame::new(1, 4, Bytes::from_static(b"mail"), end));
        for answered in [
            frame(None),
            frame(Some([5; 32])),
            Reply::Digests { file: 2, ranges: vec![[1; 32], [2; 32]] },
            Reply::Refused(Refusal::Gone),
            Reply::Refused(Refusal::Busy),
        ] {
            let sent = reply(answered.clone()).frame;
            let Some(pb::frame::Frame::SeedReply(sent)) = sent else { panic!("{answered:?}") };
            assert_eq!(read_reply(sent), Some(answered));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_no_request_and_no_reply() {
        let known = Bytes::from_static(b"short");
        let open = Some(Ask::Open(pb::SeedOpen { known }));
        assert_eq!(read_request(&pb::SeedRequest { request: open, ..Default::default() }), None);
        assert_eq!(read_request(&pb::SeedRequest::default()), None);
        let manifest = Some(Answer::Manifest(Bytes::from_static(b"\xff")));
        assert_eq!(read_reply(pb::SeedReply { reply: manifest }), None);
    }
}
