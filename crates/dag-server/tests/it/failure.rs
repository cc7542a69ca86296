//! Kills and restarts, and what was acknowledged.

use std::time::Duration;

use dag_api::Reason;
use dag_api::mailbox::v1 as mail;

use crate::cluster::{Nodes, delivery, problem};

fn body(i: usize) -> Vec<u8> {
    format!("mail {i}\r\n").repeat(50).into_bytes()
}

async fn all_there(nodes: &Nodes, mailbox: &mail::Mailbox, count: usize) {
    let listed = nodes.inbox(mailbox).await;
    assert_eq!(listed.len(), count);
    let mut found: Vec<Vec<u8>> = Vec::new();
    for message in &listed {
        found.push(nodes.fetch(mailbox, message.uid).await);
    }
    found.sort();
    let mut expected: Vec<Vec<u8>> = (0..count).map(body).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_active_node_is_killed_and_every_acknowledged_mail_is_there() {
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    for i in 0..20 {
        nodes.deliver(&mailbox, &format!("d{i}"), &body(i)).await;
    }
    let active = nodes.until_mounted("DB1").await;
    nodes.cluster.kill(&active).unwrap();
    for i in 20..40 {
        nodes.deliver(&mailbox, &format!("d{i}"), &body(i)).await;
    }
    all_there(&nodes, &mailbox, 40).await;
    nodes.start(std::slice::from_ref(&active)).await;
    assert!(nodes.verify("DB1").await.equal);
}

#[tokio::test]
async fn everything_is_killed_at_once_and_comes_back_by_itself() {
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    for round in 0..3 {
        for i in 0..10 {
            let i = round * 10 + i;
            nodes.deliver(&mailbox, &format!("d{i}"), &body(i)).await;
        }
        let names = nodes.names();
        nodes.cluster.kill_all(&names).unwrap();
        nodes.start(&names).await;
    }
    all_there(&nodes, &mailbox, 30).await;
    assert!(nodes.verify("DB1").await.equal);
    assert!(nodes.verify("directory").await.equal);
    let active = nodes.until_mounted("DB1").await;
    let mut boots = Vec::new();
    for node in nodes.status(&active).await.nodes {
        boots.push(node.node.unwrap().boot_counter);
    }
    assert_eq!(boots, [4, 4, 4], "every start is counted and known");
}

#[tokio::test]
async fn a_node_that_is_not_active_says_who_is() {
    let (nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let active = nodes.until_mounted("DB1").await;
    let expected = nodes.cluster.node(&active).unwrap().clone();
    for name in nodes.names().into_iter().filter(|name| *name != active) {
        let mut client = nodes.mail(&name).await;
        let refused = client.deliver_message(delivery(&mailbox, "d1", b"x")).await;
        let refused = problem(refused.unwrap_err());
        assert_eq!(refused.reason, Reason::NotActiveCopy);
        assert_eq!(refused.facts.active_node.map(|node| node.0), Some(expected.id));
        let endpoint = format!("http://{}", expected.clients);
        assert_eq!(refused.facts.active_endpoint, Some(endpoint));
    }
}

#[tokio::test]
async fn a_minority_acknowledges_nothing() {
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let active = nodes.until_mounted("DB1").await;
    let others: Vec<String> = nodes.names().into_iter().filter(|n| *n != active).collect();
    nodes.cluster.kill_all(&others).unwrap();
    let mut client = nodes.mail(&active).await;
    for i in 0..5 {
        let request = delivery(&mailbox, &format!("d{i}"), b"x");
        let refused = problem(client.deliver_message(request).await.unwrap_err());
        let reasons = [Reason::OutcomeUnknown, Reason::NoQuorum, Reason::NotActiveCopy];
        assert!(reasons.contains(&refused.reason), "{refused}");
    }
    nodes.start(&others).await;
    for i in 0..5 {
        nodes.deliver(&mailbox, &format!("d{i}"), b"x").await;
    }
    assert_eq!(nodes.inbox(&mailbox).await.len(), 5, "each unknown one at most once");
}

#[tokio::test]
async fn a_damaged_copy_fails_and_the_others_go_on() {
    let (mut nodes, database) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    for i in 0..10 {
        nodes.deliver(&mailbox, &format!("d{i}"), &body(i)).await;
    }
    let active = nodes.until_mounted("DB1").await;
    let passive = nodes.names().into_iter().find(|name| *name != active).unwrap();
    nodes.cluster.kill(&passive).unwrap();
    let folder = nodes.cluster.node(&passive).unwrap().folder.clone();
    let log = damage(&folder.join("copies").join(database.to_string()));
    nodes.start(std::slice::from_ref(&passive)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = nodes.status(&passive).await;
    let id = nodes.cluster.node(&passive).unwrap().id;
    let copy = status.copies.iter().find(|c| c.database_id == database && c.node_id == id).unwrap();
    assert_eq!(copy.status(), dag_api::admin::v1::CopyStatus::Failed, "{log:?}: {copy:?}");
    assert!(!copy.message.is_empty());
    assert!(status.warnings.iter().any(|warning| warning.code == "COPY_FAILED"));
    nodes.deliver(&mailbox, "d10", &body(10)).await;
    all_there(&nodes, &mailbox, 11).await;
}

/// Flips a bit in the middle of what the copy's log holds.
fn damage(database: &std::path::Path) -> std::path::PathBuf {
    let copy = std::fs::read_dir(database).unwrap().next().unwrap().unwrap().path();
    let mut segments: Vec<std::path::PathBuf> = std::fs::read_dir(copy.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    let first = segments.remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    first
}

#[tokio::test]
async fn a_stop_in_good_order_closes_every_copy() {
    let (mut nodes, _) = Nodes::with_database("single-node", &[]).await;
    assert!(nodes.cluster.stop("n1").unwrap(), "it ended by itself");
    let folder = nodes.cluster.node("n1").unwrap().folder.clone();
    let journal = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    let events: Vec<history::journal::Event> = journal
        .lines()
        .map(|line| serde_json::from_str::<history::journal::Entry>(line).expect(line).event)
        .collect();
    let closed = |event: &&history::journal::Event| {
        matches!(event, history::journal::Event::ReplicaClosed { .. })
    };
    assert_eq!(events.iter().filter(closed).count(), 3, "control, directory, DB1");
    assert_eq!(events.last(), Some(&history::journal::Event::Stopped));
}
