//! An ordered map whose copies cost nothing: the state of a simulated copy.
//!
//! A search tree that is also a heap over a rank computed from each key (a treap), so it is
//! balanced in expectation and has one shape for one set of keys, whatever the order of insertion.
//! Nodes are shared between clones and copied only along the path of a change.

use std::sync::Arc;

use bytes::Bytes;

use super::Row;

type Link = Option<Arc<Node>>;

/// A persistent ordered map of bytes.
#[derive(Clone, Default)]
pub(super) struct Tree {
    root: Link,
}

#[derive(Clone)]
struct Node {
    key: Bytes,
    value: Bytes,
    rank: u64,
    left: Link,
    right: Link,
}

impl Node {
    fn new(key: Bytes, value: Bytes) -> Self {
        let rank = rank(&key);
        Self { key, value, rank, left: None, right: None }
    }

    /// Whether this node belongs above the other; the key decides between equal ranks.
    fn above(&self, other: &Self) -> bool {
        (self.rank, &self.key) > (other.rank, &other.key)
    }
}

/// Spreads keys evenly; a function of the key alone, so that runs repeat.
fn rank(key: &[u8]) -> u64 {
    let mut rank = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        rank = (rank ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (rank ^ (rank >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Tree {
    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let mut link = &self.root;
        while let Some(node) = link {
            match key.cmp(&node.key) {
                std::cmp::Ordering::Equal => return Some(&node.value),
                std::cmp::Ordering::Less => link = &node.left,
                std::cmp::Ordering::Greater => link = &node.right,
            }
        }
        None
    }

    /// Sets the value of a key.
    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) {
        insert(&mut self.root, Node::new(key, value));
    }

    /// Removes a key; copies nothing where there is none.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.get(key).is_some() {
            remove(&mut self.root, key);
        }
    }

    /// Rows with `from <= key < to` in order, at most `limit`.
    pub(super) fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        scan(&self.root, from, to, limit, &mut rows);
        rows
    }

    /// The same, the greatest keys first.
    pub(super) fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        scan_back(&self.root, from, to, limit, &mut rows);
        rows
    }

    /// All rows in order.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Bytes, &Bytes)) {
        for_each(&self.root, &mut visit);
    }
}

fn insert(link: &mut Link, node: Node) {
    match link {
        None => *link = Some(Arc::new(node)),
        Some(at) if at.key == node.key => Arc::make_mut(at).value = node.value,
        Some(at) if node.above(at) => {
            let (left, right) = split(link.take(), &node.key);
            *link = Some(Arc::new(Node { left, right, ..node }));
        }
        Some(at) => {
            let at = Arc::make_mut(at);
            insert(if node.key < at.key { &mut at.left } else { &mut at.right }, node);
        }
    }
}

/// What is less than the key, and what is greater; the key itself is not in the tree.
fn split(link: Link, key: &[u8]) -> (Link, Link) {
    let Some(mut at) = link else { return (None, None) };
    let node = Arc::make_mut(&mut at);
    if node.key.as_ref() < key {
        let (less, greater) = split(node.right.take(), key);
        node.right = less;
        (Some(at), greater)
    } else {
        let (less, greater) = split(node.left.take(), key);
        node.left = greater;
        (less, Some(at))
    }
}

fn remove(link: &mut Link, key: &[u8]) {
    let Some(at) = link else { return };
    let node = Arc::make_mut(at);
    match key.cmp(&node.key) {
        std::cmp::Ordering::Less => remove(&mut node.left, key),
        std::cmp::Ordering::Greater => remove(&mut node.right, key),
        std::cmp::Ordering::Equal => *link = merge(node.left.take(), node.right.take()),
    }
}

