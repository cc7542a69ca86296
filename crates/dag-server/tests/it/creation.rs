//! How a DAG comes to be, and how it does not.

use std::process::Command;
use std::time::{Duration, Instant};

use dag_api::Reason;
use dag_api::admin::v1 as admin;
use dag_api::mailbox::v1 as mail;

use crate::cluster::{Nodes, form, founder, prepare, problem, reason};

#[tokio::test]
async fn an_empty_node_waits_and_names_the_command() {
    let nodes = Nodes::up("single-node", &[]).await;
    let node = nodes.get_node("n1").await;
    assert_eq!(node.state(), admin::NodeState::Unprovisioned);
    assert!(node.message.contains("dagctl dag create"), "{}", node.message);
    let request = mail::LocateMailboxRequest {
        mailbox: Some(mail::locate_mailbox_request::Mailbox::Address("ann@example.org".into())),
        authoritative: false,
    };
    let asked = nodes.mail("n1").await.locate_mailbox(request).await;
    let refused = problem(asked.unwrap_err());
    assert_eq!(refused.reason, Reason::Unprovisioned);
    assert!(refused.facts.next.is_some_and(|next| next.contains("dagctl dag create")));
}

#[tokio::test]
async fn creation_may_be_repeated_after_every_step() {
    let nodes = Nodes::up("three-node", &[]).await;
    let (dag_id, definition) = ([7; 16], nodes.definition());
    let mut members = Vec::new();
    for name in nodes.names() {
        let mut admin = nodes.admin(&name).await;
        admin.prepare_dag(prepare(&dag_id, &definition)).await.unwrap();
        let again = admin.prepare_dag(prepare(&dag_id, &definition)).await.unwrap().into_inner();
        assert_eq!(again.state(), admin::NodeState::Prepared);
        members.push(founder(again.node.unwrap()));
    }
    let mut first = nodes.admin("n1").await;
    let formed = first.form_dag(form(&dag_id, &definition, &members)).await.unwrap().into_inner();
    assert!(formed.changed);
    let again = first.form_dag(form(&dag_id, &definition, &members)).await.unwrap().into_inner();
    assert!(!again.changed);
    // The whole creation once more, from its beginning.
    nodes.create_dag().await;
    nodes.until_mounted("directory").await;
    assert_eq!(nodes.status("n2").await.lineage.unwrap().epoch, 1);
    // A member learns of the others with the control group's log.
    let until = Instant::now() + Duration::from_secs(30);
    while nodes.status("n2").await.control.unwrap().voters.len() != 3 {
        assert!(Instant::now() < until, "n2 does not know the control group's voters");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nothing_is_formed_before_every_node_is_prepared() {
    let nodes = Nodes::up("three-node", &[]).await;
    let (dag_id, definition) = ([7; 16], nodes.definition());
    let mut members = Vec::new();
    for name in nodes.names() {
        members.push(founder(nodes.get_node(&name).await.node.unwrap()));
    }
    let formed = nodes.admin("n1").await.form_dag(form(&dag_id, &definition, &members)).await;
    assert_eq!(reason(formed), Reason::Unprovisioned);
    assert_eq!(nodes.get_node("n1").await.state(), admin::NodeState::Unprovisioned);
}

#[tokio::test]
async fn a_member_is_not_prepared_for_another_dag() {
    let nodes = Nodes::formed("single-node", &[]).await;
    let other = prepare(&[8; 16], &nodes.definition());
    let refused = nodes.admin("n1").await.prepare_dag(other).await;
    assert_eq!(reason(refused), Reason::AlreadyProvisioned);
}

#[tokio::test]
async fn wiped_nodes_wait_and_what_is_left_mounts_nothing() {
    let (mut nodes, _) = Nodes::with_database("three-node", &[]).await;
    let wiped: Vec<String> = ["n2".into(), "n3".into()].to_vec();
    nodes.cluster.kill_all(&nodes.names()).unwrap();
    for name in &wiped {
        std::fs::remove_dir_all(&nodes.cluster.node(name).unwrap().folder).unwrap();
    }
    let names = nodes.names();
    nodes.start(&names).await;
    // Several election timeouts.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for name in &wiped {
        let node = nodes.get_node(name).await;
        assert_eq!(node.state(), admin::NodeState::Unprovisioned);
        assert!(node.message.contains("dagctl dag create"), "{}", node.message);
        assert!(nodes.status(name).await.copies.is_empty());
    }
    for database in ["control", "directory", "DB1"] {
        assert_eq!(nodes.active(database).await, None, "{database}");
    }
}

/// Starts the program on these settings and gives how it ended and what it said.
fn run(settings: &std::path::Path) -> (Option<i32>, String) {
    let mut holdfastd = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    let ended = holdfastd.arg("--settings").arg(settings).output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[tokio::test]
async fn two_processes_never_run_on_one_root() {
    let nodes = Nodes::up("single-node", &[]).await;
    let settings = nodes.cluster.node("n1").unwrap().settings.clone();
    let (code, said) = run(&settings);
    assert_eq!(code, Some(1));
    assert!(said.contains("in use by another process"), "{said}");
}

#[tokio::test]
async fn another_nodes_root_is_refused() {
    let mut nodes = Nodes::up("single-node", &[]).await;
    nodes.cluster.kill("n1").unwrap();
    let settings = nodes.cluster.node("n1").unwrap().settings.clone();
    let text = std::fs::read_to_string(&settings).unwrap();
    let other = settings.with_extension("other.toml");
    std::fs::write(&other, text.replace("node_id = 1", "node_id = 2")).unwrap();
    let (code, said) = run(&other);
    assert_eq!(code, Some(1));
    assert!(said.contains("belongs to node 1"), "{said}");
}

#[tokio::test]
async fn a_root_that_lost_its_record_is_not_formatted_again() {
    let mut nodes = Nodes::formed("single-node", &[]).await;
    nodes.cluster.kill("n1").unwrap();
    let node = nodes.cluster.node("n1").unwrap().clone();
    std::fs::remove_file(node.folder.join("node.meta")).unwrap();
    let (code, said) = run(&node.settings);
    assert_eq!(code, Some(1));
    assert!(said.contains("the root is damaged"), "{said}");
}

#[tokio::test]
async fn a_store_beside_another_dags_formation_is_refused() {
    let mut nodes = Nodes::formed("single-node", &[]).await;
    nodes.cluster.kill("n1").unwrap();
    let node = nodes.cluster.node("n1").unwrap().clone();
    std::fs::remove_file(node.folder.join("formation")).unwrap();
    let (code, said) = run(&node.settings);
    assert_eq!(code, Some(1));
    assert!(said.contains("formation"), "{said}");
}

#[tokio::test]
async fn settings_that_cannot_work_end_the_start_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("n1.toml");
    let text = "node_id = 0\nname = \"n1\"\nroot = \"relative\"\n[listen]\n\
                peers = \"10.0.0.1:1\"\nclients = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n";
    std::fs::write(&settings, text).unwrap();
    let (code, said) = run(&settings);
    assert_eq!(code, Some(2));
    for part in ["node_id:", "root:", "listen.peers:"] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    std::fs::write(&settings, format!("colour = 1\n{text}")).unwrap();
    let (code, said) = run(&settings);
    assert_eq!(code, Some(2));
    assert!(said.contains("unknown field `colour`"), "{said}");
}
