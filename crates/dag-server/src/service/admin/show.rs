//! What this node says of itself and of the DAG, from its own state, with its age.

use std::net::SocketAddr;

use active_manager::control::{ControlState, DatabaseRecord, ReplicaRecord};
use active_manager::health::{self, Code};
use dag_api::Problem;
use dag_api::admin::v1 as api;
use dag_types::{CopyStatus, DatabaseId, Generation, LogId, NodeId, ReplicaId};
use replication::{GroupStatus, Role};

use super::{AdminServer, gates, seeds};
use crate::clock;
use crate::formation::Stage;
use crate::machine::View;
use crate::node::{Member, Node};
use crate::peers;
use crate::reports::STALE;
use crate::status;

/// The version of this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl AdminServer {
    /// This node.
    pub(super) fn identity(&self) -> api::NodeIdentity {
        let node = &self.node;
        let site = node.stage().formation().and_then(|formation| {
            let nodes = formation.definition().nodes;
            nodes.into_iter().find(|found| found.node == node.id().0).map(|found| found.site)
        });
        api::NodeIdentity {
            node_id: node.id().0,
            name: node.settings.name.clone(),
            site: site.unwrap_or_default(),
            store_id: node.store_id().0.to_vec().into(),
            boot_counter: node.boot().counter,
            boot_id: node.boot().id,
        }
    }

    pub(super) fn state(&self) -> api::NodeState {
        match self.node.stage() {
            Stage::Unprovisioned => api::NodeState::Unprovisioned,
            Stage::Prepared(_) => api::NodeState::Prepared,
            Stage::Member(_) => api::NodeState::Member,
        }
    }

    pub(super) fn describe_node(&self) -> api::GetNodeResponse {
        let (node, stage) = (&self.node, self.node.stage());
        let formation = stage.formation();
        let member = matches!(stage, Stage::Member(_));
        let definition = formation.map(|formation| formation.api_definition());
        let members = formation.filter(|_| member).map(|formation| formation.members().to_vec());
        api::GetNodeResponse {
            node: Some(self.identity()),
            state: self.state().into(),
            dag_id: formation.map(|f| f.dag().0.to_vec().into()).unwrap_or_default(),
            dag_name: definition.as_ref().map(|d| d.name.clone()).unwrap_or_default(),
            definition_digest: definition.map(|d| d.digest().to_vec().into()).unwrap_or_default(),
            lineage: member.then(|| node.lineage().into()),
            listeners: self.listeners(),
            insecure: self.is_insecure(),
            message: self.message(&stage),
            version: VERSION.to_owned(),
            start_time: Some(dag_api::convert::timestamp(node.started_at)),
            founding_members: members.unwrap_or_default(),
        }
    }

    fn listeners(&self) -> Vec<api::Listener> {
        let listen = &self.node.settings.listen;
        let listener = |role: api::ListenerRole, address: SocketAddr| api::Listener {
            role: role.into(),
            address: address.to_string(),
            tls: self.node.tls.is_some(),
        };
        vec![
            listener(api::ListenerRole::Api, listen.clients),
            listener(api::ListenerRole::Admin, listen.admin),
            listener(api::ListenerRole::Peer, listen.peers),
        ]
    }

    /// A listener is open to others without TLS.
    pub(super) fn is_insecure(&self) -> bool {
        let listen = &self.node.settings.listen;
        let mut all = [listen.peers, listen.clients, listen.admin].into_iter();
        self.node.tls.is_none() && all.any(|address| !address.ip().is_loopback())
    }

    /// How the node stands, in words, and the command that helps.
    fn message(&self, stage: &Stage) -> String {
        if let Some((peer, why)) = self.not_counted() {
            return format!("Member by its own disk, and not counted: node {peer} says: {why}.");
        }
        match stage {
            Stage::Unprovisioned => format!(
                "This node's store is empty and belongs to no DAG. A new DAG: {}. Into a DAG that \
                 there is: dagctl node join. If this node was a member, its disk was lost or \
                 exchanged: do not create anything; dagctl node replace brings it back.",
                status::CREATE
            ),
            Stage::Prepared(_) => {
                format!("Creation was begun and not finished. Repeat it: {}.", status::CREATE)
            }
            Stage::Member(_) if self.is_leaving() => {
                "Member, and leaving: once it is removed, stop it and remove its root folder."
                    .into()
            }
            Stage::Member(_) if self.node.control().is_none() => {
                "Member; the control group has not told its state yet.".into()
            }
            Stage::Member(_) => "Member.".into(),
        }
    }

    fn not_counted(&self) -> Option<(NodeId, String)> {
        self.node.member().ok()?.peers.not_counted()
    }

    fn is_leaving(&self) -> bool {
        let state = self.node.control();
        let own = state.as_ref().and_then(|state| state.node(self.node.id()));
        own.is_some_and(active_manager::control::NodeRecord::is_leaving)
    }

    pub(super) fn age(&self) -> api::StateAge {
        let node = &self.node;
        let Ok(member) = node.member() else { return api::StateAge::default() };
        let control = member.registry.get(DatabaseId::CONTROL).map(|group| group.status());
        let leader = control.as_ref().and_then(|status| status.leader);
        let heard = leader.and_then(|leader| match leader.node {
            id if id == node.id() => Some(0),
            id => node.reports.of(id).map(|report| report.age_ms()),
        });
        let age_ms = heard.unwrap_or_else(|| node.started.elapsed().as_millis() as u64);
        let applied = control.and_then(|status| status.applied);
        api::StateAge { age_ms, control_log_index: applied.map_or(0, |at| at.index) }
    }

    pub(super) fn databases(&self) -> Result<api::ListDatabasesResponse, Problem> {
        self.node.member()?;
        let control = self.node.control();
        let records = control.iter().flat_map(|state| &state.databases);
        let records = records.filter(|record| record.is_mailbox_database());
        let databases = records.map(|record| self.api_database(record)).collect();
        Ok(api::ListDatabasesResponse { databases, age: Some(self.age()) })
    }

    pub(super) fn api_database(&self, record: &DatabaseRecord) -> api::Database {
        let node = &self.node;
        let active = node.active_node(record.id());
        let endpoint = active.and_then(|active| node.endpoint(active, record.id()));
        let voters = record.replicas.iter().filter(|copy| copy.voter);
        api::Database {
            database_id: record.database,
            name: record.name.clone(),
            generation: record.generation,
            active_node: active.map_or(0, |node| node.0),
            active_endpoint: endpoint.unwrap_or_default(),
            copy_nodes: record.replicas.iter().map(|copy| copy.node).collect(),
            voters: voters.map(|copy| copy.node).collect(),
            mailboxes: self.mailboxes_in(record.id()),
        }
    }

    /// By this node's own copy of the database; 0 where it has none.
    fn mailboxes_in(&self, database: DatabaseId) -> u64 {
        let group = self.node.member().ok().and_then(|member| member.registry.get(database));
        let Some(group) = group.filter(|_| database >= DatabaseId::FIRST_MAILBOX_DATABASE) else {
            return 0;
        };
        mailbox::query::get_database(&View(&*group.view())).map_or(0, |found| found.mailboxes)
    }

    pub(super) fn copies(
        &self,
        request: &api::ListCopiesRequest,
    ) -> Result<api::ListCopiesResponse, Problem> {
        let mut copies = self.explained_copies(self.node.member()?);
        let name = &request.database_name;
        copies.retain(|copy| {
            (name.is_empty() || copy.database_name.eq_ignore_ascii_case(name))
                && (request.node_id == 0 || copy.node_id == request.node_id)
        });
        let facts = api::NodeFacts {
            version: VERSION.to_owned(),
            insecure: self.is_insecure(),
            disk_low: self.node.admission.disk_is_low(),
            time_ms: clock::wall().0,
        };
        let (age, gate) = (Some(self.age()), self.own_gate());
        Ok(api::ListCopiesResponse { copies, age, gate, facts: Some(facts) })
    }

    /// Every copy that this node can tell of, and what those wait for that are built.
    pub(super) fn explained_copies(&self, member: &Member) -> Vec<api::DatabaseCopy> {
        let copies = known_copies(&self.node);
        match self.node.control().filter(|_| copies.iter().any(|it| seeds::built(it).is_some())) {
            Some(state) => seeds::explain(&state, &self.reports(member, STALE), copies),
            None => copies,
        }
    }

    pub(super) fn status(&self) -> api::GetStatusResponse {
        let (node, stage) = (&self.node, self.node.stage());
        let mut response = api::GetStatusResponse {
            answered_by: Some(self.identity()),
            state: self.state().into(),
            message: self.message(&stage),
            ..api::GetStatusResponse::default()
        };
        if let Some(formation) = stage.formation() {
            response.dag_id = formation.dag().0.to_vec().into();
            response.dag_name = formation.api_definition().name;
        }
        let Ok(member) = node.member() else {
            response.warnings = self.own_warnings();
            return response;
        };
        response.age = Some(self.age());
        response.lineage = Some(node.lineage().into());
        response.control = self.control_status();
        response.copies = self.explained_copies(member);
        if let Some(state) = node.control() {
            let databases = state.databases.iter().filter(|record| record.is_mailbox_database());
            response.databases = databases.map(|record| self.api_database(record)).collect();
        }
        let members = member.peers.members();
        let nodes = members.iter().map(|(id, peer)| self.node_status(*id, peer, &response.copies));
        response.nodes = nodes.collect();
        response.gates = self.gates(member);
        response.warnings = self.own_warnings();
        response.warnings.extend(gates::warnings(&response.gates));
        response.warnings.extend(self.findings(member, &response));
        response
    }

    fn control_status(&self) -> Option<api::ControlGroupStatus> {
        let group = self.node.member().ok()?.registry.get(DatabaseId::CONTROL)?;
        let status = group.status();
        let voters = status.members.iter().filter(|member| member.voter);
        Some(api::ControlGroupStatus {
            leader_node: status.leader.map_or(0, |leader| leader.node.0),
            term: status.term,
            applied_index: status.applied.map_or(0, |at| at.index),
            voters: voters.map(|member| member.node.0).collect(),
        })
    }

    fn node_status(
        &self,
        id: NodeId,
        peer: &peers::Member,
        copies: &[api::DatabaseCopy],
    ) -> api::NodeStatus {
        let own = id == self.node.id();
        let report = self.node.reports.of(id);
        let here = |copy: &&api::DatabaseCopy| copy.node_id == id.0;
        let mounted =
            |copy: &&api::DatabaseCopy| here(copy) && copy.status() == api::CopyStatus::Mounted;
        let unheard = self.node.started.elapsed().as_millis() as u64;
        let said = report.as_ref().and_then(|report| report.facts.as_ref());
        let insecure = if own { self.is_insecure() } else { said.is_some_and(|f| f.insecure) };
        api::NodeStatus {
            node: Some(api::NodeIdentity {
                node_id: id.0,
                name: peer.name.clone(),
                site: peer.site.clone(),
                store_id: peer.store.0.to_vec().into(),
                boot_counter: if own { self.node.boot().counter } else { peer.boot.counter },
                boot_id: if own { self.node.boot().id } else { peer.boot.id },
            }),
            api_address: peer.client_address.clone(),
            peer_address: peer.peer_address.clone(),
            admin_address: peer.admin_address.clone(),
            witness: peer.witness,
            reachable: own || report.as_ref().is_some_and(|report| report.is_fresh()),
            last_heard_ms: if own { 0 } else { report.map_or(unheard, |r| r.age_ms()) },
            active_copies: copies.iter().filter(mounted).count() as u32,
            copies: copies.iter().filter(here).count() as u32,
            insecure,
        }
    }

    /// What is wrong with this node itself.
    fn own_warnings(&self) -> Vec<api::Warning> {
        let mut warnings = Vec::new();
        let own = self.node.id().0;
        if self.is_insecure() {
            let text = "a listener is open to other machines without TLS; anybody on the way can \
                        read mail (insecure = true)";
            warnings.push(warning("INSECURE_LISTENER", api::Severity::Warning, text, own, 0));
        }
        for found in self.node.tls.iter().flat_map(|tls| tls.warnings()) {
            warnings.push(warning(found.code, api::Severity::Warning, &found.text, own, 0));
        }
        if self.node.admission.disk_is_low() {
            let text = "the disk is nearly full and writes are refused; free space, or move \
                        databases away";
            warnings.push(warning(Code::DiskLow.name(), api::Severity::Error, text, own, 0));
        }
        warnings
    }

    /// What is wrong with the DAG as this node knows it.
    fn findings(&self, member: &Member, response: &api::GetStatusResponse) -> Vec<api::Warning> {
        let failed = response.copies.iter().filter_map(failure);
        let Some(state) = self.node.control() else { return failed.collect() };
        let reports = self.reports(member, STALE);
        let found = health::findings(&state, &reports).into_iter();
        let found = found.filter(|found| !is_told_better(found, response)).map(shown);
        failed.chain(found).collect()
    }
}

