//! Who waits for changes of which mailbox.
//!
//! A command that changes a mailbox writes the mailbox's record. The machine sees that, and notes
//! the mailbox if anybody watches it; once the batch is in the store, those who watch are woken. So
//! a change costs the number of those who watch that mailbox, however many others there are, and
//! what is told is read from the store: nothing is kept for those who are slow.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use dag_types::{DatabaseId, MailboxId, Write};
use mailbox::keys::table;
use tokio::sync::Notify;

/// Mailboxes that one node's watches may name together.
pub const WATCHED_MAX: usize = 100_000;

/// The watches of a node.
#[derive(Debug, Default)]
pub struct Watchers {
    /// Mailboxes watched, counted once for each watch.
    watched: AtomicUsize,
    bells: Mutex<HashMap<DatabaseId, Bells>>,
}

#[derive(Debug, Default)]
struct Bells {
    by_mailbox: HashMap<MailboxId, Vec<Weak<Bell>>>,
    /// Changed by a batch that is not in the store yet.
    touched: BTreeSet<MailboxId>,
}

/// What wakes one watch.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<BTreeSet<MailboxId>>,
    notify: Notify,
}

/// One watch; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    database: DatabaseId,
    mailboxes: Vec<MailboxId>,
    bell: Arc<Bell>,
}

impl Watchers {
    /// Begins a watch. The error is how many mailboxes would be watched.
    pub fn watch(
        self: &Arc<Self>,
        database: DatabaseId,
        mailboxes: Vec<MailboxId>,
    ) -> Result<Watch, usize> {
        let before = self.watched.fetch_add(mailboxes.len(), Ordering::SeqCst);
        let bell = Arc::new(Bell::default());
        let (watchers, count) = (self.clone(), before + mailboxes.len());
        let watch = Watch { watchers, database, mailboxes, bell };
        if count > WATCHED_MAX {
            return Err(count);
        }
        let mut bells = self.bells.lock().expect(UNPOISONED);
        let bells = bells.entry(database).or_default();
        for mailbox in &watch.mailboxes {
            bells.by_mailbox.entry(*mailbox).or_default().push(Arc::downgrade(&watch.bell));
        }
        Ok(watch)
    }

    /// Notes what an applied command changed. Not in the store yet.
    pub fn touch(&self, database: DatabaseId, writes: &[Write]) {
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut bells = self.bells.lock().expect(UNPOISONED);
        let Some(bells) = bells.get_mut(&database) else { return };
        for mailbox in writes.iter().filter_map(changed_mailbox) {
            if bells.by_mailbox.contains_key(&mailbox) {
                bells.touched.insert(mailbox);
            }
        }
    }

    /// What was noted is in the store now.
    pub fn applied(&self, database: DatabaseId) {
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut bells = self.bells.lock().expect(UNPOISONED);
        let Some(bells) = bells.get_mut(&database) else { return };
        for mailbox in std::mem::take(&mut bells.touched) {
            for bell in bells.by_mailbox.get(&mailbox).into_iter().flatten() {
                if let Some(bell) = bell.upgrade() {
                    bell.ring(mailbox);
                }
            }
        }
    }

    /// Lets every watch of a database look whether it may go on.
    pub fn look(&self, database: DatabaseId) {
        let bells = self.bells.lock().expect(UNPOISONED);
        let Some(bells) = bells.get(&database) else { return };
        for bell in bells.by_mailbox.values().flatten().filter_map(Weak::upgrade) {
            bell.notify.notify_one();
        }
    }

    fn end(&self, watch: &Watch) {
        self.watched.fetch_sub(watch.mailboxes.len(), Ordering::SeqCst);
        let mut bells = self.bells.lock().expect(UNPOISONED);
        let Some(of_database) = bells.get_mut(&watch.database) else { return };
        for mailbox in &watch.mailboxes {
            let Some(waiting) = of_database.by_mailbox.get_mut(mailbox) else { continue };
            waiting.retain(|bell| bell.as_ptr() != Arc::as_ptr(&watch.bell));
            if waiting.is_empty() {
                of_database.by_mailbox.remove(mailbox);
            }
        }
        if of_database.by_mailbox.is_empty() {
            bells.remove(&watch.database);
        }
    }
}

/// The mailbox whose record is written. It has the mod-sequence, so every change writes it.
fn changed_mailbox(write: &Write) -> Option<MailboxId> {
    let Write::Put { key, .. } = write else { return None };
    MailboxId::from_slice(key.strip_prefix(&[table::MAILBOX])?)
}

impl Bell {
    fn ring(&self, mailbox: MailboxId) {
        self.rung.lock().expect(UNPOISONED).insert(mailbox);
        self.notify.notify_one();
    }
}

impl Watch {
    /// Waits until something changed, or there is a reason to look.
    pub async fn rung(&self) {
        self.bell.notify.notified().await;
    }

    /// What changed since this was asked last.
    pub fn take(&self) -> BTreeSet<MailboxId> {
        std::mem::take(&mut *self.bell.rung.lock().expect(UNPOISONED))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.clone().end(self);
    }
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const DB: DatabaseId = DatabaseId(16);
    const ANN: MailboxId = MailboxId([1; 16]);
    const BEN: MailboxId = MailboxId([2; 16]);

    fn change(mailbox: MailboxId) -> Vec<Write> {
        vec![Write::Put { key: mailbox::keys::mailbox(mailbox), value: Bytes::new() }]
    }

    #[test]
    fn only_who_watches_a_mailbox_hears_of_it_and_only_once_it_is_in_the_store() {
        let watchers = Arc::new(Watchers::default());
        let ann = watchers.watch(DB, vec![ANN]).expect("room");
        let both = watchers.watch(DB, vec![ANN, BEN]).expect("room");
        watchers.touch(DB, &change(BEN));
        watchers.touch(DatabaseId(17), &change(ANN));
        assert!(both.take().is_empty());
        watchers.applied(DB);
        assert_eq!(both.take(), BTreeSet::from([BEN]));
        assert!(ann.take().is_empty() && both.take().is_empty());
    }

    #[test]
    fn a_watch_that_ended_leaves_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        let first = watchers.watch(DB, vec![ANN, BEN]).expect("room");
        let second = watchers.watch(DB, vec![ANN]).expect("room");
        drop(first);
        watchers.touch(DB, &change(ANN));
        watchers.applied(DB);
        assert_eq!(second.take(), BTreeSet::from([ANN]));
        drop(second);
        assert!(watchers.bells.lock().unwrap().is_empty());
        assert_eq!(watchers.watched.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn more_watches_than_a_node_bears_are_refused_and_not_counted() {
        let watchers = Arc::new(Watchers::default());
        let full = watchers.watch(DB, vec![ANN; WATCHED_MAX]).expect("just room");
        assert_eq!(watchers.watch(DB, vec![BEN]).unwrap_err(), WATCHED_MAX + 1);
        drop(full);
        assert!(watchers.watch(DB, vec![BEN]).is_ok());
    }

    #[tokio::test]
    async fn a_ring_before_the_wait_is_not_lost() {
        let watchers = Arc::new(Watchers::default());
        let watch = watchers.watch(DB, vec![ANN]).expect("room");
        watchers.touch(DB, &change(ANN));
        watchers.applied(DB);
        watch.rung().await;
        assert_eq!(watch.take(), BTreeSet::from([ANN]));
        watchers.look(DB);
        watch.rung().await;
        assert!(watch.take().is_empty());
    }
}
