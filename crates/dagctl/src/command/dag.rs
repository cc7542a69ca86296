//! `dagctl dag`: makes a DAG of nodes that belong to none.
//!
//! Two rounds, each of which may be repeated: every node is prepared, and only when all are does
//! any of them become a member. So an interrupted creation is finished by the same command, and a
//! node that lost its disk is never mistaken for one that was not reached yet.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dag_api::Problem;
use dag_api::admin::v1::{
    ChangeSettingsRequest, DagDefinition, DagSettings, FormDagRequest, FoundingMember,
    GetNodeResponse, GetSettingsRequest, GetStatusRequest, Hook, NodeState, PrepareDagRequest,
};
use futures::future::join_all;
use serde::Serialize;
use testkit::shape::{DagFile, NodeEntry};
use tonic::{Response, Status};

use crate::admin::{Admin, Client, attempt, get_node};
use crate::command::local::state_name;
use crate::definition::definition;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, hex, table};
use crate::target::TargetArgs;
use crate::way::Way;

/// What can be done with a DAG as a whole.
#[derive(Debug, clap::Subcommand)]
pub enum Dag {
    /// Make a DAG of empty nodes; may be repeated after an interruption
    Create {
        /// The definition [default: dag.toml of the local cluster]
        #[arg(long)]
        from: Option<PathBuf>,
    },
    /// The settings of the whole DAG; any single node answers
    Settings,
    /// Change settings of the whole DAG
    Set(SetArgs),
    /// Executables that are run when something happens
    #[command(subcommand)]
    Hook(HookCommand),
}

/// What can be done with hooks.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum HookCommand {
    /// Run an executable when something happens
    Add {
        /// Such as database-moved, gate-closed
        event: String,
        /// Its name in the folder `hooks` of each node's settings
        program: String,
        /// Seconds after which it is killed
        #[arg(long, default_value_t = 10)]
        limit: u64,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Do not run it any more
    Remove {
        /// The event
        event: String,
        /// The executable
        program: String,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Adds or removes a hook, and shows all settings.
pub async fn hook(command: HookCommand, admin: &Admin, form: Form) -> Result<(), Failure> {
    let request = match command {
        HookCommand::Add { event, program, limit, reason } => {
            let timeout_ms = limit.saturating_mul(1000);
            let add_hook = Some(Hook { event, program, timeout_ms });
            ChangeSettingsRequest { reason, add_hook, ..ChangeSettingsRequest::default() }
        }
        HookCommand::Remove { event, program, reason } => {
            let remove_hook = Some(Hook { event, program, timeout_ms: 0 });
            ChangeSettingsRequest { reason, remove_hook, ..ChangeSettingsRequest::default() }
        }
    };
    change_settings(request, admin, form).await
}

/// What is left out stays as it is.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Seconds between two moves of one database for balance or to another site
    #[arg(long)]
    move_block: Option<u64>,
    /// Seconds after which maintenance and suspensions are named in every status
    #[arg(long)]
    nag_after: Option<u64>,
    /// Entries that a copy may miss and still be moved to
    #[arg(long)]
    copy_queue_max: Option<u64>,
    /// Entries that a copy may have to apply and still be moved to
    #[arg(long)]
    replay_queue_max: Option<u64>,
    /// Whether databases go back to their preferred copies by themselves
    #[arg(long)]
    auto_balance: Option<bool>,
    /// Seconds between two snapshots of a database; 0: none are taken by schedule
    #[arg(long)]
    snapshot_every: Option<u64>,
    /// How many of those that were taken by schedule are kept
    #[arg(long)]
    snapshots_kept: Option<u32>,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// The settings as they are shown.
#[derive(Debug, Serialize)]
struct SettingsLine {
    move_block_s: u64,
    nag_after_s: u64,
    copy_queue_max: u64,
    replay_queue_max: u64,
    auto_balance: bool,
    snapshot_every_s: u64,
    snapshots_kept: u32,
    /// Event, executable, and after how many seconds it is killed.
    hooks: Vec<(String, String, u64)>,
}

/// Shows the settings.
pub async fn settings(admin: &Admin, form: Form) -> Result<(), Failure> {
    let call = |mut client: Client| async move { client.get_settings(GetSettingsRequest {}).await };
    let answer = admin.ask("Cannot read the settings.", call).await?;
    form.print(&line(&answer.settings.unwrap_or_default()), show_settings)
}

/// Changes settings, and shows all of them.
pub async fn set(args: SetArgs, admin: &Admin, form: Form) -> Result<(), Failure> {
    let millis = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1000));
    let request = ChangeSettingsRequest {
        reason: args.reason,
        move_block_ms: millis(args.move_block),
        nag_after_ms: millis(args.nag_after),
        copy_queue_max: args.copy_queue_max,
        replay_queue_max: args.replay_queue_max,
        auto_balance: args.auto_balance,
        snapshot_every_ms: millis(args.snapshot_every),
        snapshots_kept: args.snapshots_kept,
        ..ChangeSettingsRequest::default()
    };
    change_settings(request, admin, form).await
}

