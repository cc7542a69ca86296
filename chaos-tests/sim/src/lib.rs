//! A deterministic simulation of whole nodes: real mailboxes, real groups over openraft, the real
//! log, on simulated disks, links and clocks, with faults drawn from one seed.
//!
//! ```text
//!  seed ──► schedule (data) ──► world: 5 nodes, clients, virtual time ──► history ──► verdicts
//!              ▲                   │
//!              └── minimise ◄──────┘ findings
//! ```
//! | file | what it does |
//! | --- | --- |
//! | [`schedule`], [`nemesis`] | what a run is made from, and the catalogue of faults |
//! | [`world`], [`node`], [`network`], [`power`] | time, nodes, links and disks |
//! | [`founding`], [`gate`], [`gates`] | the DAG's first records; each node's gate; what no gate may ever do |
//! | [`office`], [`operator`] | long operations as the control leader carries them out; whoever asks for them |
//! | [`driver`], [`admitting`], [`words`] | a node holds what the control log gives it; the control leader's part in seeds; what nodes say of themselves |
//! | [`giver`], [`builder`] | a node as a seed's source and as its target |
//! | [`seeds`] | which copies are built, where faults hit them, what must be true of them |
//! | [`server`], [`work`] | the front-end service's stand-in, and the clients |
//! | [`faults`], [`damage`], [`heal`], [`run`] | faults, healing, the phases of a run and its verdict |
//! | [`promise`] | what a copy told, and must still know after a loss of power |
//! | [`leases`], [`stale`], [`stray`], [`upgrade`], [`flip`] | scenes without dice: a silent site and clocks that run apart, an old leader, a foreign copy, a newer entry, a bit on its way |
//! | [`minimise`] | a failing schedule made small |
//!
//! Why it has an executor of its own: `docs/decisions/0004-simulation.md`.

pub mod admitting;
pub mod builder;
mod daemon;
pub mod damage;
pub mod dice;
pub mod driver;
pub mod faults;
pub mod flip;
mod formation;
pub mod founding;
pub mod gate;
pub mod gates;
pub mod giver;
pub mod heal;
pub mod leases;
pub mod machines;
pub mod minimise;
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod office;
pub mod operator;
pub mod panics;
pub mod power;
pub mod promise;
pub mod run;
pub mod schedule;
pub mod seeds;
pub mod server;
pub mod shape;
pub mod stale;
pub mod stray;
pub mod trace;
pub mod upgrade;
pub mod words;
pub mod work;
pub mod world;

/// A run makes and drops some twenty million small things; with this allocator it takes little more
/// than half the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
