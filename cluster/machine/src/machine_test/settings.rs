//! The cluster's settings: one row, its versions, and what apply refuses.

use dtm_types::command::{PutSettings, RaiseVersion, Setting, SettingChange, SettingsRow};
use dtm_types::format::Leaf;

use crate::keys::{self, Key, table};

use super::*;

fn raised() -> Group {
    let mut group = meta();
    let raised = group.one(Op::RaiseVersion(RaiseVersion { version: 2 })).result;
    assert!(matches!(raised, Some(Answer::Done(_))), "{raised:?}");
    group
}

fn put(changes: &[(&str, Option<&str>)]) -> PutSettings {
    let changes = changes.iter().map(|(key, value)| SettingChange {
        key: (*key).to_owned(),
        value: value.map(str::to_owned),
    });
    PutSettings { changes: changes.collect(), restores: 0 }
}

impl Group {
    /// The version that was written, and the leaf of it.
    fn set(&mut self, put: PutSettings, expected: Option<u64>) -> Result<(u64, u64), RefusalKind> {
        match self.one(admin_op(admin::Op::PutSettings(put), expected)).result {
            Some(Answer::Done(done)) => Ok((done.version, done.leaf_index)),
            Some(Answer::Refusal(refusal)) => Err(refusal.kind()),
            other => panic!("{other:?}"),
        }
    }

    fn settings(&self) -> SettingsRow {
        reads::settings(&self.store).expect("rows")
    }
}

fn pairs(row: &SettingsRow) -> Vec<(&str, &str)> {
    row.settings.iter().map(|Setting { key, value }| (key.as_str(), value.as_str())).collect()
}

// holds: SEC-2
#[test]
fn a_change_makes_a_version_and_tells_its_keys_in_the_same_entry() {
    let mut group = raised();
    assert_eq!(group.settings(), SettingsRow::default(), "nothing is set");
    let change = put(&[("limits.a", Some("1")), ("raft.b", Some("2"))]);
    assert_eq!(group.set(change, Some(0)).expect("set").0, 1);
    let (version, leaf) =
        group.set(put(&[("limits.a", None), ("limits.c", Some("3"))]), Some(1)).expect("set");
    let row = group.settings();
    assert_eq!((version, row.version), (2, 2));
    assert_eq!(pairs(&row), [("limits.c", "3"), ("raft.b", "2")]);
    assert_eq!((row.time_us, row.restores), (TIME_US, 0));
    let bytes = group.store.get(&Key::of(table::LEAF).u64(leaf).done()).expect("rows");
    let told = Leaf::decode(&bytes.expect("kept")[1..]).expect("a leaf");
    assert_eq!(told.object_ids, ["settings=2", "key=limits.a", "key=limits.c"]);
    let first = reads::settings_version(&group.store, 1).expect("rows").expect("held");
    assert_eq!(pairs(&first), [("limits.a", "1"), ("raft.b", "2")]);

    let back = PutSettings { restores: 1, ..put(&[("limits.a", Some("1")), ("limits.c", None)]) };
    assert_eq!(group.set(back, Some(2)).expect("set").0, 3);
    let row = group.settings();
    assert_eq!((pairs(&row), row.restores), (pairs(&first), 1));
}

