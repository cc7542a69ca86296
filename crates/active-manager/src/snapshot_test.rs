//! Who takes snapshots, when, and which are kept.

use alloc::vec;

use super::*;
use crate::control::Order;
use crate::control::command::{CopySuspension, SetPreference};
use crate::scene::Scene;

const HOUR: u64 = 3_600_000;
const DAY: Millis = Millis(24 * HOUR);
const NOW: Millis = Millis(1_700_000_000_000);

fn scene() -> Scene {
    Scene::new("A1 A2 B3 B4 C5w", &["DB1"])
}

fn known(active: u64, lost: &[u64]) -> Vec<Candidate> {
    let one = |node| Candidate {
        node: NodeId(node),
        sound: !lost.contains(&node),
        active: node == active,
    };
    (1..=4).map(one).collect()
}

fn choice(scene: &Scene, active: u64, lost: &[u64]) -> Option<u64> {
    let database = scene.database("DB1");
    taker(&scene.control, &database, &known(active, lost)).map(|node| node.0)
}

#[test]
fn the_least_preferred_sound_passive_copy_takes_snapshots() {
    let scene = scene();
    let order: Vec<u64> =
        scene.control.preference(&scene.database("DB1")).iter().map(|node| node.0).collect();
    let [first, .., third, last] = order[..] else { panic!("four copies: {order:?}") };
    assert_eq!(choice(&scene, first, &[]), Some(last));
    assert_eq!(choice(&scene, last, &[]), Some(third), "never the active copy");
    assert_eq!(choice(&scene, first, &[last]), Some(third), "nor one that is not heard");
}

#[test]
fn suspended_copies_take_none_and_the_active_one_only_where_it_is_alone() {
    let mut scene = scene();
    let order = scene.control.preference(&scene.database("DB1"));
    let (database, last) = (scene.database("DB1").database, order[order.len() - 1].0);
    let active = order[0].0;
    let suspension = CopySuspension { database, node: last, ..CopySuspension::default() };
    scene.done(Order::SuspendCopy(suspension));
    let next = choice(&scene, active, &[]);
    assert!(next.is_some() && next != Some(last) && next != Some(active), "{next:?}");
    let others: Vec<u64> = order.iter().map(|node| node.0).filter(|n| *n != active).collect();
    assert_eq!(choice(&scene, active, &others), None, "the others come back");
    let mut alone = scene.database("DB1");
    alone.replicas.retain(|replica| replica.node == active);
    let chosen = taker(&scene.control, &alone, &known(active, &[]));
    assert_eq!(chosen, Some(NodeId(active)));
}

#[test]
fn the_choice_follows_the_activation_preference() {
    let mut scene = scene();
    let database = scene.database("DB1").database;
    scene.done(Order::SetPreference(SetPreference { database, nodes: vec![4, 3, 2, 1] }));
    assert_eq!(choice(&scene, 4, &[]), Some(1));
}

fn kept(id: u32, hours_ago: u64) -> Kept<u32> {
    let taken = NOW.saturating_sub(Millis(hours_ago * HOUR));
    Kept { id, taken, protected: false, scheduled: true, bad: false }
}

#[test]
fn one_is_due_when_the_newest_of_the_schedule_is_old_enough() {
    let young = NOW.saturating_sub(Millis(HOUR));
    let due = |kept: &[Kept<u32>], since| is_due(kept, since, DAY, NOW);
    assert!(!due(&[], young), "a database of an hour has none yet");
    assert!(due(&[], Millis(0)));
    assert!(!due(&[kept(1, 23), kept(2, 50)], Millis(0)));
    assert!(due(&[kept(1, 24), kept(2, 50)], Millis(0)));
    let by_hand = Kept { scheduled: false, ..kept(1, 1) };
    assert!(due(&[by_hand], Millis(0)), "one by hand is nobody's schedule");
    assert!(due(&[Kept { bad: true, ..kept(1, 1) }], Millis(0)), "a damaged one is none");
    let of_the_future = Kept { taken: Millis(NOW.0 + HOUR), ..kept(1, 0) };
    assert!(due(&[of_the_future], Millis(0)));
    assert!(!is_due::<u32>(&[], Millis(0), Millis(0), NOW), "switched off");
}

