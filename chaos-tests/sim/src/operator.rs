//! Whoever runs the DAG: asks for moves, also to the other site, for drains and a balance while faults
//! come and go, at whichever node leads the control group; and what must be true of all this.
//!
//! | rule | what is broken |
//! | --- | --- |
//! | O1 | a step of an operation was carried out twice |
//! | O2 | a step was carried out for a control leader after one of a later term had sent one |
//! | O3 | an operation stays running though everything is healed |
//! | I16 | a database moved twice for balance within the block time |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use active_manager::control::ControlState;
use active_manager::movement::Motive;
use active_manager::report::{ControlReport, CopyReport, GateReport, NodeReport, Reports};
use dag_types::{CopyStatus, DatabaseId, Millis, NodeId};
use history::journal::{Event, StepState};
use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::founding::{self, SITES};
use crate::office::Wish;
use crate::seeds::Wished;
use crate::server::{Reply, Request};
use crate::shape::{
    DATA_NODES, FIRST_DATABASE, LAST_DATABASE, NODES, WITNESS, mailbox_databases, site,
};
use crate::words;
use crate::world::World;

/// How long it may take after healing until every operation is over.
const OVER_MS: u64 = 15_000;
/// How long whoever asks goes on asking.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Something that is asked for, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// From the beginning of the faults.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A database becomes active on the other node of its site.
    Move {
        /// Which.
        database: u64,
    },
    /// A database becomes active in the other site, where the majority of its voters stands from then on.
    MoveSite {
        /// Which.
        database: u64,
    },
    /// Everything that is active on a node goes to the other one.
    Drain {
        /// Which.
        node: u64,
    },
    /// Every database goes back to its preferred copy.
    Balance,
    /// A copy is built anew beside the old one, under a new replica id.
    Reseed {
        /// Of which database.
        database: u64,
        /// Where.
        node: u64,
        /// Everything is sent, also what the old copy has.
        whole: bool,
        /// Bytes a second; 0: no limit.
        limit: u64,
    },
}

/// Draws what is asked for in a run.
pub fn draw(dice: &mut Dice, within_ms: u64) -> Vec<Asked> {
    let count = dice.between(2, 6);
    let mut asked: Vec<Asked> = (0..count)
        .map(|_| {
            let at_ms = dice.between(50, within_ms - 500);
            let what = match dice.below(6) {
                0 => What::Drain { node: dice.between(1, DATA_NODES) },
                1 => What::Balance,
                2 => What::MoveSite { database: dice.between(FIRST_DATABASE, LAST_DATABASE) },
                _ => What::Move { database: dice.between(FIRST_DATABASE, LAST_DATABASE) },
            };
            Asked { at_ms, what }
        })
        .collect();
    asked.sort_by_key(|asked| asked.at_ms);
    asked
}

/// What is known of operations.
#[derive(Default)]
pub struct Operations {
    /// Steps that were carried out.
    begun: BTreeSet<(u64, u64)>,
    /// The greatest control term that had a step carried out, for each operation.
    terms: BTreeMap<u64, u64>,
    /// When each database moved for balance, by the control log.
    balanced: BTreeMap<u64, BTreeSet<u64>>,
    /// The control log's index of each node that was looked at.
    seen: BTreeMap<u64, u64>,
    /// Wishes so far.
    wished: u64,
    /// Steps that succeeded, and steps that a node refused.
    pub done: u64,
    /// See `done`.
    pub refused: u64,
}

