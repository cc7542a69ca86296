//! A copy is built of what the old one has and of what it lacks, whatever ends in between.

use std::path::PathBuf;
use std::sync::Arc;

use dag_types::{Millis, ReplicaId};
use seeding::SeedFault;
use seeding::install::{InstallOrder, install, is_installed};
use seeding::progress::Phase;
use seeding::target::{Target, Way, seed_folder};
use seeding::wire::Reply;
use storage::disk::{Disk, OpenMode};
use storage::state::map::MapState;
use storage::state::{StateEngine, StateRead};

use crate::common::*;

const OLD: u64 = 3;
const NEW: u64 = 9;

fn install_order(node: &Node) -> InstallOrder {
    let staged = seed_folder(&node.place.folder, ReplicaId(NEW));
    InstallOrder { place: node.place.clone(), identity: node.identity(NEW), staged, vote: None }
}

fn old_state(node: &Node) -> PathBuf {
    node.place.folder.join(format!("gen-1-{OLD}/state"))
}

/// A node with an old copy that has so many of the peer's bodies.
fn node(peer: u64, bodies: u64, body_bytes: usize) -> Node {
    let mut node = Node::new(peer);
    let old = node.create(OLD);
    fill(&*old.state, peer, bodies, body_bytes, 7);
    node.close(old);
    node
}

fn old(node: &Node) -> Option<Arc<dyn StateRead>> {
    Some(node.engine().open_read_only(&old_state(node)).unwrap())
}

fn target(node: &Node, old: Option<Arc<dyn StateRead>>) -> Result<Target, SeedFault> {
    let mut target = node.seed(NEW)?;
    target.take_over(Arc::new(node.engine()), old);
    Ok(target)
}

fn expect_equal(node: &mut Node, peer: &Peer) {
    let copy = install(&install_order(node), &node.engine()).unwrap();
    assert_eq!(all_rows(&*copy.state), all_rows(&*peer.store));
    node.close(copy);
}

#[test]
fn only_what_the_old_copy_lacks_is_sent_and_what_it_spared_is_said() {
    let mut peer = Peer::new(2, 60, 200_000);
    let mut node = node(2, 50, 200_000);
    let mut target = target(&node, old(&node)).unwrap();
    build(&mut target, &mut peer).unwrap();
    let Some(Way::Delta { received, spared }) = target.way() else { panic!("a delta") };
    assert_eq!(received, target.received_bytes());
    let changed = 10 * 200_000;
    assert!((changed..changed + changed / 5).contains(&received), "{received} for {changed}");
    assert!(spared >= 50 * 200_000, "{spared}");
    assert_eq!(target.progress().phase, Phase::Built);
    drop(target);
    let again = node.seed(NEW).unwrap();
    assert_eq!(again.way(), Some(Way::Delta { received, spared }), "also after a restart");
    drop(again);
    expect_equal(&mut node, &peer);
}

#[test]
fn without_an_old_copy_or_a_source_that_gives_rows_all_files_are_sent() {
    let mut peer = Peer::new(2, 9, 100_000);
    let mut one = node(2, 9, 100_000);
    let mut whole = target(&one, None).unwrap();
    build(&mut whole, &mut peer).unwrap();
    assert_eq!(whole.way(), Some(Way::Whole));
    drop(whole);
    expect_equal(&mut one, &peer);
    let mut two = node(2, 9, 100_000);
    let mut refused = target(&two, old(&two)).unwrap();
    let mut older = |reply| match reply {
        Reply::Opened(manifest) => {
            Some(Reply::Opened(seeding::wire::Manifest { gives_rows: false, ..manifest }))
        }
        reply => Some(reply),
    };
    while let Went::On = advance(&mut refused, &mut peer, Millis(0), &mut older).unwrap() {}
    assert_eq!(refused.way(), Some(Way::Whole));
    drop(refused);
    expect_equal(&mut two, &peer);
}

