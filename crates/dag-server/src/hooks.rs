//! Hooks: executables of the operator's own that are run when something happens.
//!
//! The DAG's settings say which executable for which event; each node's own settings name the folder
//! that it may come from. The control leader begins one operation per hook and event, with a request
//! id made of both, so that an event is begun once, whoever leads; and it runs the executable as a
//! recorded step, with a time limit. The executable reads one line of JSON with the operation's
//! number from its standard input: where a leader dies in between it runs again, with the same one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use active_manager::control::state::audit_from;
use active_manager::control::{AuditRow, ControlState, Hook, OperationState};
use dag_types::{DatabaseId, NodeId};
use replication::Role;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::clock;
use crate::gate::show::complaint;
use crate::machine::View;
use crate::node::Node;
use crate::reports::STALE;
use crate::service::admin::plan::{Happened, HookRun, Plan};
use crate::service::admin::{AdminServer, Asker};

const LOOK: Duration = Duration::from_millis(500);
/// Events before a leader's office that it looks through: its predecessor may not have begun them.
const BEFORE_MS: u64 = 10 * 60 * 1000;
/// Audit rows of one look; what is more waits for the next.
const ROWS: usize = 10_000;
/// Bytes of what an executable says that are kept.
const SAID: usize = 1000;

/// What an executable reads from its standard input, as one line of JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    operation: u64,
    #[serde(flatten)]
    happened: &'a Happened,
}

/// How far the events of the control log were looked through, in one term of office.
#[derive(Debug, Default)]
struct Cursor {
    term: u64,
    /// The number of the next row of the audit, which is not the index of its entry.
    next: u64,
    /// The gates that were seen closed, by their last opening.
    closed: BTreeMap<NodeId, (u64, u64)>,
}

