//! The mailbox core from outside: scripts, the rules of the RFCs, a naive model.

mod codec;
mod deliveries;
mod expunge;
mod flags;
mod folders;
mod generated;
mod invariants;
mod model;
mod queries;
mod repeats;
mod script;
mod uids;
mod world;
