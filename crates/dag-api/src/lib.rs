//! The gRPC messages and services, generated from `proto/`, and the typed reasons of errors.
//!
//! | module | audience |
//! | --- | --- |
//! | [`mailbox::v1`] | mail front ends |
//! | [`admin::v1`] | operators: `dagctl` |
//! | [`peer::v1`] | the nodes of one DAG among themselves; never served to others |
//!
//! An error is a [`Problem`]: a stable [`Reason`] with the facts that belong to it. It travels as
//! the status of a call or as a `Failure` inside a session, and reads back as what it was.
//! Conversions between the messages and the types of `dag-types` stand in [`convert`]; nothing is
//! decided in this crate.

pub mod convert;
mod definition;
pub mod limits;
mod problem;
mod reason;
mod uid_set;

pub use convert::{BadMessage, Token};
pub use problem::{Facts, Problem};
pub use reason::{DOMAIN, Reason, Retry};

/// What mail front ends call.
pub mod mailbox {
    #[allow(missing_docs, clippy::all)]
    /// `holdfast.mailbox.v1`, generated.
    pub mod v1 {
        tonic::include_proto!("holdfast.mailbox.v1");
    }
}

/// What operators call.
pub mod admin {
    #[allow(missing_docs, clippy::all)]
    /// `holdfast.admin.v1`, generated.
    pub mod v1 {
        tonic::include_proto!("holdfast.admin.v1");
    }
}

/// What the nodes of a DAG say to one another.
pub mod peer {
    #[allow(missing_docs, clippy::all)]
    /// `holdfast.peer.v1`, generated.
    pub mod v1 {
        tonic::include_proto!("holdfast.peer.v1");
    }
}

/// The descriptors of all packages, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/holdfast.bin"));
