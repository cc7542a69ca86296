//! The files of a staged state: how they are opened, written, synced, linked and read back.

use super::*;

/// How far a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileState {
    /// What is durable.
    pub(super) ranges: Vec<Option<Digest>>,
    /// All of them are, and the file has its length.
    pub(super) whole: bool,
    /// It is another name of the source's file; it is never written.
    pub(super) linked: bool,
    /// What an earlier checkpoint's file of this name and length left here.
    pub(super) doubt: Option<BTreeMap<u32, Digest>>,
    /// No range before this one is missing.
    pub(super) searched: u32,
    /// Written and synced in this life, from bytes whose digest held.
    pub(super) written: BTreeSet<u32>,
}

impl FileState {
    pub(super) fn missing(entry: &FileEntry) -> Self {
        let ranges = vec![None; entry.ranges() as usize];
        let written = BTreeSet::new();
        Self { ranges, whole: false, linked: false, doubt: None, searched: 0, written }
    }

    /// Whether so many ranges more are all that it lacks.
    pub(super) fn full_with(&self, written: usize) -> bool {
        self.ranges.iter().filter(|range| range.is_none()).count() == written
    }

    /// What a later checkpoint may find here. A linked file is the source's own and never kept.
    pub(super) fn durable(&self) -> BTreeMap<u32, Digest> {
        let held = self.ranges.iter().enumerate();
        let held = held.filter_map(|(range, digest)| Some((range as u32, (*digest)?)));
        self.doubt.iter().flatten().map(|(range, digest)| (*range, *digest)).chain(held).collect()
    }

    pub(super) fn durable_bytes(&self, entry: &FileEntry) -> u64 {
        if self.whole {
            return entry.bytes;
        }
        let held = self.ranges.iter().enumerate().filter(|(_, held)| held.is_some());
        held.map(|(range, _)| entry.range_bytes(range as u32)).sum()
    }

    fn begun(&self) -> bool {
        self.ranges.iter().any(Option::is_some)
    }
}

/// Files that the engine never changes once they are there; only those may share their bytes.
fn immutable(name: &str) -> bool {
    [".sst", ".blob", ".full", ".part"].iter().any(|kind| name.ends_with(kind))
}

impl Target {
    pub(super) fn path_of(&self, number: u32) -> PathBuf {
        self.folder.join(STATE).join(&self.known().files[number as usize].name)
    }

    /// The file for writing. One that nothing durable is known of is made anew: what stands under
    /// its name could be a link to the source's own file.
    pub(super) fn writable(&mut self, number: u32) -> Result<Arc<dyn DiskFile>, SeedFault> {
        if let Some(file) = self.open.get(&number) {
            return Ok(file.clone());
        }
        let path = self.path_of(number);
        let io = disk_fault("open a staged file", &self.folder);
        assert!(!self.files[number as usize].linked, "a linked file is never written");
        let begun = self.files[number as usize].begun();
        if !begun && self.disk.exists(&path).map_err(&io)? {
            self.disk.remove_file(&path).map_err(&io)?;
        }
        if !begun {
            self.disk.open(&path, OpenMode::Create).map_err(&io)?;
        }
        let file = self.disk.open(&path, OpenMode::Direct).map_err(&io)?;
        self.open.insert(number, file.clone());
        Ok(file)
    }

    /// Ranges of a file that were written and are not durable yet.
    pub(super) fn written(&self, number: u32) -> impl Iterator<Item = &(u32, Digest)> {
        let syncing = self.syncing.as_ref().and_then(|batch| batch.written.get(&number));
        syncing.into_iter().chain(self.pending.get(&number)).flatten()
    }

    /// Whether there is something of a file that is not durable yet, be it its name alone.
    pub(super) fn is_written(&self, number: u32) -> bool {
        let syncing = self.syncing.as_ref().is_some_and(|it| it.written.contains_key(&number));
        syncing || self.pending.contains_key(&number)
    }

    /// Makes what was written durable, and claims it.
    pub(super) fn sync(&mut self, now: Millis) -> Result<(), SeedFault> {
        self.settle(now, true)?;
        self.begin_sync()?;
        self.settle(now, true)
    }

