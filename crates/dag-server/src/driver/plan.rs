//! What a node has to do next, decided from what the control log says and what runs here. Pure.
//!
//! Every decision is made anew at every look, from state alone: there is nothing to remember
//! between two looks, so a crash at any moment loses no step.

use std::collections::{BTreeMap, BTreeSet};

use active_manager::control::{ControlState, DatabaseRecord, ReplicaRecord, move_object};
use active_manager::eligibility;
use dag_types::{Boot, DatabaseId, Generation, NodeId, ReplicaId, StoreId};

use crate::formation::Formation;

/// Everything that a decision is made from.
pub struct Situation<'a> {
    /// This node.
    pub node: NodeId,
    /// Its store.
    pub store: StoreId,
    /// What was agreed when the DAG was formed.
    pub formation: &'a Formation,
    /// The applied control log; none before its first entry.
    pub control: Option<&'a ControlState>,
    /// The term of the last entry of it that was applied when it was read.
    pub read_in: u64,
    /// The copies that run here.
    pub running: &'a BTreeMap<DatabaseId, Running>,
    /// The copies here that have failed, and are not started again.
    pub failed: &'a BTreeMap<DatabaseId, ReplicaId>,
    /// Databases whose copies are stopped here while the best one of all is looked for.
    pub held: &'a BTreeSet<DatabaseId>,
    /// The greatest start of each node that was seen, with the store it was seen from.
    pub seen: &'a BTreeMap<NodeId, (StoreId, Boot)>,
}

/// A copy that runs here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub replica: ReplicaId,
    /// It never voted and its log is empty.
    pub blank: bool,
    /// It leads, by its own word.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// The members that it knows, and whether a change of them is under way.
    pub members: BTreeSet<ReplicaId>,
    /// Those that vote.
    pub voters: BTreeSet<ReplicaId>,
    /// A change of the members is under way.
    pub joint: bool,
}

/// A copy of a group, as it is told to Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The copy.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// What has to be done. Each may be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the copy that this store was given, or make it where it never was, and start its group.
    Start {
        /// The database.
        database: DatabaseId,
        /// The incarnation of its group.
        generation: Generation,
        /// The copy.
        replica: ReplicaId,
        /// It was built from another copy: it is put in place, and never made of nothing.
        seeded: bool,
        /// The database's folder; empty: the one below the root.
        path: String,
        /// The copy of the generation before that it is made of.
        from: Option<ReplicaId>,
    },
    /// There is no copy here: its database went on without it.
    LeftBehind {
        /// The database.
        database: DatabaseId,
        /// The incarnation of its group.
        generation: Generation,
        /// The copy that is to be built.
        replica: ReplicaId,
        /// Why, for people.
        why: String,
    },
    /// Stop and close the copy that runs here: another one took its place, or it was taken away.
    Stop {
        /// The database.
        database: DatabaseId,
    },
    /// Make this copy the first of its group. Only the first of the voters does that, and only
    /// while its copy holds nothing.
    Initialize {
        /// The database.
        database: DatabaseId,
        /// All voters.
        voters: Vec<Place>,
    },
    /// Let copies that the control log names receive the log.
    AddLearners {
        /// The database.
        database: DatabaseId,
        /// The copies that the group does not know yet.
        learners: Vec<Place>,
    },
    /// Let exactly these copies vote.
    ChangeVoters {
        /// The database.
        database: DatabaseId,
        /// All voters.
        voters: BTreeSet<ReplicaId>,
    },
    /// Take copies out of the group that the control log does not name any more.
    RemoveLearners {
        /// The database.
        database: DatabaseId,
        /// They vote no longer.
        learners: BTreeSet<ReplicaId>,
    },
    /// Propose the DAG's first entry.
    CreateDag,
    /// Propose the registration of a start that was seen.
    RegisterBoot {
        /// Whose.
        node: NodeId,
        /// From which store.
        store: StoreId,
        /// Which start.
        boot: Boot,
    },
}

