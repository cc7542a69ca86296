//! The mailbox core from outside: scripts, the rules of the RFCs, a naive model.

mod codec;
mod commands;
mod deliveries;
mod expunge;
mod flags;
mod folder_changes;
mod folders;
mod fuzz;
mod generated;
mod invariants;
mod items;
mod model;
mod model_bodies;
mod model_more;
mod model_rights;
mod queries;
mod repeats;
mod rights;
mod script;
mod staging;
mod threads;
mod trace;
mod transfers;
mod uids;
mod world;
