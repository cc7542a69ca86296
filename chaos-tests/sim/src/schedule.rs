//! A schedule: everything that a run is made from, as data.
//!
//! The seed is drawn out into a schedule before the run begins; from then on only the schedule
//! counts. So a failing one can be stored, replayed, and made smaller by taking faults out.

use dac::LeaseTimes;
use dag_types::Millis;
use replication::Timeouts;
use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::nemesis::{self, Fault, Planned};
use crate::operator::{self, Asked, What};
use crate::seeds;
use crate::shape::WITNESS;

/// Everything that decides about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Of everything that is drawn while it runs: latencies, the clients' work, torn writes.
    pub seed: u64,
    /// How the cluster is, apart from faults.
    pub weather: Weather,
    /// How long the clients work before the first fault.
    pub before_ms: u64,
    /// How long faults come and go.
    pub faults_ms: u64,
    /// What happens when, counted from the first fault's phase.
    pub faults: Vec<Planned>,
    /// What is asked for meanwhile.
    #[serde(default)]
    pub asked: Vec<Asked>,
}

/// The circumstances of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// Heartbeat, least and greatest election timeout of all groups.
    pub timeouts_ms: (u64, u64, u64),
    /// Least and greatest time of a frame inside a site.
    pub delay_ms: (u64, u64),
    /// What a frame between sites takes in addition.
    pub between_sites_ms: u64,
    /// How often a frame is lost and sent again, in a thousand.
    pub loss_permille: u64,
    /// How often a disk's call takes a whole tick, in a thousand.
    pub disk_pause_permille: u64,
    /// After how long a state is flushed.
    pub flush_age_ms: u64,
    /// The first size of a log's segments.
    pub segment_bytes: u64,
    /// Entries that are kept behind the flushed ones.
    pub keep_entries: u64,
    /// Clients of each database.
    pub clients: u64,
    /// Mailboxes of each database.
    pub mailboxes: u64,
    /// Greatest pause of a client between two operations.
    pub think_ms: u64,
    /// The node whose disk may lose what it had synced: the others keep a good copy of everything.
    pub victim: u64,
}

impl Schedule {
    /// Draws a schedule from a seed.
    pub fn draw(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let mut draw = dice.fork("weather");
        let weather = Weather::draw(&mut draw);
        let before_ms = 1_200;
        let faults_ms = draw.between(7_300, 8_300);
        let mut faults = nemesis::draw(&mut dice.fork("faults"), &weather, faults_ms);
        let mut asked = operator::draw(&mut dice.fork("operator"), faults_ms);
        let harmed = faults.iter().find_map(|planned| planned.fault.harms());
        let only = harmed.filter(|node| *node != WITNESS);
        let (wished, aimed) = seeds::draw(&mut dice.fork("seeds"), faults_ms, only);
        faults.extend(aimed);
        asked.extend(wished);
        faults.sort_by_key(|planned| planned.at_ms);
        asked.sort_by_key(|asked| asked.at_ms);
        Self { seed, weather, before_ms, faults_ms, faults, asked }
    }

    /// Whether some fault lasts so long that a gate closes by itself.
    pub fn outlasts_a_lease(&self) -> bool {
        let ends = |planned: &nemesis::Planned| planned.ends_a_lease(&self.weather, self.faults_ms);
        self.faults.iter().any(ends)
    }

    /// Whether some copy is built in it.
    pub fn seeds(&self) -> bool {
        self.asked.iter().any(|asked| matches!(asked.what, What::Reseed { .. }))
    }

    /// Whether some fault slows a node's disk down.
    pub fn slows_disk_of(&self, node: u64) -> bool {
        self.faults.iter().any(|planned| match planned.fault {
            Fault::DiskSlow { node: slow, .. } => slow == node,
            Fault::CrashVoter { .. } => true,
            _ => false,
        })
    }
}

impl Weather {
    fn draw(dice: &mut Dice) -> Self {
        let shapes = [(30, 120, 240), (50, 200, 400), (50, 200, 400), (100, 400, 800)];
        let mut weather = Self {
            timeouts_ms: *dice.pick(&shapes),
            delay_ms: *dice.pick(&[(1, 1), (1, 2), (1, 5)]),
            between_sites_ms: *dice.pick(&[0, 1, 5, 15]),
            loss_permille: *dice.pick(&[0, 0, 2, 10]),
            disk_pause_permille: *dice.pick(&[100, 300, 1000]),
            flush_age_ms: *dice.pick(&[100, 500, 2_000]),
            segment_bytes: *dice.pick(&[32 << 10, 64 << 10, 256 << 10]),
            keep_entries: *dice.pick(&[8, 64, 1024]),
            clients: dice.between(2, 3),
            mailboxes: dice.between(1, 2),
            think_ms: *dice.pick(&[60, 120, 200]),
            victim: *dice.pick(&[1, 1, 2, 2, 3, 3, 4, 4, WITNESS]),
        };
        weather.between_sites_ms = weather.between_sites_ms.min(weather.distance_max());
        weather
    }

    /// The greatest distance that the heartbeat is made for: openraft gives a heartbeat up when the
    /// next one is due, so there and back, and the wait for those of other groups, take less.
    fn distance_max(&self) -> u64 {
        let (heartbeat, ..) = self.timeouts_ms;
        heartbeat * 7 / 8 / 2 - self.delay_ms.1
    }

    /// How long leases last: so long that the death of a control leader closes no gate, and no
    /// longer, so that a run has time for one that ends.
    pub fn lease_times(&self) -> LeaseTimes {
        let (heartbeat, _, election_max) = self.timeouts_ms;
        let (renewal, margin) = (3 * heartbeat, 60);
        // An attempt may take a fifth of the lease; it is what is left of it without the others.
        let lease = (2 * renewal + 4 * election_max + margin) * 5 / 4 + 10;
        let times = LeaseTimes {
            lease: Millis(lease),
            renewal: Millis(renewal),
            margin: Millis(margin),
            attempt: LeaseTimes::attempt_for(Millis(lease)),
            control_election_max: Millis(election_max),
            drift_percent: 1,
        };
        times.assert_sound();
        times
    }

    /// How long a cut must last to end a lease for certain, by a clock that is right.
    pub fn outlasting_ms(&self) -> u64 {
        self.lease_times().takeover_wait().0
    }

    /// The timeouts as `replication` takes them.
    pub fn timeouts(&self) -> Timeouts {
        let (heartbeat, election_min, election_max) = self.timeouts_ms;
        Timeouts { heartbeat, election_min, election_max }
    }
}
