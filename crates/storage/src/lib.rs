//! One database copy's directory, behind the seams [`disk::Disk`] and [`state::StateStore`].
//! See ARCHITECTURE.md.

pub mod disk;
pub mod state;
