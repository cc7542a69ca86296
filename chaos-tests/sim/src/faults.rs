//! Carries out faults, and takes them back when their time is over.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use dag_types::DatabaseId;
use history::event::Fault as Happened;
use storage::disk::SimDisk;

use crate::damage::Atlas;
use crate::nemesis::{DiskCall, Fault, Planned};
use crate::network::sides;
use crate::node::Assigned;
use crate::seeds::{Aim, Hit};
use crate::shape::{CLIENTS, DATA_NODES, NODES, WITNESS, mailbox_databases, site};
use crate::stray;
use crate::work::Client;
use crate::world::World;

/// What each call of a disk takes longer while a voter is waited for.
const VOTERS_DISK: Duration = Duration::from_millis(4);
/// After how long the site that has power again starts, in a blackout.
const BACK_MS: u64 = 50;
/// The longest pause of somebody who reads on at an old leader.
const READ_ON_MS: u64 = 40;

/// Faults that are under way.
#[derive(Default)]
pub struct UnderWay {
    undone: Vec<(u64, Undo)>,
    /// Nodes that lose power at a call of their disk, and for how long.
    cuts: Vec<(u64, u64)>,
    /// Planned faults that could not happen when they were due: no copy led, or the node was down.
    waiting: Vec<Planned>,
    /// Databases of which the witness got a stray copy: one is made in a run, because an order to
    /// make a second one may wait, on a paused node, beside the order to take the first one away.
    strayed: BTreeSet<DatabaseId>,
    /// What disks did to logs.
    atlas: Atlas,
    /// Faults that really happened.
    pub happened: Vec<Happened>,
}

enum Undo {
    Start(u64),
    Resume(u64),
    Mend(Vec<(u64, u64)>),
    Delay(u64),
    Loss,
    DiskSpeed(u64),
    Capacity(u64),
    Clock(u64),
    /// All disks are fast again, and no vote ends anybody.
    Voters(DatabaseId),
    Stray(DatabaseId, Assigned),
}

impl UnderWay {
    /// Does what is due in this tick: ends what is over, begins what is planned.
    pub fn step(&mut self, world: &mut World, due: &[Planned]) {
        let now = world.now_ms;
        self.notice_power_cuts(world);
        self.notice_votes(world);
        let (over, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.undone).into_iter().partition(|(at, _)| *at <= now);
        self.undone = rest;
        for (_, undo) in over {
            undo.carry_out(world);
        }
        for planned in std::mem::take(&mut self.waiting).iter().chain(due) {
            self.begin(world, planned);
        }
    }

    /// Ends everything at once.
    pub fn end(&mut self, world: &mut World) {
        let now = world.now_ns();
        for (_, undo) in std::mem::take(&mut self.undone) {
            undo.carry_out(world);
        }
        self.cuts.clear();
        self.waiting.clear();
        world.traps.clear();
        world.sprung.clear();
        world.network.heal();
        for id in 1..=NODES {
            let node = world.nodes.get_mut(&id).expect("a node of the shape");
            node.resume();
            node.clock_permille = 1000;
            node.disk.slow_down(Duration::ZERO);
            node.disk.keep();
            node.disk.sim().disarm();
            if node.disk.is_off() {
                world.stop(id, true);
            }
            world.start(id);
        }
        for fault in &mut self.happened {
            fault.to = Some(fault.to.map_or(now, |to| to.min(now)));
        }
    }

    fn notice_power_cuts(&mut self, world: &mut World) {
        let off = |world: &World, id: u64| {
            let node = &world.nodes[&id];
            node.life.is_some() && node.disk.is_off()
        };
        for id in 1..=NODES {
            if off(world, id) {
                world.stop(id, true);
                let planned = self.cuts.iter().position(|(node, _)| *node == id);
                let for_ms = planned.map_or(50, |at| self.cuts.remove(at).1);
                self.note(world, "power_cut", vec![id], for_ms);
                self.undo(world, for_ms, Undo::Start(id));
            }
        }
    }

    /// Whoever told of a vote that was waited for loses power before it does anything else.
    fn notice_votes(&mut self, world: &mut World) {
        for node in std::mem::take(&mut world.sprung) {
            if let Some(nodes) = self.down(world, &[node], 50, true) {
                self.note(world, "crash", nodes, 50);
            }
        }
    }

