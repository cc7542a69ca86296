//! Delivers mails from files, many in flight, so that a repetition adds nothing.
//!
//! The delivery id of a mail is made from its content, and from its place among equal ones in the
//! same import. The mailbox remembers the ids, so an import that was interrupted, or run twice,
//! stores each mail once; two equal mails of one source are both kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dag_client::v1::DeliverCode;
use dag_client::{Client, Delivery, Session};
use futures::stream::{FuturesUnordered, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::mail::source::{Mail, MailFile};
use crate::output::bytes;

/// Failures that are shown one by one.
const SHOWN_MAX: usize = 10;
/// Mails that are read ahead; the session bounds the bytes that are in flight.
const READ_AHEAD: usize = 64;

/// What became of an import.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Mails that are in the mailbox now and were not before.
    pub stored: u64,
    /// Mails that had been delivered before.
    pub already_there: u64,
    /// Mails that are not in the mailbox.
    pub failed: u64,
    /// Bytes of the mails stored.
    pub bytes: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Mails a second.
    pub rate: f64,
    /// The longest time in which no mail was acknowledged.
    pub longest_gap_ms: u64,
    /// The first failures: origin and reason.
    pub failures: Vec<(String, String)>,
}

/// Shows how far an import is, to a person.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar over so many bytes of files; nothing where nobody watches.
    pub fn new(total: u64, lively: bool) -> Self {
        if !lively {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(total);
        let style = "{bar:30} {bytes}/{total_bytes}  {msg}  ETA {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is sound"));
        Self(bar)
    }

    fn show(&self, report: &Report, weight: u64, since: Instant) {
        self.0.inc(weight);
        let done = report.stored + report.already_there;
        let rate = done as f64 / since.elapsed().as_secs_f64().max(0.001);
        self.0.set_message(format!("{done} mails, {rate:.0}/s"));
    }

    /// So many bytes more are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// The delivery ids of the mails of one import.
#[derive(Debug, Default)]
pub struct Ids(HashMap<[u8; 16], u32>);

impl Ids {
    /// The id of the next mail, by its content and how often that came before.
    pub fn next(&mut self, content: &[u8]) -> String {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(content).as_bytes()[..16]);
        let times = self.0.entry(digest).or_default();
        *times += 1;
        format!("import-{}-{times}", crate::output::hex(&digest))
    }
}

/// Reads files in a thread of its own and hands their mails over; a file that cannot be read ends
/// the import with its error.
pub fn read_files(files: Vec<MailFile>) -> mpsc::Receiver<anyhow::Result<Mail>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        for file in files {
            let read = file.read(|mail| sender.blocking_send(Ok(mail)).is_ok());
            if let Err(error) = read {
                let _ = sender.blocking_send(Err(error));
                return;
            }
            if sender.is_closed() {
                return;
            }
        }
    });
    receiver
}

/// An import on its way.
pub struct Import<'a> {
    /// Connected to the DAG.
    pub client: &'a Client,
    /// Mails that are unanswered at the same time.
    pub in_flight: usize,
    /// Chooses the mailbox of the n-th mail.
    pub recipient: &'a (dyn Fn(u64) -> String + Sync),
    /// Is told how many mails are acknowledged.
    pub acknowledged: &'a (dyn Fn(u64) + Sync),
}

struct Done {
    origin: String,
    weight: u64,
    size: u64,
    result: Result<DeliverCode, dag_client::Error>,
}

impl Import<'_> {
    /// Delivers every mail of the channel.
    pub async fn run(
        &self,
        mut mails: mpsc::Receiver<anyhow::Result<Mail>>,
        progress: &Progress,
    ) -> Result<Report, Failure> {
        let session = self.client.session();
        let (begin, mut last) = (Instant::now(), Instant::now());
        let (mut report, mut gap) = (Report::default(), Duration::ZERO);
        let (mut ids, mut count) = (Ids::default(), 0_u64);
        let mut flying = FuturesUnordered::new();
        let mut more = true;
        while more || !flying.is_empty() {
            tokio::select! {
                mail = mails.recv(), if more && flying.len() < self.in_flight => match mail {
                    Some(mail) => {
                        let mail = mail.context("read the mails to import")?;
                        let id = ids.next(&mail.content);
                        flying.push(deliver(&session, mail, id, (self.recipient)(count)));
                        count += 1;
                    }
                    None => more = false,
                },
                Some(done) = flying.next() => {
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                    let weight = done.weight;
                    report.add(done);
                    progress.show(&report, weight, begin);
                    (self.acknowledged)(report.stored + report.already_there);
                }
            }
        }
        progress.end();
        report.seconds = begin.elapsed().as_secs_f64();
        report.rate = (report.stored + report.already_there) as f64 / report.seconds.max(0.001);
        report.longest_gap_ms = gap.as_millis() as u64;
        Ok(report)
    }
}

async fn deliver(session: &Session, mail: Mail, id: String, recipient: String) -> Done {
    let size = mail.content.len() as u64;
    let delivery = Delivery::new(id, [recipient], mail.content);
    let result = session.deliver(delivery).await.and_then(|mut report| {
        let recipient = report.recipients.pop().expect("one recipient has one report");
        recipient.result.map(|stored| stored.result.code())
    });
    Done { origin: mail.origin, weight: mail.weight, size, result }
}

impl Report {
    fn add(&mut self, done: Done) {
        match done.result {
            Ok(DeliverCode::Duplicate) => self.already_there += 1,
            Ok(_) => {
                self.stored += 1;
                self.bytes += done.size;
            }
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < SHOWN_MAX {
                    self.failures.push((done.origin, error.to_string()));
                }
            }
        }
    }

    /// In one line, for people.
    pub fn line(&self) -> String {
        format!(
            "{} stored ({}), {} there before, {} failed; {:.1} s, {:.0} mails/s",
            self.stored,
            bytes(self.bytes),
            self.already_there,
            self.failed,
            self.seconds,
            self.rate
        )
    }

    /// A failure where a mail failed.
    pub fn check(&self) -> Result<(), Failure> {
        if self.failed == 0 {
            return Ok(());
        }
        let what = format!("{} mails were not imported.", self.failed);
        let mut failure = Failure::new(Exit::Failed, what);
        for (origin, why) in &self.failures {
            failure = failure.why(format!("{origin}: {why}"));
        }
        Err(failure.next("repeat the same command: what is stored is not stored again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_source_gives_the_same_ids_and_equal_mails_get_different_ones() {
        let run = || {
            let mut ids = Ids::default();
            [b"a".as_slice(), b"b", b"a"].map(|content| ids.next(content))
        };
        let (first, second) = (run(), run());
        assert_eq!(first, second);
        assert_ne!(first[0], first[2]);
        assert!(first[0].ends_with("-1") && first[2].ends_with("-2"));
        assert!(first.iter().all(|id| dag_api::limits::is_delivery_id(id)));
    }
}
