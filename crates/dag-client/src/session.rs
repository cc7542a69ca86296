//! Many deliveries at once over one stream per database.
//!
//! A call of its own for each message costs a stream of HTTP/2 each time; in a session they share
//! one, and the node may put many of them into one commit. What is unanswered when a stream breaks
//! is sent again, to wherever the database is active by then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dag_api::mailbox::v1::{DeliverHeader, Delivered};
use dag_types::DatabaseId;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;

use crate::ask::Shared;
use crate::deliver::{Delivery, DeliveryReport, Way, deliver};
use crate::error::{Error, Stop};
use crate::stream::{DatabaseStream, Job};
use crate::trial::Trial;

/// A message counts as at least this much, so that a flood of tiny ones is bounded too.
const WEIGHT_MIN: usize = 4 << 10;
/// Room is handed out in units of this.
const WEIGHT_UNIT: usize = 1 << 10;

/// A session. Cheap to clone; clones share streams and room. Streams end when the last clone is
/// gone and everything is answered.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    streams: Arc<Mutex<HashMap<DatabaseId, mpsc::Sender<Job>>>>,
    room: Arc<Semaphore>,
    units: u32,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let units = (shared.options.session_bytes.max(WEIGHT_MIN) / WEIGHT_UNIT) as u32;
        let room = Arc::new(Semaphore::new(units as usize));
        Self { shared, streams: Arc::default(), room, units }
    }

    /// Delivers one message among others; waits for room first, then for the answer. Run many of
    /// these futures at the same time to have many messages in flight.
    pub async fn deliver(&self, delivery: Delivery) -> Result<DeliveryReport, Error> {
        let weight = delivery.content.len().max(WEIGHT_MIN).div_ceil(WEIGHT_UNIT) as u32;
        let room = self.room.acquire_many(weight.min(self.units)).await;
        let _room = room.expect("the room is never closed");
        deliver(&self.shared, delivery, Way::Session(self)).await
    }

    pub(crate) async fn submit(
        &self,
        database: DatabaseId,
        header: DeliverHeader,
        content: Bytes,
        trial: Trial,
    ) -> Result<Delivered, Stop> {
        let (answer, answered) = oneshot::channel();
        let mut stuck = trial.clone();
        let job = Job { header, content, trial, answer };
        if let Err(unsent) = self.stream(database).send(job).await {
            return Err(Stop::Failed(unsent.0.trial.timed_out()));
        }
        // The stream keeps the deadline; waiting here too guards against a stream that is stuck.
        let until = stuck.deadline() + self.shared.options.attempt;
        match timeout_at(until, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                stuck.maybe_done("the stream ended without an answer".into());
                Err(Stop::Failed(stuck.timed_out()))
            }
        }
    }

    fn stream(&self, database: DatabaseId) -> mpsc::Sender<Job> {
        let mut streams = self.streams.lock().expect("nobody panics while holding it");
        let open = |jobs: &mpsc::Sender<Job>| !jobs.is_closed();
        if let Some(jobs) = streams.get(&database).filter(|jobs| open(jobs)) {
            return jobs.clone();
        }
        let (sender, jobs) = mpsc::channel(64);
        let stream = DatabaseStream::new(self.shared.clone(), database, jobs);
        tokio::spawn(stream.run());
        streams.insert(database, sender.clone());
        sender
    }
}
