//! Between the values of `seeding` and the messages of `holdfast.peer.v1`.

use bytes::Bytes;
use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, ReplicaId};
use seeding::delta::{DeltaContent, DeltaReply, DeltaRequest, Listed, ShortDigest, Sum};
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
        Request::Delta { checkpoint, ask } => Ask::Delta(delta_ask(bytes(checkpoint), ask)),
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
        Ask::Delta(asked) => {
            Request::Delta { checkpoint: id(&asked.checkpoint)?, ask: read_delta_ask(asked)? }
        }
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
        Reply::Delta(reply) => Answer::Delta(delta_answer(reply)),
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
        Answer::Delta(answer) => Reply::Delta(read_delta_answer(answer)?),
    })
}

fn delta_ask(checkpoint: Bytes, ask: &DeltaRequest) -> pb::DeltaAsk {
    use pb::delta_ask::Ask;
    let range = |from: &Bytes, to: &Bytes| pb::DeltaRange { from: from.clone(), to: to.clone() };
    let ask = match ask {
        DeltaRequest::Sums { from } => Ask::SumsFrom(from.clone()),
        DeltaRequest::List { from, to } => Ask::List(range(from, to)),
        DeltaRequest::Bodies { keys } => Ask::Bodies(pb::DeltaKeys { keys: keys.clone() }),
        DeltaRequest::Rows { from, to } => Ask::Rows(range(from, to)),
    };
    pb::DeltaAsk { ask: Some(ask), checkpoint }
}

fn read_delta_ask(asked: &pb::DeltaAsk) -> Option<DeltaRequest> {
    use pb::delta_ask::Ask;
    // A key begins with its table.
    let key = |key: &Bytes| (!key.is_empty()).then(|| key.clone());
    Some(match asked.ask.as_ref()? {
        Ask::SumsFrom(from) => DeltaRequest::Sums { from: key(from)? },
        Ask::List(range) => DeltaRequest::List { from: key(&range.from)?, to: key(&range.to)? },
        Ask::Bodies(asked) => {
            DeltaRequest::Bodies { keys: asked.keys.iter().map(key).collect::<Option<_>>()? }
        }
        Ask::Rows(range) => DeltaRequest::Rows { from: key(&range.from)?, to: key(&range.to)? },
    })
}

fn delta_answer(reply: DeltaReply) -> pb::DeltaAnswer {
    let digest = |digest: &ShortDigest| Bytes::copy_from_slice(digest);
    let row = |(key, value)| pb::Row { key, value };
    let mut answer = pb::DeltaAnswer { crc: reply.crc, ..pb::DeltaAnswer::default() };
    let kind = match reply.content {
        DeltaContent::Sums(sums) => {
            let sum = |sum: Sum| pb::DeltaSum {
                digest: digest(&sum.digest),
                from: sum.from,
                to: sum.to,
                count: sum.count,
            };
            answer.sums = sums.into_iter().map(sum).collect();
            pb::DeltaKind::Sums
        }
        DeltaContent::List(list) => {
            let listed = |one: Listed| pb::DeltaListed {
                digest: digest(&one.digest),
                key: one.key,
                bytes: one.bytes,
            };
            answer.list = list.into_iter().map(listed).collect();
            pb::DeltaKind::List
        }
        DeltaContent::Bodies(rows) => {
            answer.rows = rows.into_iter().map(row).collect();
            pb::DeltaKind::Bodies
        }
        DeltaContent::Rows { rows, to } => {
            answer.rows = rows.into_iter().map(row).collect();
            answer.rows_to = to.unwrap_or_default();
            pb::DeltaKind::Rows
        }
    };
    answer.kind = kind.into();
    answer
}