    fn undo(&mut self, world: &World, for_ms: u64, undo: Undo) {
        self.undone.push((world.now_ms + for_ms, undo));
    }

    fn note(&mut self, world: &World, kind: &str, nodes: Vec<u64>, for_ms: u64) {
        world.trace.tell(format!("fault {kind} {nodes:?}"));
        self.happened.push(Happened {
            kind: kind.to_owned(),
            nodes,
            from: world.now_ns(),
            to: Some(world.now_ns() + for_ms * 1_000_000),
            detail: String::new(),
        });
    }

    fn begin(&mut self, world: &mut World, planned: &Planned) {
        if let Some(nodes) = self.carry_out(world, planned) {
            if let Some(node) = planned.fault.harms() {
                world.harmed.insert(node);
            }
            self.note(world, planned.fault.kind(), nodes, planned.for_ms);
        } else if planned.fault.can_wait() {
            self.waiting.push(planned.clone());
        }
    }

    /// The nodes that feel it; `None` where it could not happen now.
    fn carry_out(&mut self, world: &mut World, planned: &Planned) -> Option<Vec<u64>> {
        let for_ms = planned.for_ms;
        match planned.fault {
            Fault::Crash { node } => self.down(world, &[node], for_ms, true),
            Fault::Kill { node } => self.down(world, &[node], for_ms, false),
            Fault::CrashAll => self.down(world, &[1, 2, 3, 4, 5], for_ms, true),
            Fault::CrashSite { site: at } => {
                let nodes: Vec<u64> = (1..=NODES).filter(|node| site(*node) == at).collect();
                self.down(world, &nodes, for_ms, true)
            }
            Fault::CrashLeader { database } => {
                let leader = world.serving(DatabaseId(database))?;
                self.down(world, &[leader], for_ms, true)
            }
            Fault::CrashVoter { database, votes } => {
                let database = DatabaseId(database);
                let leader = world.serving(database)?;
                world.traps.insert(database, votes);
                for node in world.nodes.values() {
                    node.disk.slow_down(VOTERS_DISK);
                }
                self.undo(world, for_ms, Undo::Voters(database));
                self.down(world, &[leader], for_ms, true)
            }
            Fault::StaleLeader { database, permille } => {
                let leader = world.serving(DatabaseId(database))?;
                self.cut(world, sides(&BTreeSet::from([leader]), 1..=NODES), for_ms);
                world.nodes.get_mut(&leader)?.clock_permille = permille;
                self.undo(world, for_ms, Undo::Clock(leader));
                read_on(world, leader, for_ms);
                Some(vec![leader])
            }
            Fault::PowerCut { node, disk_calls } => {
                if runs(world, node) {
                    world.nodes[&node].disk.cut_after(disk_calls);
                    self.cuts.push((node, for_ms));
                }
                // It is noted when the power really goes.
                None
            }
            Fault::Blackout { site: dead } => {
                let data: Vec<u64> = (1..=DATA_NODES).collect();
                let (dark, soon): (Vec<u64>, Vec<u64>) =
                    data.into_iter().partition(|node| site(*node) == dead);
                let soon = self.down(world, &soon, BACK_MS, true);
                let dark = self.down(world, &dark, for_ms, true);
                let felt: Vec<u64> = [soon, dark].into_iter().flatten().flatten().collect();
                (!felt.is_empty()).then_some(felt)
            }
            Fault::Sleep { node } => {
                let felt = self.pause(world, node, for_ms)?;
                world.nodes.get_mut(&node)?.sleeps = true;
                Some(felt)
            }
            Fault::Pause { node } => self.pause(world, node, for_ms),
            Fault::PauseLeader { database } => {
                let leader = world.serving(DatabaseId(database))?;
                self.pause(world, leader, for_ms)
            }
            Fault::OneWayCut { from, to } => {
                self.cut(world, vec![(from, to)], for_ms);
                Some(vec![from, to])
            }
            Fault::Isolate { node, clients } => {
                let mut pairs = sides(&BTreeSet::from([node]), 1..=NODES);
                if clients {
                    pairs.extend([(node, CLIENTS), (CLIENTS, node)]);
                }
                self.cut(world, pairs, for_ms);
                Some(vec![node])
            }
            Fault::IsolateLeader { database } => {
                let leader = world.serving(DatabaseId(database))?;
                self.cut(world, sides(&BTreeSet::from([leader]), 1..=NODES), for_ms);
                read_on(world, leader, for_ms);
                Some(vec![leader])
            }
            Fault::SiteCut { site: at, with_witness } => {
                let inside = |node: &u64| site(*node) == at || (*node == WITNESS && with_witness);
                let nodes: BTreeSet<u64> = (1..=NODES).filter(inside).collect();
                self.cut(world, sides(&nodes, 1..=NODES), for_ms);
                Some(nodes.into_iter().collect())
            }
            Fault::Reset { node } => {
                world.network.reset(node);
                Some(vec![node])
            }
            Fault::Far { extra_ms } => {
                world.network.add_delay(extra_ms);
                self.undo(world, for_ms, Undo::Delay(extra_ms));
                Some((1..=NODES).collect())
            }
            Fault::Loss { permille } => {
                world.network.set_loss(Some(permille));
                self.undo(world, for_ms, Undo::Loss);
                Some((1..=NODES).collect())
            }
            Fault::ClockRate { node, permille } => {
                world.nodes.get_mut(&node)?.clock_permille = permille;
                self.undo(world, for_ms, Undo::Clock(node));
                Some(vec![node])
            }
            Fault::Seed { database, hit, after_ms, draw } => {
                let aim = world.aim(DatabaseId(database), after_ms)?;
                let felt = self.hit(world, hit, &aim, draw, for_ms)?;
                world.seeds.counts.hit += 1;
                Some(felt)
            }
            Fault::StrayGeneration { database } => self.stray(world, DatabaseId(database), for_ms),
            ref disk => self.harm(world, disk, for_ms),
        }
    }

