//! Snapshots as they lie on the nodes: each node is asked for its own, and no quorum is needed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dag_api::admin::v1 as api;
use dag_api::admin::v1::snapshot_service_client::SnapshotServiceClient;
use dag_api::limits::{MESSAGE_BYTES_MAX, PAGE_MAX, WIRE_BYTES_MAX};
use dag_api::mailbox::v1::{Folder, Mailbox, MessageMeta};
use dag_api::{Problem, Reason};
use dag_client::Fetched;
use futures::future::join_all;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::admin::Admin;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::suggestion;
use crate::way::{Way, lost};

/// The generated client.
pub type Client = SnapshotServiceClient<Channel>;

const CONNECT: Duration = Duration::from_millis(1_500);
/// How long one call may take. What reads a whole snapshot says something again and again.
pub const CALL: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);
/// The fewest letters that an id may be named by.
const PREFIX_MIN: usize = 4;

/// A node that may have snapshots.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Its number; 0 where nobody knows it.
    pub id: u64,
    admin: SocketAddr,
    way: Way,
}

impl Holder {
    /// One call, with a time limit.
    pub async fn call<T, F>(&self, limit: Duration, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let shape = |to: tonic::transport::Endpoint| to.connect_timeout(CONNECT).timeout(limit);
        let channel = self.way.connect(self.admin, shape).await?;
        Ok(call(client(channel)).await.map_err(lost)?.into_inner())
    }

    /// The same, tried again while the node is away or busy.
    pub async fn insist<T, F>(
        &self,
        what: &str,
        patience: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + patience;
        loop {
            match self.call(CALL, &call).await {
                Ok(answer) => return Ok(answer),
                Err(status) if may_pass(&status) && Instant::now() < end => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => return Err(Failure::of_status(what, &status)),
            }
        }
    }
}

fn client(channel: Channel) -> Client {
    SnapshotServiceClient::new(channel).max_decoding_message_size(WIRE_BYTES_MAX * 4)
}

fn may_pass(status: &Status) -> bool {
    match Problem::from_status(status) {
        Some(problem) => problem.is_retryable(),
        None => {
            matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        }
    }
}

/// What the nodes say.
#[derive(Debug, Default)]
pub struct Listed {
    /// With the node that has it, and that node's clock in milliseconds since 1970.
    pub snapshots: Vec<(Holder, api::Snapshot, u64)>,
    /// Nodes that did not answer, and why. They may have more.
    pub missing: Vec<(String, String)>,
}

/// The nodes that may have snapshots, as any of them knows.
pub async fn holders(admin: &Admin) -> Result<Vec<Holder>, Failure> {
    let status = admin.get_status().await?;
    let holder = |node: &api::NodeStatus| {
        let known = node.node.clone().unwrap_or_default();
        let admin_address = node.admin_address.parse().ok()?;
        let way = admin.way().clone();
        Some(Holder { name: known.name, id: known.node_id, admin: admin_address, way })
    };
    Ok(status.nodes.iter().filter(|node| !node.witness).filter_map(holder).collect())
}

/// Asks every node for its snapshots of a database, or of all (empty).
pub async fn list(admin: &Admin, database: &str) -> Result<Listed, Failure> {
    let holders = holders(admin).await?;
    let ask = |holder: &Holder| {
        let (holder, request) =
            (holder.clone(), api::ListSnapshotsRequest { database_name: database.to_owned() });
        async move {
            let call = |mut client: Client| {
                let request = request.clone();
                async move { client.list_snapshots(request).await }
            };
            let answer = holder.call(CALL, call).await;
            (holder, answer)
        }
    };
    let mut listed = Listed::default();
    for (holder, answer) in join_all(holders.iter().map(ask)).await {
        match answer {
            Ok(answer) => {
                let now = answer.now.map_or(0, |now| millis(&now));
                let found = answer.snapshots.into_iter();
                listed.snapshots.extend(found.map(|found| (holder.clone(), found, now)));
            }
            Err(status) => listed.missing.push((holder.name, status.message().to_owned())),
        }
    }
    listed.snapshots.sort_by(|(a, one, _), (b, next, _)| {
        let key = |holder: &Holder, snapshot: &api::Snapshot| {
            let taken = snapshot.take_time.as_ref().map_or(0, millis);
            (snapshot.database_name.clone(), taken, holder.id)
        };
        key(a, one).cmp(&key(b, next))
    });
    Ok(listed)
}

