//! Raft for Holdfast: groups of copies that hold the same log, and what travels between nodes.
//!
//! This crate knows Raft and nothing of mail. It is the only one that names openraft.
//!
//! ```text
//!   Registry ── Group ── Raft instance ── log_store ───── storage: segmented log
//!      │          │            │      └── state_machine ─ Machine's effects ─ storage: state
//!      │          │            └───────── network ┐
//!      │          propose, read_barrier,          │
//!      │          status, transfer, ...           │
//!      └── mux: Control, Append, Bulk ◄───────────┘
//!             │
//!          PeerLink: gRPC, or memory in tests
//! ```
//! [`Registry`] and [`Group`] are plain types: openraft's runtime is a type parameter only behind
//! them, so that openraft is compiled here and not again in every crate that uses a group.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`registry`](Registry) | all groups of a node: start, stop, find the group of a frame |
//! | [`group`](Group) | one copy: propose, read, mount, change members, transfer, status |
//! | `log_store`, `state_machine`, `snapshot` | openraft's storage over a copy's directory |
//! | [`gate`](ServingGate), [`gate_wire`] | the seam to the node's gate, and what gates say to each other |
//! | [`reform`] | a copy becomes the first of a new generation, offline |
//! | [`seeds`](SeedServer) | streams on which a copy's files are given to another node |
//! | `standing` | who campaigns freely, who only to bring the others up |
//! | `network`, `mux`, [`link`], [`peer`] | from openraft's calls to frames, and who may send them |
//! | [`timeouts`](Timeouts), [`options`](Options) | settings |
//!
//! # openraft's traps, and where each is closed
//! | trap | where it is handled | test (in `tests/it`, or of the unit) |
//! | --- | --- | --- |
//! | lease reads are stale after a follower's quick restart | `group/reads.rs`: ReadIndex only; `vote_quarantine` | `quarantine::*` |
//! | `as_leader`, `state` are not proof | `Group::serving` is checked with each commit and read round | `cut::*` |
//! | no step-down | `Group::demote` replaces the instance | `gate::a_demoted_leader_does_not_lead_again` |
//! | `elect(false)` stops neither transfer nor vote requests | `network.rs`, `mux/serve.rs`: `may_campaign` | `gate::*` |
//! | a failed transfer is sticky | `group/transfer.rs`: asked before, repaired after | `gate::a_stuck_transfer_is_repaired` |
//! | `pre_vote` grants by default | `network.rs` sends it | `cut::a_cut_copy_does_not_raise_the_term` |
//! | a restarted leader leads again without a vote | `enable_leader_restore: false` | `restart::*` |
//! | heartbeats wait behind mail | `new_heartbeat_client`: the control stream | `stall::*` |
//! | a hung follower freezes the core | deadlines on every call, keep-alive, sessions with credit | `stall::*` |
//! | partial partition | `quorum_loss_probe_interval` | `timeouts::*` |
//! | no limit of bytes | `limited_get_log_entries`, credit, budgets, small channels | `entries::*` |
//! | snapshot at every 5,000 entries, 200 ms to send it | `SnapshotPolicy::Never`, own transport without that timeout | `snapshot::*` |
//! | purge beyond what a crash keeps | `upkeep.rs`: only up to the flushed position | `snapshot::*` |
//! | a forgotten responder hangs its writer | every entry of a batch is answered together | `storage_suite::*` |
//! | a held metrics reference blocks the core | clones only, or within one expression | `life::*` |
//! | a storage error ends the instance | `Event::Failed`, `GroupStatus::failed`, frames refused | `faults::*` |
//! | an instance that was replaced still applies | the fence in `state_machine.rs` | `gate::*` |

pub mod gate_wire;
pub mod link;
pub mod peer;

mod copy_store;
mod event;
mod fault;
#[cfg(test)]
#[path = "fuzz_test.rs"]
mod fuzz;
mod gate;
mod group;
mod hot;
mod log_store;
mod machine;
mod membership;
mod mux;
mod network;
mod offload;
mod options;
mod overlay;
pub mod reform;
mod registry;
mod rows;
mod seeds;
mod snapshot;
mod standing;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod timeouts;
mod types;
mod wire;

pub use copy_store::OpenCopy;
pub use event::{Event, EventSink, GroupEvent, Role};
pub use gate::{BootClock, Leave, LockedGate, ServingGate};
pub use group::{
    Committed, Confirmed, FollowerStatus, Group, GroupSpec, GroupStatus, InitializeError,
    LeaderHint, MemberStatus, MembersError, NotActive, ProposeError, ReadError, Serving,
    StartError, TransferError,
};
pub use machine::{Effect, Machine, MachineFault};
pub use offload::Offload;
pub use openraft::AsyncRuntime;
pub use options::{Options, Purge};
pub use registry::Registry;
pub use rows::MEMBERSHIP_KEY;
pub use seeds::SeedServer;
pub use state_machine::{DigestAt, KEEP_STATE, Mounted};
pub use timeouts::Timeouts;
pub use types::Member;

/// The largest command that is proposed, in bytes.
pub const MAX_COMMAND_BYTES: usize = 16 << 20;

/// The largest frame between nodes: one entry of the largest command, and what surrounds it.
pub const MAX_FRAME_BYTES: usize = MAX_COMMAND_BYTES + (1 << 20);
