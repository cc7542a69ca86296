//! A machine that puts values under keys, and can be held.

use std::sync::{Arc, Condvar, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use dag_types::{LogId, Write};
use replication::{Effect, Machine, MachineFault};
use storage::state::StateRead;

/// Puts a value under a key; the reply is the index of the entry.
pub fn put(key: &str, value: &[u8]) -> Bytes {
    let mut command = BytesMut::new();
    command.put_u8(key.len() as u8);
    command.put_slice(key.as_bytes());
    command.put_slice(value);
    command.freeze()
}

/// Where a value lies.
fn state_key(key: &str) -> Vec<u8> {
    let mut found = vec![0x80];
    found.extend_from_slice(key.as_bytes());
    found
}

/// The value of a key in a copy's state; none while a snapshot replaces it.
pub fn value(view: &dyn StateRead, key: &str) -> Option<Bytes> {
    view.get(&state_key(key)).ok().flatten()
}

/// A command with this key is a fault of the machine.
pub const POISON: &str = "poison";

/// A command with this key breaks a rule of the machine.
pub const PANIC: &str = "panic";

/// The machine of one copy. Clones are the same.
#[derive(Clone, Default)]
pub struct Values {
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Values {
    /// From now on applying waits.
    pub fn hold(&self) {
        *self.held.0.lock().unwrap() = true;
    }

    /// Applying goes on.
    pub fn release(&self) {
        *self.held.0.lock().unwrap() = false;
        self.held.1.notify_all();
    }

    fn wait(&self) {
        let held = self.held.0.lock().unwrap();
        drop(self.held.1.wait_while(held, |held| *held).unwrap());
    }
}

impl Machine for Values {
    fn apply(
        &self,
        _view: &dyn StateRead,
        at: LogId,
        command: &Bytes,
    ) -> Result<Effect, MachineFault> {
        self.wait();
        let (key, value) = command[1..].split_at(usize::from(command[0]));
        let key = std::str::from_utf8(key).expect("keys are text");
        if key == POISON {
            return Err(MachineFault::new("poison"));
        }
        assert!(key != PANIC, "a broken rule");
        let value = command.slice_ref(value);
        let write = Write::Put { key: state_key(key).into(), value };
        let reply = Bytes::copy_from_slice(&at.index.to_be_bytes());
        Ok(Effect { writes: vec![write], reply })
    }

    fn digest(&self, view: &dyn StateRead) -> Result<[u8; 16], MachineFault> {
        let mut hasher = blake3::Hasher::new();
        for (key, value) in view.scan(&[0x80], &[0x81], usize::MAX)? {
            hasher.update(&key);
            hasher.update(&value);
        }
        Ok(hasher.finalize().as_bytes()[..16].try_into().expect("sixteen bytes"))
    }
}
