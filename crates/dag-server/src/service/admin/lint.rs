//! What is wrong with layout and settings, from this node's own knowledge. The rules are
//! `active_manager::lint`'s.

use active_manager::lint::{CODES, Finding, lint};
use dag_api::Problem;
use dag_api::admin::v1 as api;

use super::AdminServer;
use crate::reports::STALE;
use crate::status;

impl AdminServer {
    pub(super) fn lint(&self) -> Result<api::LintDagResponse, Problem> {
        let member = self.node.member()?;
        let state = self.node.control().ok_or_else(status::unprovisioned)?;
        let findings = lint(&state, &self.reports(member, STALE));
        Ok(api::LintDagResponse {
            findings: findings.into_iter().map(shown).collect(),
            age: Some(self.age()),
            node_id: self.node.id().0,
            codes: CODES.iter().map(|(_, name, _)| (*name).into()).collect(),
        })
    }
}

fn shown(finding: Finding) -> api::LintFinding {
    api::LintFinding {
        code: finding.code.name().into(),
        subject: finding.subject,
        node_id: finding.node.map_or(0, |node| node.0),
        database_id: finding.database.map_or(0, |database| database.0),
        found: finding.found,
        why: finding.code.why().into(),
        advice: finding.advice,
    }
}
