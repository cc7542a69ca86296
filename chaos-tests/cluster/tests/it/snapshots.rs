//! Snapshots of real nodes: what is in them, what rots in them, and what comes back out of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::damage::{files_below, find, flip_bit};
use cluster::{ask, trial};
use dag_client::v1::{DeleteFolderRequest, Folder, SystemFlag, UidSet};
use dag_client::{Append, Client, Delivery, Expunge};
use serde_json::Value;
use testkit::scratch::{Scratch, ScratchCluster};

pub const ADDRESS: &str = "ann@example.org";

/// A message as its owner knows it: folder, content, flags, keywords, date.
type Known = (String, Vec<u8>, u32, Vec<String>, i64);

/// A mailbox with mail of all sizes, delivered and filed.
pub struct Filed {
    pub client: Client,
    pub known: Vec<Known>,
}

impl Filed {
    /// Delivers into the INBOX and files into a folder and one below it.
    pub async fn make(cluster: &ScratchCluster, mails: u64) -> anyhow::Result<Self> {
        cluster.dagctl(["mailbox", "create", ADDRESS, "--db", "DB1"])?;
        let client = trial::client(cluster, Duration::from_secs(30))?;
        for number in 0..mails {
            let id = format!("filed-{number}");
            let sent = Delivery::new(id, [ADDRESS], testkit::mail::mixed(number));
            let report = client.deliver(sent).await?;
            ensure!(report.all_stored(), "{report:?}");
        }
        let sent = client.create_folder(ADDRESS, "", "Projects").await?;
        let below = client.create_folder(ADDRESS, &sent.folder_id, "Äpfel").await?;
        for number in 0..mails / 2 {
            let folder = if number % 2 == 0 { &sent } else { &below };
            let large = if number == 3 { vec![b'x'; 3 << 20] } else { Vec::new() };
            let content = [testkit::mail::mixed(1_000 + number), large].concat();
            let at = 1_600_000_000 + number as i64;
            client
                .append(
                    ADDRESS,
                    Append {
                        folder_id: folder.folder_id.clone(),
                        content: content.into(),
                        system_flags: SystemFlag::Seen as u32 * (number % 2) as u32,
                        keywords: vec![format!("k{}", number % 3)],
                        internal_date: Some(dag_client::Timestamp { seconds: at, nanos: 0 }),
                        ..Append::default()
                    },
                )
                .await?;
        }
        let known = contents(&client).await?;
        Ok(Self { client, known })
    }

    /// Nothing is left, and nothing can be restored from recoverable items.
    pub async fn destroy(&self) -> anyhow::Result<()> {
        let folders = self.client.folders(ADDRESS).await?;
        for folder in &folders {
            let uids = UidSet::range(1, u32::MAX);
            let folder_id = folder.folder_id.clone();
            let gone = Expunge { folder_id, uids, beyond_recovery: true, ..Expunge::default() };
            self.client.expunge(ADDRESS, gone).await?;
        }
        let of = |name: &str| folders.iter().find(|folder| folder.display_name == name);
        for name in ["Äpfel", "Projects"] {
            let folder_id = of(name).context("a folder")?.folder_id.clone();
            let request = DeleteFolderRequest { folder_id, ..DeleteFolderRequest::default() };
            self.client.delete_folder(ADDRESS, request).await?;
        }
        ensure!(contents(&self.client).await?.is_empty(), "something is left");
        Ok(())
    }

    /// Every message is there, once, as it was.
    pub async fn check(&self, what: &str) -> anyhow::Result<()> {
        let now = contents(&self.client).await?;
        let count = |all: &[Known]| {
            let mut found: BTreeMap<(String, usize, i64), usize> = BTreeMap::new();
            for (folder, content, _, _, date) in all {
                *found.entry((folder.clone(), content.len(), *date)).or_default() += 1;
            }
            found
        };
        if now != self.known {
            let (now, then) = (count(&now), count(&self.known));
            let differs = |key: &&(String, usize, i64)| now.get(*key) != then.get(*key);
            let which: Vec<_> = now.keys().chain(then.keys()).filter(differs).take(20).collect();
            anyhow::bail!("{what}: {} now, {} then; {which:?}", now.len(), then.len());
        }
        Ok(())
    }
}

