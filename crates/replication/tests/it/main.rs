//! Whole clusters in one process: real logs, real openraft, over the memory link and over gRPC.
//!
//! Nothing here asserts a time. What must happen is waited for, with a limit that only ends a test
//! that would never end.

mod closed_gate;
mod cluster;
mod machine;

mod cut;
mod entries;
mod faults;
mod gate;
mod kept;
mod life;
mod members;
mod quarantine;
mod refusals;
mod snapshot;
mod stall;
