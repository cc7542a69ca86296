//! Commands and what they leave behind.

use std::vec;

use super::*;
use crate::control::definition::example;
use crate::control::state;
use crate::test_state::State;

const NOW: u64 = 1_700_000_000_000;

struct Group {
    state: State,
    index: u64,
    now: u64,
}

impl Group {
    fn empty() -> Self {
        Self { state: State::default(), index: 0, now: NOW }
    }

    fn with(shape: &str) -> Self {
        let mut group = Self::empty();
        let outcome = group.run(Order::CreateDag(creation(shape)));
        assert_eq!(outcome, Outcome::DagCreated(DagCreated { replayed: false }));
        group
    }

    fn run(&mut self, order: Order) -> Outcome {
        self.index += 1;
        let command = Command {
            at_ms: self.now,
            who: "operator".into(),
            order: Some(order),
            ..Command::default()
        };
        let at = LogId { term: 1, index: self.index };
        let applied = apply(&self.state, at, &command).unwrap();
        assert_eq!(apply(&self.state, at, &command).unwrap(), applied);
        self.state.write(applied.writes);
        self.state.check_digest();
        applied.response.outcome.unwrap()
    }

    fn rejection(&mut self, order: Order) -> Rejection {
        match self.run(order) {
            Outcome::Rejected(rejected) => rejected.reason.unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn database(&mut self, request: &str, name: &str) -> DatabaseRecord {
        match self.run(database(request, name)) {
            Outcome::DatabaseCreated(created) => created.database.unwrap(),
            other => panic!("not created: {other:?}"),
        }
    }

    fn read(&self) -> ControlState {
        ControlState::read(&self.state).unwrap().unwrap()
    }
}

fn store(node: u64) -> Bytes {
    vec![node as u8; 16].into()
}

fn creation(shape: &str) -> CreateDag {
    let definition = example(shape);
    let founder = |node: &NodeDefinition| Founder { node: node.node, store: store(node.node) };
    CreateDag {
        dag: vec![7; 16].into(),
        founders: definition.nodes.iter().map(founder).collect(),
        definition: Some(definition),
        activation: vec![8; 16].into(),
    }
}

fn boot(node: u64, counter: u64, id: u64) -> Order {
    let (boot_counter, boot_id) = (counter, id);
    Order::RegisterBoot(RegisterBoot { node, store: store(node), boot_counter, boot_id })
}

fn database(request: &str, name: &str) -> Order {
    let (request_id, name) = (request.into(), name.into());
    Order::CreateDatabase(CreateDatabase { request_id, name, nodes: vec![], site: String::new() })
}

#[test]
fn a_new_dag_has_its_first_link_its_nodes_and_the_directory() {
    let state = Group::with("A1 A2 B3 B4 C5w").read();
    assert_eq!(state.last_lineage().epoch, 1);
    assert_eq!(state.lineage[0].started_sites, ["A", "B"]);
    assert_eq!(state.nodes.len(), 5);
    let control = state.database(DatabaseId::CONTROL).unwrap();
    let numbers: Vec<u64> = control.replicas.iter().map(|copy| copy.replica).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert!(control.replicas.iter().all(|copy| copy.voter));
    let directory = state.database_named("Directory").unwrap();
    assert_eq!(directory.id(), DatabaseId::DIRECTORY);
    let nodes: Vec<u64> = directory.replicas.iter().map(|copy| copy.node).collect();
    assert_eq!(nodes, [1, 2, 3, 4]);
    assert!(directory.replicas.iter().all(|copy| copy.store == store(copy.node)));
}

#[test]
fn creating_the_same_dag_again_changes_nothing() {
    let mut group = Group::with("A1 A2 A3");
    let before = group.state.len();
    let again = group.run(Order::CreateDag(creation("A1 A2 A3")));
    assert_eq!(again, Outcome::DagCreated(DagCreated { replayed: true }));
    assert_eq!(group.state.len(), before);
}

#[test]
fn a_log_belongs_to_one_dag() {
    let mut group = Group::with("A1 A2 A3");
    let other = CreateDag { dag: vec![9; 16].into(), ..creation("A1 A2 A3") };
    let rejection = group.rejection(Order::CreateDag(other));
    assert_eq!(rejection, Rejection::DagExists(DagExists { dag: vec![7; 16].into() }));
}

#[test]
fn a_definition_with_problems_makes_no_dag() {
    let mut order = creation("A1 A2 A3");
    order.founders.pop();
    order.definition.as_mut().unwrap().nodes[0].peer_address = "x".into();
    let mut group = Group::empty();
    match group.rejection(Order::CreateDag(order)) {
        Rejection::InvalidDefinition(found) => assert_eq!(found.problems.len(), 2, "{found:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ControlState::read(&group.state).unwrap(), None);
}

#[test]
fn nothing_but_its_creation_can_be_asked_of_a_dag_that_is_not_there() {
    let mut group = Group::empty();
    assert_eq!(group.rejection(boot(1, 1, 1)), Rejection::NoDag(NoDag {}));
    assert_eq!(group.rejection(database("r", "DB1")), Rejection::NoDag(NoDag {}));
}

#[test]
fn only_a_greater_counter_registers_a_start() {
    let mut group = Group::with("A1 A2 A3");
    let turned_back = |counter, registered_counter| {
        Rejection::BootTurnedBack(BootTurnedBack { node: 1, counter, registered_counter })
    };
    assert_eq!(group.rejection(boot(1, 0, 0)), turned_back(0, 0));
    let fresh = Outcome::BootRegistered(BootRegistered { replayed: false });
    assert_eq!(group.run(boot(1, 3, 30)), fresh);
    let same = Outcome::BootRegistered(BootRegistered { replayed: true });
    assert_eq!(group.run(boot(1, 3, 30)), same);
    assert_eq!(group.rejection(boot(1, 3, 31)), turned_back(3, 3));
    assert_eq!(group.rejection(boot(1, 2, 20)), turned_back(2, 3));
    assert_eq!(group.run(boot(1, 9, 90)), fresh);
    assert_eq!(group.read().node(NodeId(1)).unwrap().boot(), Boot { counter: 9, id: 90 });
}

#[test]
fn a_start_on_another_store_is_refused() {
    let mut group = Group::with("A1 A2 A3");
    let clone = RegisterBoot { node: 2, store: store(9), boot_counter: 99, boot_id: 1 };
    let unknown = UnknownStore { node: 2, registered: store(2) };
    assert_eq!(group.rejection(Order::RegisterBoot(clone)), Rejection::UnknownStore(unknown));
    let stranger = Rejection::UnknownNode(UnknownNode { node: 8 });
    assert_eq!(group.rejection(boot(8, 1, 1)), stranger);
}

#[test]
fn database_and_replica_ids_are_never_given_out_twice() {
    let mut group = Group::with("A1 A2 A3");
    let first = group.database("r1", "DB1");
    let second = group.database("r2", "DB2");
    assert_eq!(first.id(), DatabaseId::FIRST_MAILBOX_DATABASE);
    assert_eq!(second.database, first.database + 1);
    let state = group.read();
    let all = state.databases.iter().flat_map(|database| &database.replicas);
    let mut ids: Vec<u64> = all.map(|copy| copy.replica).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn databases_spread_over_the_nodes() {
    let mut group = Group::with("A1 A2 A3");
    for i in 0..6 {
        group.database(&format!("r{i}"), &format!("DB{i}"));
    }
    let dag = group.read().placement();
    assert!(dag.nodes.iter().all(|node| node.preferred == 2), "{dag:?}");
}

#[test]
fn a_repeated_request_gets_the_first_answer() {
    let mut group = Group::with("A1 A2 A3");
    let first = group.database("r1", "DB1");
    let rows = group.state.len();
    match group.run(database("r1", "DB1")) {
        Outcome::DatabaseCreated(again) => {
            assert!(again.replayed);
            assert_eq!(again.database, Some(first));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(group.state.len(), rows);
    let reused = Rejection::RequestIdReused(RequestIdReused {});
    assert_eq!(group.rejection(database("r1", "DB2")), reused);
    assert_eq!(group.rejection(database("", "DB2")), reused);
}

#[test]
fn requests_are_forgotten_after_a_day() {
    let mut group = Group::with("A1 A2 A3");
    group.database("r1", "DB1");
    group.now += request::REMEMBERED_MS + 1;
    group.database("r2", "DB2");
    let taken = NameTaken { name: "DB1".into(), database: 16 };
    assert_eq!(group.rejection(database("r1", "DB1")), Rejection::NameTaken(taken));
}

#[test]
fn a_name_is_taken_in_any_case_and_must_be_one() {
    let mut group = Group::with("A1 A2 A3");
    group.database("r1", "Sales");
    let taken =
        |name: &str, database| Rejection::NameTaken(NameTaken { name: name.into(), database });
    assert_eq!(group.rejection(database("r2", "SALES")), taken("SALES", 16));
    assert_eq!(group.rejection(database("r3", "directory")), taken("directory", 1));
    for name in ["", "a/b", "a b", "ä", &"x".repeat(65)] {
        let rejection = group.rejection(database("r4", name));
        assert!(matches!(rejection, Rejection::InvalidName(_)), "{name}");
    }
}

#[test]
fn a_placement_that_cannot_be_is_refused_with_reasons() {
    let mut group = Group::with("A1 A2 B3 B4 C5w");
    let order = CreateDatabase {
        request_id: "r".into(),
        name: "DB1".into(),
        nodes: vec![5, 6],
        site: String::new(),
    };
    match group.rejection(Order::CreateDatabase(order)) {
        Rejection::NoPlacement(found) => assert_eq!(found.problems.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_audit_names_what_was_done_and_what_was_refused() {
    let mut group = Group::with("A1 A2 A3");
    group.database("r1", "DB1");
    group.rejection(database("r2", "DB1"));
    let rows = state::audit(&group.state, 0, 100).unwrap();
    let shown: Vec<(&str, &str, bool)> =
        rows.iter().map(|row| (&row.action[..], &row.object[..], row.accepted)).collect();
    assert_eq!(
        shown,
        [
            ("create dag", "test", true),
            ("create database", "DB1", true),
            ("create database", "DB1", false)
        ]
    );
}

#[test]
fn a_command_of_an_unknown_kind_is_a_fault() {
    let fault = apply(&State::default(), LogId::default(), &Command::default());
    assert_eq!(fault, Err(Fault::UnknownCommand));
}

#[test]
fn rows_of_the_audit_are_numbered_by_themselves_and_not_by_their_entries() {
    let mut group = Group::with("A1 A2 A3");
    group.database("r1", "DB1");
    // Entries without a row: what an equal command did before.
    for _ in 0..5 {
        group.database("r1", "DB1");
    }
    group.database("r2", "DB2");
    let rows = state::audit_from(&group.state, 0, 100).unwrap();
    let numbers: Vec<u64> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let (last, row) = rows.last().unwrap();
    assert!(row.index > *last, "an index is no number");
    assert_eq!(state::audit_from(&group.state, *last, 100).unwrap(), rows[2..]);
    assert_eq!(state::audit_from(&group.state, last + 1, 100).unwrap(), []);
}
