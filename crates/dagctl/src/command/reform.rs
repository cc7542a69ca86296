//! `dagctl db reform`: a database that lost its majority goes on from the best copy that is left.

use std::time::Duration;

use dag_api::admin::v1::{LossVerdict, ReformDatabaseRequest, ReformDatabaseResponse};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::checks::{CheckLine, check, refused, show_checks};
use crate::command::follow::{self, OperationLine};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::Form;

const ATTEMPT: Duration = Duration::from_secs(6);

/// Which database, and what is accepted.
#[derive(Debug, clap::Args)]
pub struct ReformArgs {
    /// The database
    database: String,
    /// Only show the checks, what may be lost, and the token
    #[arg(long, conflicts_with = "apply")]
    plan: bool,
    /// Do what was planned under this token, and accept what it says may be lost
    #[arg(long, value_name = "TOKEN")]
    apply: Option<String>,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// What is done, or would be.
#[derive(Debug, Serialize)]
struct Shown {
    database: String,
    formed: bool,
    generation: u32,
    /// The node whose copy it goes on from.
    node: Option<String>,
    verdict: &'static str,
    verdict_reason: String,
    missing: Vec<String>,
    token: String,
    steps: Vec<String>,
    checks: Vec<CheckLine>,
    operation: Option<OperationLine>,
}

/// Forms a database anew, and waits until it serves.
pub async fn run(
    args: ReformArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let request = ReformDatabaseRequest {
        database_name: args.database.clone(),
        plan_only: args.plan,
        token: args.apply.clone().unwrap_or_default(),
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: args.reason.clone(),
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.reform_database(request).await }
    };
    let what = format!("Cannot form {} anew.", args.database);
    let answer = admin.change(&what, ATTEMPT, call).await?;
    if args.plan {
        let shown = shown(&args, &answer, &names, None);
        form.print(&shown, show)?;
        return Err(planned(&shown));
    }
    let mut lines = follow::follow(answer.operation, admin, patience, form).await?;
    let whole = lines.swap_remove(0);
    let judged = follow::judge(&whole);
    form.print(&shown(&args, &answer, &names, Some((whole, judged.is_ok()))), show)?;
    judged.map_err(|failure| failure.next(format!("dagctl db reform {} --plan", args.database)))
}

fn shown(
    args: &ReformArgs,
    answer: &ReformDatabaseResponse,
    names: &Names,
    operation: Option<(OperationLine, bool)>,
) -> Shown {
    Shown {
        database: args.database.clone(),
        formed: operation.as_ref().is_some_and(|(_, formed)| *formed),
        generation: answer.generation,
        node: (answer.node_id != 0).then(|| names.name(answer.node_id)),
        verdict: verdict(answer.verdict()),
        verdict_reason: answer.verdict_reason.clone(),
        missing: answer.missing.iter().map(|node| names.name(*node)).collect(),
        token: answer.token.clone(),
        steps: answer.steps.clone(),
        checks: answer.checks.iter().map(check).collect(),
        operation: operation.map(|(line, _)| line),
    }
}

fn verdict(verdict: LossVerdict) -> &'static str {
    match verdict {
        LossVerdict::Zero => "ZERO",
        LossVerdict::AtMost => "AT_MOST",
        // Of what nobody says nothing is hoped.
        LossVerdict::Unknown | LossVerdict::Unspecified => "UNKNOWN",
    }
}

/// The exit code of a plan: refused, or it would change something.
fn planned(shown: &Shown) -> Failure {
    let Shown { database, token, .. } = shown;
    refused(&shown.checks, format!("{database} would not be formed anew.")).unwrap_or_else(|| {
        Failure::new(Exit::WouldChange, format!("{database} would be formed anew."))
            .next(format!("dagctl db reform {database} --apply {token}"))
    })
}

fn show(shown: &Shown) -> String {
    let Shown { database, generation, verdict, verdict_reason, .. } = shown;
    let node = shown.node.as_deref().unwrap_or("no copy");
    let loss = format!("what may be lost: {verdict}: {verdict_reason}\n");
    if shown.formed {
        return format!("{database}: generation {generation}, from {node}; {loss}");
    }
    let mut text = format!("{database}, generation {generation}, from {node}:\n");
    for step in &shown.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text.push_str(&show_checks(&shown.checks));
    text.push('\n');
    text.push_str(&loss);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(passed: bool) -> Shown {
        let check = CheckLine {
            name: "takeover-wait".into(),
            value: "5.2 s left for n1".into(),
            limit: "closed".into(),
            passed,
            ..CheckLine::default()
        };
        Shown {
            database: "DB1".into(),
            formed: false,
            generation: 2,
            node: Some("n3".into()),
            verdict: verdict(LossVerdict::Unknown),
            verdict_reason: "2 of 3 voters are missing".into(),
            missing: vec!["n1".into()],
            token: "r1-00".into(),
            steps: vec!["stop every copy".into()],
            checks: vec![check],
            operation: None,
        }
    }

    #[test]
    fn a_plan_says_what_may_be_lost_and_names_the_command_that_accepts_it() {
        let possible = planned(&plan(true));
        assert_eq!(possible.exit, Exit::WouldChange);
        assert!(possible.to_string().contains("dagctl db reform DB1 --apply r1-00"), "{possible}");
        let refused = planned(&plan(false));
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.to_string().contains("5.2 s left for n1"), "{refused}");
        assert!(show(&plan(true)).contains("UNKNOWN: 2 of 3 voters are missing"));
    }
}
