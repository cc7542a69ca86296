//! A copy is made anew of itself in the next generation, ended at every operation of the disk.

use dag_types::{Generation, ReplicaId};
use seeding::SeedFault;
use seeding::install::is_installed;
use seeding::reform::{ReformOrder, reform};
use storage::copy_directory::CopyDirectory;
use storage::log::CopyLog;
use storage::state::{Position, StateStore, applied, applied_write};

use crate::common::*;

const OLD: u64 = 3;
const NEW: u64 = 9;

fn node(seed: u64) -> Node {
    let mut node = Node::new(seed);
    let old = node.create(OLD);
    fill(&*old.state, 77, 6, 1 << 16, 7);
    node.close(old);
    node
}

fn order(node: &Node) -> ReformOrder {
    let old = node.identity(OLD);
    let new = node.place.root.copy_identity(old.database, Generation(2), ReplicaId(NEW));
    ReformOrder { place: node.place.clone(), old, new }
}

/// The rest of the log, as the group's own code would apply it: one row, and the end at entry 9.
fn level(_: &CopyLog, state: &dyn StateStore) -> Result<Position, String> {
    let (at, chain) = position(9);
    let row = put(&[0x10, 200], noise(1, 10));
    state.write(&[row, applied_write(at, chain)]).map_err(|fault| fault.to_string())?;
    Ok((at, chain))
}

fn made(node: &mut Node) -> Result<CopyDirectory, SeedFault> {
    reform(&order(node), &node.engine(), level)
}

#[test]
fn a_copy_of_the_next_generation_that_is_ended_anywhere_is_made_of_the_old_one_as_it_was() {
    for end in [End::Kill, End::PowerLoss] {
        let mut ended = 0;
        for fuse in 0.. {
            let mut node = node(fuse);
            node.disk.burn_after(fuse);
            let first = made(&mut node);
            let burnt = node.disk.is_burnt();
            drop(first);
            if !burnt {
                break;
            }
            ended += 1;
            let mut node = node.end(end);
            let old = node.open(OLD).unwrap_or_else(|fault| panic!("{end:?} at {fuse}: {fault}"));
            assert_eq!(
                applied(&*old.state).unwrap(),
                Some(position(7)),
                "the old one is read only"
            );
            node.close(old);
            let copy = made(&mut node).unwrap_or_else(|fault| panic!("{end:?} at {fuse}: {fault}"));
            assert_eq!(applied(&*copy.state).unwrap(), Some(position(9)));
            assert_eq!(all_rows(&*copy.state).len(), 6 * 2 + 2 + 1);
            assert_eq!(copy.log.bounds().purged, Some(position(9).0), "its log begins behind that");
            let vote = copy.log.vote().unwrap();
            assert_eq!((vote.term, vote.voted_for, vote.committed), (2 << 32, NEW, false));
            node.close(copy);
            let staged = node.place.folder.join("seed-9");
            assert!(is_installed(&node.place, &order(&node).new).unwrap());
            assert!(!storage::disk::Disk::exists(&node.disk, &staged).unwrap());
        }
        assert!(ended > 20, "only {ended} operations were tried");
    }
}

#[test]
fn a_log_that_cannot_be_applied_makes_no_copy_and_leaves_the_old_one() {
    let mut node = node(1);
    let failed = reform(&order(&node), &node.engine(), |_, _| Err("entry 8 is unknown".into()));
    assert!(matches!(failed, Err(SeedFault::Level { .. })));
    drop(failed);
    assert!(!is_installed(&node.place, &order(&node).new).unwrap());
    let old = node.open(OLD).unwrap();
    node.close(old);
}