/// A copy that has failed, with its own words.
fn failure(copy: &api::DatabaseCopy) -> Option<api::Warning> {
    let failed = [api::CopyStatus::Failed, api::CopyStatus::FailedAndSuspended];
    let text = format!("{}: {}", copy.database_name, copy.message);
    let found = warning(
        Code::CopyFailed.name(),
        api::Severity::Error,
        &text,
        copy.node_id,
        copy.database_id,
    );
    failed.contains(&copy.status()).then_some(found)
}

/// Failed copies and closed gates are told in their own words, and what a node has not said of its
/// lineage is nothing to judge it by.
fn is_told_better(found: &health::Finding, response: &api::GetStatusResponse) -> bool {
    let node = found.node.map_or(0, |node| node.0);
    match found.code {
        Code::CopyFailed | Code::GateClosed => true,
        Code::DiskLow => response
            .warnings
            .iter()
            .any(|told| told.code == Code::DiskLow.name() && told.node_id == node),
        Code::LineageDiffers => {
            let gate = response.gates.iter().find(|gate| gate.node_id == node);
            gate.is_none_or(|gate| gate.lineage.is_none())
        }
        _ => false,
    }
}

fn shown(found: health::Finding) -> api::Warning {
    let severity = match found.code.is_error() {
        true => api::Severity::Error,
        false => api::Severity::Warning,
    };
    let text = format!("{}; {}", found.message, found.code.advice());
    let (node, database) =
        (found.node.map_or(0, |node| node.0), found.database.map_or(0, |id| id.0));
    warning(found.code.name(), severity, &text, node, database)
}

