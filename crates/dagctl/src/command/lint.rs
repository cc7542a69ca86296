//! `dagctl lint`: what is wrong with layout and settings while everything still works.

use dag_api::admin::v1::{LintDagRequest, LintFinding};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{Names, suggestion};
use crate::output::{Form, span};

/// What is judged as a choice.
#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// A code that is a choice here: its findings are shown, and do not count
    #[arg(long, value_name = "CODE")]
    allow: Vec<String>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Shown {
    answered_by: String,
    age_ms: Option<u64>,
    findings: Vec<FindingLine>,
}

/// One finding.
#[derive(Debug, Serialize)]
struct FindingLine {
    code: String,
    subject: String,
    found: String,
    why: String,
    advice: String,
    allowed: bool,
}

/// Shows the findings; ends with code 3 where one is not allowed.
pub async fn run(args: &LintArgs, admin: &Admin, form: Form) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let call = |mut client: Client| async move { client.lint_dag(LintDagRequest {}).await };
    let answer = admin.ask("Cannot judge the DAG.", call).await?;
    for allowed in &args.allow {
        check_code(allowed, &answer.codes)?;
    }
    let shown = Shown {
        answered_by: names.name(answer.node_id),
        age_ms: answer.age.as_ref().map(|age| age.age_ms),
        findings: answer.findings.into_iter().map(|found| line(found, &args.allow)).collect(),
    };
    form.print(&shown, show)?;
    let count = shown.findings.iter().filter(|finding| !finding.allowed).count();
    match count {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Unhealthy, format!("{count} findings are not allowed."))),
    }
}

/// A code that does not exist would allow nothing, silently.
fn check_code(allowed: &str, known: &[String]) -> Result<(), Failure> {
    if known.iter().any(|known| known.eq_ignore_ascii_case(allowed)) {
        return Ok(());
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let failure = Failure::new(Exit::Usage, format!("There is no code `{allowed}`."));
    Err(failure.why(suggestion(allowed, &known, "codes")))
}

fn line(found: LintFinding, allow: &[String]) -> FindingLine {
    let LintFinding { code, subject, found, why, advice, .. } = found;
    let allowed = allow.iter().any(|allowed| allowed.eq_ignore_ascii_case(&code));
    FindingLine { code, subject, found, why, advice, allowed }
}

fn show(shown: &Shown) -> String {
    let age = shown.age_ms.map_or("unknown".to_owned(), span);
    let mut text = format!("As {} knows, {age} old: ", shown.answered_by);
    text.push_str(&match shown.findings.len() {
        0 => "nothing was found".into(),
        count => format!("{count} findings"),
    });
    for FindingLine { code, subject, found, why, advice, allowed } in &shown.findings {
        let mark = if *allowed { " (allowed)" } else { "" };
        text.push_str(&format!("\n\n{code}{mark}  {subject}: {found}\n  why: {why}"));
        text.push_str(&format!("\n  do:  {advice}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_does_not_exist_is_answered_with_those_near_to_it() {
        let known = ["EVEN_VOTERS".to_owned(), "ONE_COPY".to_owned()];
        assert_eq!(check_code("one_copy", &known), Ok(()));
        let failure = check_code("EVENVOTERS", &known).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("perhaps EVEN_VOTERS"), "{failure}");
    }

    #[test]
    fn an_allowed_finding_is_shown_and_marked() {
        let found = LintFinding {
            code: "EVEN_VOTERS".into(),
            subject: "DB1".into(),
            found: "2 voters: n1, n2".into(),
            why: "no more losses".into(),
            advice: "another copy".into(),
            ..LintFinding::default()
        };
        let findings = vec![line(found.clone(), &[]), line(found, &["even_voters".into()])];
        let text = show(&Shown { answered_by: "n1".into(), age_ms: Some(5), findings });
        for part in ["2 findings", "EVEN_VOTERS  DB1: 2 voters", "EVEN_VOTERS (allowed)", "do:"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
