//! Tests of the harness's own parts.
//!
//! They stand here and not beside the code, because a test build of the crate would compile
//! everything that openraft is generic over a second time.

use std::collections::BTreeSet;
use std::path::Path;

use dag_types::DatabaseId;
use sim::damage::Atlas;
use sim::dice::Dice;
use sim::founding;
use sim::nemesis::{Fault, KINDS, Planned};
use sim::node::LINEAGE;
use sim::promise::Promise;
use sim::schedule::Schedule;
use sim::seeds::Hit;
use sim::shape::{Placement, WITNESS, mailbox_databases, site};
use storage::disk::{AlignedBuffer, BLOCK, Disk, OpenMode, SimDisk, SimDiskOptions};

#[test]
fn the_same_seed_draws_the_same_and_forks_are_independent() {
    let mut one = Dice::new(7);
    let mut two = Dice::new(7);
    assert_eq!(one.next(), two.next());
    let fork = one.fork("net").next();
    assert_eq!(fork, two.fork("net").next());
    assert_ne!(fork, two.fork("work").next());
    assert_eq!(one.next(), two.next());
}

#[test]
fn draws_stay_within_their_bounds() {
    let mut dice = Dice::new(1);
    for _ in 0..1000 {
        assert!((3..=5).contains(&dice.between(3, 5)));
        assert!(!dice.chance(0) && dice.chance(1000));
    }
}

#[test]
fn a_seed_gives_one_schedule_that_survives_being_stored() {
    for seed in 0..200 {
        let schedule = Schedule::draw(seed);
        assert_eq!(schedule, Schedule::draw(seed));
        let text = serde_json::to_string(&schedule).expect("plain values");
        assert_eq!(serde_json::from_str::<Schedule>(&text).expect("just stored"), schedule);
        assert!(schedule.faults.len() >= 5, "seed {seed}");
        assert!(schedule.outlasts_a_lease(), "seed {seed}");
        assert_eq!(schedule.weather.lease_times().problems(), Vec::<String>::new());
        assert_eq!(schedule.weather.timeouts().problems(), Vec::<String>::new());
    }
}

#[test]
fn every_kind_of_fault_is_drawn() {
    let drawn: BTreeSet<&str> = (0..300)
        .flat_map(|seed| Schedule::draw(seed).faults)
        .map(|planned| planned.fault.kind())
        .collect();
    assert_eq!(drawn.len(), KINDS as usize + Hit::ALL.len(), "{drawn:?}");
}

#[test]
fn only_the_victims_disk_loses_what_it_had_synced() {
    for seed in 0..300 {
        let schedule = Schedule::draw(seed);
        let harmed: BTreeSet<u64> =
            schedule.faults.iter().filter_map(|planned| planned.fault.harms()).collect();
        assert!(harmed.iter().all(|node| *node == schedule.weather.victim), "seed {seed}");
    }
}

/// A disk with the logs of these databases' copies: a segment of eight written blocks each.
fn logs(databases: &[u64]) -> SimDisk {
    let disk = SimDisk::new(1, SimDiskOptions::default());
    for database in databases {
        let folder = Path::new("/node-1").join(format!("db-{database}/gen-1-101/log"));
        disk.create_dir_all(&folder).expect("a folder");
        let file = disk.open(&folder.join("0000000000000001.seg"), OpenMode::Create);
        file.and_then(|file| file.write_at(&[7; 8 * BLOCK], 0)).expect("a segment");
    }
    disk
}

#[test]
fn the_atlas_damages_no_log_twice() {
    let disk = logs(&[16, 17]);
    let mut atlas = Atlas::default();
    let damages: [fn(&mut Atlas, &SimDisk, u64) -> bool; 3] =
        [Atlas::lead_astray, Atlas::lose_tail, Atlas::rot];
    for (draw, damage) in (0..).zip(damages) {
        assert_eq!(damage(&mut atlas, &disk, draw), draw < 2, "two logs, two damages");
    }
}

