//! From the SIGKILL of the active node to the first acknowledgement of a write that was sent after
//! it. Writes are sent to every surviving node every ten milliseconds, as front ends that know no
//! better would.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::mailbox::v1::{DeliverHeader, DeliverMessageRequest, Recipient};
use serde::{Deserialize, Serialize};
use testkit::Lifetime;
use testkit::mail::Pool;
use testkit::shape::Timeouts;
use tokio::sync::mpsc;
use tonic::Request;

use crate::arena::Arena;
use crate::report::{Line, Report};

const EVERY: Duration = Duration::from_millis(10);
const GIVE_UP: Duration = Duration::from_secs(30);

/// The gaps of one set of timeouts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gaps {
    /// `default` or `fast`.
    pub timeouts: String,
    /// Kills.
    pub trials: usize,
    /// Milliseconds.
    pub median_ms: u64,
    /// Milliseconds.
    pub max_ms: u64,
    /// All of them, ascending.
    pub all_ms: Vec<u64>,
}

/// Kills the active node so many times.
pub async fn run(
    folder: &Path,
    trials: u32,
    timeouts: Timeouts,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut arena = Arena::up(folder, "three-node", timeouts, 1, 1).await?;
    let (database, mailbox) =
        (arena.databases[0].database, arena.databases[0].mailboxes[0].clone());
    let mut all_ms = Vec::new();
    for trial in 0..trials {
        let victim = arena.active(database).await?;
        let gap = one(&mut arena, database, &mailbox, &victim, trial).await?;
        all_ms.push(gap.as_millis() as u64);
        arena.cluster.start(&victim, Lifetime::WithParent).await?;
        arena.dagctl(&["status", "--wait-healthy", "--timeout", "60"])?;
    }
    arena.verify()?;
    all_ms.sort_unstable();
    report.add(Line::Gap(Gaps {
        timeouts: timeouts.name().to_owned(),
        trials: all_ms.len(),
        median_ms: all_ms[all_ms.len() / 2],
        max_ms: all_ms[all_ms.len() - 1],
        all_ms,
    }))
}

async fn one(
    arena: &mut Arena,
    database: u64,
    mailbox: &Recipient,
    victim: &str,
    trial: u32,
) -> anyhow::Result<Duration> {
    let survivors = arena.cluster.names().into_iter().filter(|name| name != victim);
    let mut services = Vec::new();
    for name in survivors {
        services.push(MailboxServiceClient::new(arena.channel(&name).await?));
    }
    let pool = Pool::new(1, 4_096);
    arena.cluster.kill(victim)?;
    let killed = Instant::now();
    let (first, mut acknowledged) = mpsc::unbounded_channel();
    for count in 0_u64.. {
        for (place, service) in services.iter().enumerate() {
            let header = DeliverHeader {
                delivery_id: format!("gap-{trial}-{count}-{place}"),
                database_id: database,
                recipients: vec![mailbox.clone()],
                size: 4_096,
                ..DeliverHeader::default()
            };
            let content = pool.mail(u64::from(trial) << 32 | count << 8 | place as u64).into();
            let mut request = Request::new(DeliverMessageRequest { header: Some(header), content });
            request.set_timeout(Duration::from_secs(2));
            let (mut service, first) = (service.clone(), first.clone());
            tokio::spawn(async move {
                if service.deliver_message(request).await.is_ok() {
                    let _ = first.send(Instant::now());
                }
            });
        }
        if let Ok(Some(at)) = tokio::time::timeout(EVERY, acknowledged.recv()).await {
            return Ok(at - killed);
        }
        ensure!(killed.elapsed() < GIVE_UP, "nobody took over within {GIVE_UP:?}");
    }
    unreachable!("the loop ends by an answer or by giving up")
}
