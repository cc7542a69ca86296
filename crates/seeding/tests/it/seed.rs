//! A copy is built beside another, whatever ends in between.

use std::sync::Arc;

use dag_types::{DagId, DatabaseId, Millis, ReplicaId};
use seeding::install::{InstallOrder, install, is_installed, retire};
use seeding::limit::RateLimit;
use seeding::progress::Phase;
use seeding::source::Served;
use seeding::target::{SYNC_BYTES, Target, seed_folder};
use seeding::wire::{FRAME_BYTES, RANGE_BYTES, Refusal, Reply, Request};
use seeding::{SeedFault, trash};
use storage::disk::Disk;

use crate::common::*;

const OLD: u64 = 3;
const NEW: u64 = 9;

/// A node with an old copy.
fn node(seed: u64) -> Node {
    let mut node = Node::new(seed);
    let old = node.create(OLD);
    fill(&*old.state, 1000, 3, 200, 7);
    node.close(old);
    node
}

fn install_order(node: &Node, replica: u64) -> InstallOrder {
    let staged = seed_folder(&node.place.folder, ReplicaId(replica));
    InstallOrder { place: node.place.clone(), identity: node.identity(replica), staged, vote: None }
}

/// Everything from the first byte to the old copy in the trash; goes on where it was ended.
fn seed_and_swap(node: &mut Node, peer: &mut Peer) -> Result<u64, SeedFault> {
    let mut received = 0;
    if !is_installed(&node.place, &node.identity(NEW))? {
        let mut target = node.seed(NEW)?;
        build(&mut target, peer)?;
        received = target.received_bytes();
    }
    let copy = install(&install_order(node, NEW), &node.engine())?;
    let rows = all_rows(&*copy.state);
    drop(copy);
    if node.disk.is_burnt() {
        // The kill came while the copy was being closed.
        return Err(SeedFault::Order { what: "close a copy", why: "killed" });
    }
    node.settle();
    assert_eq!(rows, all_rows(&*peer.store), "the new copy holds what the source holds");
    retire(&node.place, &node.identity(OLD), Millis(1))?;
    Ok(received)
}

fn ended_everywhere(end: End) {
    let mut killed = 0;
    for fuse in 0.. {
        let mut peer = Peer::new(2, 6, 1 << 20);
        let mut node = node(fuse);
        node.disk.burn_after(fuse);
        let first = seed_and_swap(&mut node, &mut peer);
        if !node.disk.is_burnt() {
            first.unwrap();
            break;
        }
        killed += 1;
        let mut node = node.end(end);
        let new = is_installed(&node.place, &node.identity(NEW)).unwrap();
        let old = is_installed(&node.place, &node.identity(OLD)).unwrap();
        assert!(old || new, "{end:?} at {fuse}: no copy is left");
        if old {
            let copy = node.open(OLD).unwrap_or_else(|fault| panic!("{end:?} at {fuse}: {fault}"));
            assert_eq!(copy.state.get(&[0x10, 0]).unwrap(), Some(noise(0, 40)));
            node.close(copy);
        }
        if new {
            let copy = node.open(NEW).unwrap_or_else(|fault| panic!("{end:?} at {fuse}: {fault}"));
            node.close(copy);
        }
        seed_and_swap(&mut node, &mut peer)
            .unwrap_or_else(|fault| panic!("{end:?} at {fuse}, resumed: {fault}"));
        let copy = node.open(NEW).unwrap();
        assert_eq!(all_rows(&*copy.state), all_rows(&*peer.store));
        assert!(!is_installed(&node.place, &node.identity(OLD)).unwrap());
        let kept = trash::list(&node.disk, &node.place.folder, Millis(9)).unwrap();
        assert!(kept.iter().any(|one| one.name.to_str() == Some("gen-1-3")), "{kept:?}");
        assert_eq!(peer.taken, 1, "one checkpoint is enough");
    }
    assert!(killed > 40, "only {killed} operations were tried");
}

