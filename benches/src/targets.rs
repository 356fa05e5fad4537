//! The targets that a run covers: id, gate and goal as agreed, the value from the rounds that
//! count, and whether the gate is passed. A target with two parts (for example p50 and p99) has
//! lists; it passes when both do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arms::kind;
use crate::runner::Series;
use crate::stats::median;
use crate::workload::{Run, Workload};

const OURS: &str = "ours";
const OURS_OFF: &str = "ours-off";
const OURS_UNVALIDATED: &str = "ours-unvalidated";

/// One target in the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The value reached; a list where the target has parts.
    pub value: Value,
    /// What blocks.
    pub gate: Value,
    /// What is aimed at.
    pub goal: Value,
    /// Whether the gate is passed.
    pub pass: bool,
    /// The value of each round that counts; a list of lists where the target has parts.
    pub rounds: Value,
    /// 95 % interval of the value (of each part).
    pub interval: Value,
    /// What was compared, for a reader.
    pub of: String,
}

#[derive(Debug, Clone, Copy)]
enum Better {
    Higher,
    Lower,
}

struct Part {
    gate: f64,
    goal: f64,
    rounds: Vec<f64>,
}

/// Everything in `all` that belongs to a target.
pub fn targets(all: &[Series]) -> BTreeMap<String, Target> {
    let mut found = BTreeMap::new();
    for series in all {
        match series.plan.workload {
            Workload::W1 => against_latency(series, &mut found),
            Workload::W3 if series.plan.record_bytes == 1024 => throughput(series, &mut found),
            Workload::W4 if series.plan.share <= 0.5 => tails(series, &mut found),
            Workload::W5 => crowd(series, &mut found),
            Workload::W6 => switched(series, &mut found),
            Workload::W7 => kills(series, &mut found),
            _ => {}
        }
    }
    found
}

fn add(found: &mut BTreeMap<String, Target>, id: &str, of: &str, better: Better, parts: Vec<Part>) {
    let medians: Vec<_> = parts.iter().map(|part| median(&part.rounds)).collect();
    if parts.is_empty() || medians.iter().any(Option::is_none) {
        return;
    }
    let medians: Vec<_> = medians.into_iter().flatten().collect();
    let pass = parts.iter().zip(&medians).all(|(part, median)| match better {
        Better::Higher => median.value >= part.gate,
        Better::Lower => median.value <= part.gate,
    });
    let shape = |values: Vec<Value>| match <[Value; 1]>::try_from(values) {
        Ok([single]) => single,
        Err(values) => Value::Array(values),
    };
    let target = Target {
        value: shape(medians.iter().map(|median| json!(rounded(median.value))).collect()),
        gate: shape(parts.iter().map(|part| json!(part.gate)).collect()),
        goal: shape(parts.iter().map(|part| json!(part.goal)).collect()),
        pass,
        rounds: shape(
            parts
                .iter()
                .map(|part| json!(part.rounds.iter().copied().map(rounded).collect::<Vec<f64>>()))
                .collect(),
        ),
        interval: shape(medians.iter().map(|m| json!([rounded(m.low), rounded(m.high)])).collect()),
        of: of.to_owned(),
    };
    found.insert(id.to_owned(), target);
}

/// Three digits behind the point say all that such a measurement can say.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The arm of a kind that did best: a peer is taken in its best honest mode.
fn best<'a>(series: &'a Series, wanted: &str) -> Option<&'a String> {
    let rate = |arm: &String| series.figure(arm, |run| run.acked_per_s).map_or(0.0, |m| m.value);
    let arms = series.plan.arms.iter().filter(|arm| kind(arm) == wanted);
    arms.max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

fn own(series: &Series, figure: impl Fn(&Run) -> f64) -> Vec<f64> {
    series.runs_of(OURS).filter(|run| run.acked_per_s > 0.0).map(figure).collect()
}

fn throughput(series: &Series, found: &mut BTreeMap<String, Target>) {
    for (id, peer, gate, goal) in [
        ("P1", "nats-always", 1.5, 3.0),
        ("P2", "nats-default", 1.0, 2.0),
        ("P3", "etcd", 6.0, 12.0),
        ("P4", "rabbitmq", 3.0, 8.0),
        ("P6", "replicated-echo", 0.35, 0.55),
    ] {
        let Some(arm) = best(series, peer) else {
            continue;
        };
        let rounds = series.ratios(OURS, arm, |run| run.acked_per_s);
        let of = format!("ours / {arm}, acked records a second, W3 1 KiB");
        add(found, id, &of, Better::Higher, vec![Part { gate, goal, rounds }]);
    }
    let rounds = series
        .runs_of(OURS)
        .filter_map(|run| {
            let rounds = run.counters.get("commit_rounds").filter(|rounds| **rounds > 0.0)?;
            Some(run.counters.get("log_syncs")? / rounds)
        })
        .collect();
    let of = "log syncs a node and commit round, W3 1 KiB";
    add(found, "P10", of, Better::Lower, vec![Part { gate: 1.5, goal: 1.05, rounds }]);
    let rounds = own(series, |run| run.device_factor);
    let of = "device bytes / (acked payload x 3), W3 1 KiB";
    add(found, "P11", of, Better::Lower, vec![Part { gate: 2.5, goal: 1.6, rounds }]);
    let rounds = own(series, |run| run.server_cpu_us);
    let of = "CPU-us of the three nodes for an acked record, W3 1 KiB";
    add(found, "P12", of, Better::Lower, vec![Part { gate: 25.0, goal: 10.0, rounds }]);
}