/// Begins hooks while this node leads the control group, until the node is stopped.
pub async fn watch(node: Arc<Node>) {
    let mut cursor = Cursor::default();
    while !node.stopping.is_cancelled() {
        look(&node, &mut cursor).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

async fn look(node: &Arc<Node>, cursor: &mut Cursor) {
    let group = node.member().ok().and_then(|member| member.registry.get(DatabaseId::CONTROL));
    let Some(group) = group else { return };
    let (Role::Leader, term) = group.role() else { return };
    let view = group.view();
    let Ok(Some(state)) = ControlState::read(&View(&*view)) else { return };
    let office = cursor.term != term;
    if office {
        *cursor = Cursor { term, ..Cursor::default() };
    }
    let Ok(rows) = audit_from(&View(&*view), cursor.next, ROWS) else { return };
    if let Some((last, _)) = rows.last() {
        cursor.next = last + 1;
    }
    let oldest = clock::wall().0.saturating_sub(BEFORE_MS);
    let entries = rows.iter().map(|(_, row)| row);
    let entries = entries.filter(|row| row.accepted && (!office || row.at_ms >= oldest));
    let mut happened: Vec<Happened> = entries.filter_map(|row| of_entry(row, &state)).collect();
    happened.extend(gates(node, &state, cursor));
    for happened in happened {
        for hook in state.settings.hooks.iter().filter(|hook| hook.event == happened.event) {
            begin(node, hook, &happened, term).await;
        }
    }
}

/// Gates that were open and are closed, by the word of their nodes.
fn gates(node: &Arc<Node>, state: &ControlState, cursor: &mut Cursor) -> Vec<Happened> {
    let mut found = Vec::new();
    for gate in AdminServer::of(node.clone()).known_gates() {
        let id = NodeId(gate.node_id);
        let Some(opening) = state.openings.iter().find(|known| known.node == gate.node_id) else {
            continue;
        };
        let opening = (opening.grant_term, opening.grant_number);
        let fresh = gate.age_ms < STALE.as_millis() as u64;
        let Some(reason) = complaint(&gate).filter(|_| fresh) else { continue };
        if cursor.closed.insert(id, opening) == Some(opening) {
            continue;
        }
        found.push(Happened {
            event: "gate-closed".into(),
            index: 0,
            time_ms: clock::wall().0,
            who: format!("node {id}"),
            object: format!("node {id} opening {}.{}", opening.0, opening.1),
            reason,
        });
    }
    found
}

fn of_entry(row: &AuditRow, state: &ControlState) -> Option<Happened> {
    let mut object = row.object.clone();
    let event = match row.action.as_str() {
        "end operation" => {
            object = moved(&row.object, state)?;
            "database-moved"
        }
        "create database" => "database-created",
        "open gate" => "gate-opened",
        "drain" => "node-drained",
        "undrain" => "node-undrained",
        "settle node" => "node-joined",
        "remove node" => "node-removed",
        "set settings" => "settings-changed",
        _ => return None,
    };
    Some(Happened {
        event: event.into(),
        index: row.index,
        time_ms: row.at_ms,
        who: row.who.clone(),
        object,
        reason: row.reason.clone(),
    })
}

/// The plan of a move that reached its end, in words; none for any other operation.
fn moved(operation: &str, state: &ControlState) -> Option<String> {
    let number: u64 = operation.strip_prefix("operation ")?.parse().ok()?;
    let known = state.operations.iter().find(|known| known.operation == number)?;
    let plan = Plan::of(known).filter(|plan| matches!(plan, Plan::Move(_)))?;
    (known.state() == OperationState::Done).then(|| plan.words())
}

async fn begin(node: &Arc<Node>, hook: &Hook, happened: &Happened, term: u64) {
    let Happened { event, index, object, .. } = happened;
    let key = format!("{} {event} {index} {object}", hook.program);
    let request = format!("hook-{}", &blake3::hash(key.as_bytes()).to_hex()[..32]);
    let plan = Plan::Hook(HookRun {
        program: hook.program.clone(),
        timeout_ms: hook.timeout_ms,
        happened: happened.clone(),
    });
    let who = format!("node {}", node.id());
    let asker = Asker { who, reason: event.clone(), ..Asker::default() };
    if let Err(error) = AdminServer::of(node.clone()).start(&request, plan, term, asker).await {
        tracing::warn!(%error, event, program = hook.program, "a hook was not begun");
    }
}

/// Runs an executable to its end or its limit. Gives what it said, or why it failed.
pub async fn run(node: &Node, operation: u64, run: &HookRun) -> Result<String, String> {
    let Some(folder) = &node.settings.hooks else {
        return Err(format!("the settings of node {} name no folder of hooks", node.id()));
    };
    let told = Told { operation, happened: &run.happened };
    let told = serde_json::to_string(&told).expect("texts and numbers can be written") + "\n";
    execute(&folder.join(&run.program), told, Duration::from_millis(run.timeout_ms)).await
}

async fn execute(program: &Path, told: String, limit: Duration) -> Result<String, String> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("start {}: {error}", program.display()))?;
    let stdin = child.stdin.take();
    let ended = async {
        if let Some(mut stdin) = stdin {
            // One that does not read is none the worse for it.
            let _ = stdin.write_all(told.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(limit, ended).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("killed after {} ms", limit.as_millis())),
    };
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let said = String::from_utf8_lossy(&text[..text.len().min(SAID)]).trim().to_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{}: {said}", output.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_hook_reads_what_happened_and_what_it_says_is_kept() {
        let said = execute(Path::new("/bin/cat"), "{\"operation\":7}\n".into(), LIMIT).await;
        assert_eq!(said, Ok("{\"operation\":7}".into()));
    }

    #[tokio::test]
    async fn a_hook_that_fails_or_hangs_or_is_missing_says_so() {
        let failed = execute(Path::new("/bin/false"), String::new(), LIMIT).await;
        assert!(failed.is_err_and(|why| why.contains("exit status: 1")));
        let missing = execute(Path::new("/no/such/hook"), String::new(), LIMIT).await;
        assert!(missing.is_err_and(|why| why.contains("/no/such/hook")));
        let hangs = execute(Path::new("/usr/bin/yes"), String::new(), LIMIT).await;
        assert_eq!(hangs, Err("killed after 300 ms".into()));
    }
}
