//! The timeouts of a group, and openraft's settings that follow from them.
//!
//! There is one table of shapes for all of Holdfast; a test shape scales everything together.

use std::sync::Arc;
use std::time::Duration;

use dag_types::ReplicaId;
use openraft::{Config, SnapshotPolicy};

/// How many parts the time in which copies campaign is cut into.
const LANES: u64 = 4;

/// Milliseconds that elections and leases are measured with. Equal on all copies of a group, of
/// which each takes its own part: see [`Timeouts::lane`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How often a leader tells its followers that it is there, in ms.
    pub heartbeat: u64,
    /// The least time without a leader before a copy campaigns, in ms.
    pub election_min: u64,
    /// The greatest time without a leader before a copy campaigns, in ms.
    pub election_max: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Timeouts {
    /// Voters in one site.
    pub const DEFAULT: Self = Self { heartbeat: 150, election_min: 600, election_max: 1200 };
    /// Voters in one rack.
    pub const FAST: Self = Self { heartbeat: 20, election_min: 80, election_max: 160 };
    /// Voters in several sites.
    pub const WAN: Self = Self { heartbeat: 300, election_min: 1000, election_max: 2000 };

    /// The least and the greatest election timeout of one copy, in ms.
    ///
    /// Copies whose timeouts lie in the same range split the votes now and then, and every split
    /// costs the clients one more timeout. Copies of a group are born with ids that follow each
    /// other, so they get parts that do not touch. openraft campaigns when the promise to the last
    /// leader (the greatest timeout) and a timeout have passed, so the part counts twice: between
    /// the last moment of one copy and the first of the next lies the length of a part. A replaced
    /// copy may share the part of another; the two are then where all would be without this.
    ///
    /// Promises to a leader end earlier on some copies than on others. Nothing is read under them:
    /// reads ask a majority.
    fn lane(&self, replica: ReplicaId) -> (u64, u64) {
        let width = (self.election_max - self.election_min) / LANES;
        let least = self.election_min + width * (replica.0 % LANES);
        (least, least + width.max(1))
    }

    /// How long a copy refuses votes after its Raft instance started: it may have promised a
    /// leader a lease that openraft forgets at a restart, so it waits that lease out, and a tenth.
    pub fn vote_quarantine(&self) -> Duration {
        Duration::from_millis(self.election_max + self.election_max / 10)
    }

    /// How long a heartbeat may wait for those of other groups, to go out in one frame.
    pub fn coalesce(&self) -> Duration {
        Duration::from_millis(self.heartbeat) / 8
    }

    /// How long a call on the control stream may take.
    pub fn call(&self) -> Duration {
        Duration::from_millis(self.election_min)
    }

    /// openraft's settings of one instance. Every deviation from its defaults has a reason beside.
    pub(crate) fn config(&self, name: &str, replica: ReplicaId, may_campaign: bool) -> Arc<Config> {
        let (election_timeout_min, election_timeout_max) = self.lane(replica);
        let config = Config {
            cluster_name: name.to_owned(),
            heartbeat_interval: self.heartbeat,
            election_timeout_min,
            election_timeout_max,
            // A candidate that could not win must not raise the term.
            enable_pre_vote: Some(true),
            // A restarted leader asks again: its state machine is not fsynced, and its followers'
            // promises may be over.
            enable_leader_restore: Some(false),
            enable_elect: may_campaign,
            // A leader that lost its quorum pauses its heartbeats in phases, so that a majority
            // that still hears it can elect another.
            quorum_loss_probe_interval: Some(self.election_max * 2),
            // Bytes are bounded by the log reader; these only bound bookkeeping.
            max_payload_entries: 1024,
            max_append_entries: Some(1024),
            api_channel_size: Some(1024),
            notification_channel_size: Some(4096),
            state_machine_channel_size: Some(256),
            // Snapshots and purging are ours: both follow what the flusher has made durable.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX / 2,
            // Never reached: the transport has deadlines of its own.
            install_snapshot_timeout: 600_000,
            // In entries; it only decides when a blocking `add_learner` returns.
            replication_lag_threshold: 1_000,
            backoff: "50ms 100ms ...1s".to_owned(),
            allow_log_reversion: Some(false),
            ..Config::default()
        };
        Arc::new(config.validate().expect("the shapes satisfy openraft's inequalities"))
    }

    /// What keeps the settings from working, in words; empty where nothing does.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.heartbeat == 0 {
            problems.push("heartbeat is 0 ms: a leader would never rest".to_owned());
        }
        if self.election_min <= 2 * self.heartbeat {
            problems.push(format!(
                "election_min ({} ms) is not above two heartbeats ({} ms): one lost heartbeat \
                 would start an election",
                self.election_min, self.heartbeat
            ));
        }
        if self.election_max <= self.election_min {
            problems.push(format!(
                "election_max ({} ms) is not above election_min ({} ms): candidates would collide",
                self.election_max, self.election_min
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_accepted_by_openraft() {
        for shape in [Timeouts::DEFAULT, Timeouts::FAST, Timeouts::WAN] {
            assert_eq!(shape.problems(), Vec::<String>::new());
            let config = shape.config("test", ReplicaId(7), false);
            assert!(!config.enable_elect);
            assert_eq!(config.enable_leader_restore, Some(false));
            assert_eq!(config.enable_pre_vote, Some(true));
        }
    }

    #[test]
    fn copies_that_were_born_together_never_campaign_at_the_same_time() {
        for shape in [Timeouts::DEFAULT, Timeouts::FAST, Timeouts::WAN] {
            for first in 1..9 {
                let mut lanes: Vec<_> =
                    (first..first + LANES).map(|id| shape.lane(ReplicaId(id))).collect();
                lanes.sort_unstable();
                assert!(lanes[0].0 >= shape.election_min, "{lanes:?}");
                assert!(lanes.last().unwrap().1 <= shape.election_max, "{lanes:?}");
                // The greatest timeout is waited for first, then a timeout.
                let campaigns = lanes.iter().map(|(least, most)| (most + least, most + most));
                assert!(campaigns.is_sorted_by(|one, next| one.1 < next.0), "{lanes:?}");
            }
        }
    }

    #[test]
    fn timeouts_that_would_make_leaders_flap_are_named() {
        let shape = Timeouts { heartbeat: 100, election_min: 150, election_max: 150 };
        assert_eq!(shape.problems().len(), 2);
    }
}
