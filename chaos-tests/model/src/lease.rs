//! One holder, one granter, a takeover: clocks that run apart, delays, pauses.
//!
//! Real time goes in ticks of ten milliseconds. Both clocks run ten percent too slow, right, or ten
//! percent too fast. The holder takes a step only when the exploration lets it, so every pause is
//! in; requests and grants arrive in any order after any delay, or never. At some moment the
//! lineage changes, and whoever takes over serves as soon as the granter says that the fence has
//! passed. The holder must be closed by then.

use std::collections::BTreeSet;

use dac::gate::{self, DacGate, Saved};
use dac::granter::{self, Fence, Granter};
use dac::message::{Answer, Grant, Holder, Question, Renewal};
use dac::times::LeaseTimes;
use dag_types::{
    ActivationId, Boot, Lineage, LineageChain, LineageKind, LineageStep, Millis, NodeId,
    RegisteredNode, RegisteredSite, Registry, StoreId,
};
use stateright::{Model, Property};

use crate::shared::{Pool, Shared};

const HOLDER: NodeId = NodeId(1);
const LEADER: NodeId = NodeId(9);

/// A lease of ten ticks with a drift of ten percent.
const TIMES: LeaseTimes = LeaseTimes {
    lease: Millis(100),
    renewal: Millis(20),
    margin: Millis(10),
    attempt: Millis(20),
    control_election_max: Millis(5),
    drift_percent: 10,
};

/// How long is explored.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// In ticks.
    pub ticks: u64,
    /// Messages of one kind that are under way at once.
    pub under_way: usize,
}

impl Default for Lease {
    fn default() -> Self {
        // Longer than a whole takeover wait on a slow clock, after a first grant.
        Self { ticks: 17, under_way: 2 }
    }
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    under_way: usize,
    tick: u64,
    /// Milliseconds that each clock counts per tick.
    holder_rate: u64,
    granter_rate: u64,
    gate: Shared<DacGate>,
    granter: Shared<Granter>,
    registry: Shared<Registry>,
    requests: Vec<(Renewal, Millis)>,
    grants: Vec<(Grant, Millis)>,
    /// The latest end that any grant that arrived allows, by the holder's clock.
    allowed_until: Millis,
    taken_over: bool,
    stopped: bool,
}

static GATES_MET: Pool<DacGate> = Pool::new();
static GRANTERS_MET: Pool<Granter> = Pool::new();
static REGISTRIES_MET: Pool<Registry> = Pool::new();

impl World {
    /// Gives back what was copied and is as it was, or as it is in another state.
    fn settle(&mut self) {
        GATES_MET.settle(&mut self.gate);
        GRANTERS_MET.settle(&mut self.granter);
        REGISTRIES_MET.settle(&mut self.registry);
    }

    fn holder_now(&self) -> Millis {
        Millis(1000 + self.tick * self.holder_rate)
    }

    fn granter_now(&self) -> Millis {
        Millis(5000 + self.tick * self.granter_rate)
    }

    fn is_open(&self) -> bool {
        self.gate.closed(self.holder_now()).is_none()
    }
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Ten milliseconds pass.
    TimePasses,
    /// The holder's loop runs.
    HolderRuns,
    /// A request arrives, its quorum round is made, and the granter answers.
    RequestArrives(usize),
    /// A grant arrives at the holder.
    GrantArrives(usize),
    /// The control log goes on in another lineage, without the holder's site.
    LineageChanges,
    /// The fence has passed, and another site serves.
    AnotherServes,
}

fn holder() -> Holder {
    Holder { node: HOLDER, store: StoreId([1; 16]), boot: Boot { counter: 1, id: 1 } }
}

fn registry() -> Registry {
    let Holder { node, store, boot } = holder();
    Registry {
        chain: LineageChain::first(ActivationId([1; 16])),
        sites: vec![RegisteredSite {
            name: "A".into(),
            started: true,
            lists: vec![BTreeSet::from([node])],
        }],
        nodes: vec![RegisteredNode { node, site: "A".into(), store, boot, grant: None }],
    }
}

fn taken(registry: &Registry) -> Registry {
    let lineage = Lineage { epoch: 2, activation: ActivationId([2; 16]) };
    let kind = LineageKind::ActivateFenced;
    let link = LineageStep { lineage, kind, rejected: Vec::new() };
    let mut taken = registry.clone();
    taken.chain = taken.chain.extended(link).expect("the second link follows the first");
    taken.sites[0].started = false;
    taken
}

