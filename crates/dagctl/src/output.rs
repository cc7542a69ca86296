//! Two forms of every answer: a table for people, JSON for programs.
//!
//! Data goes to standard output, talk and progress to standard error. In JSON every field is always
//! present; what is not known is null.

use std::io::IsTerminal as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::failure::Failure;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
    /// For a command that is part of another: nothing.
    #[value(skip)]
    Quiet,
}

impl Form {
    /// Prints an answer: the value as JSON, or what `table` makes of it.
    pub fn print<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = match self {
            Self::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
            Self::Table => table(value),
            Self::Quiet => return Ok(()),
        };
        print(text.trim_end())
    }

    /// Says something to a person; programs do not want to hear it.
    pub fn say(self, text: impl AsRef<str>) {
        if self == Self::Table {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Whether progress bars make sense.
    pub fn is_lively(self) -> bool {
        self == Self::Table && std::io::stderr().is_terminal()
    }
}

/// Prints data. A reader that closed its end has seen enough.
pub fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A table without lines, as wide as its contents.
pub fn table<const N: usize>(
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A span of milliseconds for people.
pub fn span(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{:.1} s", millis as f64 / 1_000.0),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

/// Sixteen bytes or so in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(span(15), "15 ms");
        assert_eq!(span(1_500), "1.5 s");
        assert_eq!(span(600_000), "10 min");
        assert_eq!(hex(&[0, 255]), "00ff");
    }

    #[test]
    fn a_table_lines_its_columns_up() {
        let text =
            table(["A", "LONG"], [["x".to_owned(), "1".to_owned()], ["yyyy".into(), "2".into()]]);
        assert_eq!(text, "A     LONG\nx     1\nyyyy  2");
    }
}