#[test]
fn a_body_that_rotted_in_the_old_copy_is_not_taken_over() {
    let mut peer = Peer::new(2, 50, 100_000);
    let mut node = node(2, 50, 100_000);
    let disk = Arc::new(node.disk.clone());
    let rotten = MapState::open(disk, &old_state(&node)).unwrap();
    let bodies = rotten.scan(&[0x80], &[0xc0], 99).unwrap();
    for (key, _) in &bodies[..3] {
        assert!(rotten.rot(key, 4711));
    }
    let mut target = target(&node, Some(Arc::new(rotten))).unwrap();
    build(&mut target, &mut peer).unwrap();
    let Some(Way::Delta { received, spared }) = target.way() else { panic!("a delta") };
    assert!((300_000..400_000).contains(&received), "three bodies: {received}");
    assert!(spared >= 47 * 100_000, "{spared}");
    drop(target);
    expect_equal(&mut node, &peer);
}

/// Everything up to the installed copy; goes on where it was ended.
fn seed(
    node: &mut Node,
    peer: &mut Peer,
    old: Option<Arc<dyn StateRead>>,
) -> Result<u64, SeedFault> {
    let mut received = 0;
    if !is_installed(&node.place, &node.identity(NEW))? {
        let mut target = target(node, old)?;
        build(&mut target, peer)?;
        received = target.received_bytes();
    }
    let copy = install(&install_order(node), &node.engine())?;
    let rows = all_rows(&*copy.state);
    drop(copy);
    if node.disk.is_burnt() {
        return Err(SeedFault::Order { what: "close a copy", why: "killed" });
    }
    node.settle();
    assert_eq!(rows, all_rows(&*peer.store), "the new copy holds what the source holds");
    Ok(received)
}

fn ended_everywhere(end: End) {
    let mut killed = 0;
    for fuse in 0.. {
        let mut peer = Peer::new(2, 8, 10_000);
        let mut node = node(2, 5, 10_000);
        let before = old(&node);
        node.disk.burn_after(fuse);
        let first = seed(&mut node, &mut peer, before);
        if !node.disk.is_burnt() {
            first.unwrap();
            break;
        }
        killed += 1;
        let mut node = node.end(end);
        // Now and then the old copy is gone, too.
        let old = if fuse % 3 == 0 { None } else { old(&node) };
        seed(&mut node, &mut peer, old)
            .unwrap_or_else(|fault| panic!("{end:?} at {fuse}, resumed: {fault}"));
        let copy = node.open(NEW).unwrap();
        assert_eq!(all_rows(&*copy.state), all_rows(&*peer.store));
        node.close(copy);
        let copy = node.open(OLD).unwrap_or_else(|fault| panic!("{end:?} at {fuse}: {fault}"));
        node.close(copy);
        assert_eq!(peer.taken, 1, "one checkpoint is enough");
    }
    assert!(killed > 30, "only {killed} operations were tried");
}

#[test]
fn a_kill_at_any_operation_of_a_takeover_leaves_the_old_copy_and_goes_on() {
    ended_everywhere(End::Kill);
}

#[test]
fn a_power_loss_at_any_operation_of_a_takeover_leaves_the_old_copy_and_goes_on() {
    ended_everywhere(End::PowerLoss);
}

#[test]
fn a_killed_takeover_is_sent_little_again_and_its_progress_goes_on() {
    for end in [End::Kill, End::PowerLoss] {
        let mut peer = Peer::new(1, 96, 1 << 20);
        let one = node(1, 10, 1 << 20);
        let mut first = target(&one, old(&one)).unwrap();
        while first.received_bytes() < 60 << 20 {
            advance(&mut first, &mut peer, Millis(0), &mut Some).unwrap();
        }
        let shown = first.progress();
        assert!(shown.bytes >= 32 << 20, "a flush has passed");
        drop(first);
        let mut one = one.end(end);
        peer.restart();
        let mut second = target(&one, old(&one)).unwrap();
        never_back(shown, second.progress());
        build(&mut second, &mut peer).unwrap();
        let both = second.received_bytes() + (60 << 20);
        let once = 86 << 20;
        assert!(both <= once + (64 << 20), "{end:?}: {both} bytes were sent for {once}");
        assert_eq!(peer.taken, 1, "the source found its checkpoint again");
        drop(second);
        expect_equal(&mut one, &peer);
    }
}

