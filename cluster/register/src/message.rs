//! What proposers and primaries ask, and what acceptors answer.
//!
//! ```text
//!  Prepare(ballot)         ──▶  Promised(accepted) │ Higher(promised)
//!  Accept(ballot, entry)   ──▶  Accepted           │ Higher(promised)
//!  Confirm(claim)          ──▶  Confirmed          │ Changed(accepted)
//!  Heard                   ──▶  Heard(site, how long ago)
//! ```
//! As bytes: `wire.rs`. One call carries one question and brings one answer; a question may be
//! asked twice, and either may get lost.

use std::time::Duration;

use dtm_types::Incarnation;

use crate::entry::{Accepted, Entry};
use crate::{AcceptorId, Ballot, Decision};

/// The right that a site claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The decision that it goes by.
    pub number: u64,
    /// The incarnation of that decision.
    pub incarnation: Incarnation,
    /// The site that asks.
    pub site: String,
}

/// Asked of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Take nothing below this ballot any more, and say what you have.
    Prepare {
        /// The attempt.
        ballot: Ballot,
    },
    /// Take this.
    Accept {
        /// The attempt.
        ballot: Ballot,
        /// What is to be taken.
        entry: Entry,
    },
    /// May this site go on acknowledging?
    Confirm(Claim),
    /// When did the primary ask last?
    Heard,
}

/// The answer of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answers. Counts only where this id has a seat.
    pub acceptor: AcceptorId,
    /// What it says.
    pub says: Says,
}

/// What an acceptor says. What it promised or accepted is on stable storage before it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing below `ballot` will be accepted.
    Promised {
        /// As asked.
        ballot: Ballot,
        /// What was accepted last, if anything.
        accepted: Option<Box<Accepted>>,
    },
    /// It was accepted.
    Accepted {
        /// As asked.
        ballot: Ballot,
    },
    /// Refused: a higher attempt was promised.
    Higher {
        /// As asked.
        asked: Ballot,
        /// What was promised.
        promised: Ballot,
    },
    /// The claim agrees with what was accepted here.
    Confirmed {
        /// The decision that was confirmed.
        number: u64,
    },
    /// Something else was accepted here. It is perhaps not chosen: who is told this *reads* before
    /// it takes a right from it.
    Changed {
        /// What was accepted; `None` when nothing was.
        accepted: Option<Box<Decision>>,
    },
    /// What this acceptor heard of the primary.
    Heard(HeardOf),
}

/// When the primary asked last, by the acceptor's own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeardOf {
    /// Number of the decision that was accepted here; 0 = none.
    pub number: u64,
    /// Since its last question for confirmation that was granted; `None` = none since the start.
    pub ago: Option<Duration>,
    /// Since this acceptor's start: what was before is forgotten.
    pub up_for: Duration,
}
