//! The chain of all site activations, and which of two chains is newer.
//!
//! A DAG begins with one link. Each change of the list of started sites appends one. Two sites that
//! were activated apart have chains that share a beginning and then differ, and no number can tell
//! that: the side that activated twice has the greater epoch and is not newer. So chains are
//! compared link by link.
//!
//! ```text
//! first ── stop A ── start A          prefix of the next: older
//! first ── stop A ── start A ── stop B                   newer
//! first ── activate B (unfenced)                         neither: FORKED
//! ```

use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use crate::ids::{ActivationId, Lineage};
use crate::mutant::Mutant;

/// How a link came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineageKind {
    /// The DAG was created.
    First,
    /// A site was stopped, with its consent.
    Stop,
    /// A stopped site was started again.
    Start,
    /// A site was activated by a control majority, after the takeover wait.
    ActivateFenced,
    /// A site was activated without a control majority, on a person's word.
    ActivateUnfenced,
    /// A person chose this branch of a fork.
    Accept,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LineageStep {
    /// Its number and id, which frames and answers carry.
    pub lineage: Lineage,
    /// How it came to be.
    pub kind: LineageKind,
    /// The last links of the branches that it rejects; only in [`LineageKind::Accept`].
    pub rejected: Vec<ActivationId>,
}

/// What another chain is to one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kinship {
    /// The same last link.
    Same,
    /// It has this chain as a prefix, or accepted another branch over this one.
    Newer,
    /// This chain is newer than it.
    Older,
    /// Neither comes from the other: two sites were activated apart.
    Forked,
}

impl fmt::Display for Kinship {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "the same lineage",
            Self::Newer => "a newer lineage",
            Self::Older => "an older lineage",
            Self::Forked => "a fork of this lineage",
        })
    }
}

/// A list of links that is no chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChainProblem {
    /// No link at all.
    #[error("a lineage has at least the link of the DAG's creation")]
    Empty,
    /// Only the first link says `first`, and it has epoch 1.
    #[error("link {0} of the lineage is not where its kind belongs")]
    Misplaced(u64),
    /// Epochs count up by one; an accepting link may skip those of the branch that it rejects.
    #[error("link {0} of the lineage does not follow the one before it")]
    Gap(u64),
}

/// All complete links from the DAG's creation on. Never empty; epochs grow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LineageChain {
    links: Vec<LineageStep>,
}

impl LineageChain {
    /// The chain of a DAG that was just created.
    pub fn first(activation: ActivationId) -> Self {
        let lineage = Lineage { epoch: 1, activation };
        Self {
            links: alloc::vec![LineageStep {
                lineage,
                kind: LineageKind::First,
                rejected: Vec::new()
            }],
        }
    }

    /// Checks a list of links that came from a disk or from a peer.
    pub fn from_links(links: Vec<LineageStep>) -> Result<Self, ChainProblem> {
        let first = links.first().ok_or(ChainProblem::Empty)?;
        if first.kind != LineageKind::First || first.lineage.epoch != 1 {
            return Err(ChainProblem::Misplaced(first.lineage.epoch));
        }
        for pair in links.windows(2) {
            follows(&pair[0], &pair[1])?;
        }
        Ok(Self { links })
    }

    /// This chain and one link more.
    pub fn extended(&self, link: LineageStep) -> Result<Self, ChainProblem> {
        follows(self.last_link(), &link)?;
        let mut links = self.links.clone();
        links.push(link);
        Ok(Self { links })
    }

    /// All links, the first one first.
    pub fn links(&self) -> &[LineageStep] {
        &self.links
    }

    /// What frames and answers carry of the chain.
    pub fn last(&self) -> Lineage {
        self.last_link().lineage
    }

    /// The last link.
    pub fn last_link(&self) -> &LineageStep {
        self.links.last().expect("a chain has at least one link")
    }

    /// Whether a link is in this chain.
    pub fn contains(&self, lineage: Lineage) -> bool {
        self.links.iter().any(|link| link.lineage == lineage)
    }