fn first(under_way: usize, holder_rate: u64, granter_rate: u64) -> World {
    let registry = registry();
    let saved = Saved { chain: registry.chain.clone(), promise: None };
    let mut world = World {
        under_way,
        tick: 0,
        holder_rate,
        granter_rate,
        gate: Shared::new(DacGate::at_boot(Millis(1000), holder(), TIMES, saved)),
        granter: Shared::new(Granter::take_office(Millis(5000), LEADER, 1, TIMES)),
        registry: Shared::new(registry.clone()),
        requests: Vec::new(),
        grants: Vec::new(),
        allowed_until: Millis(0),
        taken_over: false,
        stopped: false,
    };
    run_holder(&mut world, gate::Input::Applied(registry));
    run_holder(&mut world, gate::Input::ControlLeader(Some(LEADER)));
    hear(&mut world);
    world.settle();
    world
}

fn run_holder(world: &mut World, input: gate::Input) {
    let now = world.holder_now();
    for action in world.gate.step(now, input) {
        if let gate::Action::Request(_, renewal) = action {
            if world.requests.len() == world.under_way {
                world.requests.remove(0);
            }
            world.requests.push((renewal, now));
        }
    }
}

/// The granter's questions are answered at once: its confirmation is not what is explored here.
fn hear(world: &mut World) {
    let now = world.granter_now();
    let asked = world.granter.step(now, &world.registry, granter::Input::Tick);
    for action in asked {
        if let granter::Action::Ask(_, Question { id, lineage, .. }) = action {
            let answer = Answer { id, holder: holder(), lineage, held: None };
            world.granter.step(now, &world.registry, granter::Input::Answer(answer));
        }
    }
}

fn request_arrives(world: &mut World, place: usize) {
    let (renewal, sent) = world.requests.remove(place);
    let now = world.granter_now();
    let mut todo = vec![granter::Input::Renewal(renewal)];
    while let Some(input) = todo.pop() {
        for action in world.granter.step(now, &world.registry, input) {
            match action {
                granter::Action::Round { node, request } => {
                    todo.push(granter::Input::RoundDone { node, request });
                }
                granter::Action::Record(opening) => {
                    world.registry.nodes[0].grant = Some(opening.grant);
                    todo.push(granter::Input::Recorded(opening.grant));
                }
                granter::Action::Send(_, grant) => {
                    if world.grants.len() == world.under_way {
                        world.grants.remove(0);
                    }
                    world.grants.push((grant, sent));
                }
                granter::Action::Ask(..) | granter::Action::Refuse(..) => {}
            }
        }
    }
}

impl Model for Lease {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let rates = [9, 10, 11];
        rates.iter().flat_map(|h| rates.iter().map(|g| first(self.under_way, *h, *g))).collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Event>) {
        if world.tick < self.ticks {
            actions.push(Event::TimePasses);
        }
        actions.push(Event::HolderRuns);
        actions.extend((0..world.requests.len()).map(Event::RequestArrives));
        actions.extend((0..world.grants.len()).map(Event::GrantArrives));
        if !world.stopped {
            actions.push(Event::LineageChanges);
        } else if !world.taken_over {
            actions.push(Event::AnotherServes);
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        match event {
            Event::TimePasses => {
                next.tick += 1;
                hear(&mut next);
            }
            Event::HolderRuns => run_holder(&mut next, gate::Input::Tick),
            Event::RequestArrives(place) => request_arrives(&mut next, place),
            Event::GrantArrives(place) => {
                let (grant, sent) = next.grants.remove(place);
                next.allowed_until = next.allowed_until.max(sent + grant.ttl);
                run_holder(&mut next, gate::Input::Grant(grant));
            }
            Event::LineageChanges => {
                next.registry = Shared::new(taken(&next.registry));
                next.stopped = true;
            }
            Event::AnotherServes => {
                let fence = next.granter.fence(next.granter_now(), &[HOLDER]);
                next.taken_over = fence == Fence::Passed;
            }
        }
        next.settle();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1: never open while another site serves", |_, world: &World| {
                !(world.taken_over && world.is_open())
            }),
            Property::always("I4: open only within sending + ttl", |_, world: &World| {
                world.gate.opening().is_none_or(|(_, until)| until <= world.allowed_until)
            }),
            Property::sometimes("the gate opens", |_, world: &World| world.is_open()),
            Property::sometimes("another site serves", |_, world: &World| world.taken_over),
        ]
    }
}
