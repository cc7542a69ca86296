//! Settings of the whole DAG: what they are, and how they are changed.

use active_manager::control::{Hook, Order, Outcome, Settings};
use dag_api::Problem;
use dag_api::admin::v1 as api;
use tokio::time::Instant;

use super::AdminServer;
use super::orders::{Asker, unreadable};
use crate::status;

impl AdminServer {
    pub(super) fn settings(&self) -> Result<api::GetSettingsResponse, Problem> {
        self.node.member()?;
        let state = self.node.control().ok_or_else(status::unprovisioned)?;
        Ok(api::GetSettingsResponse {
            settings: Some(shown(&state.settings)),
            age: Some(self.age()),
        })
    }

    pub(super) async fn change_settings(
        &self,
        wish: &api::ChangeSettingsRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::ChangeSettingsResponse, Problem> {
        let before = self.office(deadline).await?.state.settings;
        let after = Settings {
            move_block_ms: wish.move_block_ms.unwrap_or(before.move_block_ms),
            nag_after_ms: wish.nag_after_ms.unwrap_or(before.nag_after_ms),
            copy_queue_max: wish.copy_queue_max.unwrap_or(before.copy_queue_max),
            replay_queue_max: wish.replay_queue_max.unwrap_or(before.replay_queue_max),
            auto_balance: wish.auto_balance.unwrap_or(before.auto_balance),
            snapshot_every_ms: wish.snapshot_every_ms.or(before.snapshot_every_ms),
            snapshots_kept: wish.snapshots_kept.or(before.snapshots_kept),
            hooks: hooks(before.hooks, wish),
        };
        let settings = Some(shown(&after));
        match self.order(Order::SetSettings(after), &asker).await? {
            Outcome::Changed(changed) => {
                Ok(api::ChangeSettingsResponse { settings, was_so: changed.was_so })
            }
            _ => Err(unreadable()),
        }
    }
}

const HOOK_MS: u64 = 10_000;

fn hooks(mut hooks: Vec<Hook>, wish: &api::ChangeSettingsRequest) -> Vec<Hook> {
    for named in wish.add_hook.iter().chain(&wish.remove_hook) {
        hooks.retain(|hook| (&hook.event, &hook.program) != (&named.event, &named.program));
    }
    hooks.extend(wish.add_hook.as_ref().map(|hook| Hook {
        event: hook.event.clone(),
        program: hook.program.clone(),
        timeout_ms: if hook.timeout_ms == 0 { HOOK_MS } else { hook.timeout_ms },
    }));
    hooks
}

fn shown_hook(hook: &Hook) -> api::Hook {
    api::Hook {
        event: hook.event.clone(),
        program: hook.program.clone(),
        timeout_ms: hook.timeout_ms,
    }
}

fn shown(settings: &Settings) -> api::DagSettings {
    api::DagSettings {
        move_block_ms: settings.move_block_ms,
        nag_after_ms: settings.nag_after_ms,
        copy_queue_max: settings.copy_queue_max,
        replay_queue_max: settings.replay_queue_max,
        auto_balance: settings.auto_balance,
        hooks: settings.hooks.iter().map(shown_hook).collect(),
        snapshot_every_ms: settings.snapshot_every(),
        snapshots_kept: settings.snapshot_keep(),
    }
}
