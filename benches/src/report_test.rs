//! What is kept of a run: tables, and `latest.json` over several runs.

use super::*;
use crate::ceilings::Probe;
use crate::verify::Verdict;
use crate::workload::{Plan, Workload};

fn series(workload: Workload, runs: Vec<Run>) -> Series {
    let arms: Vec<String> = runs.iter().map(|run| run.arm.clone()).collect();
    let plan = Plan::new(workload, 1024, &arms);
    Series { plan, runs, kept: vec![0], unsteady: true }
}

fn run(arm: &str) -> Run {
    let mut run = Run::blank(arm, 0, Probe { fdatasync_us: 1.0, rtt_us: 1.0 });
    run.acked_per_s = 30.0;
    run.settings = json!({ "version": arm });
    run
}

fn ceilings() -> Ceilings {
    let (fdatasync_per_s, aes_gcm_mb_per_s) = (Vec::new(), Vec::new());
    let (sha256_mb_per_s, rocksdb_wal_per_s) = (Vec::new(), Vec::new());
    Ceilings { fdatasync_per_s, aes_gcm_mb_per_s, sha256_mb_per_s, rocksdb_wal_per_s, rtt_us: 1.0 }
}

fn taken<'a>(unix_s: u64, all: &'a [Series], ceilings: &'a Ceilings) -> Taken<'a> {
    let (commit, machine) = (format!("c{unix_s}"), json!({ "cores": unix_s }));
    Taken { name: "a run", commit, machine, unix_s, all, ceilings, found: targets(all) }
}

#[test]
fn each_figure_keeps_commit_machine_and_settings_of_its_run() {
    let ceilings = ceilings();
    let mut w3 = [run("ours"), run("nats-always")];
    w3[1].acked_per_s = 10.0;
    w3[0].server_cpu_us = Some(20.0);
    let mut w7 = run("ours");
    w7.ack_gaps_s = vec![1.0];
    let first = [series(Workload::W3, w3.to_vec()), series(Workload::W7, vec![w7.clone()])];
    let latest = taken(1, &first, &ceilings).merged(&Value::Null);
    let second = [series(Workload::W7, vec![w7])];
    let latest = taken(2, &second, &ceilings).merged(&latest);
    let of =
        |id: &str| (latest["targets"][id]["run"].clone(), latest["targets"][id]["commit"].clone());
    assert_eq!(of("P1"), (json!("1-a-run"), json!("c1")));
    assert_eq!(of("P16"), (json!("2-a-run"), json!("c2")));
    let settings = &latest["settings"];
    assert_eq!(settings["1-a-run"]["commit"], json!("c1"));
    assert_eq!(settings["1-a-run"]["machine"], json!({ "cores": 1 }));
    assert_eq!(settings["1-a-run"]["arms"]["nats-always"]["version"], json!("nats-always"));
    assert_eq!(settings["1-a-run"]["plans"].as_array().map(Vec::len), Some(2));
    assert_eq!(settings["2-a-run"]["commit"], json!("c2"));
    assert_eq!(latest["targets"]["P1"]["steady"], json!(false));
    // Once no figure comes from a run any more, nothing of it is kept.
    let latest = taken(3, &first, &ceilings).merged(&latest);
    let runs: Vec<&String> = latest["settings"].as_object().expect("runs").keys().collect();
    assert_eq!(runs, ["3-a-run"]);
}

#[test]
fn a_loss_takes_the_place_of_an_older_figure_that_passed() {
    let ceilings = ceilings();
    let mut w7 = run("ours");
    w7.ack_gaps_s = vec![1.0];
    let good = [series(Workload::W7, vec![w7.clone()])];
    let latest = taken(1, &good, &ceilings).merged(&Value::Null);
    assert_eq!(latest["targets"]["P16"]["pass"], json!(true));
    w7.acked_per_s = 0.0;
    w7.read_back = vec![Verdict { disordered: 1, ..Verdict::default() }];
    let bad = [series(Workload::W7, vec![w7])];
    let taken = taken(2, &bad, &ceilings);
    let latest = taken.merged(&latest);
    let p16 = &latest["targets"]["P16"];
    assert_eq!((&p16["pass"], &p16["value"]), (&json!(false), &Value::Null));
    assert!(p16["lost"][0].as_str().is_some_and(|lost| lost.contains("1 out of order")));
    assert_eq!(latest["peers"]["W7 1024 B ours"]["acked_per_s"], Value::Null);
    let text = taken.markdown();
    assert!(text.contains("| ours | **0** | – |") && text.contains("1 of 1 failed"), "{text}");
    assert!(text.contains("1 out of order"), "{text}");
}

#[test]
fn what_was_not_measured_is_a_dash() {
    let ceilings = ceilings();
    let all = [series(Workload::W7, vec![run("ours")])];
    let text = taken(1, &all, &ceilings).markdown();
    assert!(text.contains("| – + 0.0 | – | – | nothing stored |"), "{text}");
    assert!(text.contains("No round was steady"), "{text}");
    let mut steady = all;
    steady[0].unsteady = false;
    let text = taken(1, &steady, &ceilings).markdown();
    assert!(text.contains("Steady rounds, which count: 1 of 3."), "{text}");
}
