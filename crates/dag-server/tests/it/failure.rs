//! Kills and restarts, and what was acknowledged.

use dag_api::Reason;
use dag_api::admin::v1::{
    ControlGroupStatus, CopyStatus, DatabaseCopy, GetStatusResponse, VerifyDatabaseRequest,
};
use dag_api::mailbox::v1 as mail;
use dag_types::DatabaseId;

use crate::cluster::{Nodes, creation, delivery, fetch, problem, reason};

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
async fn a_node_that_is_behind_never_says_that_a_database_is_missing() {
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let behind = "n3".to_owned();
    let others = ["n1".to_owned(), "n2".to_owned()];
    nodes.cluster.kill(&behind).unwrap();
    let database = nodes.create_database("DB2").await.database_id;
    nodes.until_mounted("DB2").await;
    let mailbox = nodes.create_mailbox_in("ann@example.org", database).await.mailbox.unwrap();
    // Alone, a node never catches up: what it knows is as old as its disk.
    nodes.cluster.kill_all(&others).unwrap();
    nodes.start(std::slice::from_ref(&behind)).await;
    let mut client = nodes.mail(&behind).await;
    let delivered = client.deliver_message(delivery(&mailbox, "d1", b"x")).await;
    let fetched = client.fetch_message(fetch(&mailbox, 1)).await;
    let created = client.create_mailbox(creation("bob@example.org", database)).await;
    let verification = VerifyDatabaseRequest {
        database_name: "DB2".into(),
        request_id: "verify".into(),
        ..VerifyDatabaseRequest::default()
    };
    let verified = nodes.admin(&behind).await.verify_database(verification).await;
    for reason in [reason(delivered), reason(fetched), reason(created), reason(verified)] {
        assert_eq!(reason, Reason::NotActiveCopy);
    }
    nodes.start(&others).await;
    nodes.deliver(&mailbox, "d1", b"x").await;
    assert_eq!(nodes.inbox(&mailbox).await.len(), 1);
}

#[tokio::test]
async fn that_a_database_is_missing_is_said_by_the_control_groups_leader_alone() {
    let (nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mut mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    mailbox.database_id = 999;
    let leads = |control: Option<ControlGroupStatus>| control.map_or(0, |group| group.leader_node);
    let leader = leads(nodes.status("n1").await.control);
    for name in nodes.names() {
        let node = nodes.cluster.node(&name).unwrap().clone();
        let refused = nodes.mail(&name).await.deliver_message(delivery(&mailbox, "d", b"x")).await;
        let refused = problem(refused.unwrap_err());
        if node.id == leader {
            assert_eq!(refused.reason, Reason::DatabaseNotFound, "{refused}");
        } else {
            assert_eq!(refused.reason, Reason::NotActiveCopy, "{refused}");
            assert_eq!(refused.facts.active_node.map(|node| node.0), Some(leader), "{refused}");
        }
    }
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
    let id = nodes.cluster.node(&passive).unwrap().id;
    let failed = |copy: &DatabaseCopy| {
        copy.database_id == database
            && copy.node_id == id
            && copy.status() == CopyStatus::Failed
            && !copy.message.is_empty()
    };
    let is_failed = |status: &GetStatusResponse| status.copies.iter().any(failed);
    let status = nodes.until_status(&passive, is_failed).await;
    assert!(status.warnings.iter().any(|warning| warning.code == "COPY_FAILED"), "{log:?}");
    nodes.deliver(&mailbox, "d10", &body(10)).await;
    all_there(&nodes, &mailbox, 11).await;
}

/// Flips a bit of a mail in the middle of the copy's log.
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
    let mail = body(5);
    let at = bytes.windows(mail.len()).position(|window| window == mail).unwrap();
    bytes[at + mail.len() / 2] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    first
}

#[tokio::test]
async fn a_failed_copy_of_the_control_group_is_told_to_all() {
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let leader = nodes.status("n1").await.control.map_or(0, |control| control.leader_node);
    let names = nodes.names();
    let id = |name: &String| nodes.cluster.node(name).unwrap().id;
    let (victim, other) = match names.iter().position(|name| id(name) == leader).unwrap() {
        0 => (names[1].clone(), names[0].clone()),
        at => (names[0].clone(), names[at].clone()),
    };
    nodes.cluster.kill(&victim).unwrap();
    let node = nodes.cluster.node(&victim).unwrap().clone();
    cut_logs(&node.folder.join("copies").join(DatabaseId::CONTROL.to_string()));
    nodes.start(std::slice::from_ref(&victim)).await;
    let is_told = |status: &GetStatusResponse| {
        status.copies.iter().any(|copy| {
            copy.node_id == node.id
                && copy.database_id == DatabaseId::CONTROL.0
                && copy.status() == CopyStatus::Failed
        })
    };
    nodes.until_status(&victim, is_told).await;
    nodes.until_status(&other, is_told).await;
}

/// Cuts every segment of a copy's log to nothing.
fn cut_logs(database: &std::path::Path) {
    let copy = std::fs::read_dir(database).unwrap().next().unwrap().unwrap().path();
    for entry in std::fs::read_dir(copy.join("log")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    }
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
