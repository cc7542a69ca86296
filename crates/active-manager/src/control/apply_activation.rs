//! Policies, suspensions, maintenance, openings of gates: their transitions.
//!
//! Only what the log itself can tell is checked here. What depends on how copies stand right now
//! (queues, reachability, redundancy) is checked by whoever proposes, with reports in hand.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use dag_types::{DatabaseId, LogId, NodeId, StateView};

use super::activation::{
    ActivationPolicy, COPY_POLICIES, CopyPolicy, DATABASE_POLICIES, DatabasePolicy, Decided,
    Maintenance, MoveCause, NODE_POLICIES, NodePolicy, OPENINGS, OpeningRecord, SETTINGS, Settings,
};
use super::apply::Verdict;
use super::apply_seed::none_joins;
use super::command::{
    Command, CopySuspension, OpenGate, Order, PlaceVoters, RecordMove, SetDatabasePolicy,
    SetNodePolicy, SetPreference,
};
use super::record::{DATABASES, DatabaseRecord, NodeRecord, ReplicaRecord, number_key};
use super::response::{FailedCheck, NoDag, Rejection, UnknownNode};
use super::state::ControlState;
use crate::change::{Change, Fault};

type Result<T, V> = core::result::Result<T, Fault<<V as StateView>::Error>>;

/// Applies an order about activation.
pub(super) fn change<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &Order,
) -> Result<Verdict, V> {
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let decided = decided(command);
    let verdict = match order {
        Order::SetNodePolicy(order) => set_node_policy(change, &state, decided, order),
        Order::SetDatabasePolicy(order) => set_database_policy(change, &state, decided, order),
        Order::SuspendCopy(order) => suspension(change, &state, decided, order, true),
        Order::ResumeCopy(order) => suspension(change, &state, decided, order, false),
        Order::SetPreference(order) => set_preference(change, &state, order),
        Order::DrainNode(order) => drain(change, &state, decided, NodeId(order.node)),
        Order::UndrainNode(order) => undrain(change, &state, decided, NodeId(order.node)),
        Order::SetSettings(settings) => set_settings(change, &state, settings),
        Order::OpenGate(order) => open_gate(change, &state, at, command, order),
        Order::RecordMove(order) => record_move(change, &state, command, order),
        Order::PlaceVoters(order) => place_voters(change, &state, order),
        _ => return Err(Fault::UnknownCommand),
    };
    Ok(verdict.unwrap_or_else(Verdict::refused))
}

pub(super) fn decided(command: &Command) -> Decided {
    Decided {
        at_ms: command.at_ms,
        who: command.who.clone(),
        from: command.from.clone(),
        reason: command.reason.clone(),
    }
}

type Decision = core::result::Result<Verdict, Rejection>;

fn failed(check: FailedCheck) -> Rejection {
    Rejection::Check(check)
}

fn data_node(state: &ControlState, id: NodeId) -> core::result::Result<&NodeRecord, Rejection> {
    let node = state.node(id).ok_or(Rejection::UnknownNode(UnknownNode { node: id.0 }))?;
    match node.witness {
        false => Ok(node),
        true => Err(failed(
            FailedCheck::new("data-node", format!("node {id}"), "a witness", "a data node")
                .advice("a witness holds no databases"),
        )),
    }
}

fn database(state: &ControlState, id: u64) -> core::result::Result<&DatabaseRecord, Rejection> {
    let found = state.database(DatabaseId(id)).filter(|_| DatabaseId(id) != DatabaseId::CONTROL);
    found.ok_or_else(|| {
        failed(FailedCheck::new(
            "database-exists",
            format!("database {id}"),
            "unknown",
            "a database of this DAG",
        ))
    })
}

fn policy(number: i32) -> core::result::Result<ActivationPolicy, Rejection> {
    ActivationPolicy::try_from(number).map_err(|_| {
        failed(FailedCheck::new(
            "policy-known",
            "policy",
            number.to_string(),
            "Unrestricted, IntrasiteOnly or Blocked",
        ))
    })
}

fn set_node_policy<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    decided: Decided,
    order: &SetNodePolicy,
) -> Decision {
    let id = NodeId(order.node);
    data_node(state, id)?;
    let before = state.node_policy(id);
    let mut after = before.clone();
    if let Some(wanted) = order.policy {
        let wanted = policy(wanted)?;
        // A drained node stays blocked; what is set now holds from the end of maintenance on.
        match &mut after.maintenance {
            Some(maintenance) => maintenance.earlier_policy = wanted.into(),
            None => after.policy = wanted.into(),
        }
    }
    after.maximum_active = order.maximum_active.unwrap_or(after.maximum_active);
    after.preferred_active = order.preferred_active.unwrap_or(after.preferred_active);
    if after.maximum_active != 0 && after.preferred_active > after.maximum_active {
        return Err(failed(FailedCheck::new(
            "preferred-below-maximum",
            format!("node {id}"),
            after.preferred_active.to_string(),
            format!("at most {}", after.maximum_active),
        )));
    }
    Ok(put_node(change, before, after, decided))
}

