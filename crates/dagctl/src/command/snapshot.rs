//! `dagctl snapshot`: databases as they were, on the nodes that keep them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use dag_api::admin::v1 as api;
use dag_api::mailbox::v1::{Mailbox, MessageMeta};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::admin::Admin;
use crate::command::mailbox::path;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::mail::export::{flag_names, internal_date};
use crate::mail::reader::named;
use crate::names::suggestion;
use crate::output::{Form, bytes, hex, span, table};
use crate::snapshots::{CALL, Client, Holder, Listed, Reader, find, holders, list, millis};

/// What can be done with snapshots.
#[derive(Debug, clap::Subcommand)]
pub enum SnapshotCommand {
    /// Every snapshot, asked of every node; needs no quorum
    List {
        /// Only those of this database
        database: Option<String>,
    },
    /// Take one now, of a passive copy
    Create {
        /// The database
        database: String,
        /// Of the copy on this node [default: the last passive one by preference]
        #[arg(long)]
        node: Option<String>,
        /// Keep it until somebody deletes it
        #[arg(long)]
        protect: bool,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Put one into the trash of its node, where it lies for seven days
    Delete {
        /// Its id, or how that begins
        snapshot: String,
        /// Do it in spite of this check: snapshot-protected
        #[arg(long, value_parser = ["snapshot-protected"])]
        skip: Option<String>,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Read every byte of one; a damaged one is never used again
    Verify {
        /// Its id, or how that begins
        snapshot: String,
    },
    /// The mailboxes in it
    Mailboxes {
        /// Its id, or how that begins
        snapshot: String,
    },
    /// The folders of a mailbox in it
    Folders {
        /// Its id, or how that begins
        snapshot: String,
        /// An address that the mailbox had, or its id
        address: String,
    },
    /// The messages of a folder in it
    Messages {
        /// Its id, or how that begins
        snapshot: String,
        /// An address that the mailbox had, or its id
        address: String,
        /// The folder's path, levels joined by /
        folder: String,
    },
    /// One message of it, byte for byte, to standard output
    Fetch {
        /// Its id, or how that begins
        snapshot: String,
        /// An address that the mailbox had, or its id
        address: String,
        /// As `snapshot messages` shows it
        email_id: String,
    },
}

/// Carries a command out.
pub async fn run(
    command: SnapshotCommand,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let open = |snapshot: String| async move { Reader::open(admin, &snapshot, patience).await };
    match command {
        SnapshotCommand::List { database } => show_all(database, admin, form).await,
        SnapshotCommand::Create { database, node, protect, reason } => {
            let request = api::CreateSnapshotRequest {
                database_name: database,
                snapshot_id: uuid::Uuid::new_v4().simple().to_string(),
                protected: protect,
                reason,
            };
            create(request, node, admin, patience, form).await
        }
        SnapshotCommand::Delete { snapshot, skip, reason } => {
            delete(&snapshot, skip.is_some(), reason, admin, form).await
        }
        SnapshotCommand::Verify { snapshot } => verify(&snapshot, admin, form).await,
        SnapshotCommand::Mailboxes { snapshot } => {
            let mailboxes = open(snapshot).await?.mailboxes().await?;
            let lines: Vec<MailboxLine> = mailboxes.iter().map(mailbox_line).collect();
            form.print(&lines, |lines| show_mailboxes(lines))
        }
        SnapshotCommand::Folders { snapshot, address } => {
            let (_, folders) = open(snapshot).await?.folders(&address).await?;
            let line = |folder: &dag_api::mailbox::v1::Folder| FolderLine {
                path: path(folder, &folders),
                folder_id: folder.folder_id.clone(),
                messages: folder.exists,
                unseen: folder.unseen,
                size_bytes: folder.size_bytes,
            };
            let lines: Vec<FolderLine> = folders.iter().map(line).collect();
            form.print(&lines, |lines| show_folders(lines))
        }
        SnapshotCommand::Messages { snapshot, address, folder } => {
            let reader = open(snapshot).await?;
            let (mailbox, folders) = reader.folders(&address).await?;
            let folder = named(&folders, &folder, "The mailbox, in the snapshot,")?;
            let messages = reader.messages(&mailbox.mailbox_id, &folder.folder_id).await?;
            let lines: Vec<MessageLine> = messages.iter().map(message_line).collect();
            form.print(&lines, |lines| show_messages(lines))
        }
        SnapshotCommand::Fetch { snapshot, address, email_id } => {
            fetch(&open(snapshot).await?, &address, &email_id).await
        }
    }
}

/// A snapshot's line.
#[derive(Debug, Serialize)]
struct Line {
    snapshot_id: String,
    database: String,
    node: String,
    taken: Option<String>,
    age_ms: u64,
    /// The last entry of the log whose effects are in it.
    log_index: u64,
    term: u64,
    generation: u32,
    chain: String,
    size_bytes: u64,
    /// What nothing else holds: so much is free when it goes.
    alone_bytes: u64,
    state: &'static str,
    findings: Vec<String>,
    verified: Option<String>,
    protected: bool,
    scheduled: bool,
    made_by: String,
    reason: String,
    path: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    snapshots: Vec<Line>,
    /// Nodes that did not answer, and why: they may have more.
    missing: Vec<(String, String)>,
}

fn text(at: Option<&dag_client::Timestamp>) -> Option<String> {
    let at = at?;
    jiff::Timestamp::new(at.seconds, at.nanos).ok().map(|at| at.to_string())
}

fn line(holder: &Holder, snapshot: &api::Snapshot, now: u64) -> Line {
    let taken = snapshot.take_time.as_ref();
    Line {
        snapshot_id: snapshot.snapshot_id.clone(),
        database: snapshot.database_name.clone(),
        node: holder.name.clone(),
        taken: text(taken),
        age_ms: taken.map_or(0, |taken| now.saturating_sub(millis(taken))),
        log_index: snapshot.index,
        term: snapshot.term,
        generation: snapshot.generation,
        chain: hex(&snapshot.chain),
        size_bytes: snapshot.size_bytes,
        alone_bytes: snapshot.alone_bytes,
        state: match snapshot.state() {
            api::SnapshotState::Unspecified => "?",
            api::SnapshotState::Unverified => "Unverified",
            api::SnapshotState::Good => "Good",
            api::SnapshotState::Bad => "Bad",
        },
        findings: snapshot.findings.clone(),
        verified: text(snapshot.verify_time.as_ref()),
        protected: snapshot.protected,
        scheduled: snapshot.scheduled,
        made_by: snapshot.made_by.clone(),
        reason: snapshot.reason.clone(),
        path: snapshot.path.clone(),
    }
}

fn show(lines: &[Line]) -> String {
    let rows = lines.iter().map(|line| {
        let kind = match (line.protected, line.scheduled) {
            (true, _) => "protected",
            (false, true) => "scheduled",
            (false, false) => "by hand",
        };
        let mut state = line.state.to_owned();
        if !line.findings.is_empty() {
            state.push_str(&format!(": {}", line.findings.join("; ")));
        }
        [
            line.snapshot_id.chars().take(12).collect(),
            line.database.clone(),
            line.node.clone(),
            if line.taken.is_some() { span(line.age_ms) } else { "?".to_owned() },
            line.log_index.to_string(),
            bytes(line.size_bytes),
            bytes(line.alone_bytes),
            kind.to_owned(),
            state,
        ]
    });
    table(["SNAPSHOT", "DATABASE", "NODE", "AGE", "INDEX", "SIZE", "ALONE", "KIND", "STATE"], rows)
}

async fn show_all(database: Option<String>, admin: &Admin, form: Form) -> Result<(), Failure> {
    let name = database.unwrap_or_default();
    let Listed { snapshots, missing } = list(admin, &name).await?;
    if snapshots.is_empty() && !name.is_empty() {
        check_is_database(&name, admin).await?;
    }
    let lines = snapshots.iter().map(|(holder, found, now)| line(holder, found, *now));
    let shown = Shown { snapshots: lines.collect(), missing };
    form.print(&shown, |shown| show(&shown.snapshots))?;
    for (node, why) in &shown.missing {
        form.say(format!("{node} was not heard and may have more: {why}"));
    }
    Ok(())
}

/// A name that nothing is known of was mistyped.
async fn check_is_database(name: &str, admin: &Admin) -> Result<(), Failure> {
    let status = admin.get_status().await?;
    let known: Vec<&str> = status.databases.iter().map(|known| known.name.as_str()).collect();
    if known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("There is no database {name}."))
        .why(suggestion(name, &known, "databases"))
        .next("dagctl db list"))
}

