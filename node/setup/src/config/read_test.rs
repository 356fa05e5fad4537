use super::*;

const LEAST: &str = "[node]\nname = \"n1\"\nadvertise = [\"127.0.0.1\"]\n";

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    parse(Path::new("dtm.toml"), text, environment)
        .map_err(|error| error.0.iter().map(ToString::to_string).collect())
}

#[test]
fn defaults_hold_and_stand_in_their_ranges() {
    let config = read(LEAST, &[]).expect("reads");
    assert_eq!(config.limits.record_bytes_max, 8 << 20);
    assert_eq!(config.limits.frame_bytes_max, 9 << 20);
    assert_eq!(config.limits.node_in_flight_bytes_max, 256 << 20);
    assert_eq!(config.node.grpc.port(), 9443);
    let raft = dtm_cluster::Timing {
        heartbeat_ms: config.raft.heartbeat_ms,
        election_min_ms: config.raft.election_min_ms,
        election_max_ms: config.raft.election_max_ms,
    };
    assert_eq!(raft, dtm_cluster::Timing::default(), "the layer below has the same");
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let config = read(LEAST, &[("DTM__NODE__SITE", "hà nội")]).expect("reads");
    let mut text = String::new();
    let mut current = "";
    for (section, key, value, json) in config.rows() {
        assert!(json.is_number() == value.starts_with(|c: char| c.is_ascii_digit()), "{key}");
        assert!(!json.as_str().is_some_and(|text| text.starts_with('"')), "{key}: {json}");
        if section != current {
            text.push_str(&format!("[{section}]\n"));
            current = section;
        }
        text.push_str(&format!("{key} = {value}\n"));
    }
    assert_eq!(read(&text, &[]).expect("reads"), config);
}

#[test]
fn unknown_keys_are_refused_with_line_and_remedy() {
    let text = format!("{LEAST}zoen = \"a\"\n\n[limit]\nx = 1\n[raft]\nqqqq = 1\n");
    let problems = read(&text, &[]).expect_err("refused");
    assert_eq!(
        problems,
        [
            "dtm.toml:6: limit: unknown section; did you mean limits? Otherwise remove it",
            "dtm.toml:4: node.zoen: unknown key; did you mean zone? Otherwise remove it",
            "dtm.toml:9: raft.qqqq: unknown key; remove it; docs/config.md lists every key",
        ]
    );
}

#[test]
fn wrong_kinds_ranges_and_missing_keys_come_in_one_report() {
    let text = "[node]\ngrpc = \"nowhere\"\nadvertise = []\n[limits]\nstreams_open_max = 0\nframe_bytes_max = \"big\"\n";
    let problems = read(text, &[]).expect_err("refused");
    assert_eq!(problems.len(), 5, "{problems:#?}");
    let has = |start: &str| {
        assert!(problems.iter().any(|p| p.starts_with(start)), "{start}: {problems:#?}")
    };
    has("dtm.toml: node.name: is compulsory and missing; add it under [node]");
    has("dtm.toml:2: node.grpc: \"nowhere\" is not a address and port");
    has("dtm.toml:3: node.advertise: 0 is outside 1 to 16 names");
    has("dtm.toml:5: limits.streams_open_max: 0 is outside 1 to 4096 streams");
    has("dtm.toml:6: limits.frame_bytes_max: \"big\" is not a whole number");
}

#[test]
fn values_that_do_not_fit_are_told_with_their_line_beside_the_others() {
    let text = format!(
        "{LEAST}frobnicate = 1\n[limits]\nrecord_bytes_max = 5\nframe_bytes_max = 4_096\n\
         [raft]\nelection_min_ms = 5_000\nelection_max_ms = 300\n"
    );
    let problems = read(&text, &[]).expect_err("refused");
    let at = |key: &str| problems.iter().filter(|p| p.contains(key)).collect::<Vec<_>>();
    assert!(at("node.frobnicate")[0].starts_with("dtm.toml:4"), "{problems:#?}");
    assert!(at("record_bytes_max:")[0].starts_with("dtm.toml:6"), "{problems:#?}");
    assert!(at("raft.election_max_ms")[0].starts_with("dtm.toml:10"), "{problems:#?}");
    assert_eq!(problems.len(), 3, "what is wrong alone is not held against others: {problems:#?}");
}

#[test]
fn names_under_which_nobody_reaches_a_node_are_refused() {
    for good in ["localhost", "n1.example.vn", "10.0.0.1", "::1"] {
        let text = format!("[node]\nname = \"n1\"\nadvertise = [\"{good}\"]\n");
        read(&text, &[]).expect(good);
    }
    for bad in ["", "n1:9443", "https://n1", "n 1", "[::1]"] {
        let text = format!("[node]\nname = \"n1\"\nadvertise = [\"n1\", \"{bad}\"]\n");
        let problems = read(&text, &[]).expect_err("refused");
        let told = format!("dtm.toml:3: node.advertise: {bad:?} is no host name");
        assert!(problems[0].starts_with(&told), "{problems:?}");
    }
    let problems = read("[node]\nname = \"\"\nadvertise = [\"n1\"]\n", &[]).expect_err("no name");
    assert!(problems[0].starts_with("dtm.toml:2: node.name: is empty"), "{problems:?}");
}

