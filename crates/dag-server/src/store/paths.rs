//! The folders outside the root in which this node ever kept copies.
//!
//! The control log says where a copy is; where copies *were*, and what they left in the trash there,
//! only the node knows: `<root>/paths`. And a folder says itself whose it is, in its file `OWNER`,
//! which is made before any other. So two nodes that are given one folder of a shared disk do not
//! tidy each other's copies away, and a folder whose disk is not mounted is not taken for an empty
//! one.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dag_types::DatabaseId;
use seeding::snapshot::SNAPSHOTS;
use seeding::{SeedFault, relocate, trash};
use storage::disk::{Disk, read_whole, replace_whole};
use thiserror::Error;

use super::Store;

const FILE: &str = "paths";

/// See the module.
pub struct KnownPaths {
    disk: Arc<dyn Disk>,
    file: PathBuf,
    known: Mutex<BTreeSet<(DatabaseId, PathBuf)>>,
}

impl KnownPaths {
    /// Reads what was noted. A line that says nothing is passed over: it only costs what lies in
    /// that folder's trash.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> io::Result<Self> {
        let file = root.join(FILE);
        let known = match disk.exists(&file)? {
            false => BTreeSet::new(),
            true => {
                let bytes = read_whole(&*disk, &file)?;
                String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect()
            }
        };
        Ok(Self { disk, file, known: Mutex::new(known) })
    }

    /// Notes a folder. Durable on return.
    pub fn note(&self, database: DatabaseId, folder: &Path) -> io::Result<()> {
        self.change(|known| known.insert((database, folder.to_path_buf())))
    }

    /// Whether it was noted.
    pub fn knows(&self, database: DatabaseId, folder: &Path) -> bool {
        self.known.lock().expect(UNPOISONED).contains(&(database, folder.to_path_buf()))
    }

    /// Forgets a folder. Durable on return.
    pub fn forget(&self, database: DatabaseId, folder: &Path) -> io::Result<()> {
        self.change(|known| known.remove(&(database, folder.to_path_buf())))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeSet<(DatabaseId, PathBuf)>) -> bool,
    ) -> io::Result<()> {
        let mut known = self.known.lock().expect(UNPOISONED);
        let mut next = known.clone();
        if !change(&mut next) {
            return Ok(());
        }
        let line = |(database, folder): &(DatabaseId, PathBuf)| {
            format!("{database} {}\n", folder.display())
        };
        let lines: String = next.iter().map(line).collect();
        replace_whole(&*self.disk, &self.file, lines.as_bytes())?;
        *known = next;
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> Vec<(DatabaseId, PathBuf)> {
        self.known.lock().expect(UNPOISONED).iter().cloned().collect()
    }
}

/// What a folder would mean for a copy that moves there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPath {
    /// Where the copy is now.
    pub from: PathBuf,
    /// What is there of it.
    pub bytes: u64,
    /// Both lie on one file system: its files get a second name.
    pub linked: bool,
}

/// Why a copy cannot be in a folder.
#[derive(Debug, Error)]
pub enum PathRefusal {
    /// The folder itself.
    #[error(transparent)]
    Folder(#[from] SeedFault),
    /// It is somebody's.
    #[error("{path}: it lies in {taken}, or around it, and that is {whose}")]
    Taken {
        /// What was asked for.
        path: String,
        /// The folder that is in the way.
        taken: String,
        /// Whose that is.
        whose: String,
    },
    /// The node cannot write there.
    #[error("{path}: this node cannot make files there: {detail}")]
    NotWritable {
        /// What was asked for.
        path: String,
        /// The system's own words.
        detail: String,
    },
    /// There is not enough room.
    #[error(
        "{path}: {free} bytes are free there and {needed} are needed: those of the copy, unless its \
         files only get a second name, and the reserve that stays free"
    )]
    TooSmall {
        /// What was asked for.
        path: String,
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
}

