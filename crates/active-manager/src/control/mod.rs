//! The control group's machine: the only authority on nodes, stores and boots, sites, lineage,
//! databases and replica ids.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`command`] | what is asked of the DAG |
//! | [`response`] | what became of it, rejections included |
//! | [`activation`] | policies, suspensions, maintenance, settings, openings of gates |
//! | [`operation`] | long operations and their steps |
//! | [`seed`] | copies that are being built |
//! | [`record`] | what is stored, and under which key |
//! | [`definition`] | what a DAG is created from, and everything that can be wrong with it |
//! | [`state`] | all records read at once, for decisions and for status |
//! | `apply` | the transitions |

pub mod activation;
mod apply;
mod apply_activation;
mod apply_joining;
mod apply_members;
mod apply_operation;
mod apply_reform;
mod apply_seed;
pub mod command;
pub mod definition;
pub mod operation;
pub mod record;
pub mod response;
pub mod seed;
pub mod state;

pub use activation::{
    ActivationPolicy, CopyPolicy, DatabasePolicy, Decided, Hook, Maintenance, MoveCause,
    NodePolicy, OpeningRecord, Settings,
};
pub use apply::{apply, digest};
pub(crate) use apply_joining::{address_taken, name_taken};
pub(crate) use apply_members::unsettled;
pub use apply_reform::{LEFT_BEHIND, last_opening, openings_of};
pub use apply_seed::move_object;
pub(crate) use apply_seed::{object as copy_object, without};
pub use command::{Command, CreateDag, CreateDatabase, Order, RegisterBoot};
pub use definition::{Definition, FoundingReplica};
pub use operation::{NextStep, Operation, OperationKind, OperationState, StepRecord};
pub use record::{
    AuditRow, DagRecord, DatabaseRecord, LineageLink, LinkKind, NodeRecord, ReplicaRecord,
    SiteRecord, Timeouts,
};
pub use response::{FailedCheck, Outcome, Rejection, Response};
pub use seed::{SeedPhase, SeedRecord};
pub use state::ControlState;
