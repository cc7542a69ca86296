//! A history of batches that a seed determines, and what a state must hold after the n-th.
//!
//! A state says by its applied row which batches it holds. Whatever happened to it, it must be
//! exactly what the first n batches make: a batch that is there in part shows.

use std::collections::BTreeMap;

use bytes::Bytes;
use dag_types::{Chain, LogId, Write};
use storage::state::{Row, StateRead, applied, applied_write};

use super::subject::{all_rows, delete, put};

/// Numbers that look random and are the same every time.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// The n-th batch (from 1): a body, small records, records that expire, deletions of all of them,
/// and the applied row.
pub fn batch(seed: u64, n: u64) -> Vec<Write> {
    let mut numbers = Numbers::new(seed.wrapping_mul(1_000_003).wrapping_add(n));
    let mut writes = vec![applied_write(LogId { term: 1, index: n }, chain(n))];
    for _ in 0..=numbers.below(6) {
        let table = [0x10, 0x7f, 0x80, 0x81, 0xbf, 0xc0, 0xff][numbers.below(7) as usize];
        let key = [&[table][..], &numbers.below(60).to_be_bytes()].concat();
        if numbers.below(4) == 0 {
            writes.push(delete(&key));
        } else {
            writes.push(put(&key, value(&mut numbers, n)));
        }
    }
    writes
}

fn chain(n: u64) -> Chain {
    Chain([(n % 256) as u8; 16])
}

/// Mostly small, sometimes empty, sometimes a body.
fn value(numbers: &mut Numbers, n: u64) -> Vec<u8> {
    let len = match numbers.below(10) {
        0 => 0,
        1..7 => numbers.below(100),
        _ => numbers.below(9000),
    };
    (0..len).map(|at| (n + at * 7) as u8).collect()
}

/// What the first batches make.
#[derive(Default)]
pub struct Model(BTreeMap<Bytes, Bytes>);

impl Model {
    pub fn after(seed: u64, batches: u64) -> Self {
        let mut model = Self::default();
        (1..=batches).for_each(|n| model.apply(&batch(seed, n)));
        model
    }

    pub fn apply(&mut self, batch: &[Write]) {
        for write in batch {
            match write {
                Write::Put { key, value } => self.0.insert(key.clone(), value.clone()),
                Write::Delete { key } => self.0.remove(key),
            };
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.0.get(key)
    }

    pub fn rows(&self) -> Vec<Row> {
        self.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize, back: bool) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows();
        rows.retain(|(key, _)| from <= key.as_ref() && key.as_ref() < to);
        if back {
            rows.reverse();
        }
        rows.truncate(limit);
        rows
    }
}

/// How many batches a state holds. It must hold them whole, and nothing else.
pub fn whole_batches(state: &dyn StateRead, seed: u64, what: &str) -> u64 {
    let rows = all_rows(state);
    let at = applied(state).unwrap();
    let n = at.map_or(0, |(at, _)| at.index);
    assert_eq!(at.map(|(_, chain)| chain), (n > 0).then(|| chain(n)), "{what}: chain of {n}");
    assert_eq!(rows, Model::after(seed, n).rows(), "{what}: not what the first {n} batches make");
    n
}
