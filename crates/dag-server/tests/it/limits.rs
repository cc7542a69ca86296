//! Who is let in, and until when.

use dag_api::Reason;
use dag_api::admin::v1::GetStatusResponse;
use dag_api::mailbox::v1 as mail;
use futures::future::join_all;

use crate::cluster::{Nodes, delivery, problem};

#[tokio::test]
async fn beyond_the_budget_a_request_is_refused_at_once_and_told_when_to_come_again() {
    let settings =
        ["budget.message=512KiB", "budget.in_flight=1MiB", "budget.in_flight_per_database=1MiB"];
    let (nodes, _) = Nodes::with_database("three-node", &settings).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let active = nodes.until_mounted("DB1").await;
    let client = nodes.mail(&active).await;
    let body = vec![b'x'; 400 << 10];
    let send = |i: usize| {
        let (mut client, request) = (client.clone(), delivery(&mailbox, &format!("d{i}"), &body));
        async move { client.deliver_message(request).await }
    };
    let answers = join_all((0..20).map(send)).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let mut refused = 0;
    for status in answers.into_iter().filter_map(Result::err) {
        let problem = problem(status);
        if problem.reason == Reason::NoQuorum {
            continue; // a busy machine; nothing was stored
        }
        assert_eq!(problem.reason, Reason::Overloaded);
        assert!(problem.retry_after.is_some());
        assert_eq!(problem.facts.limit, Some(1 << 20));
        refused += 1;
    }
    assert!(stored > 0 && refused > 0, "{stored} stored, {refused} refused");
    assert_eq!(nodes.inbox(&mailbox).await.len(), stored, "what was refused was not stored");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_with_both_numbers() {
    let (nodes, _) = Nodes::with_database("single-node", &["budget.message=64KiB"]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let mut client = nodes.mail("n1").await;
    let large = delivery(&mailbox, "d1", &vec![0; (64 << 10) + 1]);
    let refused = problem(client.deliver_message(large).await.unwrap_err());
    assert_eq!(refused.reason, Reason::TooLarge);
    assert_eq!((refused.facts.value, refused.facts.limit), (Some(65_537), Some(65_536)));
}

#[tokio::test]
async fn a_hundred_mebibytes_announced_in_a_session_are_refused_before_they_are_sent() {
    let (nodes, _) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let mut header = delivery(&mailbox, "d1", b"").header.unwrap();
    header.size = 100 << 20;
    header.blake3 = vec![0; 32].into();
    let frame = mail::DeliverMessagesRequest {
        delivery_id: "d1".into(),
        header: Some(header),
        chunk: Some(mail::BodyChunk::default()),
    };
    let mut client = nodes.mail("n1").await;
    let answers = client.deliver_messages(tokio_stream::iter([frame])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(mail::deliver_messages_response::Outcome::Failure(failure)) = answer.outcome else {
        panic!("stored");
    };
    assert_eq!(failure.reason, "TOO_LARGE");
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_writes_and_reads_go_on() {
    let (mut nodes, _) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    nodes.deliver(&mailbox, "d1", b"hello").await;
    nodes.cluster.kill("n1").unwrap();
    let settings = nodes.cluster.node("n1").unwrap().settings.clone();
    let mut text = std::fs::read_to_string(&settings).unwrap();
    let budget = text.contains("[budget]");
    text.push_str(if budget { "" } else { "\n[budget]\n" });
    text.push_str("disk_reserve = \"1000TiB\"\n");
    std::fs::write(&settings, text).unwrap();
    nodes.start(&["n1".to_owned()]).await;
    nodes.until_mounted("DB1").await;
    let is_low = |status: &GetStatusResponse| {
        status.warnings.iter().any(|warning| warning.code == "DISK_LOW")
    };
    nodes.until_status("n1", is_low).await;
    let mut client = nodes.mail("n1").await;
    let refused = client.deliver_message(delivery(&mailbox, "d2", b"more")).await;
    let refused = problem(refused.unwrap_err());
    assert_eq!(refused.reason, Reason::DiskLow);
    assert!(refused.retry_after.is_some());
    assert_eq!(nodes.fetch(&mailbox, 1).await, b"hello");
}

#[tokio::test]
async fn an_attempt_without_a_quorum_ends_before_its_caller_loses_patience() {
    let (mut nodes, _) = Nodes::with_database("three-node", &["attempt=500ms"]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let active = nodes.until_mounted("DB1").await;
    let mut client = nodes.mail(&active).await;
    client.deliver_message(delivery(&mailbox, "d0", b"x")).await.unwrap();
    let others: Vec<String> = nodes.names().into_iter().filter(|n| *n != active).collect();
    nodes.cluster.kill_all(&others).unwrap();
    // The caller waits sixty times as long: what ends it is the node, with a reason of ours.
    let ended = client.deliver_message(delivery(&mailbox, "d1", b"x")).await;
    let ended = problem(ended.unwrap_err());
    let reasons = [Reason::OutcomeUnknown, Reason::NoQuorum, Reason::NotActiveCopy];
    assert!(reasons.contains(&ended.reason), "{ended}");
}
