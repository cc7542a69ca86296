//! Commands as bytes.

use bytes::Bytes;
use dag_types::Millis;
use mailbox::limits;
use mailbox::response::{Reason, Rejection, Response};
use mailbox::{Command, Fault, Operation};

use crate::world::*;

/// The body of a decoded command must be the log entry's own memory: a copy of each body on each
/// copy of the database would cost more than everything else.
#[test]
fn a_decoded_body_is_a_slice_of_the_entry() {
    let bodies = [
        deliver("d", &[ANNA], &"x".repeat(4_096)).into(),
        append(ANNA, INBOX, &"x".repeat(4_096)).into(),
    ];
    for operation in bodies {
        let entry = Command::new("r", Millis(1), operation).encode_to_bytes();
        let inside = entry.as_ptr_range();
        let decoded = Command::decode_from(entry.clone()).expect("what was encoded");
        let body = match decoded.operation.expect("an operation") {
            Operation::Deliver(deliver) => deliver.content.body,
            Operation::Append(append) => append.content.body,
            other => panic!("{other:?}"),
        };
        assert_eq!(body.len(), 4_096);
        assert!(inside.contains(&body.as_ptr()), "the body was copied");
    }
}

#[test]
fn the_body_that_is_written_is_a_slice_of_the_entry() {
    let mut world = anna_and_ben();
    let command =
        Command::new("", Millis(1), deliver("d", &[ANNA, BEN], &"x".repeat(4_096)).into());
    let entry = command.encode_to_bytes();
    let decoded = Command::decode_from(entry.clone()).expect("what was encoded");
    let (_, writes) = world.apply(&decoded);
    let key = mailbox::keys::body(&content(&"x".repeat(4_096)).blake3[..].try_into().unwrap(), 0);
    let applied = mailbox::apply(&anna_and_ben().view, dag_types::LogId::default(), &decoded);
    let body = applied.expect("no fault").writes.into_iter().find_map(|write| match write {
        dag_types::Write::Put { key: at, value } if at == key => Some(value),
        _ => None,
    });
    assert!(entry.as_ptr_range().contains(&body.expect("a body").as_ptr()), "it was copied");
    assert_eq!(writes.iter().filter(|write| *write.key() == key).count(), 1);
}

#[test]
fn an_operation_of_a_newer_version_is_not_read() {
    let unknown = Bytes::from_static(&[0xfa, 0x01, 0x00]);
    assert!(matches!(Command::decode_from(unknown), Err(Fault::UnknownCommand { .. })));
    assert!(matches!(Command::decode_from(Bytes::new()), Err(Fault::UnknownCommand { .. })));
}

#[test]
fn cut_and_scrambled_bytes_are_faults_and_never_a_panic() {
    let entry =
        Command::new("r", Millis(1), deliver("d", &[ANNA], "hello").into()).encode_to_bytes();
    for length in 0..entry.len() {
        let _ = Command::decode_from(entry.slice(..length));
        let mut scrambled = entry.to_vec();
        scrambled[length] ^= 0x55;
        if let Ok(command) = Command::decode_from(Bytes::from(scrambled)) {
            let _ = mailbox::apply(&anna_and_ben().view, dag_types::LogId::default(), &command);
        }
    }
    assert!(Command::decode_from(entry.slice(..entry.len() - 1)).is_err());
}

#[test]
fn an_answer_of_a_newer_version_is_not_read() {
    assert!(Response::decode_from(Bytes::from_static(&[0x08, 0x01])).is_err());
}

#[test]
fn every_reason_has_a_name_of_its_own_and_an_advice() {
    let reasons: Vec<Reason> = (0..100).filter_map(|code| Reason::try_from(code).ok()).collect();
    assert_eq!(reasons.len(), 30);
    for reason in &reasons {
        assert_eq!(reasons.iter().filter(|other| other.name() == reason.name()).count(), 1);
        assert!(reason.advice().len() > 10, "{reason:?}");
    }
}

#[test]
fn limits_have_names_of_their_own_and_refuse_one_more() {
    for limit in limits::ALL {
        assert_eq!(limits::ALL.iter().filter(|other| other.name == limit.name).count(), 1);
        assert_eq!(limit.check(limit.max as usize), Ok(()));
        let refused = limit.check(limit.max as usize + 1).expect_err(limit.name);
        assert_eq!((refused.subject.as_str(), refused.limit), (limit.name, limit.max));
    }
}

#[test]
fn a_rejection_says_what_why_and_what_to_do() {
    let text = Rejection::new(Reason::LimitExceeded)
        .about("messages_per_command")
        .with_value(1_001)
        .with_limit(1_000)
        .to_string();
    let expected = "LIMIT_EXCEEDED messages_per_command (1001 given, 1000 allowed): \
                    more than the limit allows; split or shrink the request";
    assert_eq!(text, expected);
}
