use dtm_types::command::Setting;

use super::*;
use crate::config::{KEYS, Scope};

const LEAST: &str = "[node]\nname = \"n1\"\nadvertise = [\"127.0.0.1\"]\n";

fn base(text: &str, environment: &[(&str, &str)]) -> Base {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Base {
        path: "dtm.toml".into(),
        folder: "/".into(),
        text: format!("{LEAST}{text}"),
        environment: environment.collect(),
    }
}

fn row(version: u64, settings: &[(&str, &str)]) -> SettingsRow {
    let settings = settings
        .iter()
        .map(|(key, value)| Setting { key: (*key).to_owned(), value: (*value).to_owned() });
    SettingsRow { version, settings: settings.collect(), ..SettingsRow::default() }
}

fn origin(resolved: &Resolved, section: &str, name: &str) -> Origin {
    assert_eq!(resolved.origins.len(), KEYS.len(), "each key comes from somewhere");
    let at = KEYS.iter().position(|key| (key.section, key.name) == (section, name));
    resolved.origins[at.expect("a key")]
}

#[test]
fn the_cluster_wins_over_environment_file_and_default() {
    let base = base("[limits]\nstreams_open_max = 7\n", &[("DTM__LIMITS__READS_OPEN_MAX", "5")]);
    let alone = base.with(&SettingsRow::default()).expect("holds");
    assert_eq!(origin(&alone, "limits", "streams_open_max"), Origin::File);
    assert_eq!(origin(&alone, "limits", "reads_open_max"), Origin::Environment);
    assert_eq!(origin(&alone, "raft", "heartbeat_ms"), Origin::Default);
    let set = row(
        3,
        &[
            ("limits.reads_open_max", "9"),
            ("limits.streams_open_max", "8"),
            ("raft.heartbeat_ms", "100"),
        ],
    );
    let resolved = base.with(&set).expect("holds");
    let config = &resolved.config;
    assert_eq!((config.limits.streams_open_max, config.limits.reads_open_max), (8, 9));
    assert_eq!(config.raft.heartbeat_ms, 100);
    for (section, name) in
        [("limits", "reads_open_max"), ("limits", "streams_open_max"), ("raft", "heartbeat_ms")]
    {
        assert_eq!(origin(&resolved, section, name), Origin::Cluster, "{name}");
    }
    assert_eq!(origin(&resolved, "limits", "record_bytes_max"), Origin::Default);
}

#[test]
fn what_is_not_known_here_or_not_the_clusters_is_named_and_changes_nothing() {
    let base = base("", &[]);
    let alone = base.with(&SettingsRow::default()).expect("holds");
    let set = row(1, &[("groups.voters_max", "5"), ("node.name", "\"other\"")]);
    let resolved = base.with(&set).expect("goes on without them");
    assert_eq!(resolved.unknown, ["groups.voters_max", "node.name"]);
    assert_eq!(resolved.config, alone.config);
}

#[test]
fn faulty_settings_are_refused_with_key_and_what_is_allowed() {
    let cases = [
        ("limits.streams_open_max", "0", "limits.streams_open_max: 0 is outside 1 to 4096 streams"),
        ("limits.streams_open_max", "\"many\"", "is not a whole number"),
        ("limits.streams_open_max", "= 5", "is not a whole number"),
        ("limits.streams_open_max", "", "limits.streams_open_max"),
        ("limits.frame_bytes_max", "4096", "cannot carry a record of 8388608 bytes"),
        ("raft.heartbeat_ms", "400", "900 ms is less than three heartbeats of 400 ms"),
    ];
    for (key, value, said) in cases {
        let refused = base("", &[]).with(&row(4, &[(key, value)])).expect_err(key);
        assert_eq!(refused.0.len(), 1, "{refused}");
        assert!(refused.to_string().contains(said), "{refused}");
    }
}

#[test]
fn only_live_keys_are_followed_while_running() {
    let base = base("", &[]);
    let started = base.with(&SettingsRow::default()).expect("holds").config;
    let set = row(1, &[("limits.streams_open_max", "8"), ("raft.heartbeat_ms", "100")]);
    let said = base.with(&set).expect("holds").config;
    let running = said.live_over(&started);
    assert_eq!(running.limits.streams_open_max, 8);
    assert_eq!(running.raft, started.raft);
    for key in KEYS.iter().filter(|key| key.scope == Scope::Live) {
        assert_eq!(key.section, "limits", "{}: is it followed where it is used?", key.name);
    }
}

#[test]
fn a_start_takes_the_copy_of_the_settings_or_says_why_not() {
    let folder = std::env::temp_dir().join(format!("dtm-settings-{}", std::process::id()));
    let data = folder.join("data");
    fs::create_dir_all(&data).expect("a folder");
    let file = folder.join("dtm.toml");
    fs::write(&file, LEAST).expect("written");
    let loaded = load(&file).expect("no copy yet");
    assert_eq!((loaded.settings.version, loaded.refused.is_none()), (0, true));
    let set = row(6, &[("raft.heartbeat_ms", "100")]);
    keep(&data, &set).expect("kept");
    let loaded = load(&file).expect("with it");
    assert_eq!((loaded.config.raft.heartbeat_ms, &loaded.settings), (100, &set));
    // Its own file was changed meanwhile, so that the two do not go together.
    fs::write(&file, format!("{LEAST}[raft]\nelection_min_ms = 200\nelection_max_ms = 250\n"))
        .expect("written");
    keep(&data, &row(7, &[("raft.heartbeat_ms", "150")])).expect("kept");
    load(&file).expect_err("the file alone does not hold");
    fs::write(&file, format!("{LEAST}[raft]\nheartbeat_ms = 50\nelection_min_ms = 200\n"))
        .expect("written");
    let loaded = load(&file).expect("starts");
    assert_eq!((loaded.config.raft.heartbeat_ms, loaded.settings.version), (50, 7));
    assert!(loaded.refused.expect("told").to_string().contains("150 ms"));
    fs::write(data.join(SETTINGS), [0xff; 9]).expect("damaged");
    let loaded = load(&file).expect("starts");
    assert!(loaded.refused.is_some() && loaded.settings.version == 0);
    fs::remove_dir_all(&folder).expect("removed");
}
