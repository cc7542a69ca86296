//! What a seed's record says, put together from its claims.

use super::*;

/// A seed as it was left.
#[derive(Default)]
pub(super) struct Found {
    owner: Option<String>,
    pub(super) manifest: Option<Manifest>,
    pub(super) files: Vec<FileState>,
    pub(super) verified: bool,
    /// It is filled with rows.
    pub(super) rows: Option<Spent>,
    shown: (Phase, u64, u64),
}

impl Found {
    pub(super) fn read(claims: Vec<Claim>) -> Self {
        let mut found = Self::default();
        claims.into_iter().for_each(|claim| found.take(claim));
        found
    }

    /// The folder is this order's, or nobody's yet.
    pub(super) fn check(&self, folder: &Path, owner: &str) -> Result<(), SeedFault> {
        match &self.owner {
            Some(found) if found != owner => Err(SeedFault::OtherSeed {
                folder: folder.display().to_string(),
                expected: owner.to_owned(),
                found: found.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The same, said as shortly as possible.
    pub(super) fn claims(&self, owner: String) -> Vec<Claim> {
        let (phase, bytes, total) = self.shown;
        let mut claims =
            vec![Claim::Order(owner), Claim::Shown(Shown { phase: phase as u32, bytes, total })];
        let Some(manifest) = &self.manifest else { return claims };
        claims.push(Claim::Manifest(manifest.encode()));
        claims.extend(self.rows.map(Claim::Rows));
        for (number, state) in self.files.iter().enumerate() {
            let file = number as u32;
            let held = |(range, digest): (usize, &Option<Digest>)| {
                Some(claim_range(file, range as u32, digest.as_ref()?))
            };
            let ranges: Vec<Range> = state.ranges.iter().enumerate().filter_map(held).collect();
            if let Some(doubt) = &state.doubt {
                let ranges = doubt.iter().map(|(range, digest)| claim_range(file, *range, digest));
                claims.push(Claim::Held(Held { file, ranges: ranges.collect() }));
            } else if state.whole || !ranges.is_empty() {
                let FileState { whole, linked, .. } = *state;
                claims.push(Claim::Ranges(Ranges { file, ranges, whole, linked }));
            }
        }
        if self.verified {
            claims.push(Claim::Verified(true));
        }
        claims
    }

    pub(super) fn meter(&self) -> Meter {
        let (phase, bytes, total) = self.shown;
        let mut meter = Meter::from(phase, bytes, total);
        if let Some(manifest) = &self.manifest {
            let durable = manifest.files.iter().zip(&self.files);
            let durable = durable.map(|(entry, state)| state.durable_bytes(entry)).sum();
            let phase = match (self.verified, self.files.iter().all(|state| state.whole)) {
                (true, _) => Phase::Built,
                (false, true) => Phase::Verifying,
                (false, false) => Phase::Copying,
            };
            meter.reached(phase, durable, manifest.total_bytes());
        }
        meter
    }

    fn take(&mut self, claim: Claim) {
        match claim {
            Claim::Order(owner) => self.owner = Some(owner),
            Claim::Manifest(bytes) => self.begin(Manifest::decode(&bytes).ok()),
            Claim::Held(held) => {
                let doubt = held.ranges.iter().filter_map(read_range).collect();
                if let Some(state) = self.files.get_mut(held.file as usize) {
                    state.doubt = Some(doubt);
                }
            }
            Claim::Ranges(ranges) => self.ranges(&ranges),
            Claim::Lost(range) => self.lost(&range),
            Claim::Shown(shown) => {
                let phase = Phase::from_number(shown.phase).unwrap_or_default();
                self.shown = (phase, shown.bytes, shown.total);
            }
            Claim::Verified(verified) => self.verified = verified,
            Claim::Rows(spent) => self.rows = Some(spent),
        }
    }

    fn begin(&mut self, manifest: Option<Manifest>) {
        let files = manifest.iter().flat_map(|manifest| &manifest.files);
        self.files = files.map(FileState::missing).collect();
        (self.manifest, self.verified, self.rows) = (manifest, false, None);
    }

    fn ranges(&mut self, claim: &Ranges) {
        let Some(state) = self.files.get_mut(claim.file as usize) else { return };
        state.doubt = None;
        for (range, digest) in claim.ranges.iter().filter_map(read_range) {
            if let Some(held) = state.ranges.get_mut(range as usize) {
                *held = Some(digest);
            }
        }
        (state.whole, state.linked) = (claim.whole, claim.linked);
    }

    fn lost(&mut self, claim: &Range) {
        let Some(state) = self.files.get_mut(claim.file as usize) else { return };
        (state.whole, state.linked) = (false, false);
        if let Some(held) = state.ranges.get_mut(claim.range as usize) {
            *held = None;
        }
    }
}

fn read_range(range: &Range) -> Option<(u32, Digest)> {
    Some((range.range, range.digest.as_slice().try_into().ok()?))
}

/// Whose seed it is; also what stands in the lock.
pub(super) fn owner(identity: &CopyIdentity) -> String {
    let CopyIdentity { dag, node, store, database, generation, replica } = identity;
    format!(
        "dag {dag} node {node} store {store} database {database} generation {generation} \
         replica {replica}"
    )
}

/// A source must be a copy of the same thing, and not too old.
pub(super) fn check_source(order: &SeedOrder, manifest: &Manifest) -> Result<(), SeedFault> {
    let (wanted, origin) = (&order.identity, &manifest.origin);
    let pairs = [
        ("DAG", wanted.dag.to_string(), origin.dag.to_string()),
        ("database", wanted.database.to_string(), origin.database.to_string()),
        ("generation", wanted.generation.to_string(), origin.generation.to_string()),
    ];
    for (what, expected, found) in pairs {
        if expected != found {
            return Err(SeedFault::OtherSource { what, expected, found });
        }
    }
    assert!(wanted.replica != origin.replica, "a seed has a replica id of its own");
    let found = manifest.position.0;
    match order.at_least {
        Some(needed) if found < needed => Err(SeedFault::TooOld { needed, found }),
        _ => Ok(()),
    }
}
