//! `dagctl mailbox`: addresses and the databases that hold their mail.

use std::time::Duration;

use dag_api::Reason;
use dag_api::admin::v1::ListMailboxesRequest;
use dag_client::FieldMask;
use dag_client::v1::{
    Folder, GetQuotaRequest, MailboxSettings, Quota, QuotaResource, UpdateMailboxRequest,
};
use dag_types::DatabaseId;
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::connect::{connect, failure};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, bytes, table};

/// What can be done with mailboxes.
#[derive(Debug, clap::Subcommand)]
pub enum MailboxCommand {
    /// Make mailboxes
    Create {
        /// Their addresses
        #[arg(required = true)]
        addresses: Vec<String>,
        /// The database [default: the directory chooses]
        #[arg(long)]
        db: Option<String>,
    },
    /// One mailbox: settings, quota, folders
    Show {
        /// Its address
        address: String,
    },
    /// Change quota, retention and hold; what is not named stays
    SetQuota(SetQuotaArgs),
    /// All addresses
    List {
        /// Only those in this database
        #[arg(long)]
        db: Option<String>,
    },
}

/// What changes. 0 is "no bound".
#[derive(Debug, clap::Args)]
pub struct SetQuotaArgs {
    /// The mailbox's address
    address: String,
    /// Of all messages, such as 500MiB or 2GiB
    #[arg(long, value_parser = size)]
    storage: Option<u64>,
    /// In all folders
    #[arg(long)]
    messages: Option<u64>,
    /// INBOX included
    #[arg(long)]
    folders: Option<u32>,
    /// Of what was expunged and can be restored
    #[arg(long, value_parser = size)]
    recoverable: Option<u64>,
    /// Of one message
    #[arg(long, value_parser = size)]
    append_limit: Option<u64>,
    /// How long an expunged message can be restored
    #[arg(long)]
    retention_days: Option<u64>,
    /// Nothing is removed for good
    #[arg(long)]
    hold: Option<bool>,
}

/// Reads bytes with a unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("give bytes, or a number with KiB, MiB, GiB or TiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "give a number first".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// A mailbox's line.
#[derive(Debug, Serialize)]
pub struct MailboxLine {
    /// The address.
    pub address: String,
    /// The mailbox's id.
    pub mailbox_id: String,
    /// The name of its database.
    pub database: String,
    /// Its creation was interrupted; repeating it finishes it.
    pub reserved_only: bool,
}

/// Makes mailboxes, one after the other.
pub async fn create(
    addresses: &[String],
    db: Option<String>,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let database = match &db {
        Some(name) => Some(database_id(name, admin).await?),
        None => None,
    };
    if database.is_none() {
        check_is_database(admin).await?;
    }
    let client = connect(admin, patience).await?;
    let mut lines = Vec::new();
    for address in addresses {
        let id = uuid::Uuid::new_v4().to_string();
        let made = client.create_mailbox_in(address, database, id).await;
        let made = made.map_err(|e| failure(format!("Cannot create mailbox {address}."), &e))?;
        lines.push(MailboxLine {
            address: address.clone(),
            mailbox_id: made.place.mailbox.to_string(),
            database: database_name(made.place.database, admin).await?,
            reserved_only: false,
        });
    }
    form.print(&lines, |lines| show(lines))?;
    form.say(format!("\nNext: dagctl mail import FILE-OR-FOLDER --to {}", addresses[0]));
    Ok(())
}

/// Without a database there is no place for a mailbox, and waiting brings none.
pub async fn check_is_database(admin: &Admin) -> Result<(), Failure> {
    let status = admin.get_status().await?;
    let mut ids = status.databases.iter().map(|database| DatabaseId(database.database_id));
    if status.dag_id.is_empty() {
        let mut failure = Failure::new(Exit::Failed, "There is no DAG yet to hold a mailbox.");
        failure.reason = Some(Reason::Unprovisioned.as_str());
        return Err(failure.next("dagctl dag create --from dag.toml"));
    }
    if ids.any(|id| id >= DatabaseId::FIRST_MAILBOX_DATABASE) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "There is no database yet that could hold a mailbox.")
        .next("dagctl db create DB1"))
}

/// A mailbox with all that is known of it.
#[derive(Debug, Serialize)]
struct Shown {
    address: String,
    mailbox_id: String,
    database: String,
    addresses: Vec<String>,
    highest_modseq: u64,
    litigation_hold: bool,
    retention_ms: u64,
    owner: String,
    append_limit_bytes: u64,
    quotas: Vec<ShownQuota>,
    folders: Vec<ShownFolder>,
}

