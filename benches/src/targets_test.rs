//! Targets from runs that are made up: what passes, what fails, what is not hidden.

use super::*;
use crate::ceilings::Probe;
use crate::verify::Verdict;
use crate::workload::{Crowd, Latency, Plan};

fn sound(arm: &str, round: u32) -> Run {
    let mut run = Run::blank(arm, round, Probe { fdatasync_us: 1.0, rtt_us: 1.0 });
    run.acked_per_s = 10.0;
    run.server_cpu_us = Some(12.0);
    run.device_factor = Some(0.6);
    run.latency_us = Latency { p50: 100, p99: 200, p999: 300, ..Latency::default() };
    run.counters = [("commit_rounds", 100.0), ("log_syncs", 101.0)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    run.crowd = Some(Crowd { rss_bytes_per_source: 50.0 * 1024.0, reconnect_s: 3.0 });
    run.ack_gaps_s = vec![0.5, 0.7, 0.9];
    run
}

/// The same run, of which a node has not given everything back.
fn lost(mut run: Run) -> Run {
    run.acked_per_s = 0.0;
    run.read_back = vec![Verdict { missing: 1, ..Verdict::default() }];
    run
}

fn series(workload: Workload, sources: u32, runs: Vec<Run>) -> Series {
    let mut arms: Vec<String> = runs.iter().map(|run| run.arm.clone()).collect();
    arms.sort();
    arms.dedup();
    let mut plan = Plan::new(workload, 1024, &arms);
    plan.sources = sources;
    Series { plan, runs, kept: vec![0, 1, 2], unsteady: false }
}

fn rates(rates: &[(&str, &[f64])]) -> Series {
    let mut runs = Vec::new();
    for (arm, rates) in rates {
        for (round, rate) in (0_u32..).zip(*rates) {
            runs.push(Run { acked_per_s: *rate, ..sound(arm, round) });
        }
    }
    series(Workload::W3, 500, runs)
}

/// A whole comparison in which every gate is passed.
fn passing() -> Vec<Series> {
    let arms = |workload, sources, arms: &[&str]| {
        series(workload, sources, arms.iter().map(|arm| sound(arm, 0)).collect())
    };
    let peers: [(&str, &[f64]); 6] = [
        ("ours", &[60.0]),
        ("nats-always", &[20.0]),
        ("nats-default", &[20.0]),
        ("etcd", &[5.0]),
        ("rabbitmq", &[10.0]),
        ("replicated-echo", &[100.0]),
    ];
    vec![
        rates(&peers),
        arms(Workload::W1, 1, &["ours", "nats-always", "etcd"]),
        arms(Workload::W4, 500, &["ours"]),
        arms(Workload::W5, 10_000, &["ours"]),
        arms(Workload::W6, 500, &["ours", "ours-off", "ours-unvalidated"]),
        arms(Workload::W7, 500, &["ours"]),
    ]
}

const ALL: [&str; 14] =
    ["P1", "P10", "P11", "P12", "P13", "P14", "P15", "P16", "P2", "P22", "P3", "P4", "P6", "P7"];

#[test]
fn ratios_are_taken_round_by_round_against_the_best_peer() {
    let ours: &[f64] = &[30.0, 40.0, 60.0];
    let slow: &[f64] = &[1.0, 1.0, 1.0];
    let fast: &[f64] = &[10.0, 20.0, 15.0];
    let names = [("ours", ours), ("nats-always", slow), ("nats-always/streams=6", fast)];
    let found = targets(&[rates(&names)]);
    let p1 = &found["P1"];
    assert_eq!(p1.rounds, json!([3.0, 2.0, 4.0]));
    assert_eq!((&p1.value, p1.pass), (&json!(3.0), true));
    assert!(p1.of.contains("nats-always/streams=6"), "{}", p1.of);
    assert!(found["P12"].pass);
    assert!(!found.contains_key("P3"), "no etcd in the run, no figure for it");
}

#[test]
fn a_comparison_without_a_fault_passes_and_has_no_objection() {
    let all = passing();
    let found = targets(&all);
    assert!(found.contains_key("P9"));
    for (id, target) in &found {
        assert!(target.pass && target.lost.is_empty() && target.steady, "{id}: {target:?}");
    }
    assert!(ALL.iter().all(|id| found.contains_key(*id)));
    assert_eq!(objections(&all, &found), [""; 0]);
}

#[test]
fn a_loss_of_ours_fails_every_target_of_its_workload_and_no_other() {
    let whole = targets(&passing());
    for at in 0..passing().len() {
        let mut all = passing();
        let of_this: Vec<String> = targets(&all[at..=at]).into_keys().collect();
        assert!(!of_this.is_empty());
        let ours = all[at].runs.iter_mut().find(|run| run.arm == "ours").expect("it is there");
        *ours = lost(ours.clone());
        let found = targets(&all);
        assert_eq!(found.len(), whole.len(), "none is left out, so none older is kept");
        for (id, target) in &found {
            let is_hit = of_this.contains(id);
            assert_eq!(target.pass, !is_hit, "{id}");
            assert_eq!(target.value.is_null(), is_hit, "{id}");
            assert_eq!(target.lost.len(), usize::from(is_hit), "{id}");
        }
        let objections = objections(&all, &found);
        assert!(objections[0].contains("1 missing"), "{objections:?}");
    }
}

#[test]
fn one_lost_round_is_not_hidden_by_the_median_nor_by_being_dropped() {
    let names: [(&str, &[f64]); 2] =
        [("ours", &[25.0, 24.0, 25.0]), ("nats-always", &[10.0, 10.0, 10.0])];
    let mut one = rates(&names);
    one.runs[0] = lost(one.runs[0].clone());
    // The round of the loss is not one that counts.
    one.kept = vec![1, 2];
    let found = targets(std::slice::from_ref(&one));
    for id in ["P1", "P10", "P11", "P12"] {
        assert!(!found[id].pass && found[id].value.is_null() && !found[id].lost.is_empty(), "{id}");
    }
    // The same workload once more, and good: the loss stays.
    let found = targets(&[one, rates(&names)]);
    assert!(!found["P1"].pass && !found["P1"].lost.is_empty());
}

#[test]
fn a_run_of_ours_that_failed_passes_nothing_where_less_is_better() {
    let mut all = passing();
    for series in &mut all {
        for run in series.runs.iter_mut().filter(|run| run.arm == "ours") {
            *run = Run::blank("ours", 0, run.probe);
            run.failures.push("the cluster did not start".to_owned());
        }
    }
    let found = targets(&all);
    assert_eq!(found.len(), ALL.len() + 1);
    for (id, target) in &found {
        assert!(!target.pass && target.value.is_null() && !target.failed.is_empty(), "{id}");
    }
}

#[test]
fn a_figure_of_nothing_passes_no_gate() {
    let mut all = passing();
    for run in all.iter_mut().flat_map(|series| &mut series.runs) {
        run.device_factor = Some(0.0);
        run.crowd = Some(Crowd::default());
        run.ack_gaps_s = vec![0.0; 3];
    }
    let found = targets(&all);
    for id in ["P11", "P14", "P15", "P16"] {
        assert!(!found[id].pass, "{id}");
    }
    assert_eq!(objections(&all, &found).len(), 1, "of these P16 blocks");
}

#[test]
fn a_peer_that_failed_gives_no_ratio() {
    let names: [(&str, &[f64]); 3] =
        [("ours", &[25.0, 24.0]), ("nats-always", &[0.0, 10.0]), ("etcd", &[0.0, 0.0])];
    let found = targets(&[rates(&names)]);
    assert_eq!(found["P1"].rounds, json!([2.4]));
    assert!(!found.contains_key("P3"));
}

#[test]
fn blocking_gates_that_are_missed_are_objected_to_and_others_are_not() {
    let mut all = passing();
    for run in &mut all[0].runs {
        run.server_cpu_us = Some(26.0);
        run.device_factor = Some(9.0);
    }
    all[0].unsteady = true;
    let found = targets(&all);
    assert!(!found["P11"].pass);
    let objections = objections(&all, &found);
    assert_eq!(objections.len(), 1, "{objections:?}");
    assert!(objections[0].starts_with("P12 is 26") && objections[0].contains("steady"));
}
