//! The catalogue of faults, and which of them a run gets.
//!
//! | fault | stands for |
//! | --- | --- |
//! | crash, power cut at a disk call, site crash, crash of all | power loss: unsynced bytes are torn or lost |
//! | crash of a voter | power loss right after a vote was told of, on a slow disk |
//! | kill | the process ends; what was written stays |
//! | pause | a stopped process or a virtual machine that was moved; its clock goes on |
//! | sleep | a machine that was suspended: only BOOTTIME goes on |
//! | blackout | power loss of all data nodes, of which one site stays dead: the witness runs on |
//! | one-way cut, isolated node, isolated leader, site cut | networks that lose one or both directions |
//! | stale leader | a machine that is starved of its processor, cut off, and still asked by clients |
//! | reset | connections break and can be made again at once |
//! | far, loss | a slow or lossy network |
//! | slow disk, full disk | a disk that is worn out or not looked after |
//! | disk error, bit rot, lost tail, misplaced write | a disk that lies or dies |
//! | forged entry | memory that loses a bit before the checksum is reckoned |
//! | clock rate | a clock that runs too fast or too slow |
//! | seed target or source killed or without power, cut between them, bit flip, control leader gone | the same, in the middle of a copy that is built ([`crate::seeds`]) |
//! | stray generation | a copy of another incarnation of the group that speaks to it |
//!
//! Faults of the last kinds of disk go to one node of a run, the *victim*, so that the others hold
//! a good copy of everything that was acknowledged. Recovery is then demanded, not hoped for.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::schedule::Weather;
use crate::seeds::Hit;
use crate::shape::{DATA_NODES, FIRST_DATABASE, LAST_DATABASE, NODES};

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// When, from the beginning of the faults.
    pub at_ms: u64,
    /// For how long.
    pub for_ms: u64,
    /// What.
    pub fault: Fault,
}

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A node loses power.
    Crash {
        /// Which.
        node: u64,
    },
    /// A node loses power in the middle of what its disk does.
    PowerCut {
        /// Which.
        node: u64,
        /// After so many more calls.
        disk_calls: u64,
    },
    /// All nodes lose power.
    CrashAll,
    /// All nodes of a site lose power.
    CrashSite {
        /// 0 or 1.
        site: u64,
    },
    /// All data nodes lose power, and one site gets it back only at the end.
    Blackout {
        /// 0 or 1: the site that stays dead.
        site: u64,
    },
    /// A node's process ends.
    Kill {
        /// Which.
        node: u64,
    },
    /// The node that leads a database loses power.
    CrashLeader {
        /// Of which database.
        database: u64,
    },
    /// A node stands still.
    Pause {
        /// Which.
        node: u64,
    },
    /// A node's machine is suspended.
    Sleep {
        /// Which.
        node: u64,
    },
    /// The node that leads a database loses power, all disks are slow, and whoever tells of a vote
    /// for the next leader loses power right then.
    CrashVoter {
        /// Of which database.
        database: u64,
        /// Votes that are let pass before.
        votes: u64,
    },
    /// The node that leads a database stands still.
    PauseLeader {
        /// Of which database.
        database: u64,
    },
    /// Frames from one node to another are held back.
    OneWayCut {
        /// From which.
        from: u64,
        /// To which.
        to: u64,
    },
    /// A node is cut off from the others.
    Isolate {
        /// Which.
        node: u64,
        /// From the clients as well.
        clients: bool,
    },
    /// The node that leads a database is cut off from the others, but not from the clients.
    IsolateLeader {
        /// Of which database.
        database: u64,
    },
    /// The node that leads a database has a slow clock and is cut off from the others, while clients
    /// go on reading from it.
    StaleLeader {
        /// Of which database.
        database: u64,
        /// The rate of its clock; 1000 is right.
        permille: u64,
    },
    /// A site is cut off.
    SiteCut {
        /// 0 or 1.
        site: u64,
        /// Whether the witness is on its side.
        with_witness: bool,
    },
    /// All connections of a node break.
    Reset {
        /// Which.
        node: u64,
    },
    /// Every frame takes longer.
    Far {
        /// By this much.
        extra_ms: u64,
    },
    /// Frames are lost and sent again.
    Loss {
        /// So many in a thousand.
        permille: u64,
    },
    /// Each call of a node's disk takes longer.
    DiskSlow {
        /// Which.
        node: u64,
        /// By this much.
        extra_ms: u64,
    },
    /// A node's disk is full.
    DiskFull {
        /// Which.
        node: u64,
    },
    /// A call of a node's disk fails.
    DiskError {
        /// Which.
        node: u64,
        /// Which call.
        call: DiskCall,
        /// After so many that do not.
        after: u64,
    },
    /// A node goes down, and a bit of one of its copies' files rots meanwhile.
    BitRot {
        /// Which.
        node: u64,
        /// Chooses file, place and bit.
        draw: u64,
    },
    /// A node goes down, and its log comes back without its end, which had been synced.
    LostTail {
        /// Which.
        node: u64,
        /// Chooses the log and how much of it.
        draw: u64,
    },
    /// A write to a log lands in another place of the same file.
    Misplaced {
        /// Which.
        node: u64,
        /// Chooses the place.
        draw: u64,
    },
    /// A node goes down, and an entry of its log comes back changed, with a checksum that fits.
    Forged {
        /// Which.
        node: u64,
        /// Chooses the log.
        draw: u64,
    },
    /// A node's clock runs at this rate.
    ClockRate {
        /// Which.
        node: u64,
        /// 1000 is right.
        permille: u64,
    },
    /// Something goes wrong in the middle of a seed of a database, when one is under way.
    Seed {
        /// Of which database.
        database: u64,
        /// What.
        hit: Hit,
        /// How long after the seed began, at least.
        after_ms: u64,
        /// Chooses the disk's call or the bit.
        draw: u64,
    },
    /// A copy of another generation speaks to a database's copies.
    StrayGeneration {
        /// Which database.
        database: u64,
    },
}

