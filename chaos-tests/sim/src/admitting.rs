//! Seeds, led by whoever leads the control group: begun for whoever asks, in their place once they are
//! built, compared, admitted. The decisions are the daemon's ([`crate::daemon::seed_plan`]) and
//! [`active_manager::seed`]'s; every phase is a record of the control log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::command::{AdvanceSeed, EndSeed, SeedCopy};
use active_manager::control::{ControlState, Order, Outcome, SeedRecord};
use active_manager::report::Reports;
use active_manager::seed::{self, SeedKind};
use dag_api::admin::v1 as api;
use dag_types::{DatabaseId, NodeId, ReplicaId};
use openraft_rt::AsyncRuntime;
use replication::Role;
use tokio::time::Instant;

use crate::daemon::seed_plan::{Next, next, verdict};
use crate::node::{Rt, Shared};
use crate::office::Office;
use crate::seeds::SeedNote;
use crate::server::{Reply, Request};
use crate::shape::NODES;
use crate::words;
use crate::world::lock;

/// How often a leader looks at the seeds that are under way.
const LOOK: Duration = Duration::from_millis(50);
/// How long a comparison may take.
const COMPARE: Duration = Duration::from_millis(2_000);
/// How long its mark may take to reach the new copy.
const MARK: Duration = Duration::from_millis(1_200);
/// How long a node may take to say how it stands.
const WORD: Duration = Duration::from_millis(150);

/// A copy that somebody wants to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedWish {
    /// The same for each attempt.
    pub request: String,
    /// Of which database.
    pub database: DatabaseId,
    /// Where.
    pub node: u64,
    /// A copy that failed, or a sound one.
    pub kind: SeedKind,
    /// Everything is sent, also what the old copy has.
    pub whole: bool,
    /// Bytes a second; 0: no limit.
    pub limit: u64,
    /// How nodes and copies stood when it was wished.
    pub reports: Reports,
}

impl Office {
    /// Begins a seed.
    pub async fn begin_seed(&self, shared: &Shared, wish: &SeedWish) -> Reply {
        let Some((group, _, state)) = self.lead(shared).await else {
            let leader = shared.group(DatabaseId::CONTROL).and_then(|group| group.leader());
            return Reply::Refused(leader.map(|leader| leader.node.0));
        };
        let Some(record) = state.database(wish.database) else { return Reply::Refused(None) };
        let node = NodeId(wish.node);
        if state.seed(wish.database, node).is_none() {
            let checks = seed::check_seed(&state, &wish.reports, record, node, wish.kind, None);
            if let Some(refused) = seed::refusal(&checks, &record.name) {
                return Reply::Stepped(Err(refused.check));
            }
        }
        let order = Order::SeedCopy(SeedCopy {
            request_id: wish.request.clone(),
            database: wish.database.0,
            node: wish.node,
            limit: wish.limit,
            whole: wish.whole,
            ..SeedCopy::default()
        });
        match self.order(shared, &group, order).await {
            Some(Outcome::OperationBegun(_)) => Reply::Stepped(Ok("begun".to_owned())),
            Some(_) => Reply::Stepped(Err("operation-running".to_owned())),
            None => Reply::Unknown("the order was not answered"),
        }
    }

    /// Compares all copies of a database that is active here.
    pub async fn verify(
        &self,
        shared: &Shared,
        database: DatabaseId,
    ) -> Option<api::VerifyDatabaseResponse> {
        let group = shared.group(database)?;
        let end = Instant::now() + MARK;
        // The last bit asks for a state that is kept.
        let number = shared.seeding.draw() & !1;
        let mark_index = group.mark_digest(number, end).await.ok()?.at.index;
        let record = shared.state().control.clone()?.database(database)?.clone();
        let mut copies = Vec::new();
        for replica in &record.replicas {
            copies.push(self.digest_on(shared, replica.node().0, database, mark_index, end).await);
        }
        Some(api::VerifyDatabaseResponse {
            database_id: database.0,
            mark_index,
            copies,
            ..api::VerifyDatabaseResponse::default()
        })
    }

