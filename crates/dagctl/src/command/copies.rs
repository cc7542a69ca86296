//! `dagctl copies`: every copy of every database, with its two queues.

use dag_api::admin::v1::{CopyStatus, DatabaseCopy};
use serde::Serialize;

use crate::admin::Admin;
use crate::command::seed::SeedLine;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{Names, suggestion};
use crate::output::{Form, span, table};

/// A copy's line.
#[derive(Debug, Serialize)]
pub struct CopyLine {
    /// The database's name.
    pub database: String,
    /// The node's name.
    pub node: String,
    /// One of Exchange's words: Mounted, Healthy, ...
    pub status: &'static str,
    /// Whether it votes.
    pub voter: bool,
    /// 1 is preferred.
    pub activation_preference: u32,
    /// Entries that the active copy has and this one has not; null where nobody knows.
    pub copy_queue_length: Option<u64>,
    /// Entries that it has and has not applied; null where nobody knows.
    pub replay_queue_length: Option<u64>,
    /// The last entry of its log.
    pub last_log_index: u64,
    /// The last entry in its state.
    pub applied_index: u64,
    /// Raft's term there.
    pub term: u64,
    /// Which incarnation of the group.
    pub generation: u32,
    /// Its Raft id.
    pub replica_id: u64,
    /// How old the line is.
    pub age_ms: u64,
    /// Why it is not Mounted or Healthy.
    pub message: String,
    /// The new copy that is built here; null: none.
    pub seed: Option<SeedLine>,
    /// How far its node has read it through; null: nobody knows.
    pub scrub: Option<ScrubLine>,
}

/// How far a copy was read through.
#[derive(Debug, Serialize)]
pub struct ScrubLine {
    /// A pass is under way.
    pub reading: bool,
    /// Bytes of the pass under way.
    pub read_bytes: u64,
    /// When the last pass ended that found nothing, since 1970; null: none since the node started.
    pub sound_at_ms: Option<u64>,
}

/// Shows the copies of one database, on one node, or all.
pub async fn run(
    database: Option<String>,
    node: Option<String>,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    let status = admin.get_status().await?;
    let names = Names::of(&status);
    let node = node.map(|node| names.number(&node)).transpose()?;
    if let Some(wanted) = &database
        && !status.databases.iter().any(|known| known.name == *wanted)
    {
        let known: Vec<&str> = status.databases.iter().map(|known| known.name.as_str()).collect();
        return Err(Failure::new(Exit::Failed, format!("There is no database {wanted}."))
            .why(suggestion(wanted, &known, "databases"))
            .next("dagctl db list"));
    }
    let wanted = |copy: &&DatabaseCopy| {
        database.as_ref().is_none_or(|name| *name == copy.database_name)
            && node.is_none_or(|node| node == copy.node_id)
    };
    let lines: Vec<_> =
        status.copies.iter().filter(wanted).map(|copy| line(copy, &names)).collect();
    form.print(&lines, |lines| show(lines))
}

/// A copy as people see it.
pub fn line(copy: &DatabaseCopy, names: &Names) -> CopyLine {
    let queue = |length: u64| copy.queues_known.then_some(length);
    CopyLine {
        database: copy.database_name.clone(),
        node: names.name(copy.node_id),
        status: status_name(copy.status()),
        voter: copy.voter,
        activation_preference: copy.activation_preference,
        copy_queue_length: queue(copy.copy_queue_length),
        replay_queue_length: queue(copy.replay_queue_length),
        last_log_index: copy.last_log_index,
        applied_index: copy.applied_index,
        term: copy.term,
        generation: copy.generation,
        replica_id: copy.replica_id,
        age_ms: copy.age_ms,
        message: copy.message.clone(),
        seed: copy.seed.as_ref().map(|seed| SeedLine::of(seed, names)),
        scrub: copy.scrub.as_ref().map(|scrub| ScrubLine {
            reading: scrub.reading,
            read_bytes: scrub.read_bytes,
            sound_at_ms: (scrub.sound_at_ms != 0).then_some(scrub.sound_at_ms),
        }),
    }
}

/// Exchange's word for a copy's state.
pub fn status_name(status: CopyStatus) -> &'static str {
    match status {
        CopyStatus::Unspecified => "Unknown",
        CopyStatus::Mounted => "Mounted",
        CopyStatus::Dismounted => "Dismounted",
        CopyStatus::Mounting => "Mounting",
        CopyStatus::Dismounting => "Dismounting",
        CopyStatus::Healthy => "Healthy",
        CopyStatus::Initializing => "Initializing",
        CopyStatus::Resynchronizing => "Resynchronizing",
        CopyStatus::Seeding => "Seeding",
        CopyStatus::SeedingSource => "SeedingSource",
        CopyStatus::Suspended => "Suspended",
        CopyStatus::Failed => "Failed",
        CopyStatus::FailedAndSuspended => "FailedAndSuspended",
        CopyStatus::DisconnectedAndHealthy => "DisconnectedAndHealthy",
        CopyStatus::DisconnectedAndResynchronizing => "DisconnectedAndResynchronizing",
        CopyStatus::ServiceDown => "ServiceDown",
    }
}

/// Copies as a table.
pub fn show(lines: &[CopyLine]) -> String {
    let queue = |length: Option<u64>| length.map_or("?".to_owned(), |length| length.to_string());
    let rows = lines.iter().map(|line| {
        [
            format!("{}\\{}", line.database, line.node),
            line.status.to_owned(),
            if line.voter { "voter" } else { "learner" }.to_owned(),
            line.activation_preference.to_string(),
            queue(line.copy_queue_length),
            queue(line.replay_queue_length),
            line.applied_index.to_string(),
            span(line.age_ms),
            line.message.clone(),
        ]
    });
    let heads = ["COPY", "STATUS", "ROLE", "PREF", "COPYQ", "REPLAYQ", "APPLIED", "AGE", "MESSAGE"];
    table(heads, rows)
}
