//! Seeds: begun by an operator or by themselves, led by whoever leads the control group.
//!
//! Every phase is a record of the control log, so a new leader goes on where the last one was. What
//! this module knows beyond the records is only what nodes report: that a copy is built, and how
//! far it has caught up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::command::{AdvanceSeed, EndSeed, RemoveCopy, SeedCopy};
use active_manager::control::{
    ControlState, DatabaseRecord, Order, Outcome, Rejection, SeedRecord,
};
use active_manager::report::Reports;
use active_manager::seed::{self, FailedSince, SeedKind};
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use replication::Role;
use tokio::time::Instant;

use super::AdminServer;
use super::moves::named;
use super::orders::{Asker, unreadable};
use super::reforming::LostSince;
use super::seed_plan::{Next, next, settled_voters, verdict};
use super::show::known_copies;
use crate::clock;
use crate::node::{Member, Node};
use crate::reports::STALE;
use crate::status;

const LOOK: Duration = Duration::from_millis(500);
/// The same while a seed is under way.
const SOON: Duration = Duration::from_millis(100);
/// How long a comparison may take, and how long its mark may take to reach the new copy.
const COMPARE: Duration = Duration::from_secs(20);
const MARK_MS: u32 = 10_000;
impl AdminServer {
    pub(super) async fn seed_copy(
        &self,
        request: api::SeedCopyRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::SeedCopyResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        let database = named(&office.state, &request.database_name)?.clone();
        let kind = match request.kind() {
            api::SeedKind::Seed => SeedKind::Seed,
            api::SeedKind::Reseed => SeedKind::Reseed,
            api::SeedKind::Add => SeedKind::Add,
            api::SeedKind::Unspecified => return Err(invalid("the request names no kind", "kind")),
        };
        let order = SeedCopy {
            request_id: request.request_id,
            database: database.database,
            node: request.node_id,
            from: request.from_node,
            limit: request.bytes_per_second,
            adds: kind == SeedKind::Add,
            path: request.path,
            whole: request.whole,
        };
        // What was begun by the same request is not checked again: it changed what is checked.
        let repeated = repeated(&office.state, &order);
        if !repeated {
            self.ask_all(member).await;
            let (node, from) = (NodeId(order.node), (order.from != 0).then_some(order.from));
            let reports = self.reports(member, STALE);
            let from = from.map(NodeId);
            let checks = seed::check_seed(&office.state, &reports, &database, node, kind, from);
            refuse(&office.state, &database, node, &checks)?;
            if !order.path.is_empty() {
                self.check_path_at(member, node, &database, &order.path, true).await?;
            }
        }
        match self.order(Order::SeedCopy(order), &asker).await? {
            Outcome::OperationBegun(begun) => {
                Ok(api::SeedCopyResponse { operation: begun.operation })
            }
            _ => Err(unreadable()),
        }
    }

    pub(super) async fn remove_copy(
        &self,
        request: api::RemoveCopyRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::RemoveCopyResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        let database = named(&office.state, &request.database_name)?.clone();
        self.ask_all(member).await;
        let node = NodeId(request.node_id);
        let reports = self.reports(member, STALE);
        let checks = seed::check_removal(&office.state, &reports, &database, node);
        refuse(&office.state, &database, node, &checks)?;
        let active = reports.active(database.id());
        let copies = known_copies(&self.node);
        let voters = active.and_then(|active| settled_voters(&copies, database.id(), active));
        let voters = voters.ok_or_else(|| {
            let text = "the group changes its voters; repeat this in a moment";
            Problem::new(Reason::CheckFailed, text).check("voters-settled")
        })?;
        let order = RemoveCopy { database: database.database, node: node.0, voters };
        self.order(Order::RemoveCopy(order), &asker).await?;
        Ok(api::RemoveCopyResponse {})
    }
}

fn invalid(text: &str, check: &'static str) -> Problem {
    Problem::new(Reason::InvalidRequest, text).check(check)
}

