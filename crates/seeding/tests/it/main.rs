//! Seeding over the simulated disk, with an end at every operation, and over the real one.

mod common;
mod delta;
mod real;
mod reform;
mod relocate;
mod scrub;
mod seed;
mod snapshot;
mod takeover;