/// All messages of all folders, by path and content.
async fn contents(client: &Client) -> anyhow::Result<Vec<Known>> {
    let folders = client.folders(ADDRESS).await?;
    let mut found = Vec::new();
    for folder in &folders {
        for message in client.list_all(ADDRESS, &folder.folder_id).await? {
            let fetched = client.fetch(ADDRESS, &folder.folder_id, message.uid).await?;
            let date = message.internal_date.map_or(0, |date| date.seconds);
            let content = fetched.content.to_vec();
            let path = path(folder, &folders);
            found.push((path, content, message.system_flags, message.keywords, date));
        }
    }
    found.sort();
    Ok(found)
}

fn path(folder: &Folder, all: &[Folder]) -> String {
    match all.iter().find(|above| above.folder_id == folder.parent_id) {
        Some(above) => format!("{}/{}", path(above, all), folder.display_name),
        None => folder.display_name.clone(),
    }
}

/// The id of the snapshot that is taken, and its line.
pub fn create(cluster: &ScratchCluster, options: &str) -> anyhow::Result<(String, Value)> {
    let taken = ask::json(cluster, &format!("snapshot create DB1 {options}"))?;
    let id = taken["snapshot_id"].as_str().context("a snapshot has an id")?;
    Ok((id.to_owned(), taken.clone()))
}

/// Runs `dagctl` with these words and gives its exit code and what it said.
pub fn ended(cluster: &ScratchCluster, command: &str) -> anyhow::Result<(i32, String)> {
    let output = cluster.try_dagctl(command.split_whitespace())?;
    let words = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&words).into_owned()))
}

