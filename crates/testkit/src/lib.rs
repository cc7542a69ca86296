//! Real clusters on one machine, for `dagctl local`, for tests and for the benchmark.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`shape`] | reads a folder of `cluster-configs/`: a DAG and the settings of its nodes |
//! | [`authority`] | certificates of a cluster on this machine |
//! | [`subnet`] | claims a free range of loopback addresses |
//! | [`process`] | starts processes and names them so that no stranger is ever signalled |
//! | [`cluster`] | a cluster: up, kill, pause, restart, down |
//! | [`record`] | `cluster.json`, what is known of a cluster between two commands |
//! | [`figures`] | processor time, memory, files and bytes written of a process |
//! | [`mail`] | mails that anyone can make again |
//! | [`scratch`] | a cluster of a test, in a temporary folder, gone with the test |

pub mod authority;
pub mod cluster;
pub mod figures;
pub mod mail;
pub mod process;
pub mod ready;
pub mod record;
pub mod scratch;
pub mod shape;
pub mod subnet;

pub use cluster::{LocalCluster, UpOptions};
pub use process::Lifetime;