    /// Asks a node until its copy has reached the mark, or time is over.
    async fn digest_on(
        &self,
        shared: &Shared,
        node: u64,
        database: DatabaseId,
        mark_index: u64,
        end: Instant,
    ) -> api::CopyDigest {
        loop {
            let answer = match node == shared.node {
                true => copy_digest(shared, database, mark_index),
                false => {
                    let asked = Request::Digest { database, mark_index };
                    match self.call(node, asked, WORD).await {
                        Some(Reply::Digest(digest)) => digest,
                        _ => None,
                    }
                }
            };
            let digest = answer.unwrap_or_else(|| api::CopyDigest {
                node_id: node,
                state: api::DigestState::Unreachable.into(),
                ..api::CopyDigest::default()
            });
            let passing = [api::DigestState::Pending, api::DigestState::Unreachable];
            if !passing.contains(&digest.state()) || Instant::now() + LOOK >= end {
                return digest;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What this node's copy holds at a mark.
pub fn copy_digest(
    shared: &Shared,
    database: DatabaseId,
    mark_index: u64,
) -> Option<api::CopyDigest> {
    let group = shared.group(database)?;
    let marks = group.digest_marks().ok()?;
    let applied_index = group.status().applied.map_or(0, |at| at.index);
    let mark = marks.iter().find(|mark| mark.at.index == mark_index);
    let state = match mark {
        Some(_) => api::DigestState::Known,
        None if applied_index < mark_index => api::DigestState::Pending,
        None => api::DigestState::Forgotten,
    };
    Some(api::CopyDigest {
        node_id: shared.node,
        replica_id: group.replica().0,
        state: state.into(),
        digest: mark.map(|mark| mark.digest.to_vec().into()).unwrap_or_default(),
        applied_index,
        ..api::CopyDigest::default()
    })
}

/// Leads seeds while this node leads the control group, and hears how others stand while one is under
/// way.
pub async fn keep(shared: Arc<Shared>, office: Arc<Office>) {
    let leader =
        Leader { shared: shared.clone(), office: office.clone(), under_way: Arc::default() };
    let mut asked = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(state) = shared.state().control.clone() else { continue };
        if state.seeds.is_empty() {
            continue;
        }
        if Instant::now() >= asked + words::ASK {
            asked = Instant::now();
            ask_around(&shared, &office);
        }
        leader.look(&state);
    }
}

fn ask_around(shared: &Arc<Shared>, office: &Arc<Office>) {
    for node in (1..=NODES).filter(|node| *node != shared.node) {
        let (shared, office) = (shared.clone(), office.clone());
        let _asking = Rt::spawn(async move {
            if let Some(Reply::Words(words)) = office.call(node, Request::Words, WORD).await {
                shared.seeding.words.heard(node, shared.clock.boottime(), words);
            }
        });
    }
}

struct Leader {
    shared: Arc<Shared>,
    office: Arc<Office>,
    /// Copies that a task is busy with.
    under_way: Arc<Mutex<BTreeSet<(DatabaseId, NodeId)>>>,
}

impl Leader {
    fn look(&self, state: &ControlState) {
        let Some(group) = self.shared.group(DatabaseId::CONTROL) else { return };
        let (Role::Leader, term) = group.role() else { return };
        let (reports, copies) = self.shared.seeding.words.reports(&self.shared);
        for seed in &state.seeds {
            let SeedRecord { database, node, replica, .. } = *seed;
            match next(state, &reports, &copies, seed) {
                Next::Wait => {}
                Next::Advance { outcome, voters } => {
                    let order = AdvanceSeed { database, node, replica, term, outcome, voters };
                    self.order(seed, Order::AdvanceSeed(order));
                }
                Next::Compare => self.compare(&reports, seed, term),
                Next::GiveUp(outcome) => self.order(seed, end_of(seed, term, false, outcome)),
            }
        }
    }

    fn order(&self, seed: &SeedRecord, order: Order) {
        let (office, shared) = (self.office.clone(), self.shared.clone());
        self.once(seed, async move {
            if let Some(group) = shared.group(DatabaseId::CONTROL) {
                office.order(&shared, &group, order).await;
            }
        });
    }

    /// Marks the log and compares; an answer that says nothing is asked for again.
    fn compare(&self, reports: &Reports, seed: &SeedRecord, term: u64) {
        let Some(active) = reports.active(seed.database()) else { return };
        let (office, shared, about) = (self.office.clone(), self.shared.clone(), seed.clone());
        self.once(seed, async move {
            let database = about.database();
            let answer = match active.0 == shared.node {
                true => office.verify(&shared, database).await,
                false => match office.call(active.0, Request::Verify(database), COMPARE).await {
                    Some(Reply::Verified(answer)) => answer,
                    _ => None,
                },
            };
            let Some(answer) = answer else { return };
            let Some((equal, outcome)) = verdict(&answer, active, &about) else { return };
            let replica = ReplicaId(about.replica);
            shared.trace_seed(database, SeedNote::Compared { replica, equal });
            if let Some(group) = shared.group(DatabaseId::CONTROL) {
                office.order(&shared, &group, end_of(&about, term, equal, outcome)).await;
            }
        });
    }

    fn once(&self, seed: &SeedRecord, work: impl Future<Output = ()> + Send + 'static) {
        let copy = (seed.database(), seed.node());
        if !lock(&self.under_way).insert(copy) {
            return;
        }
        let under_way = self.under_way.clone();
        let _working = Rt::spawn(async move {
            work.await;
            // What was recorded is seen at the next look, and not asked for twice.
            tokio::time::sleep(LOOK).await;
            lock(&under_way).remove(&copy);
        });
    }
}

fn end_of(seed: &SeedRecord, term: u64, succeeded: bool, outcome: String) -> Order {
    let SeedRecord { database, node, replica, .. } = *seed;
    Order::EndSeed(EndSeed { database, node, replica, term, succeeded, outcome })
}
