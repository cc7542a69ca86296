use std::collections::HashSet;
use std::time::Duration;

use dag_client::v1::DeliverCode;
use dag_client::{Client, Delivery, Error, Options, Outcome, Problem, Reason, Session};
use futures::future::join_all;

use crate::fake::{Cluster, DB_A, DB_B, Fault};
use crate::{ATTEMPT, client, content, options};

fn delivery(number: usize, recipients: &[&str]) -> Delivery {
    Delivery::new(format!("d{number}"), recipients.iter().copied(), content(100 + number))
}

async fn deliver_all(session: &Session, numbers: std::ops::Range<usize>, recipients: &[&str]) {
    let deliveries = numbers.map(|number| session.deliver(delivery(number, recipients)));
    for report in join_all(deliveries).await {
        let report = report.unwrap();
        assert!(report.all_stored(), "{report:?}");
    }
}

/// Every message once, with its own content.
fn assert_exactly_once(cluster: &Cluster, address: &str, numbers: std::ops::Range<usize>) {
    let state = cluster.lock();
    let messages = state.messages(address);
    let ids: HashSet<_> = messages.iter().map(|message| message.id.clone()).collect();
    assert_eq!(messages.len(), numbers.len(), "{address}");
    for number in numbers {
        let id = format!("d{number}");
        assert!(ids.contains(&id), "{id} is missing for {address}");
        let message = messages.iter().find(|message| message.id == id).unwrap();
        assert_eq!(message.content, content(100 + number));
    }
}

async fn two_databases(nodes: usize) -> Cluster {
    let cluster = Cluster::start(nodes).await;
    cluster.lock().add_mailbox("ann@x", DB_A);
    cluster.lock().add_mailbox("bob@x", DB_B);
    cluster.activate(DB_B, nodes - 1);
    cluster
}

#[tokio::test]
async fn many_messages_share_one_stream_per_database() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    deliver_all(&session, 0..400, &["ann@x", "bob@x"]).await;
    assert_exactly_once(&cluster, "ann@x", 0..400);
    assert_exactly_once(&cluster, "bob@x", 0..400);
    assert_eq!(cluster.lock().streams, 2);
    assert_eq!(cluster.lock().count("session"), 800);
}

#[tokio::test]
async fn unanswered_messages_are_sent_again_when_a_stream_breaks() {
    let cluster = two_databases(3).await;
    let session = client(&cluster).session();
    for begin in [0, 100, 200] {
        cluster.plant(0, [Fault::Delay(Duration::from_millis(20)), Fault::Break]);
        deliver_all(&session, begin..begin + 100, &["ann@x"]).await;
    }
    assert_exactly_once(&cluster, "ann@x", 0..300);
    assert!(cluster.lock().streams > 3);
}

#[tokio::test]
async fn a_session_follows_the_active_copy_while_messages_are_in_flight() {
    let cluster = two_databases(3).await;
    let session = client(&cluster).session();
    let mover = {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            for turn in 0..12 {
                tokio::time::sleep(Duration::from_millis(15)).await;
                cluster.activate(DB_A, turn % 3);
                cluster.lock().hints = turn % 4 != 0;
            }
            cluster.lock().hints = true;
        })
    };
    for begin in (0..1_000).step_by(50) {
        deliver_all(&session, begin..begin + 50, &["ann@x"]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mover.await.unwrap();
    assert_exactly_once(&cluster, "ann@x", 0..1_000);
}

#[tokio::test]
async fn lost_late_unknown_and_refused_answers_each_arrive_once() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    let unknown = Problem::new(Reason::OutcomeUnknown, "no majority answered");
    let overloaded = Problem::new(Reason::Overloaded, "enough");
    let wait = Duration::from_millis(30);
    for (begin, fault) in [
        Fault::DropAnswer,
        Fault::Delay(ATTEMPT * 3 / 2),
        Fault::CarryOutThen(unknown),
        Fault::Refuse(overloaded.retry_after(wait)),
        Fault::Refuse(Problem::new(Reason::NoQuorum, "alone")),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.plant(0, [fault]);
        deliver_all(&session, begin * 10..begin * 10 + 10, &["ann@x"]).await;
    }
    assert_exactly_once(&cluster, "ann@x", 0..50);
}

#[tokio::test]
async fn a_message_that_is_refused_for_good_does_not_end_the_session() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    let reused = Problem::new(Reason::DeliveryIdReused, "another message has this id");
    cluster.plant(0, [Fault::Refuse(reused)]);
    let report = session.deliver(delivery(0, &["ann@x"])).await.unwrap();
    let error = report.recipients[0].result.as_ref().unwrap_err();
    assert_eq!(error.problem().unwrap().reason, Reason::DeliveryIdReused);
    deliver_all(&session, 1..20, &["ann@x"]).await;
    assert_exactly_once(&cluster, "ann@x", 1..20);
    assert_eq!(cluster.lock().streams, 1);
}

