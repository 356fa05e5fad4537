//! Who does the steps: a cluster in namespaces, an operator's own cluster, a test.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Action;

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

/// The time of a run.
pub trait Clock {
    /// Now.
    fn now(&self) -> UnixMs;
    /// Waits. A run waits in pieces of at most 200 ms, so that it can be stopped.
    fn sleep(&self, time: Duration);
}

/// Why a step did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The cluster said no, with its reason.
    Refused(String),
    /// It could not be done; something of it may have happened.
    Failed(String),
}

/// A step that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What was done in particular: which node, which process.
    pub told: String,
    /// By which it is taken back; None: there is nothing to take back.
    pub undo: Option<u64>,
}

/// What the load saw over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Records that were acked.
    pub acked: Option<u64>,
    /// Of these, records that are gone.
    pub lost: Option<u64>,
    /// Which, as ranges of streams.
    pub lost_ranges: Vec<String>,
    /// Longest time without service.
    pub rto_ms: Option<u64>,
    /// Longest wait between two acks, of the middle source.
    pub ack_gap_p50_ms: Option<u64>,
    /// The same, of the source below which 99 % are.
    pub ack_gap_p99_ms: Option<u64>,
    /// Share of the time in service, in millionths.
    pub availability_ppm: Option<u32>,
    /// How long before a site was lost the oldest of the lost records was acked; 0: none is lost.
    pub rpo_ms: Option<u64>,
    /// From the loss of a site to the first ack of another node.
    pub first_ack_ms: Option<u64>,
    /// From a fault after which nobody may ack to the last ack.
    pub last_ack_ms: Option<u64>,
}

/// What a run needs done.
pub trait Hands {
    /// Does a step within this time. `Wait` without a state and `Heal` are not asked for.
    ///
    /// # Errors
    /// When it was refused or failed. What was done in part is taken back by the implementation.
    fn act(&mut self, action: &Action, within: Duration) -> Result<Done, Failure>;

    /// Takes a step back. Asked for once for each.
    ///
    /// # Errors
    /// When it stays as it is; the run goes on with the other steps.
    fn undo(&mut self, undo: u64) -> Result<(), String>;

    /// What the load saw, after everything was taken back and has settled.
    ///
    /// # Errors
    /// When it cannot be known.
    fn measure(&mut self) -> Result<Measured, String>;

    /// What the report should say of the cluster, such as its name and version.
    fn facts(&self) -> Vec<(String, String)>;
}
