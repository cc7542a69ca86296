//! What the other nodes say of their own copies, asked for once a second.
//!
//! Any node has to answer `status` by itself, without a quorum, so each keeps the last word of each
//! other, with its age. Nothing is decided by these reports: they are shown, and they are hints for
//! clients on where a database may be active.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::admin::v1::{
    CopyStatus, DatabaseCopy, GateStatus, ListCopiesRequest, ListCopiesResponse,
};
use dag_types::{DagId, DatabaseId, Millis, NodeId};
use tonic::transport::Channel;

use crate::clock;
use crate::tls::dial::Dial;

/// How often the others are asked.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The same while a copy is built anywhere.
pub const SEEDING: Duration = Duration::from_millis(200);
/// A node that did not answer for so long counts as not reachable.
pub const STALE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_millis(900);

/// The last word of each other node.
#[derive(Debug, Default)]
pub struct Reports {
    by_node: Mutex<BTreeMap<NodeId, Report>>,
}

/// What a node said of its own copies.
#[derive(Debug, Clone)]
pub struct Report {
    /// When.
    pub at: Instant,
    /// Its copies.
    pub copies: Vec<DatabaseCopy>,
    /// Its gate.
    pub gate: Option<GateStatus>,
    /// Itself; none where its version does not tell.
    pub facts: Option<Facts>,
}

/// What a node said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The version of its program.
    pub version: String,
    /// A listener is open to other machines without TLS.
    pub insecure: bool,
    /// Its volume has less free space than its reserve.
    pub disk_low: bool,
    /// How far its wall clock surely is from this node's.
    pub clock_skew: Millis,
}

/// What a node answered, and when it was asked: the answer was made some time in between.
#[derive(Debug, Clone, Default)]
pub struct Word {
    /// Its copies, its gate, itself.
    pub answer: ListCopiesResponse,
    /// By this node's wall clock.
    pub asked: Millis,
    /// By this node's wall clock.
    pub heard: Millis,
}

impl Word {
    /// Asks, by what `call` does.
    pub async fn of<E>(
        call: impl Future<Output = Result<tonic::Response<ListCopiesResponse>, E>>,
    ) -> Option<Self> {
        let asked = clock::wall();
        let answer = call.await.ok()?.into_inner();
        Some(Self { answer, asked, heard: clock::wall() })
    }

    fn facts(&self) -> Option<Facts> {
        let said = self.answer.facts.as_ref()?;
        Some(Facts {
            version: said.version.clone(),
            insecure: said.insecure,
            disk_low: said.disk_low,
            clock_skew: surely_off(said.time_ms, self.asked.0, self.heard.0),
        })
    }
}

/// How far a clock is off at least that said this time at some moment between two of ours.
fn surely_off(said: u64, asked: u64, heard: u64) -> Millis {
    Millis(asked.saturating_sub(said).max(said.saturating_sub(heard)))
}

impl Report {
    /// Milliseconds since then.
    pub fn age_ms(&self) -> u64 {
        self.at.elapsed().as_millis() as u64
    }

    /// Whether the node still counts as reachable.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < STALE
    }
}

impl Reports {
    /// Keeps a node's word.
    pub fn heard(&self, node: NodeId, word: Word) {
        let facts = word.facts();
        let ListCopiesResponse { mut copies, gate, .. } = word.answer;
        copies.retain(|copy| copy.node_id == node.0);
        let gate = gate.filter(|gate| gate.node_id == node.0);
        let report = Report { at: Instant::now(), copies, gate, facts };
        self.by_node.lock().expect(UNPOISONED).insert(node, report);
    }

    /// A node's last word.
    pub fn of(&self, node: NodeId) -> Option<Report> {
        self.by_node.lock().expect(UNPOISONED).get(&node).cloned()
    }

