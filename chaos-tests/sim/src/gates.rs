//! What no gate of a run may ever do, watched from outside with what no node can know: all clocks, and
//! who really ran.
//!
//! | rule | what is broken |
//! | --- | --- |
//! | C1 | a gate opened though nobody can have confirmed the control leader: no gate was open lately, and of some started site fewer than half of the data nodes ran |
//! | C2 | a gate is open of which the control leader's fence says that it cannot be: a takeover would not have waited for it |
//!
//! Both count with clocks that run apart by the drift bound and no more; whose clock was worse a
//! while ago is left out.

use std::collections::{BTreeMap, BTreeSet};

use dac::LeaseTimes;
use dag_types::NodeId;
use history::journal::Event;

use crate::shape::{DATA_NODES, NODES, site};
use crate::world::World;

/// The rates of a clock, in thousandths, that the protocol reckons with.
const GOOD_RATES: std::ops::RangeInclusive<u64> = 990..=1010;

/// What is known of the gates of a run.
pub struct Gates {
    times: LeaseTimes,
    /// Gates that closed since the faults began, for whatever reason: a loss of power closes them too.
    pub closed: u64,
    /// Of them those that a running node closed: its lease ended, or it had slept.
    pub lapsed: u64,
    /// Gates that opened since then.
    pub opened: u64,
    /// Gates that were open at the end of the last tick.
    open: BTreeSet<u64>,
    /// When each node's gate was last seen open, in the world's time.
    last_open: BTreeMap<u64, u64>,
    /// When each node last ran.
    last_ran: BTreeMap<u64, u64>,
    /// When each node's clock last ran worse than the protocol reckons with.
    last_bad: BTreeMap<u64, u64>,
    /// The greatest term in which anybody granted.
    control_term: u64,
    /// Gates that opened in this tick.
    opening: Vec<u64>,
    /// Nodes that were found once already.
    found: BTreeMap<u64, &'static str>,
}

impl Gates {
    /// Nothing is known yet.
    pub fn new(times: LeaseTimes) -> Self {
        Self {
            times,
            closed: 0,
            lapsed: 0,
            opened: 0,
            open: BTreeSet::new(),
            last_open: BTreeMap::new(),
            last_ran: BTreeMap::new(),
            last_bad: BTreeMap::new(),
            control_term: 0,
            opening: Vec::new(),
            found: BTreeMap::new(),
        }
    }

    /// Closings and openings count from here on.
    pub fn count_from_here(&mut self) {
        (self.closed, self.lapsed, self.opened) = (0, 0, 0);
    }

    /// From the moment of a question to the last at which a gate may open by what it confirmed: the
    /// answer counts for a lease, and so does the request that is granted by it.
    fn window_ms(&self) -> u64 {
        2 * self.times.takeover_wait().0
    }
}

impl World {
    /// Whether the gate of a node that runs is open, by its own clock, also where it stands still.
    pub fn gate_is_open(&self, id: u64) -> bool {
        let node = &self.nodes[&id];
        let gate = node.gate().zip(node.boottime());
        gate.is_some_and(|(gate, now)| gate.is_open_at(now))
    }

    /// A node's gate opened or closed.
    pub fn note_gate(&mut self, node: u64, event: &Event) {
        match event {
            Event::GateOpened(_) => {
                self.gates.opened += 1;
                self.gates.opening.push(node);
            }
            Event::GateClosed { .. } => self.gates.lapsed += 1,
            _ => {}
        }
    }

    /// Looks at all gates at the end of a tick.
    pub fn watch_gates(&mut self) {
        let now = self.now_ms;
        for node in self.nodes.values().filter(|node| node.life.is_some()) {
            if node.paused_ms.is_none() {
                self.gates.last_ran.insert(node.id, now);
            }
            if !GOOD_RATES.contains(&node.clock_permille) {
                self.gates.last_bad.insert(node.id, now);
            }
        }
        for node in std::mem::take(&mut self.gates.opening) {
            self.check_opening(node);
        }
        for id in 1..=DATA_NODES {
            if self.gate_is_open(id) {
                self.gates.last_open.insert(id, now);
                self.gates.open.insert(id);
            } else if self.gates.open.remove(&id) {
                self.gates.closed += 1;
            }
        }
        self.check_fence();
    }

    /// C1.
    fn check_opening(&mut self, opened: u64) {
        let gates = &self.gates;
        let since = self.now_ms.saturating_sub(gates.window_ms());
        // A slow clock makes a lease longer than it is.
        if (1..=NODES).any(|id| gates.last_bad.get(&id).is_some_and(|at| *at >= since)) {
            return;
        }
        let lately =
            |times: &BTreeMap<u64, u64>, id: u64| times.get(&id).is_some_and(|at| *at >= since);
        if (1..=DATA_NODES).any(|id| lately(&gates.last_open, id)) {
            return;
        }
        for place in 0..2 {
            let nodes: Vec<u64> = (1..=DATA_NODES).filter(|id| site(*id) == place).collect();
            let ran = nodes.iter().filter(|id| lately(&gates.last_ran, **id)).count();
            if 2 * ran < nodes.len() {
                self.find_once(opened, "C1", format!(
                    "node {opened} opened its gate, though no gate was open for {} ms and {ran} of \
                     the data nodes {nodes:?} ran in that time",
                    gates.window_ms()
                ));
                return;
            }
        }
    }

    /// C2.
    fn check_fence(&mut self) {
        // Of several that believe to lead the control group only the last can take anything over; it
        // may stand still or be gone.
        let granter = |id: u64| {
            let node = &self.nodes[&id];
            let (gate, now) = node.gate().zip(node.boottime())?;
            Some((gate.fence(now, NodeId(id))?.0, id))
        };
        let Some((term, leader)) = (1..=NODES).filter_map(granter).max() else { return };
        let newest = term >= self.gates.control_term;
        self.gates.control_term = term.max(self.gates.control_term);
        if !newest || self.nodes[&leader].paused_ms.is_some() {
            return;
        }
        let since = self.now_ms.saturating_sub(self.gates.window_ms());
        let is_good = |id: u64| self.gates.last_bad.get(&id).is_none_or(|at| *at < since);
        if !is_good(leader) {
            return;
        }
        let node = &self.nodes[&leader];
        let Some((gate, now)) = node.gate().zip(node.boottime()) else { return };
        let passed = |id: &u64| {
            let says = gate.fence(now, NodeId(*id)).is_some_and(|(_, passed)| passed);
            says && is_good(*id) && self.gate_is_open(*id)
        };
        let broken: Vec<u64> = (1..=DATA_NODES).filter(passed).collect();
        for id in broken {
            let what = format!(
                "the gate of node {id} is open, and the fence of the control leader on node \
                 {leader} has passed for it"
            );
            self.find_once(id, "C2", what);
        }
    }

    fn find_once(&mut self, node: u64, rule: &'static str, what: String) {
        if self.gates.found.insert(node, rule) != Some(rule) {
            self.find(format!("{rule}: {what}"));
        }
    }
}

/// How all gates stand, for whoever reads a finding.
pub fn standing(world: &World) -> String {
    let words = world.nodes.values().map(|node| {
        let gate = node.gate().map_or_else(|| "down".to_owned(), |gate| gate.words());
        format!("node {}: {gate}", node.id)
    });
    words.collect::<Vec<_>>().join("; ")
}