/// Decides everything that is due now.
pub fn decide(situation: &Situation<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    match situation.control {
        None => founding(situation, &mut actions),
        Some(state) => {
            for database in &state.databases {
                for_database(situation, state, database, &mut actions);
            }
            if leads(situation, DatabaseId::CONTROL) {
                register_boots(situation, state, &mut actions);
            }
        }
    }
    actions
}

/// Before the control log has its first entry, what was agreed says who the copies are.
fn founding(situation: &Situation<'_>, actions: &mut Vec<Action>) {
    let replicas = situation.formation.control_replicas();
    let Some(own) = replicas.iter().find(|copy| copy.node == situation.node) else { return };
    let database = DatabaseId::CONTROL;
    match situation.running.get(&database) {
        None => {
            let copy = Copy { replica: own.replica, seeded: false, path: "", from: None };
            start(situation, database, Generation::FIRST, copy, actions);
        }
        Some(running) if running.blank => {
            if situation.formation.first_voter() == Some(situation.node) {
                let voters = replicas.iter().filter(|copy| copy.voter);
                let place = |copy: &active_manager::control::FoundingReplica| Place {
                    replica: copy.replica,
                    node: copy.node,
                };
                actions.push(Action::Initialize { database, voters: voters.map(place).collect() });
            }
        }
        Some(running) if running.leads && !situation.formation.joined() => {
            actions.push(Action::CreateDag);
        }
        Some(_) => {}
    }
}

fn for_database(
    situation: &Situation<'_>,
    state: &ControlState,
    record: &DatabaseRecord,
    actions: &mut Vec<Action>,
) {
    let database = record.id();
    let running = situation.running.get(&database);
    // A copy lives and dies with the store that it was made on: a wiped node has another store,
    // and never makes the copies anew that its old one had.
    let own = record.replica_on(situation.node).filter(|own| own.store() == situation.store);
    let own = match (own, running) {
        (Some(own), Some(running))
            if running.replica == own.id() && !situation.held.contains(&database) =>
        {
            own
        }
        (_, Some(_)) if situation.held.contains(&database) => {
            return actions.push(Action::Stop { database });
        }
        (Some(_), None) if situation.held.contains(&database) => return,
        (Some(own), None) if own.left_behind => {
            return left_behind(situation, record, own, actions);
        }
        (Some(own), None) => {
            return start(situation, database, record.generation(), Copy::of(own), actions);
        }
        (own, Some(running)) if database != DatabaseId::CONTROL && is_gone(state, own, running) => {
            return actions.push(Action::Stop { database });
        }
        _ => return,
    };
    let running = running.expect("it runs, or it would have been started");
    let first = record.replicas.first().is_some_and(|first| first.id() == own.id());
    let never_formed = record.generation() == Generation::FIRST && running.blank;
    if never_formed && first && database != DatabaseId::CONTROL {
        let voters = places(record, |copy| copy.voter);
        actions.push(Action::Initialize { database, voters });
    } else if running.leads {
        // A new leader of the control group may not have applied what its own log holds of its
        // members: it changes them only once an entry of its own term is behind the state.
        let level = database != DatabaseId::CONTROL || situation.read_in == running.term;
        actions.extend(members(state, record, running).filter(|_| level));
    }
}

/// Whether the copy that runs here has left its place. Ids are given out in order, so a control log
/// that names an older copy, or has not given this one out yet, is only behind.
fn is_gone(state: &ControlState, own: Option<&ReplicaRecord>, running: &Running) -> bool {
    match own {
        Some(own) => running.replica < own.id(),
        None => running.replica.0 < state.next_replica,
    }
}

fn places(record: &DatabaseRecord, wanted: impl Fn(&ReplicaRecord) -> bool) -> Vec<Place> {
    let wanted = record.replicas.iter().filter(|copy| wanted(copy));
    wanted.map(|copy| Place { replica: copy.id(), node: copy.node() }).collect()
}

