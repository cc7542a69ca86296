//! Two sites of two nodes and a witness: crashes, power losses, cuts, pauses, activations.
//!
//! Every gate and every granter is the real one. What is abstract: Raft (a commit reaches every node
//! in contact and needs a majority of the control group's members; an election needs the same, and
//! a log that is not shorter), the database (whoever has an open gate and a majority of the
//! database's voters in its own lineage acknowledges at once), and time, which goes in steps of half
//! a lease. An unfenced activation is atomic: it is explored what may begin it and what follows.
//!
//! Within a step all messages between nodes in contact are exchanged: lineages first, then an
//! election where one is due, then questions, answers, requests, grants. Events happen between the
//! steps, in every order.

mod world;

use std::collections::BTreeSet;

use dac::gate::{self, DacGate, Saved};
use dac::granter::{self, Fence, Granter};
use dac::message::{Grant, Holder, Renewal};
use dac::times::LeaseTimes;
use dag_types::{
    ActivationId, Boot, DatabaseId, GrantId, Lineage, LineageChain, LineageKind, LineageStep,
    Millis, NodeId, RegisteredNode, RegisteredSite, Registry, StoreId,
};
use stateright::{Model, Property};

use crate::shared::{Pool, Shared};

const NODES: usize = 5;
const DATA: usize = 4;
const WITNESS: usize = 4;
const ALL: u8 = 0b1_1111;
const SITE: [u8; 2] = [0b0_0011, 0b0_1100];
const NAMES: [&str; NODES] = ["a1", "a2", "b1", "b2", "W"];
const SITES: [&str; 2] = ["A", "B"];
/// Voters of the one database before anything happens: a1, a2, b1.
const FIRST_VOTERS: u8 = 0b0_0111;
const TIMES: LeaseTimes = LeaseTimes::DEFAULT;
const STEP: Millis = Millis(4000);
/// Every node has listened for two lease times when the exploration begins.
const BEGIN: Millis = Millis(20_000);

/// How much happens in one run.
#[derive(Debug, Clone, Copy)]
pub struct Sites {
    /// Power losses, cuts and pauses.
    pub faults: u8,
    /// Commands of operators.
    pub commands: u8,
    /// Half leases that pass.
    pub time: u8,
}

impl Default for Sites {
    fn default() -> Self {
        Self { faults: 4, commands: 2, time: 14 }
    }
}

/// Who is in contact with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Net {
    /// Everybody.
    Whole,
    /// A and the witness, without B.
    AWithWitness,
    /// B and the witness, without A.
    BWithWitness,
    /// Three islands.
    Islands,
    /// Both sites hear the witness and not each other.
    Bridge,
    /// The first node of A hears nobody.
    FirstAlone,
}

const NETS: [Net; 6] =
    [Net::Whole, Net::AWithWitness, Net::BWithWitness, Net::Islands, Net::Bridge, Net::FirstAlone];

impl Net {
    /// The nodes that a node could hear, itself among them.
    fn hears(self, node: usize) -> u8 {
        let me = 1 << node;
        let witness = 1 << WITNESS;
        let islands: &[u8] = match self {
            Self::Whole => &[ALL],
            Self::AWithWitness => &[SITE[0] | witness, SITE[1]],
            Self::BWithWitness => &[SITE[0], SITE[1] | witness],
            Self::Islands => &[SITE[0], SITE[1], witness],
            Self::Bridge if me == witness => &[ALL],
            Self::Bridge => &[SITE[0] | witness, SITE[1] | witness],
            Self::FirstAlone => &[1, ALL & !1],
        };
        let island = islands.iter().find(|island| **island & me != 0);
        *island.expect("every node is somewhere")
    }
}

/// One link that was ever made, with what is true of it whatever anybody believes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Link {
    chain: LineageChain,
    parent: usize,
    unfenced: bool,
    /// The site that it left active.
    site: usize,
    /// The control group that wrote it.
    group: usize,
    /// The latest end of any lease in it.
    held_until: Millis,
}

/// What a control group's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Log {
    length: u8,
    link: usize,
    stopped: [bool; 2],
    boots: [u8; DATA],
    grants: [Option<GrantId>; DATA],
    /// A fenced activation waits for its fence before the database is re-formed.
    fencing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    members: u8,
    term: u64,
    leader: Option<usize>,
    granter: Option<Granter>,
    log: Log,
}

