//! Folders and names of the simulated disk, as they are and as they would be after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::rng::Rng;

/// The root folder's number.
const ROOT: u64 = 0;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Folder(u64),
    File(u64),
}

type Children = BTreeMap<OsString, Target>;

/// All folders; the names inside each are kept twice, now and durable.
#[derive(Debug, Default)]
pub(super) struct Names {
    next: u64,
    now: BTreeMap<u64, Children>,
    durable: BTreeMap<u64, Children>,
    /// Changes that no sync covered yet, oldest first.
    journal: Vec<Change>,
}

/// One change of names; it is durable whole or not at all.
#[derive(Debug, Clone)]
struct Change {
    unlink: Option<(u64, OsString)>,
    link: Option<(u64, OsString, Target)>,
}

impl Change {
    fn touches(&self, folder: u64) -> bool {
        self.unlink.as_ref().is_some_and(|(at, _)| *at == folder)
            || self.link.as_ref().is_some_and(|(at, _, _)| *at == folder)
    }

    fn make(&self, folders: &mut BTreeMap<u64, Children>) {
        if let Some((folder, name)) = &self.unlink {
            folders.entry(*folder).or_default().remove(name);
        }
        if let Some((folder, name, target)) = &self.link {
            folders.entry(*folder).or_default().insert(name.clone(), *target);
        }
    }
}

impl Names {
    fn change(&mut self, change: Change) {
        change.make(&mut self.now);
        self.journal.push(change);
    }

    fn resolve(&self, path: &Path) -> Option<Target> {
        let mut at = Target::Folder(ROOT);
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Target::Folder(folder) = at else { return None };
            at = *self.now.get(&folder)?.get(name)?;
        }
        Some(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(u64, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.folder(parent)?, name.to_os_string()))
    }

    fn folder(&self, path: &Path) -> io::Result<u64> {
        match self.resolve(path).ok_or(io::ErrorKind::NotFound)? {
            Target::Folder(folder) => Ok(folder),
            Target::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.resolve(path).ok_or(io::ErrorKind::NotFound)? {
            Target::File(inode) => Ok(inode),
            Target::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        if self.resolve(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (folder, name) = self.parent(path)?;
        let inode = self.number();
        self.change(Change { unlink: None, link: Some((folder, name, Target::File(inode))) });
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            at = match self.now.get(&at).and_then(|children| children.get(name)) {
                Some(Target::Folder(folder)) => *folder,
                Some(Target::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let folder = self.number();
                    let link = (at, name.to_os_string(), Target::Folder(folder));
                    self.change(Change { unlink: None, link: Some(link) });
                    folder
                }
            };
        }
        Ok(())
    }

    /// Gives the file that was replaced, if one was.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<Option<u64>> {
        let target = self.resolve(from).ok_or(io::ErrorKind::NotFound)?;
        let replaced = match self.resolve(to) {
            Some(same) if same == target => return Ok(None),
            Some(Target::Folder(folder)) => {
                if self.now.get(&folder).is_some_and(|children| !children.is_empty()) {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                None
            }
            Some(Target::File(inode)) => Some(inode),
            None => None,
        };
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        self.change(Change {
            unlink: Some((from_folder, from_name)),
            link: Some((to_folder, to_name, target)),
        });
        Ok(replaced)
    }

    /// A second name for a file.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.file(from)?;
        if self.resolve(to).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (folder, name) = self.parent(to)?;
        self.change(Change { unlink: None, link: Some((folder, name, Target::File(inode))) });
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<u64> {
        let inode = self.file(path)?;
        let place = self.parent(path)?;
        self.change(Change { unlink: Some(place), link: None });
        Ok(inode)
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        if self.resolve(path).is_none() {
            return Ok(());
        }
        self.folder(path)?;
        let place = self.parent(path)?;
        self.change(Change { unlink: Some(place), link: None });
        Ok(())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.resolve(path).is_some()
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let folder = self.folder(path)?;
        let children = self.now.get(&folder);
        Ok(children.into_iter().flatten().map(|(name, _)| PathBuf::from(name)).collect())
    }

    pub(super) fn sync(&mut self, path: &Path) -> io::Result<()> {
        let folder = self.folder(path)?;
        let journal = std::mem::take(&mut self.journal);
        for change in journal {
            if change.touches(folder) {
                change.make(&mut self.durable);
            } else {
                self.journal.push(change);
            }
        }
        Ok(())
    }

    /// The oldest unsynced changes survive, the rest is lost.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let journal = std::mem::take(&mut self.journal);
        let survive = rng.below(journal.len() as u64 + 1) as usize;
        for change in &journal[..survive] {
            change.make(&mut self.durable);
        }
        self.now = self.durable.clone();
    }

    /// The files that can be reached.
    pub(super) fn files(&self) -> BTreeSet<u64> {
        self.paths().into_iter().map(|(_, inode)| inode).collect()
    }

    /// The files that can be reached, with their paths, sorted.
    pub(super) fn paths(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, folder)) = open.pop() {
            for (name, target) in self.now.get(&folder).into_iter().flatten() {
                match target {
                    Target::File(inode) => found.push((path.join(name), *inode)),
                    Target::Folder(inner) => open.push((path.join(name), *inner)),
                }
            }
        }
        found.sort();
        found
    }

    /// Whether a name leads to a file now, or would after a crash.
    pub(super) fn mentions(&self, inode: u64) -> bool {
        let target = Target::File(inode);
        let leads = |folders: &BTreeMap<u64, Children>| {
            folders.values().any(|children| children.values().any(|found| *found == target))
        };
        leads(&self.now)
            || leads(&self.durable)
            || self
                .journal
                .iter()
                .any(|change| change.link.as_ref().is_some_and(|(_, _, found)| *found == target))
    }
}
