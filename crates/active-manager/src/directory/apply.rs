//! The transitions of the directory.

use alloc::format;
use alloc::string::{String, ToString};

use dag_types::{LogId, StateView};

use super::command::{Command, Confirm, Order, Reserve};
use super::query;
use super::record::{MailboxCount, MailboxKey, MailboxRecord, address_key, count_key, mailbox_key};
use super::response::{
    AddressTaken, BeingMade, InvalidAddress, NoDatabase, NoMailbox, Outcome, Rejection,
    RequestIdReused, Reservation, Response, TakenOver,
};
use crate::address::Address;
use crate::change::{Applied, Change, Digest, Fault, decode, read, read_digest};
use crate::request::{self, Seen};

/// How long a reservation belongs to its request alone. Longer than any request is worked on.
pub const RESERVED_MS: u64 = 60_000;

/// The effect of one entry of the directory's log. The same input gives the same output, for ever.
pub fn apply<V: StateView>(
    view: &V,
    _at: LogId,
    command: &Command,
) -> Result<Applied<Response>, Fault<V::Error>> {
    let mut change = Change::new(view);
    let verdict = match command.order.as_ref().ok_or(Fault::UnknownCommand)? {
        Order::Reserve(order) => reserve(&mut change, command.at_ms, order)?,
        Order::Confirm(order) => confirm(&mut change, order)?,
    };
    change.finish(match verdict {
        Ok(outcome) => outcome.into(),
        Err(rejection) => rejection.into(),
    })
}

/// The content digest of the directory's state.
pub fn digest<V: StateView>(view: &V) -> Result<Digest, Fault<V::Error>> {
    read_digest(view)
}

/// Outer: a fault. Inner: what the caller gets.
type Verdict<E> = Result<Result<Outcome, Rejection>, Fault<E>>;

fn reserve<V: StateView>(
    change: &mut Change<'_, V>,
    now_ms: u64,
    order: &Reserve,
) -> Verdict<V::Error> {
    let address = match Address::parse(&order.address) {
        Ok(address) => address,
        Err(problem) => {
            let problem = problem.to_string();
            return Ok(Err(Rejection::InvalidAddress(InvalidAddress { problem })));
        }
    };
    if !request::is_request_id(&order.request_id) || order.mailbox.len() != 16 {
        return Ok(Err(Rejection::RequestIdReused(RequestIdReused {})));
    }
    // The proposed id is random and the candidates grow, so neither says what was asked for.
    let content = format!("{}\n{}", address.as_str(), order.database);
    match request::seen(change.before(), &order.request_id, content.as_bytes())? {
        Seen::New => reserve_anew(change, now_ms, order, &address, &content),
        Seen::Reused => Ok(Err(Rejection::RequestIdReused(RequestIdReused {}))),
        Seen::Replay(first) => {
            let first: Reservation = decode("a remembered answer", first)?;
            let record = read(change.before(), &mailbox_key(&first.mailbox), "a mailbox")?;
            Ok(repeated(&order.request_id, record))
        }
    }
}

/// The answer to a reservation that was made before, as it stands now.
fn repeated(request_id: &str, record: Option<MailboxRecord>) -> Result<Outcome, Rejection> {
    match record {
        None => Err(Rejection::NoMailbox(NoMailbox {})),
        Some(record) if record.request_id != request_id => Err(Rejection::TakenOver(TakenOver {})),
        Some(record) => Ok(Outcome::Reserved(reservation(&record, true))),
    }
}

fn reserve_anew<V: StateView>(
    change: &mut Change<'_, V>,
    now_ms: u64,
    order: &Reserve,
    address: &Address,
    content: &str,
) -> Verdict<V::Error> {
    let known = query::by_address(change.before(), address)?;
    let record = match take_over(known, now_ms, order) {
        Err(rejection) => return Ok(Err(rejection)),
        Ok(Some(record)) => record,
        Ok(None) => {
            let Some(database) = choose_database(change.before(), order)? else {
                return Ok(Err(Rejection::NoDatabase(NoDatabase {})));
            };
            add_to_count(change, database)?;
            let key = MailboxKey { mailbox: order.mailbox.clone() };
            change.put(address_key(address), &key);
            MailboxRecord {
                mailbox: order.mailbox.clone(),
                database,
                address: shown(&order.address),
                confirmed: false,
                request_id: order.request_id.clone(),
                reserved_at_ms: now_ms,
            }
        }
    };
    change.put(mailbox_key(&record.mailbox), &record);
    let answer = reservation(&record, false);
    request::remember(change, now_ms, &order.request_id, content.as_bytes(), &answer)?;
    Ok(Ok(Outcome::Reserved(answer)))
}

/// What an address that is known already means for a new request: taken, or a reservation that
/// nobody finished in time.
fn take_over(
    known: Option<MailboxRecord>,
    now_ms: u64,
    order: &Reserve,
) -> Result<Option<MailboxRecord>, Rejection> {
    let Some(mut record) = known else {
        return Ok(None);
    };
    if record.confirmed {
        let taken = AddressTaken { mailbox: record.mailbox, database: record.database };
        return Err(Rejection::AddressTaken(taken));
    }
    let free_at = record.reserved_at_ms.saturating_add(RESERVED_MS);
    if now_ms < free_at {
        // A clock that was far ahead must not hold an address longer than a reservation lasts.
        let retry_after_ms = (free_at - now_ms).min(RESERVED_MS);
        return Err(Rejection::BeingMade(BeingMade { retry_after_ms }));
    }
    record.request_id = order.request_id.clone();
    record.reserved_at_ms = now_ms;
    Ok(Some(record))
}

/// The wanted database, or the one with the fewest mailboxes; the smallest number among equals.
fn choose_database<V: StateView>(
    view: &V,
    order: &Reserve,
) -> Result<Option<u64>, Fault<V::Error>> {
    if order.database != 0 {
        let known = order.candidates.contains(&order.database);
        return Ok(known.then_some(order.database));
    }
    let mut best: Option<(u64, u64)> = None;
    for &database in &order.candidates {
        let load = (query::count(view, dag_types::DatabaseId(database))?, database);
        best = Some(best.map_or(load, |best| best.min(load)));
    }
    Ok(best.map(|(_, database)| database))
}

fn add_to_count<V: StateView>(
    change: &mut Change<'_, V>,
    database: u64,
) -> Result<(), Fault<V::Error>> {
    let mailboxes = query::count(change.before(), dag_types::DatabaseId(database))? + 1;
    change.put(count_key(database), &MailboxCount { mailboxes });
    Ok(())
}

fn confirm<V: StateView>(change: &mut Change<'_, V>, order: &Confirm) -> Verdict<V::Error> {
    let key = mailbox_key(&order.mailbox);
    let Some(mut record) = read::<V, MailboxRecord>(change.before(), &key, "a mailbox")? else {
        return Ok(Err(Rejection::NoMailbox(NoMailbox {})));
    };
    if record.request_id != order.request_id {
        return Ok(Err(Rejection::TakenOver(TakenOver {})));
    }
    let replayed = record.confirmed;
    if !replayed {
        record.confirmed = true;
        change.put(key, &record);
    }
    Ok(Ok(Outcome::Confirmed(reservation(&record, replayed))))
}

fn reservation(record: &MailboxRecord, replayed: bool) -> Reservation {
    Reservation {
        mailbox: record.mailbox.clone(),
        database: record.database,
        replayed,
        confirmed: record.confirmed,
    }
}

/// The address as people see it: as it was written, with the domain in lower case.
fn shown(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
        None => address.to_string(),
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