/// A restore that is killed as soon as something came back.
pub async fn killed_restore(
    cluster: &ScratchCluster,
    client: &Client,
    id: &str,
) -> anyhow::Result<u64> {
    let mut command = cluster.command(["mail", "restore", ADDRESS, "--from-snapshot", id]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut restore = command.spawn()?;
    let end = Instant::now() + Duration::from_secs(30);
    let back = loop {
        let back = client.mailbox(ADDRESS).await?.messages;
        if back > 5 || restore.try_wait()?.is_some() {
            break back;
        }
        ensure!(Instant::now() < end, "nothing comes back");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    // It may have ended by itself; the caller counts how often it had not.
    let _ = restore.kill();
    restore.wait()?;
    Ok(back)
}

async fn formed() -> anyhow::Result<ScratchCluster> {
    let cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_snapshot_is_found_and_the_copy_with_the_same_file_is_built_anew()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = formed().await?;
    let filed = Filed::make(&cluster, 40).await?;
    let (id, taken) = create(&cluster, "--reason flip")?;
    let node = taken["node"].as_str().context("a node")?.to_owned();
    ensure!(node != ask::active(&cluster, "DB1")?, "a passive copy's: {taken}");
    ensure!(taken["state"] == "Unverified", "{taken}");
    let good = ask::json(&cluster, &format!("snapshot verify {id}"))?;
    ensure!(good["state"] == "Good", "{good}");
    let folder = PathBuf::from(taken["path"].as_str().context("a path")?);
    let files = files_below(&folder)?;
    let with_mail = files.iter().find_map(|file| Some((file, find(file, b"From: ").ok()??)));
    let (file, at) = with_mail.context("a file with mail in it")?;
    flip_bit(file, at + 3)?;
    let (code, words) = ended(&cluster, &format!("snapshot verify {id}"))?;
    let name = file.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(code == 3 && words.contains(&name), "{code}: {words}");
    for command in [
        format!("mail restore {ADDRESS} --from-snapshot {id}"),
        format!("snapshot mailboxes {id}"),
        format!("mail export {ADDRESS} {}/out --from-snapshot {id}", folder.display()),
    ] {
        let (code, words) = ended(&cluster, &command)?;
        ensure!(code == 1 && words.contains("damaged"), "{command}: {code}: {words}");
    }
    let listed = ask::json(&cluster, "snapshot list DB1")?;
    ensure!(listed["snapshots"][0]["state"] == "Bad", "{listed}");
    // The file was the copy's as well: it is replaced by one built from the others.
    wait_event(&cluster, "snapshot damaged")?;
    wait_event(&cluster, "admit copy")?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    filed.check("nothing of it was lost").await
}

fn wait_event(cluster: &ScratchCluster, what: &str) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let events = cluster.dagctl(["events"])?;
        if events.contains(what) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "no event {what}: {events}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_outlive_their_node_and_their_copy_and_are_listed_without_a_quorum()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = formed().await?;
    let filed = Filed::make(&cluster, 20).await?;
    let (id, taken) = create(&cluster, "--protect")?;
    let node = taken["node"].as_str().context("a node")?.to_owned();
    let others: Vec<String> = cluster.names().into_iter().filter(|name| *name != node).collect();
    cluster.kill(&node)?;
    let (code, words) = ended(&cluster, &format!("snapshot verify {id}"))?;
    ensure!(code == 1 && words.contains(&format!("{node} may have it")), "{words}");
    cluster.restart(std::slice::from_ref(&node)).await?;
    // Two of three are gone: no database serves, and the snapshot is read all the same.
    cluster.kill_all(&others)?;
    let listed = ask::json(&cluster, "snapshot list")?;
    ensure!(listed["snapshots"][0]["snapshot_id"] == id.as_str(), "{listed}");
    let missing = listed["missing"].as_array().context("missing nodes")?;
    ensure!(missing.len() == 2, "{listed}");
    let out = tempfile::tempdir()?;
    let into = out.path().join("inbox");
    let words = format!("mail export {ADDRESS} {} --from-snapshot {id}", into.display());
    let exported = ask::json(&cluster, &words)?;
    ensure!(exported["messages"] == 20, "{exported}");
    compare(&into, &filed)?;
    export_whole(&cluster, out.path(), &format!("--from-snapshot {id}"), &filed)?;
    let messages = ask::json(&cluster, &format!("snapshot messages {id} {ADDRESS} inbox"))?;
    let email = messages[0]["email_id"].as_str().context("an email id")?;
    let fetched = cluster.try_dagctl(["snapshot", "fetch", &id, ADDRESS, email])?;
    let is_it = |known: &&Known| known.0 == "INBOX" && known.1 == fetched.stdout;
    ensure!(filed.known.iter().any(|known| is_it(&known)), "what is fetched was delivered");
    cluster.restart(&others).await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    export_whole(&cluster, &out.path().join("now"), "", &filed)?;
    let (code, words) = ended(&cluster, &format!("snapshot delete {id}"))?;
    ensure!(code == 4 && words.contains("snapshot-protected"), "{code}: {words}");
    let (code, words) =
        ended(&cluster, &format!("snapshot delete {id} --skip snapshot-protected"))?;
    ensure!(code == 0, "{words}");
    let (code, words) = ended(&cluster, &format!("snapshot delete {id}"))?;
    ensure!(code == 1 && words.contains("no snapshot"), "nothing is deleted twice: {words}");
    wait_event(&cluster, "delete snapshot")?;
    let (code, words) = ended(&cluster, "snapshot create DB2")?;
    ensure!(code == 1 && words.contains("perhaps DB1"), "{words}");
    Ok(())
}

/// The files of an export are the INBOX's messages.
fn compare(into: &Path, filed: &Filed) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for file in files_below(into)? {
        files.push(std::fs::read(file)?);
    }
    files.sort();
    let inbox = filed.known.iter().filter(|known| known.0 == "INBOX");
    let inbox: Vec<Vec<u8>> = inbox.map(|known| known.1.clone()).collect();
    ensure!(files == inbox, "{} files of {} messages", files.len(), inbox.len());
    Ok(())
}