#[test]
fn a_kill_at_any_operation_leaves_the_old_copy_or_the_new_one() {
    ended_everywhere(End::Kill);
}

#[test]
fn a_power_loss_at_any_operation_leaves_the_old_copy_or_the_new_one() {
    ended_everywhere(End::PowerLoss);
}

#[test]
fn what_was_durable_is_not_sent_again_and_progress_goes_on_from_there() {
    for end in [End::Kill, End::PowerLoss] {
        let mut peer = Peer::new(1, 48, 1 << 20);
        let node = node(1);
        let mut target = node.seed(NEW).unwrap();
        while target.received_bytes() < 40 << 20 {
            advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
        }
        let shown = target.progress();
        assert!(shown.bytes >= SYNC_BYTES, "a sync has passed");
        drop(target);
        let node = node.end(end);
        peer.restart();
        let mut target = node.seed(NEW).unwrap();
        never_back(shown, target.progress());
        build(&mut target, &mut peer).unwrap();
        let total = target.manifest().unwrap().total_bytes();
        let repeated = target.received_bytes() + (40 << 20) - total;
        assert!(repeated <= 2 * SYNC_BYTES, "{end:?}: {repeated} bytes were sent twice");
        assert_eq!(peer.taken, 1, "the source found its checkpoint again");
        assert_eq!(target.progress().phase, Phase::Built);
    }
}

#[test]
fn what_a_slow_disk_has_not_synced_yet_is_not_claimed() {
    let mut peer = Peer::new(1, 48, 1 << 20);
    let node = node(1);
    node.disk.hold_syncs();
    let mut target = node.seed(NEW).unwrap();
    let more = |target: &mut Target, peer: &mut Peer, until: u64| {
        while target.received_bytes() < until {
            advance(target, peer, Millis(0), &mut Some).unwrap();
        }
        target.progress().bytes
    };
    assert_eq!(more(&mut target, &mut peer, SYNC_BYTES + (8 << 20)), 0, "the sync is under way");
    assert!(node.disk.sync_held() > 0, "a sync was begun");
    let synced = more(&mut target, &mut peer, SYNC_BYTES + (12 << 20));
    assert!((SYNC_BYTES..SYNC_BYTES + (8 << 20)).contains(&synced), "{synced}");
    drop(target);
    let node = node.end(End::PowerLoss);
    peer.restart();
    let mut target = node.seed(NEW).unwrap();
    assert_eq!(target.progress().bytes, synced);
    build(&mut target, &mut peer).unwrap();
}

#[test]
fn another_source_takes_over_and_the_copy_is_the_second_one_s() {
    let (mut first, mut second) = (Peer::new(1, 40, 1 << 20), Peer::new(2, 44, 1 << 20));
    let mut node = node(1);
    let mut target = node.seed(NEW).unwrap();
    while target.progress().bytes == 0 {
        advance(&mut target, &mut first, Millis(0), &mut Some).unwrap();
    }
    let shown = target.progress();
    target.disconnected();
    build(&mut target, &mut second).unwrap();
    never_back(shown, target.progress());
    assert_eq!(target.manifest().unwrap().origin, second.origin);
    drop(target);
    let copy = install(&install_order(&node, NEW), &node.engine()).unwrap();
    assert_eq!(all_rows(&*copy.state), all_rows(&*second.store));
    node.close(copy);
}

#[test]
fn a_new_checkpoint_of_the_same_files_costs_digests_and_not_bytes() {
    let mut peer = Peer::new(1, 40, 1 << 20);
    let node = node(1);
    let mut target = node.seed(NEW).unwrap();
    while target.progress().bytes == 0 {
        advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
    }
    let durable = target.progress().bytes;
    let old = target.manifest().unwrap().checkpoint;
    peer.source.remove(old).unwrap();
    let before = target.received_bytes();
    build(&mut target, &mut peer).unwrap();
    let manifest = target.manifest().unwrap();
    assert_ne!(manifest.checkpoint, old);
    let sent = target.received_bytes() - before;
    assert!(sent <= manifest.total_bytes() - durable, "{sent} bytes after {durable} were durable");
}

