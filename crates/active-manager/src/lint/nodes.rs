//! What nodes said of themselves: versions, listeners, clocks, disks. The rules on clocks, disks and
//! what people forgot are those of [`health`](crate::health); they are taken over, not repeated.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Code, Finding, Lint};
use crate::health;

impl Lint<'_> {
    pub(super) fn nodes(&mut self) {
        self.taken_over();
        self.versions();
        let state = self.state;
        for node in &state.nodes {
            match self.reports.node(node.id()).filter(|report| report.reachable) {
                Some(report) if report.version.is_empty() => {
                    self.not_heard(node.id(), "an older version says nothing of itself")
                }
                Some(report) if report.insecure => {
                    let found = "a listener is open to other machines without TLS".into();
                    let advice = "certificates in its `[tls]` settings, as docs/tls.md says";
                    self.of_node(Code::InsecureListener, node, found, advice);
                }
                Some(_) => {}
                None => self.not_heard(node.id(), "it does not answer now"),
            }
        }
    }

    fn not_heard(&mut self, node: dag_types::NodeId, why: &str) {
        if let Some(node) = self.state.node(node) {
            let advice = "`dagctl status` says since when; judge again when it answers";
            self.of_node(Code::NodeNotHeard, node, why.into(), advice);
        }
    }

    fn taken_over(&mut self) {
        for found in health::findings(self.state, self.reports) {
            let (code, advice) = match found.code {
                health::Code::ForgottenByPeople => (Code::Forgotten, "end it with that command"),
                health::Code::DiskLow => {
                    (Code::DiskLow, "free space there, or `dagctl db move --from-node NODE`")
                }
                health::Code::ClockSkew => (Code::ClockSkew, "a time service on every node"),
                _ => continue,
            };
            let node = found.node.and_then(|node| self.state.node(node));
            let database = found.database.and_then(|database| self.state.database(database));
            let subject = match (node, database) {
                (Some(node), Some(database)) => format!("{}@{}", database.name, node.name),
                (Some(node), None) => node.name.clone(),
                (None, _) => String::new(),
            };
            self.found.push(Finding {
                code,
                subject,
                node: found.node,
                database: found.database,
                found: found.message,
                advice: advice.into(),
            });
        }
    }

    fn versions(&mut self) {
        let mut nodes: BTreeMap<&str, Vec<dag_types::NodeId>> = BTreeMap::new();
        let heard = self.reports.nodes.iter().filter(|report| report.reachable);
        for report in heard.filter(|report| !report.version.is_empty()) {
            nodes.entry(&report.version).or_default().push(report.node);
        }
        if nodes.len() > 1 {
            let each = nodes.iter().map(|(version, nodes)| {
                format!("{version} on {}", self.names(nodes.iter().copied()))
            });
            let found = each.collect::<Vec<_>>().join("; ");
            let advice = "the same version on every node, one node after the other: \
                          docs/runbooks/node-maintenance.md";
            self.of_dag(Code::VersionsDiffer, "nodes", found, advice);
        }
    }
}
