//! Situations and what they ask for.

use active_manager::control::command::Founder;
use active_manager::control::{
    Command, CreateDag, CreateDatabase, Operation, OperationState, Order, RegisterBoot, SeedPhase,
    SeedRecord, apply,
};
use bytes::Bytes;
use dag_api::admin::v1 as api;
use dag_types::{LogId, Write};
use storage::state::{Row, StateError, StateRead};

use super::*;
use crate::formation::{Own, Stage};
use crate::machine::View;

fn store(node: u64) -> StoreId {
    StoreId([node as u8; 16])
}

fn definition() -> api::DagDefinition {
    let node = |number: u64, site: &str| api::NodeDefinition {
        node_id: number,
        name: format!("n{number}"),
        site: site.into(),
        api_address: format!("127.0.0.{number}:2"),
        peer_address: format!("127.0.0.{number}:1"),
        admin_address: format!("127.0.0.{number}:3"),
        witness: number == 5,
    };
    let sites = ["A", "B"].map(|name| api::SiteDefinition { name: name.into() });
    api::DagDefinition {
        name: "test".into(),
        sites: sites.to_vec(),
        nodes: vec![node(1, "A"), node(2, "A"), node(3, "B"), node(4, "B"), node(5, "C")],
        ..api::DagDefinition::default()
    }
}

fn formation() -> Formation {
    let own = Own { node: NodeId(1), store: store(1), peer_address: String::new() };
    let dag_id = Bytes::from(vec![7; 16]);
    let definition_digest = Bytes::from(definition().digest().to_vec());
    let prepare = api::PrepareDagRequest {
        dag_id: dag_id.clone(),
        definition: Some(definition()),
        definition_digest: definition_digest.clone(),
    };
    let member =
        |node| api::FoundingMember { node_id: node, store_id: store(node).0.to_vec().into() };
    let form = api::FormDagRequest {
        dag_id: dag_id.clone(),
        definition_digest,
        members: (1..=5).map(member).collect(),
        first_activation_id: dag_id,
    };
    let prepared = Stage::Unprovisioned.prepare(&own, &prepare).unwrap();
    prepared.form(&own, &form).unwrap().formation().unwrap().clone()
}

/// The control log after the DAG, some starts and one database.
fn control() -> ControlState {
    let founder = |node| Founder { node, store: store(node).0.to_vec().into() };
    let mut orders = vec![Order::CreateDag(CreateDag {
        dag: vec![7; 16].into(),
        definition: Some(formation().definition()),
        founders: (1..=5).map(founder).collect(),
        activation: vec![7; 16].into(),
    })];
    orders.push(Order::RegisterBoot(RegisterBoot {
        node: 1,
        store: store(1).0.to_vec().into(),
        boot_counter: 4,
        boot_id: 40,
    }));
    let (request_id, name) = ("r".into(), "DB1".into());
    orders.push(Order::CreateDatabase(CreateDatabase {
        request_id,
        name,
        ..CreateDatabase::default()
    }));
    let mut rows = Rows::default();
    for (i, order) in orders.into_iter().enumerate() {
        let command = Command { order: Some(order), ..Command::default() };
        let at = LogId { term: 1, index: i as u64 };
        let applied = apply(&View(&rows), at, &command).unwrap();
        rows.write(applied.writes);
    }
    ControlState::read(&View(&rows)).unwrap().unwrap()
}

#[derive(Default)]
struct Rows(std::collections::BTreeMap<Bytes, Bytes>);

impl Rows {
    fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.0.insert(key, value),
                Write::Delete { key } => self.0.remove(&key),
            };
        }
    }
}