/// A target that has everything and has not asked yet whether that is new enough.
fn with_everything(node: &Node, peer: &mut Peer) -> Target {
    let mut target = node.seed(NEW).unwrap();
    let whole = |target: &Target| {
        let total = target.manifest().map(|manifest| manifest.total_bytes());
        total == Some(target.progress().bytes)
    };
    while !whole(&target) {
        advance(&mut target, peer, Millis(0), &mut Some).unwrap();
    }
    target
}

#[test]
fn a_checkpoint_that_the_log_left_behind_meanwhile_is_renewed() {
    let mut peer = Peer::new(1, 20, 1 << 20);
    let mut node = node(1);
    let mut target = with_everything(&node, &mut peer);
    for (n, index) in [(100, 70), (200, 80)] {
        fill(&*peer.store, n, 2, 1 << 20, index);
        let old = target.manifest().unwrap().checkpoint;
        peer.source.remove(old).unwrap();
        while target.manifest().unwrap().checkpoint == old {
            advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
        }
    }
    build(&mut target, &mut peer).unwrap();
    assert_eq!(target.manifest().unwrap().position.0.index, 80);
    drop(target);
    let copy = install(&install_order(&node, NEW), &node.engine()).unwrap();
    assert_eq!(all_rows(&*copy.state), all_rows(&*peer.store));
    node.close(copy);
}

#[test]
fn a_source_that_writes_faster_than_it_sends_is_not_followed_for_ever() {
    let mut peer = Peer::new(1, 4, 1 << 20);
    let node = node(1);
    let mut target = with_everything(&node, &mut peer);
    for index in 70.. {
        fill(&*peer.store, index, 1, 1 << 20, index);
        let ids: Vec<_> = peer.source.checkpoints().map(|held| held.checkpoint).collect();
        ids.into_iter().for_each(|id| peer.source.remove(id).unwrap());
        if target.is_built() {
            break;
        }
        let asked = peer.taken;
        while !target.is_built() && peer.taken == asked {
            advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
        }
        assert!(peer.taken < 9, "it is renewed again and again");
        while !target.is_built() && target.progress().bytes < target.progress().total {
            advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
        }
    }
    assert!(peer.taken > 1, "it was renewed");
}

#[test]
fn what_is_whole_is_taken_though_nobody_says_whether_it_is_new_enough() {
    let mut peer = Peer::new(1, 20, 1 << 20);
    let node = node(1);
    let mut target = with_everything(&node, &mut peer);
    let mut lost = 0;
    let mut silent = |reply| {
        lost += 1;
        drop::<Reply>(reply);
        None
    };
    while !target.is_built() {
        advance(&mut target, &mut peer, Millis(0), &mut silent).unwrap();
    }
    assert_eq!((lost, peer.taken), (1, 1));
    // Nor is what is newer waited for where it has no room.
    let (node, mut peer) = (Node::new(2), Peer::new(2, 20, 1 << 20));
    let mut target = with_everything(&node, &mut peer);
    fill(&*peer.store, 100, 40, 1 << 20, 90);
    let old = target.manifest().unwrap().checkpoint;
    peer.source.remove(old).unwrap();
    node.disk.sim.set_capacity(30 << 20);
    build(&mut target, &mut peer).unwrap();
    assert_eq!(target.manifest().unwrap().checkpoint, old);
}

/// Replies whose nth frame is changed.
fn flip(
    nth: usize,
    what: impl Fn(&mut seeding::wire::Frame),
) -> impl FnMut(Reply) -> Option<Reply> {
    let mut seen = 0;
    move |mut reply| {
        if let Reply::Frame(frame) = &mut reply {
            if seen == nth {
                what(frame);
            }
            seen += 1;
        }
        Some(reply)
    }
}

