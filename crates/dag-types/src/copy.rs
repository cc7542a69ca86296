//! The states of a database copy, by Exchange's own names.

use core::fmt;

/// What a database copy is doing, in the words of `Get-MailboxDatabaseCopyStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CopyStatus {
    /// The active copy, and it serves clients.
    Mounted,
    /// The active copy, and it serves nobody.
    Dismounted,
    /// The active copy is about to serve.
    Mounting,
    /// The active copy is about to stop serving.
    Dismounting,
    /// A passive copy that receives and applies the log.
    Healthy,
    /// It just started and does not know yet how it stands.
    Initializing,
    /// It compares its log with the active copy's, or catches up.
    Resynchronizing,
    /// It is being filled from another copy.
    Seeding,
    /// Another copy is being filled from it.
    SeedingSource,
    /// An operator stopped its log.
    Suspended,
    /// A fault stopped it; it counts for nothing until it is reseeded.
    Failed,
    /// A fault stopped it, and an operator holds it.
    FailedAndSuspended,
    /// Healthy, but cut off from the active copy.
    DisconnectedAndHealthy,
    /// It was catching up when it was cut off.
    DisconnectedAndResynchronizing,
    /// Its node does not answer.
    ServiceDown,
}

impl fmt::Display for CopyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
