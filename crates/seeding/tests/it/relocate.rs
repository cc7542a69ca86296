//! A copy moves to another path of its node.

use std::path::Path;

use dag_types::Millis;
use seeding::SeedFault;
use seeding::install::is_installed;
use seeding::relocate::{MoveOrder, MoveStep, Relocation, check_path};
use seeding::wire::CheckpointId;
use storage::copy_directory::CopyPlace;
use storage::disk::{Disk, RealDisk};

use crate::common::*;

const OLD: u64 = 3;
const NEW: u64 = 9;
const TO: &str = "/other/db-16";

fn node(seed: u64) -> Node {
    let mut node = Node::new(seed);
    let old = node.create(OLD);
    fill(&*old.state, 77, 6, 1 << 20, 7);
    node.close(old);
    node.disk.create_dir_all(Path::new("/other")).unwrap();
    node.disk.sync_dir(Path::new("/")).unwrap();
    node
}

fn to(node: &Node) -> CopyPlace {
    CopyPlace { folder: TO.into(), ..node.place.clone() }
}

fn order(node: &Node) -> MoveOrder {
    MoveOrder {
        from: node.place.clone(),
        to: to(node),
        old: node.identity(OLD),
        new: node.identity(NEW),
        membership_key: MEMBERS.to_vec(),
        limit: None,
        reserve_bytes: 0,
    }
}

fn killed() -> SeedFault {
    SeedFault::Order { what: "close a copy", why: "killed" }
}

/// The whole move; `copies` says how many copies could be opened at each step.
fn relocate(node: &mut Node, end_after: Option<MoveStep>) -> Result<(), SeedFault> {
    let mut relocation = Relocation::open(order(node))?;
    let mut admitted = false;
    loop {
        let step = relocation.next(admitted)?;
        match step {
            MoveStep::Checkpoint => {
                let old = node.open(OLD)?;
                let id = CheckpointId(u128::from(node.place.root.identity().boot.counter));
                relocation.checkpoint(Millis(0), id, &*old.state, &node.engine())?;
                drop(old);
            }
            MoveStep::Stage => {
                relocation.stage(Millis(0))?;
            }
            MoveStep::Install => drop(relocation.install(&node.engine())?),
            MoveStep::Admit => admitted = true,
            MoveStep::Retire => relocation.retire(Millis(1))?,
            MoveStep::Done => return Ok(()),
        }
        if node.disk.is_burnt() {
            return Err(killed());
        }
        node.settle();
        if end_after == Some(step) {
            return Ok(());
        }
    }
}

fn opens(node: &mut Node, place: &CopyPlace, replica: u64) -> bool {
    let identity = node.identity(replica);
    if !is_installed(place, &identity).unwrap() {
        return false;
    }
    let engine = node.engine();
    let copy = storage::copy_directory::CopyDirectory::open(place, identity, &engine).unwrap();
    let rows = all_rows(&*copy.state).len();
    assert_eq!(rows, 6 * 2 + 2);
    node.close(copy);
    true
}

fn ended_everywhere(end: End, undo: bool) {
    let (mut killed, mut undone) = (0, 0);
    for fuse in 0.. {
        let mut node = node(fuse);
        node.disk.burn_after(fuse);
        let first = relocate(&mut node, None);
        if !node.disk.is_burnt() {
            first.unwrap();
            break;
        }
        killed += 1;
        let mut node = node.end(end);
        let (from, to) = (node.place.clone(), to(&node));
        let old = opens(&mut node, &from, OLD);
        let new = opens(&mut node, &to, NEW);
        assert!(old || new, "{end:?} at {fuse}: no copy is left");
        if undo && old {
            undone += 1;
            let relocation = Relocation::open(order(&node)).unwrap();
            relocation.roll_back(Millis(5)).unwrap_or_else(|fault| panic!("at {fuse}: {fault}"));
            assert!(opens(&mut node, &from, OLD), "{end:?} at {fuse}: the old copy is as it was");
            assert!(!is_installed(&to, &node.identity(NEW)).unwrap());
            assert!(!node.disk.exists(&from.folder.join("move-source")).unwrap());
            continue;
        }
        relocate(&mut node, None).unwrap_or_else(|fault| panic!("{end:?} at {fuse}: {fault}"));
        assert!(opens(&mut node, &to, NEW));
        assert!(!is_installed(&from, &node.identity(OLD)).unwrap());
        assert!(!node.disk.exists(&from.folder.join("move-source")).unwrap());
        assert!(!node.disk.exists(&Path::new(TO).join("seed-9")).unwrap());
    }
    assert!(killed > 40, "only {killed} operations were tried");
    assert!(!undo || undone > 30, "only {undone} moves were undone");
}

#[test]
fn a_move_that_is_killed_anywhere_goes_on_and_a_copy_opens_at_any_moment() {
    ended_everywhere(End::Kill, false);
}

#[test]
fn a_move_that_loses_power_anywhere_goes_on_and_a_copy_opens_at_any_moment() {
    ended_everywhere(End::PowerLoss, false);
}

#[test]
fn a_move_that_ended_anywhere_is_undone_as_long_as_the_old_copy_stands() {
    ended_everywhere(End::Kill, true);
    ended_everywhere(End::PowerLoss, true);
}

#[test]
fn on_one_file_system_no_byte_is_copied_and_the_new_copy_owns_its_files() {
    let mut node = node(1);
    let before = node.disk.sim.used_bytes();
    relocate(&mut node, Some(MoveStep::Admit)).unwrap();
    let grown = node.disk.sim.used_bytes() - before;
    // The checkpoint of a map is a file of its own; the new copy shares it.
    assert!(grown < 8 << 20, "{grown} bytes more");
    relocate(&mut node, None).unwrap();
    let (from, to) = (node.place.clone(), to(&node));
    assert!(opens(&mut node, &to, NEW) && !opens(&mut node, &from, OLD));
}

#[test]
fn after_the_old_copy_is_retired_there_is_no_way_back() {
    let mut node = node(1);
    relocate(&mut node, None).unwrap();
    let relocation = Relocation::open(order(&node)).unwrap();
    assert!(matches!(relocation.roll_back(Millis(5)), Err(SeedFault::Order { .. })));
}

#[test]
fn a_path_that_cannot_be_used_is_refused_before_anything_changes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let disk = RealDisk::new();
    let from = root.join("db-16");
    for folder in ["db-16", "full", "empty", "left"] {
        disk.create_dir_all(&root.join(folder)).unwrap();
    }
    std::fs::write(root.join("full/mail"), b"x").unwrap();
    std::fs::write(root.join("file"), b"x").unwrap();
    std::fs::create_dir(root.join("left/seed-9")).unwrap();
    std::os::unix::fs::symlink(&from, root.join("link")).unwrap();
    let why = |to: &Path| check_path(&disk, &from, to).map_err(|fault| fault.to_string());
    assert_eq!(why(&root.join("empty")), Ok(()));
    assert_eq!(why(&root.join("new/below")), Ok(()));
    assert_eq!(why(&root.join("left")), Ok(()), "what an undone move left is no hindrance");
    for (to, part) in [
        (root.join("full"), "not empty"),
        (root.join("file"), "it is a file"),
        (from.clone(), "inside the other"),
        (from.join("inside"), "inside the other"),
        (root.clone(), "inside the other"),
        (root.join("link/x"), "symbolic link"),
        (root.join("empty/../x"), "without dots"),
        ("relative".into(), "absolute"),
    ] {
        let refused = why(&to).unwrap_err();
        assert!(refused.contains(part), "{}: {refused}", to.display());
    }
}
