//! Messages into files: one each, an mbox, or a Maildir, with flags and dates.
//!
//! What a message contains is written byte for byte. Where the form itself has no room for flags and
//! dates without changing it, they stand beside it in a file that ends with `.index.json`: one
//! object a line, in the order of the messages. Where a whole mailbox is exported, `folders.index.json`
//! says where each of its folders is.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dag_client::Fetched;
use dag_client::v1::{MessageMeta, SystemFlag};

use crate::failure::Failure;
use crate::mail::mbox;

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ExportForm {
    /// UID.eml in a folder.
    #[default]
    Eml,
    /// One file.
    Mbox,
    /// A folder with cur, new and tmp; flags are kept.
    Maildir,
}

/// How the files are called that say more about messages or folders.
pub const INDEX_ENDING: &str = ".index.json";

/// Keywords that a Maildir has letters for.
const MAILDIR_KEYWORDS: usize = 26;

const FLAGS: [(SystemFlag, &str, char); 5] = [
    (SystemFlag::Answered, "\\Answered", 'R'),
    (SystemFlag::Flagged, "\\Flagged", 'F'),
    (SystemFlag::Deleted, "\\Deleted", 'T'),
    (SystemFlag::Seen, "\\Seen", 'S'),
    (SystemFlag::Draft, "\\Draft", 'D'),
];

/// Flags and keywords by the names that IMAP has for them.
pub fn flag_names(message: &MessageMeta) -> Vec<String> {
    let set = FLAGS.iter().filter(|(flag, ..)| message.system_flags & *flag as u32 != 0);
    let names = set.map(|(_, name, _)| (*name).to_owned());
    names.chain(message.keywords.iter().cloned()).collect()
}

/// When it was received.
pub fn internal_date(message: &MessageMeta) -> Option<jiff::Timestamp> {
    let at = message.internal_date.as_ref()?;
    jiff::Timestamp::new(at.seconds, at.nanos).ok()
}

/// Where an export goes.
pub struct Target {
    into: PathBuf,
    place: Place,
    index: Option<BufWriter<File>>,
}

enum Place {
    Files,
    Mbox(BufWriter<File>),
    Maildir { keywords: Vec<String> },
}

impl Target {
    /// Makes the folder or the file.
    pub fn make(into: &Path, kind: ExportForm) -> Result<Self, Failure> {
        let place = match kind {
            ExportForm::Eml => {
                fs::create_dir_all(into)?;
                Place::Files
            }
            ExportForm::Mbox => Place::Mbox(BufWriter::new(File::create_new(into)?)),
            ExportForm::Maildir => {
                for part in ["cur", "new", "tmp"] {
                    fs::create_dir_all(into.join(part))?;
                }
                Place::Maildir { keywords: Vec::new() }
            }
        };
        let index = match kind {
            ExportForm::Eml | ExportForm::Mbox => {
                Some(BufWriter::new(File::create_new(index_of(into))?))
            }
            ExportForm::Maildir => None,
        };
        Ok(Self { into: into.to_path_buf(), place, index })
    }

