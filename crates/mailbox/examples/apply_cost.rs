//! What a delivery costs in `apply` alone, with the state in an ordered map, and how much of it is
//! the map's: `cargo run --release -p mailbox --example apply_cost [mailboxes] [deliveries]`.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_types::{LogId, MailboxId, Millis};
use mailbox::Command;
use mailbox::command::{Content, CreateMailbox, Deliver, Parsed, Recipient};
use mailbox::map_view::MapView;
use mailbox::view::{Fault, MailboxView, Row};

/// The time that reads took, apart from what is done with them.
#[derive(Default)]
struct TimedView {
    map: MapView,
    reading: Cell<Duration>,
}

impl MailboxView for TimedView {
    type Error = Fault;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let started = Instant::now();
        let value = self.map.get(key);
        self.reading.set(self.reading.get() + started.elapsed());
        value
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, Fault> {
        self.map.scan(from, to, limit)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let mailboxes = arguments.next().unwrap_or(1_000);
    let deliveries = arguments.next().unwrap_or(50_000);
    for body_bytes in [4 << 10, 50 << 10] {
        for recipients in [1, 10] {
            measure(mailboxes, deliveries / recipients, recipients, body_bytes);
        }
    }
}

fn measure(mailboxes: u64, deliveries: u64, recipients: u64, body_bytes: usize) {
    let mut view = TimedView::default();
    let mut index = 0;
    for number in 0..mailboxes {
        let create = CreateMailbox::new(mailbox_id(number), vec![address(number)]);
        let command = Command::new("create", Millis(1), create.into());
        apply(&mut view, &mut index, &command);
    }
    view.reading.take();
    let mut decoding = Duration::ZERO;
    let mut applying = Duration::ZERO;
    for number in 0..deliveries {
        let entry = delivery(number, mailboxes, recipients, body_bytes).encode_to_bytes();
        let started = Instant::now();
        let command = Command::decode_from(entry).expect("what was encoded");
        decoding += started.elapsed();
        applying += apply(&mut view, &mut index, &command);
    }
    println!(
        "{body_bytes:6} bytes to {recipients:2}: decode {:6} ns, apply {:6} ns (reads {:6} ns)",
        decoding.as_nanos() as u64 / deliveries,
        applying.as_nanos() as u64 / deliveries,
        view.reading.get().as_nanos() as u64 / deliveries,
    );
}

/// The time of `apply` without that of writing the map.
fn apply(view: &mut TimedView, index: &mut u64, command: &Command) -> Duration {
    *index += 1;
    let started = Instant::now();
    let applied = mailbox::apply(&*view, LogId { term: 1, index: *index }, black_box(command));
    let took = started.elapsed();
    let applied = applied.expect("no fault");
    assert!(applied.response.rejection().is_none(), "{:?}", applied.response);
    view.map.write(applied.writes);
    took
}

fn delivery(number: u64, mailboxes: u64, recipients: u64, body_bytes: usize) -> Command {
    // Bodies differ from one another, as mails do, and share the memory of nothing.
    let mut body = vec![b'x'; body_bytes];
    body[..8].copy_from_slice(&number.to_be_bytes());
    let to = |at: u64| {
        let owner = (number * 7 + at) % mailboxes;
        Recipient::new(address(owner), mailbox_id(owner))
    };
    let parsed = Parsed {
        message_id: format!("<{number}@example.net>"),
        envelope: Bytes::from(vec![b'e'; 150]),
        body_structure: Bytes::from(vec![b's'; 80]),
        preview: "A preview of a message that is about a hundred characters long, as many are."
            .into(),
        ..Parsed::default()
    };
    let deliver = Deliver {
        delivery_id: format!("01890a5d-ac96-774b-bcce-{number:012}"),
        sender: "someone@example.net".into(),
        recipients: (0..recipients).map(to).collect(),
        received_ms: 1_000 + number,
        content: Content::new(Bytes::from(body), 7, parsed),
    };
    Command::new("", Millis(1_000 + number), deliver.into())
}

fn mailbox_id(number: u64) -> MailboxId {
    let mut id = [1; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    MailboxId(id)
}

fn address(number: u64) -> String {
    format!("user{number}@example.org")
}
