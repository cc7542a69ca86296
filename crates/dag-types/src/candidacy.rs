//! How far a copy may strive for leadership.

/// What a copy may do to lead its database, as its node's gate and the policies say. All of them vote.
///
/// A copy that must not be active may still hold an entry that nobody else does but a lost node. It
/// refuses its vote to every shorter log then, and nobody could ever be elected if it did not lead
/// itself, for as long as it takes to bring the others up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Candidacy {
    /// It never leads.
    Never,
    /// It campaigns only after it refused a vote because its own log is greater. Then it leads without
    /// being mounted, and hands over as soon as another copy may lead and has everything.
    ForOthers,
    /// The same, and also where no leader is heard for long; where nobody can take over it is mounted.
    InNeed,
    /// It campaigns, takes over, and is mounted.
    Freely,
}
