//! What the operator of a mailbox decides, and what is used of it.

use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use mailbox::command::{SettingsChange, UpdateMailbox};
use mailbox::records::MailboxSettings;
use mailbox::{Outcome, query};
use tokio::time::Instant;

use super::{Carried, MailboxServer, Seen, live_mailbox, unexpected};

impl MailboxServer {
    pub(super) async fn update_settings(
        &self,
        request: api::UpdateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::UpdateMailboxResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let settings = request.settings.ok_or_else(|| super::missing("settings"))?;
        let mask = request.update_mask.ok_or_else(|| super::missing("update_mask"))?;
        let update = UpdateMailbox {
            expected_modseq: request.expected_settings_modseq,
            ..UpdateMailbox::new(place.mailbox, change(&settings, &mask.paths)?)
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, update, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::MailboxUpdated(updated) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::UpdateMailboxResponse {
            settings: Some(api_settings(&updated.settings)),
            settings_modseq: updated.modseq,
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn quota(
        &self,
        request: api::GetQuotaRequest,
        deadline: Instant,
    ) -> Result<api::GetQuotaResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            live_mailbox(view, place)
        });
        let Seen { value, token, staleness } = read.await?;
        Ok(api::GetQuotaResponse { quotas: quotas(&value), token, staleness })
    }
}

fn quotas(mailbox: &query::Mailbox) -> Vec<api::Quota> {
    use api::QuotaResource as Resource;
    let settings = &mailbox.settings;
    let quota =
        |resource: Resource, used, limit| api::Quota { resource: resource.into(), used, limit };
    vec![
        quota(Resource::Storage, mailbox.size_bytes, settings.quota_bytes),
        quota(Resource::Message, mailbox.messages, settings.quota_messages),
        quota(Resource::Mailbox, mailbox.folders.into(), settings.quota_folders.into()),
        quota(Resource::Recoverable, mailbox.items_bytes, settings.quota_items_bytes),
    ]
}

/// Of the settings, those that the mask names.
fn change(settings: &api::MailboxSettings, mask: &[String]) -> Result<SettingsChange, Problem> {
    let mut change = SettingsChange::default();
    for name in mask {
        let mut known = false;
        let mut is = |field: &str| {
            let named = name == field || name == "*";
            known |= named;
            named
        };
        if is("quota_bytes") {
            change.quota_bytes = Some(settings.quota_bytes);
        }
        if is("quota_messages") {
            change.quota_messages = Some(settings.quota_messages);
        }
        if is("quota_folders") {
            change.quota_folders = Some(settings.quota_folders);
        }
        if is("quota_recoverable_bytes") {
            change.quota_items_bytes = Some(settings.quota_recoverable_bytes);
        }
        if is("retention_ms") {
            change.retention_ms = Some(settings.retention_ms);
        }
        if is("litigation_hold") {
            change.litigation_hold = Some(settings.litigation_hold);
        }
        if is("owner") {
            change.owner = Some(settings.owner.clone());
        }
        if is("append_limit_bytes") {
            change.append_limit = Some(settings.append_limit_bytes);
        }
        if !known {
            return Err(unknown_field(name));
        }
    }
    if mask.is_empty() {
        return Err(super::missing("update_mask"));
    }
    Ok(change)
}

/// A name in a mask that is no field.
pub(super) fn unknown_field(name: &str) -> Problem {
    let text = format!("`{name}` in update_mask is no field that can change");
    Problem::new(Reason::InvalidRequest, text).check("update_mask")
}

/// As the core has them.
pub(super) fn core_settings(settings: &api::MailboxSettings) -> MailboxSettings {
    MailboxSettings {
        quota_bytes: settings.quota_bytes,
        quota_messages: settings.quota_messages,
        quota_folders: settings.quota_folders,
        quota_items_bytes: settings.quota_recoverable_bytes,
        retention_ms: settings.retention_ms,
        litigation_hold: settings.litigation_hold,
        owner: settings.owner.clone(),
        append_limit: settings.append_limit_bytes,
    }
}

/// As the wire has them.
pub(super) fn api_settings(settings: &MailboxSettings) -> api::MailboxSettings {
    api::MailboxSettings {
        quota_bytes: settings.quota_bytes,
        quota_messages: settings.quota_messages,
        quota_folders: settings.quota_folders,
        quota_recoverable_bytes: settings.quota_items_bytes,
        retention_ms: settings.retention_ms,
        litigation_hold: settings.litigation_hold,
        owner: settings.owner.clone(),
        append_limit_bytes: settings.append_limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> api::MailboxSettings {
        api::MailboxSettings {
            quota_bytes: 1,
            quota_messages: 2,
            quota_folders: 3,
            quota_recoverable_bytes: 4,
            retention_ms: 5,
            litigation_hold: true,
            owner: "ann".into(),
            append_limit_bytes: 6,
        }
    }

    #[test]
    fn only_what_the_mask_names_changes() {
        let before = MailboxSettings { quota_bytes: 9, retention_ms: 9, ..Default::default() };
        let one = change(&settings(), &["quota_bytes".into()]).expect("a field");
        assert_eq!(one.of(&before), MailboxSettings { quota_bytes: 1, ..before.clone() });
        let all = change(&settings(), &["*".into()]).expect("all fields");
        assert_eq!(api_settings(&all.of(&before)), settings());
        assert_eq!(core_settings(&settings()), all.of(&before));
    }

    #[test]
    fn a_mask_without_fields_or_with_unknown_ones_is_refused() {
        for mask in [vec![], vec!["quota".to_owned()], vec!["settings.owner".to_owned()]] {
            let problem = change(&settings(), &mask).expect_err("no change");
            assert_eq!(problem.facts.check.as_deref(), Some("update_mask"), "{mask:?}");
        }
    }
}
