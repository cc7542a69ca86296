//! Many databases on three nodes: what they cost while nobody uses them, and how fast they come
//! back.

use std::path::Path;
use std::time::{Duration, Instant};

use dag_client::Delivery;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use testkit::Lifetime;
use testkit::mail::Pool;
use testkit::shape::Timeouts;

use crate::arena::Arena;
use crate::report::{Line, Report};

/// What so many databases cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hundred {
    /// How many.
    pub databases: usize,
    /// From the first creation until all are mounted and have a mailbox.
    pub create_seconds: f64,
    /// One mail into each.
    pub write_seconds: f64,
    /// Processor cores of all nodes together while nothing is asked of them.
    pub idle_cores: f64,
    /// Memory of all nodes that is no file's.
    pub anonymous_mib: f64,
    /// All memory of all nodes.
    pub resident_mib: f64,
    /// Threads of all nodes.
    pub threads: u64,
    /// Open files of all nodes.
    pub files: u64,
    /// KiB on disk for each copy.
    pub disk_kib_per_copy: f64,
    /// From the start of all killed nodes until all databases are mounted again.
    pub reopen_seconds: f64,
    /// One mail into each after that.
    pub write_again_seconds: f64,
}

/// Measures so many databases.
pub async fn run(
    folder: &Path,
    databases: usize,
    idle: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut arena = Arena::up(folder, "many-databases", Timeouts::Default, databases, 1).await?;
    let create_seconds = begin.elapsed().as_secs_f64();
    let write_seconds = write_all(&arena, 1).await?;
    // What the writes left behind is flushed first.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = arena.cluster.figures();
    tokio::time::sleep(idle).await;
    let after = arena.cluster.figures();
    let copies = (databases * arena.cluster.nodes().len()) as f64;
    let disk_kib_per_copy = disk_bytes(arena.cluster.folder())? as f64 / 1_024.0 / copies;
    let names = arena.cluster.names();
    arena.cluster.kill_all(&names)?;
    let begin = Instant::now();
    arena.cluster.start_all(&names, Lifetime::WithParent).await?;
    arena.wait_mounted(databases, Duration::from_secs(120)).await?;
    let reopen_seconds = begin.elapsed().as_secs_f64();
    let write_again_seconds = write_all(&arena, 2).await?;
    arena.dagctl(&["status", "--wait-healthy", "--timeout", "120"])?;
    arena.verify()?;
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    report.add(Line::Databases(Hundred {
        databases,
        create_seconds,
        write_seconds,
        idle_cores: (after - before).cpu.as_secs_f64() / idle.as_secs_f64(),
        anonymous_mib: mib(after.anonymous_bytes),
        resident_mib: mib(after.resident_bytes),
        threads: after.threads,
        files: after.files,
        disk_kib_per_copy,
        reopen_seconds,
        write_again_seconds,
    }))
}

/// Delivers one mail into each database, sixteen at the same time.
pub async fn write_all(arena: &Arena, round: u64) -> anyhow::Result<f64> {
    let (client, pool) = (arena.client()?, Pool::new(1, 4_096));
    let begin = Instant::now();
    let deliveries = arena.databases.iter().map(|target| {
        let (client, address) = (client.clone(), target.mailboxes[0].address.clone());
        let mail = pool.mail(round << 32 | target.database);
        async move {
            let id = format!("hundred-{round}-{address}");
            let mut report = client.deliver(Delivery::new(id, [address], mail)).await?;
            report.recipients.remove(0).result.map(|_| ())
        }
    });
    futures::stream::iter(deliveries).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Blocks on disk, not lengths of files.
fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file may go while we look.
        let Ok(facts) = entry.metadata() else { continue };
        sum += if facts.is_dir() { disk_bytes(&entry.path())? } else { facts.blocks() * 512 };
    }
    Ok(sum)
}
