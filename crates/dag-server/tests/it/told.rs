//! What a node says of itself: the journal for checkers, the log for people.

use dag_api::admin::v1 as admin;
use history::journal::{Entry, Event, StepState};

use crate::cluster::{Nodes, delivery, problem};

/// All lines of a node's journal.
fn journal(nodes: &Nodes, node: &str) -> Vec<Event> {
    let path = nodes.cluster.node(node).unwrap().folder.join("journal.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<Entry>(line).expect(line).event).collect()
}

/// Moves the database to another node, as `dagctl` does: at whichever node leads the control group.
async fn move_away(nodes: &Nodes, from: &str) -> String {
    let to = nodes.names().into_iter().find(|name| name != from).expect("another node");
    let request = admin::MoveDatabaseRequest {
        database_name: "DB1".into(),
        to_node: nodes.cluster.node(&to).unwrap().id,
        request_id: "away".into(),
        ..admin::MoveDatabaseRequest::default()
    };
    for round in 0.. {
        for name in nodes.names() {
            match nodes.admin(&name).await.move_database(request.clone()).await.map_err(problem) {
                Ok(moved) => {
                    assert!(moved.into_inner().moved);
                    return to;
                }
                Err(refused) => assert!(round < 200, "{refused}"),
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    unreachable!("it is moved, or the last refusal is shown");
}

#[tokio::test]
async fn the_node_that_takes_a_step_journals_it_and_why_it_serves_no_more() {
    let (nodes, _) = Nodes::unhurried("three-node").await;
    let from = nodes.until_mounted("DB1").await;
    let to = move_away(&nodes, &from).await;
    assert_eq!(nodes.until_mounted("DB1").await, to);
    let told = journal(&nodes, &from);
    let steps: Vec<(u64, &str, StepState)> = told
        .iter()
        .filter_map(|event| match event {
            Event::Step { step, kind, state, .. } => Some((*step, kind.as_str(), *state)),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [(1, "transfer", StepState::Begun), (1, "transfer", StepState::Done)]);
    let reasons: Vec<&str> = told
        .iter()
        .filter_map(|event| match event {
            Event::Dismounted { why, .. } => Some(why.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, ["it does not lead any more"]);
}

#[tokio::test]
async fn no_line_of_the_log_shows_an_address_or_a_mail() {
    const WORD: &str = "xylophone";
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann.tennant@example.org").await.mailbox.unwrap();
    let body = format!("Subject: {WORD}\r\nFrom: ben@example.org\r\n\r\n{WORD}\r\n");
    nodes.deliver(&mailbox, "d1", body.as_bytes()).await;
    // What is refused, and what happens to nodes, leaves lines of another kind.
    for name in nodes.names() {
        let unknown = delivery(&mailbox, "d2", &[]);
        let _ = nodes.mail(&name).await.deliver_message(unknown).await;
    }
    let active = nodes.until_mounted("DB1").await;
    nodes.cluster.kill(&active).unwrap();
    nodes.deliver(&mailbox, "d3", body.as_bytes()).await;
    nodes.start(std::slice::from_ref(&active)).await;
    nodes.until_mounted("DB1").await;
    for name in nodes.names() {
        nodes.cluster.stop(&name).unwrap();
        let node = nodes.cluster.node(&name).unwrap();
        let (log, own) =
            (std::fs::read_to_string(&node.log).unwrap(), format!(" node={}", node.id));
        assert!(log.lines().count() > 5, "{name} says nothing: {log}");
        for line in log.lines() {
            let shown =
                ["@", "example.org", "tennant", WORD].into_iter().find(|w| line.contains(w));
            assert_eq!(shown, None, "{name}: {line}");
            assert!(line.ends_with(&own) && is_of_time(line), "{name}: {line}");
        }
    }
}

/// Whether a line begins with an instant as RFC 3339 writes it, in UTC.
fn is_of_time(line: &str) -> bool {
    let instant = line.split(' ').next().unwrap_or_default();
    let (date, time) = instant.split_once('T').unwrap_or_default();
    let numbers = |text: &str, separator: char| text.split(separator).count() == 3;
    numbers(date, '-') && time.strip_suffix('Z').is_some_and(|time| numbers(time, ':'))
}
