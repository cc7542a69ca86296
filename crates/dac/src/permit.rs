//! What a request carries from the gate's check before the proposal to the one before the answer.

use dag_types::{DatabaseId, GrantId, Lineage, Millis};

use crate::closed::Closed;

/// Leave to serve one request of one database until a deadline.
///
/// Only an open gate makes one, its fields are private, and it cannot be copied, so a permit that
/// is held proves that the gate was asked for this very request:
///
/// ```compile_fail
/// fn twice(permit: &dac::MountPermit) -> dac::MountPermit {
///     permit.clone()
/// }
/// ```
/// ```compile_fail
/// let forged = dac::MountPermit { deadline: dag_types::Millis(u64::MAX) };
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct MountPermit {
    pub(crate) database: DatabaseId,
    pub(crate) lineage: Lineage,
    pub(crate) grant: GrantId,
    pub(crate) opening: u64,
    pub(crate) deadline: Millis,
}

impl MountPermit {
    /// The only database that may be served with it.
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// The lineage that a proposal under it carries.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The opening that it rests on.
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    /// By the node's steady clock; nothing is answered from here on.
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Whether its time is over. The gate itself must be asked too, before an answer goes out.
    pub fn check_time(&self, now: Millis) -> Result<(), Closed> {
        if now < self.deadline { Ok(()) } else { Err(Closed::Deadline) }
    }
}

#[cfg(test)]
mod tests {
    use super::MountPermit;

    // Compiles only while the permit is not `Clone`: with it, both implementations would apply and
    // the call would be ambiguous.
    trait OnlyOne<A> {
        fn holds() -> bool {
            true
        }
    }
    impl<T> OnlyOne<()> for T {}
    struct Cloneable;
    impl<T: Clone> OnlyOne<Cloneable> for T {}

    #[test]
    fn a_permit_cannot_be_cloned() {
        assert!(<MountPermit as OnlyOne<_>>::holds());
    }
}
