//! Which answers come too late by a whole site.
//!
//! After a site was activated without another, the old one may go on answering for a moment. A
//! client that has counted one answer of the new lineage must count none of the old. Which lineage
//! is the newer one is told by the chain of activations alone: the numbers of two branches say
//! nothing about each other.
//!
//! - The first lineage met is believed.
//! - Another one is followed only on sight of its chain, when that contains the one known, or
//!   declares the branch of the one known superseded.
//! - Everything else is older, or a fork, and its answers do not count.

use std::sync::Mutex;

use dag_api::convert;
use dag_api::mailbox::v1::LineageLink;
use dag_types::{ActivationId, Lineage};

/// What a lineage is to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The newest one known.
    Newest,
    /// Known to be superseded.
    Older,
    /// Not in the chain known: its own chain has to be seen first.
    Unknown,
}

/// The chain known so far; its last link is the newest lineage.
#[derive(Default)]
pub(crate) struct LineageMemory(Mutex<Vec<Lineage>>);

impl LineageMemory {
    pub(crate) fn judge(&self, lineage: Lineage) -> Standing {
        let mut chain = self.0.lock().expect("nobody panics while holding it");
        match chain.last() {
            None => {
                chain.push(lineage);
                Standing::Newest
            }
            Some(newest) if *newest == lineage => Standing::Newest,
            Some(_) if chain.contains(&lineage) => Standing::Older,
            Some(_) => Standing::Unknown,
        }
    }

    /// Follows a chain if it goes on from the newest lineage known. A malformed one is ignored.
    pub(crate) fn learn(&self, links: &[LineageLink]) {
        let mut known = self.0.lock().expect("nobody panics while holding it");
        let Some((chain, rejected)) = read(links) else { return };
        let goes_on = match known.last() {
            None => true,
            Some(newest) => chain.contains(newest) || rejected.contains(&newest.activation),
        };
        if goes_on && !chain.is_empty() {
            *known = chain;
        }
    }
}

fn read(links: &[LineageLink]) -> Option<(Vec<Lineage>, Vec<ActivationId>)> {
    let mut chain = Vec::with_capacity(links.len());
    let mut rejected = Vec::new();
    for link in links {
        chain.push(convert::lineage(link.lineage.as_ref()).ok()?);
        for id in &link.rejected_activation_ids {
            rejected.push(convert::activation_id(id).ok()?);
        }
    }
    Some((chain, rejected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(epoch: u64, id: u8) -> Lineage {
        Lineage { epoch, activation: ActivationId([id; 16]) }
    }

    fn link(epoch: u64, id: u8) -> LineageLink {
        LineageLink { lineage: Some(lineage(epoch, id).into()), ..LineageLink::default() }
    }

    fn memory(links: &[LineageLink]) -> LineageMemory {
        let memory = LineageMemory::default();
        memory.learn(links);
        memory
    }

    #[test]
    fn the_first_lineage_met_is_believed_and_another_needs_its_chain() {
        let memory = LineageMemory::default();
        assert_eq!(memory.judge(lineage(1, 1)), Standing::Newest);
        assert_eq!(memory.judge(lineage(2, 2)), Standing::Unknown);
        memory.learn(&[link(1, 1), link(2, 2)]);
        assert_eq!(memory.judge(lineage(2, 2)), Standing::Newest);
        assert_eq!(memory.judge(lineage(1, 1)), Standing::Older);
    }

    #[test]
    fn a_chain_that_ends_earlier_does_not_turn_the_client_back() {
        let memory = memory(&[link(1, 1), link(2, 2)]);
        memory.learn(&[link(1, 1)]);
        assert_eq!(memory.judge(lineage(2, 2)), Standing::Newest);
    }

    #[test]
    fn a_fork_is_not_followed_however_great_its_number() {
        let memory = memory(&[link(1, 1), link(2, 2)]);
        memory.learn(&[link(1, 1), link(2, 3), link(9, 4)]);
        assert_eq!(memory.judge(lineage(9, 4)), Standing::Unknown);
        assert_eq!(memory.judge(lineage(2, 2)), Standing::Newest);
    }

    #[test]
    fn a_chain_that_declares_the_known_branch_superseded_is_followed() {
        let memory = memory(&[link(1, 1), link(2, 2)]);
        let mut accept = link(3, 5);
        accept.rejected_activation_ids.push(vec![2; 16].into());
        memory.learn(&[link(1, 1), link(2, 3), accept]);
        assert_eq!(memory.judge(lineage(3, 5)), Standing::Newest);
    }

    #[test]
    fn a_malformed_chain_changes_nothing() {
        let memory = memory(&[link(1, 1)]);
        memory.learn(&[link(1, 1), LineageLink::default()]);
        memory.learn(&[]);
        assert_eq!(memory.judge(lineage(1, 1)), Standing::Newest);
    }
}
