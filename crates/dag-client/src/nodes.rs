//! The nodes known, one channel to each, and where each database is believed to be active.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dag_types::DatabaseId;
use tonic::transport::{Channel, Endpoint};

use crate::client::InvalidEndpoint;
use crate::options::Options;
use crate::tls::Tls;

/// A DAG has tens of nodes; more endpoints than this come from hints that make no sense.
const NODES_MAX: usize = 256;
/// Of an HTTP/2 frame that a node may send: a mail of every day in one of them.
const FRAME_BYTES: u32 = 256 << 10;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Any node.
    Anyone,
    /// The node where this database is active.
    Active(DatabaseId),
}

#[derive(Clone)]
pub(crate) struct Node {
    number: usize,
    pub(crate) endpoint: Arc<str>,
    pub(crate) channel: Channel,
}

pub(crate) struct Nodes {
    connect: Duration,
    tls: Option<Tls>,
    state: Mutex<State>,
}

struct State {
    nodes: Vec<Node>,
    active: HashMap<DatabaseId, usize>,
    /// Who is asked when nothing better is known.
    favourite: usize,
}

impl Nodes {
    pub(crate) fn new(
        endpoints: impl IntoIterator<Item = String>,
        options: &Options,
    ) -> Result<Self, InvalidEndpoint> {
        let state = State { nodes: Vec::new(), active: HashMap::new(), favourite: 0 };
        let nodes =
            Self { connect: options.connect, tls: options.tls.clone(), state: Mutex::new(state) };
        for endpoint in endpoints {
            nodes.learn(&endpoint)?;
        }
        let empty = nodes.state().nodes.is_empty();
        if empty { Err(InvalidEndpoint::None) } else { Ok(nodes) }
    }

    pub(crate) fn choose(&self, whom: Whom) -> Node {
        let state = self.state();
        let active = match whom {
            Whom::Anyone => None,
            Whom::Active(database) => state.active.get(&database),
        };
        state.nodes[active.copied().unwrap_or(state.favourite)].clone()
    }

    /// How many are known.
    pub(crate) fn count(&self) -> usize {
        self.state().nodes.len()
    }

    /// A node answered: it is asked first from now on.
    pub(crate) fn worked(&self, whom: Whom, node: &Node) {
        let mut state = self.state();
        state.favourite = node.number;
        if let Whom::Active(database) = whom {
            state.active.insert(database, node.number);
        }
    }

    /// A node did not answer, or is not the one: the next is asked.
    pub(crate) fn failed(&self, whom: Whom, node: &Node) {
        let mut state = self.state();
        if let Whom::Active(database) = whom
            && state.active.get(&database) == Some(&node.number)
        {
            state.active.remove(&database);
        }
        if state.favourite == node.number {
            state.favourite = (node.number + 1) % state.nodes.len();
        }
    }

    /// Somebody says where a database is active. `None` where that is no endpoint.
    pub(crate) fn hint(&self, database: DatabaseId, endpoint: &str) -> Option<Node> {
        let node = self.learn(endpoint).ok()?;
        self.state().active.insert(database, node.number);
        Some(node)
    }

    fn learn(&self, endpoint: &str) -> Result<Node, InvalidEndpoint> {
        let mut state = self.state();
        if let Some(node) = state.nodes.iter().find(|node| &*node.endpoint == endpoint) {
            return Ok(node.clone());
        }
        let invalid = || InvalidEndpoint::Malformed { endpoint: endpoint.to_owned() };
        if state.nodes.len() >= NODES_MAX || !endpoint.contains("://") {
            return Err(invalid());
        }
        let channel = self
            .secure(Endpoint::from_shared(endpoint.to_owned()).map_err(|_| invalid())?)?
            .connect_timeout(self.connect)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(1))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .max_frame_size(FRAME_BYTES)
            .connect_lazy();
        let node = Node { number: state.nodes.len(), endpoint: endpoint.into(), channel };
        state.nodes.push(node.clone());
        Ok(node)
    }

    /// What was meant to be private is never sent where it is not.
    fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, InvalidEndpoint> {
        let name = || endpoint.uri().to_string().trim_end_matches('/').to_owned();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        if endpoint.uri().scheme_str() != Some(scheme) {
            return Err(InvalidEndpoint::Scheme { endpoint: name(), scheme });
        }
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let certificates = |problem| InvalidEndpoint::Certificates { endpoint: name(), problem };
        tls.secure(endpoint.clone()).map_err(certificates)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}
