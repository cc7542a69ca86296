//! A front end in miniature: what an LMTP server does with a mail, and an IMAP server with a folder.
//!
//! ```text
//! cargo run --release -p dag-client --example front_end -- http://127.1.0.1:7400 ann@example.org
//! ```
//! The mailbox is made where it is not there. Every step is checked; the program ends with an error
//! at the first one that does not answer what the API promises.

use std::error::Error;

use bytes::Bytes;
use dag_client::v1::{
    FetchMessageRequest, FlagOperation, GetChangesRequest, ListMessagesRequest, MailboxSettings,
    MessageView, MoveMessagesRequest, SystemFlag, UidSet, UpdateMailboxRequest,
};
use dag_client::{Client, Delivery, Expunge, FieldMask, FlagChange, Options, Reason, WatchEvent};

type Outcome<T> = Result<T, Box<dyn Error>>;

const MAIL: &str = "From: Ben <ben@example.org>\r\n\
To: Ann <ann@example.org>\r\n\
Subject: Minutes\r\n\
Message-ID: <minutes@example.org>\r\n\
\r\n\
Nothing was decided.\r\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let (Some(endpoint), Some(address)) = (words.next(), words.next()) else {
        return Err("usage: front_end ENDPOINT ADDRESS".into());
    };
    // Any node will do: it says where the mailbox is active.
    let client = Client::connect([endpoint], Options::default())?;
    open(&client, &address).await?;
    let uid = deliver(&client, &address).await?;
    read(&client, &address, uid).await?;
    file(&client, &address, uid).await?;
    println!("everything as promised");
    Ok(())
}

/// A mailbox whose expunged messages can be restored for a week.
async fn open(client: &Client, address: &str) -> Outcome<()> {
    match client.create_mailbox(address).await {
        Ok(_) => println!("made {address}"),
        Err(error) if error.problem().is_some_and(|p| p.reason == Reason::MailboxExists) => {}
        Err(error) => return Err(error.into()),
    }
    let settings =
        MailboxSettings { retention_ms: 7 * 24 * 3_600_000, ..MailboxSettings::default() };
    let update = UpdateMailboxRequest {
        settings: Some(settings),
        update_mask: Some(FieldMask { paths: vec!["retention_ms".into()] }),
        ..UpdateMailboxRequest::default()
    };
    client.update_mailbox(address, update).await?;
    Ok(())
}

/// What comes before a "250" to the sending server. The id is the sender's queue id: the same for
/// each of its attempts.
async fn deliver(client: &Client, address: &str) -> Outcome<u32> {
    let inbox = client.inbox(address).await?;
    let since = client.mailbox(address).await?.highest_modseq;
    let mut watch = client.watch(address, Some(since));
    watch.begin().await?;
    let id = format!("example-{since}");
    let delivery = || Delivery {
        delivery_id: id.clone(),
        envelope_from: "ben@example.org".into(),
        recipients: vec![address.to_owned()],
        content: Bytes::from_static(MAIL.as_bytes()),
        ..Delivery::default()
    };
    let first = stored(client.deliver(delivery()).await?)?;
    // The answer was lost, and it is sent again: nothing is stored twice.
    let again = stored(client.deliver(delivery()).await?)?;
    assert_eq!(first, again);
    println!("stored as UID {first} of {}", inbox.folder_id);
    match watch.next().await? {
        WatchEvent::Changed(changed) => println!("the watch told {} change", changed.changes.len()),
        WatchEvent::Overflow { .. } => return Err("one delivery is not too much".into()),
    }
    Ok(first)
}

fn stored(report: dag_client::DeliveryReport) -> Outcome<u32> {
    let recipient = report.recipients.first().ok_or("no recipient")?;
    let stored = recipient.result.as_ref().map_err(|error| error.to_string())?;
    Ok(stored.result.uid)
}

/// What an IMAP server's FETCH needs.
async fn read(client: &Client, address: &str, uid: u32) -> Outcome<()> {
    let inbox = client.inbox(address).await?.folder_id;
    let whole = client.fetch(address, &inbox, uid).await?;
    assert_eq!(whole.content, MAIL);
    let list = ListMessagesRequest {
        folder_id: inbox.clone(),
        uids: Some(UidSet::range(uid, uid)),
        view: MessageView::Full.into(),
        ..ListMessagesRequest::default()
    };
    let listed = client.list_messages(address, list).await?.messages;
    let envelope = listed[0].envelope.clone().ok_or("no envelope")?;
    assert_eq!((&*envelope.subject, &*listed[0].preview), ("Minutes", "Nothing was decided."));
    let part = FetchMessageRequest {
        folder_id: inbox,
        uid,
        section: "TEXT".into(),
        ..FetchMessageRequest::default()
    };
    assert_eq!(client.fetch_section(address, part).await?.content, "Nothing was decided.\r\n");
    println!("read, by section too");
    Ok(())
}

/// Flags, another folder, and what another session has to be told of it.
async fn file(client: &Client, address: &str, uid: u32) -> Outcome<()> {
    let inbox = client.inbox(address).await?.folder_id;
    let since = client.mailbox(address).await?.highest_modseq;
    let name = format!("filed {since}");
    let folder = client.create_folder(address, "", &name).await?.folder_id;
    let flags = FlagChange {
        folder_id: inbox.clone(),
        uids: UidSet::range(uid, uid),
        operation: FlagOperation::Add,
        system_flags: SystemFlag::Seen as u32,
        keywords: vec!["$Work".into()],
        unchanged_since: None,
        expected_uid_validity: 0,
        request_id: None,
    };
    client.store_flags(address, flags).await?;
    let transfer = MoveMessagesRequest {
        folder_id: inbox.clone(),
        uids: Some(UidSet::range(uid, uid)),
        to_folder_id: folder.clone(),
        ..MoveMessagesRequest::default()
    };
    let moved = client.move_messages(address, transfer).await?;
    let there = moved.target.unwrap_or_default();
    let changes = GetChangesRequest { since_modseq: since, ..GetChangesRequest::default() };
    let changes = client.changes(address, changes).await?.changes;
    assert_eq!(changes.len(), 2, "it vanished here and came there");
    let expunge = Expunge { folder_id: folder, uids: there, ..Expunge::default() };
    client.expunge(address, expunge).await?;
    println!("flagged, moved, told, expunged");
    Ok(())
}
