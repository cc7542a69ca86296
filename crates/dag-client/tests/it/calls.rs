use std::time::Duration;

use dag_client::v1::{FlagOperation, SystemFlag, UidSet};
use dag_client::{Append, Client, Error, Expunge, FlagChange, Options, Outcome, Problem, Reason};

use crate::fake::{Cluster, DB_A, DB_B, DIRECTORY, Fault, INBOX, link};
use crate::{ATTEMPT, client, content, options};

fn append(size: usize) -> Append {
    Append { folder_id: INBOX.into(), content: content(size), ..Append::default() }
}

fn outcome(error: Error) -> Outcome {
    match error {
        Error::TimedOut { outcome, .. } => outcome,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_hint_leads_to_the_active_copy_and_is_remembered() {
    let cluster = Cluster::start(3).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let client = client(&cluster);
    client.mailbox("ann@x").await.unwrap();
    cluster.activate(DB_A, 2);
    client.mailbox("ann@x").await.unwrap();
    let calls = cluster.lock().calls.len();
    client.mailbox("ann@x").await.unwrap();
    assert_eq!(cluster.lock().calls[calls..], [(2, "get")]);
}

#[tokio::test]
async fn without_hints_every_node_is_tried() {
    let cluster = Cluster::start(4).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.lock().hints = false;
    cluster.activate(DB_A, 3);
    client(&cluster).mailbox("ann@x").await.unwrap();
}

#[tokio::test]
async fn a_node_that_nobody_listens_at_is_passed_over() {
    let cluster = Cluster::start(1).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let endpoints = ["http://127.0.0.1:1".to_owned(), cluster.endpoints()[0].clone()];
    let client = Client::connect(endpoints, options()).unwrap();
    client.mailbox("ann@x").await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_id() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    for fault in [
        Fault::DropAnswer,
        Fault::Break,
        Fault::CarryOutThen(Problem::new(Reason::OutcomeUnknown, "no majority answered")),
    ] {
        let before = cluster.lock().messages("ann@x").len();
        cluster.plant(0, [fault.clone()]);
        let appended = client(&cluster).append("ann@x", append(100)).await.unwrap();
        assert!(appended.replayed, "{fault:?}");
        assert_eq!(cluster.lock().messages("ann@x").len(), before + 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_answer_after_the_end_of_its_attempt_does_not_count() {
    let cluster = Cluster::start(1).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.plant(0, [Fault::Delay(ATTEMPT * 3 / 2)]);
    let appended = client(&cluster).append("ann@x", append(100)).await.unwrap();
    assert!(appended.replayed);
    assert_eq!(cluster.lock().count("append"), 2);
}

#[tokio::test]
async fn what_is_refused_for_good_is_asked_once() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let nowhere = Append { folder_id: "f9".into(), ..append(1) };
    let error = client(&cluster).append("ann@x", nowhere).await.unwrap_err();
    assert_eq!(error.problem().unwrap().reason, Reason::FolderNotFound);
    assert_eq!(cluster.lock().count("append"), 1);
}

#[tokio::test]
async fn what_is_refused_for_now_is_asked_until_it_is_carried_out() {
    let cluster = Cluster::start(1).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let wait = Duration::from_millis(80);
    let overloaded = Problem::new(Reason::Overloaded, "enough").limit(9, 8).retry_after(wait);
    let no_quorum = Problem::new(Reason::NoQuorum, "alone");
    cluster.plant(0, [overloaded, no_quorum].map(Fault::Refuse));
    let begin = std::time::Instant::now();
    let appended = client(&cluster).append("ann@x", append(1)).await.unwrap();
    assert!(!appended.replayed);
    assert!(begin.elapsed() >= wait, "the node's advice was not heeded");
    assert_eq!(cluster.lock().count("append"), 3);
}

#[tokio::test]
async fn at_the_end_of_the_patience_it_is_said_whether_it_may_have_been_done() {
    let cluster = Cluster::start(1).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let short = Options { patience: ATTEMPT * 2, ..options() };
    let client = Client::connect(cluster.endpoints(), short.clone()).unwrap();
    // The patience ends in a pause: an attempt that it cut off may have been carried out.
    let refuse = Fault::Refuse(Problem::new(Reason::NoQuorum, "alone").retry_after(ATTEMPT));
    cluster.plant(0, vec![refuse.clone(); 1_000]);
    let error = client.append("ann@x", append(1)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("alone"), "{error}");
    assert_eq!(outcome(error), Outcome::NotCarriedOut);

    // One lost answer, and certainty is gone, whatever is refused afterwards.
    cluster.lock().faults.clear();
    cluster.plant(0, [Fault::DropAnswer]);
    cluster.plant(0, vec![refuse; 1_000]);
    let error = client.append("ann@x", append(1)).await.unwrap_err();
    assert_eq!(outcome(error), Outcome::Unknown);

    let nobody = Client::connect(["http://127.0.0.1:1"], short).unwrap();
    assert_eq!(outcome(nobody.locate("ann@x").await.unwrap_err()), Outcome::NotCarriedOut);
}

#[tokio::test]
async fn a_mailbox_that_moved_is_followed_with_the_same_id() {
    let cluster = Cluster::start(2).await;
    let id = cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.activate(DB_B, 1);
    let client = client(&cluster);
    client.append("ann@x", append(1)).await.unwrap();
    cluster.lock().places.insert("ann@x".into(), (id, DB_B));
    client.append("ann@x", append(2)).await.unwrap();
    client.append(id, append(3)).await.unwrap();
    assert_eq!(cluster.lock().messages("ann@x").len(), 3);
    assert_eq!(client.locate("ann@x").await.unwrap().database.0, DB_B);
}

#[tokio::test]
async fn only_the_directorys_active_copy_is_believed_that_there_is_no_mailbox() {
    let cluster = Cluster::start(2).await;
    cluster.activate(DIRECTORY, 1);
    let client = client(&cluster);
    let error = client.mailbox("bob@x").await.unwrap_err();
    assert_eq!(error.problem().unwrap().reason, Reason::MailboxNotFound);
    assert_eq!(cluster.lock().calls.last(), Some(&(1, "locate")));

    // A stale directory names a database that has never heard of the mailbox.
    cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.lock().stale.insert("ann@x".into(), (dag_types::MailboxId([9; 16]), DB_B));
    client.append("ann@x", append(1)).await.unwrap();
    assert_eq!(cluster.lock().messages("ann@x").len(), 1);
}

#[tokio::test]
async fn an_answer_of_an_older_lineage_does_not_count() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let client = client(&cluster);
    client.append("ann@x", append(1)).await.unwrap();
    // The first node is cut off and goes on answering; the other one has been activated.
    cluster.lock().activate(2, &[0]);
    cluster.activate(DB_A, 1);
    client.append("ann@x", append(2)).await.unwrap();
    cluster.activate(DB_A, 0);
    let short = tokio::time::timeout(Duration::from_secs(1), client.append("ann@x", append(3)));
    assert!(short.await.is_err(), "an answer of the old lineage was counted");
    cluster.activate(DB_A, 1);
    client.append("ann@x", append(4)).await.unwrap();
}

#[tokio::test]
async fn a_newer_lineage_is_followed_by_its_chain_and_a_fork_is_not() {
    let cluster = Cluster::start(1).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let short = Options { patience: ATTEMPT, ..options() };
    let client = Client::connect(cluster.endpoints(), short).unwrap();
    client.append("ann@x", append(1)).await.unwrap();
    cluster.lock().activate(2, &[]);
    client.append("ann@x", append(2)).await.unwrap();
    cluster.lock().chain = vec![link(1, 1), link(2, 3), link(3, 4)];
    let error = client.append("ann@x", append(3)).await.unwrap_err();
    assert_eq!(outcome(error), Outcome::Unknown);
}

#[tokio::test]
async fn a_large_message_travels_in_chunks_both_ways() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.activate(DB_A, 1);
    let client = client(&cluster);
    let size = (3 << 20) + 17;
    let uid = client.append("ann@x", append(size)).await.unwrap().uid;
    assert_eq!(cluster.lock().count("appends"), 1);
    let fetched = client.fetch("ann@x", INBOX, uid).await.unwrap();
    assert_eq!(fetched.content, content(size));
    let error = client.append("ann@x", append((64 << 20) + 1)).await.unwrap_err();
    assert_eq!(error.problem().unwrap().reason, Reason::TooLarge);
}

#[tokio::test]
async fn a_fetched_message_with_a_flipped_bit_is_fetched_again() {
    let cluster = Cluster::start(1).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let client = client(&cluster);
    let uid = client.append("ann@x", append(5_000)).await.unwrap().uid;
    cluster.plant(0, [Fault::FlipBit]);
    assert_eq!(client.fetch("ann@x", INBOX, uid).await.unwrap().content, content(5_000));
    assert_eq!(cluster.lock().count("fetch"), 2);
}

#[tokio::test]
async fn a_mailbox_is_made_used_and_listed_page_by_page() {
    let cluster = Cluster::start(2).await;
    cluster.activate(DIRECTORY, 1);
    cluster.plant(1, [Fault::Break]);
    let client = client(&cluster);
    let made = client.create_mailbox("ann@x").await.unwrap();
    let taken = client.create_mailbox("ann@x").await.unwrap_err();
    assert_eq!(taken.problem().unwrap().reason, Reason::MailboxExists);
    assert_eq!(client.inbox("Ann@X").await.unwrap().folder_id, made.inbox.folder_id);
    for size in 0..8 {
        client.append(made.place.mailbox, append(size)).await.unwrap();
    }
    let change = FlagChange {
        folder_id: INBOX.into(),
        uids: UidSet::range(1, 2),
        operation: FlagOperation::Add,
        system_flags: SystemFlag::Seen as u32,
        keywords: Vec::new(),
        unchanged_since: None,
        expected_uid_validity: 0,
        request_id: None,
    };
    let stored = client.store_flags("ann@x", change).await.unwrap();
    assert_eq!(stored.changed, Some(UidSet::range(1, 2)));
    let expunge =
        Expunge { folder_id: INBOX.into(), uids: UidSet::range(3, 3), ..Expunge::default() };
    client.expunge("ann@x", expunge).await.unwrap();
    let all = client.list_all("ann@x", INBOX).await.unwrap();
    let uids: Vec<_> = all.iter().map(|message| message.uid).collect();
    assert_eq!(uids, [1, 2, 4, 5, 6, 7, 8]);
    assert_eq!(all.iter().filter(|message| message.system_flags == 1).count(), 2);
}

#[tokio::test]
async fn what_is_no_endpoint_is_refused_before_any_call() {
    for endpoints in [vec![], vec!["127.0.0.1:7400"], vec!["http://a b"]] {
        assert!(Client::connect(endpoints.clone(), options()).is_err(), "{endpoints:?}");
    }
}

#[tokio::test]
async fn nodes_that_all_have_no_dag_are_not_waited_for() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let client = client(&cluster);
    client.mailbox("ann@x").await.unwrap();
    let no_dag = || Fault::Refuse(Problem::new(Reason::Unprovisioned, "no DAG"));
    // One node without a DAG may only have lost its disk.
    cluster.plant(0, [no_dag()]);
    client.mailbox("ann@x").await.unwrap();
    let alone = Cluster::start(1).await;
    alone.lock().add_mailbox("ann@x", DB_A);
    alone.plant(0, [no_dag()]);
    let error = crate::client(&alone).mailbox("ann@x").await.unwrap_err();
    assert_eq!(error.problem().map(|problem| problem.reason), Some(Reason::Unprovisioned));
}
