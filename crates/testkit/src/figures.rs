//! What a running process uses, read from `/proc`.

use std::fs;
use std::io;
use std::ops::{Add, Sub};
use std::path::Path;
use std::time::Duration;

/// The use of one process, or the sum over several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Time on a processor since its start, in user and system mode.
    pub cpu: Duration,
    /// Memory in RAM that is no file's page, in bytes.
    pub anonymous_bytes: u64,
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Bytes that it caused to be written to disks since its start.
    pub written_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Its open file descriptors.
    pub files: u64,
}

impl Figures {
    /// Reads them; an error when the process is gone or belongs to somebody else.
    pub fn of(pid: i32) -> io::Result<Self> {
        let proc = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(proc.join("status"))?;
        let io = fs::read_to_string(proc.join("io"))?;
        Ok(Self {
            cpu: cpu_of(&fs::read_to_string(proc.join("stat"))?)
                .ok_or_else(|| io::Error::other("a line of /proc/PID/stat cannot be read"))?,
            anonymous_bytes: number_after(&status, "RssAnon:") * 1024,
            resident_bytes: number_after(&status, "VmRSS:") * 1024,
            written_bytes: number_after(&io, "write_bytes:")
                .saturating_sub(number_after(&io, "cancelled_write_bytes:")),
            threads: number_after(&status, "Threads:"),
            files: fs::read_dir(proc.join("fd"))?.count() as u64,
        })
    }
}

impl Add for Figures {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
            resident_bytes: self.resident_bytes + other.resident_bytes,
            written_bytes: self.written_bytes + other.written_bytes,
            threads: self.threads + other.threads,
            files: self.files + other.files,
        }
    }
}

/// What grows only (processor time, bytes written) is subtracted; the rest stays as it is now.
impl Sub for Figures {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            ..self
        }
    }
}

impl std::iter::Sum for Figures {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Fields 14 and 15 of the line: clock ticks in user and in system mode.
fn cpu_of(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_work() {
        let pid = std::process::id() as i32;
        let before = Figures::of(pid).expect("own figures");
        let mut sum = 0_u64;
        while Figures::of(pid).expect("own figures").cpu < before.cpu + Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(before.threads > 0 && before.files > 0 && before.resident_bytes > 1 << 20);
    }

    #[test]
    fn the_difference_of_two_readings_keeps_what_is_no_counter() {
        let before = Figures { cpu: Duration::from_secs(1), threads: 3, ..Figures::default() };
        let after = Figures { cpu: Duration::from_secs(5), threads: 7, ..Figures::default() };
        let used = after - before;
        assert_eq!((used.cpu, used.threads), (Duration::from_secs(4), 7));
    }
}
