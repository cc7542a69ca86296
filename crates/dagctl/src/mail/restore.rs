//! Brings messages back out of a snapshot, each once, however often it is asked for.
//!
//! Messages go the ordinary way: they are appended where the mailbox is active now, get new UIDs,
//! and keep content, flags, keywords and date. Nothing that is in the mailbox is changed.
//!
//! What keeps a repetition from doubling anything:
//!
//! * what is in the folder already is left out: by its email id, else by content and date, because
//!   what was brought back before has a new email id;
//! * each message has a request id made of the snapshot, its place in it, and the folder it goes
//!   to. An append whose answer was lost, or that a killed command left on its way, is found again
//!   by it. Where that request was carried out long ago and the message is gone since, the next
//!   number of the same id is used.

use std::collections::HashMap;

use dag_client::v1::{Appended, CreateFolderRequest, Folder, MessageMeta, SpecialUse, UidSet};
use dag_client::{Append, Client};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::command::mailbox::path;
use crate::connect::failure;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::mail::reader::named;
use crate::snapshots::Reader;

/// Messages that are on their way at the same time.
const IN_FLIGHT: usize = 8;
/// How often one message may be brought back within the time that request ids are remembered.
const TURNS: u32 = 1_000;

/// What shall come back.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The mailbox's address.
    pub address: String,
    /// Only this folder of the snapshot.
    pub folder: Option<String>,
    /// Only this message.
    pub message: Option<String>,
    /// Into this folder, or below it.
    pub to: Option<String>,
    /// What is there already as well.
    pub again: bool,
}

/// What would come back to one folder.
#[derive(Debug, Clone, Serialize)]
pub struct FolderPlan {
    /// Its path in the snapshot.
    pub from: String,
    /// Its path in the mailbox.
    pub to: String,
    /// There is no such folder now.
    pub made: bool,
    /// Messages that it has in the snapshot.
    pub in_snapshot: usize,
    /// Of these, what is in the folder already.
    pub there: usize,
    /// Of these, what comes back.
    pub messages: usize,
    /// Their bytes.
    pub bytes: u64,
    #[serde(skip)]
    source: Folder,
    #[serde(skip)]
    wanted: Vec<MessageMeta>,
}

/// A plan for a mailbox.
pub struct Plan {
    /// By the folders' paths.
    pub folders: Vec<FolderPlan>,
    mailbox_id: String,
    again: bool,
}

impl Plan {
    /// Whether carrying it out changes anything.
    pub fn changes(&self) -> bool {
        self.folders.iter().any(|folder| folder.made || folder.messages > 0)
    }
}

/// What a restore came to.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Restored {
    /// Messages that are in the mailbox now and were not before.
    pub restored: u64,
    /// Messages that were brought back before.
    pub already_there: u64,
    /// Bytes of what was restored.
    pub bytes: u64,
    /// Folders that were made.
    pub folders_made: u64,
}

/// Compares the snapshot with the mailbox as it is now. Nothing is changed.
pub async fn plan(reader: &Reader, client: &Client, wish: &Wish) -> Result<Plan, Failure> {
    let address = wish.address.as_str();
    let what = || format!("Cannot restore mailbox {address}.");
    let place = client.locate(address).await.map_err(|error| {
        failure(what(), &error).next(format!("dagctl mailbox create {address}"))
    })?;
    let (mailbox, theirs) = then(reader, &place.mailbox.to_string(), address).await?;
    let ours = client.folders(address).await.map_err(|error| failure(what(), &error))?;
    let same_mailbox = mailbox == place.mailbox.to_string();
    let chosen: Vec<&Folder> = match &wish.folder {
        Some(name) => vec![named(&theirs, name, "The mailbox, in the snapshot,")?],
        None => theirs.iter().collect(),
    };
    let mut plan = Plan { folders: Vec::new(), mailbox_id: mailbox, again: wish.again };
    for source in chosen {
        let mut messages = reader.messages(&plan.mailbox_id, &source.folder_id).await?;
        if let Some(email_id) = &wish.message {
            messages.retain(|message| message.email_id == *email_id);
            if messages.is_empty() {
                continue;
            }
        }
        let from = path(source, &theirs);
        let (to, target) = goal(wish, source, &from, &ours, same_mailbox);
        let in_snapshot = messages.len();
        let wanted = match target {
            Some(folder) if !wish.again => {
                let listed = client.list_all(address, &folder.folder_id).await;
                missing(messages, &listed.map_err(|error| failure(what(), &error))?)
            }
            _ => messages,
        };
        plan.folders.push(FolderPlan {
            from,
            to,
            made: target.is_none(),
            in_snapshot,
            there: in_snapshot - wanted.len(),
            messages: wanted.len(),
            bytes: wanted.iter().map(|message| message.size).sum(),
            source: source.clone(),
            wanted,
        });
    }
    if let (Some(email_id), true) = (&wish.message, plan.folders.is_empty()) {
        let what = format!("The snapshot has no message {email_id} in that mailbox.");
        let id = &reader.snapshot.snapshot_id;
        let next = format!("dagctl snapshot folders {id} {address}");
        return Err(Failure::new(Exit::Failed, what).next(next));
    }
    plan.folders.sort_by(|one, next| one.to.cmp(&next.to));
    Ok(plan)
}

