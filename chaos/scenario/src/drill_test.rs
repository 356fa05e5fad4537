//! What is read and what is refused, with line, key and what is allowed.

use dtm_types::text::is_held;

use super::*;
use crate::{DiskFault, Network, Outcome, Verdict, Who};

const HEAD: &str = "name = \"x\"\ntitle = { vi = \"a\", en = \"b\" }\n[targets]\nrto = \"1s\"\n";

fn with(step: &str) -> String {
    format!("{HEAD}[[step]]\n{step}\n")
}

/// On three sites: the step begins with line 9.
fn over_sites(step: &str) -> String {
    let sites = "[cluster]\nlayout = \"standby\"\nsites = [\"a:3\", \"b:3\", \"c:1\"]\n";
    format!("{HEAD}{sites}[[step]]\n{step}\n")
}

#[test]
fn the_examples_are_read() {
    let read = |text| Drill::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let kill = read(include_str!("../../drills/leader-kill.toml"));
    assert_eq!(kill.targets.availability_ppm, Some(900_000));
    assert_eq!(kill.steps[2].action, Action::Kill(Who::Leader(0)));
    assert_eq!(kill.steps[2].lasts, Some(Duration::from_secs(15)));
    assert_eq!((kill.steps[2].line, kill.is_destructive()), (21, true));
    let site = read(include_str!("../drills/site-failback.toml"));
    let Action::Network(network) = &site.steps[0].action else { panic!("{:?}", site.steps[0]) };
    let Network { loss_ppm, delay, both, .. } = network;
    assert_eq!((*loss_ppm, *delay, *both), (5_000, Duration::from_millis(20), true));
    assert_eq!(site.steps[2].expect, Expect::Refused);
    let disk = read(include_str!("../../drills/slow-disk.toml"));
    let (least, most) = (Duration::from_millis(50), Duration::from_millis(500));
    let fault = DiskFault::Slow { least, most };
    assert_eq!(disk.steps[2].action, Action::Disk { who: Who::Follower(0), fault });
    assert!(disk.longest() > Duration::from_secs(300));
}

#[test]
fn every_kind_of_step_is_read() {
    let steps = [
        "do = \"load\"\nsources = 1\nrecords_per_second = 1\nrecord_bytes = 9",
        "do = \"wait\"\nfor = \"1h\"",
        "do = \"kill\"\nwho = \"node:n1\"",
        "do = \"stop\"\nwho = \"site:a\"",
        "do = \"start\"\nwho = \"all\"",
        "do = \"pause\"\nwho = \"follower:7\"\nfor = \"5m\"",
        "do = \"starve\"\nwho = \"leader:255\"\ncpu_percent = 2.5",
        "do = \"clock\"\nwho = \"leader\"\nby = \"-1h\"",
        "do = \"cut\"\nfrom = \"node:a\"\nto = \"site:b\"\nboth = false",
        "do = \"network\"\nfrom = \"site:a\"\nto = \"site:b\"\nreorder_percent = 1",
        "do = \"disk\"\nwho = \"leader\"\nfault = \"full\"\nbytes_left = 0",
        "do = \"heal\"",
        "do = \"drain\"\nwho = \"node:n1\"",
        "do = \"replace\"\nwho = \"node:n1\"",
        "do = \"join\"\nname = \"n9\"\nsite = \"a\"",
        "do = \"promote\"\nsite = \"b\"",
        "do = \"layout\"\nkind = \"standby\"\nprimary = \"a\"\nstandby = \"b\"",
        "do = \"failback\"\nsite = \"b\"",
        "do = \"backup\"",
        "do = \"backup\"\n[[step]]\ndo = \"restore\"",
        "do = \"rotate-certificates\"",
        "do = \"rotate-key\"",
        "do = \"rolling-restart\"\nwithin = \"20m\"",
    ];
    for (step, word) in steps.iter().zip(Action::WORDS) {
        let file = if word == "restore" { with(step) } else { over_sites(step) };
        let drill = Drill::parse(&file).unwrap_or_else(|e| panic!("{step}: {e}"));
        assert_eq!(drill.steps.last().map(|step| step.action.word()), Some(word));
        assert!(is_held(&format!("drill.do.{word}")), "{word}");
    }
    let clock = Action::Clock { who: Who::Leader(0), by_ms: -3_600_000 };
    assert_eq!(Drill::parse(&with(steps[7])).expect("read above").steps[0].action, clock);
}

