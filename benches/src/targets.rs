//! The targets that a run covers: id, gate and goal as agreed, the value from the rounds that
//! count, and whether the gate is passed. A target with two parts (for example p50 and p99) has
//! lists; it passes when both do.
//!
//! One record that ours lost, doubled or gave out of order, or one run of ours that failed, in any
//! round, and no target of that workload has a value or passes: no median hides it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arms::kind;
use crate::runner::{Fault, Series};
use crate::stats::{Median, median};
use crate::workload::{Run, Workload};

const OURS: &str = "ours";
const OURS_OFF: &str = "ours-off";
const OURS_UNVALIDATED: &str = "ours-unvalidated";
/// Targets whose gate blocks: missed, the comparison fails.
const BLOCKING: [&str; 3] = ["P1", "P12", "P16"];

/// One target in the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The value reached; a list where the target has parts; null where `lost` or `failed` speak.
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
    /// Whether the machine kept within 20 % in the rounds that count; where no round did, all count.
    pub steady: bool,
    /// What was compared, for a reader.
    pub of: String,
    /// Records of ours that the read-back missed, found twice, out of order or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// Runs of ours that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    for series in all.iter().filter(|series| series.plan.arms.iter().any(|arm| arm == OURS)) {
        let mut judge = Judge { series, fault: series.fault(), found: &mut found };
        match series.plan.workload {
            Workload::W1 if series.plan.record_bytes == 1024 => judge.against_latency(),
            Workload::W3 if series.plan.record_bytes == 1024 => judge.throughput(),
            Workload::W4 if series.plan.share <= 0.5 => judge.tails(),
            Workload::W5 => judge.crowd(),
            Workload::W6 => judge.switched(),
            Workload::W7 => judge.kills(),
            _ => {}
        }
    }
    found
}

/// What must not be overlooked: everything that ours lost or failed at, whether or not a target
/// hangs on it, and blocking gates that were missed. Empty when all is well.
pub fn objections(all: &[Series], found: &BTreeMap<String, Target>) -> Vec<String> {
    let faults = all.iter().map(Series::fault);
    let mut objections: Vec<String> =
        faults.flat_map(|fault| [fault.lost, fault.failed].concat()).collect();
    let missed = BLOCKING.iter().filter_map(|id| Some((id, found.get(*id)?)));
    objections.extend(missed.filter(|(_, target)| !target.pass).map(|(id, target)| {
        let steady = if target.steady { "" } else { "; no round was steady" };
        format!("{id} is {}, its gate is {} ({}{steady})", target.value, target.gate, target.of)
    }));
    objections
}

/// Three digits behind the point say all that such a measurement can say.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// One value as it is, several as a list.
fn shape(values: Vec<Value>) -> Value {
    match <[Value; 1]>::try_from(values) {
        Ok([single]) => single,
        Err(values) => Value::Array(values),
    }
}

/// The targets of one workload.
struct Judge<'a> {
    series: &'a Series,
    fault: Fault,
    found: &'a mut BTreeMap<String, Target>,
}