/// What a node has on its disk, and its gate while it has power.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    link: usize,
    group: usize,
    /// Of the control log.
    length: u8,
    boots: u8,
    /// Incarnation of the database that its copy belongs to.
    generation: usize,
    gate: Option<DacGate>,
    paused: bool,
    forked: bool,
    /// When its gate must be closed at the latest, by what was really granted.
    allowed_until: Millis,
    /// The opening that it was really granted.
    granted: Option<GrantId>,
    /// A request on its way; lost unless it is answered while messages are exchanged.
    asked: Option<(NodeId, Renewal)>,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    now: Millis,
    net: Net,
    nodes: [Shared<Node>; NODES],
    groups: Vec<Shared<Group>>,
    links: Vec<Shared<Link>>,
    /// Voters of each incarnation of the database.
    generations: Vec<u8>,
    /// Links in which something was acknowledged.
    counted: u8,
    faults: u8,
    commands: u8,
    broken: Option<Broken>,
}

static NODES_MET: Pool<Node> = Pool::new();
static GROUPS_MET: Pool<Group> = Pool::new();
static LINKS_MET: Pool<Link> = Pool::new();

impl World {
    /// Gives back what was copied and is as it was, or as it is in another state.
    fn settle(&mut self) {
        self.nodes.iter_mut().for_each(|node| NODES_MET.settle(node));
        self.groups.iter_mut().for_each(|group| GROUPS_MET.settle(group));
        self.links.iter_mut().for_each(|link| LINKS_MET.settle(link));
    }
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// I1: acknowledged in a lineage after one that replaced it with a majority.
    OlderCounted,
    /// I1: gates of a lineage opened anew after another site was activated out of it.
    ColdOpening,
    /// I3: a node left its lineage for one that does not come from it, and nobody noticed.
    LineageLeft,
    /// I4: a gate is open past its lease.
    PastLease,
    /// I5: a gate is open without a grant in the control log.
    WithoutGrant,
    /// I5: a gate was open when its node started.
    OpenAtStart,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Nodes lose their power (a mask).
    PowerLost(u8),
    /// Nodes start (a mask).
    Started(u8),
    /// The network changes.
    Network(Net),
    /// A node stands still.
    Paused(usize),
    /// It goes on.
    Resumed(usize),
    /// Half a lease passes, and all messages are exchanged.
    HalfLease,
    /// Two lease times pass, with all messages of each half.
    TwoLeases,
    /// Messages are exchanged, and no time passes.
    Talk,
    /// `site activate` of the site, by the control group with a majority.
    ActivateFenced(usize),
    /// `site activate --unfenced` of the site, by all in contact with its first living node.
    ActivateUnfenced(usize),
    /// `site start` of the site.
    Start(usize),
}

fn bits(mask: u8) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |node| mask & (1 << node) != 0)
}

fn site_of(node: usize) -> usize {
    node / 2
}

fn is_majority(part: u8, whole: u8) -> bool {
    2 * (part & whole).count_ones() > whole.count_ones()
}

