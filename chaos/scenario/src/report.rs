//! What a run did and what came of it. Stored as JSON; pages are in `page`.

use serde::{Deserialize, Serialize};

use crate::{ClusterPlan, Drill, Expect, Measured, Targets, Titles, UnixMs};

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done, as expected.
    Done,
    /// Refused, as expected.
    Refused,
    /// Refused, though it should have been done.
    RefusedWrongly,
    /// Done, though it should have been refused.
    DoneWrongly,
    /// It could not be done.
    Failed,
    /// Done, but not within its time.
    Late,
    /// Not tried, since a step before failed or somebody stopped the run.
    Skipped,
}

impl Outcome {
    /// Whether the run may go on.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Done | Self::Refused)
    }
}

/// One step, as it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// From 1.
    pub number: usize,
    /// The word of its action.
    pub does: String,
    /// The line of the file.
    pub line: usize,
    /// Its own title, if it has one.
    pub title: Option<Titles>,
    /// What was expected.
    pub expected: Expect,
    /// When it began; None: it was skipped.
    pub began: Option<UnixMs>,
    /// How long it took.
    pub took_ms: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What was done in particular, or why not.
    pub told: String,
}

/// A step that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healing {
    /// Its number.
    pub step: usize,
    /// The word of its action.
    pub does: String,
    /// When.
    pub at: UnixMs,
    /// Why it stayed as it was; None: it is as before.
    pub failed: Option<String>,
}

/// One target and what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The key of the target in the file.
    pub target: String,
    /// Under which the product's targets list it, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What was asked for.
    pub wanted: u64,
    /// What was measured; None: it is not known, which is a miss.
    pub measured: Option<u64>,
    /// Whether it holds.
    pub holds: bool,
}

/// The end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every step as expected, every target held, everything taken back.
    Passed,
    /// A target was missed or could not be measured.
    TargetsMissed,
    /// Somebody stopped it.
    Stopped,
    /// A step was not as expected.
    StepFailed,
    /// Something could not be taken back: the cluster is not as before.
    NotHealed,
}

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of this format: 1.
    pub version: u32,
    /// The drill's name.
    pub name: String,
    /// The drill's title.
    pub title: Titles,
    /// Its sites, how replicas lie over them, and the lines between; None in old reports.
    #[serde(default)]
    pub cluster: Option<ClusterPlan>,
    /// What is known of the cluster.
    pub facts: Vec<(String, String)>,
    /// When it began.
    pub began: UnixMs,
    /// When all was taken back and measured.
    pub ended: UnixMs,
    /// All steps of the drill.
    pub steps: Vec<StepReport>,
    /// What was taken back, in that order.
    pub healed: Vec<Healing>,
    /// What the load saw.
    pub measured: Measured,
    /// Why nothing was measured.
    pub measured_not: Option<String>,
    /// Against the targets.
    pub judged: Vec<Judged>,
    /// The end of it.
    pub verdict: Verdict,
}

impl Report {
    /// For the evidence store and for programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers have a form in JSON")
    }

    /// Reads what [`Report::json`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// Holds what was measured against the targets.
pub(crate) fn judge(drill: &Drill, measured: &Measured) -> Vec<Judged> {
    let Targets {
        rpo_records,
        rto_ms,
        availability_ppm,
        ack_gap_p50_ms,
        ack_gap_p99_ms,
        rpo_ms,
        first_ack_ms,
        last_ack_ms,
    } = drill.targets;
    let id_of = |target: &str| {
        let listed = drill.ids.iter().find(|listed| listed.target == target);
        listed.map(|listed| listed.id.clone())
    };
    let at_most = |target: &str, wanted: Option<u64>, measured: Option<u64>| {
        let holds = |wanted| measured.is_some_and(|measured| measured <= wanted);
        let (id, target) = (id_of(target), target.to_owned());
        wanted.map(|wanted| Judged { target, id, wanted, measured, holds: holds(wanted) })
    };
    let availability = availability_ppm.map(|wanted| Judged {
        target: "availability_percent".to_owned(),
        id: id_of("availability_percent"),
        wanted: wanted.into(),
        measured: measured.availability_ppm.map(u64::from),
        holds: measured.availability_ppm.is_some_and(|measured| measured >= wanted),
    });
    let judged = [
        at_most("rpo_records", rpo_records, measured.lost),
        at_most("rpo", rpo_ms, measured.rpo_ms),
        at_most("rto", rto_ms, measured.rto_ms),
        at_most("first_ack", first_ack_ms, measured.first_ack_ms),
        at_most("last_ack", last_ack_ms, measured.last_ack_ms),
        at_most("ack_gap_p50", ack_gap_p50_ms, measured.ack_gap_p50_ms),
        at_most("ack_gap_p99", ack_gap_p99_ms, measured.ack_gap_p99_ms),
        availability,
    ];
    judged.into_iter().flatten().collect()
}
