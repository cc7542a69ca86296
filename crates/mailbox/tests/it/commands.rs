//! Commands by chance: what kinds there are, and how often each comes.

use mailbox::Operation;
use mailbox::command::{
    Content, CopyMessages, CreateMailbox, DeleteFolder, Expunge, MoveMessages, PurgeItems,
    Recipient, RenameInbox, RestoreItems, SetRights, SettingsChange, StoreFlags, SubscribeName,
    Transfer, UidRange, UpdateFolder, UpdateMailbox, id_bytes,
};
use mailbox::records::MailboxSettings;
use mailbox::rights;
use proptest::prelude::*;

use crate::model_bodies::{LARGE, STAGED};
use crate::world::*;

const BODIES: [&str; 4] = ["", "one", "two two", "three three three"];
const KEYWORDS: [&str; 3] = ["work", "Home", "WORK"];

fn a_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(ANNA), 3 => Just(BEN), 1 => Just("carl")]
}

fn a_folder() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(INBOX), 2 => Just(2u32), 1 => 3u32..5]
}

fn some_uids() -> impl Strategy<Value = Vec<UidRange>> {
    let end = prop_oneof![8 => 1u32..12, 1 => Just(u32::MAX)];
    prop::collection::vec(
        (1u32..12, end).prop_map(|(first, last)| UidRange::new(first, last)),
        1..3,
    )
}

fn some_keywords() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(&KEYWORDS[..]).prop_map(String::from), 0..3)
}

/// Mostly small; now and then a large one, which came in chunks before, or comes whole.
fn a_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        24 => (0..BODIES.len()).prop_map(|body| content(BODIES[body])),
        2 => Just(()).prop_map(|()| STAGED.1.clone()),
        1 => Just(()).prop_map(|()| LARGE.clone()),
    ]
}

/// Who asks: mostly the owner, else somebody whose rights count.
fn an_actor() -> impl Strategy<Value = &'static [&'static str]> {
    let none: &[&str] = &[];
    prop_oneof![
        12 => Just(none),
        1 => Just(&[ANNA][..]),
        2 => Just(&["carl"][..]),
        2 => Just(&[BEN, "staff"][..]),
    ]
}

fn an_append() -> impl Strategy<Value = Operation> {
    let validity = prop_oneof![6 => Just(0u32), 1 => 1u32..4];
    let fields = (a_name(), a_folder(), validity, 0u32..32, some_keywords(), a_content());
    fields.prop_map(|(name, folder, validity, flags, keywords, content)| {
        let mut command = append(name, folder, "");
        command.content = content;
        command.expected_uid_validity = validity;
        command.system_flags = flags;
        command.keywords = keywords;
        command.into()
    })
}

fn a_delivery() -> impl Strategy<Value = Operation> {
    let recipient = (a_name(), 0..8u8).prop_map(|(name, kind)| match kind {
        0 => Recipient::new("", id(name)),
        1 => Recipient::new("ben@example.org", id(name)),
        _ => Recipient::new(format!("{name}@example.org"), id(name)),
    });
    let recipients = prop::collection::vec(recipient, 1..4);
    (0..6u8, a_content(), recipients, any::<bool>()).prop_map(|(delivery, any, to, honest)| {
        let mut command = deliver(&format!("d{delivery}"), &[], "");
        // An honest transport sends the same body under the same id.
        let same = BODIES[usize::from(delivery) % BODIES.len()];
        command.content = if honest { content(same) } else { any };
        command.recipients = to;
        command.into()
    })
}

fn a_store() -> impl Strategy<Value = Operation> {
    let since = prop_oneof![3 => Just(None), 1 => (0u64..30).prop_map(Some)];
    let fields = (a_name(), a_folder(), some_uids(), 1i32..4, 0u32..32, some_keywords(), since);
    fields.prop_map(|(name, folder, uids, action, system_flags, keywords, unchanged_since)| {
        let store = StoreFlags {
            mailbox_id: id_bytes(id(name)),
            folder,
            expected_uid_validity: 0,
            uids,
            action,
            system_flags,
            keywords,
            unchanged_since,
        };
        store.into()
    })
}