impl Judge<'_> {
    /// Adds a target: where ours is sound and every part has a figure, or as not passed where it
    /// is not sound.
    fn add(&mut self, id: &str, of: &str, better: Better, parts: &[Part]) {
        let medians: Vec<_> = parts.iter().filter_map(|part| median(&part.rounds)).collect();
        let is_sound = self.fault.is_none();
        if is_sound && medians.len() < parts.len() {
            return;
        }
        // A workload that was run twice does not bring back what it lost once.
        let old = self.found.get(id);
        if is_sound && old.is_some_and(|old| !old.lost.is_empty() || !old.failed.is_empty()) {
            return;
        }
        // Nothing that is measured here is ever 0: that is a figure which is not there.
        let is_met = |part: &Part, value: f64| match better {
            _ if part.rounds.iter().any(|round| *round <= 0.0) => false,
            Better::Higher => value >= part.gate,
            Better::Lower => value <= part.gate,
        };
        let pass = is_sound && parts.iter().zip(&medians).all(|(part, m)| is_met(part, m.value));
        let of_medians = |one: fn(&Median) -> Value| {
            if is_sound { shape(medians.iter().map(one).collect()) } else { Value::Null }
        };
        let rounds =
            |part: &Part| json!(part.rounds.iter().map(|v| rounded(*v)).collect::<Vec<_>>());
        let target = Target {
            value: of_medians(|m| json!(rounded(m.value))),
            gate: shape(parts.iter().map(|part| json!(part.gate)).collect()),
            goal: shape(parts.iter().map(|part| json!(part.goal)).collect()),
            pass,
            rounds: shape(parts.iter().map(rounds).collect()),
            interval: of_medians(|m| json!([rounded(m.low), rounded(m.high)])),
            steady: !self.series.unsteady,
            of: of.to_owned(),
            lost: self.fault.lost.clone(),
            failed: self.fault.failed.clone(),
        };
        self.found.insert(id.to_owned(), target);
    }

    /// The arm of a kind that did best: a peer is taken in its best honest mode.
    fn best(&self, wanted: &str) -> Option<&String> {
        let series = self.series;
        let rate =
            |arm: &String| series.figure(arm, |run| Some(run.acked_per_s)).map_or(0.0, |m| m.value);
        let arms = series.plan.arms.iter().filter(|arm| kind(arm) == wanted);
        arms.max_by(|a, b| rate(a).total_cmp(&rate(b)))
    }

    fn own(&self, figure: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        self.series.sound(OURS).filter_map(figure).collect()
    }

    fn has(&self, arm: &str) -> bool {
        self.series.plan.arms.iter().any(|known| known == arm)
    }

    fn throughput(&mut self) {
        for (id, peer, gate, goal) in [
            ("P1", "nats-always", 1.5, 3.0),
            ("P2", "nats-default", 1.0, 2.0),
            ("P3", "etcd", 6.0, 12.0),
            ("P4", "rabbitmq", 3.0, 8.0),
            ("P6", "replicated-echo", 0.35, 0.55),
        ] {
            let Some(arm) = self.best(peer) else {
                continue;
            };
            let rounds = self.series.ratios(OURS, arm, |run| run.acked_per_s);
            let of = format!("ours / {arm}, acked records a second, W3 1 KiB");
            self.add(id, &of, Better::Higher, &[Part { gate, goal, rounds }]);
        }
        let rounds = self.own(|run| {
            let rounds = run.counters.get("commit_rounds").filter(|rounds| **rounds > 0.0)?;
            Some(run.counters.get("log_syncs")? / rounds)
        });
        let of = "log syncs a node and commit round, W3 1 KiB";
        self.add("P10", of, Better::Lower, &[Part { gate: 1.5, goal: 1.05, rounds }]);
        let rounds = self.own(|run| run.device_factor);
        let of = "device bytes / (acked payload x 3), W3 1 KiB";
        self.add("P11", of, Better::Lower, &[Part { gate: 2.5, goal: 1.6, rounds }]);
        let rounds = self.own(|run| run.server_cpu_us);
        let of = "CPU-us of the three nodes for an acked record, W3 1 KiB";
        self.add("P12", of, Better::Lower, &[Part { gate: 25.0, goal: 10.0, rounds }]);
    }

    fn against_latency(&mut self) {
        let peers = [("nats-always", 1.2, 0.8), ("etcd", 1.0, 0.6)];
        let part = |(peer, gate, goal): (&str, f64, f64)| {
            let arm = self.series.plan.arms.iter().find(|arm| kind(arm) == peer)?;
            let rounds = self.series.ratios(OURS, arm, |run| run.latency_us.p50 as f64);
            Some(Part { gate, goal, rounds })
        };
        let parts: Vec<Part> = peers.into_iter().filter_map(part).collect();
        if parts.len() == peers.len() {
            let of = "p50 of ours / p50 of NATS always, of etcd; W1 1 KiB";
            self.add("P7", of, Better::Lower, &parts);
        }
    }

    fn tails(&mut self) {
        let p50 = |run: &Run| run.latency_us.p50.max(1) as f64;
        let p99 = self.own(|run| Some(run.latency_us.p99 as f64 / p50(run)));
        let p999 = self.own(|run| Some(run.latency_us.p999 as f64 / p50(run)));
        let parts = [
            Part { gate: 5.0, goal: 2.5, rounds: p99 },
            Part { gate: 15.0, goal: 6.0, rounds: p999 },
        ];
        self.add("P9", "p99 / p50 and p99.9 / p50, W4 at 50 %", Better::Lower, &parts);
    }

    fn crowd(&mut self) {
        let rounds = self.own(|run| Some(run.crowd?.rss_bytes_per_source / 1024.0));
        let of = format!("KiB of memory for an idle source, {} sources", self.series.plan.sources);
        self.add("P14", &of, Better::Lower, &[Part { gate: 96.0, goal: 48.0, rounds }]);
        if self.series.plan.sources >= 10_000 {
            let rounds = self.own(|run| Some(run.crowd?.reconnect_s));
            let of = "seconds until all sources are acked again";
            self.add("P15", of, Better::Lower, &[Part { gate: 30.0, goal: 10.0, rounds }]);
        }
    }

    fn switched(&mut self) {
        let all_off =
            "all on / without TLS, seal, check and digests (leaves stay), acked records a second";
        let unchecked = "validated / not validated, acked records a second";
        for (id, arm, gate, goal, of) in
            [("P13", OURS_OFF, 0.70, 0.85, all_off), ("P22", OURS_UNVALIDATED, 0.6, 0.8, unchecked)]
        {
            if self.has(arm) {
                let rounds = self.series.ratios(OURS, arm, |run| run.acked_per_s);
                self.add(id, of, Better::Higher, &[Part { gate, goal, rounds }]);
            }
        }
    }

    fn kills(&mut self) {
        let of_run = |run: &Run| run.ack_gaps_s.clone();
        let mut gaps: Vec<f64> = self.series.sound(OURS).flat_map(of_run).collect();
        gaps.sort_by(f64::total_cmp);
        let at = |share: f64| -> Vec<f64> {
            let last = gaps.len().saturating_sub(1) as f64;
            gaps.get((last * share).ceil() as usize).copied().into_iter().collect()
        };
        let parts = [
            Part { gate: 2.0, goal: 0.6, rounds: at(0.5) },
            Part { gate: 5.0, goal: 1.5, rounds: at(0.99) },
        ];
        let of = format!("ack gap in s, p50 and p99 of {} kills, worst source of each", gaps.len());
        self.add("P16", &of, Better::Lower, &parts);
    }
}

#[cfg(test)]
#[path = "targets_test.rs"]
mod tests;