/// A whole mailbox in every form has each message where its folder is.
fn export_whole(
    cluster: &ScratchCluster,
    out: &Path,
    options: &str,
    filed: &Filed,
) -> anyhow::Result<()> {
    for (form, below) in [("eml", ""), ("maildir", "cur"), ("mbox", "")] {
        let into = out.join(form);
        let words = format!("{} --all-folders --form {form} {options}", into.display());
        let exported = ask::json(cluster, &format!("mail export {ADDRESS} {words}"))?;
        ensure!(exported["messages"] == filed.known.len() as u64, "{exported}");
        let index = std::fs::read_to_string(into.join("folders.index.json"))?;
        ensure!(index.lines().count() == 3, "{index}");
        for folder in ["INBOX", "Projects", "Projects/Äpfel"] {
            let of_folder = filed.known.iter().filter(|known| known.0 == folder);
            let wanted: Vec<&Vec<u8>> = of_folder.map(|known| &known.1).collect();
            if form == "mbox" {
                let mbox = std::fs::read_to_string(into.join(format!("{folder}.mbox.index.json")))?;
                ensure!(mbox.lines().count() == wanted.len(), "{folder}: {mbox}");
                continue;
            }
            let mut found = Vec::new();
            for entry in std::fs::read_dir(into.join(folder).join(below))? {
                let entry = entry?;
                if entry.file_type()?.is_file()
                    && !entry.file_name().to_string_lossy().ends_with("json")
                {
                    found.push(std::fs::read(entry.path())?);
                }
            }
            found.sort();
            ensure!(found.iter().eq(wanted), "{form}: {folder}: {} files", found.len());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_by_schedule_kept_for_its_time_and_goes_for_space() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let cluster = formed().await?;
    let _filed = Filed::make(&cluster, 10).await?;
    let (by_hand, _) = create(&cluster, "--protect")?;
    cluster.dagctl(["dag", "set", "--snapshot-every", "10", "--snapshots-kept", "1"])?;
    let scheduled = |listed: &Value| {
        let all = listed["snapshots"].as_array().cloned().unwrap_or_default();
        let by_schedule = all.into_iter().filter(|one| one["scheduled"] == true);
        by_schedule.collect::<Vec<Value>>()
    };
    let wait = |what: &str, wanted: &dyn Fn(&[Value]) -> bool| -> anyhow::Result<Vec<Value>> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let listed = ask::json(&cluster, "snapshot list")?;
            let found = scheduled(&listed);
            if wanted(&found) {
                return Ok(found);
            }
            ensure!(Instant::now() < end, "{what}: {listed}");
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    let first = wait("the first", &|found| found.len() == 1)?;
    let active = ask::active(&cluster, "DB1")?;
    ensure!(first[0]["node"] != active.as_str(), "never the active one: {first:?}");
    let id = first[0]["snapshot_id"].clone();
    let next = wait("the next", &|found| found.len() == 1 && found[0]["snapshot_id"] != id)?;
    ensure!(next[0]["node"] == first[0]["node"], "the choice stays: {next:?}");
    let listed = ask::json(&cluster, "snapshot list")?;
    let kept = listed["snapshots"].as_array().context("snapshots")?;
    ensure!(kept.iter().any(|one| one["snapshot_id"] == by_hand.as_str()), "protected: {listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_of_free_space_the_unprotected_snapshot_goes_with_an_event()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = formed().await?;
    let _filed = Filed::make(&cluster, 10).await?;
    let (kept, taken) = create(&cluster, "--protect")?;
    let node = taken["node"].as_str().context("a node")?.to_owned();
    create(&cluster, &format!("--node {node}"))?;
    cluster.stop(&node)?;
    // More than the disk has: the node is below its floor from its start on.
    let settings = cluster.node(&node)?.settings.clone();
    let text = std::fs::read_to_string(&settings)?;
    let changed = match text.contains("[budget]") {
        true => text.replace("[budget]", "[budget]\nsnapshot_floor = \"900TiB\""),
        false => format!("{text}\n[budget]\nsnapshot_floor = \"900TiB\"\n"),
    };
    std::fs::write(&settings, changed)?;
    cluster.restart(std::slice::from_ref(&node)).await?;
    wait_event(&cluster, "drop snapshot")?;
    let listed = ask::json(&cluster, "snapshot list")?;
    let left = listed["snapshots"].as_array().context("snapshots")?;
    ensure!(left.len() == 1 && left[0]["snapshot_id"] == kept.as_str(), "{listed}");
    let (code, words) = ended(&cluster, &format!("snapshot create DB1 --node {node}"))?;
    ensure!(code == 4 && words.contains("snapshot_floor"), "{code}: {words}");
    Ok(())
}
