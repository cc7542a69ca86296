//! Every command that a text names exists: a person at night types what the error said.
//!
//! The page `docs/commands.md` is what the command line says of itself, and a test of `dagctl` holds
//! the two together; here all other texts are held to the page: documents, and strings and comments
//! of the sources, wherever `dagctl` stands right behind a quotation mark or a backtick, or begins a
//! line of a document's code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;

const PAGE: &str = "docs/commands.md";

/// Commands with their options, as the page has them.
struct Known {
    commands: BTreeMap<String, BTreeSet<String>>,
    everywhere: BTreeSet<String>,
}

/// Every command that is named and does not exist, in words.
pub fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let known = Known::of(&page);
    let mut problems = Vec::new();
    for path in texts(root)? {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let document = path.extension().is_some_and(|extension| extension == "md");
        for line in named(&text, document) {
            if let Some(problem) = known.problem(&line) {
                problems.push(format!("{name}: `dagctl {line}`: {problem}"));
            }
        }
    }
    Ok(problems)
}

fn texts(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    for top in ["crates", "chaos-tests", "docs", "proto", "tools", "cluster-configs"] {
        collect(&root.join(top), &mut found)?;
    }
    // The checks' own examples are no advice to anybody.
    found.retain(|path| !path.ends_with("xtask/src/commands.rs") && !path.ends_with(PAGE));
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    const TEXTS: [&str; 7] = ["rs", "md", "proto", "toml", "sh", "py", "go"];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| TEXTS.iter().any(|t| extension == *t)) {
            found.push(path);
        }
    }
    Ok(())
}

/// What stands behind each `dagctl` that is meant to be typed, up to where the words end.
fn named(text: &str, document: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("dagctl ") {
        let before = &text[..at];
        let typed = before.ends_with(['`', '"'])
            || (document && (before.ends_with('\n') || before.ends_with("$ ")));
        if typed {
            let end = if document { &['`', '\n'][..] } else { &['`', '"'][..] };
            let rest = &text[at + "dagctl ".len()..];
            let line = rest.split(end).next().unwrap_or_default();
            // A string that is broken over lines goes on behind its backslash.
            let line = line.replace("\\\n", " ").replace("\n///", " ").replace("\n//!", " ");
            let line = line.split(['\n', ';', '(', '|', '#']).next().unwrap_or_default();
            found.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

impl Known {
    fn of(page: &str) -> Self {
        let quoted = |text: &str, start: &str| -> BTreeSet<String> {
            let words = text.split('`').skip(1).step_by(2);
            words.filter(|word| word.starts_with(start)).map(str::to_owned).collect()
        };
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `dagctl ")?.split(" | ");
            let command = cells.next()?.trim_end_matches('`').to_owned();
            Some((command, quoted(cells.next()?, "--")))
        };
        let commands = page.lines().filter_map(row).collect();
        let head = page.split("\n| ").next().unwrap_or_default();
        let mut everywhere = quoted(head, "--");
        everywhere.extend(["--help".to_owned(), "--version".to_owned()]);
        Self { commands, everywhere }
    }

    /// What is wrong with a command line; none: it may be typed.
    fn problem(&self, line: &str) -> Option<String> {
        let mut command = String::new();
        let mut words = line.split(' ').peekable();
        while let Some(word) = words.peek().filter(|word| is_word(word)) {
            let longer =
                if command.is_empty() { (*word).to_owned() } else { format!("{command} {word}") };
            if self.commands.contains_key(&longer) {
                command = longer;
                words.next();
            } else if self.has_subcommands(&command) {
                return Some(format!("there is no command {longer}"));
            } else {
                break;
            }
        }
        let own = self.commands.get(&command);
        let missing = words.filter(|word| word.starts_with("--") && word.len() > 2).find(|word| {
            let name = word.split(['=', ',', '.', ')']).next().unwrap_or(word);
            !self.everywhere.contains(name) && !own.is_some_and(|own| own.contains(name))
        });
        missing.map(|option| format!("there is no option {option}"))
    }

    fn has_subcommands(&self, command: &str) -> bool {
        let prefix = format!("{command} ");
        command.is_empty() || self.commands.keys().any(|known| known.starts_with(&prefix))
    }
}

/// Placeholders are not words: `DB1`, `{name}`, `<node>`.
fn is_word(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('-')
        && word.chars().all(|c| c == '-' || c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "Options of every command: `--output`.\n\n| command | options | what |\n\
                        | `dagctl status` | `--watch` | a |\n| `dagctl node` |  | b |\n\
                        | `dagctl node drain` | `--reason` | c |\n";

    #[test]
    fn a_command_or_option_that_does_not_exist_is_named() {
        let known = Known::of(PAGE);
        for line in ["status", "status --watch 5", "node drain n1 --reason x", "node", "NAME x"] {
            assert_eq!(known.problem(line), None, "{line}");
        }
        for line in ["site start", "node stop n1", "status --wait", "node drain --watch"] {
            assert!(known.problem(line).is_some(), "{line}");
        }
    }

    #[test]
    fn what_is_meant_to_be_typed_stands_behind_a_quotation_mark_or_begins_a_line_of_a_document() {
        let source = "\"dagctl status\" dagctl was built; `dagctl node drain {n}`";
        assert_eq!(named(source, false), ["status", "node drain {n}"]);
        assert_eq!(named("\ndagctl status -w   # look\ndagctl", true), ["status -w"]);
    }
}
