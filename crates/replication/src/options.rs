//! What a node's groups are run with.

use std::time::Duration;

use crate::mux::append::Credit;
use crate::mux::serve::SESSION_QUEUE;
use crate::offload::Offload;
use crate::timeouts::Timeouts;

/// Settings of a [`crate::Registry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Elections, leases, heartbeats. Equal on all nodes.
    pub timeouts: Timeouts,
    /// Bytes of commands under way, all groups of the node together.
    pub node_bytes: usize,
    /// Bytes of commands under way in one group.
    pub group_bytes: usize,
    /// Unanswered bytes from a leader to one follower of one group.
    pub append_credit_bytes: usize,
    /// Unanswered messages from a leader to one follower of one group; 1 to 64.
    pub append_credit_calls: usize,
    /// Snapshots that the node sends at a time.
    pub snapshots_at_a_time: usize,
    /// When log is purged.
    pub purge: Purge,
    /// Where work that may wait for a disk is done.
    pub offload: Offload,
}

/// How much log is kept behind what the state has flushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Entries that are always kept.
    pub keep_entries: u64,
    /// Entries that the leader keeps for a follower that lags; one further behind gets a snapshot.
    pub lagging_entries: u64,
    /// Entries that are purged at a time.
    pub batch_entries: u64,
    /// How often it is looked at.
    pub interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::DEFAULT,
            node_bytes: 256 << 20,
            group_bytes: 64 << 20,
            append_credit_bytes: 2 << 20,
            append_credit_calls: 8,
            snapshots_at_a_time: 2,
            purge: Purge::default(),
            offload: Offload::Threads,
        }
    }
}

impl Default for Purge {
    fn default() -> Self {
        Self {
            keep_entries: 4096,
            lagging_entries: 65_536,
            batch_entries: 512,
            interval: Duration::from_secs(1),
        }
    }
}

impl Options {
    /// Every setting that cannot work, in words; empty where all can.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.timeouts.problems();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        check(
            (1..=SESSION_QUEUE).contains(&self.append_credit_calls),
            "append_credit_calls is not within 1 and 64: the follower's queue has 64 places",
        );
        check(self.append_credit_bytes > 0, "append_credit_bytes is 0");
        check(self.snapshots_at_a_time > 0, "snapshots_at_a_time is 0: no copy could be seeded");
        check(
            self.group_bytes >= crate::MAX_COMMAND_BYTES && self.node_bytes >= self.group_bytes,
            "group_bytes must hold the largest command, and node_bytes one group",
        );
        check(
            self.node_bytes <= u32::MAX as usize,
            "node_bytes is above 4 GiB, more than is counted",
        );
        problems
    }

    pub(crate) fn credit(&self) -> Credit {
        Credit { calls: self.append_credit_calls, bytes: self.append_credit_bytes }
    }
}
