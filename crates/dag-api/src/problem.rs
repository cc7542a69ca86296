//! A typed error, and how it travels: as a status with `google.rpc` details, or as a `Failure`.

use std::collections::HashMap;
use std::time::Duration;

use dag_types::{ActivationId, DatabaseId, Lineage, NodeId};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::mailbox::v1::Failure;
use crate::reason::{DOMAIN, Reason};

/// An error with its reason, its words for people, and the facts that a program may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{reason}]")]
pub struct Problem {
    /// What a program decides by.
    pub reason: Reason,
    /// What, why, and what to do next.
    pub message: String,
    /// How long to wait before a repetition.
    pub retry_after: Option<Duration>,
    /// What belongs to the reason. On the heap, because errors are returned more often than read.
    pub facts: Box<Facts>,
}

/// What a [`Problem`] may carry; each is present only where the reason calls for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Which database it is about.
    pub database: Option<DatabaseId>,
    /// Where the database is active.
    pub active_node: Option<NodeId>,
    /// An URI of that node's listener for front ends.
    pub active_endpoint: Option<String>,
    /// The newest lineage that the refusing node knows.
    pub lineage: Option<Lineage>,
    /// What was measured or asked for.
    pub value: Option<u64>,
    /// What it may be at most.
    pub limit: Option<u64>,
    /// Which check failed, or which field.
    pub check: Option<String>,
    /// The present value of what the caller took for something else.
    pub current: Option<String>,
    /// The command that helps.
    pub next: Option<String>,
}

impl Problem {
    /// A problem without facts.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None, facts: Box::default() }
    }

    /// Names the database.
    pub fn database(mut self, database: DatabaseId) -> Self {
        self.facts.database = Some(database);
        self
    }

    /// Says where the database is active.
    pub fn active(mut self, node: NodeId, endpoint: impl Into<String>) -> Self {
        self.facts.active_node = Some(node);
        self.facts.active_endpoint = Some(endpoint.into());
        self
    }

    /// Names the newest lineage known.
    pub fn lineage(mut self, lineage: Lineage) -> Self {
        self.facts.lineage = Some(lineage);
        self
    }

    /// Names what was asked for and what is allowed.
    pub fn limit(mut self, value: u64, limit: u64) -> Self {
        self.facts.value = Some(value);
        self.facts.limit = Some(limit);
        self
    }

    /// Names the check or the field.
    pub fn check(mut self, check: impl Into<String>) -> Self {
        self.facts.check = Some(check.into());
        self
    }

    /// Names the present value.
    pub fn current(mut self, current: impl ToString) -> Self {
        self.facts.current = Some(current.to_string());
        self
    }

    /// Names the command that helps.
    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.facts.next = Some(command.into());
        self
    }

    /// Says how long to wait before a repetition.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether a repetition with the same id can succeed.
    pub fn is_retryable(&self) -> bool {
        self.reason.is_retryable()
    }

    /// The status of a call.
    pub fn to_status(&self) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason.as_str(), DOMAIN, self.facts.to_metadata());
        if let Some(wait) = self.retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(self.reason.code(), self.message.clone(), details)
    }

    /// Reads a status. `None` where it is not ours or has a reason that this release does not know.
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        if info.domain != DOMAIN {
            return None;
        }
        Some(Self {
            reason: Reason::from_name(&info.reason)?,
            message: status.message().to_owned(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            facts: Box::new(Facts::from_metadata(&info.metadata)),
        })
    }

    /// What a session says of one message.
    pub fn to_failure(&self) -> Failure {
        let wait = self.retry_after.map_or(0, |wait| wait.as_millis() as u64);
        Failure {
            code: self.reason.code() as u32,
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
            metadata: self.facts.to_metadata(),
            retry_after_ms: wait,
        }
    }

    /// Reads what a session said of one message. Where the reason is one that this release does not
    /// know, the status that it would have been.
    pub fn from_failure(failure: &Failure) -> Result<Self, Status> {
        let unknown = || Status::new(Code::from_i32(failure.code as i32), failure.message.clone());
        let wait = (failure.retry_after_ms > 0).then_some(failure.retry_after_ms);
        Ok(Self {
            reason: Reason::from_name(&failure.reason).ok_or_else(unknown)?,
            message: failure.message.clone(),
            retry_after: wait.map(Duration::from_millis),
            facts: Box::new(Facts::from_metadata(&failure.metadata)),
        })
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.to_status()
    }
}