fn an_expunge() -> impl Strategy<Value = Operation> {
    let beyond = prop_oneof![5 => Just(false), 1 => Just(true)];
    (a_name(), a_folder(), some_uids(), any::<bool>(), beyond).prop_map(
        |(name, folder, uids, only_deleted, beyond_recovery)| {
            let mailbox_id = id_bytes(id(name));
            let expected_uid_validity = 0;
            Expunge {
                mailbox_id,
                folder,
                expected_uid_validity,
                uids,
                only_deleted,
                beyond_recovery,
            }
            .into()
        },
    )
}

fn a_transfer() -> impl Strategy<Value = Transfer> {
    let uids = (1u32..8, 1u32..8).prop_map(|(first, last)| vec![UidRange::new(first, last)]);
    let to = prop_oneof![3 => Just(None), 1 => a_name().prop_map(Some)];
    (a_name(), a_folder(), uids, to, a_folder()).prop_map(|(name, folder, uids, to, to_folder)| {
        Transfer {
            mailbox_id: id_bytes(id(name)),
            folder,
            uids,
            to_mailbox_id: to.map(|to| id_bytes(id(to))).unwrap_or_default(),
            to_folder,
            ..Transfer::default()
        }
    })
}

/// The mod-sequence that somebody saw last, if it says so.
fn a_precondition() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![6 => Just(None), 1 => (0u64..12).prop_map(Some)]
}

fn a_settings_change() -> impl Strategy<Value = Operation> {
    let quota = || prop_oneof![Just(None), Just(Some(0u64)), Just(Some(8)), Just(Some(40))];
    let retention =
        prop_oneof![Just(None), Just(Some(0u64)), Just(Some(50)), Just(Some(90_000_000))];
    let hold = prop_oneof![3 => Just(None), 2 => Just(Some(false)), 1 => Just(Some(true))];
    let folders = prop_oneof![4 => Just(None), 1 => Just(Some(0u32)), 1 => Just(Some(3))];
    let owners = prop::sample::select(&[ANNA, BEN, ""][..]);
    let owner = prop_oneof![2 => Just(None), 1 => owners.prop_map(Some)];
    let append_limit = prop_oneof![6 => Just(None), 2 => Just(Some(0u64)), 1 => Just(Some(5))];
    let change = (quota(), quota(), quota(), retention, hold, folders, owner, append_limit)
        .prop_map(
            |(
                bytes,
                messages,
                items,
                retention_ms,
                litigation_hold,
                folders,
                owner,
                append_limit,
            )| {
                SettingsChange {
                    quota_bytes: bytes.map(|bytes| bytes * 4),
                    quota_messages: messages,
                    quota_items_bytes: items,
                    quota_folders: folders,
                    owner: owner.map(String::from),
                    append_limit,
                    retention_ms,
                    litigation_hold,
                }
            },
        );
    (a_name(), change, a_precondition()).prop_map(|(name, change, expected_modseq)| {
        UpdateMailbox { expected_modseq, ..UpdateMailbox::new(id(name), change) }.into()
    })
}

fn a_folder_update() -> impl Strategy<Value = Operation> {
    let names = prop::sample::select(&["Work", "Plans", "inbox", "Old"][..]);
    let parent = prop::option::of(0u32..5);
    let special_use = prop::option::of(prop_oneof![Just(0u32), Just(6), Just(8)]);
    let place = (a_name(), 1u32..6, prop::option::of(names), parent);
    let fields = (place, special_use, any::<Option<bool>>(), a_precondition());
    fields.prop_map(|(place, special_use, subscribed, expected_modseq)| {
        let (name, folder, new_name, parent) = place;
        let update = UpdateFolder {
            name: new_name.map(String::from),
            parent,
            special_use,
            subscribed,
            expected_modseq,
            ..UpdateFolder::new(id(name), folder)
        };
        update.into()
    })
}

fn a_change_of_rights() -> impl Strategy<Value = Operation> {
    let identifiers = prop::sample::select(&["carl", "carl", "staff", "anyone", "-ben"][..]);
    let bits = prop_oneof![2 => Just(rights::ALL), 2 => 0u32..2_048, 1 => Just(rights::LOOKUP)];
    (a_name(), a_folder(), identifiers, 1i32..4, bits).prop_map(
        |(name, folder, identifier, action, rights)| {
            let (mailbox_id, identifier) = (id_bytes(id(name)), identifier.into());
            SetRights { mailbox_id, folder, identifier, action, rights }.into()
        },
    )
}

