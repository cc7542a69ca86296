//! What the log says has one name each, and never shows mail: the calls of `tracing`, read as text.
//!
//! Whoever searches the logs of a cluster for `db=16` must find all there is; and a log goes to
//! places where mail must not go. `docs/journal.md` lists the names.

use std::path::Path;

use anyhow::Context;

use crate::docs::collect;

/// Names that were used beside the house's own, and what to say instead.
const OTHER_NAMES: [(&str, &str); 12] = [
    ("database", "db"),
    ("database_id", "db"),
    ("replica_id", "replica"),
    ("operation", "op"),
    ("request", "request_id"),
    ("at", "term and index"),
    ("log_id", "term and index"),
    ("node", "peer, for another node; the node itself stands in every line"),
    ("node_id", "peer, for another node; the node itself stands in every line"),
    ("from", "peer"),
    ("to", "peer or replica"),
    ("target", "peer or replica"),
];

/// Fields that would show mail, or whose it is. At `debug` an operator has asked for it.
const MAIL: [&str; 11] = [
    "address",
    "email",
    "recipient",
    "recipients",
    "sender",
    "subject",
    "body",
    "content",
    "payload",
    "command",
    "mailbox",
];

const LEVELS: [(&str, bool); 5] =
    [("trace", false), ("debug", false), ("info", true), ("warn", true), ("error", true)];

/// Every field with a wrong name, in words.
pub fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let source = entry?.path().join("src");
        // The checks themselves spell out what they look for.
        if source.is_dir() && !source.ends_with("xtask/src") {
            collect(&source, "rs", &mut sources)?;
        }
    }
    sources.sort();
    let mut problems = Vec::new();
    for source in sources {
        let text = std::fs::read_to_string(&source)
            .with_context(|| format!("read {}", source.display()))?;
        let name = source.strip_prefix(root).unwrap_or(&source).display().to_string();
        problems.extend(problems_of(&text).into_iter().map(|what| format!("{name}: {what}")));
    }
    Ok(problems)
}

fn problems_of(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (level, shipped) in LEVELS {
        for call in text.split(&format!("tracing::{level}!(")).skip(1) {
            for field in arguments(call).into_iter().filter_map(field) {
                if let Some((_, better)) = OTHER_NAMES.iter().find(|(name, _)| *name == field) {
                    problems.push(format!("a line at {level} says `{field}`: {better}"));
                }
                if shipped && MAIL.contains(&field) {
                    problems.push(format!("a line at {level} may show mail: `{field}`"));
                }
            }
        }
    }
    problems
}

/// The arguments of a call whose text begins behind its parenthesis.
fn arguments(call: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut begin) = (0_u32, false, false, 0);
    let mut found = Vec::new();
    for (at, character) in call.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                found.push(call[begin..at].trim());
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(call[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// The name of a field; none for the words of the line.
fn field(argument: &str) -> Option<&str> {
    let name = argument.split('=').next()?.trim().trim_start_matches(['%', '?']);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_name_for_a_thing_is_found_in_any_form() {
        for call in ["database = %id, \"x\"", "%node, \"x\"", "a = f(b, c), at = ?x, \"y, z\""] {
            let text = format!("tracing::debug!({call});");
            assert_eq!(problems_of(&text).len(), 1, "{call}");
        }
    }

    #[test]
    fn the_house_s_names_and_the_words_of_a_line_are_no_problem() {
        let text = "tracing::warn!(%db, peer = %node, op, \"to, from: {}\", address);";
        assert_eq!(problems_of(text), ["a line at warn may show mail: `address`"]);
        let text =
            "tracing::info!(db = %database, term = at.term, \"the node, (at) \\\"once\\\"\")";
        assert_eq!(problems_of(text), Vec::<String>::new());
    }

    #[test]
    fn mail_is_shown_where_somebody_asked_for_it() {
        assert_eq!(problems_of("tracing::debug!(%address, \"x\")"), Vec::<String>::new());
        assert_eq!(problems_of("tracing::info!(%address, \"x\")").len(), 1);
    }
}
