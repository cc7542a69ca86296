//! A node's own settings: who it is, where it listens, where its files are, what it may use.
//!
//! Two kinds of settings have two homes. What belongs to one node stands in its TOML file and is
//! read once at start: this module. What belongs to the DAG (sites, nodes, databases, policies,
//! timeouts) is replicated in the control group and changed by `dagctl`; it never stands here, so
//! that two nodes cannot disagree about it.
//!
//! Sizes are written `"64MiB"` (units B, KiB, MiB, GiB, TiB), spans `"150ms"` (ms, s, m, h).
//! Unknown keys are refused, and [`Settings::problems`] names everything that is wrong at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dag_types::NodeId;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::tls::files::TlsSettings;

/// Why a settings file cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, lacks a key, or has one that nobody knows.
    #[error("{path}: {detail}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        detail: String,
    },
    /// Its values do not fit.
    #[error("{path}:\n  {}", problems.join("\n  "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
}

/// The settings of one node. All since 0.1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The node's number in the DAG; 1 and above, unique, never given to another machine.
    pub node_id: u64,
    /// The node's name in the DAG, as `dag.toml` and `dagctl` write it.
    pub name: String,
    /// The folder that holds everything of this node. One process at a time owns it.
    pub root: PathBuf,
    /// Where the node listens.
    pub listen: Listen,
    /// What it may use.
    #[serde(default)]
    pub budget: Budget,
    /// How it reads its copies through.
    #[serde(default)]
    pub scrub: Scrubbing,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter like `info,replication=debug`.
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// Where the journal is written; a relative path starts at `root`. Left out: no journal.
    #[serde(default)]
    pub journal: Option<PathBuf>,
    /// The folder of executables that the DAG's hooks may name. Left out: this node runs none.
    #[serde(default)]
    pub hooks: Option<PathBuf>,
    /// Certificates; left out: no TLS.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// Allows addresses other than loopback without TLS. Every status shows it.
    #[serde(default)]
    pub insecure: bool,
    /// Threads of the runtime; 0 is one thread for everything, the fastest on small machines.
    #[serde(default)]
    pub worker_threads: usize,
    /// The longest time that one attempt of a request may take; a longer or missing deadline is
    /// shortened to it. 50 ms to 30 s.
    #[serde(default = "default_attempt")]
    pub attempt: Span,
}

/// Where a node listens. Each address is the one that the others use, so its port is never 0.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For the other nodes of the DAG.
    pub peers: SocketAddr,
    /// For mail front ends.
    pub clients: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

/// What a node may use.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// State that is written and not yet flushed, of all copies together. At least 8 MiB.
    pub memory: Size,
    /// The cache of blocks read from disk, shared by all copies. At least 8 MiB.
    pub cache: Size,
    /// Bytes of requests that are being worked on. At least the largest message.
    pub in_flight: Size,
    /// The same for one database; at most `in_flight`.
    pub in_flight_per_database: Size,
    /// Requests that are being worked on. At least 1.
    pub requests: u32,
    /// Writes are refused while the volume has less than this left.
    pub disk_reserve: Size,
    /// Below so much free space on their volume snapshots go, the oldest unprotected one first, and
    /// none are taken. Never less than `disk_reserve`.
    pub snapshot_floor: Size,
    /// The largest message that is accepted. 1 KiB to 64 MiB.
    pub message: Size,
}

/// How a node reads its copies through, so that what rotted is found before it is needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scrubbing {
    /// Bytes per second, of all copies together; 0 switches it off.
    pub rate: Size,
    /// From the end of a copy's pass to the beginning of its next one. At least 1 s.
    pub every: Span,
}

impl Default for Scrubbing {
    fn default() -> Self {
        Self { rate: Size::mib(8), every: Span(Duration::from_secs(7 * 24 * 3_600)) }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            memory: Size::mib(128),
            cache: Size::mib(64),
            in_flight: Size::mib(256),
            in_flight_per_database: Size::mib(128),
            requests: 4096,
            disk_reserve: Size::mib(256),
            snapshot_floor: Size::mib(1024),
            message: Size::mib(64),
        }
    }
}

fn default_log_level() -> String {
    "info".into()
}

fn default_attempt() -> Span {
    Span(Duration::from_secs(2))
}

