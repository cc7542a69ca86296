//! `dagctl completion`: what the shell offers at the tab key.
//!
//! The script asks the program itself, so it offers exactly the commands and options that this
//! version has, and need not be made anew with the next one.

use clap::{Command, CommandFactory as _, ValueEnum};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::print;

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// source <(dagctl completion bash)
    Bash,
    /// source <(dagctl completion zsh)
    Zsh,
}

const BASH: &str = r#"_dagctl() {
    local words
    words=$(dagctl complete -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _dagctl dagctl"#;

/// Prints the script for a shell.
pub fn script(shell: Shell) -> Result<(), Failure> {
    match shell {
        Shell::Bash => print(BASH),
        Shell::Zsh => print(&format!("autoload -Uz bashcompinit && bashcompinit\n{BASH}")),
    }
}

/// Prints what may follow these words.
pub fn complete(words: &[String]) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    print(&candidates(&command, words).join("\n"))
}

/// Values of an option that was just typed, else the commands and options that may come next.
fn candidates(root: &Command, words: &[String]) -> Vec<String> {
    let mut command = root;
    for word in words.iter().filter(|word| !word.starts_with('-')) {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    if let Some(values) = words.last().and_then(|word| values_of(command, word)) {
        return values;
    }
    let names = command.get_subcommands().filter(|known| !known.is_hide_set());
    let names = names.map(|known| known.get_name().to_owned());
    let options = command.get_arguments().filter(|known| !known.is_hide_set());
    let options = options.filter_map(|known| known.get_long()).map(|name| format!("--{name}"));
    names.chain(options).collect()
}

/// None: the word is no option that wants a value.
fn values_of(command: &Command, word: &str) -> Option<Vec<String>> {
    let is_it = |known: &&clap::Arg| {
        known.get_long().is_some_and(|name| word.strip_prefix("--") == Some(name))
            || known.get_short().is_some_and(|name| *word == format!("-{name}"))
    };
    let option = command.get_arguments().find(is_it)?;
    let needs_one = option.get_num_args().is_some_and(|range| range.min_values() > 0);
    needs_one.then(|| {
        let values = option.get_possible_values().into_iter();
        values.map(|value| value.get_name().to_owned()).collect()
    })
}

/// `dagctl help commands`: every command with its options, one a row. The documents are checked
/// against this page, and so are the words in which nodes name commands.
pub fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut rows = String::new();
    add_rows(&root, "dagctl", &mut rows);
    format!(
        "# Commands of dagctl\nWhat `dagctl help commands` prints. Options of every command: {}.\n\n\
         | command | options | what it does |\n| --- | --- | --- |\n{rows}",
        options(&root).join(" ")
    )
}

fn add_rows(command: &Command, path: &str, rows: &mut String) {
    for known in command.get_subcommands().filter(|known| !known.is_hide_set()) {
        let path = format!("{path} {}", known.get_name());
        if path.ends_with(" help") && path != "dagctl help" {
            continue;
        }
        let about = known.get_about().map(ToString::to_string).unwrap_or_default();
        let about = about.replace('|', "or");
        rows.push_str(&format!("| `{path}` | {} | {about} |\n", options(known).join(" ")));
        add_rows(known, &path, rows);
    }
}

/// The command's own options; those of every command stand above the table.
fn options(command: &Command) -> Vec<String> {
    let top = command.get_name() == "dagctl";
    let own = command.get_arguments().filter(|known| known.is_global_set() == top);
    let own = own.filter(|known| !known.is_hide_set() && known.get_id() != "help");
    let mut names: Vec<String> = own
        .flat_map(|known| {
            let aliases = known.get_all_aliases().unwrap_or_default();
            known.get_long().into_iter().chain(aliases).map(|name| format!("`--{name}`"))
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let mut command = Cli::command();
        command.build();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        candidates(&command, &words)
    }

    #[test]
    fn commands_options_and_values_are_offered_where_they_may_stand() {
        let has = |line: &str, word: &str| offered(line).iter().any(|known| known == word);
        assert!(has("", "status") && has("", "node") && !has("", "drain"));
        assert!(has("node", "drain") && !has("node", "status"));
        assert!(has("node drain", "--reason") && has("status", "--watch"));
        assert_eq!(offered("status -o"), ["table", "json"]);
        assert!(offered("node drain --reason").is_empty(), "any text");
        assert!(!has("", "complete"), "for the script alone");
    }

    #[test]
    fn the_page_of_commands_is_that_of_this_version() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");
        let written = std::fs::read_to_string(path).expect("docs/commands.md");
        let page = page();
        for (ours, theirs) in page.trim_end().lines().zip(written.trim_end().lines()) {
            assert_eq!(ours, theirs, "make it anew: dagctl help commands > docs/commands.md");
        }
        assert_eq!(page.trim_end().lines().count(), written.trim_end().lines().count());
    }
}