/// The copy that a snapshot is taken of: the last by preference that is passive and well.
fn choose(status: &api::GetStatusResponse, database: &str) -> Option<u64> {
    let of_it = || status.copies.iter().filter(|copy| copy.database_name == database);
    let passive = of_it().filter(|copy| copy.status() == api::CopyStatus::Healthy);
    let passive = passive.max_by_key(|copy| copy.activation_preference);
    let alone = || of_it().find(|copy| copy.status() == api::CopyStatus::Mounted);
    passive.or_else(alone).map(|copy| copy.node_id)
}

async fn create(
    mut request: api::CreateSnapshotRequest,
    node: Option<String>,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let what = format!("Cannot take a snapshot of {}.", request.database_name);
    check_is_database(&request.database_name, admin).await?;
    let status = admin.get_status().await?;
    let named = status.databases.iter();
    let mut named = named.filter(|known| known.name.eq_ignore_ascii_case(&request.database_name));
    if let Some(known) = named.next() {
        request.database_name.clone_from(&known.name);
    }
    let chosen = match &node {
        Some(node) => Some(crate::names::Names::of(&status).number(node)?),
        None => choose(&status, &request.database_name),
    };
    let holder = holders(admin).await?.into_iter().find(|holder| Some(holder.id) == chosen);
    let holder = holder.ok_or_else(|| {
        Failure::new(Exit::Failed, &what)
            .why("no copy of it is healthy, as far as was heard")
            .next(format!("dagctl copies {}", request.database_name))
    })?;
    form.say(format!("{} on {} ...", request.database_name, holder.name));
    loop {
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.create_snapshot(request).await }
        };
        let answer = holder.insist(&what, patience, call).await?;
        let Some(snapshot) = answer.snapshot else { continue };
        let now = snapshot.take_time.as_ref().map_or(0, millis);
        return form.print(&line(&holder, &snapshot, now), |line| show(std::slice::from_ref(line)));
    }
}