#[test]
fn what_is_wrong_is_named_with_line_key_and_what_is_allowed() {
    let wrong = [
        (with("do = \"kil\"\nwho = \"leader\""), 6, "step.do", "load, wait, kill"),
        (with("do = \"kill\""), 5, "step.who", "missing"),
        (with("do = \"kill\"\nwho = \"n1\""), 7, "step.who", "node:NAME"),
        (with("do = \"kill\"\nwho = \"leader:256\""), 7, "step.who", "leader:GROUP"),
        (with("do = \"kill\"\nwho = \"leader\"\nwhom = 1"), 8, "step.whom", "who, id, title"),
        (with("do = \"wait\""), 5, "step.for", "until"),
        (with("do = \"wait\"\nfor = \"10\""), 7, "step.for", "500ms"),
        (with("do = \"wait\"\nfor = \"25h\""), 7, "step.for", "a day"),
        (with("do = \"wait\"\nuntil = \"done\""), 7, "step.until", "read-back"),
        (with("do = \"clock\"\nwho = \"all\"\nby = \"1h\""), 8, "step.by", "+1h"),
        (
            with("do = \"load\"\nsources = 0\nrecords_per_second = 1"),
            7,
            "step.sources",
            "1 to 100000",
        ),
        (
            with("do = \"starve\"\nwho = \"all\"\ncpu_percent = 101"),
            8,
            "step.cpu_percent",
            "0 to 100",
        ),
        (with("do = \"network\"\nfrom = \"leader\"\nto = \"all\""), 5, "step", "jitter"),
        (with("do = \"disk\"\nwho = \"all\"\nfault = \"gone\""), 8, "step.fault", "power-cut"),
        (with("do = \"heal\"\nstep = \"x\""), 5, "step.step", "no step before"),
        (with("do = \"restore\""), 5, "step.do", "writes a backup before"),
        (over_sites("do = \"restore\""), 8, "step.do", "one site"),
        (with("do = \"backup\"\nid = \"A\""), 7, "step.id", "small letters"),
        (
            with("do = \"backup\"\nid = \"a\"\n[[step]]\ndo = \"backup\"\nid = \"a\""),
            8,
            "step.id",
            "id a",
        ),
        (with("do = \"backup\"\nexpect = \"ok\""), 7, "step.expect", "done, refused"),
        (with("do = backup"), 6, "toml", ""),
        (HEAD.to_owned(), 1, "step", "1 to 200"),
        (
            "name = \"x\"\ntitle = { vi = \"a\", en = \"b\" }\n[[step]]\n".to_owned(),
            1,
            "targets",
            "at least one target",
        ),
        (with("").replace("rto = \"1s\"", ""), 3, "targets", "proves nothing"),
        (with("").replace("rto", "rtx"), 4, "targets.rtx", "rpo_records, rto"),
        (with("do = \"backup\"").replace(", en = \"b\"", ""), 2, "title.en", "missing"),
        (
            with("do = \"backup\"\n").replace("name = \"x\"", "name = \"x\"\nfoo = 1"),
            2,
            "foo",
            "name, title",
        ),
        (format!("#{}", "x".repeat(70_000)), 1, "drill", "65536"),
        (format!("{HEAD}{}", "[[step]]\ndo = \"backup\"\n".repeat(201)), 1, "step", "200"),
    ];
    for (file, line, key, words) in wrong {
        let error = Drill::parse(&file).expect_err(&file);
        let told = error.told(Lang::En);
        assert_eq!((error.line, error.key.as_str()), (line, key), "{told}\n{file}");
        assert!(told.contains(words), "{told} lacks {words}");
        assert_ne!(error.told(Lang::Vi), told);
    }
}

