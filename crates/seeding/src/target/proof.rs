//! Reading back what is durable while the rest still arrives: the machine says what, whoever has a
//! thread to spare does it, and tells what came of it.

use super::files::is_gone;
use super::*;

/// A range that is durable here, to be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    folder: PathBuf,
    path: PathBuf,
    file: u32,
    range: u32,
    length: usize,
    expected: Digest,
}

impl Proof {
    /// Reads it. False where it is gone, or not what it was.
    pub fn holds(&self, disk: &dyn Disk) -> Result<bool, SeedFault> {
        let read = disk.open(&self.path, OpenMode::Read).and_then(|file| {
            let mut bytes = vec![0; self.length];
            file.read_at(&mut bytes, u64::from(self.range) * RANGE_BYTES)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => Ok(digest(&bytes) == self.expected),
            Err(fault) if is_gone(&fault) => Ok(false),
            Err(fault) => Err(disk_fault("read a staged file back", &self.folder)(fault)),
        }
    }
}

impl Target {
    /// The next range that is to be read back; each is given out once. The pass at the end reads what
    /// nobody told of by then.
    pub fn to_prove(&mut self) -> Option<Proof> {
        while let Some((file, range)) = self.unproven.pop_front() {
            if let Some(proof) = self.proof(file, range) {
                return Some(proof);
            }
        }
        None
    }

    /// What came of reading a range back. What does not hold is fetched again; what is of an earlier
    /// checkpoint says nothing.
    pub fn proved(&mut self, proof: &Proof, holds: bool) -> Result<(), SeedFault> {
        if self.is_built() || self.proof(proof.file, proof.range).as_ref() != Some(proof) {
            return Ok(());
        }
        if holds {
            self.files[proof.file as usize].proven.insert(proof.range);
            return Ok(());
        }
        tracing::warn!(file = %proof.path.display(), range = proof.range, "a staged range is damaged");
        self.lose(proof.file, Some(proof.range))
    }

    /// How a range would be read back; none where it is not durable.
    pub(super) fn proof(&self, file: u32, range: u32) -> Option<Proof> {
        let expected = (*self.files.get(file as usize)?.ranges.get(range as usize)?)?;
        let length = self.known().files[file as usize].range_bytes(range) as usize;
        let (folder, path) = (self.folder.clone(), self.path_of(file));
        Some(Proof { folder, path, file, range, length, expected })
    }
}
