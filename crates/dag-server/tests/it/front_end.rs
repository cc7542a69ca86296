//! What a front end does beside delivering: folders, copies, moves, recoverable items, rights,
//! search, sections, changes, watches. Through the client library, against real nodes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_api::Reason;
use dag_client::v1::*;
use dag_client::{Append, Client, Expunge, FlagChange, Options, WatchEvent};
use prost_types::FieldMask;

use crate::cluster::{INBOX, Nodes, fetch, problem, reason, reference};

const ANN: &str = "ann@example.org";

fn client(nodes: &Nodes) -> Client {
    let endpoints = nodes.names().into_iter().map(|name| {
        let address = nodes.cluster.node(&name).unwrap().clients;
        format!("http://{address}")
    });
    Client::connect(endpoints, Options::default()).unwrap()
}

/// A mailbox on one node.
async fn alone() -> (Nodes, Client, Mailbox) {
    on("single-node").await
}

async fn on(shape: &str) -> (Nodes, Client, Mailbox) {
    let (nodes, _) = Nodes::with_database(shape, &[]).await;
    let client = client(&nodes);
    let made = client.create_mailbox(ANN).await.unwrap();
    (nodes, client, made.mailbox)
}

async fn append(client: &Client, folder_id: &str, content: &str) -> u32 {
    let content = Bytes::from(content.to_owned());
    let append = Append { folder_id: folder_id.into(), content, ..Append::default() };
    client.append(ANN, append).await.unwrap().uid
}

fn refusal(error: &dag_client::Error) -> Reason {
    error.problem().unwrap_or_else(|| panic!("not a typed refusal: {error}")).reason
}

fn mask(names: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: names.iter().map(|name| (*name).to_owned()).collect() })
}

fn uids(set: Option<UidSet>) -> Vec<u32> {
    set.unwrap_or_default().iter().collect()
}

async fn retention(client: &Client, retention_ms: u64) {
    let settings = MailboxSettings { retention_ms, ..MailboxSettings::default() };
    let update = UpdateMailboxRequest {
        settings: Some(settings),
        update_mask: mask(&["retention_ms"]),
        ..UpdateMailboxRequest::default()
    };
    client.update_mailbox(ANN, update).await.unwrap();
}

/// RFC 8474 4, RFC 9051 6.3.6: a rename changes neither id nor UIDVALIDITY nor UIDs.
#[tokio::test]
async fn a_folder_keeps_its_id_over_rename_and_move() {
    let (_nodes, client, _) = alone().await;
    let work = client.create_folder(ANN, "", "work").await.unwrap();
    let inner = client.create_folder(ANN, &work.folder_id, "2026").await.unwrap();
    let uid = append(&client, &inner.folder_id, "Subject: a\r\n\r\nb").await;
    let change = |folder: Folder, names: &[&str]| UpdateFolderRequest {
        folder: Some(folder),
        update_mask: mask(names),
        ..UpdateFolderRequest::default()
    };
    let renamed = Folder { display_name: "Job".into(), subscribed: true, ..work.clone() };
    client.update_folder(ANN, change(renamed, &["display_name", "subscribed"])).await.unwrap();
    let moved = Folder { parent_id: String::new(), ..inner.clone() };
    client.update_folder(ANN, change(moved, &["parent_id"])).await.unwrap();
    let folders = client.folders(ANN).await.unwrap();
    let found = |id: &str| folders.iter().find(|folder| folder.folder_id == id).unwrap();
    assert_eq!(found(&work.folder_id).display_name, "Job");
    assert!(found(&work.folder_id).subscribed);
    assert_eq!(found(&inner.folder_id).parent_id, "");
    assert_eq!(found(&inner.folder_id).uid_validity, inner.uid_validity);
    assert!(client.fetch(ANN, &inner.folder_id, uid).await.is_ok());
    let stale = UpdateFolderRequest {
        expected_profile_modseq: Some(1),
        ..change(Folder { display_name: "x".into(), ..work }, &["display_name"])
    };
    let refused = client.update_folder(ANN, stale).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::PreconditionFailed);
}

