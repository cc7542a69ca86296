//! Which step of a long operation a node still carries out.
//!
//! The control leader sends steps; each carries (operation, step, control term). A leader that
//! slept through its deposition wakes and sends its step again. So a node keeps, fsynced, the
//! highest step and the highest term that it took per operation, and refuses what is lower in either.
//! Steps are numbered by the records that begin them, so they only count up, whoever leads. The
//! same step again is a repetition, also from a later leader: it was taken, and its answer was lost.

use alloc::collections::BTreeMap;

use dag_types::Mutant;
use thiserror::Error;

/// What a step names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    /// The control group's term in which it is sent.
    pub term: u64,
    /// Counts the steps that were ever begun in the operation, undone ones included.
    pub step: u32,
}

/// What a node does with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// New: fsync the fence first, then carry it out.
    Take,
    /// The very step that was taken last: say again how it went, and do nothing twice.
    Repetition,
}

/// The step comes from a leader that was deposed, or after a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[error(
    "step {} of term {} comes after step {} of term {} was taken: its sender is no longer the \
     control leader", .asked.step, .asked.term, .taken.step, .taken.term
)]
pub struct StaleStep {
    /// The step that came.
    pub asked: StepId,
    /// The highest that was taken.
    pub taken: StepId,
}

/// The highest step per operation that this node took. Fsynced before a step is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StepFence {
    taken: BTreeMap<u64, StepId>,
}

impl StepFence {
    /// As it was read from the disk.
    pub fn restore(taken: BTreeMap<u64, StepId>) -> Self {
        Self { taken }
    }

    /// What has to be on the disk before the last admitted step is carried out.
    pub fn taken(&self) -> &BTreeMap<u64, StepId> {
        &self.taken
    }

    /// Decides about a step, and remembers it where it is taken.
    pub fn admit(&mut self, operation: u64, asked: StepId) -> Result<Admission, StaleStep> {
        match self.taken.get(&operation) {
            Some(_) if Mutant::StaleStepAccepted.planted() => Ok(Admission::Take),
            Some(&taken) if asked.term < taken.term || asked.step < taken.step => {
                Err(StaleStep { asked, taken })
            }
            Some(taken) if asked.step == taken.step => {
                self.taken.insert(operation, asked);
                Ok(Admission::Repetition)
            }
            _ => {
                self.taken.insert(operation, asked);
                Ok(Admission::Take)
            }
        }
    }

    /// Forgets operations that the control log calls finished. Their ids are never used again.
    pub fn forget(&mut self, finished: impl Fn(u64) -> bool) {
        self.taken.retain(|operation, _| !finished(*operation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(term: u64, step: u32) -> StepId {
        StepId { term, step }
    }

    #[test]
    fn a_step_of_a_deposed_leader_is_refused() {
        let mut fence = StepFence::default();
        assert_eq!(fence.admit(1, step(5, 3)), Ok(Admission::Take));
        assert_eq!(fence.admit(1, step(6, 4)), Ok(Admission::Take));
        let stale = |asked| Err(StaleStep { asked, taken: step(6, 4) });
        assert_eq!(fence.admit(1, step(5, 4)), stale(step(5, 4)));
        assert_eq!(fence.admit(1, step(5, 5)), stale(step(5, 5)));
        assert_eq!(fence.admit(1, step(6, 3)), stale(step(6, 3)));
    }

    #[test]
    fn the_same_step_again_is_not_carried_out_twice() {
        let mut fence = StepFence::default();
        assert_eq!(fence.admit(1, step(5, 1)), Ok(Admission::Take));
        assert_eq!(fence.admit(1, step(5, 1)), Ok(Admission::Repetition));
        // A later leader found it begun and not done.
        assert_eq!(fence.admit(1, step(6, 1)), Ok(Admission::Repetition));
        let mut restored = StepFence::restore(fence.taken().clone());
        assert_eq!(restored.admit(1, step(6, 1)), Ok(Admission::Repetition));
        assert!(restored.admit(1, step(5, 1)).is_err());
    }

    #[test]
    fn operations_do_not_hold_each_other_up_and_finished_ones_are_forgotten() {
        let mut fence = StepFence::default();
        fence.admit(1, step(5, 9)).unwrap();
        assert_eq!(fence.admit(2, step(5, 1)), Ok(Admission::Take));
        fence.forget(|operation| operation == 1);
        assert_eq!(fence.taken().len(), 1);
    }
}
