//! I3: lineage, vote and boot never go back on a node, a client or a disk.

use std::collections::BTreeMap;

use super::{Evidence, Looking, Step};
use crate::history::History;
use crate::journal::{BootOf, Event};

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    boots_grow(looking, history)?;
    lineages_of_nodes_grow(looking, history)?;
    votes_grow(looking, history)?;
    lineages_of_clients_grow(looking, history)
}

/// A store's boot counter grows with each start; one counter never has two ids.
fn boots_grow(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut last: BTreeMap<&str, (BootOf, usize)> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        let Event::Started { store } = &entry.event else { continue };
        looking.one();
        if let Some((before, by)) = last.insert(store, (entry.boot, position))
            && entry.boot.counter <= before.counter
        {
            looking.breach(
                format!("boot went back {store}"),
                format!(
                    "store {store} started with boot {} after boot {}",
                    entry.boot.counter, before.counter
                ),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
    }
    Ok(())
}

fn lineages_of_nodes_grow(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut last: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        let Some(lineage) = entry.lineage else { continue };
        looking.one();
        if let Some((before, by)) = last.insert(entry.node, (lineage.0.epoch, position))
            && lineage.0.epoch < before
        {
            looking.breach(
                format!("lineage went back on node {}", entry.node),
                format!(
                    "node {} knew epoch {before} and then only {}",
                    entry.node, lineage.0.epoch
                ),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
    }
    Ok(())
}

/// A copy votes once in a term, and never in an older one.
fn votes_grow(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut last: BTreeMap<(u64, u64), (u64, u64, usize)> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        let Event::Voted { copy, term, voted_for } = &entry.event else { continue };
        looking.one();
        let key = (copy.database, copy.replica);
        if let Some((before, whom, by)) = last.insert(key, (*term, *voted_for, position))
            && (*term < before || (*term == before && *voted_for != whom))
        {
            looking.breach(
                format!("vote went back {key:?}"),
                format!(
                    "database {} replica {}: voted for {whom} in term {before}, then for \
                     {voted_for} in term {term}",
                    copy.database, copy.replica
                ),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
    }
    Ok(())
}

fn lineages_of_clients_grow(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut answers: Vec<_> = history
        .operations
        .iter()
        .filter_map(|o| Some((o.acknowledged()?, o.client, o.token()?.lineage.epoch, o.id)))
        .collect();
    answers.sort_unstable();
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (_, client, epoch, id) in answers {
        looking.one();
        if let Some((before, by)) = last.insert(client, (epoch, id))
            && epoch < before
        {
            looking.breach(
                format!("lineage went back for client {client}"),
                format!("client {client} counted an answer of epoch {before}, then of {epoch}"),
                vec![Evidence::Operation(by), Evidence::Operation(id)],
            )?;
        }
    }
    Ok(())
}
