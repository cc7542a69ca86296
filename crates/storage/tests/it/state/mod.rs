//! The states of copies: what both kinds promise, and what RocksDB alone must be shown to keep.

mod conformance;
mod damage;
mod history;
mod limits;
mod sim;
mod subject;