impl Store {
    /// Makes the folder of a database this node's own, before any other file is made in it.
    /// Repeating it is harmless. Durable on return. A folder that is refused is refused until a
    /// person does something about it.
    pub fn claim_folder(&self, database: DatabaseId, folder: &Path) -> Result<(), SeedFault> {
        let disk = |fault: io::Error| SeedFault::Disk {
            operation: "make the database's folder",
            folder: folder.display().to_string(),
            detail: fault.to_string(),
        };
        let refused = |why| SeedFault::Path { path: folder.display().to_string(), why };
        self.disk.create_dir_all(folder).map_err(disk)?;
        if self.is_below_root(folder) {
            return Ok(());
        }
        if !self.disk.exists(&folder.join(relocate::OWNER)).map_err(disk)? {
            if self.paths.knows(database, folder) {
                return Err(refused(
                    "copies were here and OWNER is gone: mount its disk; if the disk is new, say \
                     so with `dagctl copy reseed DB@NODE --path DIR`",
                ));
            }
            self.write_owner(database, folder).map_err(disk)?;
        }
        match self.is_owner(database, folder) {
            true => self.paths.note(database, folder).map_err(disk),
            false => Err(refused("another node, or another database, owns this folder")),
        }
    }

    fn write_owner(&self, database: DatabaseId, folder: &Path) -> io::Result<()> {
        // Under its name it is whole, and it is never anybody else's that is written over.
        let beside = folder.join(format!("{}-{}", relocate::OWNER, self.root.identity().store));
        replace_whole(&*self.disk, &beside, self.owner(database).as_bytes())?;
        match self.disk.link(&beside, &folder.join(relocate::OWNER)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => self.disk.remove_file(&beside)?,
        }
        self.disk.sync_dir(folder)
    }

    fn owner(&self, database: DatabaseId) -> String {
        let known = self.root.identity();
        format!("node {} store {} database {database}\n", known.node, known.store)
    }

    /// Whether a folder outside the root says that it is this database's, of this node.
    pub(super) fn is_owner(&self, database: DatabaseId, folder: &Path) -> bool {
        let said = read_whole(&*self.disk, &folder.join(relocate::OWNER));
        said.is_ok_and(|said| said == self.owner(database).as_bytes())
    }

    /// Whether a copy of a database could be in a folder; known before anything is touched. Nothing
    /// is left behind.
    pub fn check_path(
        &self,
        database: DatabaseId,
        path: &str,
        reserve: u64,
    ) -> Result<NewPath, PathRefusal> {
        let to = Path::new(path);
        let from = self.folder_of(database).unwrap_or_else(|| self.place(database, "").folder);
        let not_writable = |error: io::Error| PathRefusal::NotWritable {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        relocate::check_path(&*self.disk, &from, to)?;
        self.check_nobodys(database, to)?;
        let parent = deepest(to);
        probe(&parent).map_err(not_writable)?;
        let linked =
            device(&from).map_err(not_writable)? == device(&parent).map_err(not_writable)?;
        let bytes = if from.exists() { size(&from).map_err(not_writable)? } else { 0 };
        let free = self.volume.free_bytes(&parent).map_err(not_writable)?;
        let needed = if linked { reserve } else { reserve.saturating_add(bytes) };
        if free < needed {
            return Err(PathRefusal::TooSmall { path: path.to_owned(), free, needed });
        }
        Ok(NewPath { from, bytes, linked })
    }

    /// A person names a folder for a copy: if copies were there and the disk under it is a new one,
    /// it may be claimed again.
    pub fn begin_anew(&self, database: DatabaseId, path: &str) -> Result<(), PathRefusal> {
        let to = Path::new(path);
        if to.join(relocate::OWNER).exists() {
            return Ok(());
        }
        self.paths.forget(database, to).map_err(|error| PathRefusal::NotWritable {
            path: path.to_owned(),
            detail: error.to_string(),
        })
    }

    /// The root and the folders of other databases are not for this one.
    fn check_nobodys(&self, database: DatabaseId, to: &Path) -> Result<(), PathRefusal> {
        let taken = |taken: &Path, whose: String| {
            let (path, taken) = (to.display().to_string(), taken.display().to_string());
            Err(PathRefusal::Taken { path, taken, whose })
        };
        let overlap = |other: &Path| to.starts_with(other) || other.starts_with(to);
        for (other, folder) in self.folders().unwrap_or_default() {
            if other != database && overlap(&folder) {
                return taken(&folder, format!("the folder of database {other}"));
            }
        }
        if self.disk.exists(&to.join(relocate::OWNER)).unwrap_or(true)
            && !self.is_owner(database, to)
        {
            return taken(to, "another node's or another database's, as its OWNER says".into());
        }
        let root = self.root.folder();
        let own = to == self.place(database, "").folder;
        if overlap(root) && !own {
            return taken(root, "this node's root".into());
        }
        Ok(())
    }
}

/// The deepest part of a path that is there.
fn deepest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|part| part.is_dir());
    there.unwrap_or(Path::new("/")).to_path_buf()
}