fn number(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn place(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn holder(node: usize, boots: u8) -> Holder {
    let boot = Boot { counter: boots.into(), id: boots.into() };
    Holder { node: number(node), store: StoreId([node as u8 + 1; 16]), boot }
}

impl Model for Sites {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::first();
        world.talk();
        assert_eq!(world.open_in(0), SITE[0] | SITE[1], "a whole DAG opens its gates");
        world.settle();
        vec![world]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        let up = (0..NODES).filter(|n| world.nodes[*n].gate.is_some()).fold(0, |m, n| m | 1 << n);
        if world.faults < self.faults {
            let masks = [SITE[0], SITE[1], ALL, SITE[0] | SITE[1]];
            let single = (0..NODES).map(|node| 1 << node);
            let lost = masks.into_iter().chain(single).filter(|mask| up & mask == *mask);
            events.extend(lost.map(Event::PowerLost));
            events.extend(NETS.into_iter().filter(|n| *n != world.net).map(Event::Network));
            events.extend([0, 2].into_iter().filter(|n| world.runs(*n)).map(Event::Paused));
        } else if world.net != Net::Whole {
            events.push(Event::Network(Net::Whole));
        }
        events.extend((0..NODES).filter(|n| world.nodes[*n].paused).map(Event::Resumed));
        let down = ALL & !up;
        events.extend(bits(down).map(|node| Event::Started(1 << node)));
        events.extend(SITE.into_iter().filter(|site| down & site == *site).map(Event::Started));
        let elapsed = (world.now - BEGIN).0 / STEP.0;
        if elapsed < u64::from(self.time) {
            events.push(Event::HalfLease);
        }
        if elapsed + 4 <= u64::from(self.time) {
            events.push(Event::TwoLeases);
        }
        events.push(Event::Talk);
        if world.commands < self.commands && world.links.len() < 6 {
            for site in 0..2 {
                events.push(Event::ActivateFenced(site));
                events.push(Event::ActivateUnfenced(site));
                events.push(Event::Start(site));
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        match event {
            Event::PowerLost(mask) => {
                next.faults += 1;
                next.power_lost(mask);
            }
            Event::Started(mask) => next.started(mask),
            Event::Network(net) => {
                next.faults += u8::from(net != Net::Whole);
                next.net = net;
            }
            Event::Paused(node) => {
                next.faults += 1;
                next.nodes[node].paused = true;
            }
            Event::Resumed(node) => next.nodes[node].paused = false,
            Event::HalfLease => next.time_passes(1),
            Event::TwoLeases => next.time_passes(4),
            Event::Talk => next.talk(),
            Event::ActivateFenced(site) => {
                next.commands += 1;
                next.activate_fenced(site)?;
            }
            Event::ActivateUnfenced(site) => {
                next.commands += 1;
                next.activate_unfenced(site)?;
            }
            Event::Start(site) => {
                next.commands += 1;
                next.start_site(site)?;
            }
        }
        next.look_at_gates();
        next.look_for_acknowledgements();
        next.settle();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = |name, condition: fn(&Self, &World) -> bool| Property::always(name, condition);
        vec![
            always("I1: nothing counted in an older lineage after a newer one", |_, world| {
                world.broken != Some(Broken::OlderCounted)
            }),
            always("I1: closed gates of a lineage stay closed once it was given up", |_, world| {
                world.broken != Some(Broken::ColdOpening)
            }),
            always("I3, I15: a lineage is left only for one that comes from it", |_, world| {
                world.broken != Some(Broken::LineageLeft)
            }),
            always("I4: no gate is open past its lease", |_, world| {
                world.broken != Some(Broken::PastLease)
            }),
            always("I5: no gate is open without a grant of the control leader", |_, world| {
                world.broken != Some(Broken::WithoutGrant)
            }),
            always("I5: every gate is closed at its node's start", |_, world| {
                world.broken != Some(Broken::OpenAtStart)
            }),
            Property::sometimes("a fenced lineage serves", |_, world: &World| {
                world
                    .links
                    .iter()
                    .enumerate()
                    .any(|(i, link)| i > 0 && !link.unfenced && world.counted & (1 << i) != 0)
            }),
            Property::sometimes("an unfenced lineage serves", |_, world: &World| {
                world
                    .links
                    .iter()
                    .enumerate()
                    .any(|(i, link)| link.unfenced && world.counted & (1 << i) != 0)
            }),
            Property::sometimes("a fork is noticed", |_, world: &World| {
                world.nodes.iter().any(|node| node.forked)
            }),
        ]
    }

    fn format_action(&self, event: &Event) -> String {
        words(*event)
    }
}

/// An event for people.
pub fn words(event: Event) -> String {
    let names = |mask: u8| bits(mask).map(|node| NAMES[node]).collect::<Vec<_>>().join(" ");
    match event {
        Event::PowerLost(mask) => format!("{} lose power", names(mask)),
        Event::Started(mask) => format!("{} start", names(mask)),
        Event::Network(net) => format!("the network becomes {net:?}"),
        Event::Paused(node) => format!("{} stands still", NAMES[node]),
        Event::Resumed(node) => format!("{} goes on", NAMES[node]),
        Event::HalfLease => "half a lease passes".into(),
        Event::TwoLeases => "two lease times pass".into(),
        Event::Talk => "messages are exchanged".into(),
        Event::ActivateFenced(site) => format!("site activate {}", SITES[site]),
        Event::ActivateUnfenced(site) => format!("site activate {} --unfenced", SITES[site]),
        Event::Start(site) => format!("site start {}", SITES[site]),
    }
}