fn read_delta_answer(answer: pb::DeltaAnswer) -> Option<DeltaReply> {
    let digest = |bytes: &Bytes| ShortDigest::try_from(&bytes[..]).ok();
    let kind = answer.kind();
    let rows = answer.rows.into_iter().map(|row| (row.key, row.value)).collect();
    let content = match kind {
        pb::DeltaKind::Unspecified => return None,
        pb::DeltaKind::Sums => {
            let sum = |sum: pb::DeltaSum| {
                let digest = digest(&sum.digest)?;
                Some(Sum { from: sum.from, to: sum.to, count: sum.count, digest })
            };
            DeltaContent::Sums(answer.sums.into_iter().map(sum).collect::<Option<_>>()?)
        }
        pb::DeltaKind::List => {
            let listed = |one: pb::DeltaListed| {
                let digest = digest(&one.digest)?;
                Some(Listed { key: one.key, digest, bytes: one.bytes })
            };
            DeltaContent::List(answer.list.into_iter().map(listed).collect::<Option<_>>()?)
        }
        pb::DeltaKind::Bodies => DeltaContent::Bodies(rows),
        pb::DeltaKind::Rows => {
            let to = (!answer.rows_to.is_empty()).then_some(answer.rows_to);
            DeltaContent::Rows { rows, to }
        }
    };
    Some(DeltaReply { content, crc: answer.crc })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_come_back_as_they_were() {
        let checkpoint = CheckpointId(7 << 100);
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let delta = |ask| Request::Delta { checkpoint, ask };
        for asked in [
            Request::Open { known: None },
            Request::Open { known: Some(checkpoint) },
            Request::Digests { checkpoint, file: 3 },
            Request::Read { checkpoint, file: 3, range: 9 },
            delta(DeltaRequest::Sums { from: key("a") }),
            delta(DeltaRequest::List { from: key("a"), to: key("b") }),
            delta(DeltaRequest::Bodies { keys: vec![key("a"), key("b")] }),
            delta(DeltaRequest::Rows { from: key("a"), to: key("b") }),
            Request::Close,
        ] {
            let frame = request(DatabaseId(16), ReplicaId(9), 100, &asked).frame;
            let Some(pb::frame::Frame::SeedRequest(sent)) = frame else { panic!("{asked:?}") };
            assert_eq!((sent.database, sent.replica, sent.limit), (16, 9, 100));
            assert_eq!(read_request(&sent), Some(asked));
        }
        let frame = |end| Reply::Frame(Frame::new(1, 4, Bytes::from_static(b"mail"), end));
        let given = |content| Reply::Delta(DeltaReply::new(content));
        let sum = Sum { from: key("a"), to: key("b"), count: 3, digest: [4; 16] };
        let listed = Listed { key: key("a"), digest: [5; 16], bytes: 9 };
        let row = (key("a"), key("mail"));
        for answered in [
            frame(None),
            frame(Some([5; 32])),
            Reply::Digests { file: 2, ranges: vec![[1; 32], [2; 32]] },
            given(DeltaContent::Sums(vec![sum])),
            given(DeltaContent::List(vec![listed])),
            given(DeltaContent::Bodies(vec![row.clone()])),
            given(DeltaContent::Rows { rows: vec![row], to: Some(key("c")) }),
            given(DeltaContent::Rows { rows: Vec::new(), to: None }),
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

#[cfg(test)]
mod fuzz {
    use fuzzing::{Target, answer};
    use prost::Message as _;

    use super::*;

    fn asked() -> Vec<Request> {
        let checkpoint = CheckpointId(7 << 100);
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let delta = |ask| Request::Delta { checkpoint, ask };
        vec![
            Request::Open { known: Some(checkpoint) },
            Request::Read { checkpoint, file: 3, range: 9 },
            delta(DeltaRequest::Sums { from: key("a") }),
            delta(DeltaRequest::List { from: key("a"), to: key("b") }),
            delta(DeltaRequest::Bodies { keys: vec![key("a"), key("b")] }),
            delta(DeltaRequest::Rows { from: key("a"), to: key("b") }),
        ]
    }

    fn answered() -> Vec<Reply> {
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let given = |content| Reply::Delta(DeltaReply::new(content));
        let sum = Sum { from: key("a"), to: key("b"), count: 3, digest: [4; 16] };
        let listed = Listed { key: key("a"), digest: [5; 16], bytes: 9 };
        let row = (key("a"), key("mail"));
        vec![
            Reply::Frame(Frame::new(1, 4, key("mail"), Some([5; 32]))),
            Reply::Digests { file: 2, ranges: vec![[1; 32], [2; 32]] },
            Reply::Refused(Refusal::Busy),
            given(DeltaContent::Sums(vec![sum])),
            given(DeltaContent::List(vec![listed])),
            given(DeltaContent::Bodies(vec![row.clone()])),
            given(DeltaContent::Rows { rows: vec![row], to: Some(key("c")) }),
        ]
    }

    /// What it was, without what it held.
    fn kind(of: &impl std::fmt::Debug) -> u64 {
        answer(&format!("{of:?}").chars().take(40).collect::<String>())
    }

    fn sent(frame: pb::Frame) -> Vec<u8> {
        frame.encode_to_vec()
    }

    #[test]
    fn what_is_asked_or_answered_is_understood_as_it_was_meant_or_not_at_all() {
        let to = |asked: &Request| request(DatabaseId(16), ReplicaId(9), 100, asked);
        let asked = asked().iter().map(to).map(sent).collect::<Vec<_>>();
        let answered = answered().into_iter().map(reply).map(sent).collect::<Vec<_>>();
        let samples = [asked, answered].concat();
        let target = Target { name: "seed", samples, words: &[b"\x00", b"\xff"], longest: 500 };
        fuzzing::run(target, |bytes| match pb::Frame::decode(bytes).map(|frame| frame.frame) {
            Ok(Some(pb::frame::Frame::SeedRequest(sent))) => {
                let read = read_request(&sent);
                if let Some(asked) = &read {
                    let frame = to(asked).frame;
                    let Some(pb::frame::Frame::SeedRequest(again)) = frame else {
                        panic!("{frame:?}")
                    };
                    assert_eq!(read_request(&again).as_ref(), Some(asked));
                }
                kind(&read)
            }
            Ok(Some(pb::frame::Frame::SeedReply(sent))) => {
                let read = read_reply(sent);
                if let Some(answered) = &read {
                    if let Reply::Delta(delta) = answered {
                        // Reckoned over whatever came.
                        let _sound = delta.holds();
                        assert!(delta.bytes() <= 64 * bytes.len());
                    }
                    let frame = reply(answered.clone()).frame;
                    let Some(pb::frame::Frame::SeedReply(again)) = frame else {
                        panic!("{frame:?}")
                    };
                    assert_eq!(read_reply(again).as_ref(), Some(answered));
                }
                kind(&read)
            }
            other => kind(&other),
        });
    }
}
