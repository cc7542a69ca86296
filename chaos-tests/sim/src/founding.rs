//! The DAG of a run: what its control log begins with, and where it says that copies stand.
//!
//! The same orders go through the control group in every run, so what they come to is known before:
//! they are applied here once, to a state in memory, by the machine itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::OnceLock;

use active_manager::control::command::Founder;
use active_manager::control::definition::NodeDefinition;
use active_manager::control::record::Timeouts;
use active_manager::control::{
    self, Command, ControlState, CreateDag, CreateDatabase, Definition, Order, Settings,
};
use bytes::Bytes;
use dag_types::{LogId, StateView, Write};
use prost::Message as _;

use crate::node::{DAG, LINEAGE, store};
use crate::shape::{DATA_NODES, FIRST_DATABASE, LAST_DATABASE, NODES, WITNESS, site};

/// The sites that hold data, by their numbers.
pub const SITES: [&str; 2] = ["alpha", "beta"];
/// A database moves for balance at most once in this time.
const MOVE_BLOCK_MS: u64 = 2_000;
/// Where the witness stands.
const THIRD_PLACE: &str = "gamma";

/// The first commands of the control log, in their order.
pub fn commands() -> Vec<Bytes> {
    let databases = (FIRST_DATABASE..=LAST_DATABASE).map(create_database);
    [create_dag(), settings()].into_iter().chain(databases).map(encoded).collect()
}

/// What they come to.
pub fn state() -> &'static ControlState {
    static STATE: OnceLock<ControlState> = OnceLock::new();
    STATE.get_or_init(|| {
        let mut rows = Rows::default();
        for (index, command) in (1..).zip(commands()) {
            let command = Command::decode(command).expect("encoded above");
            let at = LogId { term: 1, index };
            let applied = control::apply(&rows, at, &command).expect("a state in memory");
            rows.write(applied.writes);
        }
        ControlState::read(&rows).expect("a state in memory").expect("a DAG was created")
    })
}

/// An order of the harness as a command.
pub fn encoded(order: Order) -> Bytes {
    let who = "sim".to_owned();
    Command { at_ms: 1, who, order: Some(order), ..Command::default() }.encode_to_vec().into()
}

fn create_dag() -> Order {
    let founder = |node| Founder { node, store: Bytes::copy_from_slice(&store(node).0) };
    Order::CreateDag(CreateDag {
        dag: Bytes::copy_from_slice(&DAG.0),
        definition: Some(definition()),
        founders: (1..=NODES).map(founder).collect(),
        activation: Bytes::copy_from_slice(&LINEAGE.activation.0),
    })
}

/// As they are, but for the block time: a run lasts ten seconds.
fn settings() -> Order {
    Order::SetSettings(Settings { move_block_ms: MOVE_BLOCK_MS, ..Settings::DEFAULT })
}

fn definition() -> Definition {
    let node = |node| NodeDefinition {
        node,
        name: format!("node{node}"),
        site: SITES.get(site(node) as usize).copied().unwrap_or(THIRD_PLACE).to_owned(),
        witness: node == WITNESS,
        peer_address: format!("node{node}:1"),
        client_address: format!("node{node}:2"),
        admin_address: format!("node{node}:3"),
    };
    Definition {
        name: "sim".to_owned(),
        sites: SITES.map(str::to_owned).to_vec(),
        nodes: (1..=NODES).map(node).collect(),
        control_voters: (1..=NODES).collect(),
        // A run's own ones are those of its weather.
        database_timeouts: Some(Timeouts::DEFAULT),
        control_timeouts: Some(Timeouts::DEFAULT),
    }
}

/// The databases take turns at the sites, with the majority of their voters in their own.
fn create_database(database: u64) -> Order {
    let home = database % 2;
    let mut nodes: Vec<u64> = (1..=DATA_NODES).collect();
    nodes.sort_by_key(|node| site(*node) != home);
    Order::CreateDatabase(CreateDatabase {
        request_id: format!("create-{database}"),
        name: format!("DB{database}"),
        nodes,
        site: SITES[home as usize].to_owned(),
    })
}

#[derive(Default)]
struct Rows(BTreeMap<Bytes, Bytes>);

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

impl StateView for Rows {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Infallible> {
        let range = self.0.range(Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
