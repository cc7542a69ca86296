//! Generated commands against the naive model, with the invariants checked after each.

use bytes::Bytes;
use mailbox::command::{
    CopyMessages, CreateMailbox, DeleteFolder, Expunge, MoveMessages, PurgeItems, Recipient,
    RenameInbox, RestoreItems, SetRights, SettingsChange, StoreFlags, SubscribeName, Transfer,
    UidRange, UpdateFolder, UpdateMailbox, id_bytes,
};
use mailbox::{Command, Operation};
use proptest::prelude::*;

use crate::invariants::*;
use crate::model::{Model, assert_same};
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

fn an_append() -> impl Strategy<Value = Operation> {
    let validity = prop_oneof![6 => Just(0u32), 1 => 1u32..4];
    let fields = (a_name(), a_folder(), validity, 0u32..32, some_keywords(), 0..BODIES.len());
    fields.prop_map(|(name, folder, validity, flags, keywords, body)| {
        let mut command = append(name, folder, BODIES[body]);
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
    (0..6u8, 0..BODIES.len(), recipients, any::<bool>()).prop_map(|(delivery, body, to, honest)| {
        // An honest transport sends the same body under the same id.
        let body = if honest { usize::from(delivery) % BODIES.len() } else { body };
        let mut command = deliver(&format!("d{delivery}"), &[], BODIES[body]);
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
    (a_name(), a_folder(), some_uids(), any::<bool>()).prop_map(
        |(name, folder, uids, only_deleted)| {
            let mailbox_id = id_bytes(id(name));
            Expunge { mailbox_id, folder, uids, only_deleted, ..Expunge::default() }.into()
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

fn a_settings_change() -> impl Strategy<Value = Operation> {
    let quota = || prop_oneof![Just(None), Just(Some(0u64)), Just(Some(8)), Just(Some(40))];
    let retention =
        prop_oneof![Just(None), Just(Some(0u64)), Just(Some(50)), Just(Some(90_000_000))];
    let hold = prop_oneof![3 => Just(None), 2 => Just(Some(false)), 1 => Just(Some(true))];
    (a_name(), quota(), quota(), quota(), retention, hold).prop_map(
        |(name, quota_bytes, quota_messages, quota_items_bytes, retention_ms, litigation_hold)| {
            let change = SettingsChange {
                quota_bytes: quota_bytes.map(|bytes| bytes * 4),
                quota_messages,
                quota_items_bytes,
                retention_ms,
                litigation_hold,
                ..SettingsChange::default()
            };
            UpdateMailbox::new(id(name), change).into()
        },
    )
}

fn a_folder_update() -> impl Strategy<Value = Operation> {
    let names = prop::sample::select(&["Work", "Plans", "inbox", "Old"][..]);
    let parent = prop::option::of(0u32..5);
    let special_use = prop::option::of(prop_oneof![Just(0u32), Just(6), Just(8)]);
    let fields =
        (a_name(), 1u32..6, prop::option::of(names), parent, special_use, any::<Option<bool>>());
    fields.prop_map(|(name, folder, new_name, parent, special_use, subscribed)| {
        let update = UpdateFolder {
            name: new_name.map(String::from),
            parent,
            special_use,
            subscribed,
            ..UpdateFolder::new(id(name), folder)
        };
        update.into()
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
        1 => (a_name(), a_folder(), 1i32..4, 0u32..2_048).prop_map(|(name, folder, action, rights)| {
            let (mailbox_id, identifier) = (id_bytes(id(name)), "carl".into());
            SetRights { mailbox_id, folder, identifier, action, rights }.into()
        }),
        2 => (a_name(), a_folder(), prop::collection::vec(0..BODIES.len(), 1..4)).prop_map(
            |(name, folder, bodies)| append_many(name, folder, &bodies.iter().map(|body| BODIES[*body]).collect::<Vec<_>>()).into(),
        ),
        2 => (a_name(), items(), 0u32..3).prop_map(|(name, items, folder)| {
            RestoreItems { mailbox_id: id_bytes(id(name)), items, folder }.into()
        }),
        1 => (a_name(), items()).prop_map(|(name, items)| {
            PurgeItems { mailbox_id: id_bytes(id(name)), items }.into()
        }),
    ]
}

fn an_operation() -> impl Strategy<Value = Operation> {
    let folder_names = prop::sample::select(&["Work", "work", "inbox", "Plans"][..]);
    prop_oneof![
        1 => a_name().prop_map(|name| {
            let addresses = vec![format!("{name}@example.org")];
            CreateMailbox::new(id(name), addresses).into()
        }),
        1 => Just(delete_mailbox("carl").into()),
        2 => (a_name(), 0u32..4, folder_names)
            .prop_map(|(name, parent, folder)| create_folder(name, parent, folder).into()),
        8 => a_delivery(),
        6 => an_append(),
        6 => a_store(),
        4 => an_expunge(),
        2 => prop_oneof![Just(1u32), Just(3), Just(1_000)].prop_map(|limit| sweep(u64::MAX, limit).into()),
        10 => a_newer_operation(),
    ]
}

/// An operation, the request id (few of them, so that some come twice), and how the clock moves:
/// mostly a little, sometimes back, sometimes by hours or weeks.
fn a_step() -> impl Strategy<Value = (Operation, u16, i64)> {
    let hour = 3_600_000;
    let clock = prop_oneof![
        10 => 0i64..100,
        2 => -1_000i64..0,
        1 => Just(13 * hour),
        1 => Just(8 * 24 * hour),
        1 => Just(61 * 24 * hour),
    ];
    (an_operation(), prop_oneof![1 => 0u16..6, 4 => any::<u16>()], clock)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_does_what_the_naive_model_says(steps in prop::collection::vec(a_step(), 1..80)) {
        let mut world = anna_and_ben();
        let mut model = Model::default();
        let mut past = Past::default();
        for (at, name) in [ANNA, BEN].into_iter().enumerate() {
            let addresses = vec![format!("{name}@example.org")];
            let create = CreateMailbox::new(id(name), addresses);
            let request = format!("fresh-{}", at + 1);
            model.run(&Command::new(request, dag_types::Millis(1_000), create.into()));
        }
        check_all(&world, &model, &mut past);
        let mut clock = 1_000i64;
        for (operation, request, moved) in steps {
            clock = (clock + moved).max(1);
            let now = dag_types::Millis(clock as u64);
            let command = Command::new(format!("r{request}"), now, operation);
            let expected = model.run(&command);
            let outcome = world.apply(&command).0.outcome.expect("an outcome");
            assert_same(&outcome, &expected);
            check_all(&world, &model, &mut past);
            invariant_a_repeat_gets_the_same_answer_and_changes_nothing(&world, &command, &outcome);
        }
    }

    /// Whatever the bytes of an entry are, reading and applying it never panics, and what it
    /// writes keeps the digest.
    #[test]
    fn scrambled_entries_never_panic(
        operation in an_operation(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut world = anna_and_ben();
        world.fill_inbox(2);
        let command = Command::new("r", dag_types::Millis(2_000), operation);
        let mut entry = command.encode_to_bytes().to_vec();
        for (place, value) in places {
            let at = place.index(entry.len());
            entry[at] = value;
        }
        if let Ok(command) = Command::decode_from(Bytes::from(entry)) {
            let at = dag_types::LogId { term: 1, index: 99 };
            let applied = mailbox::apply(&world.view, at, &command).expect("no fault");
            world.view.write(applied.writes);
            invariant_digest_equals_recomputation(&world);
        }
    }
}
