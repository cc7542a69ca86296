use proptest::prelude::*;
use std::fmt::Write as _;

use super::*;

pub(super) const NESTED: &[u8] = b"From: Ann <ann@example.org>\r\n\
To: =?utf-8?q?J=C3=B6rg?= <j@example.org>, team: b@example.org, c@example.org;\r\n\
Subject: =?utf-8?B?UGzDpG5l?=\r\n\
Message-ID: <m1@example.org>\r\n\
References: <a@x> <b@x>\r\n\
Content-Type: multipart/mixed; boundary=\"out\"\r\n\
\r\n\
preamble\r\n\
--out\r\n\
Content-Type: text/plain; charset=iso-8859-1\r\n\
Content-Transfer-Encoding: quoted-printable\r\n\
\r\n\
Gr=FC=DFe   an\r\n\
> quoted\r\n\
alle\r\n\
--out\r\n\
Content-Type: message/rfc822\r\n\
\r\n\
Subject: inner\r\n\
Content-Type: multipart/alternative; boundary=in\r\n\
\r\n\
--in\r\n\
\r\n\
one\r\n\
--in\r\n\
Content-Type: text/html\r\n\
\r\n\
<b>two</b>\r\n\
--in--\r\n\
--out\r\n\
Content-Type: application/pdf; name=\"a.pdf\"\r\n\
Content-Disposition: attachment; filename=a.pdf\r\n\
Content-Transfer-Encoding: base64\r\n\
\r\n\
SGVsbG8=\r\n\
--out--\r\n\
epilogue\r\n";

fn bytes(name: &str) -> Option<&'static str> {
    let section = find(&structure(NESTED), name)?;
    let range = section.range.start as usize..section.range.end as usize;
    Some(std::str::from_utf8(&NESTED[range]).expect("ASCII"))
}

/// RFC 9051 6.4.5, its example of section numbers.
#[test]
fn sections_are_found_by_their_names() {
    assert_eq!(bytes("").map(str::len), Some(NESTED.len()));
    assert!(bytes("HEADER").is_some_and(|header| header.ends_with("boundary=\"out\"\r\n\r\n")));
    assert!(bytes("TEXT").is_some_and(|text| text.starts_with("preamble")));
    assert_eq!(bytes("1"), Some("Gr=FC=DFe   an\r\n> quoted\r\nalle"));
    assert!(bytes("1.MIME").is_some_and(|header| header.starts_with("Content-Type: text/plain")));
    assert!(bytes("2").is_some_and(|message| message.starts_with("Subject: inner")));
    assert_eq!(bytes("2.HEADER").map(|header| header.starts_with("Subject: inner")), Some(true));
    assert_eq!(bytes("2.1"), Some("one"));
    assert_eq!(bytes("2.2"), Some("<b>two</b>"));
    assert_eq!(bytes("2.2.mime"), Some("Content-Type: text/html\r\n\r\n"));
    assert_eq!(bytes("3"), Some("SGVsbG8="));
    for name in ["4", "0", "1.1", "2.3", "3.HEADER", "MIME", "TEXT.1", "x", "1.", ".1", "+1", "1.x"]
    {
        assert_eq!(bytes(name), None, "{name}");
    }
}

