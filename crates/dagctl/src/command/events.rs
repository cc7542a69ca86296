//! `dagctl events`: who did what; any single node answers.

use std::time::Duration;

use dag_api::admin::v1::{DagEvent, ListEventsRequest};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::failure::Failure;
use crate::output::{Form, print, table};

/// How often it is looked for new events.
const LOOK: Duration = Duration::from_millis(500);
/// New events of one look: more than can happen in between.
const AT_ONCE: u32 = 10_000;

/// Which events.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArgs {
    /// How many
    #[arg(long, default_value_t = 50)]
    last: u32,
    /// Go on showing new ones, one a line, until interrupted
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, Serialize)]
struct EventLine {
    index: u64,
    time: Option<String>,
    who: String,
    from: String,
    action: String,
    object: String,
    accepted: bool,
    reason: String,
}

/// Shows the audit, the newest last.
pub async fn run(args: &EventsArgs, admin: &Admin, form: Form) -> Result<(), Failure> {
    let mut lines = read(args.last, 0, admin).await?;
    if !args.follow {
        return form.print(&lines, |lines| show(lines));
    }
    let mut newest = 0;
    loop {
        for line in &lines {
            newest = newest.max(line.index);
            match form {
                Form::Json => print(&serde_json::to_string(line).map_err(anyhow::Error::from)?)?,
                Form::Table | Form::Quiet => print(&one(line).join("  "))?,
            }
        }
        tokio::time::sleep(LOOK).await;
        // A node that does not answer now may later; what was missed meanwhile is shown then.
        lines = match read(AT_ONCE, newest, admin).await {
            Ok(lines) => lines,
            Err(failure) => {
                form.say(failure.to_string());
                Vec::new()
            }
        };
    }
}

async fn read(last: u32, after_index: u64, admin: &Admin) -> Result<Vec<EventLine>, Failure> {
    let call = |mut client: Client| async move {
        client.list_events(ListEventsRequest { last, after_index }).await
    };
    let answer = admin.ask("Cannot read the events.", call).await?;
    Ok(answer.events.iter().map(event).collect())
}

fn show(lines: &[EventLine]) -> String {
    table(["TIME", "WHO", "FROM", "ACTION", "OBJECT", "", "REASON"], lines.iter().map(one))
}

fn one(line: &EventLine) -> [String; 7] {
    [
        line.time.clone().unwrap_or_default(),
        line.who.clone(),
        line.from.clone(),
        line.action.clone(),
        line.object.clone(),
        if line.accepted { "done" } else { "REFUSED" }.to_owned(),
        line.reason.clone(),
    ]
}

fn event(event: &DagEvent) -> EventLine {
    EventLine {
        index: event.index,
        time: time(event.time_ms),
        who: event.who.clone(),
        from: event.from.clone(),
        action: event.action.clone(),
        object: event.object.clone(),
        accepted: event.accepted,
        reason: event.reason.clone(),
    }
}

/// Milliseconds since 1970 as people write a moment; none for none.
pub fn time(millis: u64) -> Option<String> {
    let moment = jiff::Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    (millis > 0).then(|| format!("{moment:.0}"))
}
