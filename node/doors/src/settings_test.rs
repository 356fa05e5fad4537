use std::path::Path;

use dtm_types::command::Setting;

use super::*;

fn settings() -> Settings {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dtm.toml");
    let text =
        "[node]\nname = \"n1\"\nadvertise = [\"127.0.0.1\"]\n[limits]\nrecord_bytes_max = 9_000\n";
    std::fs::write(&file, text).expect("written");
    Settings::new(config::load(Path::new(&file)).expect("holds"))
}

fn row(version: u64, settings: &[(&str, &str)]) -> SettingsRow {
    let settings = settings
        .iter()
        .map(|(key, value)| Setting { key: (*key).to_owned(), value: (*value).to_owned() });
    SettingsRow { version, settings: settings.collect(), ..SettingsRow::default() }
}

fn taken(settings: &Settings, row: SettingsRow) -> Arc<InForce> {
    match settings.take(row) {
        Taken::Now(now) => now,
        Taken::Refused(error) => panic!("{error}"),
    }
}

#[test]
fn live_keys_hold_at_once_and_the_others_are_pending() {
    let settings = settings();
    let set = [("limits.streams_open_max", "7"), ("raft.heartbeat_ms", "100")];
    let now = taken(&settings, row(1, &set));
    assert_eq!((now.running.limits.streams_open_max, now.running.raft.heartbeat_ms), (7, 150));
    assert_eq!(limits(&now.running).streams_open_max, 7);
    assert_eq!(now.pending, ["raft.heartbeat_ms"]);
    let shown = now.rows().find(|row| row.0 == "raft.heartbeat_ms").expect("a key");
    let pending = Some("100".to_owned());
    assert_eq!(
        shown,
        ("raft.heartbeat_ms".into(), "150".into(), Origin::Cluster, Scope::Start, pending)
    );
    // Taken back before the next start: as if it had never been.
    let now = taken(&settings, row(2, &[]));
    assert_eq!((now.running.limits.streams_open_max, now.pending.len()), (64, 0));
    let shown = now.rows().find(|row| row.0 == "limits.record_bytes_max").expect("a key");
    assert_eq!((shown.1.as_str(), shown.2), ("9000", Origin::File));
}

#[test]
fn what_does_not_go_with_the_own_file_leaves_what_was_in_force() {
    let settings = settings();
    taken(&settings, row(1, &[("limits.streams_open_max", "7")]));
    // Smaller than the records of this node's file.
    let faulty = row(2, &[("limits.frame_bytes_max", "8000"), ("limits.streams_open_max", "9")]);
    let Taken::Refused(error) = settings.take(faulty) else { panic!("taken") };
    assert!(error.to_string().contains("9000"), "{error}");
    let now = settings.now();
    assert_eq!((now.row.version, now.running.limits.streams_open_max), (1, 7));
    assert_eq!(now.not_taken, ["limits.frame_bytes_max", "limits.streams_open_max"]);
    assert!(!now.is_news(2, true), "looked at once");
    let now = taken(&settings, row(3, &[("limits.streams_open_max", "9")]));
    assert_eq!((now.running.limits.streams_open_max, now.not_taken.len()), (9, 0));
}

#[test]
fn what_a_newer_release_sets_is_left_alone_and_told() {
    let settings = settings();
    let set = [("groups.voters_max", "5"), ("limits.streams_open_max", "7")];
    let now = taken(&settings, row(1, &set));
    assert_eq!(now.not_taken, ["groups.voters_max"]);
    assert_eq!(now.running.limits.streams_open_max, 7);
}

#[test]
fn an_older_row_counts_only_once_meta_is_confirmed() {
    let settings = settings();
    let now = taken(&settings, row(5, &[("limits.streams_open_max", "7")]));
    assert!(!now.is_news(4, false), "this node has just started");
    assert!(now.is_news(4, true), "the cluster was restored");
    assert!(now.is_news(6, false) && !now.is_news(5, true));
}