/// The mailbox as it was: by its id, which stays, else by the address that it had.
async fn then(
    reader: &Reader,
    mailbox_id: &str,
    address: &str,
) -> Result<(String, Vec<Folder>), Failure> {
    let found = match reader.folders(mailbox_id).await {
        Err(failure) if failure.reason == Some("MAILBOX_NOT_FOUND") => {
            reader.folders(address).await?
        }
        found => found?,
    };
    Ok((found.0.mailbox_id, found.1))
}

/// Where the messages of a folder go, and that folder where it is there.
fn goal<'f>(
    wish: &Wish,
    source: &Folder,
    from: &str,
    ours: &'f [Folder],
    same_mailbox: bool,
) -> (String, Option<&'f Folder>) {
    // A folder that was renamed since is still the one that they were in.
    let same = |folder: &&Folder| {
        folder.folder_id == source.folder_id && folder.uid_validity == source.uid_validity
    };
    let renamed = ours.iter().find(same).filter(|_| same_mailbox && wish.to.is_none());
    if let Some(folder) = renamed {
        return (path(folder, ours), Some(folder));
    }
    let single = wish.folder.is_some() || wish.message.is_some();
    let to = match &wish.to {
        None => from.to_owned(),
        Some(to) if single => to.clone(),
        Some(to) => format!("{to}/{from}"),
    };
    let found = find(ours, &to);
    (to, found)
}

/// The folder with this path; the INBOX in any case.
fn find<'f>(folders: &'f [Folder], wanted: &str) -> Option<&'f Folder> {
    let inbox =
        |path: &str| path.eq_ignore_ascii_case("INBOX") && wanted.eq_ignore_ascii_case("INBOX");
    folders.iter().find(|folder| {
        let path = path(folder, folders);
        path == wanted || inbox(&path)
    })
}

/// What a message is by its content: what was brought back before has another email id.
type Content = (Vec<u8>, Option<(i64, i32)>);

fn content(message: &MessageMeta) -> Content {
    let date = message.internal_date.as_ref().map(|date| (date.seconds, date.nanos));
    (message.blake3.to_vec(), date)
}

/// Messages of a snapshot that are not in a folder now. Each message there counts for one: two equal
/// ones of the snapshot need two.
fn missing(wanted: Vec<MessageMeta>, there: &[MessageMeta]) -> Vec<MessageMeta> {
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut by_content: HashMap<Content, Vec<usize>> = HashMap::new();
    for (at, message) in there.iter().enumerate() {
        by_id.entry(&message.email_id).or_default().push(at);
        by_content.entry(content(message)).or_default().push(at);
    }
    let mut used = vec![false; there.len()];
    let mut take = |known: Option<&mut Vec<usize>>| {
        let known = known?;
        while let Some(at) = known.pop() {
            if !used[at] {
                used[at] = true;
                return Some(());
            }
        }
        None
    };
    let by_their_id: Vec<bool> = wanted
        .iter()
        .map(|message| take(by_id.get_mut(message.email_id.as_str())).is_some())
        .collect();
    let rest = wanted.into_iter().zip(by_their_id).filter(|(_, found)| !found);
    let rest: Vec<MessageMeta> = rest.map(|(message, _)| message).collect();
    rest.into_iter().filter(|one| take(by_content.get_mut(&content(one))).is_none()).collect()
}

/// A restore on its way.
pub struct Restore<'a> {
    /// Out of which snapshot.
    pub reader: &'a Reader,
    /// Connected to the DAG.
    pub client: &'a Client,
    /// Whose mailbox.
    pub address: &'a str,
    /// Is told of each message that is there, with its bytes.
    pub told: &'a (dyn Fn(u64) + Sync),
}