async fn change_settings(
    request: ChangeSettingsRequest,
    admin: &Admin,
    form: Form,
) -> Result<(), Failure> {
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.change_settings(request).await }
    };
    let answer = admin.change("Cannot change the settings.", WRITE, call).await?;
    form.print(&line(&answer.settings.unwrap_or_default()), show_settings)
}

fn line(settings: &DagSettings) -> SettingsLine {
    SettingsLine {
        move_block_s: settings.move_block_ms / 1000,
        nag_after_s: settings.nag_after_ms / 1000,
        copy_queue_max: settings.copy_queue_max,
        replay_queue_max: settings.replay_queue_max,
        auto_balance: settings.auto_balance,
        snapshot_every_s: settings.snapshot_every_ms / 1000,
        snapshots_kept: settings.snapshots_kept,
        hooks: settings
            .hooks
            .iter()
            .map(|hook| (hook.event.clone(), hook.program.clone(), hook.timeout_ms / 1000))
            .collect(),
    }
}

fn show_settings(line: &SettingsLine) -> String {
    let hooks = line.hooks.iter().map(|(event, program, limit)| {
        [format!("hook on {event}"), format!("{program}, killed after {limit} s")]
    });
    table(
        ["SETTING", "VALUE"],
        [
            ["move-block".to_owned(), format!("{} s", line.move_block_s)],
            ["nag-after".to_owned(), format!("{} s", line.nag_after_s)],
            ["copy-queue-max".to_owned(), format!("{} entries", line.copy_queue_max)],
            ["replay-queue-max".to_owned(), format!("{} entries", line.replay_queue_max)],
            ["auto-balance".to_owned(), line.auto_balance.to_string()],
            ["snapshot-every".to_owned(), format!("{} s", line.snapshot_every_s)],
            ["snapshots-kept".to_owned(), line.snapshots_kept.to_string()],
        ]
        .into_iter()
        .chain(hooks),
    )
}

/// The answer of `dag create`.
#[derive(Debug, Serialize)]
struct Created {
    name: String,
    dag_id: String,
    nodes: usize,
    changed: bool,
    control_leader: u64,
}

const WRITE: Duration = Duration::from_secs(10);

/// Carries a command out.
pub async fn run(
    dag: Dag,
    target: &TargetArgs,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let from = match dag {
        Dag::Create { from } => from,
        Dag::Settings => return settings(&Admin::new(target.resolve()?, patience), form).await,
        Dag::Hook(command) => {
            return hook(command, &Admin::new(target.resolve()?, patience), form).await;
        }
        Dag::Set(args) => return set(args, &Admin::new(target.resolve()?, patience), form).await,
    };
    let file = from.unwrap_or_else(|| target.folder().join("dag.toml"));
    let way = Way::find(&target.tls, file.parent())?;
    create(&file, &way, patience, form).await
}