fn warning(
    code: &str,
    severity: api::Severity,
    message: &str,
    node_id: u64,
    database_id: u64,
) -> api::Warning {
    let (code, message) = (code.to_owned(), message.to_owned());
    api::Warning { code, severity: severity.into(), message, node_id, database_id }
}

/// Every copy that this node can tell of.
pub(super) fn known_copies(node: &Node) -> Vec<api::DatabaseCopy> {
    match node.control() {
        Some(state) => all_copies(node, &state),
        None => failed_control_copy(node).into_iter().collect(),
    }
}

/// Without its copy of the control group a node learns of no database. That this copy is Failed is
/// told all the same, or the others would wait for it for ever.
fn failed_control_copy(node: &Node) -> Option<api::DatabaseCopy> {
    let database = DatabaseId::CONTROL;
    let reason = node.failed.of(database)?;
    let replicas = node.member().ok()?.formation.control_replicas();
    let own = replicas.iter().find(|copy| copy.node == node.id())?;
    let copy = api::DatabaseCopy {
        database_id: database.0,
        database_name: "control".into(),
        node_id: node.id().0,
        replica_id: own.replica.0,
        generation: Generation::FIRST.0,
        voter: own.voter,
        ..api::DatabaseCopy::default()
    };
    let message = format!("{reason}; the copy comes back by reseeding");
    Some(with_status(copy, CopyStatus::Failed, message))
}

