//! The files of a simulated state.
//!
//! A file is a run of changes and a checksum: `{ op u8, key length u32, value length u32, key,
//! framed value }* crc32`, numbers with the lowest byte first. A full file begins with no rows, a
//! part with those of the files before it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::super::StateError;
use super::super::tree::Tree;
use crate::disk::{Disk, read_whole, replace_whole};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const FULL: &str = "full";
const PART: &str = "part";

/// Numbers of a folder's files in order, and whether each is a full one. What has not got its name
/// yet is no file of the state.
pub(super) fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<(u64, bool)>, StateError> {
    let names = disk.list(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(folder),
        _ => StateError::io("open", &error),
    })?;
    let mut files: Vec<(u64, bool)> = names.iter().filter_map(|name| parse(name)).collect();
    files.sort_unstable();
    Ok(files)
}

fn parse(name: &Path) -> Option<(u64, bool)> {
    let number = u64::from_str_radix(name.file_stem()?.to_str()?, 16).ok()?;
    let kind = name.extension().and_then(OsStr::to_str)?;
    [FULL, PART].contains(&kind).then_some((number, kind == FULL))
}

fn missing(folder: &Path) -> StateError {
    StateError::damaged("open", format!("{} holds no state", folder.display()))
}

fn path(folder: &Path, number: u64, kind: &str) -> PathBuf {
    folder.join(format!("{number:016x}.{kind}"))
}

/// The rows that the files make, the next file's number, and how many parts stand on the last
/// full file.
pub(super) fn load(disk: &dyn Disk, folder: &Path) -> Result<(Tree, u64, usize), StateError> {
    let files = list(disk, folder)?;
    let from = files.iter().rposition(|(_, full)| *full).ok_or_else(|| missing(folder))?;
    let mut rows = Tree::default();
    for (at, (number, full)) in files[from..].iter().enumerate() {
        let expected = files[from].0 + at as u64;
        if *number != expected {
            let detail = format!("file {expected:016x} of {} is missing", folder.display());
            return Err(StateError::damaged("open", detail));
        }
        read(disk, &path(folder, *number, if *full { FULL } else { PART }), &mut rows)?;
    }
    let parts = files.len() - from - 1;
    Ok((rows, files[from].0 + parts as u64 + 1, parts))
}

/// Makes every row durable as one file.
pub(super) fn write_full(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    rows: &Tree,
) -> Result<(), StateError> {
    let mut content = Vec::new();
    rows.for_each(|key, framed| encode(&mut content, key, Some(framed)));
    publish(disk, &path(folder, number, FULL), content)
}

/// Makes changes durable as one file.
pub(super) fn write_part(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    changes: &[(Bytes, Option<Bytes>)],
) -> Result<(), StateError> {
    let mut content = Vec::new();
    changes.iter().for_each(|(key, framed)| encode(&mut content, key, framed.as_ref()));
    publish(disk, &path(folder, number, PART), content)
}

/// Removes the files that a full one replaces, the newest first: what is left of them after a
/// crash is never taken for a whole state without its end.
pub(super) fn remove_before(disk: &dyn Disk, folder: &Path, number: u64) -> Result<(), StateError> {
    for (old, full) in list(disk, folder)?.into_iter().rev().filter(|(old, _)| *old < number) {
        let path = path(folder, old, if full { FULL } else { PART });
        disk.remove_file(&path).map_err(|error| StateError::io("flush", &error))?;
    }
    Ok(())
}

/// A name stands for a whole file, or is not there.
fn publish(disk: &dyn Disk, path: &Path, mut content: Vec<u8>) -> Result<(), StateError> {
    let crc = crc32fast::hash(&content);
    content.extend_from_slice(&crc.to_le_bytes());
    replace_whole(disk, path, &content).map_err(|error| StateError::io("flush", &error))
}

fn encode(content: &mut Vec<u8>, key: &[u8], framed: Option<&Bytes>) {
    let value: &[u8] = framed.map_or(&[], |framed| framed);
    content.push(if framed.is_some() { PUT } else { DELETE });
    for len in [key.len(), value.len()] {
        let len = u32::try_from(len).expect("a row is below 4 GiB");
        content.extend_from_slice(&len.to_le_bytes());
    }
    content.extend_from_slice(key);
    content.extend_from_slice(value);
}

/// Makes a file's changes to `rows`.
fn read(disk: &dyn Disk, path: &Path, rows: &mut Tree) -> Result<(), StateError> {
    let content = read_whole(disk, path).map_err(|error| StateError::io("open", &error))?;
    let content = Bytes::from(content);
    let damaged = || StateError::damaged("open", format!("{} is damaged", path.display()));
    let (body, crc) = content.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let mut body = content.slice(..body.len());
    while !body.is_empty() {
        change(&mut body, rows).ok_or_else(damaged)?;
    }
    Ok(())
}

/// Takes one change off the front; `None` where it is not one.
fn change(body: &mut Bytes, rows: &mut Tree) -> Option<()> {
    let op = body.try_get_u8().ok()?;
    let key_len = body.try_get_u32_le().ok()? as usize;
    let value_len = body.try_get_u32_le().ok()? as usize;
    if body.remaining() < key_len + value_len || ![PUT, DELETE].contains(&op) {
        return None;
    }
    let (key, value) = (body.split_to(key_len), body.split_to(value_len));
    if op == PUT {
        rows.insert(key, value);
    } else {
        rows.remove(&key);
    }
    Some(())
}
