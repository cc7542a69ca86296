//! The log: one line per event on standard error, RFC 3339 in UTC, the facts as fields.
//!
//! Fields have the same names everywhere: `node db replica lineage term index op request_id peer`.
//! `node` is who writes: it stands in every line, so that the logs of several nodes can be read as
//! one, and no event names it; another node is a `peer`. Nothing of a message's content and no
//! address is logged at `info` or above: a log is copied to places where mail must not go.

use std::fmt;

use dag_types::NodeId;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::UtcTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Directives that stand before the settings' own: openraft tells of each step at `info`, and of
/// each attempt to reach a node that is down at `warn`.
const QUIET: &str = "openraft=error";

/// Installs the log of a node. `filter` is a level, or directives such as `info,replication=debug`;
/// `openraft=info` among them shows Raft's own steps.
pub fn install(filter: &str, node: NodeId) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| format!("log_level: {filter:?} is no level and no filter: {error}"))?;
    let line = tracing_subscriber::fmt::format().with_timer(UtcTime::rfc_3339()).with_ansi(false);
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .event_format(OfNode { node, line })
        .with_env_filter(filter)
        .try_init()
        .map_err(|error| error.to_string())
}

/// A line of the usual kind with the node behind it.
struct OfNode<T> {
    node: NodeId,
    line: Format<Full, T>,
}

impl<S, N, T> FormatEvent<S, N> for OfNode<T>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    Format<Full, T>: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        // One event, one line, whatever somebody else's error says.
        let line = line.trim_end().replace('\n', " ");
        writeln!(writer, "{line} node={}", self.node)
    }
}
