//! `dagctl copy seed|reseed|add|remove`: copies are built from other copies, by the nodes themselves.
//!
//! What is begun goes on without this program: `--follow` only watches, and interrupting it harms
//! nothing.

use std::io::Write as _;
use std::time::Duration;

use dag_api::admin::v1::{
    ListOperationsRequest, Operation, RemoveCopyRequest, SeedCopyRequest, SeedKind, SeedPhase,
    SeedProgress, SeedWay,
};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::{Form, bytes, span};

const ATTEMPT: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(100);
/// Columns of the bar.
const BAR: usize = 30;

/// What can be done about copies as a whole.
#[derive(Debug, clap::Subcommand)]
pub enum Build {
    /// Fill a copy that failed or is missing from another one
    Seed(SeedArgs),
    /// Build a copy anew, sound or not; the old one goes on until the new one is built
    Reseed(SeedArgs),
    /// Make one copy more (Exchange: Add-MailboxDatabaseCopy)
    Add(SeedArgs),
    /// Take a copy away; its node keeps it in its trash for seven days
    Remove {
        /// The copy, as DATABASE@NODE
        copy: CopyName,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Which copy, and how.
#[derive(Debug, clap::Args)]
pub struct SeedArgs {
    /// The copy, as DATABASE@NODE
    copy: CopyName,
    /// From the copy on this node [default: a passive copy of the same site]
    #[arg(long)]
    from: Option<String>,
    /// At most so much, such as 100MB/s
    #[arg(long)]
    limit: Option<Rate>,
    /// In this folder of the node, which is the database's from then on
    #[arg(long)]
    path: Option<String>,
    /// Send everything, also what the old copy there has and could give
    #[arg(long)]
    whole: bool,
    /// Show how it goes on until it is over; interrupting this harms nothing
    #[arg(short, long)]
    follow: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// A copy by the names of its database and its node.
#[derive(Debug, Clone)]
pub struct CopyName {
    database: String,
    node: String,
}

impl std::str::FromStr for CopyName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('@').filter(|(db, node)| !db.is_empty() && !node.is_empty());
        let (database, node) = parts.ok_or("a copy is written DATABASE@NODE, such as DB1@n2")?;
        Ok(Self { database: database.to_owned(), node: node.to_owned() })
    }
}

impl std::fmt::Display for CopyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.database, self.node)
    }
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl std::str::FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let amount = text.strip_suffix("/s").unwrap_or(text);
        let found = UNITS.iter().find_map(|(unit, factor)| {
            Some((amount.strip_suffix(unit)?.parse::<u64>().ok()?, factor))
        });
        let rate = found.and_then(|(number, factor)| number.checked_mul(*factor));
        rate.filter(|rate| *rate > 0)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no rate; write it like 100MB/s"))
    }
}

/// A copy that is being built.
#[derive(Debug, Serialize)]
pub struct SeedLine {
    /// Its Raft id.
    pub replica_id: u64,
    /// What `dagctl ops show` takes.
    pub operation: u64,
    /// Waiting, Opening, Copying, Verifying, Built, Joining.
    pub phase: String,
    /// Durable ones.
    pub bytes: u64,
    /// In all.
    pub total_bytes: u64,
    /// Null: not known.
    pub bytes_per_second: Option<u64>,
    /// Null: not known.
    pub left_ms: Option<u64>,
    /// Whom it is built from now.
    pub source: Option<String>,
    /// Why it does not go on.
    pub message: String,
    /// Whole, Delta; null: not settled yet.
    pub way: Option<String>,
    /// Bytes that were sent.
    pub received_bytes: u64,
    /// Bytes that were taken from the old copy instead.
    pub spared_bytes: u64,
}

impl SeedLine {
    /// As a node tells it.
    pub fn of(seed: &SeedProgress, names: &Names) -> Self {
        Self {
            replica_id: seed.replica_id,
            operation: seed.operation,
            phase: format!("{:?}", seed.phase()),
            bytes: seed.bytes,
            total_bytes: seed.total_bytes,
            bytes_per_second: (seed.bytes_per_second > 0).then_some(seed.bytes_per_second),
            left_ms: seed.left_ms,
            source: (seed.source_node > 0).then(|| names.name(seed.source_node)),
            message: seed.message.clone(),
            way: (seed.way() != SeedWay::Unspecified).then(|| format!("{:?}", seed.way())),
            received_bytes: seed.received_bytes,
            spared_bytes: seed.spared_bytes,
        }
    }
}

/// What was begun, and what came of it where it was followed.
#[derive(Debug, Serialize)]
struct Begun {
    /// The copy, or the database.
    object: String,
    operation: u64,
    /// Running, Done, Failed, Cancelled.
    state: String,
    outcome: String,
}

/// Carries a command about a copy out.
pub async fn run(build: Build, admin: &Admin, form: Form) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    match build {
        Build::Seed(args) => begin(SeedKind::Seed, args, &names, admin, form).await,
        Build::Reseed(args) => begin(SeedKind::Reseed, args, &names, admin, form).await,
        Build::Add(args) => begin(SeedKind::Add, args, &names, admin, form).await,
        Build::Remove { copy, reason } => remove(&copy, reason, &names, admin, form).await,
    }
}

async fn begin(
    kind: SeedKind,
    args: SeedArgs,
    names: &Names,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    let request = SeedCopyRequest {
        database_name: args.copy.database.clone(),
        node_id: names.number(&args.copy.node)?,
        kind: kind.into(),
        from_node: args.from.as_ref().map_or(Ok(0), |node| names.number(node))?,
        bytes_per_second: args.limit.map_or(0, |limit| limit.0),
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: args.reason,
        path: args.path.unwrap_or_default(),
        whole: args.whole,
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.seed_copy(request).await }
    };
    let answer = admin.change(&format!("Cannot build {}.", args.copy), ATTEMPT, call).await?;
    see(args.copy.to_string(), answer.operation, args.follow, admin, form).await
}

