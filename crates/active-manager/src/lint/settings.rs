//! Maxima, blocks, balancing, limits, operations that never end: what people set and left.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Code, Lint};
use crate::control::{ActivationPolicy, NodeRecord};

/// A block time that is shorter stops no database from going to and fro.
const MOVE_BLOCK_MS: u64 = 60_000;
/// A queue that is longer takes longer than a switchover may.
const QUEUE: u64 = 10_000;

impl Lint<'_> {
    pub(super) fn settings(&mut self) {
        self.maxima();
        self.blocked();
        self.balancing();
        self.queues();
        self.operations();
    }

    fn data_nodes(&self) -> impl Iterator<Item = &'_ NodeRecord> {
        self.state.nodes.iter().filter(|node| !node.witness)
    }

    fn maxima(&mut self) {
        let state = self.state;
        let maximum = |node: &NodeRecord| state.node_policy(node.id()).maximum_active;
        let limited: Vec<u32> = self.data_nodes().map(maximum).collect();
        if limited.len() < 2 {
            return;
        }
        let unlimited: Vec<&str> = self
            .data_nodes()
            .filter(|node| maximum(node) == 0)
            .map(|node| node.name.as_str())
            .collect();
        let databases = state.databases.iter().filter(|db| db.is_mailbox_database()).count();
        if !unlimited.is_empty() {
            let found = format!("without a maximum: {}", unlimited.join(", "));
            let advice = "`dagctl node limit NODE --maximum-active N`";
            return self.of_dag(Code::NoMaximum, "nodes", found, advice);
        }
        let largest = limited.iter().max().copied().unwrap_or(0);
        let left: u64 = limited.iter().map(|limit| u64::from(*limit)).sum();
        let left = left - u64::from(largest);
        if left < databases as u64 {
            let found =
                format!("{databases} databases, and without the largest node room for {left}");
            let advice = "raise some with `dagctl node limit NODE --maximum-active N`";
            self.of_dag(Code::MaximaTooLow, "nodes", found, advice);
        }
    }

    fn blocked(&mut self) {
        let state = self.state;
        for policy in &state.node_policies {
            // A node in maintenance is blocked for a while, and named when it was forgotten.
            let blocked = policy.policy == ActivationPolicy::Blocked as i32;
            let Some(node) = state.node(policy.id()).filter(|_| blocked) else { continue };
            if policy.maintenance.is_none() {
                let by = policy.decided.as_ref();
                let by = by.map_or_else(String::new, |by| match by.reason.as_str() {
                    "" => format!(" by {}", by.who),
                    reason => format!(" by {}: {reason}", by.who),
                });
                let advice = format!("`dagctl node allow {}`", node.name);
                self.of_node(Code::NodeBlocked, node, format!("blocked{by}"), advice);
            }
        }
    }

    fn balancing(&mut self) {
        let settings = &self.state.settings;
        if !settings.auto_balance {
            let advice = "`dagctl dag set --auto-balance true`";
            self.of_dag(Code::BalancingOff, "settings", "auto_balance is false".into(), advice);
        } else if settings.move_block_ms < MOVE_BLOCK_MS {
            let found = format!("move_block_ms is {}", settings.move_block_ms);
            let advice = "`dagctl dag set --move-block 600`";
            self.of_dag(Code::ShortMoveBlock, "settings", found, advice);
        }
    }

    fn queues(&mut self) {
        let settings = &self.state.settings;
        let both = [
            ("copy_queue_max", settings.copy_queue_max, "--copy-queue-max"),
            ("replay_queue_max", settings.replay_queue_max, "--replay-queue-max"),
        ];
        for (name, value, option) in both.into_iter().filter(|(_, value, _)| *value > QUEUE) {
            let advice = format!("`dagctl dag set {option} 1000`");
            self.of_dag(Code::QueueLimitHigh, "settings", format!("{name} is {value}"), advice);
        }
    }

    fn operations(&mut self) {
        let state = self.state;
        for operation in state.running() {
            let begun = operation.begun.as_ref().map_or(0, |begun| begun.at_ms);
            let age = self.reports.at_ms.saturating_sub(begun);
            if age >= state.settings.nag_after_ms {
                let number = operation.operation;
                let found = format!("{:?} runs for {} min", operation.kind(), age / 60_000);
                let advice =
                    format!("`dagctl ops show {number}`, and perhaps `dagctl ops cancel {number}`");
                self.of_dag(Code::OldOperation, &operation.object, found, advice);
            }
        }
    }
}
