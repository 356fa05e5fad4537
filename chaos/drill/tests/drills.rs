//! `dtm-drill` as an operator runs it: short drills on real clusters, and what their reports say.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

use dtm_scenario::{Latest, LatestDrill, Outcome, Report, Verdict};

/// One cluster at a time: two would disturb each other's times.
static TURN: Mutex<()> = Mutex::new(());

/// A folder with a drill and its results, for as long as it is this test's turn.
struct Run {
    home: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Run {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self { home: tempfile::tempdir().unwrap(), _turn: turn }
    }

    fn results(&self) -> PathBuf {
        self.home.path().join("results")
    }

    fn drill(&self, name: &str, rest: &str) -> Output {
        self.drill_with(name, rest, &[])
    }

    fn drill_with(&self, name: &str, rest: &str, environment: &[(&str, &str)]) -> Output {
        let file = self.home.path().join(format!("{name}.toml"));
        let head = format!("name = \"{name}\"\ntitle = {{ vi = \"Ngắn\", en = \"Short\" }}\n");
        std::fs::write(&file, head + rest).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dtm-drill"));
        command.arg(file).arg("--results").arg(self.results()).args(["--lang", "en"]);
        command.envs(environment.iter().copied());
        command.output().unwrap()
    }

    fn latest(&self) -> LatestDrill {
        let text = std::fs::read_to_string(self.results().join("latest.json")).unwrap();
        let mut drills = Latest::from_json(&text).unwrap().drills;
        assert_eq!(drills.len(), 1);
        drills.remove(0)
    }

    fn report(&self, latest: &LatestDrill) -> (Report, String) {
        let path = self.results().join(latest.report.as_deref().expect("it was run"));
        let page = std::fs::read_to_string(path.with_extension("en.md")).unwrap();
        assert!(path.with_extension("vi.md").exists() && path.with_extension("html").exists());
        (Report::from_json(&std::fs::read_to_string(&path).unwrap()).unwrap(), page)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").exists()
}

/// The process ids of a step's details: `n1 (pid 17)`.
fn pids(told: &str) -> Vec<&str> {
    told.split("(pid ")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(pid, _)| pid)
        .collect()
}

// A leader is killed under load, comes back, and everything that was acked is on every node.
//
// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F1
#[test]
fn a_killed_leader_loses_nothing_and_the_report_says_so() {
    let run = Run::new();
    let output = run.drill(
        "short-kill",
        r#"
[targets]
rpo_records = 0
rto = "10s"
availability_percent = 1

[[step]]
do = "load"
sources = 6
records_per_second = 180

[[step]]
do = "kill"
who = "leader"
after = "1s"
for = "2s"

[[step]]
do = "wait"
until = "settled"

[[step]]
do = "wait"
until = "read-back"

[[step]]
do = "wait"
until = "ledgers-agree"
"#,
    );
    assert!(output.status.success(), "{}\n{}", output.status, said(&output));
    let latest = run.latest();
    assert!(latest.pass && latest.not_run.is_none(), "{latest:?}");
    let measured = &latest.measured;
    assert_eq!(measured.lost, Some(0));
    assert!(measured.acked.is_some_and(|acked| acked > 300), "{measured:?}");
    assert!(measured.rto_ms.is_some_and(|ms| ms > 0) && measured.ack_gap_p50_ms.is_some());
    let gates: Vec<_> = latest.targets.iter().map(|t| (t.target.as_str(), t.gate)).collect();
    assert_eq!(gates, [("rpo_records", 0), ("rto", 10_000), ("availability_percent", 10_000)]);
    assert!(latest.targets.iter().all(|target| target.pass && target.value.is_some()));

    let (report, page) = run.report(&latest);
    assert_eq!(report.verdict, Verdict::Passed);
    assert!(report.steps.iter().all(|step| step.outcome == Outcome::Done && step.began.is_some()));
    let killed = &report.steps[1].told;
    assert_eq!(pids(killed).len(), 1, "{killed}");
    let healed: Vec<_> = report.healed.iter().map(|healing| healing.does.as_str()).collect();
    assert_eq!(healed, ["kill", "load"]);
    assert!(!is_alive(pids(killed)[0]));
    for words in ["# Short", "Passed", "Acked records lost (RPO)", killed] {
        let shown = words.replace('_', "\\_");
        assert!(page.contains(&shown), "{words} is not in\n{page}");
    }
}