#[derive(Debug, Serialize)]
struct ShownQuota {
    resource: &'static str,
    used: u64,
    limit: u64,
}

#[derive(Debug, Serialize)]
struct ShownFolder {
    path: String,
    folder_id: String,
    exists: u64,
    unseen: u64,
    size_bytes: u64,
    uid_validity: u32,
    uid_next: u32,
}

/// Shows one mailbox.
pub async fn show_one(
    address: &str,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let client = connect(admin, patience).await?;
    let what = || format!("Cannot read mailbox {address}.");
    let mailbox = client.mailbox(address).await.map_err(|error| failure(what(), &error))?;
    let quotas = client.quota(address, GetQuotaRequest::default()).await;
    let quotas = quotas.map_err(|error| failure(what(), &error))?.quotas;
    let folders = client.folders(address).await.map_err(|error| failure(what(), &error))?;
    let settings = mailbox.settings.unwrap_or_default();
    let quota = |quota: Quota| ShownQuota {
        resource: resource(quota.resource()),
        used: quota.used,
        limit: quota.limit,
    };
    let mut shown = Shown {
        address: address.to_owned(),
        mailbox_id: mailbox.mailbox_id,
        database: database_name(DatabaseId(mailbox.database_id), admin).await?,
        addresses: mailbox.addresses,
        highest_modseq: mailbox.highest_modseq,
        litigation_hold: settings.litigation_hold,
        retention_ms: settings.retention_ms,
        owner: settings.owner,
        append_limit_bytes: settings.append_limit_bytes,
        quotas: quotas.into_iter().map(quota).collect(),
        folders: folders.iter().map(|folder| shown_folder(folder, &folders)).collect(),
    };
    shown.folders.sort_by(|one, next| one.path.cmp(&next.path));
    form.print(&shown, page)
}

fn resource(resource: QuotaResource) -> &'static str {
    match resource {
        QuotaResource::Unspecified => "?",
        QuotaResource::Storage => "storage",
        QuotaResource::Message => "messages",
        QuotaResource::Mailbox => "folders",
        QuotaResource::Recoverable => "recoverable",
    }
}

fn shown_folder(folder: &Folder, all: &[Folder]) -> ShownFolder {
    ShownFolder {
        path: path(folder, all),
        folder_id: folder.folder_id.clone(),
        exists: folder.exists,
        unseen: folder.unseen,
        size_bytes: folder.size_bytes,
        uid_validity: folder.uid_validity,
        uid_next: folder.uid_next,
    }
}

/// Levels joined by `/`.
pub fn path(folder: &Folder, all: &[Folder]) -> String {
    levels(folder, all).join("/")
}

/// The names from the top level down to a folder.
pub fn levels<'f>(folder: &'f Folder, all: &'f [Folder]) -> Vec<&'f str> {
    let mut levels = vec![folder.display_name.as_str()];
    let mut above = folder.parent_id.as_str();
    while let Some(parent) = all.iter().find(|folder| folder.folder_id == above) {
        levels.push(&parent.display_name);
        // Pages are read one after the other: a move between them must not lead in a circle.
        if levels.len() > all.len() {
            break;
        }
        above = &parent.parent_id;
    }
    levels.reverse();
    levels
}

fn page(shown: &Shown) -> String {
    let hold = if shown.litigation_hold { ", on hold" } else { "" };
    let kept = match shown.retention_ms {
        0 => "expunged messages cannot be restored".to_owned(),
        millis => format!("expunged messages can be restored for {} h", millis / 3_600_000),
    };
    let quotas = shown.quotas.iter().map(|quota| {
        let is_bytes = matches!(quota.resource, "storage" | "recoverable");
        let amount = |value: u64| if is_bytes { bytes(value) } else { value.to_string() };
        let limit = if quota.limit == 0 { "-".to_owned() } else { amount(quota.limit) };
        [quota.resource.to_owned(), amount(quota.used), limit]
    });
    let folders = shown.folders.iter().map(|folder| {
        [
            folder.path.clone(),
            folder.exists.to_string(),
            folder.unseen.to_string(),
            bytes(folder.size_bytes),
            folder.folder_id.clone(),
        ]
    });
    format!(
        "{} in {}, mailbox {}{hold}\n{kept}\n\n{}\n\n{}",
        shown.addresses.join(", "),
        shown.database,
        shown.mailbox_id,
        table(["QUOTA", "USED", "LIMIT"], quotas),
        table(["FOLDER", "MESSAGES", "UNSEEN", "SIZE", "ID"], folders),
    )
}