/// Whether the seed that is asked for runs already; then the control log answers.
fn repeated(state: &ControlState, order: &SeedCopy) -> bool {
    let running = state.seed(DatabaseId(order.database), NodeId(order.node));
    running.is_some_and(|seed| {
        let adds = seed.replaces == 0;
        let same_path = order.path.is_empty() || seed.path == order.path;
        let same_way = seed.whole == order.whole;
        (seed.from, seed.limit, adds) == (order.from, order.limit, order.adds)
            && same_path
            && same_way
    })
}

pub(super) fn refuse(
    state: &ControlState,
    database: &DatabaseRecord,
    node: NodeId,
    checks: &[active_manager::movement::Check],
) -> Result<(), Problem> {
    let on = state.node(node).map_or_else(|| node.to_string(), |known| known.name.clone());
    match seed::refusal(checks, &format!("{}@{on}", database.name)) {
        Some(refusal) => Err(status::control(&Rejection::Check(refusal))),
        None => Ok(()),
    }
}

/// Leads seeds while this node leads the control group, until it is stopped.
pub async fn lead(node: Arc<Node>) {
    let mut leader = Leader {
        admin: AdminServer::of(node.clone()),
        under_way: Arc::default(),
        failed: FailedSince::new(),
        lost: LostSince::new(),
    };
    let mut control = node.control_changes();
    while !node.stopping.is_cancelled() {
        if leader.look().is_none() {
            leader.failed.clear();
            leader.lost.clear();
        }
        let pause = if node.is_seeding() { SOON } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = control.changed() => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

struct Leader {
    admin: AdminServer,
    /// Copies that a task is busy with.
    under_way: Arc<Mutex<BTreeSet<(DatabaseId, NodeId)>>>,
    /// By the clock of leases.
    failed: FailedSince,
    /// By the same.
    lost: LostSince,
}

impl Leader {
    /// Nothing where this node does not lead.
    fn look(&mut self) -> Option<()> {
        let node = self.admin.node.clone();
        let member = node.member().ok()?;
        let (Role::Leader, term) = node.group(DatabaseId::CONTROL).ok()?.role() else {
            return None;
        };
        let state = node.control()?;
        let reports = self.admin.reports(member, STALE);
        let copies = known_copies(&node);
        for seed in &state.seeds {
            match next(&state, &reports, &copies, seed) {
                Next::Wait => {}
                Next::Advance { outcome, voters } => self.advance(seed, term, outcome, voters),
                Next::Compare => self.compare(&state, &reports, seed, term),
                Next::GiveUp(outcome) => self.end(seed, term, false, outcome),
            }
        }
        self.begin_by_themselves(&state, &reports, &copies);
        self.reform(&state, &reports, &copies, term);
        Some(())
    }

    fn advance(&self, seed: &SeedRecord, term: u64, outcome: String, voters: Vec<u64>) {
        let SeedRecord { database, node, replica, .. } = *seed;
        let order = AdvanceSeed { database, node, replica, term, outcome, voters };
        self.order(seed, Order::AdvanceSeed(order), String::new());
    }

    fn end(&self, seed: &SeedRecord, term: u64, succeeded: bool, outcome: String) {
        let order = end_of(seed, term, succeeded, outcome);
        self.order(seed, order, String::new());
    }

    fn order(&self, seed: &SeedRecord, order: Order, reason: String) {
        let admin = self.admin.clone();
        let asker = own_word(&admin.node, reason);
        self.once((seed.database(), seed.node()), async move {
            if let Err(problem) = admin.order(order, &asker).await {
                tracing::debug!(problem = problem.message, "a seed's next step was not recorded");
            }
        });
    }

    /// Marks the log and compares; an answer that says nothing is asked for again.
    fn compare(&self, state: &ControlState, reports: &Reports, seed: &SeedRecord, term: u64) {
        let Some(active) = reports.active(seed.database()) else { return };
        let Some(record) = state.database(seed.database()) else { return };
        let (admin, seed, name) = (self.admin.clone(), seed.clone(), record.name.clone());
        self.once((seed.database(), seed.node()), async move {
            let Ok(member) = admin.node.member() else { return };
            let Some(answer) = admin.verify_at(member, active, name).await else { return };
            let Some((equal, outcome)) = verdict(&answer, active, &seed) else { return };
            let asker = own_word(&admin.node, String::new());
            if let Err(problem) = admin.order(end_of(&seed, term, equal, outcome), &asker).await {
                tracing::debug!(problem = problem.message, "a seed's end was not recorded");
            }
        });
    }

    /// Copies that have been failed for a while are built anew.
    fn begin_by_themselves(
        &mut self,
        state: &ControlState,
        reports: &Reports,
        copies: &[api::DatabaseCopy],
    ) {
        let now = clock::boottime().0;
        let failed: BTreeSet<_> = seed::failed_copies(reports).collect();
        self.failed.retain(|copy, _| failed.contains(copy));
        for copy in failed {
            self.failed.entry(copy).or_insert(now);
        }
        for (database, node) in seed::due_by_itself(state, reports, &self.failed, now) {
            let line =
                copies.iter().find(|copy| copy.database_id == database.0 && copy.node_id == node.0);
            let why = line.map(|line| line.message.clone()).unwrap_or_default();
            tracing::info!(db = %database, peer = %node, why, "a failed copy is built anew");
            let order = SeedCopy {
                request_id: uuid::Uuid::new_v4().to_string(),
                database: database.0,
                node: node.0,
                ..SeedCopy::default()
            };
            let record = SeedRecord { database: database.0, node: node.0, ..Default::default() };
            self.order(&record, Order::SeedCopy(order), format!("the copy is Failed: {why}"));
        }
    }

    /// Databases that lost their majority, and nothing else, go on.
    fn reform(
        &mut self,
        state: &ControlState,
        reports: &Reports,
        copies: &[api::DatabaseCopy],
        term: u64,
    ) {
        let anybody = NodeId(0);
        for order in AdminServer::served(state, copies, term) {
            let Order::EndReform(end) = &order else { continue };
            let about =
                SeedRecord { database: end.database, node: anybody.0, ..SeedRecord::default() };
            self.order(&about, order, String::new());
        }
        let now = clock::boottime().0;
        for due in AdminServer::lossless(state, reports, copies, &mut self.lost, now) {
            let (admin, database) = (self.admin.clone(), due.0.id());
            let asker = own_word(&admin.node, "the majority of its voters is lost".into());
            self.once((database, anybody), async move {
                admin.reform_by_itself(due, term, asker).await;
            });
        }
    }

    fn once(&self, copy: (DatabaseId, NodeId), work: impl Future<Output = ()> + Send + 'static) {
        if !self.under_way.lock().expect(UNPOISONED).insert(copy) {
            return;
        }
        let under_way = self.under_way.clone();
        tokio::spawn(async move {
            work.await;
            // What was recorded is seen at the next look, and not asked for twice.
            tokio::time::sleep(SOON).await;
            under_way.lock().expect(UNPOISONED).remove(&copy);
        });
    }
}

fn own_word(node: &Node, reason: String) -> Asker {
    Asker { who: format!("node {}", node.id()), from: String::new(), reason }
}

fn end_of(seed: &SeedRecord, term: u64, succeeded: bool, outcome: String) -> Order {
    let SeedRecord { database, node, replica, .. } = *seed;
    Order::EndSeed(EndSeed { database, node, replica, term, succeeded, outcome })
}

impl AdminServer {
    /// Compares all copies of a database, asked of the node where it is active.
    async fn verify_at(
        &self,
        member: &Member,
        active: NodeId,
        database_name: String,
    ) -> Option<api::VerifyDatabaseResponse> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let (wait_ms, deep) = (MARK_MS, false);
        let request = api::VerifyDatabaseRequest { database_name, wait_ms, request_id, deep };
        if active == self.node.id() {
            return self.verify(request, Instant::now() + COMPARE).await.ok();
        }
        let mut client = self.client(member, active).ok()?;
        let mut request = tonic::Request::new(request);
        request.set_timeout(COMPARE);
        client.verify_database(request).await.ok().map(tonic::Response::into_inner)
    }
}

const UNPOISONED: &str = "no holder of this lock panics";
