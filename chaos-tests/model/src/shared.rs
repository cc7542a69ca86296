//! Parts of a state that many states have in common, each kept once.
//!
//! A state of a model is a few gates, granters and logs, of which one step changes one or two. An
//! exploration is as deep as its memory: so states share their parts ([`Shared`]), and equal parts
//! that different paths led to become one ([`Pool`]).

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

#[derive(Debug, Clone)]
struct Kept<T> {
    /// Of the value, once it was settled.
    hash: Option<u64>,
    value: T,
}

/// A value that is copied when it is changed.
#[derive(Debug)]
pub struct Shared<T>(Arc<Kept<T>>);

impl<T> Shared<T> {
    /// A value that nobody shares yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Kept { hash: None, value }))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        let kept = Arc::make_mut(&mut self.0);
        kept.hash = None;
        &mut kept.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash.unwrap_or_else(|| hash_of(&self.0.value)));
    }
}

/// The same in every run, so that a counterexample can be walked again.
fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The different values that were met so far. They stay until the process ends.
pub struct Pool<T>(LazyLock<Mutex<HashSet<Shared<T>, BuildHasherDefault<DefaultHasher>>>>);

impl<T: Clone + Eq + Hash> Pool<T> {
    /// Nothing was met.
    pub const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    /// Takes the value that equals this one from the pool, or puts this one there.
    pub fn settle(&self, part: &mut Shared<T>) {
        if part.0.hash.is_some() {
            return;
        }
        let hash = hash_of(&**part);
        Arc::make_mut(&mut part.0).hash = Some(hash);
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match met.get(part) {
            Some(known) => *part = known.clone(),
            None => _ = met.insert(part.clone()),
        }
    }
}

impl<T: Clone + Eq + Hash> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_become_one_and_a_change_leaves_the_others_alone() {
        static POOL: Pool<Vec<u8>> = Pool::new();
        let mut first = Shared::new(vec![1]);
        let mut second = Shared::new(vec![1]);
        let unsettled = hash_of(&first);
        POOL.settle(&mut first);
        POOL.settle(&mut second);
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!(hash_of(&first), unsettled);
        second.push(2);
        assert_eq!((&*first, &*second), (&vec![1], &vec![1, 2]));
        assert_ne!(hash_of(&first), hash_of(&second));
        second.pop();
        assert_eq!(first, second);
        POOL.settle(&mut second);
        assert!(Arc::ptr_eq(&first.0, &second.0));
    }
}