    /// Has what was written made durable.
    pub(super) fn begin_sync(&mut self) -> Result<(), SeedFault> {
        assert!(self.syncing.is_none(), "one sync at a time");
        if self.pending.is_empty() {
            return Ok(());
        }
        let io = disk_fault("sync a seed", &self.folder);
        let (mut syncs, mut named) = (Vec::new(), false);
        let numbers: Vec<u32> = self.pending.keys().copied().collect();
        for number in numbers {
            let file = self.writable(number)?;
            let state = &self.files[number as usize];
            named |= !state.begun();
            if state.full_with(self.pending[&number].len()) {
                // Writes go in whole blocks, and an older file of this name may have been longer.
                file.set_len(self.known().files[number as usize].bytes).map_err(&io)?;
            }
            syncs.push(file.begin_sync());
        }
        let written = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.syncing = Some(Batch { written, syncs, named });
        Ok(())
    }

    /// Claims what a sync has made durable, where it is over or is to be waited for.
    pub(super) fn settle(&mut self, now: Millis, wait: bool) -> Result<(), SeedFault> {
        let Some(mut batch) = self.syncing.take() else { return Ok(()) };
        if !wait && !batch.syncs.iter_mut().all(Syncing::is_over) {
            self.syncing = Some(batch);
            return Ok(());
        }
        let io = disk_fault("sync a seed", &self.folder);
        for sync in batch.syncs {
            sync.wait().map_err(&io)?;
        }
        if batch.named {
            self.disk.sync_dir(&self.folder.join(STATE)).map_err(&io)?;
        }
        self.durable(now, batch.written)
    }

    fn durable(&mut self, now: Millis, written: Written) -> Result<(), SeedFault> {
        let mut claims = Vec::new();
        for (number, ranges) in written {
            let state = &mut self.files[number as usize];
            state.whole = state.full_with(ranges.len());
            let claimed = ranges.iter().map(|(range, digest)| claim_range(number, *range, digest));
            let (ranges_claimed, whole) = (claimed.collect(), state.whole);
            claims.push(Claim::Ranges(Ranges {
                file: number,
                ranges: ranges_claimed,
                whole,
                linked: false,
            }));
            for (range, digest) in ranges {
                state.ranges[range as usize] = Some(digest);
                state.written.insert(range);
            }
            let first = state.ranges.iter().position(Option::is_none);
            state.searched = first.unwrap_or(state.ranges.len()) as u32;
        }
        let files = &self.files;
        self.open.retain(|number, _| !files[*number as usize].whole);
        self.claim(claims)?;
        self.show(now);
        Ok(())
    }

    /// Gives a file of the checkpoint a second name here, where it lies on this file system.
    pub(super) fn link(&mut self, now: Millis, number: u32) -> Result<bool, SeedFault> {
        let entry = self.known().files[number as usize].clone();
        let Some(from) = self.order.link_from.as_ref().filter(|_| immutable(&entry.name)) else {
            return Ok(false);
        };
        let untouched = !self.files[number as usize].begun()
            && !self.is_written(number)
            && !self.asked.iter().any(|(file, _)| *file == number);
        if !untouched {
            return Ok(false);
        }
        let io = disk_fault("link a file", &self.folder);
        let path = self.path_of(number);
        if self.disk.exists(&path).map_err(&io)? {
            self.disk.remove_file(&path).map_err(&io)?;
        }
        if let Err(fault) = self.disk.link(&from.join(&entry.name), &path) {
            use std::io::ErrorKind::{
                CrossesDevices, NotFound, PermissionDenied, TooManyLinks, Unsupported,
            };
            let other = [CrossesDevices, NotFound, PermissionDenied, TooManyLinks, Unsupported];
            return if other.contains(&fault.kind()) { Ok(false) } else { Err(io(fault)) };
        }
        let length =
            self.disk.open(&path, OpenMode::Read).and_then(|file| file.len()).map_err(&io)?;
        if length != entry.bytes {
            self.disk.remove_file(&path).map_err(&io)?;
            return Ok(false);
        }
        self.disk.sync_dir(&self.folder.join(STATE)).map_err(&io)?;
        let state = &mut self.files[number as usize];
        (state.whole, state.linked) = (true, true);
        self.claim(vec![Claim::Ranges(Ranges {
            file: number,
            ranges: Vec::new(),
            whole: true,
            linked: true,
        })])?;
        self.meter.worked(now, entry.bytes);
        self.show(now);
        Ok(true)
    }

