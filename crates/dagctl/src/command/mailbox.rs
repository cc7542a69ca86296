//! `dagctl mailbox`: addresses and the databases that hold their mail.

use std::time::Duration;

use dag_api::admin::v1::ListMailboxesRequest;
use dag_types::DatabaseId;
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::connect::{connect, failure};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, table};

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
    /// All addresses
    List {
        /// Only those in this database
        #[arg(long)]
        db: Option<String>,
    },
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