/// A call of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskCall {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A sync.
    Sync,
}

impl Fault {
    /// Its kind, as it stands in histories.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::PowerCut { .. } => "power_cut",
            Self::CrashAll => "crash_all",
            Self::CrashSite { .. } => "crash_site",
            Self::Blackout { .. } => "blackout",
            Self::Kill { .. } => "kill",
            Self::CrashLeader { .. } => "crash_leader",
            Self::CrashVoter { .. } => "crash_voter",
            Self::Pause { .. } => "pause",
            Self::Sleep { .. } => "sleep",
            Self::PauseLeader { .. } => "pause_leader",
            Self::OneWayCut { .. } => "one_way_cut",
            Self::Isolate { .. } => "isolate",
            Self::IsolateLeader { .. } => "isolate_leader",
            Self::StaleLeader { .. } => "stale_leader",
            Self::SiteCut { .. } => "site_cut",
            Self::Reset { .. } => "reset",
            Self::Far { .. } => "far",
            Self::Loss { .. } => "loss",
            Self::DiskSlow { .. } => "disk_slow",
            Self::DiskFull { .. } => "disk_full",
            Self::DiskError { .. } => "disk_error",
            Self::BitRot { .. } => "bit_rot",
            Self::LostTail { .. } => "lost_tail",
            Self::Misplaced { .. } => "misplaced_write",
            Self::Forged { .. } => "forged_entry",
            Self::ClockRate { .. } => "clock_rate",
            Self::StrayGeneration { .. } => "stray_generation",
            Self::Seed { hit, .. } => hit.kind(),
        }
    }

    /// The node whose disk may fail a copy because of it.
    pub fn harms(&self) -> Option<u64> {
        match self {
            Self::DiskFull { node }
            | Self::DiskError { node, .. }
            | Self::BitRot { node, .. }
            | Self::LostTail { node, .. }
            | Self::Misplaced { node, .. }
            | Self::Forged { node, .. } => Some(*node),
            _ => None,
        }
    }
}