    /// Reads one range back that an earlier life left. What does not hold is fetched again after the
    /// pass.
    pub(super) fn verify(
        &mut self,
        now: Millis,
        number: u32,
        range: u32,
        clean: bool,
    ) -> Result<Step, SeedFault> {
        self.tidy()?;
        let Some(state) = self.files.get(number as usize) else {
            return self.verified(now, clean);
        };
        if state.linked || range as usize >= state.ranges.len() {
            let holds = self.check_length(number)?;
            if !holds {
                self.lose(number, None)?;
            }
            self.doing = Doing::Verifying { file: number + 1, range: 0, clean: clean && holds };
            return Ok(Step::Again);
        }
        let holds = self.range_holds(number, range)?;
        if !holds {
            tracing::warn!(file = %self.path_of(number).display(), range, "a staged range is damaged");
            self.lose(number, Some(range))?;
        }
        self.doing = Doing::Verifying { file: number, range: range + 1, clean: clean && holds };
        Ok(Step::Again)
    }

    fn range_holds(&self, number: u32, range: u32) -> Result<bool, SeedFault> {
        let state = &self.files[number as usize];
        if state.written.contains(&range) {
            return Ok(true);
        }
        let Some(expected) = state.ranges[range as usize] else { return Ok(false) };
        let length = self.known().files[number as usize].range_bytes(range) as usize;
        let read = self.disk.open(&self.path_of(number), OpenMode::Read).and_then(|file| {
            let mut bytes = vec![0; length];
            file.read_at(&mut bytes, u64::from(range) * RANGE_BYTES)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => Ok(digest(&bytes) == expected),
            Err(fault) if is_gone(&fault) => Ok(false),
            Err(fault) => Err(disk_fault("read a staged file back", &self.folder)(fault)),
        }
    }

    fn check_length(&self, number: u32) -> Result<bool, SeedFault> {
        let file =
            self.disk.open(&self.path_of(number), OpenMode::Read).and_then(|file| file.len());
        match file {
            Ok(length) => Ok(length == self.known().files[number as usize].bytes),
            Err(fault) if is_gone(&fault) => Ok(false),
            Err(fault) => Err(disk_fault("read a staged file back", &self.folder)(fault)),
        }
    }

    /// A range, or a whole file, is not what it was.
    pub(super) fn lose(&mut self, number: u32, range: Option<u32>) -> Result<(), SeedFault> {
        let state = &mut self.files[number as usize];
        let count = state.ranges.len() as u32;
        (state.whole, state.linked, state.searched) = (false, false, 0);
        let lost = range.map_or(0..count.max(1), |range| range..range + 1);
        let mut claims = vec![self.shown_claim()];
        let state = &mut self.files[number as usize];
        for range in lost {
            if let Some(held) = state.ranges.get_mut(range as usize) {
                *held = None;
            }
            state.written.remove(&range);
            claims.push(Claim::Lost(Range { file: number, range, digest: Vec::new() }));
        }
        self.claim(claims)
    }

    fn verified(&mut self, now: Millis, clean: bool) -> Result<Step, SeedFault> {
        if !clean {
            // The connection may have ended since the last range came.
            self.disconnected();
            self.doing = Doing::Opening { asked: false };
            return Ok(Step::Reconnect);
        }
        let io = disk_fault("sync a seed", &self.folder);
        self.disk.sync_dir(&self.folder.join(STATE)).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        self.claim(vec![Claim::Verified(true)])?;
        self.doing = Doing::Built;
        self.show(now);
        Ok(Step::Built)
    }

    /// Removes what no file of the checkpoint is called.
    fn tidy(&mut self) -> Result<(), SeedFault> {
        if self.tidied {
            return Ok(());
        }
        let folder = self.folder.join(STATE);
        let io = disk_fault("tidy a seed", &self.folder);
        for name in self.disk.list(&folder).map_err(&io)? {
            let known = self.known().files.iter().any(|file| Path::new(&file.name) == name);
            if !known {
                self.disk.remove_file(&folder.join(name)).map_err(&io)?;
            }
        }
        self.tidied = true;
        Ok(())
    }
}

pub(super) fn is_gone(fault: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    matches!(fault.kind(), NotFound | UnexpectedEof)
}