impl Facts {
    fn to_metadata(&self) -> HashMap<String, String> {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let pairs = [
            ("database_id", number(self.database.map(|id| id.0))),
            ("active_node", number(self.active_node.map(|id| id.0))),
            ("active_endpoint", self.active_endpoint.clone()),
            ("lineage", self.lineage.map(|lineage| lineage.to_string())),
            ("value", number(self.value)),
            ("limit", number(self.limit)),
            ("check", self.check.clone()),
            ("current", self.current.clone()),
            ("next", self.next.clone()),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// A fact that cannot be read is left out: it helps, and nothing depends on it.
    fn from_metadata(metadata: &HashMap<String, String>) -> Self {
        let text = |key: &str| metadata.get(key).cloned();
        let number = |key: &str| metadata.get(key).and_then(|text| text.parse().ok());
        Self {
            database: number("database_id").map(DatabaseId),
            active_node: number("active_node").map(NodeId),
            active_endpoint: text("active_endpoint"),
            lineage: metadata.get("lineage").and_then(|text| parse_lineage(text)),
            value: number("value"),
            limit: number("limit"),
            check: text("check"),
            current: text("current"),
            next: text("next"),
        }
    }
}

/// Reads what `Lineage` shows of itself: epoch, hyphen, activation id.
fn parse_lineage(text: &str) -> Option<Lineage> {
    let (epoch, activation) = text.split_once('-')?;
    let activation: ActivationId = activation.parse().ok()?;
    Some(Lineage { epoch: epoch.parse().ok()?, activation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(reason: Reason) -> Problem {
        Problem::new(reason, format!("words about {reason}"))
            .database(DatabaseId(17))
            .active(NodeId(2), "http://127.2.0.2:7400")
            .lineage(Lineage { epoch: 3, activation: ActivationId([7; 16]) })
            .limit(1_001, 1_000)
            .check("recipients")
            .current(42)
            .next("dagctl dag create --from dag.toml")
            .retry_after(Duration::from_millis(250))
    }

    #[test]
    fn every_reason_travels_as_a_status_with_all_its_facts() {
        for &reason in Reason::ALL {
            for problem in [full(reason), Problem::new(reason, "bare")] {
                let status = problem.to_status();
                assert_eq!(status.code(), reason.code());
                assert_eq!(Problem::from_status(&status), Some(problem));
            }
        }
    }

    #[test]
    fn every_reason_travels_inside_a_session_with_all_its_facts() {
        for &reason in Reason::ALL {
            for problem in [full(reason), Problem::new(reason, "bare")] {
                let failure = problem.to_failure();
                assert_eq!(failure.code, reason.code() as u32);
                assert_eq!(Problem::from_failure(&failure).unwrap(), problem);
            }
        }
    }

    #[test]
    fn a_status_of_somebody_else_is_no_problem_of_ours() {
        assert_eq!(Problem::from_status(&Status::unavailable("connection refused")), None);
        let mut details = ErrorDetails::new();
        details.set_error_info("OVERLOADED", "elsewhere.example", HashMap::new());
        let foreign = Status::with_error_details(Code::Unavailable, "x", details);
        assert_eq!(Problem::from_status(&foreign), None);
    }

    #[test]
    fn a_reason_of_a_newer_release_keeps_its_code() {
        let failure = Failure { code: 14, reason: "NEWER".into(), ..Failure::default() };
        assert_eq!(Problem::from_failure(&failure).unwrap_err().code(), Code::Unavailable);
    }

    #[test]
    fn a_fact_that_cannot_be_read_is_left_out() {
        let mut failure = full(Reason::NotActiveCopy).to_failure();
        failure.metadata.insert("active_node".into(), "two".into());
        failure.metadata.insert("lineage".into(), "3-xyz".into());
        let facts = Problem::from_failure(&failure).unwrap().facts;
        assert_eq!((facts.active_node, facts.lineage), (None, None));
        assert_eq!(facts.active_endpoint.as_deref(), Some("http://127.2.0.2:7400"));
    }
}