/// RFC 9051 6.3.4, 6.3.5, RFC 6154 3.
#[tokio::test]
async fn what_a_folder_cannot_be_is_refused_with_its_reason() {
    let (_nodes, client, _) = alone().await;
    let long = "x".repeat(4096);
    for name in ["", "a/b", "..", ".", "nul\0", long.as_str(), "line\nend"] {
        let refused = client.create_folder(ANN, "", name).await.unwrap_err();
        let expected =
            if name.len() > 255 { Reason::LimitExceeded } else { Reason::FolderNameInvalid };
        assert_eq!(refusal(&refused), expected, "{name:.20}");
    }
    let parent = client.create_folder(ANN, "", "parent").await.unwrap();
    client.create_folder(ANN, &parent.folder_id, "child").await.unwrap();
    let delete = |folder_id: &str| DeleteFolderRequest {
        folder_id: folder_id.into(),
        ..DeleteFolderRequest::default()
    };
    let refused = client.delete_folder(ANN, delete(&parent.folder_id)).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::FolderHasChildren);
    let refused = client.delete_folder(ANN, delete(INBOX)).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::FolderProtected);
    let sent = |name: &str| CreateFolderRequest {
        display_name: name.into(),
        special_use: SpecialUse::Sent.into(),
        ..CreateFolderRequest::default()
    };
    let made = client.make_folder(ANN, sent("Sent")).await.unwrap().folder.unwrap();
    let refused = client.make_folder(ANN, sent("Sent too")).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::SpecialUseTaken);
    client.delete_folder(ANN, delete(&made.folder_id)).await.unwrap();
    let again = client.make_folder(ANN, sent("Sent")).await.unwrap().folder.unwrap();
    assert!(again.uid_validity > made.uid_validity && again.folder_id != made.folder_id);
}

/// RFC 9051 6.4.7, RFC 8474 5.1, RFC 6851 3.3, RFC 4315 3.
#[tokio::test]
async fn copies_share_the_email_and_moves_leave_nothing_behind() {
    let (nodes, client, _) = on("three-node").await;
    let target = client.create_folder(ANN, "", "target").await.unwrap();
    for n in 1..=3 {
        append(&client, INBOX, &format!("Subject: {n}\r\n\r\nbody")).await;
    }
    let copy = CopyMessagesRequest {
        folder_id: INBOX.into(),
        uids: Some(UidSet::range(1, 2)),
        to_folder_id: target.folder_id.clone(),
        ..CopyMessagesRequest::default()
    };
    let copied = client.copy(ANN, copy).await.unwrap();
    assert_eq!((uids(copied.source), uids(copied.target)), (vec![1, 2], vec![1, 2]));
    let transfer = MoveMessagesRequest {
        folder_id: INBOX.into(),
        uids: Some(UidSet::range(2, u32::MAX)),
        to_folder_id: target.folder_id.clone(),
        request_id: "move".into(),
        ..MoveMessagesRequest::default()
    };
    let moved = client.move_messages(ANN, transfer.clone()).await.unwrap();
    assert_eq!((uids(moved.source), uids(moved.target)), (vec![2, 3], vec![3, 4]));
    assert!(client.move_messages(ANN, transfer).await.unwrap().replayed);
    let inbox = client.list_all(ANN, INBOX).await.unwrap();
    let there = client.list_all(ANN, &target.folder_id).await.unwrap();
    assert_eq!(inbox.iter().map(|m| m.uid).collect::<Vec<_>>(), [1]);
    assert_eq!(there.iter().map(|m| m.uid).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(there[0].email_id, inbox[0].email_id);
    assert_eq!(there[1].email_id, there[2].email_id);
    assert!(there.iter().all(|message| message.system_flags & 8 == 0));
    assert!(nodes.verify("DB1").await.equal);
}

/// RFC 3502: all or none.
#[tokio::test]
async fn a_batch_of_messages_comes_whole_or_not_at_all() {
    let (_nodes, client, _) = alone().await;
    let item = |content: &'static str, keyword: &str| AppendBatchItem {
        content: content.into(),
        keywords: vec![keyword.into()],
        ..AppendBatchItem::default()
    };
    let batch = |messages| AppendBatchRequest {
        folder_id: INBOX.into(),
        messages,
        ..AppendBatchRequest::default()
    };
    let broken = batch(vec![item("a", "fine"), item("b", "not fine")]);
    let refused = client.append_batch(ANN, broken).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::KeywordInvalid);
    assert!(client.list_all(ANN, INBOX).await.unwrap().is_empty());
    let done = client.append_batch(ANN, batch(vec![item("a", "x"), item("b", "y")])).await.unwrap();
    assert_eq!((done.first_uid, done.messages), (1, 2));
    assert_eq!(client.fetch(ANN, INBOX, 2).await.unwrap().content, "b");
}

