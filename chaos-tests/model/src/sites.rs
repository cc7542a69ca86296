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
    nodes: [Node; NODES],
    groups: Vec<Group>,
    links: Vec<Link>,
    /// Voters of each incarnation of the database.
    generations: Vec<u8>,
    /// Links in which something was acknowledged.
    counted: u8,
    faults: u8,
    commands: u8,
    broken: Option<Broken>,
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

impl World {
    fn first() -> Self {
        let chain = LineageChain::first(ActivationId([1; 16]));
        let gate = |node: usize| {
            let saved = Saved { chain: chain.clone(), promise: None };
            DacGate::at_boot(Millis(0), holder(node, 1), TIMES, saved)
        };
        let node = |node: usize| Node {
            link: 0,
            group: 0,
            length: 1,
            boots: 1,
            generation: 0,
            gate: Some(gate(node)),
            paused: false,
            forked: false,
            allowed_until: Millis(0),
            granted: None,
            asked: None,
        };
        let log = Log {
            length: 1,
            link: 0,
            stopped: [false; 2],
            boots: [1; DATA],
            grants: [None; DATA],
            fencing: false,
        };
        let mut world = Self {
            now: BEGIN,
            net: Net::Whole,
            nodes: [node(0), node(1), node(2), node(3), node(4)],
            groups: vec![Group { members: ALL, term: 0, leader: None, granter: None, log }],
            links: vec![Link {
                chain,
                parent: 0,
                unfenced: false,
                site: 0,
                group: 0,
                held_until: Millis(0),
            }],
            generations: vec![FIRST_VOTERS],
            counted: 0,
            faults: 0,
            commands: 0,
            broken: None,
        };
        world.look_for_acknowledgements();
        world
    }

