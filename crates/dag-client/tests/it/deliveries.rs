use dag_client::v1::DeliverCode;
use dag_client::{Delivery, Problem, Reason};

use crate::fake::{Cluster, DB_A, DB_B, Fault};
use crate::{client, content};

#[tokio::test]
async fn recipients_are_gathered_by_database_and_each_has_its_own_result() {
    let cluster = Cluster::start(2).await;
    cluster.activate(DB_B, 1);
    for (address, database) in [("ann@x", DB_A), ("bob@x", DB_B), ("cat@x", DB_A)] {
        cluster.lock().add_mailbox(address, database);
    }
    let recipients = ["ann@x", "bob@x", "nobody@x", "cat@x", "Ann@x"];
    let delivery = Delivery::new("d1", recipients, content(4_000));
    let report = client(&cluster).deliver(delivery).await.unwrap();
    assert_eq!(cluster.lock().count("deliver"), 2);
    assert!(!report.all_stored());
    for recipient in &report.recipients {
        match &recipient.result {
            Ok(stored) => assert_eq!(stored.result.uid, 1, "{}", recipient.address),
            Err(error) => {
                assert_eq!(recipient.address, "nobody@x");
                assert_eq!(error.problem().unwrap().reason, Reason::MailboxNotFound);
            }
        }
    }
    for address in ["ann@x", "bob@x", "cat@x"] {
        let state = cluster.lock();
        assert_eq!(state.messages(address).len(), 1);
        assert_eq!(state.messages(address)[0].content, content(4_000));
    }
}

#[tokio::test]
async fn a_delivery_with_a_lost_answer_arrives_once() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let client = client(&cluster);
    for (number, fault) in [Fault::DropAnswer, Fault::Break].into_iter().enumerate() {
        cluster.plant(0, [fault]);
        let delivery = Delivery::new(format!("d{number}"), ["ann@x"], content(100));
        let report = client.deliver(delivery).await.unwrap();
        let stored = report.recipients[0].result.as_ref().unwrap();
        assert_eq!(stored.result.code(), DeliverCode::Duplicate);
        assert_eq!(cluster.lock().messages("ann@x").len(), number + 1);
    }
}

#[tokio::test]
async fn a_recipient_that_moved_is_followed_and_the_others_are_not_disturbed() {
    let cluster = Cluster::start(2).await;
    cluster.activate(DB_B, 1);
    cluster.lock().add_mailbox("ann@x", DB_A);
    let bob = cluster.lock().add_mailbox("bob@x", DB_A);
    let client = client(&cluster);
    let both = |id: &str| Delivery::new(id, ["ann@x", "bob@x"], content(10));
    assert!(client.deliver(both("d1")).await.unwrap().all_stored());
    cluster.lock().places.insert("bob@x".into(), (bob, DB_B));
    assert!(client.deliver(both("d2")).await.unwrap().all_stored());
    for address in ["ann@x", "bob@x"] {
        assert_eq!(cluster.lock().messages(address).len(), 2, "{address}");
    }
    let delivers = cluster.lock().count("deliver");
    assert!(client.deliver(both("d3")).await.unwrap().all_stored());
    assert_eq!(cluster.lock().count("deliver"), delivers + 2, "one call per database");
}

#[tokio::test]
async fn a_stale_directory_does_not_bounce_mail() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.lock().stale.insert("ann@x".into(), (dag_types::MailboxId([9; 16]), DB_B));
    let delivery = Delivery::new("d1", ["ann@x"], content(10));
    assert!(client(&cluster).deliver(delivery).await.unwrap().all_stored());
}

#[tokio::test]
async fn a_delivery_that_cannot_be_is_refused_before_it_is_sent() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster);
    let nameless = Delivery::new("not an id", ["ann@x"], content(1));
    let error = client.deliver(nameless).await.unwrap_err();
    assert_eq!(error.problem().unwrap().reason, Reason::InvalidRequest);
    let huge = Delivery::new("d1", ["ann@x"], vec![0; (64 << 20) + 1]);
    let error = client.deliver(huge).await.unwrap_err();
    assert_eq!(error.problem().unwrap().facts.limit, Some(64 << 20));
    assert_eq!(cluster.lock().calls, []);
}

#[tokio::test]
async fn a_large_delivery_follows_a_hint_and_survives_a_broken_stream() {
    let cluster = Cluster::start(2).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    let client = client(&cluster);
    let elsewhere = Problem::new(Reason::NoQuorum, "alone");
    cluster.plant(0, [Fault::Refuse(elsewhere), Fault::Break]);
    let delivery = Delivery::new("d1", ["ann@x"], content((2 << 20) + 3));
    assert!(client.deliver(delivery).await.unwrap().all_stored());
    let state = cluster.lock();
    assert_eq!(state.messages("ann@x").len(), 1);
    assert_eq!(state.messages("ann@x")[0].content, content((2 << 20) + 3));
}
