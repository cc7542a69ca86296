//! Claims about real clusters under faults. `HOLDFAST_BIN` names the folder of the programs.

mod bad_input;
mod cut_off;
mod damage;
mod disk;
mod everything;
mod identity;
mod import;
mod operations;
mod overload;
mod paths;
mod runbooks;
mod seeding;
mod single_node;
mod storm;
mod wiped;
