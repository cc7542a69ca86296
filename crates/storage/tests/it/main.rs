//! Tests of the whole crate over real files, a simulated disk, and real RocksDB.

mod copy_directory;
mod disk;
mod log;
mod state;