impl Restore<'_> {
    /// Carries a plan out. Where it ends early, the same command goes on from there.
    pub async fn run(&self, plan: &Plan) -> Result<Restored, Failure> {
        let mut restored = Restored::default();
        for folder in &plan.folders {
            let target = self.make(&folder.to, &folder.source, &mut restored).await?;
            let one = |message: &MessageMeta| {
                let (message, target) = (message.clone(), target.clone());
                async move { self.bring(plan, &folder.source, &message, &target).await }
            };
            let mut messages = stream::iter(&folder.wanted).map(one).buffered(IN_FLIGHT);
            while let Some((is_new, bytes)) = messages.try_next().await? {
                match is_new {
                    true => {
                        (restored.restored, restored.bytes) =
                            (restored.restored + 1, restored.bytes + bytes)
                    }
                    false => restored.already_there += 1,
                }
                (self.told)(bytes);
            }
        }
        Ok(restored)
    }

    fn failed(&self, error: &dag_client::Error) -> Failure {
        let what = format!("Mailbox {} is not restored to its end.", self.address);
        failure(what, error).next("repeat the same command: nothing is restored twice")
    }

    /// The folder with this path, made with those above it where it is not there.
    async fn make(
        &self,
        wanted: &str,
        source: &Folder,
        restored: &mut Restored,
    ) -> Result<Folder, Failure> {
        let mut folders =
            self.client.folders(self.address).await.map_err(|error| self.failed(&error))?;
        if let Some(found) = find(&folders, wanted) {
            return Ok(found.clone());
        }
        let levels: Vec<&str> = wanted.split('/').collect();
        let mut above = String::new();
        for depth in 1..=levels.len() {
            let so_far = levels[..depth].join("/");
            let made = match find(&folders, &so_far) {
                Some(found) => found.clone(),
                None => {
                    let last = depth == levels.len();
                    let like = last.then_some(source);
                    let made = self.make_one(&above, levels[depth - 1], like, &folders).await?;
                    restored.folders_made += 1;
                    folders.push(made.clone());
                    made
                }
            };
            above = made.folder_id;
        }
        let found = folders.iter().find(|folder| folder.folder_id == above).cloned();
        Ok(found.expect("it was found or made just now"))
    }

    async fn make_one(
        &self,
        parent_id: &str,
        name: &str,
        like: Option<&Folder>,
        ours: &[Folder],
    ) -> Result<Folder, Failure> {
        let wanted = like.map_or(SpecialUse::Unspecified, Folder::special_use);
        let taken = ours.iter().any(|folder| folder.special_use() == wanted);
        let special_use = match wanted {
            SpecialUse::Inbox => SpecialUse::Unspecified,
            _ if taken => SpecialUse::Unspecified,
            free => free,
        };
        let request = CreateFolderRequest {
            parent_id: parent_id.to_owned(),
            display_name: name.to_owned(),
            special_use: special_use.into(),
            ..CreateFolderRequest::default()
        };
        let made = self.client.make_folder(self.address, request).await;
        match made {
            Ok(made) => Ok(made.folder.unwrap_or_default()),
            Err(error) if is_there(&error) => {
                let folders = self.client.folders(self.address).await;
                let folders = folders.map_err(|error| self.failed(&error))?;
                let same = |f: &&Folder| f.parent_id == parent_id && f.display_name == name;
                folders.iter().find(same).cloned().ok_or_else(|| self.failed(&error))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Brings one message back. Gives whether it is new, and its bytes.
    async fn bring(
        &self,
        plan: &Plan,
        source: &Folder,
        message: &MessageMeta,
        target: &Folder,
    ) -> Result<(bool, u64), Failure> {
        let folder = source.folder_id.as_str();
        let fetched = self.reader.fetch(&plan.mailbox_id, folder, message.uid).await?;
        let bytes = fetched.content.len() as u64;
        for turn in 1..=TURNS {
            let append = Append {
                folder_id: target.folder_id.clone(),
                content: fetched.content.clone(),
                system_flags: message.system_flags,
                keywords: message.keywords.clone(),
                internal_date: message.internal_date,
                expected_uid_validity: 0,
                request_id: Some(self.request_id(plan, source, message, target, turn)),
            };
            let appended = self.client.append(self.address, append).await;
            let appended = appended.map_err(|error| self.failed(&error))?;
            if !appended.replayed {
                return Ok((true, bytes));
            }
            // It was carried out before; it is there, or it went since.
            if plan.again || self.is_there(target, &appended).await? {
                return Ok((false, bytes));
            }
        }
        let what = format!("Message {} was restored {TURNS} times today.", message.email_id);
        Err(Failure::new(Exit::Failed, what).next("dagctl mail restore ... --to FOLDER"))
    }

    fn request_id(
        &self,
        plan: &Plan,
        source: &Folder,
        message: &MessageMeta,
        target: &Folder,
        turn: u32,
    ) -> String {
        let again = if plan.again { "again" } else { "" };
        format!(
            "restore{again}-{}-{}-{}-{}-{turn}",
            self.reader.snapshot.snapshot_id, source.folder_id, message.uid, target.folder_id
        )
    }

    async fn is_there(&self, folder: &Folder, appended: &Appended) -> Result<bool, Failure> {
        if appended.uid_validity != folder.uid_validity {
            return Ok(false);
        }
        let one = UidSet::range(appended.uid, appended.uid);
        let page = self.client.list(self.address, &folder.folder_id, Some(one), "").await;
        Ok(!page.map_err(|error| self.failed(&error))?.messages.is_empty())
    }
}

fn is_there(error: &dag_client::Error) -> bool {
    error.problem().is_some_and(|problem| problem.reason == dag_client::Reason::FolderExists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(email_id: &str, content: u8, date: i64) -> MessageMeta {
        MessageMeta {
            email_id: email_id.into(),
            blake3: vec![content; 32].into(),
            internal_date: Some(dag_client::Timestamp { seconds: date, nanos: 0 }),
            ..MessageMeta::default()
        }
    }

    fn left(wanted: &[MessageMeta], there: &[MessageMeta]) -> Vec<String> {
        let missing = missing(wanted.to_vec(), there);
        missing.into_iter().map(|message| message.email_id).collect()
    }

    #[test]
    fn what_is_there_by_id_or_by_content_and_date_is_left_out_and_each_counts_once() {
        let wanted = [message("m-1", 1, 10), message("m-2", 2, 20), message("m-3", 2, 20)];
        assert_eq!(left(&wanted, &[]), ["m-1", "m-2", "m-3"]);
        assert_eq!(left(&wanted, &[message("m-1", 1, 10)]), ["m-2", "m-3"]);
        assert_eq!(left(&wanted, &[message("m-9", 2, 20)]), ["m-1", "m-3"], "one for one");
        let two = [message("m-9", 2, 20), message("m-8", 2, 20)];
        assert_eq!(left(&wanted, &two), ["m-1"]);
        let same = [message("m-3", 2, 20)];
        assert_eq!(left(&wanted, &same), ["m-1", "m-2"], "it stands for itself alone");
        let later = [message("m-9", 2, 21)];
        assert_eq!(left(&wanted, &later), ["m-1", "m-2", "m-3"], "another date is another one");
    }

    fn folder(id: &str, parent: &str, name: &str, uid_validity: u32) -> Folder {
        Folder {
            folder_id: id.into(),
            parent_id: parent.into(),
            display_name: name.into(),
            uid_validity,
            ..Folder::default()
        }
    }

    #[test]
    fn messages_go_to_the_folder_that_they_were_in_whatever_it_is_called_now() {
        let ours = [folder("f1", "", "INBOX", 1), folder("f2", "", "Renamed", 2)];
        let goal = |wish: &Wish, source: &Folder, same| {
            let (to, found) = goal(wish, source, &source.display_name, &ours, same);
            (to, found.map(|folder| folder.folder_id.clone()))
        };
        let whole = Wish::default();
        let old = folder("f2", "", "Work", 2);
        assert_eq!(goal(&whole, &old, true), ("Renamed".into(), Some("f2".into())));
        assert_eq!(goal(&whole, &old, false), ("Work".into(), None), "another mailbox's f2");
        let anew = folder("f2", "", "Work", 9);
        assert_eq!(goal(&whole, &anew, true), ("Work".into(), None), "f2 was made anew");
        let inbox = folder("f1", "", "inbox", 7);
        assert_eq!(goal(&whole, &inbox, true), ("inbox".into(), Some("f1".into())));
        let below = Wish { to: Some("Back".into()), ..Wish::default() };
        assert_eq!(goal(&below, &old, true), ("Back/Work".into(), None));
        let single = Wish { folder: Some("Work".into()), ..below };
        assert_eq!(goal(&single, &old, true), ("Back".into(), None));
    }
}
