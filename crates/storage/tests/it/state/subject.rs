//! The two kinds of state, made alike for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dag_types::Write;
use storage::disk::RealDisk;
use storage::state::map::MapEngine;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::state::{Row, StateEngine, StateRead, StateStore};
use tempfile::TempDir;

/// An engine with a folder of its own.
pub struct Subject {
    pub name: &'static str,
    pub engine: Arc<dyn StateEngine>,
    home: TempDir,
}

impl Subject {
    pub fn map() -> Self {
        Self::new("map", Arc::new(MapEngine::new(Arc::new(RealDisk::new()))))
    }

    pub fn rocks() -> Self {
        Self::new("rocks", Arc::new(shared()))
    }

    /// Every promise is checked on both.
    pub fn both() -> [Self; 2] {
        [Self::map(), Self::rocks()]
    }

    fn new(name: &'static str, engine: Arc<dyn StateEngine>) -> Self {
        Self { name, engine, home: tempfile::tempdir().unwrap() }
    }

    pub fn folder(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn create(&self) -> Arc<dyn StateStore> {
        self.engine.create(&self.folder()).unwrap()
    }

    pub fn open(&self) -> Arc<dyn StateStore> {
        self.engine.open(&self.folder()).unwrap()
    }
}

pub fn small_budget() -> StateBudget {
    StateBudget { block_cache_bytes: 8 << 20, unflushed_bytes: 64 << 20, ..StateBudget::default() }
}

pub fn shared() -> SharedResources {
    SharedResources::new(small_budget()).unwrap()
}

pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Write {
    Write::Put {
        key: Bytes::copy_from_slice(key.as_ref()),
        value: Bytes::copy_from_slice(value.as_ref()),
    }
}

pub fn delete(key: impl AsRef<[u8]>) -> Write {
    Write::Delete { key: Bytes::copy_from_slice(key.as_ref()) }
}

/// Everything, through all families.
pub fn all_rows(state: &dyn StateRead) -> Vec<Row> {
    state.scan(&[0], &[0xff; 40], usize::MAX).unwrap()
}

/// Files in a folder whose names end so.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    found.sort();
    found
}
