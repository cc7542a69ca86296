//! One database copy's directory, behind the seams [`disk::Disk`] and [`state::StateStore`].
//! See ARCHITECTURE.md.

pub mod copy_directory;
pub mod disk;
pub mod flusher;
pub mod identity;
pub mod log;
pub mod resources;
pub mod state;
pub mod volume;
