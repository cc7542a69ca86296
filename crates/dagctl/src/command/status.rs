//! `dagctl status`: how the DAG is, from any single node, and how many nodes it can still lose.

use std::time::Duration;

use dag_api::admin::v1::{CopyStatus, GetStatusResponse, NodeState, Severity};
use serde::Serialize;

use crate::admin::Admin;
use crate::command::copies::{self, CopyLine};
use crate::command::db::{self, DatabaseLine};
use crate::command::gate;
use crate::command::local::state_name;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::{Form, hex, span, table};

/// How the status is shown.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StatusArgs {
    /// Show it again every so many seconds
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    watch: Option<u64>,
    /// End with code 0 as soon as all is well; give up at --timeout
    #[arg(long, alias = "exit-when-healthy")]
    wait_healthy: bool,
}

/// A node's line.
#[derive(Debug, Serialize)]
struct NodeLine {
    node_id: u64,
    name: String,
    site: String,
    witness: bool,
    reachable: bool,
    last_heard_ms: u64,
    /// Its gate, as it last said: open, closed, none (a witness), unknown.
    gate: &'static str,
    active_copies: u32,
    copies: u32,
    boot_counter: u64,
    insecure: bool,
}

/// Something that is wrong, or soon will be.
#[derive(Debug, Serialize)]
struct WarningLine {
    code: String,
    severity: &'static str,
    message: String,
    node: Option<String>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Shown {
    healthy: bool,
    answered_by: String,
    state: &'static str,
    age_ms: Option<u64>,
    dag_name: String,
    dag_id: String,
    lineage_epoch: Option<u64>,
    control_leader: Option<String>,
    control_voters: Vec<String>,
    /// How many more nodes may be lost, whichever they are, before a database stops.
    failure_tolerance: Option<u64>,
    nodes: Vec<NodeLine>,
    databases: Vec<DatabaseLine>,
    copies: Vec<CopyLine>,
    warnings: Vec<WarningLine>,
    message: String,
}

/// Shows the status once, again and again, or until all is well.
pub async fn run(
    args: &StatusArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let end = std::time::Instant::now() + patience;
    loop {
        let shown = admin.get_status().await.map(|status| shown(&status));
        if args.wait_healthy {
            match &shown {
                Ok(shown) if shown.healthy => return form.print(shown, show),
                _ if std::time::Instant::now() < end => {}
                Ok(shown) => return finish(form, shown),
                Err(failure) => return Err(failure.clone()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let Some(seconds) = args.watch else { return finish(form, &shown?) };
        if form == Form::Table {
            // Clears the screen and goes to its first line.
            eprint!("\x1b[2J\x1b[H");
        }
        match shown {
            Ok(shown) => form.print(&shown, show)?,
            Err(failure) => eprintln!("{failure}"),
        }
        tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
    }
}

/// Waits until all is well.
pub async fn wait_healthy(admin: &Admin, patience: Duration) -> Result<(), Failure> {
    let args = StatusArgs { watch: None, wait_healthy: true };
    run(&args, admin, patience, Form::Quiet).await
}

fn finish(form: Form, shown: &Shown) -> Result<(), Failure> {
    form.print(shown, show)?;
    if shown.healthy {
        return Ok(());
    }
    let mut failure = Failure::new(Exit::Unhealthy, "The DAG is not healthy.");
    for warning in shown.warnings.iter().filter(|warning| warning.severity == "ERROR") {
        failure = failure.why(format!("{}: {}", warning.code, warning.message));
    }
    for database in shown.databases.iter().filter(|database| database.active.is_none()) {
        failure = failure.why(format!("database {} is mounted nowhere", database.name));
    }
    for copy in &shown.copies {
        if !is_well(copy.status) {
            failure = failure.why(format!("{}\\{} is {}", copy.database, copy.node, copy.status));
        }
    }
    let lost = shown.nodes.iter().filter(|node| !node.reachable);
    for node in lost {
        failure = failure.why(format!("node {} does not answer", node.name));
    }
    if shown.state != state_name(NodeState::Member) && !shown.message.is_empty() {
        failure = failure.why(&shown.message);
    }
    Err(failure)
}

fn is_well(status: &str) -> bool {
    let well = [CopyStatus::Mounted, CopyStatus::Healthy, CopyStatus::SeedingSource];
    well.map(copies::status_name).contains(&status)
}

/// A status as people see it.
pub fn shown(status: &GetStatusResponse) -> Shown {
    let names = Names::of(status);
    let control = status.control.clone().unwrap_or_default();
    let mut shown = Shown {
        healthy: false,
        answered_by: status.answered_by.as_ref().map_or(String::new(), |node| node.name.clone()),
        state: state_name(status.state()),
        age_ms: status.age.as_ref().map(|age| age.age_ms),
        dag_name: status.dag_name.clone(),
        dag_id: hex(&status.dag_id),
        lineage_epoch: status.lineage.as_ref().map(|lineage| lineage.epoch),
        control_leader: (control.leader_node != 0).then(|| names.name(control.leader_node)),
        control_voters: names.list(&control.voters),
        failure_tolerance: failure_tolerance(status),
        nodes: node_lines(status),
        databases: status.databases.iter().map(|database| db::line(database, &names)).collect(),
        copies: status.copies.iter().map(|copy| copies::line(copy, &names)).collect(),
        warnings: warning_lines(status, &names),
        message: status.message.clone(),
    };
    shown.healthy = status.state() == NodeState::Member
        && shown.control_leader.is_some()
        && shown.nodes.iter().all(|node| node.reachable)
        && shown.databases.iter().all(|database| database.active.is_some())
        && shown.copies.iter().all(|copy| is_well(copy.status))
        && shown.warnings.iter().all(|warning| warning.severity != "ERROR");
    shown
}

/// The smallest number, over all databases, of voting copies that may still be lost.
fn failure_tolerance(status: &GetStatusResponse) -> Option<u64> {
    let spare = |database: &dag_api::admin::v1::Database| {
        let well = status.copies.iter().filter(|copy| {
            let serves = matches!(copy.status(), CopyStatus::Mounted | CopyStatus::Healthy);
            copy.database_id == database.database_id && copy.voter && serves
        });
        let needed = database.voters.len() / 2 + 1;
        well.count().saturating_sub(needed) as u64
    };
    status.databases.iter().map(spare).min()
}

fn node_lines(status: &GetStatusResponse) -> Vec<NodeLine> {
    let line = |node: &dag_api::admin::v1::NodeStatus| {
        let identity = node.node.clone().unwrap_or_default();
        NodeLine {
            node_id: identity.node_id,
            name: identity.name,
            site: identity.site,
            witness: node.witness,
            reachable: node.reachable,
            gate: gate_of(status, identity.node_id),
            last_heard_ms: node.last_heard_ms,
            active_copies: node.active_copies,
            copies: node.copies,
            boot_counter: identity.boot_counter,
            insecure: node.insecure,
        }
    };
    status.nodes.iter().map(line).collect()
}

fn gate_of(status: &GetStatusResponse, node: u64) -> &'static str {
    let known = status.gates.iter().find(|gate| gate.node_id == node);
    known.map_or("unknown", |gate| gate::state_name(gate::known_state(gate)))
}

fn warning_lines(status: &GetStatusResponse, names: &Names) -> Vec<WarningLine> {
    let line = |warning: &dag_api::admin::v1::Warning| WarningLine {
        code: warning.code.clone(),
        severity: match warning.severity() {
            Severity::Error => "ERROR",
            Severity::Warning | Severity::Unspecified => "WARNING",
        },
        message: warning.message.clone(),
        node: (warning.node_id != 0).then(|| names.name(warning.node_id)),
    };
    status.warnings.iter().map(line).collect()
}

/// The status on a screen.
pub fn show(shown: &Shown) -> String {
    let mut text = headline(shown);
    if !shown.nodes.is_empty() {
        text.push_str(&format!("\n\n{}", show_nodes(&shown.nodes)));
    }
    if !shown.databases.is_empty() {
        text.push_str(&format!("\n\n{}", db::show(&shown.databases)));
    }
    if !shown.copies.is_empty() {
        text.push_str(&format!("\n\n{}", copies::show(&shown.copies)));
    }
    for warning in &shown.warnings {
        text.push_str(&format!("\n{} {}: {}", warning.severity, warning.code, warning.message));
    }
    // A member has nothing to say beyond what is shown above.
    if shown.state != state_name(NodeState::Member) && !shown.message.is_empty() {
        text.push_str(&format!("\n\n{}", shown.message));
    }
    text
}

fn headline(shown: &Shown) -> String {
    if shown.dag_id.is_empty() {
        return format!("{}: node {} belongs to no DAG", shown.state, shown.answered_by);
    }
    let health = if shown.healthy { "HEALTHY" } else { "NOT HEALTHY" };
    let leader = shown.control_leader.as_deref().unwrap_or("nobody");
    let age = shown.age_ms.map_or("unknown".to_owned(), span);
    let tolerance = match shown.failure_tolerance {
        Some(spare) => format!("each database can lose {spare} more of its voting copies"),
        None => "no database yet".to_owned(),
    };
    format!(
        "DAG {} ({}): {health}; {tolerance}\ncontrol group led by {leader}, voters {}; \
         as seen by {}, {age} old",
        shown.dag_name,
        shown.dag_id.get(..8).unwrap_or(&shown.dag_id),
        shown.control_voters.join(" "),
        shown.answered_by,
    )
}

fn show_nodes(nodes: &[NodeLine]) -> String {
    let rows = nodes.iter().map(|node| {
        [
            node.name.clone(),
            node.site.clone(),
            if node.witness { "witness" } else { "data" }.to_owned(),
            if node.reachable { "up" } else { "DOWN" }.to_owned(),
            span(node.last_heard_ms),
            node.gate.to_owned(),
            format!("{}/{}", node.active_copies, node.copies),
            node.boot_counter.to_string(),
            if node.insecure { "INSECURE" } else { "" }.to_owned(),
        ]
    });
    table(["NODE", "SITE", "KIND", "STATE", "HEARD", "GATE", "ACTIVE/COPIES", "BOOTS", ""], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_api::admin::v1::{Database, DatabaseCopy};

    fn copy(node: u64, status: CopyStatus) -> DatabaseCopy {
        DatabaseCopy {
            database_id: 16,
            node_id: node,
            status: status.into(),
            voter: true,
            ..DatabaseCopy::default()
        }
    }

    #[test]
    fn failure_tolerance_counts_copies_that_could_take_over() {
        let mut status = GetStatusResponse {
            databases: vec![Database {
                database_id: 16,
                voters: vec![1, 2, 3],
                ..Database::default()
            }],
            copies: vec![
                copy(1, CopyStatus::Mounted),
                copy(2, CopyStatus::Healthy),
                copy(3, CopyStatus::Healthy),
            ],
            ..GetStatusResponse::default()
        };
        assert_eq!(failure_tolerance(&status), Some(1));
        status.copies[2].set_status(CopyStatus::Failed);
        assert_eq!(failure_tolerance(&status), Some(0));
        assert_eq!(failure_tolerance(&GetStatusResponse::default()), None);
    }

    #[test]
    fn a_status_without_a_dag_is_not_healthy_and_shows_what_the_node_says() {
        let status = GetStatusResponse {
            state: NodeState::Unprovisioned.into(),
            message: "Run dagctl dag create.".into(),
            ..GetStatusResponse::default()
        };
        let shown = shown(&status);
        assert!(!shown.healthy);
        assert!(show(&shown).contains("Run dagctl dag create."));
    }
}
