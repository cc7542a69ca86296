//! What had to hold before something was done: as a table, and as the reason of a plan that would be
//! refused.

use dag_api::admin::v1::MoveCheck;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table;

/// A check of a move, a departure, a joining, or of a database that is formed anew.
#[derive(Debug, Default, Serialize)]
pub struct CheckLine {
    pub name: String,
    pub value: String,
    pub limit: String,
    pub passed: bool,
    pub skippable: bool,
    pub skipped: bool,
    /// What to do about it, where it is what refuses.
    pub advice: String,
}

/// A check as it is shown.
pub fn check(check: &MoveCheck) -> CheckLine {
    CheckLine {
        name: check.name.clone(),
        value: check.value.clone(),
        limit: check.limit.clone(),
        passed: check.passed,
        skippable: check.skippable,
        skipped: check.skipped,
        advice: check.advice.clone(),
    }
}

/// Checks as a table.
pub fn show_checks(checks: &[CheckLine]) -> String {
    let rows = checks.iter().map(|check| {
        let verdict = match (check.passed, check.skipped) {
            (true, _) => "holds",
            (false, true) => "SKIPPED",
            (false, false) => "FAILS",
        };
        [check.name.clone(), verdict.to_owned(), check.value.clone(), check.limit.clone()]
    });
    table(["CHECK", "", "FOUND", "NEEDED"], rows)
}

/// Why a plan would be refused, in the words of the refusal itself; none where nothing fails.
pub fn refused(checks: &[CheckLine], what: String) -> Option<Failure> {
    let failed = checks.iter().find(|check| !check.passed && !check.skipped)?;
    let CheckLine { name, value, limit, advice, .. } = failed;
    let mut why = format!("{name}: found {value}; needed {limit}");
    if !advice.is_empty() {
        why.push_str(&format!("; {advice}"));
    }
    Some(Failure::new(Exit::Refused, what).why(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, passed: bool, skipped: bool) -> CheckLine {
        let advice = if passed { "" } else { "`dagctl ops list` shows it" }.to_owned();
        let (name, value) = (name.to_owned(), "DB1".to_owned());
        CheckLine { name, value, limit: "none".into(), passed, skipped, advice, skippable: skipped }
    }

    #[test]
    fn a_plan_is_refused_by_the_first_check_that_fails_and_was_not_skipped() {
        let checks = [line("a", true, false), line("b", false, true), line("c", false, false)];
        let refused = refused(&checks, "n3 would not be removed.".into()).expect("c fails");
        assert_eq!(refused.exit, Exit::Refused);
        let text = refused.to_string();
        assert!(text.contains("c: found DB1; needed none; `dagctl ops list` shows it"), "{text}");
        assert!(super::refused(&checks[..2], "no".into()).is_none());
    }

    #[test]
    fn a_table_tells_what_holds_what_fails_and_what_was_skipped() {
        let shown = show_checks(&[line("a", true, false), line("b", false, true)]);
        assert!(shown.contains("holds") && shown.contains("SKIPPED"), "{shown}");
        assert!(show_checks(&[line("c", false, false)]).contains("FAILS"));
    }
}