/// Makes the DAG that a file defines, and waits until its control group has a leader.
pub async fn create(file: &Path, way: &Way, patience: Duration, form: Form) -> Result<(), Failure> {
    if !file.exists() {
        return Err(Failure::new(Exit::Failed, "Cannot create a DAG without its definition.")
            .why(format!("{} does not exist", file.display()))
            .next("dagctl dag create --from dag.toml    (cluster-configs/ has examples)"));
    }
    let dag = DagFile::read(file)?;
    let creation = Creation { file, way, members: dag.members().map(|(node, _)| node).collect() };
    let definition = definition(&dag);
    let digest = definition.digest();
    let answers = creation.look(&digest).await?;
    let dag_id = creation.dag_id(&answers)?;
    let fresh = answers.iter().any(|answer| answer.state() != NodeState::Member);
    let founders = match answers.iter().find(|answer| answer.state() == NodeState::Member) {
        Some(member) => member.founding_members.clone(),
        None => creation.prepare(&definition, &digest, &dag_id).await?,
    };
    creation.check_stores(&answers, &founders)?;
    let changed = creation.form(&digest, &dag_id, &founders).await?;
    let control_leader = creation.await_leader(patience).await?;
    let created = Created {
        name: dag.name.clone(),
        dag_id: hex(&dag_id),
        nodes: creation.members.len(),
        changed: changed && fresh,
        control_leader,
    };
    form.print(&created, show)?;
    form.say("\nNext: dagctl db create DB1");
    Ok(())
}

fn show(created: &Created) -> String {
    let what = if created.changed { "created" } else { "existed already" };
    format!("DAG {} {what}: {} nodes, id {}", created.name, created.nodes, created.dag_id)
}

struct Creation<'a> {
    file: &'a Path,
    way: &'a Way,
    members: Vec<&'a NodeEntry>,
}