/// Every copy of every database: this node's by what it knows, the others' by their last word.
fn all_copies(node: &Node, state: &ControlState) -> Vec<api::DatabaseCopy> {
    let mut copies = Vec::new();
    for record in &state.databases {
        let from = copies.len();
        for (place, replica) in record.replicas.iter().enumerate() {
            let mut copy = match replica.node() == node.id() {
                true => own_copy(node, record, replica),
                false => others_copy(node, record, replica),
            };
            copy.activation_preference = place as u32 + 1;
            copies.push(copy);
        }
        copies.extend(seeds::copies_more(node, state, record));
        reckon_queues(&mut copies[from..]);
    }
    copies
}

/// How far each copy is behind the active one, as far as both are known.
fn reckon_queues(copies: &mut [api::DatabaseCopy]) {
    let mounted = copies.iter().filter(|copy| copy.status() == api::CopyStatus::Mounted);
    let active_last = mounted.map(|copy| copy.last_log_index).max();
    for copy in copies {
        let known = !matches!(
            copy.status(),
            api::CopyStatus::ServiceDown | api::CopyStatus::Failed | api::CopyStatus::Initializing
        );
        copy.replay_queue_length = copy.last_log_index.saturating_sub(copy.applied_index);
        if let Some(last) = active_last.filter(|_| known) {
            copy.copy_queue_length = last.saturating_sub(copy.last_log_index);
            copy.queues_known = true;
        }
    }
}

