//! Back to the preferred copies, with a pause between two moves of one database.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use crate::best_copy::{active_site, objections};
use crate::control::{ControlState, DatabaseRecord};
use crate::movement::block_time;
use crate::report::Reports;

/// One move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceMove {
    /// The database.
    pub database: DatabaseId,
    /// For people.
    pub name: String,
    /// Where it is active.
    pub from: NodeId,
    /// A more preferred copy.
    pub to: NodeId,
}

/// A database that stays where it is, though another copy is preferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// The database.
    pub database: DatabaseId,
    /// For people.
    pub name: String,
    /// Why, for people.
    pub why: String,
}

/// What balancing would do; also what `--dry-run` shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BalancePlan {
    /// In the order of the databases' numbers.
    pub moves: Vec<BalanceMove>,
    /// What stays though it should move.
    pub stays: Vec<Stays>,
}

/// Plans the moves that bring databases to their preferred copies.
///
/// Moves never cross sites: which site serves is a person's decision. Each planned move counts on
/// its target, so that a node's maximum is not passed by several moves together.
pub fn plan_balance(state: &ControlState, reports: &Reports) -> BalancePlan {
    let mut plan = BalancePlan::default();
    // The reports as they will be after the moves that are planned already.
    let mut world = reports.clone();
    for database in state.databases.iter().filter(|database| database.is_mailbox_database()) {
        let Some(from) = world.active(database.id()) else { continue };
        match better_copy(state, &world, database, from) {
            Better::Same => {}
            Better::Move(to) => {
                move_in(&mut world, database.id(), from, to);
                let name = database.name.clone();
                plan.moves.push(BalanceMove { database: database.id(), name, from, to });
            }
            Better::Not(why) => {
                let name = database.name.clone();
                plan.stays.push(Stays { database: database.id(), name, why });
            }
        }
    }
    plan
}

enum Better {
    /// It is where it should be.
    Same,
    Move(NodeId),
    Not(String),
}

fn better_copy(
    state: &ControlState,
    world: &Reports,
    database: &DatabaseRecord,
    from: NodeId,
) -> Better {
    let site = active_site(state, world, database).unwrap_or_default();
    let preferred = state.preference(database).into_iter();
    let preferred = preferred
        .take_while(|node| *node != from)
        .filter(|node| state.site_of(*node) == site)
        .filter(|node| database.replica_on(*node).is_some_and(|copy| copy.voter));
    let mut hindered: Option<String> = None;
    for node in preferred {
        let forbids = hindrance(state, world, database, node);
        match forbids {
            None => {
                let block = block_time(state, world, database);
                return match block.passed {
                    true => Better::Move(node),
                    false => Better::Not(format!("{}, needed: {}", block.value, block.limit)),
                };
            }
            Some(why) => {
                hindered.get_or_insert_with(|| format!("node {node}: {why}"));
            }
        }
    }
    hindered.map_or(Better::Same, Better::Not)
}

/// What keeps a copy from being moved to, wishes included: balancing is never urgent.
fn hindrance(
    state: &ControlState,
    world: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Option<String> {
    if let Some(objection) = objections(state, world, database, node).first() {
        return Some(format!("{objection}"));
    }
    let copy = world.copy(database.id(), node)?;
    let (value, limit) = (copy.copy_queue + copy.replay_queue, state.settings.copy_queue_max);
    if value > limit {
        return Some(format!("its queues hold {value} entries of at most {limit}"));
    }
    let preferred = state.node_policy(node).preferred_active;
    let active = world.active_on(node);
    (preferred != 0 && active >= preferred)
        .then(|| format!("it serves {active} databases and should serve {preferred} at most"))
}

fn move_in(world: &mut Reports, database: DatabaseId, from: NodeId, to: NodeId) {
    let place = |node| world.copies.iter().position(|c| c.database == database && c.node == node);
    if let (Some(old), Some(new)) = (place(from), place(to)) {
        let status = world.copies[old].status;
        world.copies[old].status = world.copies[new].status;
        world.copies[new].status = status;
    }
}

#[cfg(test)]
#[path = "balance_test.rs"]
mod tests;