    /// Writes one message.
    pub fn put(&mut self, fetched: &Fetched) -> Result<(), Failure> {
        let message = &fetched.message;
        match &mut self.place {
            Place::Files => {
                let name = format!("{:08}.eml", message.uid);
                write_dated(&self.into.join(name), fetched)?;
            }
            Place::Mbox(file) => {
                let date = internal_date(message).unwrap_or_default();
                mbox::write(file, &message.envelope_from, date, &fetched.content)?;
            }
            Place::Maildir { keywords } => {
                let letters = letters(message, keywords);
                let name = format!("{:010}.{}:2,{letters}", message.uid, message.email_id);
                write_dated(&self.into.join("cur").join(name), fetched)?;
            }
        }
        if let Some(index) = &mut self.index {
            let line = serde_json::json!({
                "uid": message.uid,
                "email_id": message.email_id,
                "flags": flag_names(message),
                "internal_date": internal_date(message).map(|date| date.to_string()),
                "envelope_from": message.envelope_from,
                "delivery_id": message.delivery_id,
                "size": message.size,
            });
            writeln!(index, "{line}")?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub fn end(self) -> Result<(), Failure> {
        if let Some(mut index) = self.index {
            index.flush()?;
        }
        match self.place {
            Place::Mbox(mut file) => file.flush()?,
            Place::Maildir { keywords } if !keywords.is_empty() => {
                let lines = keywords.iter().enumerate().map(|(n, name)| format!("{n} {name}\n"));
                fs::write(self.into.join("dovecot-keywords"), lines.collect::<String>())?;
            }
            Place::Files | Place::Maildir { .. } => {}
        }
        Ok(())
    }
}

fn index_of(into: &Path) -> PathBuf {
    let mut name = into.as_os_str().to_owned();
    name.push(INDEX_ENDING);
    PathBuf::from(name)
}

/// A file that was changed last when the message was received.
fn write_dated(path: &Path, fetched: &Fetched) -> Result<(), Failure> {
    let mut file = File::create_new(path)?;
    file.write_all(&fetched.content)?;
    if let Some(date) = internal_date(&fetched.message) {
        let since = Duration::from_millis(date.as_millisecond().max(0) as u64);
        file.set_modified(SystemTime::UNIX_EPOCH + since)?;
    }
    Ok(())
}

/// A Maildir's letters: system flags in upper case, the folder's first 26 keywords in lower case.
fn letters(message: &MessageMeta, known: &mut Vec<String>) -> String {
    let set = FLAGS.iter().filter(|(flag, ..)| message.system_flags & *flag as u32 != 0);
    let mut letters: Vec<char> = set.map(|(.., letter)| *letter).collect();
    for keyword in &message.keywords {
        let at = known.iter().position(|name| name == keyword);
        let at = at.or_else(|| {
            let is_room = known.len() < MAILDIR_KEYWORDS;
            is_room.then(|| {
                known.push(keyword.clone());
                known.len() - 1
            })
        });
        letters.extend(at.map(|at| char::from(b'a' + at as u8)));
    }
    letters.sort_unstable();
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::source::{self, Kind};

    fn fetched(uid: u32, content: &'static [u8]) -> Fetched {
        let message = MessageMeta {
            uid,
            system_flags: SystemFlag::Seen as u32,
            keywords: vec!["work".into(), "later".into()],
            email_id: format!("e{uid}"),
            internal_date: Some(prost_timestamp(1_700_000_000)),
            envelope_from: "ann@example.org".into(),
            ..MessageMeta::default()
        };
        Fetched { message, content: content.into() }
    }

    fn prost_timestamp(seconds: i64) -> dag_client::Timestamp {
        dag_client::Timestamp { seconds, nanos: 0 }
    }

    fn exported(root: &Path, kind: ExportForm, name: &str, mails: &[&'static [u8]]) -> PathBuf {
        let into = root.join(name);
        let mut target = Target::make(&into, kind).expect("made");
        for (uid, mail) in (1..).zip(mails) {
            target.put(&fetched(uid, mail)).expect("put");
        }
        target.end().expect("ended");
        into
    }

    #[test]
    fn every_form_of_export_imports_again_byte_for_byte() {
        let mails: [&[u8]; 2] = [b"Subject: a\r\n\r\nFrom here\r\n", b"Subject: b\n\n\n"];
        for (kind, name) in
            [(ExportForm::Eml, "e"), (ExportForm::Mbox, "m.mbox"), (ExportForm::Maildir, "d")]
        {
            let root = tempfile::tempdir().expect("a folder");
            let into = exported(root.path(), kind, name, &mails);
            let mut found = Vec::new();
            for file in source::files(&[into], Kind::Auto).expect("files") {
                file.read(|mail| {
                    found.push(mail.content);
                    true
                })
                .expect("mails");
            }
            assert_eq!(found, mails, "{kind:?}");
        }
    }

    #[test]
    fn flags_keywords_and_dates_are_exported() {
        let root = tempfile::tempdir().expect("a folder");
        let maildir = exported(root.path(), ExportForm::Maildir, "d", &[b"a"]);
        let file = fs::read_dir(maildir.join("cur")).expect("cur").next().expect("a file");
        let file = file.expect("a file");
        assert!(file.file_name().to_string_lossy().ends_with(":2,Sab"), "{file:?}");
        let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(file.metadata().expect("metadata").modified().expect("a time"), received);
        let keywords = fs::read_to_string(maildir.join("dovecot-keywords")).expect("keywords");
        assert_eq!(keywords, "0 work\n1 later\n");
        let mbox = exported(root.path(), ExportForm::Mbox, "m.mbox", &[b"a"]);
        let text = fs::read_to_string(&mbox).expect("an mbox");
        assert!(text.starts_with("From ann@example.org Tue Nov 14 22:13:20 2023\n"), "{text}");
        let index = fs::read_to_string(index_of(&mbox)).expect("an index");
        let line: serde_json::Value = serde_json::from_str(index.trim()).expect("JSON");
        assert_eq!(line["flags"], serde_json::json!(["\\Seen", "work", "later"]));
        assert_eq!(line["internal_date"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn flags_have_their_imap_names() {
        let set = SystemFlag::Seen as u32 + SystemFlag::Flagged as u32;
        let message = MessageMeta {
            system_flags: set,
            keywords: vec!["work".into()],
            ..MessageMeta::default()
        };
        assert_eq!(flag_names(&message), ["\\Flagged", "\\Seen", "work"]);
    }
}