fn an_append_of_many() -> impl Strategy<Value = Operation> {
    let item = (a_content(), 0u32..32, some_keywords());
    let items = prop::collection::vec(item, 1..4);
    (a_name(), a_folder(), items).prop_map(|(name, folder, items)| {
        let mut command = append_many(name, folder, &vec![""; items.len()]);
        for (message, (content, flags, keywords)) in command.messages.iter_mut().zip(items) {
            message.content = content;
            (message.system_flags, message.keywords) = (flags, keywords);
        }
        command.into()
    })
}

fn a_newer_operation() -> impl Strategy<Value = Operation> {
    let items = || prop::collection::vec(1u64..10, 1..3);
    let paths = prop::sample::select(&["Work", "Plans", "Work/Plans", "Other Users/x"][..]);
    let names = prop::sample::select(&["Kept", "Old"][..]);
    prop_oneof![
        4 => a_transfer().prop_map(|transfer| CopyMessages::from(transfer).into()),
        4 => a_transfer().prop_map(|transfer| MoveMessages::from(transfer).into()),
        3 => a_settings_change(),
        3 => a_folder_update(),
        3 => (a_name(), 1u32..6).prop_map(|(name, folder)| DeleteFolder::new(id(name), folder).into()),
        1 => (a_name(), names).prop_map(|(name, new)| {
            RenameInbox { mailbox_id: id_bytes(id(name)), parent: 0, name: new.into() }.into()
        }),
        1 => (a_name(), paths, any::<bool>()).prop_map(|(name, path, subscribed)| {
            SubscribeName { mailbox_id: id_bytes(id(name)), path: path.into(), subscribed }.into()
        }),
        3 => a_change_of_rights(),
        2 => an_append_of_many(),
        2 => (0..2usize).prop_map(|chunk| STAGED.0[chunk].clone().into()),
        2 => (a_name(), items(), 0u32..3).prop_map(|(name, items, folder)| {
            RestoreItems { mailbox_id: id_bytes(id(name)), items, folder }.into()
        }),
        1 => (a_name(), items()).prop_map(|(name, items)| {
            PurgeItems { mailbox_id: id_bytes(id(name)), items }.into()
        }),
    ]
}

pub fn an_operation() -> impl Strategy<Value = Operation> {
    let folder_names = prop::sample::select(&["Work", "work", "inbox", "Plans"][..]);
    prop_oneof![
        1 => (a_name(), any::<bool>()).prop_map(|(name, keeps)| {
            let addresses = vec![format!("{name}@example.org")];
            let kept = MailboxSettings {
                owner: name.into(),
                retention_ms: 90_000_000,
                ..MailboxSettings::default()
            };
            let settings = keeps.then_some(kept);
            CreateMailbox { settings, ..CreateMailbox::new(id(name), addresses) }.into()
        }),
        1 => Just(delete_mailbox("carl").into()),
        2 => (a_name(), 0u32..4, folder_names, prop_oneof![4 => Just(0u32), 1 => Just(6)])
            .prop_map(|(name, parent, folder, special_use)| {
                let mut command = create_folder(name, parent, folder);
                command.special_use = special_use;
                command.into()
            }),
        8 => a_delivery(),
        6 => an_append(),
        6 => a_store(),
        4 => an_expunge(),
        2 => prop_oneof![Just(1u32), Just(3), Just(1_000)].prop_map(|limit| sweep(u64::MAX, limit).into()),
        10 => a_newer_operation(),
    ]
}

/// An operation, for whom, the request id (few of them, so that some come twice), and how the clock
/// moves: mostly a little, sometimes back, sometimes by hours or weeks.
pub type Step = (Operation, &'static [&'static str], u16, i64);

pub fn a_step() -> impl Strategy<Value = Step> {
    let hour = 3_600_000;
    let clock = prop_oneof![
        10 => 0i64..100,
        2 => -1_000i64..0,
        1 => Just(13 * hour),
        1 => Just(8 * 24 * hour),
        1 => Just(61 * 24 * hour),
    ];
    (an_operation(), an_actor(), prop_oneof![1 => 0u16..6, 4 => any::<u16>()], clock)
}