/// Makes a file and removes it again.
fn probe(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".holdfast-{}", uuid::Uuid::new_v4()));
    std::fs::File::create_new(&file)?;
    std::fs::remove_file(&file)
}

fn device(folder: &Path) -> io::Result<u64> {
    Ok(deepest(folder).metadata()?.dev())
}

/// Bytes of all files below a folder, without what stays there: trash and snapshots.
fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in folder.read_dir()? {
        let entry = entry?;
        let known = entry.metadata()?;
        let stays = [trash::TRASH, SNAPSHOTS].iter().any(|name| entry.file_name() == *name);
        if known.is_dir() && !stays {
            // Files come and go while it is looked at.
            bytes += size(&entry.path()).unwrap_or(0);
        } else if known.is_file() {
            bytes += known.len();
        }
    }
    Ok(bytes)
}

fn parse(line: &str) -> Option<(DatabaseId, PathBuf)> {
    let (database, folder) = line.split_once(' ')?;
    Some((DatabaseId(database.parse().ok()?), PathBuf::from(folder)))
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use storage::disk::RealDisk;

    fn store(root: &Path) -> Store {
        let settings = format!(
            "node_id = 1\nname = 'n1'\nroot = '{}'\n[listen]\npeers = '127.0.0.1:1'\n\
             clients = '127.0.0.1:2'\nadmin = '127.0.0.1:3'\n",
            root.display()
        );
        Store::open(&toml::from_str::<Settings>(&settings).unwrap()).unwrap()
    }

    #[test]
    fn a_folder_has_one_owner_and_an_unmounted_disk_is_not_an_empty_one() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let (one, two) = (store(&at("one")), store(&at("two")));
        let (database, other) = (DatabaseId(16), DatabaseId(17));
        let folder = at("disk/db");
        let path = folder.to_str().unwrap();
        one.claim_folder(database, &folder).unwrap();
        one.claim_folder(database, &folder).unwrap();
        let taken = |store: &Store, database| {
            assert!(store.claim_folder(database, &folder).is_err());
            let refused = store.check_path(database, path, 0);
            assert!(matches!(refused, Err(PathRefusal::Taken { .. })), "{refused:?}");
        };
        taken(&two, database);
        taken(&one, other);
        assert!(two.folders().unwrap().is_empty(), "the other's folder is not tidied");
        assert_eq!(one.folders().unwrap(), [(database, folder.clone())]);
        // The disk is gone; what is under its name is another folder.
        std::fs::rename(at("disk"), at("away")).unwrap();
        let fault = one.claim_folder(database, &folder).unwrap_err();
        assert!(fault.to_string().contains("mount its disk"), "{fault}");
        assert!(one.folders().unwrap().is_empty());
        // To look at it changes nothing; then a person says that it is a new disk.
        one.check_path(database, path, 0).unwrap();
        assert!(one.claim_folder(database, &folder).is_err());
        one.begin_anew(database, path).unwrap();
        one.claim_folder(database, &folder).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_known_before_a_byte_is_moved() {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place.path().join("root"));
        let path = place.path().join("db").display().to_string();
        let found = store.check_path(DatabaseId(16), &path, 0).unwrap();
        assert!(found.linked && found.bytes == 0);
        let refused = store.check_path(DatabaseId(16), &path, u64::MAX);
        assert!(matches!(refused, Err(PathRefusal::TooSmall { .. })), "{refused:?}");
        assert!(!place.path().join("db").exists());
    }

    #[test]
    fn folders_are_known_again_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::default());
        let paths = KnownPaths::open(disk.clone(), root.path()).unwrap();
        let noted = (DatabaseId(16), PathBuf::from("/data 2/db1"));
        paths.note(noted.0, &noted.1).unwrap();
        paths.note(noted.0, &noted.1).unwrap();
        let again = KnownPaths::open(disk, root.path()).unwrap();
        assert_eq!(again.all(), [noted]);
    }
}
