//! grpc.health.v1: which databases are mounted on this node.
//!
//! The whole server (the empty name) is SERVING while the process runs; a database is SERVING on
//! the one node where it is mounted, under `holdfast.mailbox.v1.MailboxService/<name>`.

use std::collections::BTreeMap;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::node::Node;

const SERVICE: &str = "holdfast.mailbox.v1.MailboxService";

/// Tells the health service what changed.
pub struct Health {
    reporter: HealthReporter,
    told: BTreeMap<String, bool>,
}

impl Health {
    /// Nothing is told yet.
    pub fn new(reporter: HealthReporter) -> Self {
        Self { reporter, told: BTreeMap::new() }
    }

    /// Compares what is mounted with what was told.
    pub async fn update(&mut self, node: &Node) {
        let (Ok(member), Some(control)) = (node.member(), node.control()) else { return };
        for database in control.databases.iter().filter(|db| db.is_mailbox_database()) {
            let group = member.registry.get(database.id());
            let serving = group.is_some_and(|group| group.serving().is_ok());
            let name = format!("{SERVICE}/{}", database.name);
            if self.told.get(&name) == Some(&serving) {
                continue;
            }
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(name.clone(), status).await;
            self.told.insert(name, serving);
        }
    }
}
