//! The mbox form: many mails in one file, each behind a line that begins with `From `.
//!
//! A separator counts only at the start of the file or behind an empty line. Of a line that is
//! `>`s and then `From `, one `>` is quoting and is taken away on reading and added on writing
//! (the variant called mboxrd), so that every mail comes back byte for byte.

use std::io::{self, BufRead, Write};

/// Reads an mbox, mail by mail.
pub struct Mails<R> {
    input: R,
    /// The next mail's separator was read already.
    inside: bool,
    line: Vec<u8>,
}

impl<R: BufRead> Mails<R> {
    /// Reads from the start of an mbox.
    pub fn new(input: R) -> Self {
        Self { input, inside: false, line: Vec::new() }
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        Ok(self.input.read_until(b'\n', &mut self.line)? > 0)
    }

    fn next_mail(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.inside {
            if !self.read_line()? {
                return Ok(None);
            }
            if !is_separator(&self.line) {
                return Err(io::Error::other("does not begin with a `From ` line: not an mbox"));
            }
        }
        self.inside = false;
        let mut mail = Vec::new();
        // The empty line before a separator belongs to the mbox, so it is held back.
        let mut empty: Option<Vec<u8>> = None;
        while self.read_line()? {
            if is_separator(&self.line) && (empty.is_some() || mail.is_empty()) {
                self.inside = true;
                return Ok(Some(mail));
            }
            if let Some(empty) = empty.take() {
                mail.extend_from_slice(&empty);
            }
            if matches!(self.line.as_slice(), b"\n" | b"\r\n") {
                empty = Some(self.line.clone());
            } else {
                mail.extend_from_slice(unquoted(&self.line));
            }
        }
        Ok(Some(mail))
    }
}

impl<R: BufRead> Iterator for Mails<R> {
    type Item = io::Result<Vec<u8>>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_mail().transpose()
    }
}

fn is_separator(line: &[u8]) -> bool {
    line.starts_with(b"From ")
}

fn unquoted(line: &[u8]) -> &[u8] {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    if quotes > 0 && line[quotes..].starts_with(b"From ") { &line[1..] } else { line }
}

/// Appends a mail to an mbox. A mail whose last line has no end gets one, as the form demands.
pub fn write(
    output: &mut impl Write,
    sender: &str,
    date: jiff::Timestamp,
    mail: &[u8],
) -> io::Result<()> {
    let is_word = !sender.is_empty() && !sender.contains(|letter: char| letter.is_whitespace());
    let sender = if is_word { sender } else { "MAILER-DAEMON" };
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a %b %e %H:%M:%S %Y").to_string();
    writeln!(output, "From {sender} {date}")?;
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        let quotes = line.iter().take_while(|byte| **byte == b'>').count();
        if line[quotes..].starts_with(b"From ") {
            output.write_all(b">")?;
        }
        output.write_all(line)?;
    }
    if !mail.ends_with(b"\n") {
        output.write_all(b"\n")?;
    }
    output.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Vec<u8>> {
        Mails::new(text).collect::<io::Result<_>>().expect("an mbox")
    }

    #[test]
    fn what_is_written_reads_back_byte_for_byte() {
        let mails: [&[u8]; 5] = [
            b"Subject: a\n\nText\n",
            b"Subject: b\r\n\r\nFrom here on\r\n>From there\r\n\r\n\r\n",
            b"Subject: c\n\n\nFrom \n\nFrom x\n",
            b"\n",
            b"Subject: d\n\n",
        ];
        let mut mbox = Vec::new();
        for mail in mails {
            write(&mut mbox, "a b", jiff::Timestamp::UNIX_EPOCH, mail).expect("written");
        }
        assert_eq!(read(&mbox), mails);
    }

    #[test]
    fn a_from_line_inside_a_paragraph_is_no_separator() {
        let mbox = b"From a\nSubject: x\n\nHe said\nFrom now on\n\nFrom b\nSubject: y\n\nz\n";
        assert_eq!(
            read(mbox),
            [&b"Subject: x\n\nHe said\nFrom now on\n"[..], b"Subject: y\n\nz\n"]
        );
    }

    #[test]
    fn a_file_that_is_no_mbox_is_refused() {
        assert!(Mails::new(&b"Subject: x\n\ny"[..]).next().expect("an answer").is_err());
        assert!(read(b"").is_empty());
    }
}
