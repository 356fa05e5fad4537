//! Decisions by compare and set: those that raise the incarnation, in two steps, and those that note
//! something of the one in force.
//!
//! ```text
//!  known ─▶ intended by this node ─▶ the next life
//!             │ not chosen, or late: told as failed, and never done
//!             └ not followed for 15 s: any node that knows of it withdraws it
//! ```
//! A decision that was cut off half-way is finished by whoever reads next, however late. Of one that
//! raises the incarnation this is the intent, which changes nothing; only where the few milliseconds of
//! the second step are hit is the outcome unknown, and told as that.

use std::sync::Arc;

use dtm_cluster::ClusterNode;
use dtm_register::{Act, Decision, Outcome, Proposer};

use super::Primacy;
use super::watch::READ_WITHIN;

/// How a decision that raises the incarnation ended.
pub(super) enum Raised {
    /// It is in force.
    Done(Decision),
    /// Another one was made meanwhile.
    Other(Decision),
    /// It was not made, and will not be.
    Not(Outcome),
    /// It may be in force, now or after the next read.
    Unknown(Outcome),
}

impl Primacy {
    /// Sets what is to follow the decision in force.
    pub(super) async fn set(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        known: &Decision,
        next: Decision,
    ) -> Result<Outcome, dtm_register::Illegal> {
        let change = Proposer::change(self.proposer_id(), known, next)?;
        Ok(self.drive(cluster, change, READ_WITHIN).await)
    }

    /// Raises the incarnation: by an intent of this node, and then by what `next` makes of it.
    ///
    /// # Errors
    /// Where the decision cannot follow the one that is known: nothing was asked then.
    pub(super) async fn raise(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        known: &Decision,
        act: Act,
        next: impl FnOnce(&Decision) -> Decision,
    ) -> Result<Raised, dtm_register::Illegal> {
        let begun = self.now();
        let intent = known.intended(self.node, act);
        match self.set(cluster, known, intent.clone()).await? {
            Outcome::Chosen(_) => self.adopt(&intent),
            Outcome::Lost(newer) | Outcome::Overtaken(newer) => return Ok(self.other(newer)),
            failed => return Ok(Raised::Not(failed)),
        };
        if self.now().saturating_sub(begun) > Decision::CARRIED_OUT_WITHIN {
            return Ok(Raised::Not(Outcome::NoQuorum(Vec::new())));
        }
        let next = next(&intent);
        Ok(match self.set(cluster, &intent, next.clone()).await? {
            Outcome::Chosen(_) => {
                self.adopt(&next);
                Raised::Done(next)
            }
            Outcome::Lost(newer) | Outcome::Overtaken(newer) => self.other(newer),
            unknown @ Outcome::Unknown { .. } => Raised::Unknown(unknown),
            failed => Raised::Not(failed),
        })
    }

    fn other(&self, newer: Decision) -> Raised {
        self.adopt(&newer);
        Raised::Other(newer)
    }

    /// Withdraws what was intended and not carried out, once it is known for long enough.
    pub(super) async fn withdraw(self: &Arc<Self>, cluster: &ClusterNode) -> Result<(), String> {
        let Some(known) = self.decision() else { return Ok(()) };
        let age = self.now().saturating_sub(self.state.read().told_at);
        let Some(node) = known.intends.filter(|_| age >= Decision::INTENT_LEFT_AFTER) else {
            return Ok(());
        };
        let reason = format!("node {node} did not carry it out: {}", known.act.reason);
        let next = known.withdrawn(self.own_act(reason));
        tracing::warn!(%node, "what was intended for another life is withdrawn");
        self.note_in_force(cluster, &known, next).await
    }

    /// Sets a decision that changes neither sites nor incarnation, unless another was made meanwhile:
    /// that one is gone by from then on.
    pub(super) async fn note_in_force(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        known: &Decision,
        next: Decision,
    ) -> Result<(), String> {
        let set = self.set(cluster, known, next).await.map_err(|error| error.to_string())?;
        match set {
            Outcome::Chosen(decision) | Outcome::Lost(decision) | Outcome::Overtaken(decision) => {
                self.adopt(&decision);
                Ok(())
            }
            failed => Err(super::watch::words(&failed)),
        }
    }

    /// Of this node, by itself.
    pub(super) fn own_act(&self, reason: String) -> Act {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        Act { at_us: self.clock.now_us(), by: format!("node {}", self.node), reason }
    }
}

/// A reason that repeats another one stays within what a decision holds, in any script.
const REASON_CHARS_MAX: usize = Decision::REASON_BYTES_MAX / 4;
