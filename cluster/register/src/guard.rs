//! Whether a promotion would take over from a primary that lives.
//!
//! ```text
//!  place    says                       counts as
//!  north    (no answer)                perhaps heard it
//!  south    not for 40 s, up for days  did not
//!  third    2 s ago                    heard it                ──▶ 2 of 3 perhaps: refused
//! ```
//! The primary holds a lease only if a majority confirmed it. It certainly holds none where those
//! who did not hear it leave no majority. This protects from haste, not from two primaries: that is
//! the promotion wait's part, with or without the guard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{AcceptorId, Decision, HeardOf, LeaseTime};

/// What the acceptors know of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The primary holds no lease.
    Clear,
    /// The primary may hold one.
    Refused {
        /// Places that heard it within a lease, and how long ago.
        heard: Vec<(String, Duration)>,
        /// Places that did not answer.
        silent: Vec<String>,
        /// Places that started less than a lease ago, and when: they may have heard it before.
        young: Vec<(String, Duration)>,
    },
}

/// Judges the answers to [`Question::Heard`](crate::Question::Heard) by the seats of the decision
/// in force. Answers of acceptors without a seat do not count.
pub fn primary_lives(
    decision: &Decision,
    answers: &BTreeMap<AcceptorId, HeardOf>,
    time: LeaseTime,
) -> Verdict {
    let (mut heard, mut silent, mut young) = (Vec::new(), Vec::new(), Vec::new());
    // The acceptor's clock may run faster than the primary's.
    let recent = time.promotion_wait();
    for seat in &decision.seats {
        let place = seat.place.clone();
        match answers.get(&seat.acceptor) {
            None => silent.push(place),
            Some(HeardOf { ago: Some(ago), .. }) if *ago < recent => heard.push((place, *ago)),
            Some(HeardOf { up_for, .. }) if *up_for < recent => young.push((place, *up_for)),
            Some(_) => {}
        }
    }
    if heard.len() + silent.len() + young.len() >= decision.majority() {
        Verdict::Refused { heard, silent, young }
    } else {
        Verdict::Clear
    }
}
