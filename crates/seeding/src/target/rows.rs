//! A staged state that is filled with rows: those of the old copy, and what it lacks.
//!
//! What is durable of it is what the state itself holds; the record keeps only what it cost. So a
//! killed target, or one with another source, walks over what it has, and is sent a line for each
//! range of it.

use storage::state::{self, StateError, StateStore};

use super::*;
use crate::delta::{DeltaStep, DeltaTarget, Proof, ShortDigest};

/// What rows are taken from and put into.
pub(super) struct Rows {
    engine: Arc<dyn StateEngine>,
    old: Option<Arc<dyn StateRead>>,
    filling: Option<DeltaTarget>,
    proof: Option<Proof>,
    /// What the source said of all rows.
    expected: ShortDigest,
    /// What was spent before the state was opened this time.
    before: Spent,
}

impl Rows {
    pub(super) fn durable_bytes(&self) -> u64 {
        self.filling.as_ref().map_or(0, |filling| filling.durable().settled_bytes)
    }
}

impl Target {
    /// Takes rows from the old copy, where the source gives rows and no files came yet; also goes on
    /// filling a state whose old copy cannot be read any more. Call it before the first step.
    pub fn take_over(&mut self, engine: Arc<dyn StateEngine>, old: Option<Arc<dyn StateRead>>) {
        let files = self.manifest.is_some() && self.spent.is_none();
        if self.is_built() || files || (old.is_none() && self.spent.is_none()) {
            return;
        }
        let (filling, proof, expected) = (None, None, ShortDigest::default());
        let before = self.spent.unwrap_or_default();
        self.rows = Some(Rows { engine, old, filling, proof, expected, before });
    }

    /// Whether rows are being taken over, so that [`Target::give_up_rows`] is another way.
    pub fn takes_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// Begins anew with whole files.
    pub fn give_up_rows(&mut self) -> Result<(), SeedFault> {
        self.rows = None;
        self.forget_rows()?;
        self.doing = Doing::Opening { asked: false };
        Ok(())
    }

    /// Whether the state is filled with rows of this checkpoint.
    pub(super) fn fills(&mut self, manifest: &Manifest) -> Result<bool, SeedFault> {
        if self.rows.is_some() && manifest.gives_rows {
            if self.manifest.as_ref() != Some(manifest)
                && let Some(rows) = &mut self.rows
            {
                // Of another checkpoint; what it holds is compared with this one.
                rows.filling = None;
                rows.before = self.spent.unwrap_or_default();
            }
            return Ok(true);
        }
        self.rows = None;
        if self.spent.is_some() {
            self.forget_rows()?;
        }
        Ok(false)
    }

    /// Rows in a state are of no use where files come.
    fn forget_rows(&mut self) -> Result<(), SeedFault> {
        self.remove_state()?;
        let claims = vec![Claim::Order(record::owner(&self.order.identity)), self.shown_claim()];
        let path = self.folder.join(RECORD);
        self.journal = Journal::begin(&*self.disk, &path, claims)
            .map_err(disk_fault("write a seed's record", &self.folder))?;
        (self.manifest, self.files, self.spent) = (None, Vec::new(), None);
        Ok(())
    }

    fn remove_state(&self) -> Result<(), SeedFault> {
        let state = self.folder.join(STATE);
        let removed =
            self.disk.remove_dir_all(&state).and_then(|()| self.disk.sync_dir(&self.folder));
        removed.map_err(disk_fault("remove a staged state", &self.folder))
    }

    /// One piece of filling.
    pub(super) fn fill(
        &mut self,
        now: Millis,
        reply: Option<DeltaReply>,
    ) -> Result<Step, SeedFault> {
        self.doing = Doing::Filling { asked: false };
        self.open_staged()?;
        let filling = self.rows.as_mut().and_then(|rows| rows.filling.as_mut());
        let filling = filling.expect("opened just now");
        let (tally, durable) = (filling.tally(), filling.durable());
        let step = match filling.step(reply) {
            // The old copy's faults stay with it: this is what was staged.
            Err(SeedFault::State(fault)) if is_rotten(&fault) => return self.fill_anew(&fault),
            step => step?,
        };
        let (after, flushed) = (filling.tally(), filling.durable());
        let came = after.received_bytes - tally.received_bytes;
        self.received += came;
        self.meter.worked(now, came + after.reused_bytes - tally.reused_bytes);
        if flushed != durable {
            self.claim_spent(now)?;
        }
        match step {
            DeltaStep::Again => Ok(Step::Again),
            DeltaStep::Ask(ask) => {
                self.doing = Doing::Filling { asked: true };
                Ok(Step::Ask(Request::Delta { checkpoint: self.known().checkpoint, ask }))
            }
            DeltaStep::Done => self.filled(now),
        }
    }

