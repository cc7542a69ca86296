//! Entries that nobody wrote: one that can be read never stops a copy, because it would stop all.

use std::string::String;
use std::vec;
use std::vec::Vec;

use bytes::Bytes;
use dag_types::LogId;
use fuzzing::{Target, all, kind};
use prost::Message;

use crate::control::command::*;
use crate::control::definition::{NodeDefinition, example};
use crate::control::{ControlState, Settings};
use crate::test_state::State;
use crate::{Fault, control, directory};

const NOW: u64 = 1_700_000_000_000;

fn sixteen(byte: u64) -> Bytes {
    vec![byte as u8; 16].into()
}

fn creation() -> CreateDag {
    let definition = example("A1 A2 B3 B4 C5w");
    let founder = |node: &NodeDefinition| Founder { node: node.node, store: sixteen(node.node) };
    CreateDag {
        dag: sixteen(7),
        founders: definition.nodes.iter().map(founder).collect(),
        definition: Some(definition),
        activation: sixteen(8),
    }
}

/// In an order in which most of them can be carried out.
fn orders() -> Vec<Order> {
    let database = 16;
    let suspension = CopySuspension { database, node: 2, activation_only: true };
    let gate = OpenGate {
        node: 1,
        store: sixteen(1),
        boot_counter: 1,
        boot_id: 5,
        epoch: 1,
        activation: sixteen(8),
        grant_term: 1,
        grant_number: 1,
    };
    let begin_step =
        BeginStep { operation: 1, step: 1, term: 1, node: 2, what: "move".into(), undoes: false };
    let end_step =
        EndStep { operation: 1, step: 1, term: 1, succeeded: true, outcome: "done".into() };
    let boot = RegisterBoot { node: 1, store: sixteen(1), boot_counter: 1, boot_id: 5 };
    let policy = SetNodePolicy {
        node: 2,
        policy: Some(1),
        maximum_active: Some(4),
        preferred_active: Some(2),
    };
    let create = CreateDatabase {
        request_id: "c1".into(),
        name: "DB1".into(),
        nodes: vec![],
        site: String::new(),
    };
    let begin = BeginOperation {
        request_id: "o1".into(),
        kind: 1,
        object: "DB1".into(),
        plan: "{}".into(),
    };
    let admit = AdmitNode {
        node: example("A6").nodes.pop(),
        store: sixteen(6),
        term: 1,
        ..AdmitNode::default()
    };
    let record =
        RecordMove { database, from: 1, to: 2, cause: 1, acknowledged: true, operation: 9 };
    vec![
        Order::CreateDag(creation()),
        Order::RegisterBoot(boot),
        Order::CreateDatabase(create),
        Order::SetNodePolicy(policy),
        Order::SetDatabasePolicy(SetDatabasePolicy { database, policy: 2 }),
        Order::SuspendCopy(suspension.clone()),
        Order::ResumeCopy(suspension),
        Order::SetPreference(SetPreference { database, nodes: vec![2, 1] }),
        Order::DrainNode(NodeOrder { node: 2 }),
        Order::UndrainNode(NodeOrder { node: 2 }),
        Order::SetSettings(Settings::default()),
        Order::OpenGate(gate),
        Order::RecordMove(record),
        Order::BeginOperation(begin),
        Order::BeginStep(begin_step),
        Order::EndStep(end_step),
        Order::PlaceVoters(PlaceVoters { database, nodes: vec![1, 2, 3] }),
        Order::RetireNode(RetireNode { node: 4, stays: false, term: 1 }),
        Order::PlaceControlVoters(PlaceControlVoters { nodes: vec![1, 3, 5], term: 1 }),
        Order::RemoveNode(RemoveNode { node: 4, term: 1 }),
        Order::AdmitNode(admit),
        Order::DismissNode(DismissNode { node: 6, store: sixteen(6), keeps: 0, term: 1 }),
        Order::SettleNode(SettleNode { node: 6, term: 1 }),
        Order::NoteSnapshot(NoteSnapshot { database, node: 2, snapshot: "0".repeat(32), what: 3 }),
        Order::EndOperation(EndOperation { operation: 1, ending: 1, outcome: "done".into() }),
    ]
}

