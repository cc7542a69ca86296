//! What `dagctl` says when it could not do it: what, why, and what to do next.

use std::fmt;

use dag_api::{Problem, Reason};
use serde::Serialize;
use tonic::Status;

use crate::exit::Exit;

/// An error for people, and its exit code for scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The process ends with it.
    pub exit: Exit,
    /// What could not be done: verb and object.
    pub what: String,
    /// Why, one reason a line.
    pub why: Vec<String>,
    /// The command that helps.
    pub next: Option<String>,
    /// The stable name of the reason, where a node gave one.
    pub reason: Option<&'static str>,
}

/// How a failure looks with `-o json`.
#[derive(Serialize)]
struct Shown<'a> {
    error: &'a str,
    why: &'a [String],
    next: Option<&'a str>,
    reason: Option<&'a str>,
    exit_code: u8,
}

impl Failure {
    /// A failure without reasons yet.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), next: None, reason: None }
    }

    /// Adds a reason.
    pub fn why(mut self, why: impl ToString) -> Self {
        self.why.push(why.to_string());
        self
    }

    /// Names the command that helps.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// What a node answered, in its own words.
    pub fn of_status(what: impl Into<String>, status: &Status) -> Self {
        match Problem::from_status(status) {
            Some(problem) => Self::of_problem(what, &problem),
            None => Self::new(exit_of_code(status.code()), what).why(plain(status)),
        }
    }

    /// What a node answered, with its reason.
    pub fn of_problem(what: impl Into<String>, problem: &Problem) -> Self {
        let exit = match problem.reason {
            Reason::OutcomeUnknown | Reason::DeadlineExceeded => Exit::Unknown,
            Reason::CheckFailed => Exit::Refused,
            _ => Exit::Failed,
        };
        let mut failure = Self::new(exit, what).why(&problem.message);
        failure.next = problem.facts.next.clone();
        failure.reason = Some(problem.reason.as_str());
        failure
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        let shown = Shown {
            error: &self.what,
            why: &self.why,
            next: self.next.as_deref(),
            reason: self.reason,
            exit_code: self.exit as u8,
        };
        serde_json::to_string(&shown).expect("texts and a number can be written")
    }
}

/// A status that no node of ours made: the connection's.
fn plain(status: &Status) -> String {
    match (status.code(), status.message()) {
        (code, "") => format!("{code}"),
        (_, message) => message.to_owned(),
    }
}

fn exit_of_code(code: tonic::Code) -> Exit {
    match code {
        tonic::Code::Unavailable => Exit::Unreachable,
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Exit::Unknown,
        _ => Exit::Failed,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for why in &self.why {
            write!(f, "\n  {}", why.replace('\n', "\n  "))?;
        }
        match &self.next {
            Some(next) => write!(f, "\nNext: {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Errors of libraries carry their chain of reasons; those of our own pass through.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => {
                let mut chain = error.chain().map(ToString::to_string);
                let what = chain.next().unwrap_or_default();
                Self { why: chain.collect(), ..Self::new(Exit::Failed, what) }
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::new(Exit::Failed, "Cannot create database DB1.")
            .why("no leader")
            .next("dagctl status");
        let expected = "Cannot create database DB1.\n  no leader\nNext: dagctl status";
        assert_eq!(failure.to_string(), expected);
    }

    #[test]
    fn a_failure_as_json_has_every_field_even_without_a_value() {
        let value: serde_json::Value =
            serde_json::from_str(&Failure::new(Exit::Usage, "x").json()).expect("JSON");
        let names: Vec<&String> = value.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["error", "exit_code", "next", "reason", "why"]);
        assert_eq!(value["exit_code"], 2);
    }

    #[test]
    fn a_nodes_reason_decides_the_exit_code() {
        for (reason, exit) in [
            (Reason::DatabaseExists, Exit::Failed),
            (Reason::OutcomeUnknown, Exit::Unknown),
            (Reason::DeadlineExceeded, Exit::Unknown),
        ] {
            let status = Problem::new(reason, "words").to_status();
            let failure = Failure::of_status("x", &status);
            assert_eq!((failure.exit, failure.reason), (exit, Some(reason.as_str())));
        }
        let refused = Failure::of_status("x", &Status::unavailable("connection refused"));
        assert_eq!((refused.exit, refused.reason), (Exit::Unreachable, None));
    }

    #[test]
    fn a_failure_inside_a_library_error_comes_out_whole() {
        let failure = Failure::new(Exit::Unhealthy, "x").next("y");
        assert_eq!(Failure::from(anyhow::Error::from(failure.clone())), failure);
    }
}
