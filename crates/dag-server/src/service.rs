//! The gRPC services: decode, check, ask the group, encode. Nothing is decided here.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`mailbox`] | `holdfast.mailbox.v1`, for front ends |
//! | [`admin`] | `holdfast.admin.v1`, for operators |
//! | [`snapshots`] | `holdfast.admin.v1`: snapshots of this node's copies |
//! | [`health`] | `grpc.health.v1`: where a database is mounted |
//! | [`upload`] | messages that arrive in frames |
//! | [`deadline`], [`text`] | until when a request is worked on; ids and page tokens |

pub mod admin;
pub mod deadline;
#[cfg(test)]
#[path = "service/fuzz_test.rs"]
mod fuzz;
pub mod health;
pub mod mailbox;
pub mod snapshots;
pub mod text;
pub mod upload;
