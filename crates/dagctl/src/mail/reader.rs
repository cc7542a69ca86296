//! Reads a whole folder back, many messages at once.

use dag_client::v1::{Folder, MessageMeta};
use dag_client::{Client, Fetched};
use futures::stream::{StreamExt as _, TryStreamExt as _};

use crate::command::mailbox::path;
use crate::connect::failure;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::suggestion;

/// Messages that are fetched at the same time.
const FETCHES: usize = 32;

/// Finds a folder by its path, levels joined by `/`; the INBOX when none is given.
pub async fn folder(client: &Client, address: &str, name: Option<&str>) -> Result<Folder, Failure> {
    let what = || format!("Cannot read mailbox {address}.");
    let Some(name) = name else {
        return client.inbox(address).await.map_err(|error| failure(what(), &error));
    };
    let folders = client.folders(address).await.map_err(|error| failure(what(), &error))?;
    named(&folders, name, &format!("Mailbox {address}")).cloned()
}

/// The folder of this path among all of a mailbox; the INBOX in any case.
pub fn named<'f>(folders: &'f [Folder], name: &str, whose: &str) -> Result<&'f Folder, Failure> {
    let paths: Vec<String> = folders.iter().map(|folder| path(folder, folders)).collect();
    let same = |path: &String| {
        *path == name || (name.eq_ignore_ascii_case("INBOX") && path.eq_ignore_ascii_case(name))
    };
    paths.iter().position(same).map(|at| &folders[at]).ok_or_else(|| {
        let known: Vec<&str> = paths.iter().map(String::as_str).collect();
        Failure::new(Exit::Failed, format!("{whose} has no folder `{name}`."))
            .why(suggestion(name, &known, "folders"))
    })
}

/// What is in a folder, ascending by UID.
pub async fn list(
    client: &Client,
    address: &str,
    folder: &Folder,
) -> Result<Vec<MessageMeta>, Failure> {
    let listed = client.list_all(address, &folder.folder_id).await;
    listed.map_err(|error| failure(format!("Cannot list mailbox {address}."), &error))
}

/// Fetches these messages and hands each over, ascending by UID.
pub async fn fetch_all(
    client: &Client,
    address: &str,
    folder: &Folder,
    messages: &[MessageMeta],
    mut take: impl FnMut(Fetched) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fetch = |uid| async move {
        let fetched = client.fetch(address, &folder.folder_id, uid).await;
        let what = || format!("Cannot fetch message {uid} of mailbox {address}.");
        fetched.map_err(|error| failure(what(), &error))
    };
    let uids: Vec<u32> = messages.iter().map(|message| message.uid).collect();
    let mut fetched = futures::stream::iter(uids).map(fetch).buffered(FETCHES);
    while let Some(message) = fetched.try_next().await? {
        take(message)?;
    }
    Ok(())
}
