//! How an input is made of the samples.

use crate::dice::Dice;

/// Numbers at which something overflows, ends or begins.
const LIMITS: [u64; 16] = [
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    65_536,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Of so many samples that came last, each second input is made.
const LATEST: usize = 8;

/// One sample, changed once or some times. Those that came last are on their way somewhere, so they
/// are taken more often.
pub(crate) fn input(
    dice: &mut Dice,
    samples: &[Vec<u8>],
    words: &[&[u8]],
    longest: usize,
) -> Vec<u8> {
    let among = if dice.below(2) == 0 { LATEST.min(samples.len()) } else { samples.len() };
    let mut bytes = samples[samples.len() - 1 - dice.below(among)].clone();
    for _ in 0..1 + dice.length(7) {
        change(dice, &mut bytes, samples, words);
        bytes.truncate(longest);
    }
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, samples: &[Vec<u8>], words: &[&[u8]]) {
    let at = dice.below(bytes.len() + 1);
    let end = at + dice.length(bytes.len() - at);
    match dice.below(13) {
        0 if !bytes.is_empty() => bytes[at % (end.max(1))] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = dice.any() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => insert(bytes, at, &[dice.any() as u8]),
        5 | 6 if !words.is_empty() => insert(bytes, at, words[dice.below(words.len())]),
        7 => repeat(dice, bytes, at, end),
        8 => {
            let other = dice.below(samples.len());
            splice(dice, bytes, at, &samples[other]);
        }
        9 => fixed_number(dice, bytes, at),
        10 => insert(bytes, at, &variable_number(LIMITS[dice.below(LIMITS.len())])),
        11 => bytes[at..end].fill([0, 0xff, b' ', b'\n'][dice.below(4)]),
        12 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add([1, 0xff][dice.below(2)]),
        _ => bytes[at..end].reverse(),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, word: &[u8]) {
    drop(bytes.splice(at..at, word.iter().copied()));
}

/// The same again and again: what nests, nests deeper.
fn repeat(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize, end: usize) {
    let part = bytes[at..end].to_vec();
    let times = 1 + dice.length(64);
    insert(bytes, end, &part.repeat(times));
}

/// The end of another sample behind the beginning of this one, or a part of it in between.
fn splice(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize, other: &[u8]) {
    let from = dice.below(other.len() + 1);
    if dice.below(2) == 0 {
        bytes.truncate(at);
        bytes.extend_from_slice(&other[from..]);
    } else {
        let to = from + dice.length(other.len() - from);
        insert(bytes, at, &other[from..to]);
    }
}

/// A number of fixed width is put to a limit, or near the length of the input.
fn fixed_number(dice: &mut Dice, bytes: &mut [u8], at: usize) {
    let width = [1, 2, 4, 8][dice.below(4)].min(bytes.len() - at);
    let value = match dice.below(3) {
        0 => (bytes.len() + dice.below(9)).saturating_sub(4) as u64,
        _ => LIMITS[dice.below(LIMITS.len())],
    };
    let place = &mut bytes[at..at + width];
    match dice.below(2) {
        0 => place.copy_from_slice(&value.to_le_bytes()[..width]),
        _ => place.copy_from_slice(&value.to_be_bytes()[8 - width..]),
    }
}

/// As protobuf writes it.
fn variable_number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
