//! What is different since a MODSEQ.

use std::fmt;
use std::str::FromStr;

use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use mailbox::query::{self, Change, ChangeKind, ChangesSince, FeedPosition, FolderChanges};
use tokio::time::Instant;

use super::meta::readable;
use super::{MailboxServer, Place, Seen, live_mailbox, moved};
use crate::machine::View;
use crate::service::text::{PageToken, folder_id, page_size, parse_folder_id};

/// A position in a feed as a page token has it.
struct Position(FeedPosition);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.known, self.0.read_to)
    }
}

impl FromStr for Position {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (known, read_to) = text.split_once('.').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        let position = FeedPosition { known: number(known)?, read_to: number(read_to)? };
        if position.known <= position.read_to { Ok(Self(position)) } else { Err(()) }
    }
}

impl MailboxServer {
    pub(super) async fn changes(
        &self,
        request: api::GetChangesRequest,
        deadline: Instant,
    ) -> Result<api::GetChangesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let actor = super::actor(request.mailbox.as_ref());
        let folder = parse_folder_id(&request.folder_id)?;
        let since = request.since_modseq;
        let page = PageToken::of_query(&[
            "changes",
            &place.mailbox.to_string(),
            &request.folder_id,
            &since.to_string(),
        ]);
        let at = page.read::<Position>(&request.page_token)?;
        let from = at.map_or(FeedPosition::at(since), |Position(at)| at);
        let size = page_size(request.page_size);
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            let may = match folder {
                Some(folder) => readable(view, place, folder, &actor, 0)?.map(|_| ()),
                None => live_mailbox(view, place)?
                    .and_then(|mailbox| super::check_owner(place, &mailbox, &actor)),
            };
            if let Err(problem) = may {
                return Ok(Err(problem));
            }
            let changes = query::changes_since(&view, place.mailbox, folder, from, size)?;
            Ok(match changes {
                ChangesSince::NotFound => Err(moved(place)),
                ChangesSince::TooOld { floor } => Err(too_old(place, from.read_to, floor)),
                ChangesSince::Changes(changes) => Ok(changes),
            })
        });
        let Seen { value, token, staleness } = read.await?;
        Ok(api::GetChangesResponse {
            changes: value.changes.iter().map(api_change).collect(),
            next_page_token: page.write(Some(Position(value.next)).filter(|_| value.more)),
            modseq: value.next.known,
            token,
            staleness,
        })
    }

    pub(super) async fn folder_changes(
        &self,
        request: api::GetFolderChangesRequest,
        deadline: Instant,
    ) -> Result<api::GetFolderChangesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let actor = super::actor(request.mailbox.as_ref());
        let since = request.since_modseq;
        let mailbox = place.mailbox.to_string();
        let page = PageToken::of_query(&["folder changes", &mailbox, &since.to_string()]);
        let from = page.read(&request.page_token)?.unwrap_or(since);
        let size = page_size(request.page_size);
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            let may = live_mailbox(view, place)?
                .and_then(|mailbox| super::check_owner(place, &mailbox, &actor));
            if let Err(problem) = may {
                return Ok(Err(problem));
            }
            folders_since(view, place, from, size)
        });
        let Seen { value: (changes, next, more), token, staleness } = read.await?;
        Ok(api::GetFolderChangesResponse {
            changes,
            next_page_token: page.write(Some(next).filter(|_| more)),
            modseq: next,
            token,
            staleness,
        })
    }
}

/// Changed folders, where to go on, and whether there are more.
pub(super) fn folders_since(
    view: View<'_>,
    place: Place,
    since: u64,
    limit: usize,
) -> super::Found<(Vec<api::FolderChange>, u64, bool)> {
    Ok(match query::folder_changes_since(&view, place.mailbox, since, limit)? {
        FolderChanges::NotFound => Err(moved(place)),
        FolderChanges::TooOld { floor } => Err(too_old(place, since, floor)),
        FolderChanges::Changes { changes, next, more } => {
            let change = |change: &query::FolderChange| api::FolderChange {
                modseq: change.modseq,
                folder_id: folder_id(change.folder),
                gone: change.gone,
            };
            Ok((changes.iter().map(change).collect(), next, more))
        }
    })
}

pub(super) fn api_change(change: &Change) -> api::MessageChange {
    let kind = match change.kind {
        ChangeKind::Created => api::ChangeKind::Created,
        ChangeKind::Updated => api::ChangeKind::Updated,
        ChangeKind::Vanished => api::ChangeKind::Vanished,
        ChangeKind::CameAndVanished => api::ChangeKind::CameAndVanished,
    };
    api::MessageChange {
        modseq: change.modseq,
        folder_id: folder_id(change.folder),
        uid: change.uid,
        kind: kind.into(),
    }
}

/// RFC 7162 5.3: below the floor a reader has to read everything again.
fn too_old(place: Place, since: u64, floor: u64) -> Problem {
    let text = format!("what vanished since {since} is not known below {floor}; read it anew");
    let problem = Problem::new(Reason::ChangesTooOld, text);
    problem.database(place.database).limit(since, floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_and_nonsense_does_not() {
        let position = FeedPosition { known: 7, read_to: 9 };
        let read: Position = Position(position).to_string().parse().expect("a position");
        assert_eq!(read.0, position);
        for text in ["", "7", "9.7", "7.", "a.b", "-1.2"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
