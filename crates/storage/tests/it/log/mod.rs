//! The log over the simulated disk, and over the real one.

mod basics;
mod damage;
mod faults;
mod fuzz;
mod real;
mod rig;
