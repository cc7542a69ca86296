//! Reads that need not be the newest.
//!
//! Any copy may answer them, a passive one too, and without asking a majority; one that has to be
//! as new as a token, only while the node's gate is open. They are never given to somebody who did
//! not ask for them, and each answer says where the copy stands in the log and how old it may be.

use std::time::Duration;

use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem, Reason, Token};
use dag_types::DatabaseId;
use mailbox::query;
use replication::Group;
use tokio::time::{Instant, sleep};

use super::MailboxServer;
use crate::clock;
use crate::machine::View;
use crate::node::Reading;
use crate::status;

/// Between two looks whether a copy has come far enough.
const LOOK: Duration = Duration::from_millis(2);

/// How new a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consistency {
    /// Everything that was acknowledged before is in it.
    Linearizable,
    /// At least what this token's answer had seen.
    AtLeast(Token),
    /// As it is.
    Stale,
}

/// What a read asks for.
pub(super) fn consistency(options: Option<&api::ReadOptions>) -> Result<Consistency, BadMessage> {
    use api::ReadConsistency as Wanted;
    let Some(options) = options else { return Ok(Consistency::Linearizable) };
    match (options.consistency(), &options.min_token) {
        (Wanted::AtLeast, Some(token)) => Token::try_from(token).map(Consistency::AtLeast),
        (Wanted::AtLeast, None) => {
            Err(BadMessage { field: "read.min_token", wanted: "present for AT_LEAST" })
        }
        (_, Some(_)) => Err(BadMessage { field: "read.min_token", wanted: "for AT_LEAST alone" }),
        (Wanted::Stale, None) => Ok(Consistency::Stale),
        (Wanted::Unspecified | Wanted::Linearizable, None) => Ok(Consistency::Linearizable),
    }
}

impl MailboxServer {
    /// A view of this node's copy, with what is to be said about its age.
    pub(super) async fn read_weakly(
        &self,
        database: DatabaseId,
        wanted: Consistency,
        deadline: Instant,
    ) -> Result<(Reading, Option<api::Staleness>), Problem> {
        let group = self.node.group(database)?;
        if let Consistency::AtLeast(token) = wanted {
            self.vouches(database, wanted)?;
            self.wait_for(&group, token, deadline).await?;
        }
        let view = group.view();
        let applied = storage::state::applied(&*view).map_err(crate::machine::ReadFault::from);
        let applied = applied.map_err(|fault| status::fault(&fault, database))?;
        let at = applied.map_or(0, |(at, _)| at.index);
        let token = self.node.token(&group, at);
        let age_ms = match group.serving() {
            Ok(_) => 0,
            // It heard of nothing newer than what was proposed last, by the proposer's clock.
            Err(_) => {
                let stamp = query::get_database(&View(&*view)).map(|database| database.stamp.0);
                let stamp = stamp.map_err(|fault| status::fault(&fault, database))?;
                clock::wall().0.saturating_sub(stamp)
            }
        };
        Ok((Reading { view, token, confirmed: None }, Some(api::Staleness { age_ms })))
    }

    /// A cut-off node cannot know that the token's lineage still counts. Asked before the work, so
    /// that nobody waits in vain, and before the answer, because gates close meanwhile.
    pub(super) fn vouches(&self, database: DatabaseId, wanted: Consistency) -> Result<(), Problem> {
        match (wanted, self.node.member()?.gate.closed()) {
            (Consistency::AtLeast(_), Some(why)) => Err(status::gate_closed(database, &why)),
            _ => Ok(()),
        }
    }

    /// Waits until this copy has applied what the token's answer had seen.
    async fn wait_for(
        &self,
        group: &Group,
        token: Token,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let here = self.node.token(group, 0);
        if token.database != here.database {
            return Err(BadMessage { field: "read.min_token", wanted: "of this database" }.into());
        }
        if (token.lineage, token.generation) != (here.lineage, here.generation) {
            let text = "the token belongs to another lineage or generation; locate the mailbox";
            let problem = Problem::new(Reason::StaleLineage, text).database(token.database);
            return Err(problem.lineage(here.lineage));
        }
        while group.status().applied.is_none_or(|at| at.index < token.log_index) {
            if Instant::now() + LOOK >= deadline {
                let text = "this copy has not come so far yet; ask again, or the active copy";
                return Err(Problem::new(Reason::DeadlineExceeded, text).database(token.database));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ReadConsistency as Wanted;
    use dag_types::{ActivationId, Generation, Lineage};

    const TOKEN: Token = Token {
        database: DatabaseId(16),
        lineage: Lineage { epoch: 1, activation: ActivationId([1; 16]) },
        generation: Generation(1),
        log_index: 1,
    };

    #[test]
    fn weaker_reads_are_given_to_those_alone_who_ask_for_them() {
        let asked = |wanted: Wanted, token: Option<Token>| {
            let min_token = token.map(Into::into);
            consistency(Some(&api::ReadOptions { consistency: wanted.into(), min_token }))
        };
        assert_eq!(consistency(None), Ok(Consistency::Linearizable));
        assert_eq!(asked(Wanted::Unspecified, None), Ok(Consistency::Linearizable));
        assert_eq!(asked(Wanted::Stale, None), Ok(Consistency::Stale));
        assert_eq!(asked(Wanted::AtLeast, Some(TOKEN)), Ok(Consistency::AtLeast(TOKEN)));
        for (wanted, token) in [
            (Wanted::AtLeast, None),
            (Wanted::Stale, Some(TOKEN)),
            (Wanted::Linearizable, Some(TOKEN)),
        ] {
            assert_eq!(asked(wanted, token).unwrap_err().field, "read.min_token");
        }
    }
}