fn command(order: Order) -> Command {
    Command { at_ms: NOW, who: "operator".into(), order: Some(order), ..Command::default() }
}

#[test]
fn an_entry_of_the_control_log_that_can_be_read_never_stops_a_copy() {
    let mut state = State::default();
    let at = |index| LogId { term: 1, index };
    let mut samples = Vec::new();
    let (begun, ended): (Vec<_>, Vec<_>) =
        orders().into_iter().partition(|order| !matches!(order, Order::EndOperation(_)));
    for (index, order) in (1..).zip(begun) {
        samples.push(command(order.clone()).encode_to_vec());
        let applied = control::apply(&state, at(index), &command(order)).expect("no fault");
        state.write(applied.writes);
    }
    samples.extend(ended.into_iter().map(|order| command(order).encode_to_vec()));
    let empty = State::default();
    let (seven, eight) = (sixteen(7), sixteen(8));
    let words: [&[u8]; 4] = [&seven, &eight, b"\x10\x01", b"\x18\xff\xff\xff\xff\x0f"];
    let target = Target { name: "control entry", samples, words: &words, longest: 4_000 };
    fuzzing::run(target, |bytes| {
        let Ok(command) = Command::decode(bytes) else { return 0 };
        let mut answers = Vec::new();
        for before in [&empty, &state] {
            let applied = match control::apply(before, at(99), &command) {
                Ok(applied) => applied,
                Err(Fault::UnknownCommand) if command.order.is_none() => return 1,
                Err(fault) => panic!("{fault}"),
            };
            let mut after = before.clone();
            after.write(applied.writes);
            after.check_digest();
            ControlState::read(&after).expect("what was written can be read");
            let refused = match applied.response.outcome {
                Some(control::Outcome::Rejected(rejected)) => {
                    rejected.reason.map_or(0, |reason| kind(&reason))
                }
                _ => 1,
            };
            answers.push(refused);
        }
        answers.extend(command.order.map(|order| kind(&order)));
        all(&answers)
    });
}

#[test]
fn an_entry_of_the_directory_that_can_be_read_never_stops_a_copy() {
    use directory::{Command, Confirm, Order, Reserve};
    let reserve = |request: &str, address: &str| {
        Order::Reserve(Reserve {
            request_id: request.into(),
            address: address.into(),
            mailbox: sixteen(5),
            database: 0,
            candidates: vec![16, 17],
        })
    };
    let confirm = Order::Confirm(Confirm { request_id: "r1".into(), mailbox: sixteen(5) });
    let orders = [reserve("r1", "ann@example.org"), confirm, reserve("r2", "bob@example.org")];
    let mut state = State::default();
    let mut samples = Vec::new();
    for order in orders {
        let command = Command { at_ms: NOW, order: Some(order) };
        let applied = directory::apply(&state, LogId::default(), &command).expect("no fault");
        state.write(applied.writes);
        samples.push(command.encode_to_vec());
    }
    let words: [&[u8]; 3] = [b"@", b"\xc3\x9f", b"r1"];
    let target = Target { name: "directory entry", samples, words: &words, longest: 2_000 };
    fuzzing::run(target, |bytes| {
        let Ok(command) = Command::decode(bytes) else { return 0 };
        let applied = match directory::apply(&state, LogId::default(), &command) {
            Ok(applied) => applied,
            Err(Fault::UnknownCommand) if command.order.is_none() => return 1,
            Err(fault) => panic!("{fault}"),
        };
        let mut after = state.clone();
        after.write(applied.writes);
        after.check_digest();
        let order = command.order.map_or(0, |order| kind(&order));
        let outcome = applied.response.outcome.map(|outcome| match outcome {
            directory::Outcome::Rejected(rejected) => {
                rejected.reason.map_or(0, |reason| kind(&reason))
            }
            other => kind(&other),
        });
        all(&[order, outcome.unwrap_or(0)])
    });
}