#[test]
fn the_newest_of_each_of_three_days_is_kept_and_nothing_older() {
    let gone = |kept: &[Kept<u32>]| expired(kept, DAY, 3, NOW);
    assert_eq!(gone(&[kept(1, 0), kept(2, 24), kept(3, 48), kept(4, 72)]), [4]);
    assert_eq!(gone(&[kept(1, 1), kept(2, 5), kept(3, 30), kept(4, 47), kept(5, 90)]), [5, 4, 2]);
    let bad = Kept { bad: true, ..kept(1, 1) };
    assert_eq!(gone(&[bad, kept(2, 5)]), [1], "a damaged one takes no sound one's place");
    assert_eq!(expired(&[kept(1, 999)], Millis(0), 3, NOW), Vec::<u32>::new());
}

#[test]
fn day_by_day_there_are_never_less_than_three_and_the_oldest_is_two_days_old() {
    let mut all: Vec<Kept<u32>> = Vec::new();
    for hour in 0..1_000_u64 {
        let now = Millis(NOW.0 + hour * HOUR + 11);
        if is_due(&all, Millis(0), DAY, now) {
            let id = hour as u32;
            all.push(Kept { id, taken: now, protected: false, scheduled: true, bad: false });
        }
        let gone = expired(&all, DAY, 3, now);
        all.retain(|kept| !gone.contains(&kept.id));
        assert!(all.len() <= 3, "{all:?}");
        if hour >= 72 {
            assert_eq!(all.len(), 3, "hour {hour}: {all:?}");
            let oldest = all.iter().map(|kept| now.saturating_sub(kept.taken).0 / HOUR).max();
            assert!((48..72).contains(&oldest.unwrap()), "{oldest:?}");
        }
    }
}

#[test]
fn what_is_protected_stays_and_what_a_person_took_is_not_thinned() {
    let by_hand = |id, hours| Kept { scheduled: false, ..kept(id, hours) };
    let protected = Kept { protected: true, ..by_hand(9, 5_000) };
    let all = [kept(1, 1), by_hand(2, 2), by_hand(3, 71), by_hand(4, 72), protected];
    assert_eq!(expired(&all, DAY, 3, NOW), [4]);
    assert_eq!(squeezed(&all), Some(4));
    assert_eq!(squeezed(&[protected]), None);
    let bad = Kept { bad: true, ..kept(5, 1) };
    assert_eq!(squeezed(&[kept(1, 50), bad]), Some(5), "a damaged one goes first");
}

#[test]
fn notes_on_snapshots_stand_in_the_audit_and_nothing_else_changes() {
    use crate::control::command::{NoteSnapshot, SnapshotNote};
    let mut scene = scene();
    let before = scene.control.clone();
    let note = |snapshot: &str, node, what: SnapshotNote| {
        let database = 16;
        let snapshot = snapshot.into();
        Order::NoteSnapshot(NoteSnapshot { database, node, snapshot, what: what.into() })
    };
    let id = "0123456789abcdef0123456789abcdef";
    scene.done(note(id, 2, SnapshotNote::Dropped));
    let rows = crate::control::state::audit(&scene.state, 0, 1000).unwrap();
    let row = rows.last().unwrap();
    assert_eq!(row.action, "drop snapshot");
    assert_eq!(row.object, alloc::format!("snapshot {id} of database 16 on node 2"));
    assert_eq!(scene.refused(note("x", 2, SnapshotNote::Taken)), "snapshot-id");
    assert_eq!(scene.refused(note(id, 2, SnapshotNote::Unspecified)), "snapshot-note");
    assert!(scene.refused(note(id, 77, SnapshotNote::Taken)).contains("UnknownNode"));
    assert_eq!(scene.control, before);
}