impl Fault {
    /// Whether it happens whatever else is broken: a run in which it did not is no run.
    pub fn always_happens(&self) -> bool {
        matches!(
            self,
            Self::OneWayCut { .. }
                | Self::Isolate { .. }
                | Self::SiteCut { .. }
                | Self::Reset { .. }
                | Self::Far { .. }
                | Self::Loss { .. }
                | Self::DiskSlow { .. }
                | Self::DiskFull { .. }
                | Self::ClockRate { .. }
        )
    }

    /// Whether it is tried again until it happens, where it could not when it was due.
    pub fn can_wait(&self) -> bool {
        let noted_later = matches!(self, Self::PowerCut { .. } | Self::StrayGeneration { .. });
        self.harms().is_none() && !noted_later
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} ms for {:>5} ms: {:?}", self.at_ms, self.for_ms, self.fault)
    }
}

/// Draws the faults of a run: each kind is switched on or off for the whole run, so that runs
/// differ in character and not only in order.
pub fn draw(dice: &mut Dice, weather: &Weather, within_ms: u64) -> Vec<Planned> {
    let kinds: Vec<u64> = (0..KINDS).filter(|_| dice.chance(500)).collect();
    let kinds = if kinds.is_empty() { (0..KINDS).collect() } else { kinds };
    let count = dice.between(6, 12);
    let mut harmed_already: BTreeSet<&'static str> = BTreeSet::new();
    let mut planned = Vec::new();
    while planned.len() < count as usize {
        let fault = draw_fault(dice, *dice.clone().pick(&kinds), weather);
        // A dead disk once is enough: the copy must be back before the next one.
        let again = fault.harms().is_some() && !harmed_already.insert(fault.kind());
        dice.next();
        let at_ms = dice.between(100, within_ms - 1_000);
        let for_ms = duration(dice, &fault, weather);
        if !again {
            planned.push(Planned { at_ms, for_ms, fault });
        } else if planned.len() + 2 > count as usize || kinds.len() < 4 {
            let node = dice.between(1, NODES);
            planned.push(Planned { at_ms, for_ms, fault: Fault::Crash { node } });
        }
    }
    let strays = |fault: &Fault| matches!(fault, Fault::StrayGeneration { .. });
    let mut strayed = BTreeSet::new();
    // A second stray copy of a database is not made.
    planned.retain(|planned| {
        !strays(&planned.fault) || strayed.insert(format!("{:?}", planned.fault))
    });
    while planned.iter().filter(|planned| planned.fault.can_wait()).count() < FAULTS_MIN {
        let fault = Fault::Isolate { node: dice.between(1, NODES), clients: dice.chance(500) };
        let (at_ms, for_ms) =
            (dice.between(100, within_ms - 1_000), duration(dice, &fault, weather));
        planned.push(Planned { at_ms, for_ms, fault });
    }
    if !planned.iter().any(|planned| planned.ends_a_lease(weather, within_ms)) {
        let fault = Fault::Isolate { node: dice.between(1, DATA_NODES), clients: false };
        let for_ms = weather.outlasting_ms() + 200;
        let at_ms = dice.between(100, within_ms - for_ms - 100);
        planned.push(Planned { at_ms, for_ms, fault });
    }
    planned.sort_by_key(|planned| planned.at_ms);
    planned
}

impl Planned {
    /// Whether a data node is cut off for so long, before the faults are over, that its gate closes,
    /// unless another fault has closed it before.
    pub fn ends_a_lease(&self, weather: &Weather, within_ms: u64) -> bool {
        let until = (self.at_ms + self.for_ms).min(within_ms);
        let cuts = matches!(self.fault, Fault::Isolate { node, .. } if node <= DATA_NODES);
        cuts && until.saturating_sub(self.at_ms) >= weather.outlasting_ms()
    }
}