/// Says what was begun, or watches it to its end.
pub(super) async fn see(
    object: String,
    operation: u64,
    to_its_end: bool,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    if !to_its_end {
        let (state, outcome) = ("Running".to_owned(), String::new());
        let begun = Begun { object, operation, state, outcome };
        return form.print(&begun, |begun| {
            format!(
                "{}: begun as operation {operation}; it goes on by itself: \
                 dagctl ops show {operation}",
                begun.object
            )
        });
    }
    form.say(format!("operation {operation}; it goes on by itself when this is interrupted"));
    let ended = follow(operation, admin, form).await?;
    let begun = Begun { object, operation, state: ended.state, outcome: ended.outcome };
    form.print(&begun, |begun| format!("{}: {}: {}", begun.object, begun.state, begun.outcome))?;
    match begun.state.as_str() {
        "Done" => Ok(()),
        state => Err(Failure::new(Exit::Failed, format!("{}: {state}.", begun.object))
            .why(&begun.outcome)
            .next(format!("dagctl ops show {operation}"))),
    }
}

/// Watches an operation to its end. Nodes that do not answer meanwhile may answer later.
async fn follow(operation: u64, admin: &Admin, form: Form) -> Result<Operation, Failure> {
    let mut shown = String::new();
    loop {
        let call = |mut client: Client| async move {
            client.list_operations(ListOperationsRequest {}).await
        };
        let answer = admin.ask("Cannot read the operations.", call).await;
        let known = answer.ok().and_then(|answer| {
            answer.operations.into_iter().find(|known| known.operation == operation)
        });
        if let Some(known) = known {
            show(&known, &mut shown, form);
            if known.end_ms > 0 {
                if form.is_lively() {
                    eprintln!();
                }
                return Ok(known);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The bar where there is a terminal, else a line when the phase is another.
fn show(known: &Operation, shown: &mut String, form: Form) {
    let Some(seed) = &known.seed else { return };
    if form.is_lively() {
        eprint!("\r\x1b[2K{}", bar(seed));
        let _ = std::io::stderr().flush();
        return;
    }
    let phase = format!("{:?}", seed.phase());
    if *shown != phase {
        form.say(format!("{phase}: {} of {}", bytes(seed.bytes), bytes(seed.total_bytes)));
        *shown = phase;
    }
}

fn bar(seed: &SeedProgress) -> String {
    let done = match seed.total_bytes {
        0 => 0,
        total => (seed.bytes.min(total) as u128 * BAR as u128 / u128::from(total)) as usize,
    };
    let mut line = format!(
        "{:<9} [{}{}] {} of {}",
        format!("{:?}", seed.phase()),
        "#".repeat(done),
        ".".repeat(BAR - done),
        bytes(seed.bytes),
        bytes(seed.total_bytes)
    );
    if seed.phase() == SeedPhase::Copying && seed.bytes_per_second > 0 {
        line.push_str(&format!("  {}/s", bytes(seed.bytes_per_second)));
    }
    if let Some(left) = seed.left_ms {
        line.push_str(&format!("  {} left", span(left)));
    }
    if seed.way() == SeedWay::Delta {
        let (sent, spared) = (bytes(seed.received_bytes), bytes(seed.spared_bytes));
        line.push_str(&format!("  by delta: {sent} sent, {spared} spared"));
    }
    if !seed.message.is_empty() {
        line.push_str(&format!("  {}", seed.message));
    }
    line
}

async fn remove(
    copy: &CopyName,
    reason: String,
    names: &Names,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    let (database_name, node_id) = (copy.database.clone(), names.number(&copy.node)?);
    let request = RemoveCopyRequest { database_name, node_id, reason };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.remove_copy(request).await }
    };
    admin.change(&format!("Cannot remove {copy}."), ATTEMPT, call).await?;
    #[derive(Serialize)]
    struct Removed {
        copy: String,
        removed: bool,
    }
    let removed = Removed { copy: copy.to_string(), removed: true };
    form.print(&removed, |removed| format!("{}: removed", removed.copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_copies_are_read_as_people_write_them() {
        let rate = |text: &str| text.parse::<Rate>().ok().map(|rate| rate.0);
        assert_eq!(rate("100MB/s"), Some(100_000_000));
        assert_eq!(rate("4MiB"), Some(4 << 20));
        assert_eq!(rate("512B/s"), Some(512));
        for bad in ["", "MB", "0MB/s", "fast", "10", "99999999999GB"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
        let copy: CopyName = "DB1@n2".parse().unwrap();
        assert_eq!((copy.database.as_str(), copy.node.as_str()), ("DB1", "n2"));
        for bad in ["DB1", "@n2", "DB1@", ""] {
            assert!(bad.parse::<CopyName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bar_shows_phase_bytes_rate_and_time_left() {
        let seed = SeedProgress {
            phase: SeedPhase::Copying.into(),
            bytes: 512 << 20,
            total_bytes: 1 << 30,
            bytes_per_second: 64 << 20,
            left_ms: Some(8_000),
            ..SeedProgress::default()
        };
        let line = bar(&seed);
        assert_eq!(line.matches('#').count(), BAR / 2, "{line}");
        for part in ["Copying", "512.0 MiB of 1.0 GiB", "64.0 MiB/s", "8.0 s left"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(bar(&SeedProgress::default()).contains("0 B of 0 B"));
    }
}