async fn delete(
    snapshot: &str,
    skip_protection: bool,
    reason: String,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    let (holder, found) = find(admin, snapshot).await?;
    let request = api::DeleteSnapshotRequest {
        snapshot_id: found.snapshot_id.clone(),
        skip_protection,
        reason,
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.delete_snapshot(request).await }
    };
    let what = format!("Cannot delete snapshot {}.", found.snapshot_id);
    let answer = holder.call(CALL, call).await;
    let answer = answer.map_err(|status| Failure::of_status(&what, &status))?;
    let gone = answer.snapshot.unwrap_or(found);
    let now = gone.take_time.as_ref().map_or(0, millis);
    form.print(&line(&holder, &gone, now), |_| {
        format!(
            "Snapshot {} lies in the trash of {} for seven days.",
            gone.snapshot_id, holder.name
        )
    })
}

async fn verify(snapshot: &str, admin: &Admin, form: Form) -> Result<(), Failure> {
    let (holder, found) = find(admin, snapshot).await?;
    let request = api::VerifySnapshotRequest { snapshot_id: found.snapshot_id.clone() };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.verify_snapshot(request).await }
    };
    let what = format!("Cannot verify snapshot {}.", found.snapshot_id);
    let failed = |status: &tonic::Status| Failure::of_status(&what, status);
    let mut words = holder.call(CALL, call).await.map_err(|status| failed(&status))?;
    let bar = bar(found.size_bytes, form.is_lively());
    let began = Instant::now();
    while let Some(word) = words.message().await.map_err(|status| failed(&status))? {
        bar.set_position(word.read_bytes);
        let Some(verified) = word.verified else { continue };
        bar.finish_and_clear();
        let now = verified.verify_time.as_ref().map_or(0, millis);
        form.print(&line(&holder, &verified, now), |line| {
            let read = format!(
                "{} read in {:.1} s",
                bytes(word.read_bytes),
                began.elapsed().as_secs_f64()
            );
            format!("{}\n\n{read}", show(std::slice::from_ref(line)))
        })?;
        return match verified.state() {
            api::SnapshotState::Good => Ok(()),
            _ => {
                let what = format!("Snapshot {} is damaged.", verified.snapshot_id);
                let mut failure = Failure::new(Exit::Unhealthy, what);
                failure.why = verified.findings;
                Err(failure.next("dagctl snapshot list"))
            }
        };
    }
    Err(Failure::new(Exit::Unknown, what).why("the node ended before its verdict"))
}

