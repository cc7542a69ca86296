//! I4: each counted answer had an open gate from request to deadline. I5: each opening of a gate
//! names a committed grant of its lineage.

use std::collections::BTreeMap;

use dag_types::DatabaseId;

use super::{Evidence, Looking, Step};
use crate::Nanos;
use crate::history::History;
use crate::journal::{BootOf, Entry, Event, GateLease};

/// I4.
pub(super) fn open_while_answering(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut open: BTreeMap<u64, (Nanos, usize)> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        match &entry.event {
            Event::Started { .. } | Event::Stopped | Event::GateClosed { .. } => {
                open.remove(&entry.node);
            }
            Event::GateOpened(lease) | Event::GateExtended(lease) => {
                looking.one();
                within_its_request(looking, entry, lease, position)?;
                open.insert(entry.node, (lease.until, position));
            }
            // What opens gates is not gated itself.
            Event::Acknowledged { copy, .. } if copy.database == DatabaseId::CONTROL.0 => {}
            Event::Acknowledged { deadline, request, .. } => {
                looking.one();
                let lease = open.get(&entry.node).copied();
                answer_is_covered(looking, entry, position, lease, *deadline, request)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn within_its_request(
    looking: &Looking<'_>,
    entry: &Entry,
    lease: &GateLease,
    position: usize,
) -> Step {
    if lease.until <= lease.sent.saturating_add(lease.ttl) {
        return Ok(());
    }
    looking.breach(
        format!("lease too long {} {}", entry.node, lease.grant),
        format!("node {}: a lease ends after its request was sent + its length", entry.node),
        vec![Evidence::Journal(position)],
    )
}

fn answer_is_covered(
    looking: &Looking<'_>,
    entry: &Entry,
    position: usize,
    lease: Option<(Nanos, usize)>,
    deadline: Nanos,
    request: &str,
) -> Step {
    let Some((until, by)) = lease else {
        return looking.breach(
            format!("answer with a closed gate {} {request}", entry.node),
            format!("node {} answered request {request} while its gate was closed", entry.node),
            vec![Evidence::Journal(position)],
        );
    };
    if entry.own_time() <= until && deadline <= until {
        return Ok(());
    }
    looking.breach(
        format!("answer past the lease {} {request}", entry.node),
        format!(
            "node {}: request {request} was answered at {} with deadline {deadline}, the lease \
             ended at {until}",
            entry.node,
            entry.own_time()
        ),
        vec![Evidence::Journal(by), Evidence::Journal(position)],
    )
}

/// I5.
pub(super) fn opened_by_grant(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut grants: BTreeMap<GrantOf, Grant> = BTreeMap::new();
    let mut open: BTreeMap<u64, GrantOf> = BTreeMap::new();
    for (position, entry) in history.journal.iter().enumerate() {
        match &entry.event {
            Event::GrantCommitted { grant, to_node, to_boot, term } => {
                let lineage = entry.lineage.map(|text| text.0);
                grants.insert((*term, *grant), (*to_node, *to_boot, lineage));
            }
            Event::Started { .. } | Event::Stopped | Event::GateClosed { .. } => {
                open.remove(&entry.node);
            }
            Event::GateOpened(lease) => {
                looking.one();
                named_by_a_grant(looking, entry, lease, &grants, position)?;
                open.insert(entry.node, grant_of(lease));
            }
            Event::GateExtended(lease) if open.get(&entry.node) != Some(&grant_of(lease)) => {
                looking.breach(
                    format!("extended while closed {} {}", entry.node, lease.grant),
                    format!("node {} extended a gate that was not open", entry.node),
                    vec![Evidence::Journal(position)],
                )?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Grants are numbered anew in each term of the control group.
type GrantOf = (u64, u64);

fn grant_of(lease: &GateLease) -> GrantOf {
    (lease.term, lease.grant)
}

type Grant = (u64, BootOf, Option<dag_types::Lineage>);

fn named_by_a_grant(
    looking: &Looking<'_>,
    entry: &Entry,
    lease: &GateLease,
    grants: &BTreeMap<GrantOf, Grant>,
    position: usize,
) -> Step {
    let here = (entry.node, entry.boot, entry.lineage.map(|text| text.0));
    if grants.get(&grant_of(lease)) == Some(&here) {
        return Ok(());
    }
    looking.breach(
        format!("opened without a grant {} {}", entry.node, lease.grant),
        format!(
            "node {} opened its gate by grant {}, and no such grant for this node, start and \
             lineage was committed before",
            entry.node, lease.grant
        ),
        vec![Evidence::Journal(position)],
    )
}