/// What the leader of a group has to change about its members, one thing at a time: copies join as
/// learners, then the voters are changed at once, then those leave that the control log does not
/// name any more. A copy that is replaced keeps its vote until the new one is admitted.
fn members(state: &ControlState, record: &DatabaseRecord, running: &Running) -> Option<Action> {
    let database = record.id();
    // Somebody gave out ids that this control log does not know: it is behind.
    if running.members.iter().any(|member| member.0 >= state.next_replica) {
        return None;
    }
    // Of what was left behind there is no copy to send anything to.
    let learners =
        places(record, |copy| !running.members.contains(&copy.id()) && !copy.left_behind);
    if !learners.is_empty() {
        return (!running.joint).then_some(Action::AddLearners { database, learners });
    }
    if database == DatabaseId::CONTROL && hands_on_later(state, record, running) {
        return None;
    }
    if state.joining(database).next().is_some() {
        return None;
    }
    let named: BTreeSet<ReplicaId> = record.replicas.iter().map(ReplicaRecord::id).collect();
    let left: BTreeSet<ReplicaId> = running.members.difference(&named).copied().collect();
    let voting = record.replicas.iter().filter(|copy| copy.voter);
    let voters: BTreeSet<ReplicaId> = voting.clone().map(ReplicaRecord::id).collect();
    let admitted = voting.clone().any(|copy| copy.seeded && !running.voters.contains(&copy.id()));
    // A move to another site changes the voters of its database before the record says so.
    let object = move_object(database.0);
    let moves = state.running().any(|known| known.object == object);
    // What a step of a move, or an earlier leader, left in the middle of a change is ended here: both
    // sets of a joint membership would be needed for ever.
    let differ = voters != running.voters || running.joint;
    if differ && (!moves || voters != running.voters && (admitted || !left.is_empty())) {
        return Some(Action::ChangeVoters { database, voters });
    }
    let leaves = !left.is_empty() && !running.joint;
    leaves.then_some(Action::RemoveLearners { database, learners: left })
}

/// Whether a node's lost store still has a vote that its new one is to get: both change in one step.
fn hands_on_later(state: &ControlState, record: &DatabaseRecord, running: &Running) -> bool {
    state.nodes.iter().filter(|node| node.replaced != 0).any(|node| {
        let votes = record.replica_on(node.id()).is_some_and(|copy| copy.voter);
        !votes && running.voters.contains(&ReplicaId(node.replaced))
    })
}

/// A copy to start.
struct Copy<'a> {
    replica: ReplicaId,
    seeded: bool,
    path: &'a str,
    from: Option<ReplicaId>,
}

impl<'a> Copy<'a> {
    fn of(record: &'a ReplicaRecord) -> Self {
        let from = (record.from_replica != 0).then_some(ReplicaId(record.from_replica));
        Self { replica: record.id(), seeded: record.seeded, path: &record.path, from }
    }
}

fn start(
    situation: &Situation<'_>,
    database: DatabaseId,
    generation: Generation,
    copy: Copy<'_>,
    actions: &mut Vec<Action>,
) {
    let Copy { replica, seeded, path, from } = copy;
    if situation.failed.get(&database) != Some(&replica) {
        let path = path.to_owned();
        actions.push(Action::Start { database, generation, replica, seeded, path, from });
    }
}

fn left_behind(
    situation: &Situation<'_>,
    record: &DatabaseRecord,
    own: &ReplicaRecord,
    actions: &mut Vec<Action>,
) {
    if situation.failed.get(&record.id()) != Some(&own.id()) {
        let (database, generation) = (record.id(), record.generation());
        let why = own.unfit.clone();
        actions.push(Action::LeftBehind { database, generation, replica: own.id(), why });
    }
}

fn leads(situation: &Situation<'_>, database: DatabaseId) -> bool {
    situation.running.get(&database).is_some_and(|running| running.leads)
}

/// The control group's leader registers the starts that it has seen: its own, and those that nodes
/// opened their streams with.
fn register_boots(situation: &Situation<'_>, state: &ControlState, actions: &mut Vec<Action>) {
    let starts = eligibility::unregistered_starts(state, situation.seen).into_iter();
    let register = |(node, store, boot)| Action::RegisterBoot { node, store, boot };
    actions.extend(starts.map(register));
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
