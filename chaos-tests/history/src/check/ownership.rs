//! I14: a replica id belongs to one store for ever; a directory has one owner at a time.

use std::collections::BTreeMap;

use super::{Evidence, Looking, Step};
use crate::history::History;
use crate::journal::{CopyOf, Event};

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    one_store_per_replica(looking, history)?;
    one_owner_per_directory(looking, history)
}

fn one_store_per_replica(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut stores: BTreeMap<(u64, u64), (&str, usize)> = BTreeMap::new();
    let mut born: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        let (copy, store, birth) = match &entry.event {
            Event::ReplicaBorn { copy, store, .. } => (copy, store, true),
            Event::ReplicaOpened { copy, store, .. } => (copy, store, false),
            _ => continue,
        };
        looking.one();
        let key = (copy.database, copy.replica);
        let (first, by) = *stores.entry(key).or_insert((store, position));
        if first != store {
            looking.breach(
                format!("replica on two stores {key:?}"),
                format!(
                    "database {} replica {} was on store {first} and on store {store}",
                    copy.database, copy.replica
                ),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
        if let (true, Some(by)) = (birth, born.get(&key).copied()) {
            looking.breach(
                format!("replica id used twice {key:?}"),
                format!("database {} replica {} was made twice", copy.database, copy.replica),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
        if birth {
            born.insert(key, position);
        }
    }
    Ok(())
}

/// A start of a node ends what the start before it owned: its process is gone.
fn one_owner_per_directory(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut owners: BTreeMap<(u64, &str), (CopyOf, usize)> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        match &entry.event {
            Event::Started { .. } | Event::Stopped => {
                owners.retain(|(node, _), _| *node != entry.node);
            }
            Event::ReplicaClosed { path, .. } => {
                owners.remove(&(entry.node, path.as_str()));
            }
            Event::ReplicaOpened { copy, path, .. } => {
                looking.one();
                if let Some((_, by)) = owners.insert((entry.node, path), (*copy, position)) {
                    looking.breach(
                        format!("two owners {} {path}", entry.node),
                        format!("node {}: {path} was opened while it was open", entry.node),
                        vec![Evidence::Journal(by), Evidence::Journal(position)],
                    )?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