pub(super) fn blank_copy(record: &DatabaseRecord, replica: &ReplicaRecord) -> api::DatabaseCopy {
    api::DatabaseCopy {
        database_id: record.database,
        database_name: record.name.clone(),
        node_id: replica.node,
        replica_id: replica.replica,
        generation: record.generation,
        voter: replica.voter,
        ..api::DatabaseCopy::default()
    }
}

fn own_copy(node: &Node, record: &DatabaseRecord, replica: &ReplicaRecord) -> api::DatabaseCopy {
    let copy = blank_copy(record, replica);
    let copy = seeds::with_progress(node, copy);
    if let Some(copy) = seeds::instead(node, replica, &copy) {
        return copy;
    }
    if let Some(reason) = node.failed.of_copy(record.id(), replica.id()) {
        let message = format!("{reason}; the copy comes back by reseeding");
        return with_status(copy, CopyStatus::Failed, message);
    }
    if replica.store() != node.store_id() {
        let message = "this node's disk is another than the one that held this copy; it comes \
                       back by reseeding";
        return with_status(copy, CopyStatus::Failed, message.into());
    }
    let group = node.member().ok().and_then(|member| member.registry.get(record.id()));
    // The copy that it replaces may still be closing.
    let Some(group) = group.filter(|group| group.replica() == replica.id()) else {
        return with_status(copy, CopyStatus::Initializing, "it is being opened".into());
    };
    let status = group.status();
    let (word, message) = judge(&status, !group_needs_mount(record));
    let (word, message) = seeds::of_running(&copy, replica, word, message);
    let index = |at: Option<LogId>| at.map_or(0, |at| at.index);
    let copy = api::DatabaseCopy {
        last_log_index: index(status.last),
        applied_index: index(status.applied),
        term: status.term,
        scrub: scrub(node, record.id(), replica.id()),
        last_log_term: status.last.map_or(0, |at| at.term),
        group_voters: status.members.iter().filter(|m| m.voter).map(|m| m.replica.0).collect(),
        group_joint: status.joint,
        group_settled: status.settled,
        ..copy
    };
    with_status(copy, word, message)
}

/// How far this node has read its copy through.
fn scrub(node: &Node, database: DatabaseId, replica: ReplicaId) -> Option<api::ScrubProgress> {
    let known = node.scrubs.of(database).filter(|known| known.replica == replica)?;
    Some(api::ScrubProgress {
        reading: known.reading.is_some(),
        read_bytes: known.reading.unwrap_or_default(),
        sound_at_ms: known.sound_at.map_or(0, |at| at.0),
    })
}

fn group_needs_mount(record: &DatabaseRecord) -> bool {
    record.id() != DatabaseId::CONTROL
}

/// A copy's state in Exchange's words, and why it is not mounted or healthy.
fn judge(status: &GroupStatus, leading_is_mounted: bool) -> (CopyStatus, &'static str) {
    let led = status.leader.is_some();
    let behind =
        status.last.map_or(0, |at| at.index) > status.applied.map_or(0, |at| at.index) + 100;
    match status.role {
        _ if status.failed.is_some() => (CopyStatus::Failed, "a fault stopped it"),
        Role::Leader if status.serving || leading_is_mounted => (CopyStatus::Mounted, ""),
        Role::Leader if !status.candidate => (
            CopyStatus::Mounting,
            "it leads only until another copy has all it holds, and is not mounted: it is blocked, \
             suspended or built anew, its node is full, or the gate is closed; `dagctl copies` and \
             `dagctl gate explain` say which",
        ),
        Role::Leader => (CopyStatus::Mounting, "it leads and is about to serve"),
        Role::Stopped => (CopyStatus::Dismounted, "its group does not run"),
        Role::Follower | Role::Learner | Role::Candidate if !led && status.vote_quarantine => {
            (CopyStatus::Initializing, "it started a moment ago")
        }
        Role::Follower | Role::Learner | Role::Candidate if !led => {
            (CopyStatus::DisconnectedAndHealthy, "it hears no active copy")
        }
        Role::Follower | Role::Learner | Role::Candidate if behind => {
            (CopyStatus::Resynchronizing, "it catches up")
        }
        Role::Follower | Role::Learner | Role::Candidate => (CopyStatus::Healthy, ""),
    }
}

