//! Reading a whole snapshot against its manifest.

use std::collections::BTreeSet;

use dag_types::Millis;
use prost::Message;
use storage::state::{self, StateEngine};

use super::{Kept, Pace, Shelf, SnapshotFile, SnapshotId, SnapshotManifest, digest, manifest};
use crate::fault::SeedFault;
use crate::source;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Wall-clock time.
    pub at: Millis,
    /// Everything that is not as it was written, each by its file. Empty: all is well.
    pub findings: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
    #[prost(string, repeated, tag = "2")]
    findings: Vec<String>,
}

impl Verdict {
    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    /// Together with what was found earlier: what was bad once stays bad.
    pub(super) fn after(self, earlier: Option<&Self>) -> Self {
        let before = earlier.into_iter().flat_map(|earlier| earlier.findings.clone());
        let mut findings: Vec<String> = before.collect();
        for finding in self.findings {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        Self { at: self.at, findings }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let row = Row { at_ms: self.at.0, findings: self.findings.clone() };
        manifest::guarded(&row.encode_to_vec())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let row = Row::decode(manifest::unguarded(bytes)?).ok()?;
        Some(Self { at: Millis(row.at_ms), findings: row.findings })
    }
}

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) findings: Vec<String>,
    pub(super) damaged: Vec<String>,
}

impl Shelf {
    /// Reads every file of a snapshot against its manifest, opens it, and keeps what was found.
    /// Gives that, and the names of the files that are damaged. An error is no verdict: it was
    /// broken off, or the snapshot is gone.
    pub fn verify(
        &self,
        id: SnapshotId,
        engine: &dyn StateEngine,
        now: Millis,
        pace: Pace<'_>,
    ) -> Result<(Verdict, Vec<String>), SeedFault> {
        let kept = self.find(id)?.ok_or(super::NOT_THERE)?;
        let Checked { findings, damaged } = match &kept.manifest {
            Err(why) => Checked { findings: vec![why.clone()], damaged: Vec::new() },
            Ok(manifest) => self.check(manifest, engine, pace)?,
        };
        let verdict = Verdict { at: now, findings }.after(kept.verdict.as_ref());
        self.keep_verdict(&kept, &verdict)?;
        Ok((verdict, damaged))
    }

    fn keep_verdict(&self, kept: &Kept, verdict: &Verdict) -> Result<(), SeedFault> {
        // It may have been put into the trash meanwhile.
        match self.find(kept.id)? {
            Some(_) => self.save(kept.id, verdict),
            None => Err(super::NOT_THERE),
        }
    }

    fn check(
        &self,
        manifest: &SnapshotManifest,
        engine: &dyn StateEngine,
        pace: Pace<'_>,
    ) -> Result<Checked, SeedFault> {
        let folder = self.files(manifest.id);
        let mut checked = Checked { findings: Vec::new(), damaged: Vec::new() };
        for file in &manifest.files {
            if let Some(finding) = self.check_file(manifest.id, file, pace)? {
                checked.findings.push(finding);
                checked.damaged.push(file.name.clone());
            }
        }
        let expected: BTreeSet<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
        for file in source::files(&*self.disk, &folder).unwrap_or_default() {
            if !expected.contains(file.name.as_str()) {
                checked.findings.push(format!("the file {} does not belong to it", file.name));
            }
        }
        if checked.findings.is_empty() {
            let applied = engine.open_read_only(&folder).and_then(|state| state::applied(&*state));
            match applied {
                Ok(at) if at == Some(manifest.position) => {}
                Ok(_) => checked.findings.push("it ends at another position".to_owned()),
                Err(fault) => checked.findings.push(format!("it does not open: {fault}")),
            }
        }
        Ok(checked)
    }

    /// What is wrong with a file.
    fn check_file(
        &self,
        id: SnapshotId,
        file: &SnapshotFile,
        pace: Pace<'_>,
    ) -> Result<Option<String>, SeedFault> {
        let path = self.files(id).join(&file.name);
        let mut broken_off = false;
        let mut watched = |bytes| {
            let on = pace(bytes);
            broken_off = !on;
            on
        };
        let found = digest(&*self.disk, &path, &mut watched);
        Ok(match found {
            Ok(found) if found == file.blake3 => None,
            Ok(_) => Some(format!("the file {} is not as it was written", file.name)),
            Err(fault) if broken_off => return Err(fault),
            // A snapshot that goes away while it is read is no damaged one.
            Err(fault) if self.find(id)?.is_none() => return Err(fault),
            Err(fault) => Some(format!("the file {} cannot be read: {fault}", file.name)),
        })
    }
}