fn bar(total: u64, lively: bool) -> ProgressBar {
    if !lively {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let style = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is sound"));
    bar
}

#[derive(Debug, Serialize)]
struct MailboxLine {
    addresses: Vec<String>,
    mailbox_id: String,
    folders: u32,
    messages: u64,
    used_bytes: u64,
}

fn mailbox_line(mailbox: &Mailbox) -> MailboxLine {
    MailboxLine {
        addresses: mailbox.addresses.clone(),
        mailbox_id: mailbox.mailbox_id.clone(),
        folders: mailbox.folders,
        messages: mailbox.messages,
        used_bytes: mailbox.used_bytes,
    }
}

fn show_mailboxes(lines: &[MailboxLine]) -> String {
    let rows = lines.iter().map(|line| {
        [
            line.addresses.join(" "),
            line.folders.to_string(),
            line.messages.to_string(),
            bytes(line.used_bytes),
            line.mailbox_id.clone(),
        ]
    });
    table(["ADDRESS", "FOLDERS", "MESSAGES", "SIZE", "MAILBOX"], rows)
}

#[derive(Debug, Serialize)]
struct FolderLine {
    path: String,
    folder_id: String,
    messages: u64,
    unseen: u64,
    size_bytes: u64,
}

fn show_folders(lines: &[FolderLine]) -> String {
    let rows = lines.iter().map(|line| {
        [
            line.path.clone(),
            line.messages.to_string(),
            line.unseen.to_string(),
            bytes(line.size_bytes),
            line.folder_id.clone(),
        ]
    });
    table(["FOLDER", "MESSAGES", "UNSEEN", "SIZE", "ID"], rows)
}

#[derive(Debug, Serialize)]
struct MessageLine {
    uid: u32,
    email_id: String,
    size: u64,
    flags: Vec<String>,
    internal_date: Option<String>,
    envelope_from: String,
}

fn message_line(message: &MessageMeta) -> MessageLine {
    MessageLine {
        uid: message.uid,
        email_id: message.email_id.clone(),
        size: message.size,
        flags: flag_names(message),
        internal_date: internal_date(message).map(|date| date.to_string()),
        envelope_from: message.envelope_from.clone(),
    }
}

fn show_messages(lines: &[MessageLine]) -> String {
    let rows = lines.iter().map(|line| {
        let date = line.internal_date.clone().unwrap_or_else(|| "-".to_owned());
        let flags = line.flags.join(" ");
        [line.uid.to_string(), bytes(line.size), date, flags, line.email_id.clone()]
    });
    table(["UID", "SIZE", "DATE", "FLAGS", "EMAIL ID"], rows)
}

async fn fetch(reader: &Reader, address: &str, email_id: &str) -> Result<(), Failure> {
    let (mailbox, folders) = reader.folders(address).await?;
    for folder in folders.iter().filter(|folder| folder.exists > 0) {
        let messages = reader.messages(&mailbox.mailbox_id, &folder.folder_id).await?;
        if let Some(found) = messages.iter().find(|message| message.email_id == email_id) {
            let at = (&mailbox.mailbox_id, &folder.folder_id);
            let fetched = reader.fetch(at.0, at.1, found.uid).await?;
            let mut output = std::io::stdout().lock();
            output.write_all(&fetched.content)?;
            return Ok(output.flush()?);
        }
    }
    Err(Failure::new(Exit::Failed, format!("There is no message {email_id} in that mailbox."))
        .next(format!("dagctl snapshot folders {} {address}", reader.snapshot.snapshot_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_taken_of_the_last_passive_copy_and_else_of_the_only_one() {
        let copy = |node_id, status: api::CopyStatus, activation_preference| api::DatabaseCopy {
            database_name: "DB1".into(),
            node_id,
            status: status.into(),
            activation_preference,
            ..api::DatabaseCopy::default()
        };
        use api::CopyStatus::{Failed, Healthy, Mounted};
        let of = |copies: &[api::DatabaseCopy]| {
            let copies = copies.to_vec();
            choose(&api::GetStatusResponse { copies, ..Default::default() }, "DB1")
        };
        let all = [copy(1, Mounted, 1), copy(2, Healthy, 2), copy(3, Healthy, 3)];
        assert_eq!(of(&all), Some(3));
        assert_eq!(of(&[all[0].clone(), all[1].clone(), copy(3, Failed, 3)]), Some(2));
        assert_eq!(of(&all[..1]), Some(1));
        assert_eq!(of(&[copy(3, Failed, 3)]), None);
    }
}
