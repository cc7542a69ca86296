//! `dagctl db`: mailbox databases.

use std::time::{Duration, Instant};

use dag_api::admin::v1::{
    CreateDatabaseRequest, Database, DigestState, ListDatabasesRequest, VerifyDatabaseRequest,
    VerifyDatabaseResponse,
};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::deep::{self, Deep};
use crate::command::moves::{self, MoveArgs};
use crate::command::paths::{self, MovePathArgs};
use crate::command::reform::{self, ReformArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::{Form, hex, table};

/// What can be done with databases.
#[derive(Debug, clap::Subcommand)]
pub enum Db {
    /// Make databases
    Create {
        /// Their names: letters, digits, '-' and '_'
        #[arg(required = true)]
        names: Vec<String>,
        /// Nodes that get a copy, by preference [default: the placement rule]
        #[arg(long, value_delimiter = ',')]
        copies: Vec<String>,
    },
    /// All databases, and where they are active
    List,
    /// Make a database active on another copy (Exchange: Move-ActiveMailboxDatabase)
    Move(MoveArgs),
    /// Move a database to another folder while it goes on (Exchange: Move-DatabasePath)
    MovePath(MovePathArgs),
    /// Let a database that lost its majority go on from the best copy that is left
    Reform(ReformArgs),
    /// Move databases back to their preferred copies (Exchange: RedistributeActiveDatabases)
    Rebalance {
        /// Only show it
        #[arg(long)]
        dry_run: bool,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Compare the content of all copies at one point of the log
    Verify {
        /// Its name; all databases when left out
        name: Option<String>,
        /// How long to wait for copies that are behind, in seconds
        #[arg(long, default_value_t = 10)]
        wait: u32,
        /// Read every mailbox of every copy there, and name those that differ
        #[arg(long)]
        deep: bool,
    },
}

/// A database's line.
#[derive(Debug, Serialize)]
pub struct DatabaseLine {
    /// Its number.
    pub database_id: u64,
    /// Its name.
    pub name: String,
    /// The node where it is mounted; null: nowhere, or not known.
    pub active: Option<String>,
    /// Nodes with a copy, by preference.
    pub copies: Vec<String>,
    /// Those whose copy votes.
    pub voters: Vec<String>,
    /// Which incarnation of its group.
    pub generation: u32,
}

/// One copy's line of `db verify`.
#[derive(Debug, Serialize)]
pub struct DigestLine {
    /// The node of the copy.
    pub node: String,
    /// Its number.
    pub node_id: u64,
    /// The copy's Raft id.
    pub replica_id: u64,
    /// KNOWN, PENDING, UNREACHABLE, FAILED or FORGOTTEN.
    pub state: &'static str,
    /// The digest of its content; null where it is not known.
    pub digest: Option<String>,
    /// Its log up to the mark; null where it is not known.
    pub chain: Option<String>,
    /// How far it has applied.
    pub applied_index: u64,
    /// More, for people.
    pub message: String,
}

/// The answer of `db verify` for one database.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Its name.
    pub database: String,
    /// Where in the log the copies were compared.
    pub mark_index: u64,
    /// All copies reached the mark and have the same content.
    pub equal: bool,
    /// Copy by copy.
    pub copies: Vec<DigestLine>,
    /// Mailbox by mailbox; null: not asked for.
    pub deep: Option<Deep>,
}

/// How long one attempt to create a database may take: it makes files on several nodes.
const CREATE: Duration = Duration::from_secs(10);

/// Carries a command out.
pub async fn run(db: Db, admin: &Admin, patience: Duration, form: Form) -> Result<(), Failure> {
    match db {
        Db::Create { names, copies } => create(&names, &copies, admin, patience, form).await,
        Db::List => list(admin, form).await,
        Db::Move(args) => moves::run(args, admin, patience, form).await,
        Db::MovePath(args) => paths::run(args, admin, form).await,
        Db::Reform(args) => reform::run(args, admin, patience, form).await,
        Db::Rebalance { dry_run: true, .. } => moves::plan_balance(admin, form).await,
        Db::Rebalance { reason, .. } => moves::rebalance(&reason, admin, patience, form).await,
        Db::Verify { name, wait, deep } => verify(name, wait, deep, admin, form).await,
    }
}

async fn create(
    names: &[String],
    copies: &[String],
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let known = Names::of(&admin.get_status().await?);
    let copies: Vec<u64> =
        copies.iter().map(|node| known.number(node)).collect::<Result<_, _>>()?;
    for name in names {
        create_one(name, &copies, admin).await?;
    }
    let lines = await_mounted(names, admin, patience).await?;
    form.print(&lines, |lines| show(lines))?;
    form.say("\nNext: dagctl mailbox create somebody@example.org");
    Ok(())
}

/// Waits until databases that were just made are mounted: then mail can go in.
pub async fn await_mounted(
    names: &[impl AsRef<str>],
    admin: &Admin,
    patience: Duration,
) -> Result<Vec<DatabaseLine>, Failure> {
    let end = Instant::now() + patience;
    loop {
        let status = admin.get_status().await?;
        let known = Names::of(&status);
        let is_wanted = |db: &&Database| names.iter().any(|name| name.as_ref() == db.name);
        let found = status.databases.iter().filter(is_wanted);
        let lines: Vec<_> = found.map(|database| line(database, &known)).collect();
        if lines.len() == names.len() && lines.iter().all(|line| line.active.is_some()) {
            return Ok(lines);
        }
        if Instant::now() >= end {
            let what = "The databases are made, and not all of them are mounted yet.";
            return Err(Failure::new(Exit::Unknown, what).next("dagctl status --watch"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes one database; the default placement when no nodes are named.
pub async fn create_one(name: &str, copies: &[u64], admin: &Admin) -> Result<Database, Failure> {
    let request = CreateDatabaseRequest {
        name: name.to_owned(),
        copy_nodes: copies.to_vec(),
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let what = format!("Cannot create database {name}.");
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.create_database(request).await }
    };
    let answer = admin.change(&what, CREATE, call).await?;
    answer
        .database
        .ok_or_else(|| Failure::new(Exit::Failed, what).why("the node's answer names no database"))
}

async fn list(admin: &Admin, form: Form) -> Result<(), Failure> {
    let status = admin.get_status().await?;
    let names = Names::of(&status);
    let lines: Vec<_> = status.databases.iter().map(|database| line(database, &names)).collect();
    form.print(&lines, |lines| show(lines))?;
    if lines.is_empty() {
        form.say("There is no database yet.\nNext: dagctl db create DB1");
    }
    Ok(())
}

/// A database as people see it.
pub fn line(database: &Database, names: &Names) -> DatabaseLine {
    DatabaseLine {
        database_id: database.database_id,
        name: database.name.clone(),
        active: (database.active_node != 0).then(|| names.name(database.active_node)),
        copies: names.list(&database.copy_nodes),
        voters: names.list(&database.voters),
        generation: database.generation,
    }
}

/// Databases as a table.
pub fn show(lines: &[DatabaseLine]) -> String {
    let rows = lines.iter().map(|line| {
        [
            line.name.clone(),
            line.database_id.to_string(),
            line.active.clone().unwrap_or_else(|| "-".to_owned()),
            line.copies.join(" "),
            line.voters.join(" "),
        ]
    });
    table(["DATABASE", "ID", "ACTIVE", "COPIES", "VOTERS"], rows)
}

async fn verify(
    name: Option<String>,
    wait: u32,
    deep: bool,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    let names = match name {
        Some(name) => vec![name],
        None => all_names(admin).await?,
    };
    let mut verdicts = Vec::new();
    for name in &names {
        let mut verdict = marked(name, wait, deep, admin).await?;
        if deep {
            verdict.deep = Some(deep::compare(&verdict, admin).await?);
        }
        verdicts.push(verdict);
    }
    form.print(&verdicts, |verdicts| {
        let found = verdicts.iter().filter_map(|verdict| verdict.deep.as_ref()).map(deep::show);
        found.fold(show_verdicts(verdicts), |text, found| format!("{text}\n{found}"))
    })?;
    let differs = |verdict: &&Verdict| {
        !verdict.equal || verdict.deep.as_ref().is_some_and(|deep| !deep.differing.is_empty())
    };
    let differing: Vec<&str> =
        verdicts.iter().filter(differs).map(|v| v.database.as_str()).collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Unhealthy,
        format!("Not all copies are equal: {}.", differing.join(", ")),
    )
    .next("dagctl copies"))
}

/// Every database that there is.
pub async fn all_names(admin: &Admin) -> Result<Vec<String>, Failure> {
    let ask =
        |mut client: Client| async move { client.list_databases(ListDatabasesRequest {}).await };
    let answer = admin.ask("Cannot list the databases.", ask).await?;
    Ok(answer.databases.into_iter().map(|database| database.name).collect())
}

/// Compares the copies of one database.
pub async fn verify_one(name: &str, wait: u32, admin: &Admin) -> Result<Verdict, Failure> {
    marked(name, wait, false, admin).await
}

async fn marked(name: &str, wait: u32, deep: bool, admin: &Admin) -> Result<Verdict, Failure> {
    let request = VerifyDatabaseRequest {
        database_name: name.to_owned(),
        wait_ms: wait * 1_000,
        request_id: uuid::Uuid::new_v4().to_string(),
        deep,
    };
    let names = Names::of(&admin.get_status().await?);
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.verify_database(request).await }
    };
    let attempt = Duration::from_secs(u64::from(wait) + 5);
    let answer = admin.change(&format!("Cannot verify database {name}."), attempt, call).await?;
    Ok(verdict(name, &answer, &names))
}

fn verdict(name: &str, answer: &VerifyDatabaseResponse, names: &Names) -> Verdict {
    let known = |bytes: &[u8], state| (state == DigestState::Known).then(|| hex(bytes));
    let copies = answer.copies.iter().map(|copy| DigestLine {
        node: names.name(copy.node_id),
        node_id: copy.node_id,
        replica_id: copy.replica_id,
        state: digest_state(copy.state()),
        digest: known(&copy.digest, copy.state()),
        chain: known(&copy.chain, copy.state()),
        applied_index: copy.applied_index,
        message: copy.message.clone(),
    });
    Verdict {
        database: name.to_owned(),
        mark_index: answer.mark_index,
        equal: answer.equal,
        copies: copies.collect(),
        deep: None,
    }
}

fn digest_state(state: DigestState) -> &'static str {
    match state {
        DigestState::Unspecified => "UNKNOWN",
        DigestState::Known => "KNOWN",
        DigestState::Pending => "PENDING",
        DigestState::Unreachable => "UNREACHABLE",
        DigestState::Failed => "FAILED",
        DigestState::Forgotten => "FORGOTTEN",
    }
}

fn show_verdicts(verdicts: &[Verdict]) -> String {
    let rows = verdicts.iter().flat_map(|verdict| {
        verdict.copies.iter().map(|copy| {
            [
                format!("{}\\{}", verdict.database, copy.node),
                verdict.mark_index.to_string(),
                copy.state.to_owned(),
                copy.digest
                    .as_ref()
                    .map_or("-".to_owned(), |digest| digest[..16.min(digest.len())].to_owned()),
                if verdict.equal { "equal" } else { "NOT EQUAL" }.to_owned(),
                copy.message.clone(),
            ]
        })
    });
    table(["COPY", "MARK", "STATE", "DIGEST", "VERDICT", "MESSAGE"], rows)
}
