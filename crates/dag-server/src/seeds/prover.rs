//! Reads what a seed has made durable back, on a thread of its own, while the rest still arrives.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use seeding::SeedFault;
use seeding::target::{Proof, Target};
use storage::disk::Disk;

/// Ranges that are given out at a time: one is read while the next one waits.
const AHEAD: usize = 2;

/// The thread ends with this value.
pub(super) struct Prover {
    proofs: Sender<Proof>,
    outcomes: Receiver<(Proof, Result<bool, SeedFault>)>,
    under_way: usize,
}

impl Prover {
    pub fn begin(disk: Arc<dyn Disk>) -> Self {
        let (proofs, waiting) = channel::<Proof>();
        let (told, outcomes) = channel();
        std::thread::spawn(move || {
            while let Ok(proof) = waiting.recv() {
                let holds = proof.holds(&*disk);
                if told.send((proof, holds)).is_err() {
                    return;
                }
            }
        });
        Self { proofs, outcomes, under_way: 0 }
    }

    /// Tells the target what was read, and takes what is to be read next.
    pub fn turn(&mut self, target: &mut Target) -> Result<(), SeedFault> {
        while let Ok((proof, holds)) = self.outcomes.try_recv() {
            self.under_way -= 1;
            target.proved(&proof, holds?)?;
        }
        while self.under_way < AHEAD
            && let Some(proof) = target.to_prove()
        {
            // Where the thread has died, the pass at the end reads everything.
            if self.proofs.send(proof).is_err() {
                break;
            }
            self.under_way += 1;
        }
        Ok(())
    }
}