// Three sites behind a router. The primary that reaches neither other place stops acknowledging when
// its right ends, and goes on when it reaches them again.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F27
#[test]
fn a_primary_that_is_cut_off_stops_and_the_report_says_layout_and_lines() {
    if let Err(why) = dtm_wansim::can_run() {
        return dtm_wansim::did_not_run(&why);
    }
    let run = Run::new();
    let output = run.drill(
        "short-isolated",
        r#"
[cluster]
layout = "standby"
sites = ["a:3", "b:1", "c:1"]
delay = "10ms"
loss_percent = 0.5

[targets]
rpo_records = 0
last_ack = "12s"
ids = { last_ack = "T1" }

[[step]]
do = "load"
sources = 6
records_per_second = 60

[[step]]
id = "alone"
do = "cut"
from = "site:a"
to = "all"
after = "2s"

[[step]]
do = "wait"
until = "silent"

[[step]]
do = "heal"
step = "alone"

[[step]]
do = "wait"
until = "settled"
"#,
    );
    assert!(output.status.success(), "{}\n{}", output.status, said(&output));
    let latest = run.latest();
    assert_eq!(latest.layout.as_deref(), Some("standby 3 + 1 + 1"));
    let target = &latest.targets[1];
    assert_eq!((target.target.as_str(), target.id.as_deref()), ("last_ack", Some("T1")));
    // The right holds for 10 s from the last time that it was confirmed, a second before at most.
    assert!(target.value.is_some_and(|ms| (5_000..=12_000).contains(&ms)), "{target:?}");
    let (report, page) = run.report(&latest);
    assert!(report.healed.iter().all(|healing| healing.failed.is_none()));
    for words in ["standby (a 3 + b 1 + c 1)", "each way 10 ms late", "(T1)"] {
        assert!(page.contains(words), "{words} is not in\n{page}");
    }
}

// The third step names a node that does not exist: the rest is not tried, the paused node goes on,
// what was acked is read back all the same, and the report says what was done.
#[test]
fn a_step_that_fails_midway_stops_the_drill_which_is_healed_and_reported() {
    let run = Run::new();
    let output = run.drill(
        "short-failure",
        r#"
[targets]
rpo_records = 0

[[step]]
do = "load"
sources = 3
records_per_second = 60

[[step]]
do = "pause"
who = "follower"

[[step]]
do = "kill"
who = "node:n9"
after = "1s"

[[step]]
do = "kill"
who = "all"
"#,
    );
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let latest = run.latest();
    assert!(!latest.pass && latest.verdict == Some(Verdict::StepFailed), "{latest:?}");
    assert_eq!(latest.measured.lost, Some(0), "it is measured all the same");
    let (report, page) = run.report(&latest);
    let outcomes: Vec<_> = report.steps.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done, Outcome::Failed, Outcome::Skipped]);
    let healed: Vec<_> = report.healed.iter().map(|h| (h.does.as_str(), &h.failed)).collect();
    assert_eq!(healed, [("pause", &None), ("load", &None)], "last first");
    assert!(page.contains("there is no node n9") && page.contains("a step failed"), "{page}");
    assert!(run.results().join("short-failure/logs/n1.log").exists(), "the logs are kept");
    let pid = pids(&report.steps[1].told)[0];
    assert!(!is_alive(pid), "the node of the drill {pid} was left");
}

// Nothing is started.
#[test]
fn a_drill_without_targets_is_refused_with_its_line_and_what_to_do() {
    let run = Run::new();
    let output = run.drill("aimless", "[targets]\n[[step]]\ndo = \"rolling-restart\"\n");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let said = said(&output);
    for words in ["aimless.toml: line 3: targets", "at least one target", "rpo_records, rto"] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert!(!run.results().exists());
}

