//! The documents lead somewhere: links between them, paths and tests in backticks, and a row for
//! each reason of an error.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Every dead link, missing file and missing test, in words.
pub fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let functions = functions(root)?;
    for document in documents(root)? {
        let text = std::fs::read_to_string(&document)
            .with_context(|| format!("read {}", document.display()))?;
        let folder = document.parent().unwrap_or(root);
        let name = document.strip_prefix(root).unwrap_or(&document).display().to_string();
        for link in links(&text) {
            if !folder.join(link).exists() {
                problems.push(format!("{name}: the link to {link} leads nowhere"));
            }
        }
        for path in named_paths(&text) {
            if !root.join(path).exists() {
                problems.push(format!("{name}: there is no {path}"));
            }
        }
        for test in named_tests(&text) {
            if !functions.contains(test) {
                problems.push(format!("{name}: there is no test {test}"));
            }
        }
    }
    problems.extend(unexplained_reasons(root)?);
    Ok(problems)
}

/// Whoever meets an error at night looks up its reason: each one has a row.
fn unexplained_reasons(root: &Path) -> anyhow::Result<Vec<String>> {
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))
    };
    let (reasons, page) = (read("crates/dag-api/src/reason.rs")?, read("docs/errors.md")?);
    let names = reasons.lines().filter_map(name_of_reason);
    let missing = names.filter(|name| !page.contains(&format!("\n| `{name}` |")));
    Ok(missing.map(|name| format!("docs/errors.md: no row for {name}")).collect())
}

/// The name on the wire in a line like `NoQuorum = "NO_QUORUM", Unavailable, Elsewhere;`.
fn name_of_reason(line: &str) -> Option<&str> {
    let (_, rest) = line.trim().strip_suffix(';')?.split_once(" = \"")?;
    let (name, code) = rest.split_once("\", ")?;
    let known = name.chars().all(|c| c == '_' || c.is_ascii_uppercase());
    (known && !code.is_empty()).then_some(name)
}

/// The Markdown files at the top and below `docs/`.
fn documents(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    collect(&root.join("docs"), "md", &mut found)?;
    found.sort();
    Ok(found)
}

/// The files below a folder with this extension.
pub fn collect(folder: &Path, wanted: &str, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, wanted, found)?;
        } else if path.extension().is_some_and(|extension| extension == wanted) {
            found.push(path);
        }
    }
    Ok(())
}

/// The names of all functions of the repository, tests among them.
fn functions(root: &Path) -> anyhow::Result<HashSet<String>> {
    let mut sources = Vec::new();
    for top in ["crates", "chaos-tests"] {
        collect(&root.join(top), "rs", &mut sources)?;
    }
    let mut names = HashSet::new();
    for source in sources {
        let text = std::fs::read_to_string(&source)
            .with_context(|| format!("read {}", source.display()))?;
        for after in text.split("fn ").skip(1) {
            names.insert(after.chars().take_while(|&c| is_of_name(c)).collect());
        }
    }
    Ok(names)
}

/// Targets of `[text](target)` inside the repository, without their anchors.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

/// Words in backticks that can only be files of this repository.
fn named_paths(text: &str) -> Vec<&str> {
    const TOPS: [&str; 5] = ["crates/", "chaos-tests/", "proto/", "docs/", "cluster-configs/"];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| TOPS.iter().any(|top| word.starts_with(top)))
        .filter(|word| !word.contains([' ', '*', '<', '{', '\n']))
        .collect()
}

/// Words in backticks that can only be tests: their names are sentences.
fn named_tests(text: &str) -> Vec<&str> {
    let sentence = |word: &&str| word.matches('_').count() >= 4 && word.chars().all(is_of_name);
    text.split('`').skip(1).step_by(2).filter(sentence).collect()
}

fn is_of_name(character: char) -> bool {
    character == '_' || character.is_ascii_lowercase() || character.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_inside_the_repository_are_followed() {
        let text = "[a](b.md#c) [d](https://e) [f](#g)";
        assert_eq!(links(text), ["b.md"]);
    }

    #[test]
    fn a_path_is_a_word_in_backticks_below_a_known_folder() {
        let text = "see `crates/mailbox/src/apply.rs` and `cargo test` and `crates/*/src`";
        assert_eq!(named_paths(text), ["crates/mailbox/src/apply.rs"]);
    }

    #[test]
    fn a_test_is_a_sentence_in_backticks() {
        let text = "`a_b_c_d_e` and `the_name_of_things` and `A_b_c_d_e` and `x/a_b_c_d_e`";
        assert_eq!(named_tests(text), ["a_b_c_d_e"]);
    }

    #[test]
    fn a_reason_is_read_from_its_line() {
        let line = "    NoQuorum = \"NO_QUORUM\", Unavailable, Elsewhere;";
        assert_eq!(name_of_reason(line), Some("NO_QUORUM"));
        assert_eq!(name_of_reason("pub const DOMAIN: &str = \"holdfast\";"), None);
    }
}