fn put_node<V: StateView>(
    change: &mut Change<'_, V>,
    before: NodePolicy,
    mut after: NodePolicy,
    decided: Decided,
) -> Verdict {
    if before == after {
        return Verdict::was_so();
    }
    after.decided = Some(decided);
    change.put(number_key(NODE_POLICIES, after.node), &after);
    Verdict::changed()
}

fn set_database_policy<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    decided: Decided,
    order: &SetDatabasePolicy,
) -> Decision {
    let id = database(state, order.database)?.id();
    let mut record = state.database_policy(id);
    let wanted = policy(order.policy)?;
    if record.policy == i32::from(wanted) {
        return Ok(Verdict::was_so());
    }
    record.policy = wanted.into();
    record.decided = Some(decided);
    put_database(change, &record);
    Ok(Verdict::changed())
}

fn put_database<V: StateView>(change: &mut Change<'_, V>, record: &DatabasePolicy) {
    change.put(number_key(DATABASE_POLICIES, record.database), record);
}

fn suspension<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    decided: Decided,
    order: &CopySuspension,
    suspend: bool,
) -> Decision {
    let record = database(state, order.database)?;
    let node = NodeId(order.node);
    if record.replica_on(node).is_none() {
        return Err(failed(FailedCheck::new(
            "copy-exists",
            format!("{} on node {node}", record.name),
            "no copy",
            "a copy of this database",
        )));
    }
    let before = state.copy_policy(record.id(), node);
    let mut after = before.clone();
    if order.activation_only {
        after.activation_suspended = suspend;
    } else {
        after.suspended = suspend;
        // Resuming a copy resumes all of it.
        after.activation_suspended &= suspend;
    }
    if before == after {
        return Ok(Verdict::was_so());
    }
    after.decided = Some(decided);
    let key = CopyPolicy::key(order.database, order.node);
    debug_assert_eq!(key[0], COPY_POLICIES);
    match after.suspended || after.activation_suspended {
        true => change.put(key, &after),
        false => change.delete(key),
    }
    Ok(Verdict::changed())
}

fn set_preference<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    order: &SetPreference,
) -> Decision {
    let record = database(state, order.database)?;
    let mut wanted = order.nodes.clone();
    wanted.sort_unstable();
    let mut have: Vec<u64> = record.replicas.iter().map(|copy| copy.node).collect();
    have.sort_unstable();
    if wanted != have {
        return Err(failed(FailedCheck::new(
            "preference-complete",
            record.name.clone(),
            format!("{:?}", order.nodes),
            format!("each of {have:?} once"),
        )));
    }
    let mut after = state.database_policy(record.id());
    if after.preference == order.nodes {
        return Ok(Verdict::was_so());
    }
    after.preference.clone_from(&order.nodes);
    put_database(change, &after);
    Ok(Verdict::changed())
}

fn drain<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    decided: Decided,
    id: NodeId,
) -> Decision {
    data_node(state, id)?;
    let before = state.node_policy(id);
    if before.maintenance.is_some() {
        return Ok(Verdict::was_so());
    }
    let mut after = before.clone();
    let begun = Some(decided.clone());
    after.maintenance = Some(Maintenance { begun, earlier_policy: before.policy });
    after.policy = ActivationPolicy::Blocked.into();
    Ok(put_node(change, before, after, decided))
}

/// Ends maintenance, with the policy that was there before it.
fn undrain<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    decided: Decided,
    id: NodeId,
) -> Decision {
    data_node(state, id)?;
    let before = state.node_policy(id);
    let mut after = before.clone();
    let Some(maintenance) = after.maintenance.take() else { return Ok(Verdict::was_so()) };
    after.policy = maintenance.earlier_policy;
    Ok(put_node(change, before, after, decided))
}

fn set_settings<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    settings: &Settings,
) -> Decision {
    let problems = settings.problems();
    if !problems.is_empty() {
        let limit = "see the settings' documentation";
        return Err(failed(FailedCheck::new("settings", "dag", problems.join("; "), limit)));
    }
    if state.settings == *settings {
        return Ok(Verdict::was_so());
    }
    change.put(SETTINGS, settings);
    Ok(Verdict::changed())
}

