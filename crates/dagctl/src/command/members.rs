//! `dagctl node remove`: a node leaves the DAG for good.

use std::time::Duration;

use dag_api::admin::v1::{RemoveNodeRequest, RemoveNodeResponse};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::checks::{CheckLine, check, refused, show_checks};
use crate::command::follow::{self, OperationLine};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::Form;

const ATTEMPT: Duration = Duration::from_secs(6);

/// Which node leaves.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// The node
    node: String,
    /// Only show the checks, and what would be done
    #[arg(long)]
    plan: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// What is done, or would be.
#[derive(Debug, Serialize)]
struct Shown {
    node: String,
    removed: bool,
    steps: Vec<String>,
    checks: Vec<CheckLine>,
    operation: Option<OperationLine>,
}

/// Removes a node, and waits until it is gone.
pub async fn remove(
    args: RemoveArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let request = RemoveNodeRequest {
        node_id: names.number(&args.node)?,
        plan_only: args.plan,
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: args.reason.clone(),
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.remove_node(request).await }
    };
    let answer = admin.change(&format!("Cannot remove {}.", args.node), ATTEMPT, call).await?;
    if args.plan {
        let shown = shown(&args, &answer, None);
        form.print(&shown, show)?;
        return Err(planned(&shown));
    }
    let mut lines = follow::follow(answer.operation, admin, patience, form).await?;
    let whole = lines.swap_remove(0);
    let judged = follow::judge(&whole);
    form.print(&shown(&args, &answer, Some((whole, judged.is_ok()))), show)?;
    judged.map_err(|failure| failure.next(format!("dagctl node remove {} --plan", args.node)))
}

fn shown(
    args: &RemoveArgs,
    answer: &RemoveNodeResponse,
    operation: Option<(OperationLine, bool)>,
) -> Shown {
    Shown {
        node: args.node.clone(),
        removed: operation.as_ref().is_some_and(|(_, removed)| *removed),
        steps: answer.steps.clone(),
        checks: answer.checks.iter().map(check).collect(),
        operation: operation.map(|(line, _)| line),
    }
}

/// The exit code of a plan: refused, or it would change something.
fn planned(shown: &Shown) -> Failure {
    let node = &shown.node;
    refused(&shown.checks, format!("{node} would not be removed.")).unwrap_or_else(|| {
        Failure::new(Exit::WouldChange, format!("{node} would be removed."))
            .next(format!("dagctl node remove {node}"))
    })
}

fn show(shown: &Shown) -> String {
    if shown.removed {
        return format!("{}: removed; stop it, and remove its root folder", shown.node);
    }
    let mut text = format!("{}:\n", shown.node);
    for step in &shown.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text.push_str(&show_checks(&shown.checks));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(passed: bool) -> Shown {
        let check = CheckLine {
            name: "holds-no-copies".into(),
            value: "DB1".into(),
            limit: "none".into(),
            passed,
            ..CheckLine::default()
        };
        Shown {
            node: "n3".into(),
            removed: false,
            steps: vec!["n3 is leaving".into()],
            checks: vec![check],
            operation: None,
        }
    }

    #[test]
    fn a_plan_ends_with_the_code_of_what_it_found() {
        assert_eq!(planned(&plan(true)).exit, Exit::WouldChange);
        let refused = planned(&plan(false));
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.to_string().contains("holds-no-copies: found DB1"), "{refused}");
        assert!(show(&plan(false)).contains("FAILS"), "{}", show(&plan(false)));
    }
}
