//! What is examined, and in what words.

use super::*;

const NOW_US: i64 = 1_795_000_000_000_000;

#[test]
fn a_fit_folder_is_measured_and_left_clean() {
    let scratch = tempfile::tempdir().expect("a folder");
    let sync = disk_sync(scratch.path());
    assert!(sync.found.to_string().contains("median"), "{sync:?}");
    assert_eq!(fs::read_dir(scratch.path()).expect("reads").count(), 0);
    assert!(disk_space(scratch.path(), 0).found.to_string().contains("MiB free"));
    assert_eq!(disk_space(scratch.path(), u64::MAX).verdict, Verdict::Bad);
    assert_eq!(disk_sync(&scratch.path().join("none")).verdict, Verdict::Bad);
}

#[test]
fn certificates_near_their_end_are_told() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("ca.pem");
    let authority = pki::make_authority("t", NOW_US).expect("made");
    fs::write(&path, pki::pem([&authority.root])).expect("written");
    let days = i64::from(pki::ROOT_DAYS);
    for (at_days, verdict) in
        [(0, Verdict::Ok), (days - 3, Verdict::Warning), (days + 1, Verdict::Bad)]
    {
        assert_eq!(certificate("ca", &path, NOW_US + at_days * DAY_US).verdict, verdict);
    }
}

#[test]
fn every_remedy_has_words() {
    for lang in [Lang::Vi, Lang::En] {
        for finding in examine(None, 0) {
            assert_eq!(finding.remedy == Remedy::None, finding.verdict == Verdict::Ok);
            for text in [finding.remedy.text(lang), finding.found.of(lang)] {
                assert!(!text.starts_with("doctor."), "{text}");
            }
        }
    }
    for key in [
        "name_config",
        "set_clock",
        "run_chrony",
        "raise_files",
        "better_disk",
        "writable",
        "free_space",
        "make_folder",
        "renew",
        "config_check",
        "reach_cluster",
        "start_node",
        "same_release",
        "take_settings",
        "site_lag",
    ] {
        let text = Remedy::Key(key).text(Lang::Vi);
        assert!(!text.is_empty() && !text.contains("doctor.remedy"), "{key}");
    }
}

#[test]
fn sites_that_lag_are_told_and_one_site_is_not() {
    let lag = |site: &str, lag_ms, late| dtm_proto::admin::ReplicaLag {
        site: site.into(),
        lag_ms,
        late,
        ..Default::default()
    };
    let status = |lags: Vec<dtm_proto::admin::ReplicaLag>| {
        let group = dtm_proto::admin::GroupStatus { group: 1, lags, ..Default::default() };
        ClusterStatusResponse { groups: vec![group], ..Default::default() }
    };
    assert!(sites(&status(Vec::new())).is_empty());
    let level = sites(&status(vec![lag("b", 40, false)]));
    assert_eq!((level.len(), level[0].verdict), (1, Verdict::Ok));
    let late = sites(&status(vec![lag("b", 7_200, true), lag("b", 6_000, true)]));
    assert_eq!((late.len(), late[0].verdict), (1, Verdict::Warning));
    assert!(late[0].found.to_string().contains("1 groups are behind, by up to 7 s"), "{late:?}");
    assert_eq!(late[0].remedy, Remedy::Key("site_lag"));
}