#[test]
fn any_bit_flipped_in_flight_is_found_and_sent_again() {
    let frames = (9 << 20) / FRAME_BYTES;
    for nth in 0..frames {
        let mut peer = Peer::new(1, 9, 1 << 20);
        let node = Node::new(1);
        let mut target = node.seed(NEW).unwrap();
        let mut mangle = flip(nth, |frame| {
            let mut bytes = frame.bytes.to_vec();
            let at = (nth * 977) % bytes.len();
            bytes[at] ^= 1 << (nth % 8);
            // Every other time the damage comes with a checksum that fits, as from a broken host.
            let end = frame.end;
            match nth % 2 {
                0 => frame.bytes = bytes.into(),
                _ => {
                    *frame = seeding::wire::Frame::new(frame.file, frame.offset, bytes.into(), end)
                }
            }
        });
        loop {
            match advance(&mut target, &mut peer, Millis(0), &mut mangle).unwrap() {
                Went::Built => break,
                Went::On => {}
            }
        }
        drop(target);
        let copy = install(&install_order(&node, NEW), &node.engine()).unwrap();
        assert_eq!(all_rows(&*copy.state), all_rows(&*peer.store), "frame {nth}");
    }
}

#[test]
fn damage_without_end_is_given_up_with_the_file_and_the_place() {
    let mut peer = Peer::new(1, 3, 1 << 20);
    let node = Node::new(1);
    let mut target = node.seed(NEW).unwrap();
    let mut broken = |reply| {
        let Reply::Frame(mut frame) = reply else { return Some(reply) };
        frame.crc ^= 1;
        Some(Reply::Frame(frame))
    };
    let fault =
        (0..1000).find_map(|_| advance(&mut target, &mut peer, Millis(0), &mut broken).err());
    assert!(matches!(fault, Some(SeedFault::Wire(_))), "{fault:?}");
    assert!(fault.unwrap().to_string().contains(".full at 0 arrived damaged"));
}

#[test]
fn a_bit_that_rots_in_what_an_earlier_life_left_is_found_and_fetched_again() {
    for (seed, range) in [(1, 0_u64), (2, 1), (3, 2)] {
        let mut peer = Peer::new(seed, 10, 1 << 20);
        let node = Node::new(seed);
        let mut target = node.seed(NEW).unwrap();
        while target.progress().phase < Phase::Verifying {
            advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
        }
        let file = target.folder().join("state").join(&target.manifest().unwrap().files[0].name);
        drop(target);
        node.disk.sim.flip_bit(&file, range * RANGE_BYTES + 4711, 3).unwrap();
        let mut target = node.seed(NEW).unwrap();
        build(&mut target, &mut peer).unwrap();
        let again = target.received_bytes();
        assert!(again > 0 && again <= RANGE_BYTES, "{again} bytes were fetched again");
        drop(target);
        let copy = install(&install_order(&node, NEW), &node.engine()).unwrap();
        assert_eq!(all_rows(&*copy.state), all_rows(&*peer.store));
    }
}

#[test]
fn a_source_of_something_else_or_too_old_is_refused_and_nothing_is_staged() {
    let node = Node::new(1);
    let refused = |change: &dyn Fn(&mut Peer), at_least| {
        let mut peer = Peer::new(1, 2, 1000);
        change(&mut peer);
        let folder = seed_folder(&node.place.folder, ReplicaId(NEW));
        let mut order = node.order(NEW);
        order.at_least = at_least;
        let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
        let mut target = seeding::target::Target::open(disk, &folder, order).unwrap();
        let fault = build(&mut target, &mut peer).unwrap_err();
        assert_eq!(target.received_bytes(), 0);
        target.cancel().unwrap();
        assert!(!node.disk.exists(&folder).unwrap());
        fault.to_string()
    };
    let other_dag = refused(&|peer| peer.origin.dag = DagId([9; 16]), None);
    assert!(other_dag.contains("the source's DAG is"), "{other_dag}");
    let other = refused(&|peer| peer.origin.database = DatabaseId(17), None);
    assert!(other.contains("the source's database is 17, not 16"), "{other}");
    let old = refused(&|_| (), Some(position(900).0));
    assert!(old.contains("choose another source"), "{old}");
}

