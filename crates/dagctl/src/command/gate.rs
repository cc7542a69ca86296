//! `dagctl gate explain`: why a node may or may not serve, from any single node, without a quorum.

use dag_api::admin::v1::{GateConfirmation, GateState, GateStatus};
use serde::Serialize;

use crate::admin::Admin;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::{Form, span};

/// The gates.
#[derive(Debug, clap::Subcommand)]
pub enum Gate {
    /// Why a gate is open or closed, and the command that helps
    Explain {
        /// Only that of this node
        node: Option<String>,
    },
}

/// A gate as its node last said.
#[derive(Debug, Serialize)]
struct GateLine {
    node: String,
    node_id: u64,
    state: &'static str,
    since_ms: u64,
    opening: Option<String>,
    left_ms: Option<u64>,
    closed_because: Option<String>,
    silent_because: Option<String>,
    refused_because: Option<String>,
    control_leader: Option<String>,
    lineage_epoch: Option<u64>,
    age_ms: u64,
    confirmation: Option<ConfirmationLine>,
}

/// Whether the control leader may grant.
#[derive(Debug, Serialize)]
struct ConfirmationLine {
    holds: bool,
    holder: Option<String>,
    sites: Vec<SiteLine>,
    message: String,
}

/// How a started site is heard by the control leader.
#[derive(Debug, Serialize)]
struct SiteLine {
    site: String,
    heard: Vec<String>,
    silent: Vec<String>,
    enough: bool,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Shown {
    answered_by: String,
    gates: Vec<GateLine>,
}

/// Shows the gates; ends with code 3 where one that holds databases is not known to be open.
pub async fn run(gate: Gate, admin: &Admin, form: Form) -> Result<(), Failure> {
    let Gate::Explain { node } = gate;
    let status = admin.get_status().await?;
    let names = Names::of(&status);
    let node = node.map(|node| names.number(&node)).transpose()?;
    let wanted = |gate: &&GateStatus| node.is_none_or(|node| node == gate.node_id);
    let gates = status.gates.iter().filter(wanted).map(|gate| line(gate, &names));
    let own = status.answered_by.as_ref().map_or(0, |node| node.node_id);
    let shown = Shown { answered_by: names.name(own), gates: gates.collect() };
    form.print(&shown, show)?;
    let closed = |line: &&GateLine| !matches!(line.state, "open" | "none");
    let closed: Vec<&str> =
        shown.gates.iter().filter(closed).map(|line| line.node.as_str()).collect();
    if closed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Unhealthy, format!("Not known to be open: {}.", closed.join(", "))))
}

/// A lease that was over before it could be heard of again is not known to be open.
pub fn known_state(gate: &GateStatus) -> GateState {
    let over = gate.state() == GateState::Open && gate.age_ms >= gate.left_ms;
    if over { GateState::Unspecified } else { gate.state() }
}

/// What `status` calls the state of a gate.
pub fn state_name(state: GateState) -> &'static str {
    match state {
        GateState::Unspecified => "unknown",
        GateState::Open => "open",
        GateState::Closed => "closed",
        GateState::None => "none",
    }
}

fn line(gate: &GateStatus, names: &Names) -> GateLine {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    GateLine {
        node: names.name(gate.node_id),
        node_id: gate.node_id,
        state: state_name(known_state(gate)),
        since_ms: gate.since_ms,
        opening: text(&gate.opening),
        left_ms: (gate.state() == GateState::Open).then_some(gate.left_ms),
        closed_because: text(&gate.closed_because),
        silent_because: text(&gate.silent_because),
        refused_because: text(&gate.refused_because),
        control_leader: (gate.control_leader > 0).then(|| names.name(gate.control_leader)),
        lineage_epoch: gate.lineage.as_ref().map(|lineage| lineage.epoch),
        age_ms: gate.age_ms,
        confirmation: gate.confirmation.as_ref().map(|known| confirmation(known, names)),
    }
}