/// Changes what is named, and shows the mailbox.
pub async fn set_quota(
    args: &SetQuotaArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let (settings, mask) = changed(args);
    if mask.is_empty() {
        return Err(Failure::new(Exit::Usage, "Nothing was named that should change.")
            .next(format!("dagctl mailbox set-quota {} --storage 2GiB", args.address)));
    }
    let client = connect(admin, patience).await?;
    let request = UpdateMailboxRequest {
        settings: Some(settings),
        update_mask: Some(FieldMask { paths: mask }),
        ..UpdateMailboxRequest::default()
    };
    let updated = client.update_mailbox(args.address.as_str(), request).await;
    let what = || format!("Cannot change mailbox {}.", args.address);
    updated.map_err(|error| failure(what(), &error))?;
    show_one(&args.address, admin, patience, form).await
}

fn changed(args: &SetQuotaArgs) -> (MailboxSettings, Vec<String>) {
    const DAY_MS: u64 = 24 * 3_600_000;
    let mut mask = Vec::new();
    let mut note = |is_named: bool, name: &str| {
        if is_named {
            mask.push(name.to_owned());
        }
    };
    note(args.storage.is_some(), "quota_bytes");
    note(args.messages.is_some(), "quota_messages");
    note(args.folders.is_some(), "quota_folders");
    note(args.recoverable.is_some(), "quota_recoverable_bytes");
    note(args.append_limit.is_some(), "append_limit_bytes");
    note(args.retention_days.is_some(), "retention_ms");
    note(args.hold.is_some(), "litigation_hold");
    let settings = MailboxSettings {
        quota_bytes: args.storage.unwrap_or_default(),
        quota_messages: args.messages.unwrap_or_default(),
        quota_folders: args.folders.unwrap_or_default(),
        quota_recoverable_bytes: args.recoverable.unwrap_or_default(),
        append_limit_bytes: args.append_limit.unwrap_or_default(),
        retention_ms: args.retention_days.unwrap_or_default().saturating_mul(DAY_MS),
        litigation_hold: args.hold.unwrap_or_default(),
        owner: String::new(),
    };
    (settings, mask)
}

/// The number of the database of this name.
pub async fn database_id(name: &str, admin: &Admin) -> Result<DatabaseId, Failure> {
    let status = admin.get_status().await?;
    let found = status.databases.iter().find(|database| database.name == name);
    let found = found.map(|database| DatabaseId(database.database_id));
    found.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("There is no database {name}."))
            .next(format!("dagctl db create {name}"))
    })
}

async fn database_name(id: DatabaseId, admin: &Admin) -> Result<String, Failure> {
    let status = admin.get_status().await?;
    let found = status.databases.into_iter().find(|database| database.database_id == id.0);
    Ok(found.map_or_else(|| id.to_string(), |database| database.name))
}

/// Shows the directory.
pub async fn list(db: Option<String>, admin: &Admin, form: Form) -> Result<(), Failure> {
    let mut request = ListMailboxesRequest {
        database_name: db.unwrap_or_default(),
        page_size: 1_000,
        page_token: String::new(),
    };
    let mut lines = Vec::new();
    loop {
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.list_mailboxes(request).await }
        };
        let page = admin.ask("Cannot list the mailboxes.", call).await?;
        lines.extend(page.mailboxes.into_iter().map(|entry| MailboxLine {
            address: entry.address,
            mailbox_id: entry.mailbox_id,
            database: entry.database_name,
            reserved_only: entry.reserved_only,
        }));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    form.print(&lines, |lines| show(lines))
}

/// Mailboxes as a table.
pub fn show(lines: &[MailboxLine]) -> String {
    let rows = lines.iter().map(|line| {
        let state = if line.reserved_only { "creation interrupted" } else { "" };
        [line.address.clone(), line.database.clone(), line.mailbox_id.clone(), state.to_owned()]
    });
    table(["ADDRESS", "DATABASE", "MAILBOX", ""], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_with_their_units() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("512KiB"), Ok(512 << 10));
        for text in ["", "GiB", "2GB", "2 GiB", "99999999999TiB", "-1"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folders_path_is_that_of_all_above_it() {
        let folder = |id: &str, parent: &str, name: &str| Folder {
            folder_id: id.into(),
            parent_id: parent.into(),
            display_name: name.into(),
            ..Folder::default()
        };
        let all = [folder("f2", "f3", "c"), folder("f3", "f4", "b"), folder("f4", "", "a")];
        assert_eq!(path(&all[0], &all), "a/b/c");
        let circle = [folder("f2", "f3", "c"), folder("f3", "f2", "b")];
        assert!(path(&circle[0], &circle).ends_with('c'));
    }
}