    fn break_rule(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    // --- Who is there ---------------------------------------------------------------------------

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].gate.is_some() && !self.nodes[node].paused
    }

    /// The running nodes that a running node is in contact with, itself among them.
    fn contacts(&self, node: usize) -> u8 {
        if !self.runs(node) {
            return 0;
        }
        bits(self.net.hears(node)).filter(|other| self.runs(*other)).fold(0, |m, n| m | 1 << n)
    }

    fn speaks_for(&self, node: usize, group: usize) -> bool {
        let Node { group: own, link, forked, .. } = self.nodes[node];
        own == group && self.links[link].group == group && !forked
    }

    fn members_heard(&self, node: usize, group: usize) -> u8 {
        let here = bits(self.contacts(node) & self.groups[group].members);
        here.filter(|other| self.speaks_for(*other, group)).fold(0, |m, n| m | 1 << n)
    }

    fn has_majority(&self, node: usize, group: usize) -> bool {
        is_majority(self.members_heard(node, group), self.groups[group].members)
    }

    /// The leader, where it runs and has a majority.
    fn leader(&self, group: usize) -> Option<usize> {
        let leader = self.groups[group].leader?;
        let leads = self.runs(leader) && self.speaks_for(leader, group);
        (leads && self.has_majority(leader, group)).then_some(leader)
    }

    /// Whether a link comes from another one, by how they were really made.
    fn comes_from(&self, mut link: usize, ancestor: usize) -> bool {
        loop {
            if link == ancestor {
                return true;
            }
            if link == 0 {
                return false;
            }
            link = self.links[link].parent;
        }
    }

    fn registry(&self, group: usize) -> Registry {
        let log = &self.groups[group].log;
        let node = |node: usize| {
            let Holder { node: id, store, boot } = holder(node, log.boots[node]);
            let (site, grant) = (SITES[site_of(node)].to_owned(), log.grants[node]);
            RegisteredNode { node: id, site, store, boot, grant }
        };
        let site = |site: usize| RegisteredSite {
            name: SITES[site].to_owned(),
            started: !log.stopped[site],
            lists: vec![bits(SITE[site]).map(number).collect::<BTreeSet<NodeId>>()],
        };
        Registry {
            chain: self.links[log.link].chain.clone(),
            sites: vec![site(0), site(1)],
            nodes: (0..DATA).map(node).collect(),
        }
    }

    // --- Gates ----------------------------------------------------------------------------------

    /// Hands something to a node's gate and carries out what comes back, but for what goes out.
    fn gate(&mut self, node: usize, input: gate::Input) -> Vec<gate::Action> {
        let now = self.now;
        let Some(gate) = self.nodes[node].gate.as_mut() else { return Vec::new() };
        let mut out = Vec::new();
        let mut actions = gate.step(now, input);
        while !actions.is_empty() {
            let Node { gate: Some(gate), asked, .. } = &mut self.nodes[node] else { return out };
            let mut more = Vec::new();
            let mut saved = None;
            for action in actions.drain(..) {
                match action {
                    gate::Action::SaveLineage(chain) => {
                        more.extend(gate.step(now, gate::Input::LineageSaved(chain.last())));
                        saved = Some(chain);
                    }
                    gate::Action::SavePromise(activation) => {
                        more.extend(gate.step(now, gate::Input::PromiseSaved(activation)));
                    }
                    gate::Action::Request(to, renewal) => *asked = Some((to, renewal)),
                    other => out.push(other),
                }
            }
            if let Some(chain) = saved {
                self.chain_saved(node, &chain);
            }
            actions = more;
        }
        self.note_fork(node);
        out
    }

    fn note_fork(&mut self, node: usize) {
        let gate = self.nodes[node].gate.as_ref();
        let forked =
            gate.and_then(DacGate::silent_because).is_some_and(|why| why.contains("FORKED"));
        self.nodes[node].forked |= forked;
    }

    fn chain_saved(&mut self, node: usize, chain: &LineageChain) {
        let known = self.links.iter().position(|link| link.chain == *chain);
        let link = known.expect("only links that were made travel");
        if !self.comes_from(link, self.nodes[node].link) {
            self.break_rule(Broken::LineageLeft);
        }
        self.nodes[node].link = link;
    }

    /// Everything that must hold of every gate at every moment.
    fn look_at_gates(&mut self) {
        for node in 0..NODES {
            let Node { gate, allowed_until, granted, .. } = &self.nodes[node];
            let Some(gate) = gate.as_ref().filter(|gate| gate.closed(self.now).is_none()) else {
                continue;
            };
            let opening = gate.opening().map(|(grant, _)| grant);
            if opening != *granted {
                self.break_rule(Broken::WithoutGrant);
            } else if self.now >= *allowed_until {
                self.break_rule(Broken::PastLease);
            }
        }
    }

    /// Whoever can acknowledge does.
    fn look_for_acknowledgements(&mut self) {
        for node in 0..DATA {
            if !self.can_acknowledge(node) {
                continue;
            }
            let link = self.nodes[node].link;
            let newer = (0..self.links.len()).filter(|newer| {
                *newer != link && self.counted & (1 << newer) != 0 && self.comes_from(*newer, link)
            });
            // An unfenced activation is a declared fork: what both sides acknowledged is reported.
            let fenced = newer.filter(|newer| !self.declared_fork_between(link, *newer)).count();
            if fenced > 0 {
                self.break_rule(Broken::OlderCounted);
            }
            self.counted |= 1 << link;
        }
    }

    fn declared_fork_between(&self, older: usize, mut newer: usize) -> bool {
        while newer != older {
            if self.links[newer].unfenced {
                return true;
            }
            newer = self.links[newer].parent;
        }
        false
    }

    fn can_acknowledge(&self, node: usize) -> bool {
        let Node { gate: Some(gate), generation, link, forked: false, .. } = &self.nodes[node]
        else {
            return false;
        };
        let voters = self.generations[*generation];
        if !self.runs(node) || voters & (1 << node) == 0 {
            return false;
        }
        let agree = bits(self.contacts(node) & voters).filter(|other| {
            self.nodes[*other].generation == *generation && self.nodes[*other].link == *link
        });
        let agree = agree.fold(0, |m, n| m | 1 << n);
        is_majority(agree, voters) && gate.permit(self.now, DatabaseId(16), None).is_ok()
    }

    // --- Messages -------------------------------------------------------------------------------

    fn talk(&mut self) {
        for node in 0..NODES {
            if self.runs(node) {
                self.gate(node, gate::Input::Tick);
            }
        }
        self.compare_lineages();
        for group in 0..self.groups.len() {
            self.elect(group);
            self.lead(group);
        }
        // What was asked of somebody who does not answer is lost.
        self.nodes.iter_mut().for_each(|node| node.asked = None);
        self.look_at_gates();
        self.look_for_acknowledgements();
    }

    fn compare_lineages(&mut self) {
        for node in 0..NODES {
            for other in bits(self.contacts(node) & !(1 << node)) {
                let peer = self.nodes[other].gate.as_ref().expect("it runs");
                let open_for = peer.opening().map(|(_, until)| until.saturating_sub(self.now));
                let chain = peer.chain().clone();
                let (id, lineage) = (number(other), chain.last());
                let asked = self.gate(node, gate::Input::Peer { node: id, lineage, open_for });
                if asked.contains(&gate::Action::AskChain(id)) {
                    self.gate(node, gate::Input::Chain(chain));
                }
                let gate = self.nodes[node].gate.as_ref().expect("it runs");
                if gate.closed(self.now).is_none() && self.nodes[node].granted.is_none() {
                    self.break_rule(Broken::WithoutGrant);
                }
            }
        }
    }

    /// A leader that lost its majority stays until another one is elected: openraft never steps
    /// down by itself.
    fn elect(&mut self, group: usize) {
        if self.leader(group).is_some() {
            return;
        }
        let candidates = bits(self.groups[group].members).filter(|node| {
            let heard = self.members_heard(*node, group);
            let votes =
                bits(heard).filter(|voter| self.nodes[*voter].length <= self.nodes[*node].length);
            let votes = votes.fold(0, |m, n| m | 1 << n);
            self.runs(*node)
                && self.speaks_for(*node, group)
                && is_majority(votes, self.groups[group].members)
        });
        // The witness leads only where nobody else can.
        let Some(elected) = candidates.min_by_key(|node| (*node == WITNESS, *node)) else { return };
        let Group { term, leader, granter, .. } = &mut self.groups[group];
        *term += 1;
        *leader = Some(elected);
        *granter = Some(Granter::take_office(self.now, number(elected), *term, TIMES));
    }

    fn lead(&mut self, group: usize) {
        let Some(leader) = self.leader(group) else { return };
        self.commit(group, leader, |_| {});
        self.register_starts(group, leader);
        self.granter(group, leader, granter::Input::Tick);
        for node in bits(self.contacts(leader) & (SITE[0] | SITE[1])) {
            if !self.speaks_for(node, group) {
                continue;
            }
            self.gate(node, gate::Input::ControlLeader(Some(number(leader))));
            self.gate(node, gate::Input::Applied(self.registry(group)));
            if let Some((to, renewal)) = self.nodes[node].asked
                && place(to) == leader
            {
                self.nodes[node].asked = None;
                self.granter(group, leader, granter::Input::Renewal(renewal));
            }
        }
        self.end_fence(group, leader);
    }

    /// Commits a change on every node in contact.
    fn commit(&mut self, group: usize, leader: usize, change: impl FnOnce(&mut Log)) {
        let before = self.groups[group].log;
        change(&mut self.groups[group].log);
        let log = &mut self.groups[group].log;
        if *log != before {
            log.length += 1;
        }
        let (length, registry) = (log.length, self.registry(group));
        for node in bits(self.contacts(leader)).collect::<Vec<_>>() {
            if self.speaks_for(node, group) {
                self.nodes[node].length = length;
                // The witness has no gate in the registry; it learns lineages in the same way.
                let out = self.gate(node, gate::Input::Applied(registry.clone()));
                drop(out);
            }
        }
    }

    fn register_starts(&mut self, group: usize, leader: usize) {
        for node in bits(self.contacts(leader) & (SITE[0] | SITE[1])).collect::<Vec<_>>() {
            let boots = self.nodes[node].boots;
            if self.speaks_for(node, group) && boots > self.groups[group].log.boots[node] {
                self.commit(group, leader, |log| {
                    log.boots[node] = boots;
                    log.grants[node] = None;
                });
            }
        }
    }

    /// Hands something to the granter and carries out what comes back, to the end.
    fn granter(&mut self, group: usize, leader: usize, input: granter::Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            let (now, registry) = (self.now, self.registry(group));
            let Some(granter) = self.groups[group].granter.as_mut() else { return };
            for action in granter.step(now, &registry, input) {
                match action {
                    granter::Action::Ask(node, question) => {
                        let node = place(node);
                        if self.contacts(leader) & (1 << node) == 0 {
                            continue;
                        }
                        for answer in self.gate(node, gate::Input::Question(question)) {
                            if let gate::Action::Answer(_, answer) = answer {
                                todo.push(granter::Input::Answer(answer));
                            }
                        }
                    }
                    granter::Action::Round { node, request } => {
                        todo.push(granter::Input::RoundDone { node, request });
                    }
                    granter::Action::Record(opening) => {
                        let node = place(opening.holder.node);
                        self.commit(group, leader, |log| log.grants[node] = Some(opening.grant));
                        todo.push(granter::Input::Recorded(opening.grant));
                    }
                    granter::Action::Send(node, grant) => self.granted(place(node), grant),
                    granter::Action::Refuse(node, refusal) => {
                        self.gate(place(node), gate::Input::Refusal(refusal));
                    }
                }
            }
        }
    }

    fn granted(&mut self, node: usize, grant: Grant) {
        let link = &mut self.links[self.nodes[node].link];
        let all_ended = link.held_until <= self.now;
        link.held_until = self.now + grant.ttl;
        self.nodes[node].granted = Some(grant.grant);
        self.nodes[node].allowed_until = self.now + grant.ttl;
        let out = self.gate(node, gate::Input::Grant(grant));
        let opened = out.iter().any(|action| matches!(action, gate::Action::Opened { .. }));
        if opened && all_ended {
            self.check_cold_opening(node);
        }
    }

    /// Nodes with an open gate in a lineage.
    fn open_in(&self, link: usize) -> u8 {
        let open = (0..DATA).filter(|node| {
            let Node { gate, link: own, .. } = &self.nodes[*node];
            *own == link && gate.as_ref().is_some_and(|gate| gate.closed(self.now).is_none())
        });
        open.fold(0, |m, n| m | 1 << n)
    }

    /// Where all leases of a lineage have ended, nothing may open in it any more once another site
    /// was activated out of it.
    fn check_cold_opening(&mut self, node: usize) {
        let link = self.nodes[node].link;
        let group = self.links[link].group;
        let stopped = self.groups[group].log.stopped;
        let given_up = (link + 1..self.links.len()).any(|other| {
            let Link { unfenced, site, .. } = self.links[other];
            unfenced && !stopped[site] && !self.comes_from(link, other)
        });
        if given_up {
            self.break_rule(Broken::ColdOpening);
        }
    }

    // --- Activations ----------------------------------------------------------------------------

    fn new_link(&mut self, parent: usize, kind: LineageKind, site: usize, group: usize) -> usize {
        let chain = &self.links[parent].chain;
        let id = ActivationId([self.links.len() as u8 + 1; 16]);
        let lineage = Lineage { epoch: chain.last().epoch + 1, activation: id };
        let link = LineageStep { lineage, kind, rejected: Vec::new() };
        let chain = chain.extended(link).expect("epochs count up");
        let unfenced = kind == LineageKind::ActivateUnfenced;
        let held_until = Millis(0);
        self.links.push(Link { chain, parent, unfenced, site, group, held_until });
        self.links.len() - 1
    }

    fn activate_fenced(&mut self, site: usize) -> Option<()> {
        let group = (0..self.groups.len()).find(|group| self.leader(*group).is_some())?;
        let leader = self.leader(group)?;
        let log = self.groups[group].log;
        let other = 1 - site;
        let heard = self.contacts(leader);
        // Refused while a node of the other site is heard: it would be stopped instead.
        let silent = heard & SITE[other] == 0;
        if log.stopped != [false; 2] || !silent || heard & SITE[site] == 0 {
            return None;
        }
        let link = self.new_link(log.link, LineageKind::ActivateFenced, site, group);
        self.groups[group].members &= !SITE[other];
        self.commit(group, leader, |log| {
            log.link = link;
            log.stopped[other] = true;
            log.fencing = true;
        });
        Some(())
    }

    /// No re-forming before the fence has passed.
    fn end_fence(&mut self, group: usize, leader: usize) {
        let log = self.groups[group].log;
        if !log.fencing {
            return;
        }
        let site = self.links[log.link].site;
        let others: Vec<NodeId> = bits(SITE[1 - site]).map(number).collect();
        let granter = self.groups[group].granter.as_ref().expect("a leader has one");
        if granter.fence(self.now, &others) != Fence::Passed {
            return;
        }
        let survivors = self.contacts(leader) & SITE[site];
        let survivors =
            bits(survivors).filter(|n| self.nodes[*n].link == log.link).fold(0, |m, n| m | 1 << n);
        if survivors != 0 {
            self.re_form(survivors);
            self.commit(group, leader, |log| log.fencing = false);
        }
    }

    fn re_form(&mut self, voters: u8) {
        self.generations.push(voters);
        for node in bits(voters) {
            self.nodes[node].generation = self.generations.len() - 1;
        }
    }

    fn activate_unfenced(&mut self, site: usize) -> Option<()> {
        let first = bits(SITE[site]).find(|node| self.runs(*node) && !self.nodes[*node].forked)?;
        let parts: Vec<usize> =
            bits(self.contacts(first)).filter(|node| !self.nodes[*node].forked).collect();
        let mask = parts.iter().fold(0, |m, n| m | 1 << n);
        if !is_majority(mask, SITE[site]) || self.groups.len() > 2 {
            return None;
        }
        // With a control majority the fenced verb is the one to use.
        let majority = (0..self.groups.len()).any(|group| {
            let members = parts.iter().filter(|node| self.speaks_for(**node, group));
            let members = members.fold(0, |m, n| m | 1 << n);
            is_majority(members, self.groups[group].members)
        });
        let activation = ActivationId([self.links.len() as u8 + 1; 16]);
        let ids: Vec<NodeId> = parts.iter().map(|node| number(*node)).collect();
        let refused = parts.iter().any(|node| {
            let gate = self.nodes[*node].gate.as_ref().expect("it runs");
            !gate.reasons_against_part(self.now, activation, &ids).is_empty()
        });
        let newest = parts.iter().map(|node| self.nodes[*node].link).max()?;
        let apart = parts.iter().any(|node| !self.comes_from(newest, self.nodes[*node].link));
        if majority || refused || apart {
            return None;
        }
        self.complete_unfenced(site, newest, &parts, activation, ids);
        Some(())
    }

    fn complete_unfenced(
        &mut self,
        site: usize,
        parent: usize,
        parts: &[usize],
        activation: ActivationId,
        ids: Vec<NodeId>,
    ) {
        for node in parts {
            let participants = ids.clone();
            self.gate(*node, gate::Input::TakePart { activation, participants });
        }
        let group = self.groups.len();
        let link = self.new_link(parent, LineageKind::ActivateUnfenced, site, group);
        let members = parts.iter().fold(0, |m, n| m | 1 << n);
        let mut stopped = [true; 2];
        stopped[site] = false;
        let log = Log {
            length: 1,
            link,
            stopped,
            boots: core::array::from_fn(|node| self.nodes[node].boots),
            grants: [None; DATA],
            fencing: false,
        };
        self.groups.push(Group { members, term: 0, leader: None, granter: None, log });
        let chain = self.links[link].chain.clone();
        for node in parts {
            self.gate(*node, gate::Input::Chain(chain.clone()));
            self.nodes[*node].group = group;
            self.nodes[*node].length = 1;
        }
        self.re_form(members & SITE[site]);
    }

    fn start_site(&mut self, site: usize) -> Option<()> {
        let group = (0..self.groups.len()).find(|group| self.leader(*group).is_some())?;
        let leader = self.leader(group)?;
        let log = self.groups[group].log;
        let back = bits(self.contacts(leader) & SITE[site])
            .filter(|node| self.nodes[*node].link == log.link && !self.nodes[*node].forked);
        let back = back.fold(0, |m, n| m | 1 << n);
        if !log.stopped[site] || log.fencing || !is_majority(back, SITE[site]) {
            return None;
        }
        let link = self.new_link(log.link, LineageKind::Start, self.links[log.link].site, group);
        for node in bits(back) {
            self.nodes[node].group = group;
        }
        self.groups[group].members |= back;
        self.commit(group, leader, |log| {
            log.link = link;
            log.stopped = [false; 2];
        });
        Some(())
    }

    // --- Faults ---------------------------------------------------------------------------------

    fn power_lost(&mut self, mask: u8) {
        for node in bits(mask) {
            let Node { gate, paused, granted, allowed_until, .. } = &mut self.nodes[node];
            *gate = None;
            *paused = false;
            *granted = None;
            *allowed_until = Millis(0);
            for group in &mut self.groups {
                if group.leader == Some(node) {
                    group.leader = None;
                    group.granter = None;
                }
            }
        }
    }

    fn started(&mut self, mask: u8) {
        for node in bits(mask) {
            self.nodes[node].boots += 1;
            let Node { link, boots, .. } = self.nodes[node];
            let saved = Saved { chain: self.links[link].chain.clone(), promise: None };
            let gate = DacGate::at_boot(self.now, holder(node, boots), TIMES, saved);
            if gate.closed(self.now).is_none() {
                self.break_rule(Broken::OpenAtStart);
            }
            self.nodes[node].gate = Some(gate);
        }
    }

    fn time_passes(&mut self, halves: u64) {
        for _ in 0..halves {
            self.now = self.now + STEP;
            self.talk();
        }
    }
}

impl Model for Sites {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::first();
        world.talk();
        assert_eq!(world.open_in(0), SITE[0] | SITE[1], "a whole DAG opens its gates");
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