    fn open_staged(&mut self) -> Result<(), SeedFault> {
        let folder = self.folder.join(STATE);
        let there =
            self.disk.exists(&folder).map_err(disk_fault("look for a staged state", &folder))?;
        let Some(rows) = self.rows.as_ref().filter(|rows| rows.filling.is_none()) else {
            return Ok(());
        };
        let opened = there.then(|| rows.engine.open(&folder)).transpose();
        let staged: Arc<dyn StateStore> = match opened {
            Ok(Some(staged)) => staged,
            // Killed while it was made, or rotten.
            Err(fault) if !is_rotten(&fault) => return Err(fault.into()),
            Ok(None) | Err(_) => {
                self.remove_state()?;
                rows.engine.create(&folder)?
            }
        };
        let rows = self.rows.as_mut().expect("just looked at");
        rows.filling = Some(DeltaTarget::new(staged, rows.old.clone()));
        Ok(())
    }

    /// What was spent, and how far it is, after a flush.
    fn claim_spent(&mut self, now: Millis) -> Result<(), SeedFault> {
        let rows = self.rows.as_ref().expect("rows are taken over");
        let durable = rows.filling.as_ref().map(DeltaTarget::durable).unwrap_or_default();
        let spent = Spent {
            received: rows.before.received + durable.received_bytes,
            spared: rows.before.spared + durable.reused_bytes,
        };
        self.spent = Some(spent);
        self.show(now);
        self.claim(vec![Claim::Rows(spent), self.shown_claim()])
    }

    fn filled(&mut self, now: Millis) -> Result<Step, SeedFault> {
        self.claim_spent(now)?;
        self.doing = Doing::Proving;
        self.show(now);
        let folder = self.folder.join(STATE);
        let rows = self.rows.as_mut().expect("rows are taken over");
        if let Some(filled) = rows.filling.take() {
            rows.expected = filled.whole();
        }
        rows.old = None;
        // Closed and opened again: what is read comes from its files.
        let view = rows.engine.open_read_only(&folder)?;
        let position = state::applied(&*view)?;
        rows.proof = Some(Proof::new(view));
        match position == Some(self.known().position) {
            true => Ok(Step::Again),
            false => self.fill_anew(&"it ends elsewhere than the checkpoint"),
        }
    }

    /// Reads some of the state back.
    pub(super) fn prove(&mut self, now: Millis) -> Result<Step, SeedFault> {
        let rows = self.rows.as_mut().expect("rows are taken over");
        let proof = rows.proof.as_mut().expect("begun when it was filled");
        match proof.step() {
            Ok(None) => Ok(Step::Again),
            Ok(Some(found)) if found == rows.expected => self.proven(now),
            Ok(Some(_)) => self.fill_anew(&"its rows are not the checkpoint's"),
            Err(fault) if is_rotten(&fault) => self.fill_anew(&fault),
            Err(fault) => Err(fault.into()),
        }
    }

    fn proven(&mut self, now: Millis) -> Result<Step, SeedFault> {
        self.rows = None;
        let io = disk_fault("sync a seed", &self.folder);
        self.disk.sync_dir(&self.folder.join(STATE)).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        self.doing = Doing::Built;
        let total = self.known().total_bytes();
        self.meter.worked(now, 0);
        self.meter.reached(Phase::Built, total, total);
        self.claim(vec![self.shown_claim(), Claim::Verified(true)])?;
        Ok(Step::Built)
    }

    /// What was staged does not hold: it is removed, and filled again without the old copy's help
    /// where that was closed already.
    fn fill_anew(&mut self, why: &dyn std::fmt::Display) -> Result<Step, SeedFault> {
        self.damaged += 1;
        if self.damaged > DAMAGE_MAX {
            return Err(WireFault::Unasked { what: "a staged state that does not hold" }.into());
        }
        tracing::warn!(folder = %self.folder.display(), %why, "a staged state is filled anew");
        let spent = self.spent.unwrap_or_default();
        if let Some(rows) = &mut self.rows {
            (rows.filling, rows.proof, rows.before) = (None, None, spent);
        }
        self.remove_state()?;
        self.disconnected();
        self.doing = Doing::Opening { asked: false };
        Ok(Step::Reconnect)
    }
}

fn is_rotten(fault: &StateError) -> bool {
    matches!(fault, StateError::Corrupt { .. } | StateError::Damaged { .. })
}