#[tokio::test]
async fn one_delivery_id_in_flight_twice_is_stored_once() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    let same = || session.deliver(delivery(0, &["ann@x"]));
    let reports = join_all([same(), same(), same()]).await;
    let mut codes: Vec<_> = reports
        .into_iter()
        .map(|report| report.unwrap().recipients[0].result.as_ref().unwrap().result.code())
        .collect();
    codes.sort_by_key(|code| *code as i32);
    assert_eq!(codes, [DeliverCode::Stored, DeliverCode::Duplicate, DeliverCode::Duplicate]);
    assert_exactly_once(&cluster, "ann@x", 0..1);
}

#[tokio::test]
async fn large_and_small_messages_share_a_session() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    let large = |id: &str| Delivery::new(id, ["ann@x"], content((1 << 20) + 500_000));
    let (first, (), second) = tokio::join!(
        session.deliver(large("l1")),
        deliver_all(&session, 0..100, &["ann@x"]),
        session.deliver(large("l2")),
    );
    assert!(first.unwrap().all_stored() && second.unwrap().all_stored());
    let state = cluster.lock();
    let large = state.messages("ann@x").iter().filter(|message| message.id.starts_with('l'));
    for message in large.clone() {
        assert_eq!(message.content, content((1 << 20) + 500_000));
    }
    assert_eq!((large.count(), state.messages("ann@x").len()), (2, 102));
}

#[tokio::test]
async fn a_mailbox_that_moved_is_followed_from_within_a_session() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    deliver_all(&session, 0..10, &["ann@x"]).await;
    let (ann, _) = cluster.lock().places["ann@x"];
    cluster.lock().places.insert("ann@x".into(), (ann, DB_B));
    deliver_all(&session, 10..20, &["ann@x"]).await;
    assert_exactly_once(&cluster, "ann@x", 0..20);
}

#[tokio::test]
async fn an_answer_of_an_older_lineage_does_not_count_in_a_session() {
    let cluster = two_databases(2).await;
    let session = client(&cluster).session();
    deliver_all(&session, 0..10, &["ann@x"]).await;
    cluster.lock().activate(2, &[0]);
    cluster.activate(DB_A, 1);
    deliver_all(&session, 10..20, &["ann@x"]).await;
    cluster.activate(DB_A, 0);
    let late = session.deliver(delivery(20, &["ann@x"]));
    let late = tokio::time::timeout(Duration::from_millis(800), late).await;
    assert!(late.is_err(), "an answer of the old lineage was counted");
    cluster.activate(DB_A, 1);
    deliver_all(&session, 20..30, &["ann@x"]).await;
    assert_exactly_once(&cluster, "ann@x", 0..30);
}

#[tokio::test]
async fn the_patience_ends_in_a_session_too_and_the_next_message_is_not_held_up() {
    let cluster = two_databases(1).await;
    let short = Options { patience: ATTEMPT / 2, ..options() };
    let session = Client::connect(cluster.endpoints(), short).unwrap().session();
    // The node asks to come back after the patience is over: nothing is in flight by then.
    let full = Problem::new(Reason::Overloaded, "enough").retry_after(ATTEMPT);
    cluster.plant(0, [Fault::Refuse(full)]);
    let report = session.deliver(delivery(0, &["ann@x"])).await.unwrap();
    let Err(Error::TimedOut { outcome, .. }) = &report.recipients[0].result else {
        panic!("{report:?}");
    };
    assert_eq!(*outcome, Outcome::NotCarriedOut);
    cluster.lock().faults.clear();
    cluster.plant(0, vec![Fault::DropAnswer; 100]);
    let report = session.deliver(delivery(1, &["ann@x"])).await.unwrap();
    let Err(Error::TimedOut { outcome, .. }) = &report.recipients[0].result else {
        panic!("{report:?}");
    };
    assert_eq!(*outcome, Outcome::Unknown);
    cluster.lock().faults.clear();
    let patient = client(&cluster).session();
    deliver_all(&patient, 2..12, &["ann@x"]).await;
    let again = session.deliver(delivery(12, &["ann@x"])).await.unwrap();
    assert!(again.all_stored(), "{again:?}");
}

#[tokio::test]
async fn a_session_keeps_no_more_in_flight_than_it_may() {
    let cluster = two_databases(1).await;
    let narrow = Options { session_bytes: 64 << 10, ..options() };
    let session = Client::connect(cluster.endpoints(), narrow).unwrap().session();
    cluster.plant(0, vec![Fault::DropAnswer; 1_000]);
    let deliveries = (0..100).map(|number| session.deliver(delivery(number, &["ann@x"])));
    let all = join_all(deliveries);
    let full = async {
        while cluster.lock().messages("ann@x").len() < 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    tokio::select! {
        _ = all => panic!("no message was answered"),
        () = full => {}
    }
    assert_eq!(cluster.lock().messages("ann@x").len(), 16, "64 KiB in messages of 4 KiB");
}