#[test]
fn a_volume_that_is_too_small_is_known_before_a_byte_is_sent() {
    let mut peer = Peer::new(1, 4, 1 << 20);
    let node = Node::new(1);
    node.disk.sim.set_capacity(2 << 20);
    let mut target = node.seed(NEW).unwrap();
    let fault = build(&mut target, &mut peer).unwrap_err();
    assert!(matches!(fault, SeedFault::TooSmall { .. }), "{fault}");
    assert_eq!(target.received_bytes(), 0);
}

#[test]
fn a_seed_has_one_owner_and_belongs_to_one_replica() {
    let node = Node::new(1);
    let target = node.seed(NEW).unwrap();
    assert!(matches!(node.seed(NEW), Err(SeedFault::InUse { .. })));
    let folder = target.folder().to_owned();
    drop(target);
    let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
    let other = seeding::target::Target::open(disk, &folder, node.order(10));
    assert!(matches!(other, Err(SeedFault::OtherSeed { .. })));
}

#[test]
fn a_seed_that_is_not_built_is_never_installed() {
    let mut peer = Peer::new(1, 6, 1 << 20);
    let node = Node::new(1);
    let mut target = node.seed(NEW).unwrap();
    while target.progress().phase < Phase::Verifying {
        advance(&mut target, &mut peer, Millis(0), &mut Some).unwrap();
    }
    drop(target);
    let early = install(&install_order(&node, NEW), &node.engine()).map(drop);
    assert!(matches!(early, Err(SeedFault::Order { .. })), "{early:?}");
}

#[test]
fn several_targets_share_a_checkpoint_which_goes_when_the_last_lease_ends() {
    let mut peer = Peer::new(1, 3, 1000);
    let (one, two) = (ReplicaId(1), ReplicaId(2));
    let open = Request::Open { known: None };
    assert_eq!(peer.source.serve(Millis(0), one, &open), Ok(Served::NeedsCheckpoint));
    peer.take(Millis(0));
    let first = peer.source.serve(Millis(0), one, &open).unwrap();
    assert_eq!(peer.source.serve(Millis(400_000), two, &open).unwrap(), first);
    assert_eq!(peer.source.expire(Millis(900_000)), Ok(0), "the second still holds it");
    assert_eq!(peer.source.expire(Millis(1_000_001)), Ok(1));
    let checkpoint = match first {
        Served::Replies(replies) => match &replies[0] {
            Reply::Opened(manifest) => manifest.checkpoint,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let read = Request::Read { checkpoint, file: 0, range: 0 };
    let gone = Served::Replies(vec![Reply::Refused(Refusal::Gone)]);
    assert_eq!(peer.source.serve(Millis(1_000_002), two, &read).unwrap(), gone);
    assert!(!peer.disk.exists(&peer.source.files_of(checkpoint)).unwrap());
}

#[test]
fn a_source_under_a_limit_says_when_to_ask_again() {
    let mut peer = Peer::new(1, 12, 1 << 20);
    peer.take(Millis(0));
    peer.source.set_limit(Some(1 << 20), Millis(0));
    let manifest = peer.source.checkpoints().next().unwrap().clone();
    let read = |range| Request::Read { checkpoint: manifest.checkpoint, file: 0, range };
    let (mut now, mut sent) = (Millis(0), 0);
    for range in 0..manifest.files[0].ranges() {
        loop {
            match peer.source.serve(now, ReplicaId(1), &read(range)).unwrap() {
                Served::Later(later) => now = later,
                Served::Replies(_) => break,
                Served::NeedsCheckpoint => panic!("it has one"),
            }
        }
        sent += manifest.files[0].range_bytes(range);
    }
    let last = manifest.files[0].range_bytes(manifest.files[0].ranges() - 1);
    assert!(now.0 >= (sent - last) * 1000 / (1 << 20) - 200, "{now} for {sent} bytes");
    assert_eq!(RateLimit::none().take(now, 1), Ok(()));
}