impl Creation<'_> {
    fn refuse(&self) -> Failure {
        Failure::new(Exit::Failed, "Cannot create the DAG; nothing was changed.")
    }

    fn again(&self) -> String {
        format!("dagctl dag create --from {}", self.file.display())
    }

    /// Asks every node what it is. All problems are named at once.
    async fn look(&self, digest: &[u8; 32]) -> Result<Vec<GetNodeResponse>, Failure> {
        let answers =
            join_all(self.members.iter().map(|node| get_node(self.way, node.admin))).await;
        let mut failure = self.refuse();
        let mut found = Vec::new();
        for (node, answer) in self.members.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    for problem in problems(node, &answer, digest) {
                        failure = failure.why(problem);
                    }
                    found.push(answer);
                }
                Err(status) => {
                    let place = format!("node {} ({})", node.name, node.admin);
                    failure = failure.why(format!("{place}: {}", status.message()));
                    failure.exit = Exit::Unreachable;
                }
            }
        }
        if failure.why.is_empty() {
            return Ok(found);
        }
        Err(failure.next(format!("start or repair what is named above, then: {}", self.again())))
    }

    /// The id that an earlier attempt gave out, or a new one.
    fn dag_id(&self, answers: &[GetNodeResponse]) -> Result<[u8; 16], Failure> {
        let mut ids: Vec<&[u8]> =
            answers.iter().map(|a| &a.dag_id[..]).filter(|id| !id.is_empty()).collect();
        ids.sort_unstable();
        ids.dedup();
        let any = |state| answers.iter().any(|answer| answer.state() == state);
        if any(NodeState::Member) && any(NodeState::Unprovisioned) {
            let mut failure = self.refuse();
            for (node, answer) in self.members.iter().zip(answers) {
                failure =
                    failure.why(format!("node {} is {}", node.name, state_name(answer.state())));
            }
            return Err(failure
                .why("a node that is empty while others are members has lost its disk; it comes back by replacement, not by creation")
                .next("dagctl node replace NODE"));
        }
        match ids.as_slice() {
            [] => Ok(*uuid::Uuid::new_v4().as_bytes()),
            [id] => {
                (*id).try_into().map_err(|_| self.refuse().why("a node's DAG id is not 16 bytes"))
            }
            several => {
                let ids: Vec<String> = several.iter().map(|id| hex(id)).collect();
                Err(self.refuse().why(format!(
                    "the nodes belong to {} different DAGs: {}",
                    ids.len(),
                    ids.join(", ")
                )))
            }
        }
    }

    /// The first round; gives the stores that the DAG is founded on.
    async fn prepare(
        &self,
        definition: &DagDefinition,
        digest: &[u8; 32],
        dag_id: &[u8; 16],
    ) -> Result<Vec<FoundingMember>, Failure> {
        let request = PrepareDagRequest {
            dag_id: dag_id.to_vec().into(),
            definition: Some(definition.clone()),
            definition_digest: digest.to_vec().into(),
        };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.prepare_dag(request).await }
        };
        let answers = self.round("Cannot prepare the nodes; no DAG exists yet.", call).await?;
        let founder = |answer: dag_api::admin::v1::PrepareDagResponse| {
            let node = answer.node?;
            Some(FoundingMember { node_id: node.node_id, store_id: node.store_id })
        };
        let founders: Option<Vec<_>> = answers.into_iter().map(founder).collect();
        founders.ok_or_else(|| self.refuse().why("a node did not say who it is"))
    }

    /// Nothing is formed over a disk that another one has taken the place of.
    fn check_stores(
        &self,
        answers: &[GetNodeResponse],
        founders: &[FoundingMember],
    ) -> Result<(), Failure> {
        let mut failure = self.refuse();
        for answer in answers {
            let Some(node) = &answer.node else { continue };
            let founded = founders.iter().find(|founder| founder.node_id == node.node_id);
            if founded.is_none_or(|founder| founder.store_id != node.store_id) {
                failure = failure.why(format!(
                    "node {} has another disk than the DAG was founded on",
                    node.name
                ));
            }
        }
        if failure.why.is_empty() { Ok(()) } else { Err(failure.next("dagctl status")) }
    }

    /// The second round; says whether it changed anything.
    async fn form(
        &self,
        digest: &[u8; 32],
        dag_id: &[u8; 16],
        founders: &[FoundingMember],
    ) -> Result<bool, Failure> {
        let request = FormDagRequest {
            dag_id: dag_id.to_vec().into(),
            definition_digest: digest.to_vec().into(),
            members: founders.to_vec(),
            // A repetition has it too.
            first_activation_id: dag_id.to_vec().into(),
        };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.form_dag(request).await }
        };
        let answers = self.round("Creating the DAG was interrupted.", call).await?;
        Ok(answers.iter().any(|answer| answer.changed))
    }

    /// One call to every node at once; all must answer.
    async fn round<T, F>(&self, what: &str, call: impl Fn(Client) -> F) -> Result<Vec<T>, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let calls = self.members.iter().map(|node| attempt(self.way, node.admin, WRITE, &call));
        let mut failure = Failure::new(Exit::Failed, what);
        let mut done = Vec::new();
        for (node, answer) in self.members.iter().zip(join_all(calls).await) {
            match answer {
                Ok(answer) => done.push(answer),
                Err(status) => {
                    failure.reason = Problem::from_status(&status).map(|p| p.reason.as_str());
                    failure = failure.why(format!("node {}: {}", node.name, status.message()));
                }
            }
        }
        if failure.why.is_empty() { Ok(done) } else { Err(failure.next(self.again())) }
    }

    async fn await_leader(&self, patience: Duration) -> Result<u64, Failure> {
        let end = Instant::now() + patience;
        let ask = |mut client: Client| async move { client.get_status(GetStatusRequest {}).await };
        while Instant::now() < end {
            for node in &self.members {
                let answer = attempt(self.way, node.admin, Duration::from_millis(500), ask).await;
                let leader =
                    answer.ok().and_then(|status| status.control).map_or(0, |c| c.leader_node);
                if leader != 0 {
                    return Ok(leader);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Failure::new(
            Exit::Unknown,
            "The DAG is created, but its control group has no leader yet.",
        )
        .next("dagctl status --watch"))
    }
}

/// What keeps a node from being a founding member.
fn problems(entry: &NodeEntry, answer: &GetNodeResponse, digest: &[u8; 32]) -> Vec<String> {
    let mut problems = Vec::new();
    let place = format!("node {} ({})", entry.name, entry.admin);
    let node = answer.node.clone().unwrap_or_default();
    if node.node_id != entry.id {
        let (own, given) = (node.node_id, entry.id);
        problems.push(format!(
            "{place} has the number {own} in its own settings, and {given} in the definition"
        ));
    }
    let provisioned = answer.state() != NodeState::Unprovisioned;
    if provisioned && answer.definition_digest[..] != digest[..] {
        let (name, id) = (&answer.dag_name, hex(&answer.dag_id));
        problems.push(format!(
            "{place} belongs to a DAG already: {name}, id {id}, with another definition"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_api::admin::v1::NodeIdentity;

    fn entry(id: u64, name: &str) -> NodeEntry {
        let address = ([127, 0, 0, 1], 7_400 + id as u16).into();
        NodeEntry {
            id,
            name: name.into(),
            site: "s".into(),
            peers: address,
            clients: address,
            admin: address,
        }
    }

    fn answer(state: NodeState, dag: &[u8], store: u8) -> GetNodeResponse {
        GetNodeResponse {
            node: Some(NodeIdentity {
                node_id: 1,
                store_id: vec![store; 16].into(),
                ..NodeIdentity::default()
            }),
            state: state.into(),
            dag_id: dag.to_vec().into(),
            definition_digest: if dag.is_empty() { vec![].into() } else { vec![9; 32].into() },
            ..GetNodeResponse::default()
        }
    }

    #[test]
    fn a_node_of_another_number_or_another_dag_is_named() {
        let empty = answer(NodeState::Unprovisioned, &[], 1);
        assert_eq!(problems(&entry(1, "a1"), &empty, &[9; 32]), Vec::<String>::new());
        assert!(problems(&entry(2, "a2"), &empty, &[9; 32])[0].contains("number 1 in its own"));
        let member = answer(NodeState::Member, &[7; 16], 1);
        assert!(
            problems(&entry(1, "a1"), &member, &[8; 32])[0].contains("belongs to a DAG already")
        );
        assert_eq!(problems(&entry(1, "a1"), &member, &[9; 32]), Vec::<String>::new());
    }

    #[test]
    fn an_interrupted_creation_goes_on_with_its_own_id() {
        let members = [entry(1, "a1"), entry(2, "a2")];
        let (file, way) = (Path::new("dag.toml"), &Way::default());
        let creation = Creation { file, way, members: members.iter().collect() };
        let half =
            [answer(NodeState::Prepared, &[7; 16], 1), answer(NodeState::Unprovisioned, &[], 2)];
        assert_eq!(creation.dag_id(&half).expect("goes on"), [7; 16]);
        let second =
            [answer(NodeState::Member, &[7; 16], 1), answer(NodeState::Prepared, &[7; 16], 2)];
        assert_eq!(creation.dag_id(&second).expect("goes on"), [7; 16]);
    }

    #[test]
    fn a_wiped_member_is_never_formed_over() {
        let members = [entry(1, "a1"), entry(2, "a2")];
        let (file, way) = (Path::new("dag.toml"), &Way::default());
        let creation = Creation { file, way, members: members.iter().collect() };
        let wiped =
            [answer(NodeState::Member, &[7; 16], 1), answer(NodeState::Unprovisioned, &[], 2)];
        let failure = creation.dag_id(&wiped).expect_err("refused");
        assert!(failure.to_string().contains("has lost its disk"), "{failure}");
        let founders = [FoundingMember { node_id: 1, store_id: vec![1; 16].into() }];
        let other = [answer(NodeState::Prepared, &[7; 16], 5)];
        assert!(creation.check_stores(&other, &founders).is_err());
    }
}