/// RFC 9051 6.4.5: a message that is no multipart has one part, number 1.
#[test]
fn the_only_part_of_a_plain_message_is_its_body() {
    let message = b"Subject: a\n\nbody\n";
    let tree = structure(message);
    assert_eq!(find(&tree, "1").map(|section| section.range), Some(12..17));
    assert_eq!(find(&tree, "1.1"), None);
    assert_eq!(find(&tree, "2"), None);
    assert_eq!((tree.r#type.as_str(), tree.lines), ("text", 1));
}

#[test]
fn envelope_preview_and_message_id_are_read() {
    let parsed = parse(NESTED);
    assert_eq!(parsed.message_id, "m1@example.org");
    assert_eq!(parsed.envelope.subject, "Pläne");
    assert_eq!(parsed.envelope.from[0].address, "ann@example.org");
    assert_eq!(parsed.envelope.references, ["a@x", "b@x"]);
    assert_eq!(parsed.preview, "Grüße an alle");
    assert_eq!(parsed.body.parts.len(), 3);
    assert_eq!(parsed.body.parts[1].envelope.as_ref().map(|inner| &*inner.subject), Some("inner"));
    assert_eq!(parsed.body.parts[2].disposition, "attachment");
    let words = tokens_of("Subject", "pläne").expect("a field that is kept");
    assert!(words.iter().all(|word| parsed.header_tokens.contains(word)));
    assert!(tokens_of("to", "pläne").is_some_and(|w| !parsed.header_tokens.contains(&w[0])));
    assert_eq!(tokens_of("x-spam", "yes"), None);
}

#[test]
fn a_message_nested_a_thousand_deep_is_read_as_far_as_the_bound() {
    let mut multipart = String::new();
    for n in 0..1000 {
        write!(multipart, "Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n")
            .unwrap();
    }
    let mut embedded = String::new();
    for _ in 0..100_000 {
        embedded.push_str("Content-Type: message/rfc822\r\n\r\n");
    }
    for message in [multipart, embedded] {
        let mut part = &structure(message.as_bytes());
        let mut depth = 0;
        while let Some(inner) = part.parts.first() {
            part = inner;
            depth += 1;
        }
        assert!(part.truncated && (1..=limits::DEPTH).contains(&depth), "{depth}");
        parse(message.as_bytes());
    }
}

#[test]
fn a_header_of_ten_megabytes_does_no_harm() {
    for line in
        ["References: <x@y>\r\n <z@y>", "To: a@b, c@d", "X: y\r\nX:", "Subject: =?utf-8?b?AAAA?="]
    {
        let mut message = String::new();
        while message.len() < 10 << 20 {
            message.push_str(line);
            message.push_str(",\r\n ");
        }
        message.push_str("\r\n\r\nbody");
        let parsed = parse(message.as_bytes());
        assert_fits(&parsed);
    }
}

/// What the core refuses as `parsed_bytes`, `thread_keys_per_message`, `header_tokens_per_message`.
pub(super) fn assert_fits(parsed: &Parsed) {
    let size = parsed.message_id.len()
        + parsed.envelope.encoded_len()
        + parsed.body.encoded_len()
        + parsed.preview.len()
        + parsed.thread_keys.len() * 16
        + parsed.header_tokens.len() * 8;
    assert!(size <= 64 << 10, "{size}");
    assert!(parsed.thread_keys.len() <= 16 && parsed.header_tokens.len() <= 256);
    assert!(parsed.thread_keys.is_sorted_by(|a, b| a < b));
    assert!(parsed.header_tokens.is_sorted_by(|a, b| a < b));
    assert!(parsed.preview.chars().count() <= 256);
}

pub(super) fn assert_inside(part: &BodyPart, from: u64, to: u64) {
    assert!(from <= part.header_offset && part.header_offset <= part.body_offset);
    assert!(part.body_offset <= part.end_offset && part.end_offset <= to);
    for inner in &part.parts {
        assert_inside(inner, part.body_offset, part.end_offset);
    }
}

#[test]
fn thousands_of_parts_are_cut_at_the_bound() {
    let mut message = String::from("Content-Type: multipart/mixed; boundary=b\n\n");
    for _ in 0..5_000 {
        message.push_str("--b\n\nx\n");
    }
    let tree = structure(message.as_bytes());
    assert!(tree.truncated && tree.parts.len() <= limits::PARTS);
    assert_fits(&parse(message.as_bytes()));
}

/// Lines that messages are made of, broken ones among them.
pub(super) const LINES: [&[u8]; 16] = [
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: multipart/alternative; boundary=\"c\r\n",
    b"Content-Type: text/html; charset=utf-7\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Subject: =?iso-2022-jp?B?GyRC?=\r\n",
    b"To: \"a, b <c@d>, e: f@g;;,<\r\n",
    b"\r\n",
    b"\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"--c\n",
    b"=\xff\xfe text =3D\r\n",
    b"\0\r\r\n",
    b" folded\r\n",
    b"Message-ID: <<a@b>> c\r\n",
];

proptest! {
    #[test]
    fn whatever_comes_is_read_within_bounds(
        picks in proptest::collection::vec(0..LINES.len(), 0..60),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
        at in 0_usize..60,
    ) {
        let mut message = Vec::new();
        for (n, pick) in picks.iter().enumerate() {
            if n == at {
                message.extend_from_slice(&noise);
            }
            message.extend_from_slice(LINES[*pick]);
        }
        let parsed = parse(&message);
        assert_fits(&parsed);
        assert_inside(&parsed.body, 0, message.len() as u64);
        for name in ["1", "1.1", "2.HEADER", "1.TEXT", "1.1.1.MIME"] {
            if let Some(section) = find(&parsed.body, name) {
                prop_assert!(section.range.end <= message.len() as u64);
            }
        }
    }
}
