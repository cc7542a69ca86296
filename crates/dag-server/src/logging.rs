//! The log: one line per event on standard error, RFC 3339 in UTC, the facts as fields.
//!
//! Fields have the same names everywhere: `node db replica lineage term index op request_id peer`.
//! Nothing of a message's content and no address is logged at `info` or above: a log is copied to
//! places where mail must not go.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::UtcTime;

/// Directives that stand before the settings' own: openraft tells of each step at `info`, and of
/// each attempt to reach a node that is down at `warn`.
const QUIET: &str = "openraft=error";

/// Installs the log. `filter` is a level, or directives such as `info,replication=debug`;
/// `openraft=info` among them shows Raft's own steps.
pub fn install(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| format!("log_level: {filter:?} is no level and no filter: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(UtcTime::rfc_3339())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| error.to_string())
}