// Nothing is started: no cluster is so, or a step names a site that is not there.
#[test]
fn a_cluster_that_cannot_be_is_refused_with_its_place() {
    let run = Run::new();
    let rest = |cluster: &str, who: &str| {
        format!(
            "[targets]\nrto = \"1m\"\n[cluster]\n{cluster}\n[[step]]\ndo = \"kill\"\nwho = {who}\n"
        )
    };
    for (cluster, who, words) in [
        ("layout = \"ring\"", "\"all\"", "line 6: cluster.layout"),
        ("layout = \"stretched\"", "\"all\"", "takes three sites"),
        ("sites = [\"a:3\", \"b:3\"]", "\"site:c\"", "line 9: step.who: there is no site c"),
    ] {
        let output = run.drill("nowhere", &rest(cluster, who));
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(words), "{words} is not in {}", said(&output));
    }
    assert!(!run.results().exists());
}

// What cannot be begun is not passed, and the reason stands in the results.
#[test]
fn a_drill_that_cannot_be_run_is_not_passed_and_says_why() {
    let run = Run::new();
    let rest = "[targets]\nrto = \"1m\"\n[[step]]\ndo = \"rotate-key\"\n";
    let output = run.drill_with("unbegun", rest, &[("DTM_BIN", "/bin/false")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let latest = run.latest();
    assert!(!latest.pass && latest.report.is_none(), "{latest:?}");
    let why = latest.not_run.expect("why");
    assert!(why.contains("the cluster does not come up: dtm cluster init"), "{why}");
    assert!(said(&output).contains(&why));
}

// Every node shows a new certificate at every port, and no source waits for it.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F23
#[test]
fn renewed_certificates_are_on_every_port_and_nothing_is_lost() {
    let run = Run::new();
    let output = run.drill(
        "short-renewal",
        r#"
[targets]
rpo_records = 0
rto = "10s"

[[step]]
do = "load"
sources = 6
records_per_second = 180

[[step]]
do = "rotate-certificates"
after = "1s"

[[step]]
do = "wait"
until = "read-back"
"#,
    );
    assert!(output.status.success(), "{}\n{}", output.status, said(&output));
    let (report, _) = run.report(&run.latest());
    let told = &report.steps[1].told;
    for node in ["n1", "n2", "n3"] {
        assert!(told.contains(&format!("{node} https, grpc, peers: ")), "{told}");
    }
}

// All nodes are lost with their disks under load; a backup begins the next life, and the report has
// the exact list of what was acknowledged after it.
//
// holds: ING-2, ING-3, ING-4
#[test]
fn a_cluster_that_is_lost_goes_on_from_its_backup_and_the_report_lists_what_it_lacks() {
    let run = Run::new();
    let output = run.drill(
        "short-restore",
        r#"
[targets]
rpo = "60s"
first_ack = "2m"

[[step]]
id = "load"
do = "load"
sources = 6
records_per_second = 180

[[step]]
do = "backup"
after = "2s"

[[step]]
do = "backup"
after = "2s"

[[step]]
do = "restore"
after = "3s"
within = "5m"

[[step]]
do = "wait"
for = "3s"

[[step]]
do = "heal"
step = "load"
within = "2m"

[[step]]
do = "wait"
until = "ledgers-agree"
"#,
    );
    assert!(output.status.success(), "{}\n{}", output.status, said(&output));
    let latest = run.latest();
    let measured = &latest.measured;
    // Three seconds of acknowledged records came after the second backup began.
    assert!(measured.lost.is_some_and(|lost| lost >= 180), "{measured:?}");
    assert!(measured.rpo_ms.is_some_and(|ms| ms >= 2_500), "{measured:?}");
    assert!(measured.first_ack_ms.is_some_and(|ms| ms > 0), "{measured:?}");
    assert!(measured.lost_ranges.iter().any(|range| range.starts_with("src-001/drill ")));
    let (report, _) = run.report(&latest);
    let told = |step: usize| report.steps[step].told.as_str();
    assert!(told(1).starts_with("full,") && told(2).starts_with("incremental,"), "{}", told(2));
    assert!(told(3).contains("life 2"), "{}", told(3));
}