    /// Something goes wrong in the middle of a seed.
    fn hit(
        &mut self,
        world: &mut World,
        hit: Hit,
        aim: &Aim,
        draw: u64,
        for_ms: u64,
    ) -> Option<Vec<u64>> {
        let target = aim.target;
        match hit {
            Hit::KillTarget => self.down(world, &[target], for_ms, false),
            Hit::CrashTarget => self.down(world, &[target], for_ms, true),
            Hit::PowerCutTarget if runs(world, target) => {
                world.nodes[&target].disk.cut_after(1 + draw % 60);
                self.cuts.push((target, for_ms));
                Some(vec![target])
            }
            Hit::PowerCutTarget => None,
            Hit::KillSource => self.down(world, &[aim.source?], for_ms, false),
            Hit::CrashSource => self.down(world, &[aim.source?], for_ms, true),
            Hit::CrashControl => {
                let leader = world.serving(DatabaseId::CONTROL)?;
                self.down(world, &[leader], for_ms, true)
            }
            Hit::Cut => {
                let source = aim.source?;
                self.cut(world, vec![(source, target), (target, source)], for_ms);
                Some(vec![source, target])
            }
            Hit::Flip => {
                let source = aim.source?;
                world.network.flip(source, target, draw);
                Some(vec![source, target])
            }
        }
    }

    fn down(
        &mut self,
        world: &mut World,
        nodes: &[u64],
        for_ms: u64,
        power_loss: bool,
    ) -> Option<Vec<u64>> {
        let running: Vec<u64> = nodes.iter().copied().filter(|node| runs(world, *node)).collect();
        for node in &running {
            world.stop(*node, power_loss);
            self.undo(world, for_ms, Undo::Start(*node));
        }
        (!running.is_empty()).then_some(running)
    }

    fn pause(&mut self, world: &mut World, node: u64, for_ms: u64) -> Option<Vec<u64>> {
        let paused = world.nodes.get_mut(&node)?;
        if paused.life.is_none() || paused.paused_ms.is_some() {
            return None;
        }
        paused.paused_ms = Some(0);
        self.undo(world, for_ms, Undo::Resume(node));
        Some(vec![node])
    }

    fn cut(&mut self, world: &World, pairs: Vec<(u64, u64)>, for_ms: u64) {
        pairs.iter().for_each(|(from, to)| world.network.cut(*from, *to));
        self.undo(world, for_ms, Undo::Mend(pairs));
    }