#[test]
fn damage_to_a_log_leaves_a_write_led_astray_to_the_node() {
    let disk = logs(&[16]);
    let path = disk.files().remove(0);
    disk.misdirect_write(&path, 5 * BLOCK as u64);
    assert!(Atlas::default().lose_tail(&disk, 0));
    let block = |at: usize| disk.content(&path).expect("a segment")[at * BLOCK];
    assert_eq!([4, 5, 6, 7].map(block), [7, 7, 0, 7]);
    let file = disk.open(&path, OpenMode::Direct).expect("a segment");
    let mut ones = AlignedBuffer::new(BLOCK);
    ones.push(&[1; BLOCK]);
    file.write_at(ones.padded(), 0).expect("a write");
    assert_eq!([0, 5].map(block), [7, 1], "the node's next write is the one that is led astray");
}

#[test]
fn a_schedule_demands_that_a_gate_closes_only_where_a_data_node_is_cut_off_for_longer_than_a_lease()
{
    let mut schedule = Schedule::draw(1);
    let lease = schedule.weather.outlasting_ms();
    let mut demands = |at_ms, for_ms, node| {
        let fault = Fault::Isolate { node, clients: false };
        schedule.faults = vec![Planned { at_ms, for_ms, fault }];
        schedule.outlasts_a_lease()
    };
    assert!(demands(100, lease, 1));
    assert!(!demands(100, lease - 1, 1), "too short");
    assert!(!demands(100, lease, WITNESS), "the witness has no gate");
    assert!(!demands(8_000, lease, 1), "it is healed before");
}

#[test]
fn the_control_log_of_a_run_is_that_of_its_founding() {
    let state = founding::state();
    let registry = state.registry().expect("one lineage");
    let sites: Vec<(&str, Vec<u64>)> = registry
        .sites
        .iter()
        .map(|site| (site.name.as_str(), site.lists[0].iter().map(|node| node.0).collect()))
        .collect();
    assert_eq!(sites, [("alpha", vec![1, 2]), ("beta", vec![3, 4])]);
    assert_eq!(registry.chain.last(), LINEAGE);
    let control = Placement::first(DatabaseId::CONTROL);
    assert_eq!((control.members.len(), control.voters.len()), (5, 5));
}

#[test]
fn the_active_site_holds_the_majority_of_the_voters() {
    for database in mailbox_databases() {
        let placement = Placement::first(database);
        let nodes: Vec<u64> = placement.voters.iter().map(|r| placement.members[r].0).collect();
        let active = if database.0 % 2 == 0 { 0 } else { 1 };
        assert_eq!(nodes.iter().filter(|node| site(**node) == active).count(), 2);
        assert_eq!((placement.members.len(), placement.voters.len()), (4, 3));
    }
}

#[test]
fn what_was_told_is_missed_from_the_first_missing_entry_on() {
    let mut promise = Promise::default();
    assert_eq!(promise.lost_at(None), None);
    promise.durable(3, 10);
    promise.durable(5, 20);
    promise.durable(9, 30);
    assert_eq!(promise.kept(), Some(9));
    assert_eq!(promise.lost_at(Some(9)), None);
    assert_eq!(promise.lost_at(Some(5)), Some(30));
    assert_eq!(promise.lost_at(Some(4)), Some(20));
    assert_eq!(promise.lost_at(None), Some(10));
}

#[test]
fn a_cut_takes_promises_back_once_it_may_have_happened() {
    let mut promise = Promise::default();
    promise.durable(5, 10);
    promise.cut(Some(3), false);
    promise.durable(7, 11);
    assert_eq!(promise.lost_at(Some(3)), None);
    assert_eq!(promise.lost_at(Some(2)), Some(10));
    promise.cut(Some(3), true);
    assert_eq!(promise.kept(), Some(3));
    promise.durable(6, 12);
    promise.cut(Some(4), false);
    promise.opened(Some(5));
    assert_eq!(promise.kept(), Some(5), "the cut did not come to its end");
    promise.cut(Some(3), true);
    assert_eq!(promise.lost_at(Some(2)), Some(10));
    promise.durable(4, 13);
    assert_eq!(promise.lost_at(Some(3)), Some(13));
}
