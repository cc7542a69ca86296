//! Claims about real clusters under faults. `HOLDFAST_BIN` names the folder of the programs.

mod bad_input;
mod cut_off;
mod damage;
mod disk;
mod everything;
mod identity;
mod import;
mod joins;
mod lint;
mod members;
mod operations;
mod overload;
mod paths;
mod reforming;
mod runbooks;
mod same_commands;
mod seeding;
mod seeds_disturbed;
mod single_node;
mod snapshots;
mod storm;
mod wiped;

// The commands by chance and the naive model of the mailbox core's own tests, for `same_commands`.
#[allow(dead_code)]
#[path = "../../../../crates/mailbox/tests/it/commands.rs"]
mod commands;
#[allow(dead_code)]
#[path = "../../../../crates/mailbox/tests/it/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../../../../crates/mailbox/tests/it/model_bodies.rs"]
mod model_bodies;
#[allow(dead_code)]
#[path = "../../../../crates/mailbox/tests/it/model_more.rs"]
mod model_more;
#[allow(dead_code)]
#[path = "../../../../crates/mailbox/tests/it/model_rights.rs"]
mod model_rights;
#[allow(dead_code)]
#[path = "../../../../crates/mailbox/tests/it/world.rs"]
mod world;