/// Milliseconds since 1970.
pub fn millis(at: &dag_client::Timestamp) -> u64 {
    u64::try_from(at.seconds).unwrap_or(0) * 1_000
        + u64::try_from(at.nanos).unwrap_or(0) / 1_000_000
}

/// The one snapshot of this id, or whose id begins so.
pub async fn find(admin: &Admin, text: &str) -> Result<(Holder, api::Snapshot), Failure> {
    let Listed { snapshots, missing } = list(admin, "").await?;
    let ids: Vec<&str> = snapshots.iter().map(|(_, one, _)| one.snapshot_id.as_str()).collect();
    match chosen(&ids, text).as_slice() {
        [at] => {
            let (holder, snapshot, _) = snapshots[*at].clone();
            Ok((holder, snapshot))
        }
        several if !several.is_empty() => {
            let named: Vec<&str> = several.iter().map(|at| ids[*at]).collect();
            Err(Failure::new(Exit::Usage, format!("Several snapshots begin with {text}."))
                .why(named.join(", ")))
        }
        _ => {
            let known = if ids.is_empty() {
                "no node that answers has a snapshot".to_owned()
            } else {
                suggestion(text, &ids, "snapshots")
            };
            let mut failure =
                Failure::new(Exit::Failed, format!("There is no snapshot {text}.")).why(known);
            failure.reason = Some(Reason::SnapshotNotFound.as_str());
            for (node, why) in missing {
                failure = failure.why(format!("{node} may have it: {why}"));
            }
            Err(failure.next("dagctl snapshot list"))
        }
    }
}

/// Which of these ids are meant.
fn chosen(ids: &[&str], text: &str) -> Vec<usize> {
    let text = text.to_ascii_lowercase();
    let long = text.len() >= PREFIX_MIN;
    let meant = |id: &str| id == text || (long && id.starts_with(&text));
    ids.iter().enumerate().filter(|(_, id)| meant(id)).map(|(at, _)| at).collect()
}

/// Reads out of one snapshot.
pub struct Reader {
    holder: Holder,
    /// Which one.
    pub snapshot: api::Snapshot,
    patience: Duration,
}

impl Reader {
    /// Finds it, and refuses one that was found damaged.
    pub async fn open(admin: &Admin, text: &str, patience: Duration) -> Result<Self, Failure> {
        let (holder, snapshot) = find(admin, text).await?;
        if snapshot.state() == api::SnapshotState::Bad {
            let what = format!("Snapshot {} is not used.", snapshot.snapshot_id);
            let mut failure = Failure::new(Exit::Failed, what).why("it is damaged");
            failure.reason = Some(Reason::SnapshotDamaged.as_str());
            failure.why.extend(snapshot.findings.iter().cloned());
            return Err(failure.next("dagctl snapshot list"));
        }
        Ok(Self { holder, snapshot, patience })
    }

    fn id(&self) -> String {
        self.snapshot.snapshot_id.clone()
    }

    fn what(&self) -> String {
        format!("Cannot read snapshot {} on {}.", self.snapshot.snapshot_id, self.holder.name)
    }