fn confirmation(known: &GateConfirmation, names: &Names) -> ConfirmationLine {
    let sites = known.sites.iter().map(|site| SiteLine {
        site: site.site.clone(),
        heard: names.list(&site.heard),
        silent: names.list(&site.silent),
        enough: site.enough,
    });
    ConfirmationLine {
        holds: known.holds,
        holder: (known.holder > 0).then(|| names.name(known.holder)),
        sites: sites.collect(),
        message: known.message.clone(),
    }
}

fn show(shown: &Shown) -> String {
    let mut text = format!("As {} knows:\n", shown.answered_by);
    for line in &shown.gates {
        text.push_str(&paragraph(line));
    }
    text
}

fn paragraph(line: &GateLine) -> String {
    let mut text = format!("\n{}: ", line.node);
    match line.state {
        "open" => text.push_str(&format!(
            "open since {}, opening {}, {} left",
            span(line.since_ms),
            line.opening.as_deref().unwrap_or("-"),
            span(line.left_ms.unwrap_or(0))
        )),
        "closed" => text.push_str(&format!("closed since {}", span(line.since_ms))),
        "none" => text.push_str("a witness holds no databases and has no gate"),
        _ => text
            .push_str("not known: it was not heard lately, and its lease is over unless renewed"),
    }
    text.push_str(&format!(" (said {} ago)\n", span(line.age_ms)));
    for (head, words) in [
        ("why", &line.closed_because),
        ("it does not ask", &line.silent_because),
        ("the control leader said", &line.refused_because),
    ] {
        if let Some(words) = words {
            text.push_str(&format!("  {head}: {words}\n"));
        }
    }
    if let Some(known) = &line.confirmation {
        text.push_str(&confirmed(known));
    }
    text
}

fn confirmed(known: &ConfirmationLine) -> String {
    let mut text = format!("  leads the control group and may grant: {}\n", known.message);
    if let Some(holder) = &known.holder {
        text.push_str(&format!("    {holder} holds a grant of this lineage\n"));
    }
    for site in &known.sites {
        let silent = if site.silent.is_empty() {
            String::new()
        } else {
            format!(", silent: {}", site.silent.join(", "))
        };
        let heard = if site.heard.is_empty() { "nobody".into() } else { site.heard.join(", ") };
        text.push_str(&format!("    site {}: heard {heard}{silent}\n", site.site));
    }
    if known.holds {
        return text;
    }
    text.replace("may grant:", "may not grant:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_is_explained_with_every_reason() {
        let gate = GateStatus {
            node_id: 2,
            state: GateState::Closed.into(),
            since_ms: 12_000,
            closed_because: "the lease ended".into(),
            silent_because: "it knows no control leader".into(),
            ..GateStatus::default()
        };
        let text = paragraph(&line(&gate, &Names::default()));
        for part in ["closed since 12.0 s", "why: the lease ended", "it does not ask: it knows"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_gate_whose_lease_is_over_since_it_was_heard_is_not_called_open() {
        let heard = |age_ms| GateStatus {
            state: GateState::Open.into(),
            left_ms: 7_000,
            age_ms,
            ..GateStatus::default()
        };
        assert_eq!(known_state(&heard(6_999)), GateState::Open);
        assert_eq!(known_state(&heard(7_000)), GateState::Unspecified);
    }

    #[test]
    fn a_control_leader_that_may_not_grant_names_the_silent_nodes() {
        let voice = dag_api::admin::v1::SiteVoice {
            site: "beta".into(),
            heard: vec![],
            silent: vec![3, 4],
            enough: false,
        };
        let known = GateConfirmation { sites: vec![voice], ..GateConfirmation::default() };
        let text = confirmed(&confirmation(&known, &Names::default()));
        assert!(text.contains("may not grant"), "{text}");
        assert!(text.contains("site beta: heard nobody, silent: 3, 4"), "{text}");
    }
}