impl World {
    /// Sends out what is asked for.
    pub fn ask_for(&mut self, asked: &Asked) {
        if let What::Reseed { database, node, whole, limit } = asked.what {
            let database = DatabaseId(database);
            return self.want_seed(Wished { database, node, whole, limit });
        }
        let reports = reports(self);
        let moves: Vec<(DatabaseId, u64, Motive)> = match asked.what {
            What::Move { database } => {
                let database = DatabaseId(database);
                let other = self.serving(database).and_then(|it| self.other_of(database, it));
                other.map(|to| (database, to, Motive::Operator)).into_iter().collect()
            }
            What::MoveSite { database } => {
                let database = DatabaseId(database);
                let other = self.serving(database).map(|active| 1 - site(active));
                let to = other.map(|other| self.nodes_in(database, other)[0]);
                to.map(|to| (database, to, Motive::Operator)).into_iter().collect()
            }
            What::Drain { node } => mailbox_databases()
                .filter(|database| self.serving(*database) == Some(node))
                .filter_map(|it| Some((it, self.other_of(it, node)?, Motive::Drain)))
                .collect(),
            What::Balance => mailbox_databases()
                .map(|database| (database, self.home(database)[0], Motive::Balance))
                .filter(|(database, to, _)| self.serving(*database) != Some(*to))
                .collect(),
            What::Reseed { .. } => Vec::new(),
        };
        for (database, to, motive) in moves {
            self.wish(database, to, motive, reports.clone());
        }
    }

    /// Asks for a database to become active where it belongs, on a node that it is not active on now.
    pub fn bring_home(&mut self, database: DatabaseId) {
        let active = self.serving(database);
        if let Some(to) = self.home(database).into_iter().find(|node| active != Some(*node)) {
            self.wish(database, to, Motive::Operator, reports(self));
        }
    }