#[test]
fn another_source_takes_over_a_takeover() {
    let (mut first, mut second) = (Peer::new(1, 90, 1 << 20), Peer::new(2, 90, 1 << 20));
    let mut one = node(1, 10, 1 << 20);
    let mut target = target(&one, old(&one)).unwrap();
    while target.received_bytes() < 50 << 20 {
        advance(&mut target, &mut first, Millis(0), &mut Some).unwrap();
    }
    let shown = target.progress();
    target.disconnected();
    let before = target.received_bytes();
    build(&mut target, &mut second).unwrap();
    never_back(shown, target.progress());
    // Both peers' bodies are numbered from their seed on: all but one are the same.
    let again = target.received_bytes() - before;
    assert!(again <= (50 + 32) << 20, "{again} bytes after the change");
    drop(target);
    expect_equal(&mut one, &second);
}

#[test]
fn a_takeover_that_is_given_up_goes_on_with_whole_files() {
    let mut peer = Peer::new(1, 10, 1 << 20);
    let mut one = node(1, 5, 1 << 20);
    let mut target = target(&one, old(&one)).unwrap();
    while target.progress().phase < Phase::Verifying {
        advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
    }
    target.give_up_rows().unwrap();
    build(&mut target, &mut peer).unwrap();
    assert_eq!(target.way(), Some(Way::Whole));
    drop(target);
    expect_equal(&mut one, &peer);
}

#[test]
fn a_staged_state_that_rots_while_nobody_builds_is_filled_anew() {
    let mut peer = Peer::new(1, 60, 1 << 20);
    let mut one = node(1, 5, 1 << 20);
    let mut first = target(&one, old(&one)).unwrap();
    while first.received_bytes() < 50 << 20 {
        advance(&mut first, &mut peer, Millis(0), &mut Some).unwrap();
    }
    let state = first.folder().join("state");
    drop(first);
    let names = one.disk.list(&state).unwrap();
    let largest = |name: &PathBuf| {
        one.disk.open(&state.join(name), OpenMode::Read).and_then(|file| file.len()).unwrap()
    };
    let file = state.join(names.into_iter().max_by_key(largest).unwrap());
    one.disk.sim.flip_bit(&file, 4711, 3).unwrap();
    let mut second = target(&one, old(&one)).unwrap();
    build(&mut second, &mut peer).unwrap();
    assert!(matches!(second.way(), Some(Way::Delta { .. })), "{:?}", second.way());
    drop(second);
    expect_equal(&mut one, &peer);
}

#[test]
fn damaged_answers_cost_questions_and_nothing_else() {
    for nth in 0..8 {
        let mut peer = Peer::new(1, 150, 5_000);
        let mut one = node(1, 100, 5_000);
        let mut target = target(&one, old(&one)).unwrap();
        let mut seen = 0;
        let mut mangle = |mut reply| {
            if let Reply::Delta(delta) = &mut reply {
                if seen == nth {
                    delta.crc ^= 1;
                }
                seen += 1;
            }
            Some(reply)
        };
        while let Went::On = advance(&mut target, &mut peer, Millis(0), &mut mangle).unwrap() {}
        assert!(seen > nth, "there was such an answer");
        drop(target);
        expect_equal(&mut one, &peer);
    }
}

#[test]
fn a_source_that_ends_elsewhere_than_it_said_is_never_installed() {
    let mut peer = Peer::new(1, 5, 1_000);
    let one = node(1, 5, 1_000);
    let mut target = target(&one, old(&one)).unwrap();
    let mut liar = |mut reply| {
        if let Reply::Opened(manifest) = &mut reply {
            manifest.position.0.index += 1;
        }
        Some(reply)
    };
    let fault = (0..10_000)
        .find_map(|_| advance(&mut target, &mut peer, Millis(0), &mut liar).err())
        .expect("it is given up");
    assert!(fault.to_string().contains("does not hold"), "{fault}");
    assert_eq!(peer.store.get(&[0x10, 0]).unwrap(), Some(noise(0, 40)));
}