/// One record per opening, and only where the log itself would grant it: the right disk, start and
/// lineage, a started site, and the term of the very leader that proposes it.
fn open_gate<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    at: LogId,
    command: &Command,
    order: &OpenGate,
) -> Decision {
    let node = data_node(state, NodeId(order.node))?;
    let subject = format!("node {}", order.node);
    let record = OpeningRecord {
        node: order.node,
        grant_term: order.grant_term,
        grant_number: order.grant_number,
        store: order.store.clone(),
        boot_counter: order.boot_counter,
        boot_id: order.boot_id,
        epoch: order.epoch,
        activation: order.activation.clone(),
        at_ms: command.at_ms,
    };
    let started = state.sites.iter().any(|site| site.name == node.site && site.started);
    let checks = [
        ("grant-term", order.grant_term == at.term),
        ("store", record.store() == node.store()),
        ("boot", record.boot() == node.boot() && node.boot_counter > 0),
        ("lineage", record.lineage() == state.last_lineage()),
        ("site-started", started),
    ];
    for (check, passed) in checks {
        if !passed {
            let limit = "as the control log has it";
            return Err(failed(FailedCheck::new(check, subject, "another", limit)));
        }
    }
    change.put(number_key(OPENINGS, order.node), &record);
    Ok(Verdict::changed())
}

/// An odd number of voters, or both copies of a database with two; and, unless they are balanced,
/// the strict majority of them in one site, where the database is active from now on. Only copies that
/// are admitted vote.
fn place_voters<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    order: &PlaceVoters,
) -> Decision {
    let record = database(state, order.database)?;
    none_joins(state, record).map_err(failed)?;
    let votes = |node: NodeId| order.nodes.contains(&node.0);
    let voters: Vec<NodeId> =
        record.replicas.iter().map(|copy| copy.node()).filter(|node| votes(*node)).collect();
    let unfit = |copy: &ReplicaRecord| !copy.unfit.is_empty();
    let in_site = |site: &str| voters.iter().filter(|node| state.site_of(**node) == site).count();
    let majority = state.sites.iter().find(|site| 2 * in_site(&site.name) > voters.len());
    let balanced = record.active_site.is_empty();
    let both = record.replicas.len() == 2 && voters.len() == 2;
    let checks = [
        ("copy-exists", voters.len() == order.nodes.len() && !voters.is_empty()),
        ("voters-admitted", !record.replicas.iter().any(|copy| votes(copy.node()) && unfit(copy))),
        ("voters-odd", voters.len() % 2 == 1 || both),
        ("voters-in-one-site", balanced || majority.is_some()),
    ];
    for (check, passed) in checks {
        if !passed {
            let (value, limit) = (format!("nodes {:?}", order.nodes), "see docs/safety.md");
            let refused = FailedCheck::new(check, record.name.clone(), value, limit);
            return Err(failed(
                refused.advice("`dagctl copies` shows each copy and what it waits for"),
            ));
        }
    }
    let mut after = record.clone();
    for copy in &mut after.replicas {
        copy.voter = votes(copy.node());
    }
    if let Some(site) = majority.filter(|_| !balanced) {
        after.active_site.clone_from(&site.name);
    }
    if after == *record {
        return Ok(Verdict::was_so());
    }
    change.put(number_key(DATABASES, order.database), &after);
    Ok(Verdict::changed())
}

/// Moves for balance or for a site happen at most once in the block time (I16), unless a person
/// acknowledged it. Moves for other causes do not begin a block time. A control leader that takes an
/// operation up tells its move again: it has begun its block time already.
fn record_move<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    command: &Command,
    order: &RecordMove,
) -> Decision {
    let record = database(state, order.database)?;
    let cause = MoveCause::try_from(order.cause).unwrap_or(MoveCause::Unspecified);
    let mut after = state.database_policy(record.id());
    if !matches!(cause, MoveCause::Balance | MoveCause::Site) {
        return Ok(Verdict::changed());
    }
    if order.operation != 0 && after.last_move_operation == order.operation {
        return Ok(Verdict::was_so());
    }
    let free_at = after.last_move_ms + state.settings.move_block_ms;
    if after.last_move_ms != 0 && command.at_ms < free_at && !order.acknowledged {
        let since = command.at_ms.saturating_sub(after.last_move_ms);
        return Err(failed(
            FailedCheck::new(
                "move-block-time",
                record.name.clone(),
                format!("moved {since} ms ago"),
                format!("{} ms between two moves", state.settings.move_block_ms),
            )
            .advice("wait, or skip the check `move-block-time`"),
        ));
    }
    after.last_move_ms = command.at_ms;
    after.last_move_cause = cause.into();
    after.last_move_operation = order.operation;
    put_database(change, &after);
    Ok(Verdict::changed())
}

#[cfg(test)]
#[path = "apply_activation_test.rs"]
mod tests;
