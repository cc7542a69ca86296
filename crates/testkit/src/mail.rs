//! Mails that anyone can make again: same seed, same bytes.
//!
//! Demo, tests and benchmark share them, so that a mail fetched back can be compared with what was
//! sent without keeping it. Each is a valid RFC 5322 message; its text is half words and half
//! base64 of random bytes, which compresses about as real mail with attachments does.

use std::ops::Range;

const WORDS: &[&str] = &[
    "ahead", "answer", "archive", "branch", "budget", "calendar", "contract", "copy", "customer",
    "delivery", "engine", "evening", "factory", "forward", "garden", "harbour", "invoice",
    "journey", "kitchen", "letter", "market", "minutes", "notice", "office", "parcel", "question",
    "receipt", "shipment", "ticket", "update", "version", "weather",
];
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const STAMP_DIGITS: usize = 20;
/// Below this a mail is plain text without a second part.
const TWO_PARTS_FROM: usize = 1_500;
/// The smallest mail: its header lines and an empty text.
pub const SIZE_MIN: usize = 512;

/// A small generator of numbers that look random (xorshift64*); nothing secret comes from it.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is above zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// A mail whose Message-ID is still to be filled in.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    stamp: Range<usize>,
}

impl Template {
    /// A mail of exactly `size` bytes, [`SIZE_MIN`] and above.
    pub fn new(seed: u64, size: usize) -> Self {
        assert!(size >= SIZE_MIN, "a mail of {size} bytes has no room for its header");
        let mut dice = Dice::new(seed);
        let (mut bytes, stamp) = header(&mut dice, size >= TWO_PARTS_FROM);
        if size >= TWO_PARTS_FROM {
            words(&mut dice, &mut bytes, size / 2);
            bytes.extend_from_slice(
                b"\r\n--=_part\r\nContent-Type: application/octet-stream\r\n\
                  Content-Transfer-Encoding: base64\r\n\r\n",
            );
            let end = b"\r\n--=_part--\r\n";
            base64(&mut dice, &mut bytes, size - end.len());
            bytes.extend_from_slice(end);
        } else {
            base64(&mut dice, &mut bytes, size - 2);
            bytes.extend_from_slice(b"\r\n");
        }
        assert_eq!(bytes.len(), size);
        Self { bytes, stamp }
    }

    /// The mail with this number in its Message-ID; another number is another mail.
    pub fn stamped(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[self.stamp.clone()].copy_from_slice(format!("{number:020}").as_bytes());
        bytes
    }

    /// Its size in bytes, the same for every number.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Templates of one size from which a benchmark or a test draws.
#[derive(Debug, Clone)]
pub struct Pool(Vec<Template>);

impl Pool {
    /// As many different texts as this, all of one size.
    pub fn new(templates: u64, size: usize) -> Self {
        assert!(templates > 0);
        Self((1..=templates).map(|seed| Template::new(seed, size)).collect())
    }

    /// The mail of this number.
    pub fn mail(&self, number: u64) -> Vec<u8> {
        self.0[(number % self.0.len() as u64) as usize].stamped(number)
    }
}

/// The mail of a demonstration or a test with this number: sizes mixed as mailboxes have them,
/// most of 1 to 20 KiB, one of fifty about 200 KiB.
pub fn mixed(number: u64) -> Vec<u8> {
    let mut dice = Dice::new(number + 1);
    let size = match dice.below(50) {
        0 => 150_000 + dice.below(100_000),
        1..=9 => 20_000 + dice.below(40_000),
        _ => 1_000 + dice.below(19_000),
    };
    Template::new(number + 1, size as usize).stamped(number)
}

fn header(dice: &mut Dice, two_parts: bool) -> (Vec<u8>, Range<usize>) {
    let mut text = format!(
        "Received: from mx{}.example.net by in{}.example.org with ESMTPS;\r\n\
         \tFri, 20 Nov 2026 12:{:02}:{:02} +0000\r\n\
         From: Sender {from} <sender{from}@example.net>\r\n\
         To: Reader {to} <reader{to}@example.org>\r\n\
         Subject: {} {} {}\r\n\
         Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <",
        dice.below(9),
        dice.below(9),
        dice.below(60),
        dice.below(60),
        word(dice),
        word(dice),
        dice.below(100_000),
        from = dice.below(10_000),
        to = dice.below(10_000),
    );
    let stamp = text.len()..text.len() + STAMP_DIGITS;
    text.push_str(&"0".repeat(STAMP_DIGITS));
    text.push_str("@example.net>\r\nMIME-Version: 1.0\r\n");
    text.push_str(if two_parts {
        "Content-Type: multipart/mixed; boundary=\"=_part\"\r\n\r\n\
         --=_part\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    } else {
        "Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    });
    (text.into_bytes(), stamp)
}

fn word(dice: &mut Dice) -> &'static str {
    WORDS[dice.below(WORDS.len() as u64) as usize]
}

/// Lines of words until the mail has about this size.
fn words(dice: &mut Dice, bytes: &mut Vec<u8>, upto: usize) {
    let mut column = 0;
    while bytes.len() < upto {
        let word = word(dice);
        bytes.extend_from_slice(word.as_bytes());
        column += word.len() + 1;
        if column > 66 {
            bytes.extend_from_slice(b"\r\n");
            column = 0;
        } else {
            bytes.push(b' ');
        }
    }
}

/// Lines of 76 base64 digits until the mail has exactly this size.
fn base64(dice: &mut Dice, bytes: &mut Vec<u8>, upto: usize) {
    let mut column = 0;
    while bytes.len() < upto {
        if column == 76 && bytes.len() + 2 < upto {
            bytes.extend_from_slice(b"\r\n");
            column = 0;
        } else {
            bytes.push(BASE64[dice.below(64) as usize]);
            column += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_exactly_the_size_that_was_asked_for() {
        for size in [SIZE_MIN, 777, 1_499, 1_500, 1_501, 4_096, 51_200, 51_201] {
            assert_eq!(Template::new(3, size).stamped(9).len(), size);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(Template::new(5, 4_096).stamped(1), Template::new(5, 4_096).stamped(1));
        assert_ne!(Template::new(5, 4_096).stamped(1), Template::new(6, 4_096).stamped(1));
    }

    #[test]
    fn each_number_has_a_message_id_of_its_own() {
        let template = Template::new(1, 2_000);
        let mail = String::from_utf8(template.stamped(42)).expect("ASCII");
        assert!(mail.contains("Message-ID: <00000000000000000042@example.net>\r\n"), "{mail}");
        assert_ne!(template.stamped(42), template.stamped(43));
    }

    #[test]
    fn header_and_text_are_parted_by_an_empty_line_and_no_line_is_too_long() {
        for number in 0..200 {
            let mail = String::from_utf8(mixed(number)).expect("ASCII");
            assert!(mail.contains("\r\n\r\n"));
            assert!(mail.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
        }
    }
}