/// RFC 4315 2.1; restored at a new UID.
#[tokio::test]
async fn what_is_expunged_can_be_restored_until_it_is_purged() {
    let (_nodes, client, _) = alone().await;
    retention(&client, 86_400_000).await;
    for n in 1..=3 {
        append(&client, INBOX, &format!("Subject: {n}\r\n\r\nbody")).await;
    }
    let before = client.list_all(ANN, INBOX).await.unwrap();
    let expunge = |from, to, beyond_recovery| Expunge {
        folder_id: INBOX.into(),
        uids: UidSet::range(from, to),
        beyond_recovery,
        ..Expunge::default()
    };
    client.expunge(ANN, expunge(1, 2, false)).await.unwrap();
    client.expunge(ANN, expunge(3, 3, true)).await.unwrap();
    let list = || client.recoverable_items(ANN, ListRecoverableItemsRequest::default());
    let items = list().await.unwrap().items;
    assert_eq!(items.iter().map(|item| item.uid).collect::<Vec<_>>(), [1, 2]);
    assert!(items.iter().all(|item| item.purge_time.is_some() && item.folder_id == INBOX));
    let restore = |id| RestoreRecoverableItemsRequest {
        item_ids: vec![id],
        ..RestoreRecoverableItemsRequest::default()
    };
    let restored = client.restore_items(ANN, restore(items[0].item_id)).await.unwrap();
    assert_eq!(restored.items[0].uid, 4);
    assert_eq!(restored.items[0].email_id, before[0].email_id);
    let purge = PurgeRecoverableItemsRequest {
        item_ids: vec![items[1].item_id],
        ..PurgeRecoverableItemsRequest::default()
    };
    assert_eq!(client.purge_items(ANN, purge).await.unwrap().purged, 1);
    let refused = client.restore_items(ANN, restore(items[1].item_id)).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::ItemNotFound);
    assert!(list().await.unwrap().items.is_empty());
}

/// RFC 9208 4.3.1; a hold keeps everything.
#[tokio::test]
async fn quota_and_hold_refuse_with_value_and_limit() {
    let (_nodes, client, made) = alone().await;
    let settings = MailboxSettings {
        quota_messages: 1,
        litigation_hold: true,
        retention_ms: 1000,
        ..MailboxSettings::default()
    };
    let update = UpdateMailboxRequest {
        settings: Some(settings.clone()),
        update_mask: mask(&["quota_messages", "litigation_hold", "retention_ms"]),
        expected_settings_modseq: Some(made.settings_modseq),
        ..UpdateMailboxRequest::default()
    };
    let updated = client.update_mailbox(ANN, update.clone()).await.unwrap();
    assert_eq!(updated.settings, Some(settings));
    let refused = client.update_mailbox(ANN, update).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::PreconditionFailed);
    append(&client, INBOX, "a").await;
    let second = Append { folder_id: INBOX.into(), content: "b".into(), ..Append::default() };
    let refused = client.append(ANN, second).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!((problem.reason, problem.facts.limit), (Reason::OverQuota, Some(1)));
    assert_eq!(problem.facts.check.as_deref(), Some("messages"));
    let beyond = Expunge {
        folder_id: INBOX.into(),
        uids: UidSet::range(1, 1),
        beyond_recovery: true,
        ..Expunge::default()
    };
    let refused = client.expunge(ANN, beyond).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::HoldActive);
    let quotas = client.quota(ANN, GetQuotaRequest::default()).await.unwrap().quotas;
    let messages = quotas.iter().find(|quota| quota.resource() == QuotaResource::Message).unwrap();
    assert_eq!((messages.used, messages.limit), (1, 1));
}

