//! The header fields that front ends show (RFC 9051 7.5.2, ENVELOPE).

use dag_api::mailbox::v1::{EmailAddress, Envelope};
use mail_parser::{Addr, Address, HeaderName, HeaderValue, Message};
use prost::Message as _;

use crate::limits;

/// Bytes of a text that are kept: a line's length (RFC 5322 2.1.1).
const TEXT_BYTES: usize = 998;
/// Bytes of a name or an address that are kept.
const ADDRESS_BYTES: usize = 320;
/// Addresses of one field that are kept.
const ADDRESSES: usize = 100;
/// Message ids of one field that are kept: the first and the last ones.
const IDS: usize = 20;

/// The envelope of a header, with more than is stored.
pub(crate) fn of_header(header: &Message<'_>) -> Envelope {
    let (in_reply_to, references) = (ids(header.in_reply_to()), ids(header.references()));
    let lists = [header.from(), header.to(), header.cc(), header.bcc()];
    let is_cut = lists.into_iter().flatten().any(|list| list.iter().count() > ADDRESSES);
    Envelope {
        date: cut(header.header_raw(HeaderName::Date).unwrap_or_default().trim(), TEXT_BYTES),
        subject: cut(header.subject().unwrap_or_default(), TEXT_BYTES),
        from: addresses(header.from()),
        sender: addresses(header.sender()),
        reply_to: addresses(header.reply_to()),
        to: addresses(header.to()),
        cc: addresses(header.cc()),
        bcc: addresses(header.bcc()),
        message_id: message_id(header),
        in_reply_to,
        references,
        truncated: is_cut,
    }
}

/// What is stored of it: the lists go first when it is too large.
pub(crate) fn bounded(mut envelope: Envelope) -> Envelope {
    let is_large = |envelope: &Envelope| envelope.encoded_len() > limits::ENVELOPE_BYTES;
    if !is_large(&envelope) {
        return envelope;
    }
    envelope.truncated = true;
    for list in [&mut envelope.bcc, &mut envelope.cc, &mut envelope.to, &mut envelope.reply_to] {
        list.truncate(10);
    }
    if is_large(&envelope) {
        for list in [&mut envelope.bcc, &mut envelope.cc, &mut envelope.to, &mut envelope.reply_to]
        {
            list.truncate(1);
        }
        envelope.from.truncate(1);
        envelope.sender.truncate(1);
        envelope.in_reply_to.truncate(1);
        envelope.references.truncate(1);
    }
    envelope
}

/// The text without what follows its first bytes, and without NUL, which some front ends cannot say.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "")
}

fn message_id(header: &Message<'_>) -> String {
    cut(header.message_id().unwrap_or_default(), TEXT_BYTES)
}

fn ids(value: &HeaderValue<'_>) -> Vec<String> {
    let all = value.as_text_list().unwrap_or_default();
    let beginning = all.len().saturating_sub(IDS - 1).max(1);
    let kept = all.iter().enumerate().filter(|(at, _)| *at == 0 || *at >= beginning);
    kept.map(|(_, id)| cut(id, TEXT_BYTES)).collect()
}

fn addresses(field: Option<&Address<'_>>) -> Vec<EmailAddress> {
    let mut found = Vec::new();
    match field {
        None => {}
        Some(Address::List(list)) => {
            found.extend(list.iter().take(ADDRESSES).map(|one| address(one, "")));
        }
        Some(Address::Group(groups)) => {
            for group in groups.iter().take(ADDRESSES) {
                let name = group.name.as_deref().unwrap_or_default();
                let members = group.addresses.iter().take(ADDRESSES - found.len().min(ADDRESSES));
                let before = found.len();
                found.extend(members.map(|one| address(one, name)));
                if found.len() == before && !name.is_empty() {
                    let group = cut(name, ADDRESS_BYTES);
                    found.push(EmailAddress { group, ..EmailAddress::default() });
                }
            }
        }
    }
    found
}

fn address(one: &Addr<'_>, group: &str) -> EmailAddress {
    EmailAddress {
        name: cut(one.name.as_deref().unwrap_or_default(), ADDRESS_BYTES),
        address: cut(one.address.as_deref().unwrap_or_default(), ADDRESS_BYTES),
        group: cut(group, ADDRESS_BYTES),
    }
}
