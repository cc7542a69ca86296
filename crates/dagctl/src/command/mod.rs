//! One file per noun of the command line.

pub mod checks;
pub mod completion;
pub mod copies;
pub mod dag;
pub mod db;
pub mod deep;
pub mod events;
pub mod export;
pub mod follow;
pub mod gate;
pub mod joining;
pub mod lint;
pub mod local;
pub mod mail;
pub mod mailbox;
pub mod members;
pub mod moves;
pub mod node;
pub mod paths;
pub mod reform;
pub mod seed;
pub mod snapshot;
pub mod status;
pub mod trace;
