//! The exit codes, which scripts may rely on.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// It was refused, or it failed; nothing more will happen.
    Failed = 1,
    /// The command line makes no sense. (clap uses the same number.)
    Usage = 2,
    /// The question was answered, and the answer is that something is wrong.
    Unhealthy = 3,
    /// A check refused it; the message names check, value and limit.
    Refused = 4,
    /// Nobody can say yet whether it was carried out.
    Unknown = 5,
    /// No node answers.
    Unreachable = 6,
    /// Only planned: it would change something.
    WouldChange = 10,
}

impl Exit {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Unhealthy,
        Self::Refused,
        Self::Unknown,
        Self::Unreachable,
        Self::WouldChange,
    ];

    fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; `status` and `db verify`: all is well",
            Self::Failed => "refused or failed; the message says why and what to do next",
            Self::Usage => "the command line makes no sense",
            Self::Unhealthy => "answered, and something is wrong: `status`, `db verify`, `lint`",
            Self::Refused => "a check refused it; the message names check, value and limit",
            Self::WouldChange => "`--plan`: it would change something, and nothing was changed",
            Self::Unknown => "timed out; it may still be carried out: repeat the same command",
            Self::Unreachable => "no node answers, or no local cluster runs",
        }
    }
}

/// What `dagctl help exit-codes` shows.
pub fn page() -> String {
    let mut page = String::from("Exit codes of dagctl. 7 to 9 are never used.\n\n");
    for exit in Exit::ALL {
        page.push_str(&format!("  {}  {}\n", exit as u8, exit.meaning()));
    }
    page.push_str(
        "\nWith -o json an error is one JSON object on standard error with the fields error, why, \
         next, reason and exit_code; `reason` is the stable name that the node gave, or null.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_stands_on_the_page() {
        let page = page();
        for exit in Exit::ALL {
            assert!(page.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
    }
}