impl StateRead for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(self.0.get(key).cloned())
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        let range = self.0.range(Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        let range = self.0.range(Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to));
        Ok(range.rev().take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// A situation to be changed by a test.
struct Case {
    node: u64,
    store: StoreId,
    control: Option<ControlState>,
    running: BTreeMap<DatabaseId, Running>,
    failed: BTreeMap<DatabaseId, ReplicaId>,
    held: BTreeSet<DatabaseId>,
    seen: BTreeMap<NodeId, (StoreId, Boot)>,
    read_in: u64,
}

impl Case {
    fn founding(node: u64) -> Self {
        Self {
            node,
            store: store(node),
            control: None,
            running: BTreeMap::new(),
            failed: BTreeMap::new(),
            held: BTreeSet::new(),
            seen: BTreeMap::new(),
            read_in: 0,
        }
    }

    fn formed(node: u64) -> Self {
        Self { control: Some(control()), ..Self::founding(node) }
    }

    fn decide(&self) -> Vec<Action> {
        decide(&Situation {
            node: NodeId(self.node),
            store: self.store,
            formation: &formation(),
            control: self.control.as_ref(),
            read_in: self.read_in,
            running: &self.running,
            failed: &self.failed,
            held: &self.held,
            seen: &self.seen,
        })
    }

    /// The copy of a database on this node, running.
    fn runs(&mut self, database: DatabaseId, change: impl FnOnce(&mut Running)) {
        let record = control().database(database).unwrap().clone();
        let own = record.replica_on(NodeId(self.node)).unwrap().id();
        let members = record.replicas.iter().map(|copy| copy.id()).collect();
        let voters = record.replicas.iter().filter(|copy| copy.voter).map(|copy| copy.id());
        let voters = voters.collect();
        let mut running = Running { replica: own, members, voters, ..Running::default() };
        change(&mut running);
        self.running.insert(database, running);
    }

    /// Every copy of this node runs and has nothing to do.
    fn settled(node: u64) -> Self {
        let mut case = Self::formed(node);
        for database in control().databases {
            if database.replica_on(NodeId(node)).is_some() {
                case.runs(database.id(), |_| ());
            }
        }
        case
    }
}

const DB1: DatabaseId = DatabaseId::FIRST_MAILBOX_DATABASE;

#[test]
fn a_new_member_starts_its_control_copy_and_nothing_else() {
    let database = DatabaseId::CONTROL;
    for node in 1..=5 {
        let replica = ReplicaId(node);
        let generation = Generation::FIRST;
        let path = String::new();
        let (seeded, from) = (false, None);
        let start = Action::Start { database, generation, replica, seeded, path, from };
        assert_eq!(Case::founding(node).decide(), [start]);
    }
}

#[test]
fn only_the_first_voter_initialises_the_control_group() {
    for node in 1..=5 {
        let mut case = Case::founding(node);
        case.runs(DatabaseId::CONTROL, |running| running.blank = true);
        let actions = case.decide();
        match node {
            1 => assert!(
                matches!(&actions[..], [Action::Initialize { voters, .. }] if voters.len() == 5)
            ),
            _ => assert_eq!(actions, []),
        }
    }
}

#[test]
fn the_leader_of_an_empty_control_log_proposes_the_dag() {
    let mut case = Case::founding(3);
    case.runs(DatabaseId::CONTROL, |running| running.leads = true);
    assert_eq!(case.decide(), [Action::CreateDag]);
    let mut follower = Case::founding(3);
    follower.runs(DatabaseId::CONTROL, |_| ());
    assert_eq!(follower.decide(), []);
}

#[test]
fn a_node_starts_the_copies_that_its_store_was_given() {
    let started = |node: u64| -> Vec<DatabaseId> {
        let actions = Case::formed(node).decide();
        let database = |action: Action| match action {
            Action::Start { database, .. } => database,
            other => panic!("{other:?}"),
        };
        actions.into_iter().map(database).collect()
    };
    assert_eq!(started(1), [DatabaseId::CONTROL, DatabaseId::DIRECTORY, DB1]);
    assert_eq!(started(5), [DatabaseId::CONTROL], "a witness holds no mail");
}

#[test]
fn a_wiped_node_makes_none_of_its_old_copies_again() {
    let wiped = Case { store: store(99), ..Case::formed(1) };
    assert_eq!(wiped.decide(), []);
}

#[test]
fn a_failed_copy_is_not_started_again() {
    let mut case = Case::settled(1);
    let replica = case.running.remove(&DB1).unwrap().replica;
    case.failed.insert(DB1, replica);
    assert_eq!(case.decide(), []);
    // Another copy that takes its place is.
    case.failed.insert(DB1, ReplicaId(replica.0 - 1));
    assert!(matches!(case.decide()[..], [Action::Start { .. }]));
}

#[test]
fn only_the_first_copy_initialises_a_database_and_only_while_it_is_blank() {
    let first = control().database(DB1).unwrap().replicas[0].node().0;
    for node in 1..=4 {
        let mut case = Case::settled(node);
        case.runs(DB1, |running| running.blank = true);
        let actions = case.decide();
        if node == first {
            let [Action::Initialize { voters, .. }] = &actions[..] else { panic!("{actions:?}") };
            assert_eq!(voters.len(), 3);
        } else {
            assert_eq!(actions, [], "node {node}");
        }
        assert_eq!(Case::settled(node).decide(), [], "node {node}");
    }
}

#[test]
fn the_leader_lets_missing_copies_receive_the_log() {
    let record = control().database(DB1).unwrap().clone();
    let learner = record.replicas.iter().find(|copy| !copy.voter).unwrap().clone();
    let mut case = Case::settled(1);
    case.runs(DB1, |running| {
        running.leads = true;
        running.members.remove(&learner.id());
    });
    let place = Place { replica: learner.id(), node: learner.node() };
    assert_eq!(case.decide(), [Action::AddLearners { database: DB1, learners: vec![place] }]);
    case.running.get_mut(&DB1).unwrap().joint = true;
    assert_eq!(case.decide(), [], "one change of the members at a time");
}

#[test]
fn the_control_leader_registers_newer_starts_of_known_stores() {
    let mut case = Case::settled(2);
    case.seen.insert(NodeId(1), (store(1), Boot { counter: 4, id: 40 }));
    case.seen.insert(NodeId(2), (store(2), Boot { counter: 1, id: 10 }));
    case.seen.insert(NodeId(3), (store(77), Boot { counter: 9, id: 90 }));
    assert_eq!(case.decide(), [], "only the leader does");
    case.runs(DatabaseId::CONTROL, |running| running.leads = true);
    let boot = Boot { counter: 1, id: 10 };
    let register = Action::RegisterBoot { node: NodeId(2), store: store(2), boot };
    assert_eq!(case.decide(), [register]);
}

/// The leader of a database, one of whose copies was replaced by replica 90; the old one's id.
fn replaced(voter: bool) -> (Case, ReplicaId) {
    let mut case = Case::settled(1);
    let state = case.control.as_mut().unwrap();
    state.next_replica = 91;
    let record = state.databases.iter_mut().find(|record| record.id() == DB1).unwrap();
    let copy = record.replicas.iter_mut().find(|copy| copy.node == 2).unwrap();
    let old = copy.id();
    (copy.replica, copy.voter, copy.seeded) = (90, voter, true);
    case.runs(DB1, |running| running.leads = true);
    (case, old)
}

#[test]
fn a_copy_that_was_replaced_keeps_its_vote_until_the_new_one_is_admitted() {
    let (mut case, old) = replaced(false);
    let place = Place { replica: ReplicaId(90), node: NodeId(2) };
    assert_eq!(case.decide(), [Action::AddLearners { database: DB1, learners: vec![place] }]);
    case.running.get_mut(&DB1).unwrap().members.insert(ReplicaId(90));
    let (database, node, phase) = (DB1.0, 2, SeedPhase::Joining.into());
    let seed = SeedRecord { database, node, replica: 90, phase, ..SeedRecord::default() };
    case.control.as_mut().unwrap().seeds.push(seed);
    assert_eq!(case.decide(), [], "it is compared first");

    let (mut case, _) = replaced(true);
    let running = case.running.get_mut(&DB1).unwrap();
    running.members.insert(ReplicaId(90));
    let mut voters = running.voters.clone();
    voters.remove(&old);
    voters.insert(ReplicaId(90));
    let change = Action::ChangeVoters { database: DB1, voters: voters.clone() };
    assert_eq!(case.decide(), [change]);
    case.running.get_mut(&DB1).unwrap().voters = voters;
    let learners = BTreeSet::from([old]);
    assert_eq!(case.decide(), [Action::RemoveLearners { database: DB1, learners }]);
}

#[test]
fn a_control_log_that_is_behind_changes_no_members_and_stops_no_copy() {
    let (mut case, _) = replaced(true);
    case.control.as_mut().unwrap().next_replica = 90;
    case.running.get_mut(&DB1).unwrap().members.insert(ReplicaId(90));
    assert_eq!(case.decide(), []);
    let mut newer = Case::settled(2);
    newer.runs(DB1, |running| running.replica = ReplicaId(90));
    assert_eq!(newer.decide(), []);
}

#[test]
fn a_node_stops_a_copy_that_was_replaced_or_taken_away_and_puts_the_new_one_in_place() {
    let (case, _) = replaced(false);
    let mut target = Case { node: 2, store: store(2), ..case };
    target.runs(DB1, |_| ());
    target.running.retain(|database, _| *database == DB1);
    let stops = |actions: &[Action]| actions.contains(&Action::Stop { database: DB1 });
    assert!(stops(&target.decide()));
    target.running.clear();
    let starts = target.decide();
    let (database, generation, replica) = (DB1, Generation::FIRST, ReplicaId(90));
    let path = String::new();
    let (seeded, from) = (true, None);
    let start = Action::Start { database, generation, replica, seeded, path, from };
    assert!(starts.contains(&start));
    let mut removed = Case::settled(2);
    let state = removed.control.as_mut().unwrap();
    let record = state.databases.iter_mut().find(|record| record.id() == DB1).unwrap();
    record.replicas.retain(|copy| copy.node != 2);
    assert!(stops(&removed.decide()));
}

/// A leader of the control group whose members are those of the record.
fn leading_control() -> Case {
    let mut case = Case::settled(1);
    case.runs(DatabaseId::CONTROL, |running| (running.leads, running.term) = (true, 7));
    case.read_in = 7;
    case
}

fn control_actions(case: &Case) -> Vec<Action> {
    let about = |action: &Action| match action {
        Action::ChangeVoters { database, .. }
        | Action::RemoveLearners { database, .. }
        | Action::AddLearners { database, .. } => *database == DatabaseId::CONTROL,
        _ => false,
    };
    case.decide().into_iter().filter(about).collect()
}

fn control_record(case: &mut Case) -> &mut DatabaseRecord {
    let databases = case.control.as_mut().unwrap().databases.iter_mut();
    databases.into_iter().find(|record| record.id() == DatabaseId::CONTROL).unwrap()
}

#[test]
fn the_control_groups_voters_and_members_follow_its_log() {
    let database = DatabaseId::CONTROL;
    let mut case = leading_control();
    assert_eq!(control_actions(&case), []);
    control_record(&mut case).replicas.iter_mut().for_each(|copy| copy.voter = copy.node < 4);
    let voters: BTreeSet<ReplicaId> = (1..4).map(ReplicaId).collect();
    let change = Action::ChangeVoters { database, voters: voters.clone() };
    assert_eq!(control_actions(&case), [change]);
    case.running.get_mut(&database).unwrap().voters = voters;
    assert_eq!(control_actions(&case), []);
    control_record(&mut case).replicas.retain(|copy| copy.node != 4);
    let left = Action::RemoveLearners { database, learners: BTreeSet::from([ReplicaId(4)]) };
    assert_eq!(control_actions(&case), [left]);
}

#[test]
fn a_change_of_voters_that_a_leader_left_half_done_is_ended_by_the_next_one() {
    let mut case = leading_control();
    let running = case.running.get_mut(&DatabaseId::CONTROL).unwrap();
    running.joint = true;
    let voters = running.voters.clone();
    let change = Action::ChangeVoters { database: DatabaseId::CONTROL, voters };
    assert_eq!(control_actions(&case), [change]);
    // That of a database that is being moved is the move's.
    let mut case = Case::settled(1);
    case.runs(DB1, |running| (running.leads, running.joint) = (true, true));
    assert!(matches!(about_db1(&case)[..], [Action::ChangeVoters { .. }]));
    let object = format!("database {}", DB1.0);
    let state = OperationState::Running.into();
    let moved = Operation { operation: 7, object, state, ..Operation::default() };
    case.control.as_mut().unwrap().operations.push(moved);
    assert_eq!(about_db1(&case), []);
}

#[test]
fn voters_that_a_move_left_behind_follow_the_record_again() {
    let mut case = Case::settled(1);
    let record = control().database(DB1).unwrap().clone();
    let id = |votes| record.replicas.iter().find(|copy| copy.voter == votes).unwrap().id();
    let voters: BTreeSet<ReplicaId> =
        record.replicas.iter().filter(|copy| copy.voter).map(ReplicaRecord::id).collect();
    // Its step changed the voters, and was not recorded; or both sets are in force.
    for (joint, gone) in [(false, Some(id(true))), (true, None)] {
        case.runs(DB1, |running| {
            (running.leads, running.joint, running.voters) = (true, joint, voters.clone());
            running.voters.insert(id(false));
            running.voters.retain(|voter| Some(*voter) != gone);
        });
        let change = Action::ChangeVoters { database: DB1, voters: voters.clone() };
        assert_eq!(about_db1(&case), [change]);
    }
    let (object, state) = (move_object(DB1.0), OperationState::Running.into());
    let moving = Operation { operation: 7, object, state, ..Operation::default() };
    case.control.as_mut().unwrap().operations.push(moving);
    assert_eq!(about_db1(&case), [], "the move's own steps see to them");
}

#[test]
fn a_lost_stores_vote_is_handed_to_the_new_one_in_one_step() {
    let mut case = leading_control();
    let next = case.control.as_ref().unwrap().next_replica;
    case.control.as_mut().unwrap().next_replica += 1;
    let node = case.control.as_mut().unwrap().nodes.iter_mut().find(|node| node.node == 4).unwrap();
    (node.joining_since, node.replaced) = (9, 4);
    let copies = &mut control_record(&mut case).replicas;
    let copy = copies.iter_mut().find(|copy| copy.node == 4).unwrap();
    (copy.replica, copy.voter) = (next, false);
    let database = DatabaseId::CONTROL;
    let learners = vec![Place { replica: ReplicaId(next), node: NodeId(4) }];
    assert_eq!(control_actions(&case), [Action::AddLearners { database, learners }]);
    case.running.get_mut(&database).unwrap().members.insert(ReplicaId(next));
    assert_eq!(control_actions(&case), [], "the old copy keeps its vote");
    let copies = &mut control_record(&mut case).replicas;
    copies.iter_mut().find(|copy| copy.node == 4).unwrap().voter = true;
    let voters: BTreeSet<ReplicaId> = [1, 2, 3, 5, next].into_iter().map(ReplicaId).collect();
    let change = Action::ChangeVoters { database, voters: voters.clone() };
    assert_eq!(control_actions(&case), [change]);
    case.running.get_mut(&database).unwrap().voters = voters;
    let left = Action::RemoveLearners { database, learners: BTreeSet::from([ReplicaId(4)]) };
    assert_eq!(control_actions(&case), [left]);
}

#[test]
fn a_new_control_leader_changes_no_members_by_a_state_of_before_its_term() {
    let mut case = leading_control();
    control_record(&mut case).replicas.retain(|copy| copy.node != 4);
    case.read_in = 6;
    assert_eq!(control_actions(&case), []);
    case.read_in = 7;
    assert_ne!(control_actions(&case), []);
}

fn db1(case: &mut Case) -> &mut DatabaseRecord {
    let databases = case.control.as_mut().unwrap().databases.iter_mut();
    databases.into_iter().find(|record| record.id() == DB1).unwrap()
}

fn about_db1(case: &Case) -> Vec<Action> {
    let about = |action: &Action| match action {
        Action::Start { database, .. }
        | Action::Stop { database }
        | Action::LeftBehind { database, .. }
        | Action::AddLearners { database, .. }
        | Action::ChangeVoters { database, .. } => *database == DB1,
        _ => false,
    };
    case.decide().into_iter().filter(about).collect()
}

#[test]
fn a_held_copy_is_stopped_and_not_started_until_its_hold_ends() {
    let mut case = Case::settled(2);
    case.held.insert(DB1);
    assert_eq!(about_db1(&case), [Action::Stop { database: DB1 }]);
    case.running.remove(&DB1);
    assert_eq!(about_db1(&case), []);
    case.held.clear();
    assert!(matches!(about_db1(&case)[..], [Action::Start { .. }]));
}

/// DB1 was formed anew from the copy of node 1; every copy has the id it had, and 90 more.
fn formed_anew(node: u64) -> Case {
    let mut case = Case::settled(node);
    case.control.as_mut().unwrap().next_replica = 200;
    let record = db1(&mut case);
    record.generation = 2;
    for copy in &mut record.replicas {
        let old = copy.replica;
        copy.replica += 90;
        copy.seeded = true;
        let chosen = copy.node == 1;
        (copy.voter, copy.left_behind) = (chosen, !chosen);
        copy.from_replica = if chosen { old } else { 0 };
        copy.unfit = if chosen { String::new() } else { "left behind".into() };
    }
    case
}

#[test]
fn the_first_copy_of_a_generation_is_made_of_the_old_one() {
    let mut case = formed_anew(1);
    assert_eq!(about_db1(&case), [Action::Stop { database: DB1 }]);
    let old = case.running.remove(&DB1).unwrap().replica;
    let (database, generation, replica) = (DB1, Generation(2), ReplicaId(old.0 + 90));
    let (seeded, path, from) = (true, String::new(), Some(old));
    let start = Action::Start { database, generation, replica, seeded, path, from };
    assert_eq!(about_db1(&case), [start]);
    // It leads, and tells nothing to copies that are not there.
    case.runs(DB1, |running| {
        (running.replica, running.leads) = (replica, true);
        running.members = BTreeSet::from([replica]);
        running.voters = BTreeSet::from([replica]);
    });
    assert_eq!(about_db1(&case), []);
}

#[test]
fn a_copy_that_was_left_behind_is_failed_and_told_to_nobody() {
    let mut case = formed_anew(2);
    assert_eq!(about_db1(&case), [Action::Stop { database: DB1 }]);
    let old = case.running.remove(&DB1).unwrap().replica;
    let (database, generation, replica) = (DB1, Generation(2), ReplicaId(old.0 + 90));
    let why = "left behind".to_owned();
    let failed = Action::LeftBehind { database, generation, replica, why };
    assert_eq!(about_db1(&case), [failed]);
    case.failed.insert(DB1, replica);
    assert_eq!(about_db1(&case), []);
}
