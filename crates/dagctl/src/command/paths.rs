//! `dagctl db move-path`: a database goes to another folder while it goes on, copy by copy.

use std::time::Duration;

use dag_api::admin::v1::{MovePathRequest, MovePathResponse};
use serde::Serialize;

use super::seed::{Rate, see};
use crate::admin::{Admin, Client};
use crate::failure::Failure;
use crate::names::Names;
use crate::output::{Form, bytes};

const ATTEMPT: Duration = Duration::from_secs(10);

/// Where a database goes.
#[derive(Debug, clap::Args)]
pub struct MovePathArgs {
    /// The database
    database: String,
    /// Its folder from then on, absolute, and of this database alone
    #[arg(long, value_name = "DIR")]
    to: String,
    /// Only the copy on this node; may be repeated [default: all copies]
    #[arg(long)]
    node: Vec<String>,
    /// Where files have to be copied: at most so much, such as 100MB/s
    #[arg(long)]
    limit: Option<Rate>,
    /// Check everything, show what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// Show how it goes on until it is over; interrupting this harms nothing
    #[arg(short, long)]
    follow: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// What moves.
#[derive(Debug, Serialize)]
struct Planned {
    database: String,
    to: String,
    moves: Vec<CopyMove>,
}

#[derive(Debug, Serialize)]
struct CopyMove {
    node: String,
    from: String,
    bytes: u64,
    /// By a second name for its files; else they are copied.
    linked: bool,
    /// Another copy takes over before it moves.
    active: bool,
}

/// Carries it out.
pub async fn run(args: MovePathArgs, admin: &Admin, form: Form) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let node_ids: Result<Vec<u64>, Failure> =
        args.node.iter().map(|node| names.number(node)).collect();
    let request = MovePathRequest {
        database_name: args.database.clone(),
        path: args.to.clone(),
        node_ids: node_ids?,
        bytes_per_second: args.limit.map_or(0, |limit| limit.0),
        plan_only: args.plan,
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: args.reason.clone(),
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.move_path(request).await }
    };
    let what = format!("Cannot move {} to {}.", args.database, args.to);
    let answer = admin.change(&what, ATTEMPT, call).await?;
    let planned = planned(&args, &answer, &names);
    if args.plan || answer.operation == 0 {
        return form.print(&planned, show);
    }
    form.say(show(&planned));
    see(args.database, answer.operation, args.follow, admin, form).await
}

fn planned(args: &MovePathArgs, answer: &MovePathResponse, names: &Names) -> Planned {
    let copy_move = |known: &dag_api::admin::v1::PathMove| CopyMove {
        node: names.name(known.node_id),
        from: known.from.clone(),
        bytes: known.bytes,
        linked: known.linked,
        active: known.active,
    };
    let moves = answer.moves.iter().map(copy_move).collect();
    Planned { database: args.database.clone(), to: args.to.clone(), moves }
}

fn show(planned: &Planned) -> String {
    let Planned { database, to, moves } = planned;
    if moves.is_empty() {
        return format!("{database} lies in {to} already; there is nothing to do");
    }
    let mut lines = Vec::new();
    for CopyMove { node, from, bytes: size, linked, active } in moves {
        if *active {
            lines.push(format!("{node}: another copy takes over from the active one here"));
        }
        let how = if *linked { "gets a second name" } else { "is copied" };
        lines.push(format!("{node}: {} in {from} {how} in {to}", bytes(*size)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_each_copy_and_the_handing_over_before_the_active_one() {
        let copy = |node: &str, active: bool| CopyMove {
            node: node.into(),
            from: "/old".into(),
            bytes: 1 << 30,
            linked: !active,
            active,
        };
        let moves = vec![copy("n2", false), copy("n1", true)];
        let planned = Planned { database: "DB1".into(), to: "/new".into(), moves };
        let shown = show(&planned);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "n2: 1.0 GiB in /old gets a second name in /new");
        assert!(lines[1].starts_with("n1: another copy takes over"), "{shown}");
        assert_eq!(lines[2], "n1: 1.0 GiB in /old is copied in /new");
        let nothing = show(&Planned { moves: Vec::new(), ..planned });
        assert!(nothing.contains("already"), "{nothing}");
    }
}
