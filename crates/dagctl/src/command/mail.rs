//! `dagctl mail`: mails in, mails out.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use dag_api::Reason;
use dag_client::Client;
use dag_client::v1::MessageMeta;
use serde::Serialize;

use crate::admin::Admin;
use crate::command::export::{self, ExportArgs};
use crate::command::mailbox::{check_is_database, database_id};
use crate::command::trace::{self, TraceArgs};
use crate::connect::{connect, failure};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::mail::export::{flag_names, internal_date};
use crate::mail::import::{Import, Progress, read_files};
use crate::mail::restore::{self, FolderPlan, Restore, Wish};
use crate::mail::{reader, source};
use crate::output::{Form, bytes, table};
use crate::snapshots::Reader;

/// What can be done with mail.
#[derive(Debug, clap::Subcommand)]
pub enum MailCommand {
    /// Deliver mails from files; twice adds nothing
    Import(ImportArgs),
    /// What is in a folder
    List {
        /// The mailbox's address
        address: String,
        /// The folder [default: INBOX]
        #[arg(long)]
        folder: Option<String>,
    },
    /// One message, byte for byte, to standard output
    Fetch {
        /// The mailbox's address
        address: String,
        /// As `mail list` shows it
        uid: u32,
        /// The folder [default: INBOX]
        #[arg(long)]
        folder: Option<String>,
    },
    /// What became of messages, by id, sender or recipient
    Trace(TraceArgs),
    /// All messages of a folder, or of all folders, into files, with flags and dates
    Export(ExportArgs),
    /// Bring messages back out of a snapshot, each once; they get new UIDs
    Restore(RestoreArgs),
}

/// What comes back, and where to.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The mailbox's address
    address: String,
    /// The snapshot's id, or how that begins
    #[arg(long, value_name = "ID")]
    from_snapshot: String,
    /// Only this folder of the snapshot [default: the whole mailbox]
    #[arg(long)]
    folder: Option<String>,
    /// Only this message, as `snapshot messages` shows it
    #[arg(long, value_name = "EMAILID")]
    message: Option<String>,
    /// Into this folder; a whole mailbox: below it [default: where they were]
    #[arg(long, value_name = "FOLDER")]
    to: Option<String>,
    /// What is in its folder already too
    #[arg(long)]
    again: bool,
    /// Show what would come back, and do nothing
    #[arg(long)]
    plan: bool,
}

/// How an import goes.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Files, folders of mails, Maildirs, mboxes
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The address that gets them
    #[arg(long)]
    to: String,
    /// Make the mailbox if it is not there
    #[arg(long)]
    create: bool,
    /// With --create: the database [default: the directory chooses]
    #[arg(long, requires = "create")]
    db: Option<String>,
    /// What the paths are
    #[arg(long, value_enum, default_value_t)]
    format: source::Kind,
    /// Mails on their way at the same time
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
}

/// The least time that an import waits for a node to take over.
const IMPORT_PATIENCE: Duration = Duration::from_secs(120);

/// Carries a command out.
pub async fn run(
    command: MailCommand,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    match command {
        MailCommand::Import(args) => {
            let client = connect(admin, patience.max(IMPORT_PATIENCE)).await?;
            import(args, admin, &client, form).await
        }
        MailCommand::List { address, folder } => {
            let client = connect(admin, patience).await?;
            let folder = reader::folder(&client, &address, folder.as_deref()).await?;
            let messages = reader::list(&client, &address, &folder).await?;
            let lines: Vec<Line> = messages.iter().map(line).collect();
            form.print(&lines, |lines| show(lines))
        }
        MailCommand::Fetch { address, uid, folder } => {
            let client = connect(admin, patience).await?;
            fetch(&client, &address, uid, folder).await
        }
        MailCommand::Trace(args) => {
            let client = connect(admin, patience).await?;
            trace::run(&args, admin, &client, form).await
        }
        MailCommand::Restore(args) => restore(args, admin, patience, form).await,
        MailCommand::Export(args) => export::run(&args, admin, patience, form).await,
    }
}

async fn import(
    args: ImportArgs,
    admin: &Admin,
    client: &Client,
    form: Form,
) -> Result<(), Failure> {
    let files = source::files(&args.paths, args.format)?;
    if args.create {
        if args.db.is_none() {
            check_is_database(admin).await?;
        }
        create_if_missing(&args, admin, client).await?;
    } else if let Err(error) = client.locate(args.to.as_str()).await {
        let missing = error.problem().is_some_and(|p| p.reason == Reason::MailboxNotFound);
        let failure = failure(format!("Cannot import into mailbox {}.", args.to), &error);
        let help = || format!("dagctl mailbox create {}    (or import with --create)", args.to);
        return Err(if missing { failure.next(help()) } else { failure });
    }
    let progress = Progress::new(files.iter().map(|file| file.size).sum(), form.is_lively());
    let import = Import {
        client,
        in_flight: args.in_flight.max(1),
        recipient: &|_| args.to.clone(),
        acknowledged: &|_| (),
    };
    let report = import.run(read_files(files), &progress).await?;
    form.print(&report, |report| format!("{}: {}", args.to, report.line()))?;
    report.check()
}