/// RFC 4314 4: rights are checked where it is carried out, and a folder that one may not see is
/// not there.
#[tokio::test]
async fn rights_decide_what_others_may_do() {
    let (_nodes, client, made) = alone().await;
    append(&client, INBOX, "secret").await;
    let ben = || Some(MailboxRef { actor: vec!["ben".into()], ..reference(&made) });
    let list = || ListMessagesRequest {
        mailbox: ben(),
        folder_id: INBOX.into(),
        ..ListMessagesRequest::default()
    };
    let refused = client.list_messages(ANN, list()).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::FolderNotFound);
    let give = |rights: &str| SetFolderRightsRequest {
        folder_id: INBOX.into(),
        entry: Some(FolderRights { identifier: "ben".into(), rights: rights.into() }),
        operation: RightsOperation::Replace.into(),
        ..SetFolderRightsRequest::default()
    };
    client.set_folder_rights(ANN, give("l")).await.unwrap();
    let refused = client.list_messages(ANN, list()).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!((problem.reason, problem.facts.check.as_deref()), (Reason::AccessDenied, Some("r")));
    client.set_folder_rights(ANN, give("lr")).await.unwrap();
    assert_eq!(client.list_messages(ANN, list()).await.unwrap().messages.len(), 1);
    let copy = CopyMessagesRequest {
        mailbox: ben(),
        folder_id: INBOX.into(),
        uids: Some(UidSet::range(1, 1)),
        to_folder_id: INBOX.into(),
        ..CopyMessagesRequest::default()
    };
    assert_eq!(refusal(&client.copy(ANN, copy).await.unwrap_err()), Reason::AccessDenied);
    let mine = GetFolderRightsRequest {
        mailbox: ben(),
        folder_id: INBOX.into(),
        ..GetFolderRightsRequest::default()
    };
    let mine = client.folder_rights(ANN, mine).await.unwrap();
    assert_eq!((mine.actor_rights.as_str(), mine.entries.len()), ("lr", 0));
}

const MIXED: &str = "From: Ben <ben@example.org>\r\nTo: ann@example.org\r\nSubject: Minutes of June\r\n\
Message-ID: <m1@example.org>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
--b\r\n\r\nhello there\r\n--b\r\nContent-Type: text/plain\r\n\
Content-Transfer-Encoding: base64\r\n\r\nc2Vjb25k\r\n--b--\r\n";

async fn section(nodes: &Nodes, mailbox: &Mailbox, change: FetchMessageRequest) -> Vec<u8> {
    let request = FetchMessageRequest { section: change.section, ..change };
    let request = FetchMessageRequest { mailbox: Some(reference(mailbox)), ..request };
    let mut stream = nodes.mail("n1").await.fetch_message(request).await.unwrap().into_inner();
    let mut content = Vec::new();
    while let Some(frame) = stream.message().await.unwrap() {
        content.extend_from_slice(&frame.chunk.unwrap_or_default().data);
    }
    content
}

/// RFC 9051 6.4.5, RFC 3516, RFC 8970 3.3.
#[tokio::test]
async fn sections_ranges_and_decoded_parts_are_fetched() {
    let (nodes, client, made) = alone().await;
    append(&client, INBOX, MIXED).await;
    for (name, decoded, offset, length, expected) in [
        ("1", false, 0, 0, "hello there"),
        ("1", false, 6, 3, "the"),
        ("2", false, 0, 0, "c2Vjb25k"),
        ("2", true, 0, 0, "second"),
        ("2", true, 3, 9, "ond"),
        ("2.MIME", false, 0, 12, "Content-Type"),
        ("HEADER", false, 0, 9, "From: Ben"),
    ] {
        let request = FetchMessageRequest {
            section: name.into(),
            decoded,
            offset,
            length,
            ..fetch(&made, 1)
        };
        let found = section(&nodes, &made, request).await;
        assert_eq!(String::from_utf8_lossy(&found), expected, "{name}");
    }
    let mut mail = nodes.mail("n1").await;
    let missing = FetchMessageRequest { section: "3".into(), ..fetch(&made, 1) };
    assert_eq!(reason(mail.fetch_message(missing).await), Reason::SectionNotFound);
    let full = ListMessagesRequest {
        folder_id: INBOX.into(),
        view: MessageView::Full.into(),
        ..ListMessagesRequest::default()
    };
    let listed = client.list_messages(ANN, full).await.unwrap().messages.remove(0);
    assert_eq!(listed.preview, "hello there");
    assert_eq!(listed.envelope.unwrap().subject, "Minutes of June");
    assert_eq!(listed.body.unwrap().parts.len(), 2);
    let by_email = FetchMessageRequest { email_id: listed.email_id, ..fetch(&made, 0) };
    assert_eq!(section(&nodes, &made, by_email).await, MIXED.as_bytes());
}

