//! Commands and what they leave behind.

use std::vec;
use std::vec::Vec;

use bytes::Bytes;
use dag_types::DatabaseId;

use super::*;
use crate::test_state::State;

const NOW: u64 = 1_700_000_000_000;

#[derive(Default)]
struct Directory {
    state: State,
    now: u64,
}

impl Directory {
    fn new() -> Self {
        Self { now: NOW, ..Self::default() }
    }

    fn run(&mut self, order: Order) -> Outcome {
        let command = Command { at_ms: self.now, order: Some(order) };
        let applied = apply(&self.state, LogId::default(), &command).unwrap();
        assert_eq!(apply(&self.state, LogId::default(), &command).unwrap(), applied);
        self.state.write(applied.writes);
        self.state.check_digest();
        applied.response.outcome.unwrap()
    }

    fn reserve(&mut self, request: &str, address: &str, mailbox: u8) -> Reservation {
        match self.run(reserve_order(request, address, mailbox)) {
            Outcome::Reserved(reservation) => reservation,
            other => panic!("not reserved: {other:?}"),
        }
    }

    fn rejection(&mut self, order: Order) -> Rejection {
        match self.run(order) {
            Outcome::Rejected(rejected) => rejected.reason.unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn id(mailbox: u8) -> Bytes {
    vec![mailbox; 16].into()
}

fn reserve_order(request: &str, address: &str, mailbox: u8) -> Order {
    Order::Reserve(Reserve {
        request_id: request.into(),
        address: address.into(),
        mailbox: id(mailbox),
        database: 0,
        candidates: vec![16, 17],
    })
}

fn confirm_order(request: &str, mailbox: u8) -> Order {
    Order::Confirm(Confirm { request_id: request.into(), mailbox: id(mailbox) })
}

#[test]
fn a_confirmed_mailbox_is_found_by_address_in_any_case_and_by_id() {
    let mut directory = Directory::new();
    directory.reserve("r1", "Ann@Example.ORG", 1);
    directory.run(confirm_order("r1", 1));
    let address = Address::parse("aNN@example.org").unwrap();
    let found = query::by_address(&directory.state, &address).unwrap().unwrap();
    assert!(found.confirmed);
    assert_eq!(found.address, "Ann@example.org");
    let by_id = query::by_id(&directory.state, found.id()).unwrap();
    assert_eq!(by_id, Some(found));
}

#[test]
fn mailboxes_go_where_the_fewest_are() {
    let mut directory = Directory::new();
    let databases: Vec<u64> = (1..=4)
        .map(|i| directory.reserve(&format!("r{i}"), &format!("u{i}@x"), i).database)
        .collect();
    assert_eq!(databases, [16, 17, 16, 17]);
    assert_eq!(query::count(&directory.state, DatabaseId(16)).unwrap(), 2);
}

#[test]
fn a_repeated_request_gets_the_mailbox_that_it_reserved_first() {
    let mut directory = Directory::new();
    let first = directory.reserve("r1", "ann@x", 1);
    let rows = directory.state.len();
    let again = directory.reserve("r1", "ANN@x", 2);
    assert_eq!(again, Reservation { replayed: true, ..first.clone() });
    assert_eq!(directory.state.len(), rows);
    directory.run(confirm_order("r1", 1));
    let done = directory.reserve("r1", "ann@x", 3);
    assert_eq!(done, Reservation { replayed: true, confirmed: true, ..first });
}

#[test]
fn a_request_id_with_another_content_is_refused() {
    let mut directory = Directory::new();
    directory.reserve("r1", "ann@x", 1);
    let reused = Rejection::RequestIdReused(RequestIdReused {});
    assert_eq!(directory.rejection(reserve_order("r1", "bob@x", 2)), reused);
    assert_eq!(directory.rejection(reserve_order("", "bob@x", 2)), reused);
}

#[test]
fn an_address_with_a_mailbox_is_taken() {
    let mut directory = Directory::new();
    directory.reserve("r1", "ann@x", 1);
    directory.run(confirm_order("r1", 1));
    directory.now += 100 * RESERVED_MS;
    let taken = AddressTaken { mailbox: id(1), database: 16 };
    let rejection = directory.rejection(reserve_order("r2", "Ann@x", 2));
    assert_eq!(rejection, Rejection::AddressTaken(taken));
}

#[test]
fn a_reservation_is_its_requests_alone_until_it_has_lain_too_long() {
    let mut directory = Directory::new();
    directory.reserve("r1", "ann@x", 1);
    directory.now += RESERVED_MS - 1;
    let wait = Rejection::BeingMade(BeingMade { retry_after_ms: 1 });
    assert_eq!(directory.rejection(reserve_order("r2", "ann@x", 2)), wait);
    directory.now += 1;
    // The mailbox keeps the id that its database may have seen already.
    assert_eq!(directory.reserve("r2", "ann@x", 2).mailbox, id(1));
    let lost = Rejection::TakenOver(TakenOver {});
    assert_eq!(directory.rejection(confirm_order("r1", 1)), lost);
    assert_eq!(directory.rejection(reserve_order("r1", "ann@x", 1)), lost);
    let done = directory.run(confirm_order("r2", 1));
    assert!(matches!(done, Outcome::Confirmed(_)));
    assert_eq!(query::count(&directory.state, DatabaseId(16)).unwrap(), 1);
}

#[test]
fn confirming_again_changes_nothing() {
    let mut directory = Directory::new();
    directory.reserve("r1", "ann@x", 1);
    directory.run(confirm_order("r1", 1));
    match directory.run(confirm_order("r1", 1)) {
        Outcome::Confirmed(reservation) => assert!(reservation.replayed),
        other => panic!("{other:?}"),
    }
    let nobody = Rejection::NoMailbox(NoMailbox {});
    assert_eq!(directory.rejection(confirm_order("r1", 9)), nobody);
}

#[test]
fn what_cannot_be_made_is_refused_with_its_reason() {
    let mut directory = Directory::new();
    let rejection = directory.rejection(reserve_order("r1", "nobody", 1));
    assert!(matches!(rejection, Rejection::InvalidAddress(_)));
    let wanted = |database, candidates| {
        Order::Reserve(Reserve {
            request_id: "r2".into(),
            address: "ann@x".into(),
            mailbox: id(1),
            database,
            candidates,
        })
    };
    let none = Rejection::NoDatabase(NoDatabase {});
    assert_eq!(directory.rejection(wanted(0, vec![])), none);
    assert_eq!(directory.rejection(wanted(18, vec![16, 17])), none);
    assert_eq!(directory.state.len(), 0);
}

#[test]
fn pages_cover_every_address_once() {
    let mut directory = Directory::new();
    for i in 1..=7 {
        directory.reserve(&format!("r{i}"), &format!("u{i}@x"), i);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = query::page(&directory.state, &after, 3).unwrap();
        let Some((last, _)) = page.last() else { break };
        after = last.clone();
        seen.extend(page.into_iter().map(|(address, _)| address));
    }
    let expected: Vec<String> = (1..=7).map(|i| format!("u{i}@x")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_command_of_an_unknown_kind_is_a_fault() {
    let fault = apply(&State::default(), LogId::default(), &Command::default());
    assert_eq!(fault, Err(Fault::UnknownCommand));
}
