//! A body that is too large for one entry goes ahead of its message, chunk by chunk.
//!
//! What was staged stays for an hour, whoever staged it: an attempt that is given up half way leaves
//! its chunks to the next one, through whichever node that comes.

use dag_api::Problem;
use dag_types::DatabaseId;
use mailbox::Outcome;
use mailbox::command::Content;
use tokio::time::Instant;

use super::{MailboxServer, unexpected};

impl MailboxServer {
    /// Sends the bytes ahead, if there are too many. Gives until when the message itself may take:
    /// each chunk is an attempt of its own, and so is the message that follows them.
    pub(super) async fn stage(
        &self,
        database: DatabaseId,
        content: &mut Content,
        deadline: Instant,
    ) -> Result<Instant, Problem> {
        let chunks = content.stage();
        let mut deadline = deadline;
        let mut next = 0;
        while let Some(chunk) = chunks.get(next) {
            // The message's permit counts its bytes already.
            let carried = self.carry_out(database, "", chunk.clone().into(), 0, deadline).await?;
            let Outcome::Staged(staged) = carried.outcome else {
                return Err(unexpected(database));
            };
            // Each chunk that is told to be there is: none is proposed twice.
            next = (staged.chunks as usize).max(next + 1);
            deadline = deadline.max(Instant::now() + self.node.settings.attempt.0);
        }
        Ok(deadline)
    }
}