/// RFC 9051 6.4.4, RFC 8474 5.2.
#[tokio::test]
async fn searches_find_by_what_the_store_knows() {
    let (_nodes, client, _) = alone().await;
    append(&client, INBOX, MIXED).await;
    let answer = "Subject: Re: Minutes of June\r\nMessage-ID: <m2@x>\r\nReferences: <m1@example.org>\r\n\r\nok";
    append(&client, INBOX, answer).await;
    append(&client, INBOX, "Subject: lunch\r\n\r\nnow").await;
    let search = |criteria| SearchMessagesRequest {
        folder_id: INBOX.into(),
        criteria: Some(criteria),
        ..SearchMessagesRequest::default()
    };
    let find = |criteria| async {
        let found = client.search(ANN, search(criteria)).await.unwrap().messages;
        found.into_iter().map(|message| (message.uid, message.thread_id)).collect::<Vec<_>>()
    };
    let words = |field: &str, text: &str| SearchCriteria {
        header: vec![HeaderWords { field: field.into(), text: text.into() }],
        ..SearchCriteria::default()
    };
    let minutes = find(words("subject", "june MINUTES")).await;
    assert_eq!(minutes.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(minutes[0].1, minutes[1].1);
    assert_eq!(find(words("from", "ben@example.org")).await.len(), 1);
    assert!(find(words("to", "ben")).await.is_empty());
    let by_id = SearchCriteria { message_id: "m2@x".into(), ..SearchCriteria::default() };
    assert_eq!(find(by_id).await[0].0, 2);
    let thread = SearchCriteria { thread_id: minutes[0].1.clone(), ..SearchCriteria::default() };
    assert_eq!(find(thread.clone()).await.len(), 2);
    let one = SearchMessagesRequest { page_size: 1, ..search(thread) };
    let page = client.search(ANN, one.clone()).await.unwrap();
    let other = SearchMessagesRequest {
        page_token: page.next_page_token,
        ..search(words("subject", "lunch"))
    };
    let refused = client.search(ANN, other).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::PageTokenInvalid);
}

/// RFC 7162 3.1, 3.2.10; RFC 8620 5.2.
#[tokio::test]
async fn changes_since_a_modseq_are_told_once_and_in_order() {
    let (_nodes, client, made) = alone().await;
    let since = made.highest_modseq;
    for n in 1..=5 {
        append(&client, INBOX, &format!("{n}")).await;
    }
    let flag = FlagChange {
        folder_id: INBOX.into(),
        uids: UidSet::range(2, 2),
        operation: FlagOperation::Add,
        system_flags: SystemFlag::Seen as u32,
        keywords: vec![],
        unchanged_since: None,
        expected_uid_validity: 0,
        request_id: None,
    };
    client.store_flags(ANN, flag).await.unwrap();
    let gone = Expunge { folder_id: INBOX.into(), uids: UidSet::range(4, 4), ..Expunge::default() };
    client.expunge(ANN, gone).await.unwrap();
    let mut request =
        GetChangesRequest { since_modseq: since, page_size: 2, ..GetChangesRequest::default() };
    let mut all = Vec::new();
    let end = loop {
        let page = client.changes(ANN, request.clone()).await.unwrap();
        all.extend(page.changes.into_iter().map(|change| (change.uid, change.kind())));
        if page.next_page_token.is_empty() {
            break page.modseq;
        }
        request.page_token = page.next_page_token;
    };
    use ChangeKind::{Created, Vanished};
    // The last page begins after UID 4 came: a reader who stands there may have heard of it.
    assert_eq!(all, [(1, Created), (3, Created), (5, Created), (2, Created), (4, Vanished)]);
    assert_eq!(end, client.mailbox(ANN).await.unwrap().highest_modseq);
    let other = GetChangesRequest { since_modseq: since + 1, ..request };
    let refused = client.changes(ANN, other).await.unwrap_err();
    assert_eq!(refusal(&refused), Reason::PageTokenInvalid);
    let work = client.create_folder(ANN, "", "work").await.unwrap();
    let folders = GetFolderChangesRequest { since_modseq: end, ..Default::default() };
    let folders = client.folder_changes(ANN, folders).await.unwrap().changes;
    assert_eq!(folders[0].folder_id, work.folder_id);
}

