//! What the daemon decides without its shell, taken as it stands: simulated nodes do what real ones do
//! because the same lines say so. The daemon is a program and no library, and a library of its own for
//! these would have no other user.

#![allow(dead_code, reason = "a run does not need all of it")]

#[path = "../../../crates/dag-server/src/driver/plan.rs"]
pub(crate) mod plan;
#[path = "../../../crates/dag-server/src/service/admin/seed_plan.rs"]
pub(crate) mod seed_plan;
#[path = "../../../crates/dag-server/src/seeds/strays.rs"]
pub(crate) mod strays;
#[path = "../../../crates/dag-server/src/seeds/wire.rs"]
pub(crate) mod wire;