    /// Faults of a disk.
    fn harm(&mut self, world: &mut World, fault: &Fault, for_ms: u64) -> Option<Vec<u64>> {
        match *fault {
            Fault::DiskSlow { node, extra_ms } => {
                world.nodes[&node].disk.slow_down(Duration::from_millis(extra_ms));
                self.undo(world, for_ms, Undo::DiskSpeed(node));
                Some(vec![node])
            }
            Fault::DiskFull { node } => {
                let disk = world.nodes[&node].disk.sim();
                disk.set_capacity(disk.used_bytes());
                self.undo(world, for_ms, Undo::Capacity(node));
                Some(vec![node])
            }
            Fault::DiskError { node, call, after } => {
                let disk = world.nodes[&node].disk.sim();
                let kind = io::ErrorKind::Other;
                // Only the copies' files: a node without its root is another story.
                match call {
                    DiskCall::Read => disk.fail_read("/db-", after, kind),
                    DiskCall::Write => disk.fail_write("/db-", after, kind),
                    DiskCall::Sync => disk.fail_sync("/db-", after, kind),
                }
                Some(vec![node])
            }
            Fault::BitRot { node, draw } => self.damage(world, node, for_ms, draw, Atlas::rot),
            Fault::LostTail { node, draw } => {
                self.damage(world, node, for_ms, draw, Atlas::lose_tail)
            }
            Fault::Forged { node, draw } => self.damage(world, node, for_ms, draw, Atlas::forge),
            Fault::Misplaced { node, draw } => {
                let disk = world.nodes[&node].disk.sim();
                self.atlas.lead_astray(disk, draw).then(|| vec![node])
            }
            _ => unreachable!("every other fault was carried out before"),
        }
    }

    /// Harm that a disk does while its node is down, which it may be already.
    fn damage(
        &mut self,
        world: &mut World,
        node: u64,
        for_ms: u64,
        draw: u64,
        harm: impl FnOnce(&mut Atlas, &SimDisk, u64) -> bool,
    ) -> Option<Vec<u64>> {
        self.down(world, &[node], for_ms, true);
        harm(&mut self.atlas, world.nodes[&node].disk.sim(), draw).then(|| vec![node])
    }

    fn stray(&mut self, world: &mut World, database: DatabaseId, for_ms: u64) -> Option<Vec<u64>> {
        if !runs(world, WITNESS) || !self.strayed.insert(database) {
            return None;
        }
        let assigned = stray::make(world, database)?;
        self.undo(world, for_ms, Undo::Stray(database, assigned));
        Some(vec![WITNESS])
    }
}

/// Somebody has not heard that a node leads no more, and goes on reading everything there.
fn read_on(world: &mut World, node: u64, for_ms: u64) {
    for database in mailbox_databases() {
        let serves =
            world.nodes[&node].group(database).is_some_and(|group| group.serving().is_ok());
        if serves {
            let name = format!("old-{database}-{}", world.now_ms);
            let (dice, mailboxes) = (world.dice(&name), world.schedule.weather.mailboxes);
            let reader =
                Client::new(world.work.clone(), dice, database, mailboxes, READ_ON_MS, name);
            world.spawn_client(reader.read_at(node, Duration::from_millis(for_ms)));
        }
    }
}

fn runs(world: &World, node: u64) -> bool {
    world.nodes[&node].life.is_some()
}

impl Undo {
    fn carry_out(self, world: &mut World) {
        match self {
            Self::Start(node) => world.start(node),
            Self::Resume(node) => world.nodes.get_mut(&node).expect("a node").resume(),
            Self::Mend(pairs) => {
                pairs.iter().for_each(|(from, to)| world.network.mend(*from, *to));
            }
            Self::Delay(extra_ms) => world.network.remove_delay(extra_ms),
            Self::Loss => world.network.set_loss(None),
            Self::DiskSpeed(node) => world.nodes[&node].disk.slow_down(Duration::ZERO),
            Self::Capacity(node) => world.nodes[&node].disk.sim().set_capacity(64 << 30),
            Self::Voters(database) => {
                world.traps.remove(&database);
                world.nodes.values().for_each(|node| node.disk.slow_down(Duration::ZERO));
            }
            Self::Clock(node) => {
                world.nodes.get_mut(&node).expect("a node").clock_permille = 1000;
            }
            Self::Stray(database, assigned) => {
                let node = world.nodes.get_mut(&WITNESS).expect("a node");
                if let Some(life) = &node.life {
                    let shared = life.shared.clone();
                    node.spawn(async move { shared.discard(database, assigned).await });
                }
            }
        }
    }
}
