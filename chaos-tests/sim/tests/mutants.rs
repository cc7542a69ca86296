//! Planted faults of rules that only a whole cluster can break: each scene is clean without the
//! fault and finds it when it is planted.
//!
//! One test, because a fault is planted for the whole process.

use dag_types::Mutant;
use sim::{flip, leases, panics, stale, stray, upgrade};

#[test]
fn every_planted_fault_breaks_its_scene() {
    panics::keep();
    type Scene = fn(u64) -> Vec<String>;
    let scenes: [(Mutant, Scene, &str); 7] = [
        (Mutant::LeaseRead, stale::run, "R1"),
        (Mutant::UnknownEntrySkipped, upgrade::run, "U1"),
        (Mutant::WrongGenerationAccepted, stray::run, "G1"),
        (Mutant::NoDriftMargin, leases::drift, "C2"),
        (Mutant::ColdStartUnconfirmed, leases::silent_site, "C1"),
        (Mutant::ConfirmationNeverLapses, leases::silent_site, "C1"),
        (Mutant::SeedUnchecked, flip::run, "F1"),
    ];
    for (mutant, scene, rule) in scenes {
        for seed in 1..=3 {
            Mutant::plant(None);
            let clean = scene(seed);
            Mutant::plant(Some(mutant));
            let found = scene(seed);
            Mutant::plant(None);
            // Panics are kept for the simulation, so their words are printed here.
            println!("{mutant:?}, seed {seed}: without {clean:?}, with {found:?}");
            assert!(clean.is_empty());
            assert!(found.iter().any(|what| what.starts_with(rule)));
        }
    }
}
