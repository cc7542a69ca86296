//! The network between nodes, as something that a test can cut: what goes to a node's listener for
//! other nodes passes through a relay here, and stands still there for as long as the node is cut off.
//!
//! Nothing is reset: a cable that was pulled tells nobody. Whatever the node sent and was sent is on
//! its way still, and arrives when the cut is healed, unless somebody has given the connection up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use testkit::cluster::LocalCluster;
use testkit::shape::DagFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The relays of a cluster; they end with the value.
pub struct Cuts {
    cut: BTreeMap<String, watch::Sender<bool>>,
}

impl Cuts {
    /// Places a relay before each node that runs, and gives the definition of a DAG whose nodes find
    /// each other through them.
    pub async fn before(cluster: &LocalCluster) -> anyhow::Result<(Self, PathBuf)> {
        let mut dag = DagFile::read(&cluster.dag_file())?;
        let mut cut = BTreeMap::new();
        for node in dag.nodes.iter_mut().chain(dag.witness.iter_mut()) {
            let behind = node.peers;
            let listener = TcpListener::bind((behind.ip(), 0)).await.context("place a relay")?;
            node.peers = listener.local_addr()?;
            let (sender, state) = watch::channel(false);
            tokio::spawn(accept(listener, behind, state));
            cut.insert(node.name.clone(), sender);
        }
        let file = cluster.folder().join("dag-through-relays.toml");
        std::fs::write(&file, toml::to_string(&dag)?)?;
        Ok((Self { cut }, file))
    }

    /// Nothing goes from other nodes to this one, and nothing comes back on what they opened.
    pub fn cut(&self, node: &str) {
        self.set(node, true);
    }

    /// What waited goes on.
    pub fn heal(&self, node: &str) {
        self.set(node, false);
    }

    fn set(&self, node: &str, cut: bool) {
        self.cut.get(node).expect("a node of the cluster").send_replace(cut);
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr, cut: watch::Receiver<bool>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(relay(near, behind, cut.clone()));
    }
}

/// Carries both directions until one of them ends.
async fn relay(near: TcpStream, behind: SocketAddr, mut cut: watch::Receiver<bool>) {
    // To whoever dials, a node that is cut off has never answered.
    if healed(&mut cut).await.is_none() {
        return;
    }
    let Ok(far) = TcpStream::connect(behind).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = carry(from_near, to_far, cut.clone()) => {}
        () = carry(from_far, to_near, cut) => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut bytes = vec![0; 256 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if healed(&mut cut).await.is_none() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until nothing is cut; none where the relays have ended.
async fn healed(cut: &mut watch::Receiver<bool>) -> Option<()> {
    cut.wait_for(|cut| !cut).await.ok().map(drop)
}
