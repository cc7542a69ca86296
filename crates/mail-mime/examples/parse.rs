//! Reads every file below some folders as a mail, and says how fast that goes and what was cut.
//!
//! ```text
//! cargo run --release -p mail-mime --example parse -- FOLDER...
//! ```

use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let mut mails = Vec::new();
    for folder in std::env::args().skip(1) {
        collect(Path::new(&folder), &mut mails)?;
    }
    let bytes: usize = mails.iter().map(Vec::len).sum();
    let begin = Instant::now();
    let (mut without_id, mut without_preview, mut truncated, mut parts) = (0, 0, 0, 0);
    for mail in &mails {
        let parsed = mail_mime::parse(mail);
        without_id += u32::from(parsed.message_id.is_empty());
        without_preview += u32::from(parsed.preview.is_empty());
        truncated += u32::from(parsed.body.truncated || parsed.envelope.truncated);
        parts += parsed.body.parts.len();
    }
    let micros = begin.elapsed().as_micros() as usize;
    println!("{} mails, {bytes} bytes, {micros} us", mails.len());
    println!("{} us a mail, {} MB/s", micros / mails.len().max(1), bytes / micros.max(1));
    println!("{without_id} without a message id, {without_preview} without a preview");
    println!("{parts} parts, {truncated} cut");
    Ok(())
}

fn collect(path: &Path, into: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    if !path.is_dir() {
        into.push(std::fs::read(path)?);
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    entries.iter().try_for_each(|entry| collect(entry, into))
}