    /// All mailboxes.
    pub async fn mailboxes(&self) -> Result<Vec<Mailbox>, Failure> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = api::ListSnapshotMailboxesRequest {
                snapshot_id: self.id(),
                page_size: PAGE_MAX,
                page_token: page_token.clone(),
            };
            let call = |mut client: Client| {
                let request = request.clone();
                async move { client.list_snapshot_mailboxes(request).await }
            };
            let page = self.holder.insist(&self.what(), self.patience, call).await?;
            all.extend(page.mailboxes);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// A mailbox with its folders, by an address that it had or by its id.
    pub async fn folders(&self, mailbox: &str) -> Result<(Mailbox, Vec<Folder>), Failure> {
        let request =
            api::ListSnapshotFoldersRequest { snapshot_id: self.id(), mailbox: mailbox.to_owned() };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.list_snapshot_folders(request).await }
        };
        let answer = self.holder.insist(&self.what(), self.patience, call).await?;
        Ok((answer.mailbox.unwrap_or_default(), answer.folders))
    }

    /// What is in a folder, ascending by UID.
    pub async fn messages(
        &self,
        mailbox_id: &str,
        folder_id: &str,
    ) -> Result<Vec<MessageMeta>, Failure> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = api::ListSnapshotMessagesRequest {
                snapshot_id: self.id(),
                mailbox_id: mailbox_id.to_owned(),
                folder_id: folder_id.to_owned(),
                page_size: PAGE_MAX,
                page_token: page_token.clone(),
            };
            let call = |mut client: Client| {
                let request = request.clone();
                async move { client.list_snapshot_messages(request).await }
            };
            let page = self.holder.insist(&self.what(), self.patience, call).await?;
            all.extend(page.messages);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// A message with its content, checked against its digest.
    pub async fn fetch(
        &self,
        mailbox_id: &str,
        folder_id: &str,
        uid: u32,
    ) -> Result<Fetched, Failure> {
        let request = api::FetchSnapshotMessageRequest {
            snapshot_id: self.id(),
            mailbox_id: mailbox_id.to_owned(),
            folder_id: folder_id.to_owned(),
            uid,
        };
        let end = Instant::now() + self.patience;
        loop {
            match self.fetch_once(&request).await {
                Ok(fetched) => return Ok(fetched),
                Err(status) if may_pass(&status) && Instant::now() < end => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => return Err(Failure::of_status(self.what(), &status)),
            }
        }
    }

    async fn fetch_once(
        &self,
        request: &api::FetchSnapshotMessageRequest,
    ) -> Result<Fetched, Status> {
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.fetch_snapshot_message(request).await }
        };
        let mut frames = self.holder.call(CALL, call).await?;
        let wrong = || Status::data_loss("the message did not come as it was stored");
        let first = frames.message().await.map_err(lost)?.ok_or_else(wrong)?;
        let message = first.message.ok_or_else(wrong)?;
        if message.size > MESSAGE_BYTES_MAX {
            return Err(wrong());
        }
        let mut content = BytesMut::with_capacity(message.size as usize);
        while let Some(frame) = frames.message().await.map_err(lost)? {
            let chunk = frame.chunk.ok_or_else(wrong)?;
            if chunk.offset != content.len() as u64 || content.len() as u64 > message.size {
                return Err(wrong());
            }
            content.extend_from_slice(&chunk.data);
        }
        if *blake3::hash(&content).as_bytes() != message.blake3[..] {
            return Err(wrong());
        }
        Ok(Fetched { message, content: content.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_named_by_its_beginning_where_that_is_not_too_short() {
        let ids = ["0123456789", "0123ffffff", "abcdef0000"];
        assert_eq!(chosen(&ids, "abcd"), [2]);
        assert_eq!(chosen(&ids, "ABCDEF"), [2]);
        assert_eq!(chosen(&ids, "0123"), [0, 1]);
        assert_eq!(chosen(&ids, "01234"), [0]);
        assert_eq!(chosen(&ids, "abc"), Vec::<usize>::new());
        assert_eq!(chosen(&ids, "ffff"), Vec::<usize>::new());
    }
}