/// A run with fewer faults than these does not count; so many at least are drawn that nothing but the
/// end of the run can keep from happening.
pub const FAULTS_MIN: usize = 5;

/// Kinds of faults.
pub const KINDS: u64 = 28;

fn draw_fault(dice: &mut Dice, kind: u64, weather: &Weather) -> Fault {
    let node = dice.between(1, NODES);
    let database = dice.between(FIRST_DATABASE, LAST_DATABASE);
    let site = dice.below(2);
    let victim = weather.victim;
    let draw = dice.next() >> 16;
    match kind {
        0 => Fault::Crash { node },
        1 => Fault::PowerCut { node, disk_calls: dice.between(1, 400) },
        2 => Fault::CrashAll,
        3 => Fault::CrashSite { site },
        4 => Fault::Kill { node },
        5 => Fault::Pause { node },
        6 => Fault::OneWayCut { from: node, to: node % NODES + 1 },
        7 => Fault::Isolate { node, clients: dice.chance(500) },
        8 => Fault::IsolateLeader { database },
        9 => Fault::SiteCut { site, with_witness: dice.chance(500) },
        10 => Fault::Reset { node },
        11 => Fault::Far { extra_ms: dice.between(5, 60) },
        12 => Fault::Loss { permille: dice.between(10, 200) },
        13 => Fault::DiskSlow { node, extra_ms: dice.between(2, 60) },
        14 => Fault::DiskFull { node: victim },
        15 => {
            let call = *dice.pick(&[DiskCall::Read, DiskCall::Write, DiskCall::Sync]);
            Fault::DiskError { node: victim, call, after: dice.below(100) }
        }
        16 => Fault::BitRot { node: victim, draw },
        17 => Fault::LostTail { node: victim, draw },
        18 => Fault::Misplaced { node: victim, draw },
        19 => Fault::ClockRate { node, permille: *dice.pick(&[300, 700, 990, 1010, 1500, 3000]) },
        20 => Fault::CrashLeader { database },
        21 => Fault::PauseLeader { database },
        22 => Fault::Forged { node: victim, draw },
        23 => Fault::StaleLeader { database, permille: *dice.pick(&[100, 200, 300]) },
        25 => Fault::Sleep { node },
        26 => Fault::Blackout { site },
        24 => Fault::CrashVoter { database, votes: dice.below(3) },
        _ => Fault::StrayGeneration { database },
    }
}

/// Whether it lasts, at times, longer than a lease: else gates would close at restarts alone.
fn may_outlast(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Isolate { .. }
            | Fault::IsolateLeader { .. }
            | Fault::SiteCut { .. }
            | Fault::OneWayCut { .. }
            | Fault::Pause { .. }
            | Fault::PauseLeader { .. }
            | Fault::Sleep { .. }
    )
}

fn duration(dice: &mut Dice, fault: &Fault, weather: &Weather) -> u64 {
    let (election, lease) = (weather.timeouts_ms.2, weather.outlasting_ms());
    if may_outlast(fault) && dice.chance(250) {
        return dice.between(lease, lease * 3 / 2);
    }
    match fault {
        Fault::Blackout { .. } => dice.between(lease, lease * 5 / 2),
        Fault::CrashAll | Fault::CrashSite { .. } => dice.between(20, 600),
        Fault::Crash { .. } | Fault::Kill { .. } | Fault::CrashLeader { .. } => {
            *dice.pick(&[5, 50, election, election * 3])
        }
        Fault::Reset { .. } => 0,
        Fault::ClockRate { .. } | Fault::StrayGeneration { .. } => dice.between(1_000, 4_000),
        // A lease and an election, and then time for what a reader of the old leader must not miss.
        Fault::StaleLeader { .. } => dice.between(election * 4, election * 6),
        Fault::CrashVoter { .. } => election * 2,
        _ => dice.between(50, election * 4),
    }
}
