//! I1: one lineage. I2: one content per index, one acknowledging leader per term.

use std::collections::BTreeMap;

use dag_types::Lineage;

use super::{Evidence, Looking, Step};
use crate::Nanos;
use crate::history::History;
use crate::journal::{CopyOf, Event};
use crate::op::Op;

/// I1: once a client counted an answer in a newer lineage, nobody counts one in an older. Two
/// activations of one epoch that both answer are two lineages, whichever came first.
pub(super) fn one_lineage(looking: &mut Looking<'_>, history: &History) -> Step {
    let rejected = |lineage: Lineage| {
        history.run.rejected_activations.contains(&lineage.activation.to_string())
    };
    let mut answers: Vec<(Nanos, Nanos, Lineage, u64)> = history
        .operations
        .iter()
        .filter_map(|o| Some((o.invoked, o.acknowledged()?, o.token()?.lineage, o.id)))
        .filter(|(_, _, lineage, _)| !rejected(*lineage))
        .collect();
    one_activation_per_epoch(looking, &answers)?;
    let mut by_return = answers.clone();
    by_return.sort_by_key(|answer| answer.1);
    answers.sort_by_key(|answer| answer.0);
    let mut over = by_return.into_iter().peekable();
    let mut newest: Option<(Lineage, u64)> = None;
    for (invoked, _, lineage, id) in answers {
        looking.one();
        while let Some(next) = over.next_if(|next| next.1 < invoked) {
            if newest.is_none_or(|(newest, _)| newest.epoch < next.2.epoch) {
                newest = Some((next.2, next.3));
            }
        }
        if let Some((newest, by)) = newest
            && lineage.epoch < newest.epoch
        {
            looking.breach(
                format!("older lineage {by} {id}"),
                format!("an answer counted in lineage {lineage}, after one in {newest}"),
                vec![Evidence::Operation(by), Evidence::Operation(id)],
            )?;
        }
    }
    Ok(())
}

fn one_activation_per_epoch(
    looking: &Looking<'_>,
    answers: &[(Nanos, Nanos, Lineage, u64)],
) -> Step {
    let mut activations: BTreeMap<u64, (Lineage, u64)> = BTreeMap::new();
    for &(_, _, lineage, id) in answers {
        let (first, by) = *activations.entry(lineage.epoch).or_insert((lineage, id));
        if first != lineage {
            looking.breach(
                format!("two lineages of epoch {}", lineage.epoch),
                format!("answers counted in lineage {first} and in {lineage}: an undeclared fork"),
                vec![Evidence::Operation(by), Evidence::Operation(id)],
            )?;
        }
    }
    Ok(())
}

/// I2.
pub(super) fn one_content_one_leader(looking: &mut Looking<'_>, history: &History) -> Step {
    by_the_nodes(looking, history)?;
    by_the_clients(looking, history)
}

fn by_the_nodes(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut contents: BTreeMap<(u64, u32, u64), (&str, usize)> = BTreeMap::new();
    let mut leaders: BTreeMap<(u64, u32, u64), (CopyOf, usize)> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        let Event::Acknowledged { copy, term, index, chain, .. } = &entry.event else { continue };
        looking.one();
        let CopyOf { database, generation, .. } = *copy;
        let (first, by) =
            *contents.entry((database, generation, *index)).or_insert((chain, position));
        if first != chain {
            looking.breach(
                format!("two contents {database} {generation} {index}"),
                format!("database {database} index {index} was acknowledged with two contents"),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
        let (first, by) =
            *leaders.entry((database, generation, *term)).or_insert((*copy, position));
        if first.replica != copy.replica {
            looking.breach(
                format!("two leaders {database} {generation} {term}"),
                format!(
                    "database {database} term {term}: replicas {} and {} both acknowledged",
                    first.replica, copy.replica
                ),
                vec![Evidence::Journal(by), Evidence::Journal(position)],
            )?;
        }
    }
    Ok(())
}

/// Two different acknowledged appends never stand at one index.
fn by_the_clients(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut writes: BTreeMap<(u64, u32, u64), u64> = BTreeMap::new();
    for operation in &history.operations {
        let (Op::Append { .. }, Some(token)) = (&operation.op, operation.token()) else { continue };
        looking.one();
        let at = (token.database, token.generation, token.index);
        if let Some(first) = writes.insert(at, operation.id) {
            looking.breach(
                format!("two appends {at:?}"),
                format!("two appends were acknowledged at (database, generation, index) {at:?}"),
                vec![Evidence::Operation(first), Evidence::Operation(operation.id)],
            )?;
        }
    }
    Ok(())
}