#[test]
fn every_kind_and_every_unit_has_its_words() {
    for key in KEYS {
        assert!(KINDS.iter().any(|(kind, _)| *kind == key.kind), "{}", key.kind);
        let (_, text) = UNITS.iter().find(|(unit, _)| *unit == key.unit).expect(key.unit);
        assert!(dtm_types::text::is_held(text), "{text}");
    }
}

#[test]
fn broken_toml_names_its_line() {
    let problems = read("[node]\nname = \"n1\n", &[]).expect_err("refused");
    assert!(problems[0].starts_with("dtm.toml:2: not TOML"), "{problems:?}");
}

#[test]
fn the_environment_wins_and_its_unknown_names_are_refused() {
    let config = read(LEAST, &[("DTM__NODE__NAME", "n9"), ("DTM__LIMITS__STREAMS_OPEN_MAX", "8")])
        .expect("reads");
    assert_eq!((config.node.name.as_str(), config.limits.streams_open_max), ("n9", 8));
    let problems = read(LEAST, &[("DTM__NODE__NMAE", "x")]).expect_err("refused");
    assert_eq!(
        problems,
        ["DTM__NODE__NMAE: names no key; unset it; the form is DTM__SECTION__KEY"]
    );
    let problems = read(LEAST, &[("DTM__RAFT__HEARTBEAT_MS", "soon")]).expect_err("refused");
    assert!(
        problems[0].starts_with("DTM__RAFT__HEARTBEAT_MS: raft.heartbeat_ms: soon is not a whole")
    );
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    let text =
        format!("{LEAST}[limits]\nrecord_bytes_max = 10_000_000\n[raft]\nelection_min_ms = 200\n");
    let problems = read(&text, &[]).expect_err("refused");
    assert_eq!(problems.len(), 2, "{problems:#?}");
}

#[test]
fn a_second_channel_that_shares_anything_with_the_first_is_refused() {
    let second = "second_certificate = \"b.pem\"\nsecond_key = \"b.key\"\n";
    let node = "01a203e1-02fa-7309-9cf3-78356679c21c";
    let of = |first: &str, listen: &str, more: &str| {
        let sites = format!("[sites]\nsecond_listen = \"{listen}\"\n{second}{more}");
        read(&format!("{LEAST}sites = \"{first}\"\n{sites}"), &[])
    };
    let peers = format!("second_peers = [\"{node}=n2b.example:9446\"]\n");
    let config = of("10.0.0.1:9445", "10.1.0.1:9446", &peers).expect("independent");
    assert!(crate::config::second_peer(&config.sites.second_peers[0]).is_some());
    assert_eq!((&*config.sites.second_kind, &*config.sites.standby), ("quic", "at-once"));
    let chosen = "second_kind = \"tcp\"\nstandby = \"confirmed\"\nsecond_ca = \"second-ca.pem\"\n";
    of("10.0.0.1:9445", "10.1.0.1:9446", chosen).expect("another kind, after one word");
    for (first, listen, more) in [
        ("10.0.0.1:9445", "10.0.0.1:9446", ""),
        ("0.0.0.0:9445", "10.1.0.1:9446", ""),
        ("", "10.1.0.1:9446", ""),
        ("n1.example:9445", "10.1.0.1:9446", ""),
        ("10.0.0.1:9445", "10.1.0.1:9446", "second_peers = [\"n2=n2b.example:9446\"]\n"),
        ("10.0.0.1:9445", "10.1.0.1:9446", "congestion = \"reno\"\n"),
        ("10.0.0.1:9445", "10.1.0.1:9446", "second_kind = \"udp\"\n"),
        ("10.0.0.1:9445", "10.1.0.1:9446", "standby = \"by-hand\"\n"),
        ("10.0.0.1:9445", "10.1.0.1:9446", "line_window_bytes = 1_048_576\n"),
    ] {
        let problems = of(first, listen, more).expect_err("refused");
        assert_eq!(problems.len(), 1, "{first} {listen} {more}: {problems:#?}");
    }
}

// A follower that cannot write what its leader took stops for that group, again and again.
//
// holds: LIVE-1
#[test]
fn every_log_takes_the_largest_command_whatever_is_configured() {
    let problems = read(&format!("{LEAST}[log]\nsegment_bytes = 67_108_863\n"), &[]);
    let problems = problems.expect_err("refused");
    assert!(problems[0].contains("log.segment_bytes: 67108863 is outside"), "{problems:?}");
    let key = KEYS.iter().find(|key| key.name == "segment_bytes").expect("a key");
    let log = dtm_storage::log::LogConfig { segment_bytes: key.range.0, ..Default::default() };
    let around = 64 << 10;
    assert!(log.payload_bytes_max() >= dtm_types::bundle::COMMAND_BYTES_MAX + around);
}

#[test]
fn every_default_is_toml() {
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        assert!(DeValue::parse(key.default).is_ok(), "{}.{}", key.section, key.name);
        assert!(!key.doc.trim().is_empty() && key.range.0 <= key.range.1, "{}", key.name);
    }
}