    /// What the other chain is to this one.
    pub fn kinship(&self, other: &Self) -> Kinship {
        let (mine, theirs) = (self.last(), other.last());
        if Mutant::LineageByNumber.planted() {
            let number = |of: Lineage| (of.epoch, of.activation);
            return match number(theirs).cmp(&number(mine)) {
                core::cmp::Ordering::Equal => Kinship::Same,
                core::cmp::Ordering::Greater => Kinship::Newer,
                core::cmp::Ordering::Less => Kinship::Older,
            };
        }
        if mine == theirs {
            Kinship::Same
        } else if other.replaces(self) {
            Kinship::Newer
        } else if self.replaces(other) {
            Kinship::Older
        } else {
            Kinship::Forked
        }
    }

    /// Whether this chain came after the other: it has the other as a prefix, or one of its links
    /// names the other's last id as rejected.
    fn replaces(&self, other: &Self) -> bool {
        let prefix = self.links.starts_with(&other.links);
        let rejected = other.last().activation;
        prefix || self.links.iter().any(|link| link.rejected.contains(&rejected))
    }
}

fn follows(before: &LineageStep, link: &LineageStep) -> Result<(), ChainProblem> {
    let epoch = link.lineage.epoch;
    let accepts = link.kind == LineageKind::Accept;
    if link.kind == LineageKind::First || accepts == link.rejected.is_empty() {
        return Err(ChainProblem::Misplaced(epoch));
    }
    let next = before.lineage.epoch + 1;
    match accepts {
        true if epoch >= next => Ok(()),
        false if epoch == next => Ok(()),
        _ => Err(ChainProblem::Gap(epoch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn link(epoch: u64, id: u8, kind: LineageKind) -> LineageStep {
        let activation = ActivationId([id; 16]);
        LineageStep { lineage: Lineage { epoch, activation }, kind, rejected: vec![] }
    }

    fn chain(ids: &[u8]) -> LineageChain {
        let start = LineageChain::first(ActivationId([ids[0]; 16]));
        let number = |(i, id): (usize, &u8)| link(i as u64 + 2, *id, LineageKind::ActivateFenced);
        ids[1..].iter().enumerate().map(number).fold(start, |c, l| c.extended(l).unwrap())
    }

    #[test]
    fn a_chain_that_has_mine_as_its_beginning_is_newer() {
        let (old, new) = (chain(&[1, 2]), chain(&[1, 2, 3]));
        assert_eq!(old.kinship(&new), Kinship::Newer);
        assert_eq!(new.kinship(&old), Kinship::Older);
        assert_eq!(new.kinship(&new), Kinship::Same);
    }

    #[test]
    fn a_greater_epoch_on_another_branch_is_a_fork_and_not_newer() {
        let (once, twice) = (chain(&[1, 2]), chain(&[1, 3, 4]));
        assert_eq!(once.kinship(&twice), Kinship::Forked);
        assert_eq!(twice.kinship(&once), Kinship::Forked);
        assert_eq!(chain(&[1, 2]).kinship(&chain(&[1, 3])), Kinship::Forked);
    }

    #[test]
    fn an_accepting_link_is_newer_than_the_branch_it_names_and_than_its_own() {
        let (kept, lost) = (chain(&[1, 2]), chain(&[1, 3, 4]));
        let mut accept = link(4, 9, LineageKind::Accept);
        accept.rejected = vec![lost.last().activation];
        let healed = kept.extended(accept).unwrap();
        assert_eq!(lost.kinship(&healed), Kinship::Newer);
        assert_eq!(kept.kinship(&healed), Kinship::Newer);
        assert_eq!(healed.kinship(&lost), Kinship::Older);
    }

    #[test]
    fn a_list_with_a_gap_or_a_second_beginning_is_no_chain() {
        let first = chain(&[1]).links()[0].clone();
        let gap = link(3, 2, LineageKind::Stop);
        assert_eq!(LineageChain::from_links(vec![]), Err(ChainProblem::Empty));
        assert_eq!(LineageChain::from_links(vec![first.clone(), gap]), Err(ChainProblem::Gap(3)));
        let again = link(2, 2, LineageKind::First);
        assert_eq!(
            LineageChain::from_links(vec![first.clone(), again]),
            Err(ChainProblem::Misplaced(2))
        );
        // A link that accepts nothing would be newer than what it never saw.
        let empty = link(2, 2, LineageKind::Accept);
        assert_eq!(chain(&[1]).extended(empty), Err(ChainProblem::Misplaced(2)));
        let beginning = link(1, 2, LineageKind::Stop);
        assert_eq!(LineageChain::from_links(vec![beginning]), Err(ChainProblem::Misplaced(1)));
    }
}
