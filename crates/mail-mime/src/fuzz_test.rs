//! Messages that nobody wrote.

use fuzzing::{Target, all};

use super::tests::{LINES, NESTED, assert_fits, assert_inside};
use super::*;

fn all_parts<'a>(part: &'a BodyPart, into: &mut Vec<&'a BodyPart>) {
    into.push(part);
    part.parts.iter().for_each(|below| all_parts(below, into));
}

/// How far it came: how many parts, how deep, and what was found of them and of the message.
fn shape(parsed: &Parsed, parts: &[&BodyPart]) -> u64 {
    let scale = |count: usize| u64::from(count.checked_ilog2().map_or(0, |log| log + 1));
    let any = |found: fn(&BodyPart) -> bool| u64::from(parts.iter().any(|part| found(part)));
    let depth = parts.iter().map(|part| part.section.matches('.').count()).max().unwrap_or(0);
    all(&[
        scale(parts.len()),
        scale(depth),
        any(|part| part.encoding == "base64"),
        any(|part| part.encoding == "quoted-printable"),
        any(|part| part.truncated),
        any(|part| !part.disposition.is_empty()),
        any(|part| part.parameters.len() > 1),
        u64::from(parsed.preview.is_empty()),
        scale(parsed.envelope.to.len()),
        scale(parsed.thread_keys.len()),
    ])
}

#[test]
fn whatever_a_message_is_it_is_read_within_bounds() {
    let nested = NESTED.to_vec();
    let lines = LINES.concat();
    let words: Vec<&[u8]> = LINES.iter().copied().chain(WORDS.iter().copied()).collect();
    let samples = vec![nested, lines];
    let target = Target { name: "mail-mime", samples, words: &words, longest: 4 << 10 };
    fuzzing::run(target, |message| {
        let parsed = parse(message);
        assert_fits(&parsed);
        assert_inside(&parsed.body, 0, message.len() as u64);
        assert_eq!(parse(message), parsed, "the same bytes say the same");
        let mut parts = Vec::new();
        all_parts(&parsed.body, &mut parts);
        for part in parts.iter().take(8) {
            for name in [part.section.clone(), format!("{}.MIME", part.section)] {
                let Some(section) = find(&parsed.body, &name) else { continue };
                assert!(section.range.start <= section.range.end, "{name}");
                assert!(section.range.end <= message.len() as u64, "{name}");
                let bytes = &message[section.range.start as usize..section.range.end as usize];
                let decoded = decode(&part.encoding, bytes);
                assert!(decoded.is_err() || decoded.is_ok_and(|text| text.len() <= bytes.len()));
            }
        }
        shape(&parsed, &parts)
    });
}

#[test]
fn whatever_a_sections_name_is_it_is_found_or_not() {
    let structure = structure(NESTED);
    let samples = ["1", "1.2.MIME", "2.HEADER", "2.1.TEXT", "HEADER"];
    let samples = samples.map(|name| name.as_bytes().to_vec()).to_vec();
    let words: [&[u8]; 4] = [b".", b"MIME", b"0", b"4294967296"];
    let target = Target { name: "section", samples, words: &words, longest: 200 };
    fuzzing::run(target, |name| {
        let found = find(&structure, &String::from_utf8_lossy(name));
        found.map_or(0, |section| 1 + section.range.end.min(NESTED.len() as u64))
    });
}

const WORDS: [&[u8]; 14] = [
    b"\r\n\r\n",
    b"\r\n\t",
    b"--out\r\n",
    b"--out--\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Type: multipart/mixed; boundary=\"out\"\r\n\r\n",
    b"; name*0*=utf-8'en'%41; name*1=b",
    b"=?utf-8?Q?=C3?=",
    b"=?iso-8859-1?B?",
    b"(((",
    b"\"\\\"",
    b"Date: Thu, 31 Dec 99999 25:61:61 +9999\r\n",
    b"References: <a@b>",
    b"\xe2\x80\xae",
];