/// Everything that happens is told once, in order, whoever is active.
#[tokio::test]
async fn a_watch_goes_on_over_a_failover_and_misses_nothing() {
    let (mut nodes, client, made) = on("three-node").await;
    let mut watch = client.watch(ANN, Some(made.highest_modseq));
    watch.begin().await.unwrap();
    let writer = client.clone();
    let writing = tokio::spawn(async move {
        for n in 0..60 {
            append(&writer, INBOX, &format!("Subject: {n}\r\n\r\nx")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut told = Vec::new();
    let mut killed = false;
    while told.len() < 60 {
        let event = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap();
        let WatchEvent::Changed(changed) = event.unwrap() else { panic!("so few changes") };
        told.extend(changed.changes.iter().map(|change| change.uid));
        if told.len() > 15 && !killed {
            killed = true;
            let active = nodes.until_mounted("DB1").await;
            nodes.cluster.kill(&active).unwrap();
            nodes.start(std::slice::from_ref(&active)).await;
        }
    }
    writing.await.unwrap();
    assert!(killed);
    assert_eq!(told, (1..=60).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_watch_tells_within_milliseconds_and_says_when_it_is_too_much() {
    let (_nodes, client, made) = alone().await;
    let mut watch = client.watch(ANN, None);
    watch.begin().await.unwrap();
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        append(&client, INBOX, &format!("{n}")).await;
        let since = Instant::now();
        watch.next().await.unwrap();
        slowest = slowest.max(since.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    // A thousand and one changes since the beginning are more than a watch tells.
    for _ in 0..11 {
        let messages = vec![AppendBatchItem { content: "x".into(), ..Default::default() }; 100];
        let batch = AppendBatchRequest { folder_id: INBOX.into(), messages, ..Default::default() };
        client.append_batch(ANN, batch).await.unwrap();
    }
    let mut late = client.watch(ANN, Some(made.highest_modseq));
    let WatchEvent::Overflow { known, modseq } = late.next().await.unwrap() else {
        panic!("told one by one");
    };
    assert_eq!(known, made.highest_modseq);
    assert_eq!(modseq, client.mailbox(ANN).await.unwrap().highest_modseq);
}

#[tokio::test]
async fn the_trace_tells_what_became_of_a_message() {
    let (nodes, client, made) = on("three-node").await;
    nodes.deliver(&made, "d1", MIXED.as_bytes()).await;
    nodes.deliver(&made, "d1", MIXED.as_bytes()).await;
    let stranger = Mailbox { mailbox_id: "ab".repeat(16), ..made.clone() };
    nodes.deliver(&stranger, "d2", b"x").await;
    let gone = Expunge { folder_id: INBOX.into(), uids: UidSet::range(1, 1), ..Expunge::default() };
    client.expunge(ANN, gone).await.unwrap();
    let database = dag_types::DatabaseId(made.database_id);
    let trace = |request| async {
        let events = client.trace(database, request).await.unwrap().events;
        events.into_iter().map(|event| event.kind()).collect::<Vec<_>>()
    };
    use TraceEventKind::{Deliver, Duplicate, Expunge as Expunged, Fail};
    let by_message = SearchMessageTraceRequest {
        message_id: "M1@example.org".into(),
        ..SearchMessageTraceRequest::default()
    };
    assert_eq!(trace(by_message).await, [Deliver, Duplicate]);
    let by_mailbox = SearchMessageTraceRequest {
        mailbox_id: made.mailbox_id.clone(),
        ..SearchMessageTraceRequest::default()
    };
    assert_eq!(trace(by_mailbox).await, [Deliver, Duplicate, Expunged]);
    let by_id = SearchMessageTraceRequest { delivery_id: "d2".into(), ..Default::default() };
    assert_eq!(trace(by_id).await, [Fail]);
    assert!(nodes.verify("DB1").await.equal);
}

/// Whatever comes is stored as it is: no mail is refused or changed for its form.
#[tokio::test]
async fn every_mail_however_broken_comes_back_byte_for_byte() {
    let (nodes, client, made) = on("three-node").await;
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(2_000);
    let boundaries: String = (0..1_000)
        .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
        .collect();
    let header = format!("To: {}\r\n\r\nx", "a@b.example,\r\n ".repeat(60_000));
    let mails: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\0\xff\xfe".to_vec(),
        b"no header at all".to_vec(),
        b"Subject: =?utf-8?b?////?=\r\nFrom: <<>>,,;\r\n\r\n\xe4".to_vec(),
        b"Content-Type: multipart/mixed; boundary=\"\r\n\r\n--\r\n--\"--".to_vec(),
        b"Content-Transfer-Encoding: base64\n\n=====".to_vec(),
        nested.into_bytes(),
        boundaries.into_bytes(),
        header.into_bytes(),
    ];
    for (n, mail) in mails.iter().enumerate() {
        let append = Append {
            folder_id: INBOX.into(),
            content: Bytes::from(mail.clone()),
            ..Append::default()
        };
        assert_eq!(client.append(ANN, append).await.unwrap().uid, n as u32 + 1);
        assert_eq!(nodes.fetch(&made, n as u32 + 1).await, *mail, "{n}");
    }
    let full = ListMessagesRequest {
        folder_id: INBOX.into(),
        view: MessageView::Full.into(),
        ..ListMessagesRequest::default()
    };
    let listed = client.list_messages(ANN, full).await.unwrap().messages;
    assert_eq!(listed.len(), mails.len());
    assert!(nodes.verify("DB1").await.equal);
}

/// A passive copy answers only who asks for less than the newest, and says how old it may be.
#[tokio::test]
async fn passive_copies_answer_labelled_reads_and_no_others() {
    let (mut nodes, client, made) = on("three-node").await;
    append(&client, INBOX, "first").await;
    let active = nodes.until_mounted("DB1").await;
    let passive = nodes.names().into_iter().find(|name| *name != active).unwrap();
    let content = Bytes::from_static(b"second");
    let second = Append { folder_id: INBOX.into(), content, ..Append::default() };
    let token = client.append(ANN, second).await.unwrap().token;
    let mut mail = nodes.mail(&passive).await;
    let list = |consistency: ReadConsistency, min_token| ListMessagesRequest {
        mailbox: Some(reference(&made)),
        folder_id: INBOX.into(),
        read: Some(ReadOptions { consistency: consistency.into(), min_token }),
        ..ListMessagesRequest::default()
    };
    let newest = mail.list_messages(list(ReadConsistency::Linearizable, None)).await;
    assert_eq!(reason(newest), Reason::NotActiveCopy);
    // Its gate may open only after that of the active copy's node.
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let level = loop {
        match mail.list_messages(list(ReadConsistency::AtLeast, token.clone())).await {
            Ok(level) => break level.into_inner(),
            Err(closed) => assert_eq!(problem(closed).reason, Reason::GateClosed),
        }
        assert!(tokio::time::Instant::now() < until, "its gate does not open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(level.messages.len(), 2);
    assert!(level.staleness.is_some());
    assert!(level.token.unwrap().log_index >= token.as_ref().unwrap().log_index);
    let stale = mail.list_messages(list(ReadConsistency::Stale, None)).await.unwrap().into_inner();
    assert!(stale.staleness.is_some() && stale.token.is_some());
    // Nobody is told that a copy has what it does not have.
    let ahead =
        token.clone().map(|token| CommitToken { log_index: token.log_index + 999, ..token });
    let mut request = tonic::Request::new(list(ReadConsistency::AtLeast, ahead));
    request.set_timeout(Duration::from_millis(300));
    let refused = mail.list_messages(request).await.unwrap_err();
    let too_late = [tonic::Code::DeadlineExceeded, tonic::Code::Cancelled];
    assert!(too_late.contains(&refused.code()), "{refused}");
    let later = |token: CommitToken| CommitToken { generation: token.generation + 1, ..token };
    let foreign = token.clone().map(later);
    let foreign = mail.list_messages(list(ReadConsistency::AtLeast, foreign)).await;
    assert_eq!(reason(foreign), Reason::StaleLineage);
    // Without the others its gate closes, and it vouches for nothing any more.
    for name in nodes.names().into_iter().filter(|name| *name != passive) {
        nodes.cluster.kill(&name).unwrap();
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while mail.list_messages(list(ReadConsistency::AtLeast, token.clone())).await.is_ok() {
        assert!(tokio::time::Instant::now() < until, "a node that is alone closes its gate");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let alone = mail.list_messages(list(ReadConsistency::AtLeast, token)).await;
    assert_eq!(reason(alone), Reason::GateClosed);
    let stale = mail.list_messages(list(ReadConsistency::Stale, None)).await.unwrap().into_inner();
    assert_eq!(stale.messages.len(), 2);
}
