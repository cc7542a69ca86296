//! Where the folders of a mailbox go when all of them are exported.
//!
//! A folder is a directory of its name in that of its parent. What a name may contain and a file's
//! name should not is written `%XX`, so that no two folders meet and none meets what the export
//! itself writes: `%`, a `.` or `~` at the beginning, the endings of exported files, and the parts
//! of a Maildir. A path that would be too long for a file system is `~` and the folder's id.

use std::path::PathBuf;

use dag_client::v1::Folder;

use crate::command::mailbox::levels;

/// Bytes of one name; file systems take 255, and an ending is added to some.
const NAME_MAX: usize = 200;
/// Bytes of a path below the export's own folder; Linux takes 4,096 for all of it.
const PATH_MAX: usize = 2_000;
/// Endings of what an export writes, and of what an import takes for mail.
const ENDINGS: [&str; 3] = [".mbox", ".eml", ".json"];
const MAILDIR_PARTS: [&str; 3] = ["cur", "new", "tmp"];

/// The directory of a folder, below that of the export.
pub fn place(folder: &Folder, all: &[Folder]) -> PathBuf {
    let names: Vec<String> = levels(folder, all).into_iter().map(file_name).collect();
    let bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    if bytes > PATH_MAX || names.iter().any(|name| name.len() > NAME_MAX) {
        return PathBuf::from(format!("~{}", folder.folder_id));
    }
    names.iter().collect()
}

/// A level's name as that of a file.
fn file_name(name: &str) -> String {
    let ending = ENDINGS.iter().find(|ending| name.ends_with(*ending));
    let dot = ending.map(|ending| name.len() - ending.len());
    let is_part = MAILDIR_PARTS.contains(&name);
    let mut written = String::with_capacity(name.len());
    for (at, letter) in name.char_indices() {
        let first = at == 0 && (is_part || matches!(letter, '.' | '~'));
        if first || Some(at) == dot || letter == '%' {
            // All of these are single bytes.
            written.push_str(&format!("%{:02X}", u32::from(letter)));
        } else {
            written.push(letter);
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn folder(id: &str, parent: &str, name: &str) -> Folder {
        Folder {
            folder_id: id.into(),
            parent_id: parent.into(),
            display_name: name.into(),
            ..Folder::default()
        }
    }

    #[test]
    fn a_folder_lies_in_its_parents_directory() {
        let all = [folder("1", "", "INBOX"), folder("2", "1", "Work"), folder("3", "2", "Ä ö")];
        let places: Vec<PathBuf> = all.iter().map(|folder| place(folder, &all)).collect();
        let wanted = ["INBOX", "INBOX/Work", "INBOX/Work/Ä ö"];
        assert_eq!(places, wanted.map(PathBuf::from));
    }

    #[test]
    fn no_name_is_hidden_or_meets_what_an_export_writes() {
        let names = [
            (".hidden", "%2Ehidden"),
            ("~3", "%7E3"),
            ("cur", "%63ur"),
            ("current", "current"),
            ("00000001.eml", "00000001%2Eeml"),
            ("INBOX.mbox", "INBOX%2Embox"),
            ("INBOX.index.json", "INBOX.index%2Ejson"),
            (".eml", "%2Eeml"),
            ("100%2E", "100%252E"),
            ("a.b", "a.b"),
        ];
        for (name, wanted) in names {
            assert_eq!(file_name(name), wanted, "{name}");
        }
    }

    #[test]
    fn a_path_that_no_file_system_takes_is_the_folders_id() {
        let long = folder("7", "", &"ä".repeat(120));
        assert_eq!(place(&long, &[long.clone()]), Path::new("~7"));
        let mut all = vec![folder("1", "", &"a".repeat(150))];
        for level in 2..=32 {
            all.push(folder(&level.to_string(), &(level - 1).to_string(), &"b".repeat(150)));
        }
        assert_eq!(place(&all[31], &all), Path::new("~32"));
        assert!(place(&all[3], &all).starts_with("a".repeat(150)));
    }
}
