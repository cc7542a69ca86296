//! How a copy stands for election: what its owner allows, and what calls it although it does not strive
//! for leadership by itself.
//!
//! A copy that must not be active refuses its vote to every shorter log. Where an entry is held by it and
//! by a lost node alone, nobody else can be elected before it has given that entry to the others: so it
//! is called to lead by its own refusal, for a while.

use std::time::Duration;

use dag_types::Candidacy;
use tokio::time::Instant;

use crate::timeouts::Timeouts;

/// For so many of the longest election timeouts a refusal calls a copy to lead.
const CALLED: u32 = 5;
/// After so many of them without a leader a copy campaigns that does so only in need.
const NEED: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Standing {
    candidacy: Candidacy,
    election_max: Duration,
    /// When it last refused a vote because its own log is greater.
    refused: Option<Instant>,
    /// When it last heard a leader, or was started.
    heard: Instant,
}

impl Standing {
    /// Nothing was refused or heard before `now`.
    pub fn new(candidacy: Candidacy, timeouts: Timeouts, now: Instant) -> Self {
        let election_max = Duration::from_millis(timeouts.election_max);
        Self { candidacy, election_max, refused: None, heard: now }
    }

    pub fn candidacy(&self) -> Candidacy {
        self.candidacy
    }

    pub fn set(&mut self, candidacy: Candidacy) {
        self.candidacy = candidacy;
    }

    pub fn heard_leader(&mut self, now: Instant) {
        self.heard = now;
    }

    pub fn refused_shorter(&mut self, now: Instant) {
        self.refused = Some(now);
    }

    /// Whether it may ask for votes.
    pub fn may_campaign(&self, now: Instant) -> bool {
        match self.candidacy {
            Candidacy::Never => false,
            Candidacy::ForOthers => self.is_called(now),
            Candidacy::InNeed => self.is_called(now) || self.is_needed(now),
            Candidacy::Freely => true,
        }
    }

    fn is_called(&self, now: Instant) -> bool {
        self.refused.is_some_and(|refused| now - refused < CALLED * self.election_max)
    }

    fn is_needed(&self, now: Instant) -> bool {
        now - self.heard >= NEED * self.election_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_strive_is_called_by_a_refusal_or_by_need() {
        let begin = Instant::now();
        let timeouts = Timeouts::DEFAULT;
        let turns = |turns: u32| begin + turns * Duration::from_millis(timeouts.election_max);
        let campaigns = |candidacy, refused: Option<u32>, heard, now| {
            let mut standing = Standing::new(candidacy, timeouts, begin);
            standing.heard_leader(turns(heard));
            if let Some(refused) = refused {
                standing.refused_shorter(turns(refused));
            }
            standing.may_campaign(turns(now))
        };
        use Candidacy::{ForOthers, Freely, InNeed, Never};
        for (candidacy, refused, needed) in [
            (Never, false, false),
            (ForOthers, true, false),
            (InNeed, true, true),
            (Freely, true, true),
        ] {
            assert_eq!(campaigns(candidacy, Some(10), 10, 11), refused, "{candidacy:?}");
            assert_eq!(campaigns(candidacy, None, 2, 2 + NEED), needed, "{candidacy:?}");
            let idle = candidacy == Freely;
            assert_eq!(campaigns(candidacy, Some(1), 6, 6), idle, "{candidacy:?}, long ago");
            assert_eq!(campaigns(candidacy, None, 2, 1 + NEED), idle, "{candidacy:?}, too soon");
        }
    }
}
