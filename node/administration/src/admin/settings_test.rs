use dtm_types::text::Lang;
use tonic_types::StatusExt;

use super::*;

fn held(settings: &[(&str, &str)]) -> SettingsRow {
    let settings = settings
        .iter()
        .map(|(key, value)| Setting { key: (*key).to_owned(), value: (*value).to_owned() });
    SettingsRow { version: 4, settings: settings.collect(), ..SettingsRow::default() }
}

fn change(key: &str, value: Option<&str>) -> SettingChange {
    SettingChange { key: key.to_owned(), value: value.map(str::to_owned) }
}

#[test]
fn what_is_no_key_of_the_cluster_is_refused_with_what_is_meant() {
    let row = held(&[("limits.streams_open_max", "7"), ("groups.voters_max", "5")]);
    let cases = [
        (vec![], "name what to change"),
        (vec![change("limits.stream_open_max", Some("5"))], "did you mean limits.streams_open_max"),
        (vec![change("colour", Some("5"))], "colour: unknown key"),
        (vec![change("node.name", Some("\"x\""))], "each node's own"),
        (vec![change("limits.disk_reserved_bytes", Some("1"))], "each node's own"),
        (vec![change("limits.reads_open_max", None)], "is not set by the cluster"),
        (vec![change("groups.voters_max", Some("7"))], "unknown key"),
        (
            vec![change("raft.heartbeat_ms", Some("1")), change("raft.heartbeat_ms", None)],
            "not set",
        ),
        (
            vec![
                change("raft.heartbeat_ms", Some("100")),
                change("raft.heartbeat_ms", Some("110")),
            ],
            "named twice",
        ),
    ];
    for (changes, said) in cases {
        let refused = wanted(&changes, &row).expect_err(said);
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(said), "{refused}");
        let vi = refused.get_details_error_info().expect("details").metadata;
        assert!(vi["detail_vi"] != refused.message(), "{vi:?}");
    }
    let newer = wanted(&[change("groups.voters_max", None)], &row).expect("taken away");
    assert_eq!(applied_to(&row, &newer).settings.len(), 1);
}

#[test]
fn values_are_kept_as_a_file_would_show_them() {
    let row = held(&[("limits.streams_open_max", "7"), ("groups.voters_max", " 5 ")]);
    let to = wanted(&[change("limits.reads_open_max", Some("1_0"))], &row).expect("a change");
    let mut fresh = applied_to(&row, &to);
    let base = dtm_setup::config::parse(
        std::path::Path::new("t"),
        "[node]\nname = \"n1\"\nadvertise = [\"a\"]\n[limits]\nreads_open_max = 1_0\nstreams_open_max = 7\n",
        [],
    );
    as_shown(&mut fresh.settings, &base.expect("holds"));
    let kept: Vec<_> = fresh.settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
    let as_set = ("groups.voters_max", " 5 ");
    assert_eq!(kept, [as_set, ("limits.reads_open_max", "10"), ("limits.streams_open_max", "7")]);
    let effects = effects_of(&row.settings, &fresh.settings);
    let [effect] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((effect.before.as_deref(), effect.after.as_deref()), (None, Some("10")));
    assert!(effect.live);
}

#[test]
fn every_problem_is_told_with_key_and_remedy_in_both_languages() {
    let text = "[node]\nname = \"n1\"\nadvertise = [\"a\"]\n[limits]\nreads_open_max = 0\nstreams_open_max = 0\n";
    let error = dtm_setup::config::parse(std::path::Path::new("t"), text, []).expect_err("faulty");
    let status = refused(&error, Some("n2"));
    let said = status.message();
    for part in [
        "on node n2",
        "limits.reads_open_max: 0 is outside 1 to 4096 reads",
        "limits.streams_open_max",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let vi = &status.get_details_error_info().expect("details").metadata["detail_vi"];
    let remedy = Told::new("config.remedy.inside").of(Lang::Vi);
    assert!(vi.contains("trên nút n2") && vi.contains(&remedy), "{vi}");
}