#[test]
fn what_apply_refuses_changes_nothing() {
    let mut group = raised();
    group.set(put(&[("limits.a", Some("1"))]), Some(0)).expect("set");
    let (before, (size, _)) = (group.settings(), group.machine.ledger_head());
    let (long_key, long_value) = ("k".repeat(129), "v".repeat(4097));
    let one = || put(&[("limits.a", Some("2"))]);
    let unsorted = put(&[("limits.b", Some("1")), ("limits.a", Some("1"))]);
    let twice = put(&[("limits.a", Some("1")), ("limits.a", None)]);
    let many: Vec<String> = (0..600).map(|n| format!("k{n:04}")).collect();
    let many: Vec<(&str, Option<&str>)> =
        many.iter().map(|key| (key.as_str(), Some("1"))).collect();
    let full = "v".repeat(4096);
    let keys: Vec<String> = (0..17).map(|n| format!("k{n:04}")).collect();
    let large: Vec<(&str, Option<&str>)> =
        keys.iter().map(|key| (key.as_str(), Some(full.as_str()))).collect();
    for (change, expected, why) in [
        (one(), None, RefusalKind::Malformed),
        (put(&[]), Some(1), RefusalKind::Malformed),
        (unsorted, Some(1), RefusalKind::Malformed),
        (twice, Some(1), RefusalKind::Malformed),
        (put(&[("", Some("1"))]), Some(1), RefusalKind::Limit),
        (put(&[(&long_key, Some("1"))]), Some(1), RefusalKind::Limit),
        (put(&[("limits.a", Some(&long_value))]), Some(1), RefusalKind::Limit),
        (put(&many), Some(1), RefusalKind::Limit),
        (put(&many[..300]), Some(1), RefusalKind::Limit),
        (put(&large), Some(1), RefusalKind::Limit),
        (one(), Some(0), RefusalKind::Version),
        (one(), Some(2), RefusalKind::Version),
        (one(), Some(u64::MAX), RefusalKind::Version),
        (PutSettings { restores: 2, ..one() }, Some(1), RefusalKind::NotFound),
    ] {
        assert_eq!(group.set(change.clone(), expected), Err(why), "{change:?}");
    }
    assert_eq!(group.settings(), before);
    assert_eq!(group.machine.ledger_head().0, size);
    assert_eq!(reads::settings_version(&group.store, 2).expect("rows"), None);
    group.set(put(&many[..255]), Some(1)).expect("256 keys");
    group.set(put(&[("limits.b", Some("1"))]), Some(2)).expect_err("no more");
    group.set(put(&[("limits.a", None), ("limits.b", Some("1"))]), Some(2)).expect("one goes");
}

#[test]
fn the_last_thousand_versions_are_held() {
    let mut group = raised();
    for version in 0..1_002_u64 {
        let value = version.to_string();
        group.set(put(&[("limits.a", Some(&value))]), Some(version)).expect("set");
    }
    let held = |version| reads::settings_version(&group.store, version).expect("rows");
    assert_eq!((held(1), held(2)), (None, None), "the oldest go");
    assert_eq!(pairs(&held(3).expect("held")), [("limits.a", "2")]);
    assert_eq!(held(1_002).expect("held"), group.settings());
    let (from, to) = Key::of(table::SETTINGS_VERSION).range();
    assert_eq!(group.store.scan(&from, &to, 2_000).expect("rows").len(), 1_000);
    assert!(group.store.get(&keys::settings_version(1_002)).expect("rows").is_some());
}

// holds: LIVE-1
#[test]
fn no_number_of_a_change_stops_meta() {
    const ODD: [u64; 4] = [1, u32::MAX as u64, i64::MAX as u64, u64::MAX];
    let mut group = raised();
    for restores in ODD {
        for expected in ODD {
            let change = PutSettings { restores, ..put(&[("limits.a", Some("1"))]) };
            group.set(change, Some(expected)).expect_err("no such version");
            group.machine = Machine::load(GroupId::META, &group.store).expect("rows");
        }
    }
    assert_eq!(group.set(put(&[("limits.a", Some("1"))]), Some(0)).expect("goes on").0, 1);
}

// A version beyond the last number: no entry can bring it about, and none is added to it.
#[test]
fn the_last_version_of_all_refuses_the_next() {
    let mut group = raised();
    let row = SettingsRow { version: u64::MAX, ..SettingsRow::default() };
    let mut batch = StateBatch::default();
    batch.put(vec![table::SETTINGS], row.encode_to_vec());
    group.store.write(&batch).expect("memory");
    let change = put(&[("limits.a", Some("1"))]);
    assert_eq!(group.set(change, Some(u64::MAX)), Err(RefusalKind::Version));
}