#[test]
fn steps_name_sites_that_are_there_and_promote_what_stands_by() {
    let single = over_sites("do = \"promote\"\nsite = \"b\"").replace("standby", "single");
    let two = over_sites("do = \"promote\"\nsite = \"b\"").replace(", \"c:1\"", "");
    let put = "do = \"layout\"\nkind = \"single\"\n[[step]]\ndo = \"promote\"\nsite = \"b\"";
    let again = "do = \"promote\"\nsite = \"b\"\n[[step]]\ndo = \"promote\"\nsite = \"b\"";
    let layout = |rest: &str| over_sites(&format!("do = \"layout\"\nkind = {rest}"));
    let wrong = [
        (over_sites("do = \"kill\"\nwho = \"site:d\""), 10, "step.who", "a, b, c"),
        (over_sites("do = \"cut\"\nfrom = \"site:a\"\nto = \"site:x\""), 11, "step.to", "site x"),
        (over_sites("do = \"join\"\nname = \"n8\"\nsite = \"main\""), 11, "step.site", "main"),
        (with("do = \"stop\"\nwho = \"site:a\""), 7, "step.who", "main"),
        (over_sites("do = \"promote\"\nsite = \"a\""), 10, "step.site", "primary"),
        (single, 10, "step.site", "single"),
        (two, 10, "step.site", "third"),
        (over_sites(put), 13, "step.site", "single"),
        (over_sites(again), 13, "step.site", "primary"),
        (layout("\"stretched\"\nprimary = \"a\""), 8, "step.kind", "stretched"),
        (layout("\"standby\"\nprimary = \"a\"\nstandby = \"a\""), 8, "step.kind", "once"),
        (layout("\"single\"\nprimary = \"a\""), 8, "step.kind", "single"),
        (layout("\"ring\""), 10, "step.kind", "stretched"),
    ];
    for (file, line, key, words) in wrong {
        let error = Drill::parse(&file).expect_err(&file);
        let told = error.told(Lang::En);
        assert_eq!((error.line, error.key.as_str()), (line, key), "{told}\n{file}");
        assert!(told.contains(words), "{told} lacks {words}");
        assert_ne!(error.told(Lang::Vi), told);
    }
}

#[test]
fn a_target_of_the_product_is_named_and_only_one_that_the_drill_has() {
    let of = |ids: &str| {
        with("do = \"backup\"").replace("rto = \"1s\"", &format!("rto = \"1s\"\nids = {ids}"))
    };
    let drill = Drill::parse(&of("{ rto = \"P19\" }")).unwrap_or_else(|error| panic!("{error}"));
    let id = TargetId { target: "rto".to_owned(), id: "P19".to_owned() };
    assert_eq!(drill.ids, [id]);
    assert!(drill.targets_told(Lang::En)[0][1].ends_with("(P19)"));
    let error = Drill::parse(&of("{ rpo = \"P18\" }")).expect_err("it has no such target");
    assert_eq!((error.line, error.key.as_str()), (5, "ids.rpo"));
    assert!(error.told(Lang::En).contains("allowed are: rto"), "{error}");
}

#[test]
fn every_word_of_a_report_has_its_text() {
    let outcomes = [
        Outcome::Done,
        Outcome::Refused,
        Outcome::RefusedWrongly,
        Outcome::DoneWrongly,
        Outcome::Failed,
        Outcome::Late,
        Outcome::Skipped,
    ];
    let verdicts = [
        Verdict::Passed,
        Verdict::TargetsMissed,
        Verdict::Stopped,
        Verdict::StepFailed,
        Verdict::NotHealed,
    ];
    let json = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    for outcome in outcomes {
        let word = json(serde_json::json!(outcome));
        assert!(is_held(&format!("drill.outcome.{word}")), "{word}");
    }
    for verdict in verdicts {
        let word = json(serde_json::json!(verdict));
        assert!(is_held(&format!("drill.verdict.{word}")), "{word}");
    }
}