/// One tree of two, all of the first less than all of the second.
fn merge(less: Link, greater: Link) -> Link {
    let (mut less, mut greater) = match (less, greater) {
        (Some(less), Some(greater)) => (less, greater),
        (one, other) => return one.or(other),
    };
    if less.above(&greater) {
        let node = Arc::make_mut(&mut less);
        node.right = merge(node.right.take(), Some(greater));
        Some(less)
    } else {
        let node = Arc::make_mut(&mut greater);
        node.left = merge(Some(less), node.left.take());
        Some(greater)
    }
}

fn scan(link: &Link, from: &[u8], to: &[u8], limit: usize, rows: &mut Vec<Row>) {
    let Some(node) = link else { return };
    if from < node.key.as_ref() {
        scan(&node.left, from, to, limit, rows);
    }
    if rows.len() < limit && from <= node.key.as_ref() && node.key.as_ref() < to {
        rows.push((node.key.clone(), node.value.clone()));
    }
    if rows.len() < limit && node.key.as_ref() < to {
        scan(&node.right, from, to, limit, rows);
    }
}

fn scan_back(link: &Link, from: &[u8], to: &[u8], limit: usize, rows: &mut Vec<Row>) {
    let Some(node) = link else { return };
    if node.key.as_ref() < to {
        scan_back(&node.right, from, to, limit, rows);
    }
    if rows.len() < limit && from <= node.key.as_ref() && node.key.as_ref() < to {
        rows.push((node.key.clone(), node.value.clone()));
    }
    if rows.len() < limit && from < node.key.as_ref() {
        scan_back(&node.left, from, to, limit, rows);
    }
}

fn for_each(link: &Link, visit: &mut impl FnMut(&Bytes, &Bytes)) {
    if let Some(node) = link {
        for_each(&node.left, visit);
        visit(&node.key, &node.value);
        for_each(&node.right, visit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A fixed sequence that looks random.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        (0..).scan(seed, |state, _: u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(*state >> 33)
        })
    }

    fn key(number: u64) -> Bytes {
        Bytes::copy_from_slice(&(number % 500).to_be_bytes())
    }

    #[test]
    fn it_answers_as_a_sorted_map_does() {
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        let mut numbers = numbers(7);
        for _ in 0..20_000 {
            let (key, value) = (key(numbers.next().unwrap()), numbers.next().unwrap());
            let value = Bytes::copy_from_slice(&value.to_be_bytes());
            if value[7] % 3 == 0 {
                tree.remove(&key);
                model.remove(&key);
            } else {
                tree.insert(key.clone(), value.clone());
                model.insert(key.clone(), value);
            }
            assert_eq!(tree.get(&key), model.get(&key));
        }
        for _ in 0..500 {
            let (from, to) = (key(numbers.next().unwrap()), key(numbers.next().unwrap()));
            let limit = (numbers.next().unwrap() % 40) as usize;
            let range = || model.iter().filter(|(key, _)| from <= **key && **key < to);
            let own = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
            let ahead: Vec<Row> = range().take(limit).map(own).collect();
            let back: Vec<Row> = range().rev().take(limit).map(own).collect();
            assert_eq!(tree.scan(&from, &to, limit), ahead);
            assert_eq!(tree.scan_back(&from, &to, limit), back);
        }
    }

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut tree = Tree::default();
        (0..300).for_each(|n| tree.insert(key(n), Bytes::from_static(b"old")));
        let before = tree.clone();
        (0..300).for_each(|n| match n % 2 {
            0 => tree.remove(&key(n)),
            _ => tree.insert(key(n), Bytes::from_static(b"new")),
        });
        let mut seen = 0;
        before.for_each(|_, value| {
            assert_eq!(value.as_ref(), b"old");
            seen += 1;
        });
        assert_eq!(seen, 300);
    }

    #[test]
    fn ascending_keys_do_not_make_a_list() {
        fn depth(link: &Link) -> usize {
            link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
        }
        let mut tree = Tree::default();
        for n in 0..50_000_u64 {
            tree.insert(Bytes::copy_from_slice(&n.to_be_bytes()), Bytes::new());
        }
        assert!(depth(&tree.root) < 64, "depth {}", depth(&tree.root));
    }
}
