//! One database's log while the lineage changes under late proposals.
//!
//! Clients ask under the mount that they see; their proposals wait as long as they like and then
//! stand in the log, in the term that the leader has by then. The lineage goes on (a site was
//! started), terms change, new mounts are written. A client that was acknowledged in one lineage
//! must never see another one acknowledged in an older lineage (I1).

use dac::mount::{Mount, admit_entry, admit_mount};
use dag_types::{ActivationId, Lineage, LineageChain, LineageKind, LineageStep, NodeId};
use stateright::{Model, Property};

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Mounting;

const LINKS_MAX: usize = 3;
const TERMS_MAX: u64 = 3;
const PROPOSALS_MAX: usize = 2;

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    chain: LineageChain,
    term: u64,
    mounted: Option<Mount>,
    /// Proposals under way: the lineage and term that their permit was checked in.
    waiting: Vec<(LineageChain, u64)>,
    /// Mounts under way.
    mounts: Vec<Mount>,
    /// The greatest epoch that was acknowledged, and the last one.
    newest_counted: u64,
    last_counted: u64,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The DAG goes on in a new lineage.
    LineageChanges,
    /// Another leader, another term.
    TermChanges,
    /// The leader proposes its mount.
    LeaderMounts,
    /// A mount that was proposed is committed and applied.
    MountApplied(usize),
    /// A client's request passes the gate and is proposed.
    ClientAsks,
    /// A proposal is committed in the present term and applied; an effect is acknowledged.
    EntryApplied(usize),
}

impl Model for Mounting {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            chain: LineageChain::first(ActivationId([1; 16])),
            term: 1,
            mounted: None,
            waiting: Vec::new(),
            mounts: Vec::new(),
            newest_counted: 0,
            last_counted: 0,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Event>) {
        if world.chain.links().len() < LINKS_MAX {
            actions.push(Event::LineageChanges);
        }
        if world.term < TERMS_MAX {
            actions.push(Event::TermChanges);
        }
        if world.mounts.len() < PROPOSALS_MAX {
            actions.push(Event::LeaderMounts);
        }
        if world.waiting.len() < PROPOSALS_MAX && world.mounted.is_some() {
            actions.push(Event::ClientAsks);
        }
        actions.extend((0..world.mounts.len()).map(Event::MountApplied));
        actions.extend((0..world.waiting.len()).map(Event::EntryApplied));
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        match event {
            Event::LineageChanges => {
                let epoch = next.chain.last().epoch + 1;
                let lineage = Lineage { epoch, activation: ActivationId([epoch as u8; 16]) };
                let kind = LineageKind::Start;
                let link = LineageStep { lineage, kind, rejected: Vec::new() };
                next.chain = next.chain.extended(link).expect("epochs count up");
            }
            Event::TermChanges => next.term += 1,
            Event::LeaderMounts => {
                let (chain, term) = (next.chain.clone(), next.term);
                next.mounts.push(Mount { chain, node: NodeId(1), term });
            }
            Event::MountApplied(place) => {
                let mount = next.mounts.remove(place);
                // Raft commits what a deposed leader proposed in its own term or never.
                if mount.term == next.term
                    && admit_mount(next.mounted.as_ref(), &mount, mount.term).is_ok()
                {
                    next.mounted = Some(mount);
                }
            }
            Event::ClientAsks => {
                let mounted = next.mounted.as_ref()?;
                next.waiting.push((mounted.chain.clone(), mounted.term));
            }
            Event::EntryApplied(place) => {
                let (chain, term) = next.waiting.remove(place);
                let lineage = chain.last();
                let committed = term == next.term;
                if committed && admit_entry(next.mounted.as_ref(), lineage, term).is_ok() {
                    next.last_counted = lineage.epoch;
                    next.newest_counted = next.newest_counted.max(lineage.epoch);
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1: no older lineage after a newer one", |_, world: &World| {
                world.last_counted == world.newest_counted
            }),
            Property::sometimes("a newer lineage is counted", |_, world: &World| {
                world.newest_counted > 1
            }),
        ]
    }
}
