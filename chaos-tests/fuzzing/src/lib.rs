//! Inputs that nobody wrote, for parsers and frames.
//!
//! A target is a function of some bytes that must neither panic nor take long, and checks whatever it
//! can of what it read. Inputs are made out of samples that are sound: bytes are flipped, cut, doubled,
//! exchanged between samples, numbers put to their limits, words of the format put in between.
//!
//! **No coverage is measured**: that needs a compiler made for it, and this runs with the one that
//! builds everything else. What guides it instead is the target's own answer, a number for *how far
//! the input came* (which error, how many parts, ..). An input whose answer was never seen before
//! becomes a sample itself, so changes add up. That finds what lies behind an answer, and not what
//! lies behind a branch that answers alike.
//!
//! Everything follows from the seed, the target's name and the number of the input, so a failure
//! happens again. `HOLDFAST_FUZZ_INPUTS` says how many inputs each target gets (otherwise as many
//! as fit into some seconds, at most [`SHORT_INPUTS`]), `HOLDFAST_FUZZ_SEED` which.

mod dice;
mod mutate;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

pub use dice::Dice;

/// Inputs of a run that nobody asked for more of.
pub const SHORT_INPUTS: u64 = 100_000;
/// How long such a run may take.
const SHORT_TIME: Duration = Duration::from_secs(3);
/// How long any single input may take, on a machine that is busy with other things as well.
const LONGEST_INPUT: Duration = Duration::from_secs(20);
/// Inputs of a new kind that are kept as samples.
const SAMPLES_MAX: usize = 4_096;

/// What is fed, and with what.
pub struct Target<'a> {
    /// Its name in reports, and part of what decides about its inputs.
    pub name: &'a str,
    /// Sound inputs, at least one.
    pub samples: Vec<Vec<u8>>,
    /// Words of the format that chance would not come upon.
    pub words: &'a [&'a [u8]],
    /// Bytes of an input at most.
    pub longest: usize,
}

/// Feeds a target. `read` tells how far an input came; what it must never do is panic.
pub fn run(target: Target<'_>, read: impl FnMut(&[u8]) -> u64) {
    let asked = number("HOLDFAST_FUZZ_INPUTS");
    let end = if asked.is_some() { None } else { Some(Instant::now() + SHORT_TIME) };
    let seed = number("HOLDFAST_FUZZ_SEED").unwrap_or(1);
    run_some(target, seed, asked.unwrap_or(SHORT_INPUTS), end, read);
}

fn run_some(
    target: Target<'_>,
    seed: u64,
    inputs: u64,
    end: Option<Instant>,
    mut read: impl FnMut(&[u8]) -> u64,
) {
    assert!(!target.samples.is_empty(), "nothing to begin with");
    let Target { name, mut samples, words, longest } = target;
    let mut dice = Dice::new(seed, name);
    let mut seen = HashSet::new();
    for sample in &samples {
        seen.insert(feed(name, seed, 0, sample, &mut read));
    }
    let sound = samples.len();
    let (mut fed, mut slowest) = (0, Duration::ZERO);
    while fed < inputs && end.is_none_or(|end| fed % 64 != 0 || Instant::now() < end) {
        fed += 1;
        let input = mutate::input(&mut dice, &samples, words, longest);
        let begun = Instant::now();
        let answer = feed(name, seed, fed, &input, &mut read);
        slowest = slowest.max(begun.elapsed());
        if seen.insert(answer) {
            keep(&mut dice, &mut samples, sound, input);
        }
    }
    println!("{name}: {fed} inputs of seed {seed}, {} answers, slowest {slowest:?}", seen.len());
}

/// Keeps an input as a sample; when there are enough, in the place of another that was found.
fn keep(dice: &mut Dice, samples: &mut Vec<Vec<u8>>, sound: usize, input: Vec<u8>) {
    if samples.len() < sound + SAMPLES_MAX {
        samples.push(input);
    } else {
        let at = sound + dice.below(SAMPLES_MAX);
        samples[at] = input;
    }
}

fn feed(name: &str, seed: u64, fed: u64, input: &[u8], read: &mut impl FnMut(&[u8]) -> u64) -> u64 {
    let begun = Instant::now();
    let told = || {
        let bytes: String = input.iter().take(4_096).map(|byte| format!("{byte:02x}")).collect();
        let length = input.len();
        format!("{name}: input {fed} of seed {seed}, {length} bytes, which begin with {bytes}")
    };
    let answer = catch_unwind(AssertUnwindSafe(|| read(input))).unwrap_or_else(|panic| {
        eprintln!("{}", told());
        resume_unwind(panic)
    });
    assert!(begun.elapsed() < LONGEST_INPUT, "{} took {:?}", told(), begun.elapsed());
    answer
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value}")))
}

/// Which kind of a thing it is: for answers that are enums.
pub fn kind<T>(of: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(of).hash(&mut hasher);
    hasher.finish()
}

/// One answer out of several.
pub fn all(answers: &[u64]) -> u64 {
    fold(answers.iter().flat_map(|answer| answer.to_le_bytes()))
}

/// A number out of what can be printed, digits left out: for answers such as an error's text.
pub fn answer(of: &impl std::fmt::Debug) -> u64 {
    fold(format!("{of:?}").bytes().filter(|byte| !byte.is_ascii_digit()))
}

/// FNV-1a.
fn fold(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target<'a>() -> Target<'a> {
        Target { name: "t", samples: vec![b"head:0000".to_vec()], words: &[b"key="], longest: 64 }
    }

    /// A word and a letter in one place: together chance would need far more inputs.
    fn steps(input: &[u8]) -> u64 {
        b"head:key=!".iter().zip(input).take_while(|(want, is)| want == is).count() as u64
    }

    #[test]
    fn what_came_further_than_before_is_built_upon() {
        let mut furthest = 0;
        run_some(target(), 1, 1_000_000, None, |input| {
            furthest = furthest.max(steps(input));
            steps(input)
        });
        assert_eq!(furthest, 10);
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let inputs = |seed| {
            let mut all = Vec::new();
            run_some(target(), seed, 500, None, |input| {
                all.push(input.to_vec());
                steps(input)
            });
            all
        };
        assert_eq!(inputs(3), inputs(3));
        assert_ne!(inputs(3), inputs(4));
        assert!(inputs(3).iter().all(|input| input.len() <= 64));
    }

    #[test]
    fn a_panic_of_the_target_is_a_failure() {
        let found = catch_unwind(|| {
            run_some(target(), 1, 100_000, None, |input| {
                assert!(!input.starts_with(b"head:key="), "found");
                steps(input)
            });
        });
        assert!(found.is_err());
    }
}