fn against_latency(series: &Series, found: &mut BTreeMap<String, Target>) {
    if series.plan.record_bytes != 1024 {
        return;
    }
    let parts = [("nats-always", 1.2, 0.8), ("etcd", 1.0, 0.6)]
        .into_iter()
        .filter_map(|(peer, gate, goal)| {
            let arm = series.plan.arms.iter().find(|arm| kind(arm) == peer)?;
            let rounds = series.ratios(OURS, arm, |run| run.latency_us.p50 as f64);
            Some(Part { gate, goal, rounds })
        })
        .collect::<Vec<Part>>();
    if parts.len() == 2 {
        let of = "p50 of ours / p50 of NATS always, of etcd; W1 1 KiB";
        add(found, "P7", of, Better::Lower, parts);
    }
}

fn tails(series: &Series, found: &mut BTreeMap<String, Target>) {
    let p50 = |run: &Run| run.latency_us.p50.max(1) as f64;
    let p99 = own(series, |run| run.latency_us.p99 as f64 / p50(run));
    let p999 = own(series, |run| run.latency_us.p999 as f64 / p50(run));
    let parts = vec![
        Part { gate: 5.0, goal: 2.5, rounds: p99 },
        Part { gate: 15.0, goal: 6.0, rounds: p999 },
    ];
    add(found, "P9", "p99 / p50 and p99.9 / p50, W4 at 50 %", Better::Lower, parts);
}

fn crowd(series: &Series, found: &mut BTreeMap<String, Target>) {
    let crowds = || series.runs_of(OURS).filter_map(|run| run.crowd);
    let rounds = crowds().map(|crowd| crowd.rss_bytes_per_source / 1024.0).collect();
    let of = format!("KiB of memory for an idle source, {} sources", series.plan.sources);
    add(found, "P14", &of, Better::Lower, vec![Part { gate: 96.0, goal: 48.0, rounds }]);
    if series.plan.sources >= 10_000 {
        let rounds = crowds().map(|crowd| crowd.reconnect_s).collect();
        let of = "seconds until all sources are acked again";
        add(found, "P15", of, Better::Lower, vec![Part { gate: 30.0, goal: 10.0, rounds }]);
    }
}

fn switched(series: &Series, found: &mut BTreeMap<String, Target>) {
    let all = series.ratios(OURS, OURS_OFF, |run| run.acked_per_s);
    let of = "all on / without TLS, seal, check and digests (leaves stay), acked records a second";
    add(found, "P13", of, Better::Higher, vec![Part { gate: 0.70, goal: 0.85, rounds: all }]);
    let checked = series.ratios(OURS, OURS_UNVALIDATED, |run| run.acked_per_s);
    let of = "validated / not validated, acked records a second";
    add(found, "P22", of, Better::Higher, vec![Part { gate: 0.6, goal: 0.8, rounds: checked }]);
}

fn kills(series: &Series, found: &mut BTreeMap<String, Target>) {
    let mut gaps: Vec<f64> =
        series.runs_of(OURS).flat_map(|run| run.ack_gaps_s.iter().copied()).collect();
    if gaps.is_empty() || series.runs_of(OURS).any(|run| run.acked_per_s == 0.0) {
        return;
    }
    gaps.sort_by(f64::total_cmp);
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share).ceil() as usize];
    let parts = vec![
        Part { gate: 2.0, goal: 0.6, rounds: vec![at(0.5)] },
        Part { gate: 5.0, goal: 1.5, rounds: vec![at(0.99)] },
    ];
    let of = format!("ack gap in s, p50 and p99 of {} kills, worst source of each", gaps.len());
    add(found, "P16", &of, Better::Lower, parts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ceilings::Probe;
    use crate::workload::Plan;

    fn series(rates: &[(&str, &[f64])]) -> Series {
        let arms: Vec<String> = rates.iter().map(|(arm, _)| (*arm).to_owned()).collect();
        let plan = Plan::new(Workload::W3, 1024, &arms);
        let mut runs = Vec::new();
        for (arm, rates) in rates {
            for (round, rate) in (0_u32..).zip(*rates) {
                let mut run = Run::blank(arm, round, Probe { fdatasync_us: 1.0, rtt_us: 1.0 });
                run.acked_per_s = *rate;
                run.server_cpu_us = 12.0;
                runs.push(run);
            }
        }
        Series { plan, runs, kept: vec![0, 1, 2], unsteady: false }
    }

    #[test]
    fn ratios_are_taken_round_by_round_against_the_best_peer() {
        let ours: &[f64] = &[30.0, 40.0, 60.0];
        let slow: &[f64] = &[1.0, 1.0, 1.0];
        let fast: &[f64] = &[10.0, 20.0, 15.0];
        let names = [("ours", ours), ("nats-always", slow), ("nats-always/streams=4", fast)];
        let found = targets(&[series(&names)]);
        let p1 = &found["P1"];
        assert_eq!(p1.rounds, json!([3.0, 2.0, 4.0]));
        assert_eq!((&p1.value, p1.pass), (&json!(3.0), true));
        assert!(found["P12"].pass);
        assert!(!found.contains_key("P3"), "no etcd in the run, no figure for it");
    }

    #[test]
    fn a_failed_round_of_ours_counts_as_nothing() {
        let found = targets(&[series(&[
            ("ours", &[0.0, 0.0, 50.0]),
            ("nats-always", &[10.0, 10.0, 10.0]),
        ])]);
        assert_eq!(found["P1"].value, json!(0.0));
        assert!(!found["P1"].pass);
    }
}