#[test]
fn nodes_of_another_release_or_without_an_answer_are_told() {
    let node = |name: &str, software: &str, reachable| dtm_proto::admin::NodeStatus {
        node: Some(dtm_types::command::NodeRow {
            name: name.into(),
            software_version: software.into(),
            version_max: 1,
            ..Default::default()
        }),
        reachable,
        ..Default::default()
    };
    let own = env!("CARGO_PKG_VERSION");
    let mut astray = node("n4", own, true);
    (astray.clock_astray, astray.clock_offset_us) = (true, -1_200_000);
    let mut behind = node("n5", own, true);
    behind.settings_unknown = vec!["groups.voters_max".to_owned()];
    let mut all = vec![node("n1", own, true), node("n2", "0.0.0", true)];
    all.extend([node("n3", own, false), astray, behind]);
    for (name, days) in [("n6", 29), ("n7", 31)] {
        let certificate_not_after_us = NOW_US + days * DAY_US;
        all.push(dtm_proto::admin::NodeStatus {
            certificate_not_after_us,
            ..node(name, own, true)
        });
    }
    let status = ClusterStatusResponse { nodes: all, ..Default::default() };
    let found = nodes(Ok(status), Lang::En, NOW_US);
    let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
    let warning = Verdict::Warning;
    let ok = Verdict::Ok;
    assert_eq!(verdicts, [ok, warning, warning, warning, warning, warning, ok]);
    assert!(found[1].found.to_string().contains("n2: dtm 0.0.0"), "{found:?}");
    assert_eq!(found[1].remedy, Remedy::Key("same_release"));
    assert_eq!(found[2].remedy, Remedy::Key("start_node"));
    assert!(found[3].found.to_string().contains("its clock is -1200 ms off"), "{found:?}");
    assert_eq!(found[3].remedy, Remedy::Key("set_clock"));
    assert!(found[4].found.to_string().contains("groups.voters_max"), "{found:?}");
    assert_eq!(found[4].remedy, Remedy::Key("take_settings"));
    assert!(found[5].found.to_string().contains("certificate has 29 days left"), "{found:?}");
    assert_eq!(found[5].remedy, Remedy::Key("renew_node"));
    let nobody = nodes(Err(Failure::usage("cli.no_context", &[])), Lang::En, NOW_US);
    assert_eq!(nobody[0].verdict, Verdict::Ok, "a machine that no cluster was shown to");
}

#[test]
fn the_unit_file_fits_what_is_looked_at_here() {
    const UNIT: &str = include_str!("../../../ops/systemd/dtm.service");
    let value = |key: &str| {
        let mut lines = UNIT.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value).expect("it is set")
    };
    let files: u64 = value("LimitNOFILE").parse().expect("a number");
    assert!(files >= OPEN_FILES_WANTED);
    let exit = crate::config::EXIT_CONFIG.to_string();
    assert_eq!(value("RestartPreventExitStatus"), exit);
    assert_eq!((value("LimitCORE"), value("Restart")), ("0", "on-failure"));
}

#[test]
fn a_clock_that_nobody_keeps_is_told() {
    let kept = disciplined(0, 0, 1_500);
    assert_eq!((kept.verdict, kept.remedy), (Verdict::Ok, Remedy::None));
    assert_eq!(kept.found.to_string(), "synchronised, error at most 1500 us");
    // TIME_ERROR is 5; a call that failed is -1, whatever the status holds then.
    for (state, status) in [(5, libc::STA_UNSYNC), (0, libc::STA_UNSYNC), (-1, 0)] {
        let alone = disciplined(state, status, 16_000_000);
        assert_eq!((alone.check, alone.verdict), ("clock_discipline", Verdict::Warning));
        assert_eq!(alone.remedy, Remedy::Key("run_chrony"));
        assert_eq!(alone.found.to_string(), "not synchronised");
    }
    // Whatever this machine says: one of the two.
    assert_ne!(clock_discipline().verdict, Verdict::Bad);
}

#[test]
fn too_few_files_are_told_by_the_limit_in_force() {
    let wanted = OPEN_FILES_WANTED;
    for (limits, verdict) in [
        (Some((wanted, wanted)), Verdict::Ok),
        (Some((wanted - 1, u64::MAX)), Verdict::Warning),
        (Some((1_024, 1_024)), Verdict::Warning),
        (None, Verdict::Warning),
    ] {
        let found = files_allowed(limits);
        assert_eq!((found.check, found.verdict), ("open_files", verdict), "{limits:?}");
        let is_told = found.remedy == Remedy::Key("raise_files");
        assert_eq!(is_told, verdict == Verdict::Warning);
    }
    assert_eq!(files_allowed(Some((1_024, 4_096))).found.to_string(), "1024 now, at most 4096");
    // The limit of this very process, as the system has it.
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("listed");
    let now = line.split_whitespace().nth(3).expect("the limit in force");
    assert!(open_files().found.to_string().starts_with(&format!("{now} now")), "{line}");
}

#[test]
fn the_version_of_this_software_and_the_clock_are_always_looked_at() {
    let checks: Vec<_> = examine(None, NOW_US).into_iter().map(|found| found.check).collect();
    assert_eq!(checks, ["version", "clock", "clock_discipline", "open_files", "config"]);
    let version = &examine(None, NOW_US)[0];
    assert_eq!(version.found.to_string(), format!("dtm {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_old_clock_is_bad() {
    assert_eq!(clock(0).verdict, Verdict::Bad);
    assert_eq!(clock(NOW_US).verdict, Verdict::Ok);
    assert_eq!(clock(NOW_US).found.to_string(), "2026-11-18T18:06:40+07:00");
}
