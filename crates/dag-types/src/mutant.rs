//! Planted faults, to prove that the harness would notice the real ones.
//!
//! With the feature `mutants` a test chooses one by name at run time; without it (every release
//! binary) [`Mutant::planted`] is the constant `false` and the faulty branches are not compiled in.

/// A rule that is left out on purpose while it is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// An append is acknowledged to Raft before its fsync.
    AckBeforeFsync = 1,
    /// A vote is answered before it is durable.
    VoteNotDurable,
    /// A broken chain is not noticed at open.
    ChainNotChecked,
    /// A log that ends before its durable tail is not noticed at open.
    TailNotChecked,
    /// The log is purged beyond what the state has flushed.
    PurgePastFlushed,
    /// A linearizable read trusts the leader's lease.
    LeaseRead,
    /// A request id that was seen before is carried out again.
    RequestIdIgnored,
    /// A UID comes from a counter that is not written in the same batch.
    UidOutsideBatch,
    /// An entry of an unknown type is passed over.
    UnknownEntrySkipped,
    /// A frame of another generation is accepted.
    WrongGenerationAccepted,
    /// A gate is open when its node starts.
    GateOpenAtBoot,
    /// A lease counts from the arrival of the grant.
    LeaseFromReceipt,
    /// A lease counts from the latest request, whichever request the grant answers.
    LatestSendingTime,
    /// A takeover waits one lease time and nothing for clocks that run apart.
    NoDriftMargin,
    /// A gate opens because a peer says that its own is open.
    PeerOpensGate,
    /// A control leader grants without having heard of a grant or of half of each started site.
    ColdStartUnconfirmed,
    /// What a control leader heard once confirms it for ever.
    ConfirmationNeverLapses,
    /// The lineage with the greater numbers is taken for the newer one.
    LineageByNumber,
    /// An entry that was proposed under an older mount is applied.
    OlderLineageApplied,
    /// A node carries out a step that an older control leader sent.
    StaleStepAccepted,
    /// What arrives of a seed is taken for what was sent.
    SeedUnchecked,
}

impl Mutant {
    /// Those of the disk, the log and the machines, in the order of their numbers: what a simulation
    /// of real groups hunts.
    pub const ALL: [Self; 10] = [
        Self::AckBeforeFsync,
        Self::VoteNotDurable,
        Self::ChainNotChecked,
        Self::TailNotChecked,
        Self::PurgePastFlushed,
        Self::LeaseRead,
        Self::RequestIdIgnored,
        Self::UidOutsideBatch,
        Self::UnknownEntrySkipped,
        Self::WrongGenerationAccepted,
    ];

    /// Those of the gate, the lineage and Active Manager: what an exploration of the protocol hunts.
    pub const PROTOCOL: [Self; 10] = [
        Self::GateOpenAtBoot,
        Self::LeaseFromReceipt,
        Self::LatestSendingTime,
        Self::NoDriftMargin,
        Self::PeerOpensGate,
        Self::ColdStartUnconfirmed,
        Self::ConfirmationNeverLapses,
        Self::LineageByNumber,
        Self::OlderLineageApplied,
        Self::StaleStepAccepted,
    ];

    /// Those of copies that are built from others: what a simulation with seeds hunts.
    pub const SEEDS: [Self; 1] = [Self::SeedUnchecked];

    /// Whether this fault is planted in this process.
    #[cfg(feature = "mutants")]
    pub fn planted(self) -> bool {
        PLANTED.0.load(core::sync::atomic::Ordering::Relaxed) == self as u8
    }

    /// Whether this fault is planted: never, in a build without the feature `mutants`.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub const fn planted(self) -> bool {
        false
    }

    /// Plants a fault for the rest of the process, or none.
    #[cfg(feature = "mutants")]
    pub fn plant(mutant: Option<Self>) {
        let number = mutant.map_or(0, |mutant| mutant as u8);
        PLANTED.0.store(number, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Which fault is planted, and the words by which a binary with planted faults is known: `make test`
/// looks for them in everything that is shipped. They stand in one static with the choice, so that
/// no binary has one without the other.
#[cfg(feature = "mutants")]
#[used]
static PLANTED: (core::sync::atomic::AtomicU8, [u8; 38]) =
    (core::sync::atomic::AtomicU8::new(0), *b"holdfast: planted faults are in here!!");