    /// The node that said last, in the greatest term, that it has a database mounted.
    pub fn active(&self, database: DatabaseId) -> Option<NodeId> {
        let reports = self.by_node.lock().expect(UNPOISONED);
        let mounted =
            reports.iter().filter(|(_, report)| report.is_fresh()).flat_map(|(node, report)| {
                let here = report.copies.iter().filter(|copy| {
                    copy.database_id == database.0 && copy.status() == CopyStatus::Mounted
                });
                here.map(|copy| (copy.generation, copy.term, *node))
            });
        mounted.max().map(|(_, _, node)| node)
    }
}

/// Connections to the admin listeners of the others.
pub struct AdminChannels {
    dial: Dial,
    channels: BTreeMap<NodeId, Known>,
}

/// A channel, and what it was made for.
struct Known {
    address: String,
    generation: u64,
    channel: Channel,
}

impl AdminChannels {
    /// None yet.
    pub fn new(dial: Dial) -> Self {
        Self { dial, channels: BTreeMap::new() }
    }

    /// Asks a node of this DAG for its own copies. Whoever has its address now and is of another
    /// DAG is not heard.
    pub async fn ask(&mut self, node: NodeId, address: &str, dag: DagId) -> Option<Word> {
        let mut client = self.client(node, address)?;
        let dag_id = dag.0.to_vec().into();
        let request = ListCopiesRequest { node_id: node.0, dag_id, ..ListCopiesRequest::default() };
        let asking = Word::of(client.list_copies(request));
        tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
    }

    fn client(&mut self, node: NodeId, address: &str) -> Option<DagAdminServiceClient<Channel>> {
        let generation = self.dial.generation();
        let fits = |known: &&Known| known.address == address && known.generation == generation;
        let channel = match self.channels.get(&node).filter(fits) {
            Some(known) => known.channel.clone(),
            None => {
                let endpoint = self.dial.endpoint(&self.dial.url(address)).ok()?;
                let channel = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true).connect_lazy();
                let address = address.to_owned();
                self.channels.insert(node, Known { address, generation, channel: channel.clone() });
                channel
            }
        };
        Some(DagAdminServiceClient::new(channel))
    }
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node says that has these databases mounted, in these terms.
    fn mounted(node: u64, databases: &[(u64, u64)]) -> Word {
        let status = CopyStatus::Mounted.into();
        let copy = |(database_id, term): &(u64, u64)| DatabaseCopy {
            database_id: *database_id,
            node_id: node,
            term: *term,
            status,
            ..DatabaseCopy::default()
        };
        let copies = databases.iter().map(copy).collect();
        Word { answer: ListCopiesResponse { copies, ..Default::default() }, ..Word::default() }
    }

    #[test]
    fn what_a_question_took_is_not_taken_for_a_wrong_clock() {
        for (said, off) in [(995, 5), (1000, 0), (1600, 0), (1700, 0), (1750, 50)] {
            assert_eq!(surely_off(said, 1000, 1700), Millis(off), "{said}");
        }
    }

    #[test]
    fn a_node_speaks_for_itself_alone() {
        let reports = Reports::default();
        let word = mounted(1, &[(16, 5)]);
        reports.heard(NodeId(2), word);
        assert_eq!(reports.active(DatabaseId(16)), None);
    }

    #[test]
    fn of_two_that_say_they_are_active_the_greater_term_counts() {
        let reports = Reports::default();
        assert_eq!(reports.active(DatabaseId(16)), None);
        reports.heard(NodeId(1), mounted(1, &[(16, 5), (17, 1)]));
        reports.heard(NodeId(2), mounted(2, &[(16, 6)]));
        assert_eq!(reports.active(DatabaseId(16)), Some(NodeId(2)));
        assert_eq!(reports.active(DatabaseId(17)), Some(NodeId(1)));
        reports.heard(NodeId(2), mounted(2, &[]));
        assert_eq!(reports.active(DatabaseId(16)), Some(NodeId(1)));
    }
}
