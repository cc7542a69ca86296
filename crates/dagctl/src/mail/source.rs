//! Where mails are read from: files, folders, Maildirs and mboxes.
//!
//! | path | taken for |
//! | --- | --- |
//! | a folder with `cur` and `new` | a Maildir; its mails in the order of their names |
//! | another folder | the mails in it and below, a file each, in the order of their names |
//! | a file named `*.mbox`, or a single file that begins with `From ` | an mbox |
//! | another file | one mail |
//!
//! The order is the same each time, so that an import that was interrupted can be repeated.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::mail::export::INDEX_ENDING;
use crate::mail::mbox;

/// What a path is to be taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Kind {
    /// By its name and its content.
    #[default]
    Auto,
    /// Many mails in one file.
    Mbox,
    /// A folder with `cur` and `new`.
    Maildir,
    /// A mail per file.
    Eml,
}

/// One file that holds mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it holds many mails.
    pub mbox: bool,
}

/// A mail, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The file, and the place in it where there are several.
    pub origin: String,
    /// The bytes as they stand there.
    pub content: Vec<u8>,
    /// Bytes of the file that are read once this mail is done; for the progress bar.
    pub weight: u64,
}

/// All files below these paths that hold mail, in a fixed order.
pub fn files(paths: &[PathBuf], kind: Kind) -> anyhow::Result<Vec<MailFile>> {
    let mut files = Vec::new();
    for path in paths {
        let facts = fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
        if facts.is_dir() {
            folder(path, kind, &mut files)?;
        } else {
            let mbox = match kind {
                Kind::Mbox => true,
                Kind::Eml | Kind::Maildir => false,
                Kind::Auto => is_mbox_name(path) || begins_with_from(path)?,
            };
            files.push(MailFile { path: path.clone(), size: facts.len(), mbox });
        }
    }
    Ok(files)
}

fn folder(path: &Path, kind: Kind, files: &mut Vec<MailFile>) -> anyhow::Result<()> {
    let maildir = path.join("cur").is_dir() && path.join("new").is_dir();
    if kind == Kind::Maildir || (kind == Kind::Auto && maildir) {
        anyhow::ensure!(maildir, "{} has no cur and new: not a Maildir", path.display());
        // Mails that are still being written lie in `tmp`.
        for part in ["cur", "new"] {
            mails_of(&path.join(part), false, files)?;
        }
        return Ok(());
    }
    mails_of(path, kind == Kind::Mbox, files)
}

/// Every file in a folder and below; names that begin with a dot are no mails, nor is what an export
/// writes beside them.
fn mails_of(path: &Path, mbox: bool, files: &mut Vec<MailFile>) -> anyhow::Result<()> {
    let entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".") || name.ends_with(INDEX_ENDING.as_bytes()) {
            continue;
        }
        let facts = fs::metadata(&entry).with_context(|| format!("read {}", entry.display()))?;
        if facts.is_dir() {
            folder(&entry, if mbox { Kind::Mbox } else { Kind::Auto }, files)?;
        } else {
            let mbox = mbox || is_mbox_name(&entry);
            files.push(MailFile { path: entry, size: facts.len(), mbox });
        }
    }
    Ok(())
}

fn is_mbox_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "mbox")
}

fn begins_with_from(path: &Path) -> anyhow::Result<bool> {
    if path.extension().is_some_and(|extension| extension == "eml") {
        return Ok(false);
    }
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(5).read_to_end(&mut start))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(start == b"From ")
}

impl MailFile {
    /// Hands the mails of this file over, one after the other, until `take` says that it has enough.
    pub fn read(&self, mut take: impl FnMut(Mail) -> bool) -> anyhow::Result<()> {
        let shown = self.path.display().to_string();
        if !self.mbox {
            let content = fs::read(&self.path).with_context(|| format!("read {shown}"))?;
            take(Mail { origin: shown, weight: self.size, content });
            return Ok(());
        }
        let file = File::open(&self.path).with_context(|| format!("read {shown}"))?;
        for (place, content) in mbox::Mails::new(BufReader::new(file)).enumerate() {
            let origin = format!("{shown} mail {}", place + 1);
            let content = content.with_context(|| format!("read {origin}"))?;
            if !take(Mail { weight: content.len() as u64, origin, content }) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    fn all(root: &Path, kind: Kind) -> Vec<(String, Vec<u8>)> {
        let mut mails = Vec::new();
        for file in files(&[root.to_path_buf()], kind).expect("files") {
            file.read(|mail| {
                let origin = mail.origin.replace(&*root.to_string_lossy(), "");
                mails.push((origin, mail.content));
                true
            })
            .expect("mails");
        }
        mails
    }

    #[test]
    fn a_maildir_gives_what_was_delivered_and_not_what_is_being_written() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), "cur/2:2,S", b"b");
        write(root.path(), "new/1", b"From the start\n\na");
        write(root.path(), "tmp/3", b"half");
        let mails = all(root.path(), Kind::Auto);
        assert_eq!(
            mails,
            [
                ("/cur/2:2,S".into(), b"b".to_vec()),
                ("/new/1".into(), b"From the start\n\na".to_vec())
            ]
        );
    }

    #[test]
    fn a_folder_gives_every_file_below_it_in_order_and_an_mbox_by_its_name() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), "b/2.eml", b"From x\nis part of this mail\n");
        write(root.path(), "a.mbox", b"From x\n\n1\n\nFrom y\n\n2\n");
        write(root.path(), ".hidden", b"no mail");
        let mails: Vec<Vec<u8>> =
            all(root.path(), Kind::Auto).into_iter().map(|(_, mail)| mail).collect();
        assert_eq!(mails, [&b"\n1\n"[..], b"\n2\n", b"From x\nis part of this mail\n"]);
    }

    #[test]
    fn a_single_file_that_begins_with_from_is_an_mbox_unless_it_says_otherwise() {
        let root = tempfile::tempdir().expect("a folder");
        for (name, kind, mbox) in [
            ("inbox", Kind::Auto, true),
            ("inbox", Kind::Eml, false),
            ("one.eml", Kind::Auto, false),
            ("one.eml", Kind::Mbox, true),
        ] {
            write(root.path(), name, b"From x\n\n1\n");
            let found = files(&[root.path().join(name)], kind).expect("files");
            assert_eq!(found[0].mbox, mbox, "{name} {kind:?}");
        }
    }
}
