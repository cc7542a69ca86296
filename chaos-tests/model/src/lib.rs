//! The protocol, explored: every order of events up to a bound, over the very code that runs.
//!
//! | model | what it explores |
//! | --- | --- |
//! | [`lease`] | one holder, one granter, a takeover: clocks that run apart, delays, pauses |
//! | [`sites`] | two sites of two nodes and a witness: crashes, power losses, cuts, pauses, activations |
//! | [`mounting`] | one database's log while the lineage changes under late proposals |
//! | [`steps`] | a long operation whose control leader sleeps, wakes and sends again |
//!
//! Breadth first, so the first counterexample is a short one. A clean run says that nothing is
//! wrong up to its depth, and no more than that. Each model has mutants: rules left out, of which
//! every one must be found.

pub mod explore;
pub mod lease;
pub mod mounting;
pub mod shared;
pub mod sites;
pub mod steps;
