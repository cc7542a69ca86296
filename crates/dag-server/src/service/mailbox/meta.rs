//! Messages as front ends see them, in as much detail as they asked for.

use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use mailbox::query::{self, Email, Folder, Message};
use mailbox::rights;

use super::{Place, no_folder, parse};
use crate::machine::{ReadFault, View};
use crate::service::text::{email_id, thread_id};

/// A message with what is known of its content, if that was asked for.
pub(super) type Described = (Message, Option<Email>);

/// Reads what a view needs beside the messages themselves.
pub(super) fn describe(
    view: View<'_>,
    place: Place,
    messages: Vec<Message>,
    wanted: api::MessageView,
) -> Result<Vec<Described>, ReadFault> {
    let with_content = wanted != api::MessageView::Flags;
    let describe = |message: Message| {
        let email = match with_content {
            true => query::get_email(&view, place.mailbox, message.email_id)?,
            false => None,
        };
        Ok((message, email))
    };
    messages.into_iter().map(describe).collect()
}

/// The folder, where it is the expected one and the actor may read it.
pub(super) fn readable(
    view: View<'_>,
    place: Place,
    folder: u32,
    actor: &[String],
    expected_uid_validity: u32,
) -> Result<Result<Folder, Problem>, ReadFault> {
    let Some(found) = query::get_folder(&view, place.mailbox, folder)? else {
        return Ok(Err(no_folder(place, folder)));
    };
    if !actor.is_empty() {
        let has = query::rights_of(&view, place.mailbox, folder, actor)?;
        if let Err(problem) = check_rights(place, folder, has, rights::READ) {
            return Ok(Err(problem));
        }
    }
    Ok(check_uid_validity(place, &found, expected_uid_validity).map(|()| found))
}

/// Where somebody may not even see a folder, there is none (RFC 4314 6).
pub(super) fn check_rights(
    place: Place,
    folder: u32,
    has: u32,
    needed: u32,
) -> Result<(), Problem> {
    if has & rights::LOOKUP == 0 {
        return Err(no_folder(place, folder));
    }
    match needed & !has {
        0 => Ok(()),
        missing => {
            let letters = rights::letters(missing);
            let text = format!("the right `{letters}` is missing; ask who administers the folder");
            let problem = Problem::new(Reason::AccessDenied, text);
            Err(problem.database(place.database).check(letters))
        }
    }
}

/// A folder that was made anew has other messages under the same UIDs.
pub(super) fn check_uid_validity(
    place: Place,
    folder: &Folder,
    expected: u32,
) -> Result<(), Problem> {
    if expected == 0 || expected == folder.uid_validity {
        return Ok(());
    }
    let text = "the folder is not the one you knew; read it again";
    let problem = Problem::new(Reason::UidValidityChanged, text);
    Err(problem.database(place.database).current(folder.uid_validity))
}

/// As the wire has it.
pub(super) fn api_message(
    place: Place,
    (message, email): Described,
    wanted: api::MessageView,
) -> api::MessageMeta {
    let mut meta = api::MessageMeta {
        uid: message.uid,
        modseq: message.modseq,
        created_modseq: message.created_modseq,
        system_flags: message.system_flags,
        keywords: message.keywords,
        save_date: Some(dag_api::convert::timestamp(message.saved)),
        size: message.size,
        ..api::MessageMeta::default()
    };
    let Some(email) = email else { return meta };
    if wanted == api::MessageView::Full {
        meta.envelope = parse::envelope(&email);
        meta.body = parse::structure(&email);
        meta.preview = email.preview;
    }
    let (mailbox, number) = email.origin.unwrap_or((place.mailbox, email.id));
    meta.email_id = email_id(mailbox, number);
    meta.thread_id = thread_id(place.mailbox, email.thread_id);
    meta.internal_date = Some(dag_api::convert::timestamp(email.internal_date));
    meta.blake3 = email.digest.to_vec().into();
    meta.delivery_id = email.delivery_id;
    meta.envelope_from = email.sender;
    meta
}