impl Settings {
    /// Reads and checks a settings file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.into(), source })?;
        let settings: Self = toml::from_str(&text)
            .map_err(|e| Error::Parse { path: path.into(), detail: e.to_string() })?;
        let mut problems = settings.problems();
        problems.extend(crate::tls::Tls::open(&settings).err().unwrap_or_default());
        match problems {
            problems if problems.is_empty() => Ok(settings),
            problems => Err(Error::Invalid { path: path.into(), problems }),
        }
    }

    /// This node's number.
    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// Where the journal is written.
    pub fn journal_path(&self) -> Option<PathBuf> {
        self.journal.as_ref().map(|path| self.root.join(path))
    }

    /// Everything that is wrong with the values, each with what to do. Empty where all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, problem: &dyn Fn() -> String| {
            if !fine {
                problems.push(problem());
            }
        };
        check(self.node_id > 0, &|| "node_id: 0 is no node; number nodes from 1".into());
        check(is_name(&self.name), &|| {
            format!("name: {:?} needs 1 to 63 letters, digits, '-', '_' or '.'", self.name)
        });
        check(self.root.is_absolute(), &|| {
            format!("root: {} is relative; give the whole path", self.root.display())
        });
        let attempt = Duration::from_millis(50)..=Duration::from_secs(30);
        check(attempt.contains(&self.attempt.0), &|| {
            format!("attempt: {} is outside 50ms to 30s", self.attempt)
        });
        check(self.worker_threads <= 256, &|| "worker_threads: more than 256".into());
        self.listen.check(self.insecure || self.tls.is_some(), &mut check);
        self.budget.check(&mut check);
        check(self.scrub.every.0 >= Duration::from_secs(1), &|| {
            format!("scrub.every: {} is below 1s", self.scrub.every)
        });
        problems
    }
}

type Check<'a> = dyn FnMut(bool, &dyn Fn() -> String) + 'a;

impl Listen {
    fn check(&self, anywhere: bool, check: &mut Check<'_>) {
        let all = [("peers", self.peers), ("clients", self.clients), ("admin", self.admin)];
        for (name, address) in all {
            check(address.port() != 0, &|| format!("listen.{name}: the others need a fixed port"));
            // Without TLS anybody on the way could read mail and speak as a node.
            check(anywhere || address.ip().is_loopback(), &|| {
                format!(
                    "listen.{name}: {address} is not loopback and there is no TLS; give [tls] its \
                     files (docs/tls.md), bind 127.0.0.1, or say insecure = true"
                )
            });
        }
        for (i, (name, address)) in all.iter().enumerate() {
            for (other, same) in &all[i + 1..] {
                check(address != same, &|| {
                    format!("listen.{other}: {address} is the address of listen.{name}")
                });
            }
        }
    }
}

impl Budget {
    fn check(&self, check: &mut Check<'_>) {
        check(self.memory >= Size::mib(8), &|| {
            format!("budget.memory: {} is below 8MiB", self.memory)
        });
        check(self.cache >= Size::mib(8), &|| {
            format!("budget.cache: {} is below 8MiB", self.cache)
        });
        check(self.requests > 0, &|| "budget.requests: 0 lets nobody in".into());
        check((Size(1 << 10)..=Size::mib(64)).contains(&self.message), &|| {
            format!("budget.message: {} is outside 1KiB to 64MiB", self.message)
        });
        check(self.in_flight_per_database <= self.in_flight, &|| {
            "budget.in_flight_per_database: more than budget.in_flight".into()
        });
        check(self.message <= self.in_flight_per_database, &|| {
            "budget.in_flight_per_database: the largest message (budget.message) would never fit"
                .into()
        });
    }
}

/// Names of nodes, sites and databases: they stand in file names, metrics and commands.
fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=63).contains(&name.len()) && name.chars().all(legal)
}

/// A number of bytes, written `"64MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// So many times 1,048,576 bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_quantity(text, &SIZE_UNITS)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no size; write it like \"64MiB\""))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_quantity(self.0, &SIZE_UNITS, f)
    }
}

/// A span of time, written `"150ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SPAN_UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_quantity(text, &SPAN_UNITS)
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| format!("{text:?} is no span; write it like \"150ms\" or \"2s\""))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

/// Digits, then one of the units; the first unit that ends the text counts.
fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse::<u64>().ok()?.checked_mul(*factor)).flatten()
}

fn show_quantity(amount: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (unit, factor) = units
        .iter()
        .find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor))
        .unwrap_or(&units[units.len() - 1]);
    write!(f, "{}{unit}", amount / factor)
}

macro_rules! deserialize_from_text {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let text = String::deserialize(source)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
deserialize_from_text!(Size);
deserialize_from_text!(Span);

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