async fn create_if_missing(
    args: &ImportArgs,
    admin: &Admin,
    client: &Client,
) -> Result<(), Failure> {
    let database = match &args.db {
        Some(name) => Some(database_id(name, admin).await?),
        None => None,
    };
    let id = uuid::Uuid::new_v4().to_string();
    match client.create_mailbox_in(&args.to, database, id).await {
        Ok(_) => Ok(()),
        Err(error) if error.problem().is_some_and(|p| p.reason == Reason::MailboxExists) => Ok(()),
        Err(error) => Err(failure(format!("Cannot create mailbox {}.", args.to), &error)),
    }
}

/// A message's line.
#[derive(Debug, Serialize)]
struct Line {
    uid: u32,
    size: u64,
    flags: Vec<String>,
    internal_date: Option<String>,
    modseq: u64,
    email_id: String,
    delivery_id: String,
}

fn line(message: &MessageMeta) -> Line {
    Line {
        uid: message.uid,
        size: message.size,
        flags: flag_names(message),
        internal_date: internal_date(message).map(|date| date.to_string()),
        modseq: message.modseq,
        email_id: message.email_id.clone(),
        delivery_id: message.delivery_id.clone(),
    }
}

fn show(lines: &[Line]) -> String {
    let rows = lines.iter().map(|line| {
        let date = line.internal_date.clone().unwrap_or_else(|| "-".to_owned());
        [line.uid.to_string(), bytes(line.size), date, line.flags.join(" "), line.email_id.clone()]
    });
    table(["UID", "SIZE", "DATE", "FLAGS", "EMAIL ID"], rows)
}

async fn fetch(
    client: &Client,
    address: &str,
    uid: u32,
    folder: Option<String>,
) -> Result<(), Failure> {
    let folder = reader::folder(client, address, folder.as_deref()).await?;
    let fetched = client.fetch(address, &folder.folder_id, uid).await;
    let what = || format!("Cannot fetch message {uid} of mailbox {address}.");
    let fetched = fetched.map_err(|error| failure(what(), &error))?;
    let mut output = std::io::stdout().lock();
    output.write_all(&fetched.content)?;
    Ok(output.flush()?)
}

async fn restore(
    args: RestoreArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let patience = patience.max(IMPORT_PATIENCE);
    let reader = Reader::open(admin, &args.from_snapshot, patience).await?;
    let client = connect(admin, patience).await?;
    let wish = Wish {
        address: args.address.clone(),
        folder: args.folder,
        message: args.message,
        to: args.to,
        again: args.again,
    };
    let plan = restore::plan(&reader, &client, &wish).await?;
    if args.plan {
        form.print(&plan.folders, |folders| show_plan(folders))?;
        return match plan.changes() {
            false => Ok(()),
            true => {
                let what = format!("Mailbox {} would be changed.", args.address);
                Err(Failure::new(Exit::WouldChange, what).next("the same without --plan"))
            }
        };
    }
    let total = plan.folders.iter().map(|folder| folder.bytes).sum();
    let progress = Progress::new(total, form.is_lively());
    let told = |bytes| progress.add(bytes);
    let work = Restore { reader: &reader, client: &client, address: &args.address, told: &told };
    let done = work.run(&plan).await?;
    progress.end();
    let there: usize = plan.folders.iter().map(|folder| folder.there).sum();
    let answer = serde_json::json!({
        "address": args.address,
        "snapshot_id": reader.snapshot.snapshot_id,
        "restored": done.restored,
        "bytes": done.bytes,
        "folders_made": done.folders_made,
        "already_there": done.already_there + there as u64,
    });
    form.print(&answer, |_| {
        format!(
            "{}: {} messages restored ({}), {} there before, {} folders made",
            args.address,
            done.restored,
            bytes(done.bytes),
            done.already_there + there as u64,
            done.folders_made
        )
    })
}

fn show_plan(folders: &[FolderPlan]) -> String {
    let rows = folders.iter().map(|folder| {
        [
            folder.from.clone(),
            if folder.made { format!("{} (new)", folder.to) } else { folder.to.clone() },
            folder.in_snapshot.to_string(),
            folder.there.to_string(),
            folder.messages.to_string(),
            bytes(folder.bytes),
        ]
    });
    table(["FROM", "TO", "IN SNAPSHOT", "THERE", "COME BACK", "SIZE"], rows)
}
