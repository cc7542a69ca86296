//! Generated commands against the naive model, with the invariants checked after each.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dag_types::Millis;
use mailbox::Command;
use mailbox::command::CreateMailbox;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::commands::{Step, a_step, an_operation};
use crate::invariants::*;
use crate::model::{Model, assert_same};
use crate::world::*;

fn play(steps: Vec<Step>) {
    let mut world = anna_and_ben();
    let mut model = Model::default();
    let mut past = Past::default();
    for (at, name) in [ANNA, BEN].into_iter().enumerate() {
        let addresses = vec![format!("{name}@example.org")];
        let create = CreateMailbox::new(id(name), addresses);
        let request = format!("fresh-{}", at + 1);
        model.run(&Command::new(request, Millis(1_000), create.into()));
    }
    check_all(&world, &model, &mut past);
    let mut clock = 1_000i64;
    for (operation, actor, request, moved) in steps {
        clock = (clock + moved).max(1);
        let actor = actor.iter().map(|name| name.to_string()).collect();
        let command = Command::new(format!("r{request}"), Millis(clock as u64), operation)
            .on_behalf_of(actor);
        let expected = model.run(&command);
        let outcome = world.apply(&command).0.outcome.expect("an outcome");
        assert_same(&outcome, &expected);
        check_all(&world, &model, &mut past);
        invariant_a_repeat_gets_the_same_answer_and_changes_nothing(&world, &command, &outcome);
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value}")))
}

fn dice(seed: u64, run: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&run.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// `HOLDFAST_COMMANDS` says how many; `HOLDFAST_SEED` which. Without it each run has its own, and
/// tells it.
#[test]
fn every_command_does_what_the_naive_model_says() {
    let commands = from_environment("HOLDFAST_COMMANDS").unwrap_or(16_000);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = from_environment("HOLDFAST_SEED").unwrap_or(now.as_micros() as u64);
    let played = Cell::new(0);
    let mut run = 0;
    while played.get() < commands {
        let config = ProptestConfig { cases: 20, failure_persistence: None, ..Default::default() };
        let mut runner = TestRunner::new_with_rng(config, dice(seed, run));
        let played_well = runner.run(&prop::collection::vec(a_step(), 1..80), |steps| {
            let many = steps.len() as u64;
            play(steps);
            played.set(played.get() + many);
            Ok(())
        });
        played_well.unwrap_or_else(|error| panic!("HOLDFAST_SEED={seed}: {error}"));
        run += 1;
    }
    println!("{} commands of seed {seed}", played.get());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes of an entry are, reading and applying it never panics, and what it
    /// writes keeps the digest.
    #[test]
    fn scrambled_entries_never_panic(
        operation in an_operation(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut world = anna_and_ben();
        world.fill_inbox(2);
        let command = Command::new("r", dag_types::Millis(2_000), operation);
        let mut entry = command.encode_to_bytes().to_vec();
        for (place, value) in places {
            let at = place.index(entry.len());
            entry[at] = value;
        }
        if let Ok(command) = Command::decode_from(Bytes::from(entry)) {
            let at = dag_types::LogId { term: 1, index: 99 };
            let applied = mailbox::apply(&world.view, at, &command).expect("no fault");
            world.view.write(applied.writes);
            invariant_digest_equals_recomputation(&world);
        }
    }
}