    fn wish(&mut self, database: DatabaseId, to: u64, motive: Motive, reports: Reports) {
        self.operations.wished += 1;
        let request = format!("wish-{}", self.operations.wished);
        self.trace.tell(format!("wish {request} db {database} to node {to} {motive:?}"));
        let wish = Wish { request, database, to, motive, reports };
        let work = self.work.clone();
        self.spawn_client(async move {
            let end = tokio::time::Instant::now() + PATIENCE;
            let mut node = WITNESS;
            while tokio::time::Instant::now() < end {
                match work.ask(node, Request::Wish(wish.clone())).await {
                    Some(Reply::Stepped(_)) => return,
                    Some(Reply::Refused(Some(hint))) if hint != node => node = hint,
                    _ => node = node % NODES + 1,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    /// The nodes of a site, the one first that a database prefers.
    fn nodes_in(&self, database: DatabaseId, wanted: u64) -> [u64; 2] {
        let record = founding::state().database(database).expect("a database of the shape");
        let nodes = record.replicas.iter().map(|copy| copy.node().0);
        let nodes: Vec<u64> = nodes.filter(|node| site(*node) == wanted).collect();
        nodes.try_into().expect("a site has two nodes")
    }

    /// The nodes of the site where a database belongs now.
    fn home(&self, database: DatabaseId) -> [u64; 2] {
        let known = self.control();
        let state = known.as_deref().unwrap_or(founding::state());
        let record = state.database(database).expect("a database of the shape");
        let at = SITES.iter().position(|site| *site == record.active_site);
        self.nodes_in(database, at.expect("it belongs to a site") as u64)
    }

    /// The other node of the site; none where the database is active outside of it.
    fn other_of(&self, database: DatabaseId, active: u64) -> Option<u64> {
        let [first, second] = self.home(database);
        let pairs = [(first, second), (second, first)];
        pairs.iter().find(|(one, _)| *one == active).map(|(_, to)| *to)
    }

    /// A node said something of a step.
    pub fn note_step(&mut self, node: u64, event: &Event) {
        let Event::Step { operation, step, term, state, .. } = *event else { return };
        match state {
            StepState::Begun => {
                if !self.operations.begun.insert((operation, step)) {
                    self.find(format!(
                        "O1: node {node} carried step {step} of operation {operation} out again"
                    ));
                }
                let newest = self.operations.terms.entry(operation).or_default();
                if term < *newest {
                    let newest = *newest;
                    self.find(format!(
                        "O2: node {node} carried step {step} of operation {operation} out for the \
                         control leader of term {term}, and one of term {newest} had sent a step"
                    ));
                } else {
                    *newest = term;
                }
            }
            StepState::Done => self.operations.done += 1,
            StepState::Refused => self.operations.refused += 1,
            StepState::Failed => {}
        }
    }

    /// Looks at what the control log says of moves, where a node has applied more of it.
    pub fn watch_operations(&mut self) {
        for id in 1..=NODES {
            let Some(life) = &self.nodes[&id].life else { continue };
            let Some(state) = life.shared.state().control.clone() else { continue };
            let address = std::sync::Arc::as_ptr(&state) as u64;
            if self.operations.seen.insert(id, address) == Some(address) {
                continue;
            }
            self.note_balance(&state);
        }
    }

    fn note_balance(&mut self, state: &ControlState) {
        for database in mailbox_databases() {
            let at = state.database_policy(database).last_move_ms;
            let moves = self.operations.balanced.entry(database.0).or_default();
            if at == 0 || !moves.insert(at) {
                continue;
            }
            let before = moves.range(..at).next_back().copied();
            let since = before.map(|before| at - before);
            if since.is_some_and(|since| since < state.settings.move_block_ms) {
                self.find(format!(
                    "I16: database {database} moved for balance {} ms after it last did, and the \
                     block time is {} ms",
                    since.unwrap_or_default(),
                    state.settings.move_block_ms
                ));
            }
        }
    }
}

/// Waits until every operation is over; false where one stays.
pub fn all_over(world: &mut World) -> bool {
    let left = |world: &World| -> Vec<String> {
        let leader =
            world.serving(DatabaseId::CONTROL).and_then(|id| world.nodes[&id].life.as_ref());
        let state = leader.and_then(|life| life.shared.state().control.clone());
        state.map_or_else(
            || vec!["nobody knows".to_owned()],
            |state| state.running().map(|known| format!("{known:?}")).collect(),
        )
    };
    let over = world.until(OVER_MS, |world| left(world).is_empty());
    if !over {
        let left = left(world);
        let rule = if world.seeding().is_empty() { "O3" } else { "B4" };
        world.find(format!("{rule}: operations stay running: {}", left.join("; ")));
    }
    over
}

/// How all nodes and copies stand, as somebody would say who sees everything.
pub fn reports(world: &World) -> Reports {
    let leader = world.serving(DatabaseId::CONTROL);
    Reports {
        at_ms: world.now_ms,
        control: ControlReport { leader: leader.map(NodeId), term: 0 },
        nodes: (1..=NODES).map(|id| node_report(world, id)).collect(),
        copies: mailbox_databases()
            .flat_map(|database| (1..=DATA_NODES).map(move |id| (database, id)))
            .filter_map(|(database, id)| copy_report(world, database, id))
            .collect(),
    }
}

fn node_report(world: &World, id: u64) -> NodeReport {
    let node = &world.nodes[&id];
    let reachable = node.life.is_some() && node.paused_ms.is_none();
    let gate = match (id, world.gate_is_open(id)) {
        (WITNESS, _) => GateReport::Unknown,
        (_, true) => GateReport::Open(Millis(100)),
        (_, false) => GateReport::Closed("not granted".to_owned()),
    };
    NodeReport { gate, ..words::node_report(id, reachable) }
}

fn copy_report(world: &World, database: DatabaseId, id: u64) -> Option<CopyReport> {
    let status = world.nodes[&id].group(database)?.status();
    let active = world.serving(database);
    let last = active.and_then(|active| world.nodes[&active].group(database)?.status().last);
    let (own, applied) = (status.last.map_or(0, |at| at.index), status.applied);
    Some(CopyReport {
        database,
        node: NodeId(id),
        status: match (active == Some(id), status.failed.is_some()) {
            (true, _) => CopyStatus::Mounted,
            (false, true) => CopyStatus::Failed,
            (false, false) => CopyStatus::Healthy,
        },
        since: Millis(0),
        copy_queue: last.map_or(0, |last| last.index).saturating_sub(own),
        copy_queue_age: Millis(0),
        replay_queue: own.saturating_sub(applied.map_or(0, |at| at.index)),
        replay_queue_age: Millis(0),
        last_index: own,
        digest_equal: true,
    })
}
