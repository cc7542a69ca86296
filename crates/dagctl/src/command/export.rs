//! `dagctl mail export`: a folder or a whole mailbox into files, as it is now or as it was.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dag_client::v1::Folder;
use dag_client::{Client, Fetched};

use crate::admin::Admin;
use crate::command::mailbox::path;
use crate::connect::{connect, failure};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::mail::export::{ExportForm, INDEX_ENDING, Target};
use crate::mail::{places, reader};
use crate::output::{Form, bytes};
use crate::snapshots::Reader;

/// What goes where.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The mailbox's address
    address: String,
    /// A folder (mbox: a file) that does not exist yet
    into: PathBuf,
    /// The folder [default: INBOX]
    #[arg(long, conflicts_with = "all_folders")]
    folder: Option<String>,
    /// Every folder, each in a place of its own below INTO
    #[arg(long)]
    all_folders: bool,
    /// A file per message, an mbox, or a Maildir
    #[arg(long, value_enum, default_value_t)]
    form: ExportForm,
    /// Out of this snapshot: its id, or how that begins
    #[arg(long, value_name = "ID")]
    from_snapshot: Option<String>,
}

/// Where it is read from.
enum Source {
    Mailbox(Client),
    Snapshot { reader: Reader, mailbox_id: String },
}

/// What was written.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    messages: u64,
    bytes: u64,
}

/// Carries the command out.
pub async fn run(
    args: &ExportArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    check_is_free(&args.into)?;
    let (source, folders) = open(args, admin, patience).await?;
    let count = if args.all_folders {
        source.export_all(args, &folders).await?
    } else {
        let wanted = args.folder.as_deref().unwrap_or("INBOX");
        let folder = reader::named(&folders, wanted, &source.name(&args.address))?;
        source.export(&args.address, folder, &args.into, args.form).await?
    };
    let Count { messages, bytes: size } = count;
    let answer = serde_json::json!({ "messages": messages, "bytes": size, "into": args.into });
    form.print(&answer, |_| {
        let into = args.into.display();
        format!("{messages} messages ({}) of {} in {into}", bytes(size), args.address)
    })
}

fn check_is_free(into: &Path) -> Result<(), Failure> {
    if !into.exists() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("Cannot export into {}.", into.display()))
        .why("it exists already, and nothing is written over"))
}

async fn open(
    args: &ExportArgs,
    admin: &Admin,
    patience: Duration,
) -> Result<(Source, Vec<Folder>), Failure> {
    if let Some(id) = &args.from_snapshot {
        let reader = Reader::open(admin, id, patience).await?;
        let (mailbox, folders) = reader.folders(&args.address).await?;
        return Ok((Source::Snapshot { reader, mailbox_id: mailbox.mailbox_id }, folders));
    }
    let client = connect(admin, patience).await?;
    let folders = client
        .folders(args.address.as_str())
        .await
        .map_err(|error| failure(format!("Cannot read mailbox {}.", args.address), &error))?;
    Ok((Source::Mailbox(client), folders))
}

impl Source {
    /// Whose folders it has.
    fn name(&self, address: &str) -> String {
        match self {
            Self::Mailbox(_) => format!("Mailbox {address}"),
            Self::Snapshot { .. } => format!("Mailbox {address}, in the snapshot,"),
        }
    }

    async fn export(
        &self,
        address: &str,
        folder: &Folder,
        into: &Path,
        kind: ExportForm,
    ) -> Result<Count, Failure> {
        let mut target = Target::make(into, kind)?;
        let mut count = Count::default();
        let mut take = |fetched: Fetched| {
            count.messages += 1;
            count.bytes += fetched.content.len() as u64;
            target.put(&fetched)
        };
        match self {
            Self::Mailbox(client) => {
                let messages = reader::list(client, address, folder).await?;
                reader::fetch_all(client, address, folder, &messages, take).await?;
            }
            Self::Snapshot { reader, mailbox_id } => {
                let folder = &folder.folder_id;
                for message in reader.messages(mailbox_id, folder).await? {
                    take(reader.fetch(mailbox_id, folder, message.uid).await?)?;
                }
            }
        }
        target.end()?;
        Ok(count)
    }

    async fn export_all(&self, args: &ExportArgs, folders: &[Folder]) -> Result<Count, Failure> {
        fs::create_dir_all(&args.into)?;
        let index = args.into.join(format!("folders{INDEX_ENDING}"));
        let mut index = BufWriter::new(File::create_new(index)?);
        let mut all = Count::default();
        for folder in folders {
            let mut place = places::place(folder, folders);
            if args.form == ExportForm::Mbox {
                place.as_mut_os_string().push(".mbox");
            }
            let into = args.into.join(&place);
            if let Some(above) = into.parent() {
                fs::create_dir_all(above)?;
            }
            let count = self.export(&args.address, folder, &into, args.form).await?;
            let line = serde_json::json!({
                "path": path(folder, folders),
                "place": place,
                "folder_id": folder.folder_id,
                "special_use": folder.special_use().as_str_name(),
                "uid_validity": folder.uid_validity,
                "uid_next": folder.uid_next,
                "messages": count.messages,
                "bytes": count.bytes,
            });
            writeln!(index, "{line}")?;
            all.messages += count.messages;
            all.bytes += count.bytes;
        }
        index.flush()?;
        Ok(all)
    }
}