/// A copy on another node, by that node's last word.
pub(super) fn others_copy(
    node: &Node,
    record: &DatabaseRecord,
    replica: &ReplicaRecord,
) -> api::DatabaseCopy {
    let blank = blank_copy(record, replica);
    let Some(report) = node.reports.of(replica.node()) else {
        let message = "its node was not heard since this one started";
        return with_status(blank, CopyStatus::ServiceDown, message.into());
    };
    let said = report.copies.iter().find(|copy| copy.replica_id == replica.replica).cloned();
    let mut copy = said.unwrap_or_else(|| {
        let message = "its node has not told of it yet";
        with_status(blank, CopyStatus::Initializing, message.into())
    });
    copy.age_ms = report.age_ms();
    if !report.is_fresh() {
        let message = format!("its node was not heard for {} ms", report.age_ms());
        return with_status(copy, CopyStatus::ServiceDown, message);
    }
    copy
}

pub(super) fn with_status(
    mut copy: api::DatabaseCopy,
    status: CopyStatus,
    message: String,
) -> api::DatabaseCopy {
    copy.status = api::CopyStatus::from(status).into();
    copy.message = message;
    copy
}

/// A group's status for tests, with nothing in it.
#[cfg(test)]
pub(super) fn a_status(role: Role) -> GroupStatus {
    GroupStatus {
        database: DatabaseId(16),
        generation: dag_types::Generation(1),
        replica: dag_types::ReplicaId(7),
        role,
        leader: None,
        term: 1,
        last: None,
        durable: None,
        committed: None,
        applied: None,
        flushed: None,
        purged: None,
        followers: vec![],
        members: vec![],
        joint: false,
        settled: true,
        mounted: None,
        serving: false,
        may_campaign: true,
        candidate: true,
        vote_quarantine: false,
        failed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(role: Role) -> GroupStatus {
        super::a_status(role)
    }

    #[test]
    fn only_a_leader_that_serves_is_mounted() {
        let word = |status: &GroupStatus| judge(status, false).0;
        assert_eq!(word(&status(Role::Leader)), CopyStatus::Mounting);
        let for_others = judge(&GroupStatus { candidate: false, ..status(Role::Leader) }, false);
        assert_eq!(for_others.0, CopyStatus::Mounting);
        assert!(for_others.1.contains("only until another copy has all it holds"));
        assert_eq!(
            word(&GroupStatus { serving: true, ..status(Role::Leader) }),
            CopyStatus::Mounted
        );
        assert_eq!(word(&status(Role::Follower)), CopyStatus::DisconnectedAndHealthy);
        let starting = GroupStatus { vote_quarantine: true, ..status(Role::Follower) };
        assert_eq!(word(&starting), CopyStatus::Initializing);
        let leader = replication::LeaderHint { replica: dag_types::ReplicaId(1), node: NodeId(1) };
        let led = GroupStatus { leader: Some(leader), ..status(Role::Learner) };
        assert_eq!(word(&led), CopyStatus::Healthy);
        let last = Some(LogId { term: 1, index: 500 });
        assert_eq!(word(&GroupStatus { last, ..led }), CopyStatus::Resynchronizing);
        let failed = GroupStatus { failed: Some("crc".into()), ..status(Role::Leader) };
        assert_eq!(word(&failed), CopyStatus::Failed);
    }

    #[test]
    fn queues_are_reckoned_against_the_mounted_copy_and_never_guessed() {
        let copy = |status: api::CopyStatus, last, applied| api::DatabaseCopy {
            status: status.into(),
            last_log_index: last,
            applied_index: applied,
            ..api::DatabaseCopy::default()
        };
        let mut copies = [
            copy(api::CopyStatus::Mounted, 100, 100),
            copy(api::CopyStatus::Healthy, 90, 80),
            copy(api::CopyStatus::ServiceDown, 10, 10),
        ];
        reckon_queues(&mut copies);
        assert_eq!((copies[1].copy_queue_length, copies[1].replay_queue_length), (10, 10));
        assert!(copies[1].queues_known && !copies[2].queues_known);
        let mut alone = [copy(api::CopyStatus::Healthy, 90, 80)];
        reckon_queues(&mut alone);
        assert!(!alone[0].queues_known);
    }
}
