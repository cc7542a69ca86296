//! A DAG to decide about, for the tests of this crate: made by real commands, heard as healthy.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;

use bytes::Bytes;
use dag_types::{CopyStatus, DatabaseId, LogId, Millis, NodeId};

use crate::control::command::Founder;
use crate::control::definition::example;
use crate::control::{
    Command, ControlState, CreateDag, CreateDatabase, DatabaseRecord, Order, Outcome, RegisterBoot,
    Rejection, apply,
};
use crate::report::{ControlReport, CopyReport, GateReport, NodeReport, Reports};
use crate::test_state::State;

pub(crate) const NOW: u64 = 1_700_000_000_000;
pub(crate) const TERM: u64 = 7;

pub(crate) struct Scene {
    pub(crate) state: State,
    pub(crate) index: u64,
    pub(crate) now: u64,
    pub(crate) term: u64,
    pub(crate) control: ControlState,
    pub(crate) reports: Reports,
}

pub(crate) fn store(node: u64) -> Bytes {
    vec![node as u8; 16].into()
}

impl Scene {
    /// A DAG of this shape with these databases, all healthy, each active on its first copy.
    pub(crate) fn new(shape: &str, names: &[&str]) -> Self {
        let definition = example(shape);
        let founder = |node: u64| Founder { node, store: store(node) };
        let creation = CreateDag {
            dag: vec![7; 16].into(),
            founders: definition.nodes.iter().map(|node| founder(node.node)).collect(),
            activation: vec![8; 16].into(),
            definition: Some(definition.clone()),
        };
        let mut state = State::default();
        let command =
            Command { at_ms: NOW, order: Some(Order::CreateDag(creation)), ..Command::default() };
        let applied = apply(&state, LogId { term: TERM, index: 1 }, &command).unwrap();
        state.write(applied.writes);
        let control = ControlState::read(&state).unwrap().unwrap();
        let reports = Reports::default();
        let mut scene = Self { state, index: 1, now: NOW, term: TERM, control, reports };
        for node in &definition.nodes {
            let boot = RegisterBoot {
                node: node.node,
                store: store(node.node),
                boot_counter: 1,
                boot_id: node.node,
            };
            scene.run(Order::RegisterBoot(boot));
        }
        for name in names {
            let (request_id, name) = (name.to_string(), name.to_string());
            let order = CreateDatabase { request_id, name, ..CreateDatabase::default() };
            scene.run(Order::CreateDatabase(order));
        }
        scene.hear_everything();
        scene
    }

    pub(crate) fn run(&mut self, order: Order) -> Outcome {
        self.index += 1;
        let command = Command {
            at_ms: self.now,
            who: "ann".into(),
            from: "console".into(),
            reason: "because".into(),
            order: Some(order),
        };
        let at = LogId { term: self.term, index: self.index };
        let applied = apply(&self.state, at, &command).unwrap();
        assert_eq!(apply(&self.state, at, &command).unwrap(), applied);
        self.state.write(applied.writes);
        self.state.check_digest();
        self.control = ControlState::read(&self.state).unwrap().unwrap();
        applied.response.outcome.unwrap()
    }

    /// Runs an order that must be carried out.
    pub(crate) fn done(&mut self, order: Order) {
        let outcome = self.run(order);
        assert!(matches!(outcome, Outcome::Changed(_)), "{outcome:?}");
    }

    /// Runs an order that must fail a check, and names the check.
    pub(crate) fn refused(&mut self, order: Order) -> alloc::string::String {
        match self.run(order) {
            Outcome::Rejected(rejected) => match rejected.reason.unwrap() {
                Rejection::Check(check) => check.check,
                other => format!("{other:?}"),
            },
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn database(&self, name: &str) -> DatabaseRecord {
        self.control.database_named(name).unwrap().clone()
    }

    fn hear_everything(&mut self) {
        let lineage = self.control.last_lineage();
        let node = |node: &crate::control::NodeRecord| NodeReport {
            node: node.id(),
            reachable: true,
            last_heard: Millis(0),
            gate: match node.witness {
                true => GateReport::Unknown,
                false => GateReport::Open(Millis(8000)),
            },
            lineage,
            control_copy_runs: true,
            admin_answers: true,
            disk_low: false,
            clock_skew: Millis(0),
            version: "1.0.0".into(),
            insecure: false,
            does_not_hear: vec![],
        };
        let databases = self.control.databases.iter().filter(|db| db.id() != DatabaseId::CONTROL);
        let copies = databases.flat_map(|database| {
            database.replicas.iter().enumerate().map(|(i, copy)| CopyReport {
                database: database.id(),
                node: copy.node(),
                status: if i == 0 { CopyStatus::Mounted } else { CopyStatus::Healthy },
                since: Millis(1000),
                copy_queue: 0,
                copy_queue_age: Millis(0),
                replay_queue: 0,
                replay_queue_age: Millis(0),
                digest_equal: true,
                last_index: 0,
            })
        });
        self.reports = Reports {
            at_ms: self.now,
            control: ControlReport { leader: Some(NodeId(1)), term: self.term },
            nodes: self.control.nodes.iter().map(node).collect(),
            copies: copies.collect(),
        };
    }

    pub(crate) fn copy(&mut self, name: &str, node: u64) -> &mut CopyReport {
        let id = self.database(name).id();
        let copy = self.reports.copies.iter_mut();
        copy.into_iter().find(|c| c.database == id && c.node == NodeId(node)).unwrap()
    }

    pub(crate) fn node(&mut self, node: u64) -> &mut NodeReport {
        self.reports.nodes.iter_mut().find(|report| report.node == NodeId(node)).unwrap()
    }

    /// Makes a database active on a node.
    pub(crate) fn mount(&mut self, name: &str, node: u64) {
        let id = self.database(name).id();
        for copy in self.reports.copies.iter_mut().filter(|copy| copy.database == id) {
            let here = copy.node == NodeId(node);
            copy.status = if here { CopyStatus::Mounted } else { CopyStatus::Healthy };
        }
    }

    /// A node is gone, with its copies.
    pub(crate) fn lose(&mut self, node: u64) {
        self.node(node).reachable = false;
        self.node(node).admin_answers = false;
        for copy in self.reports.copies.iter_mut().filter(|copy| copy.node == NodeId(node)) {
            copy.status = CopyStatus::ServiceDown;
        }
    }
}
