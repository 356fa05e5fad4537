//! What acceptors keep: a decision, and which lists have to accept it.
//!
//! ```text
//!  decision 2             decision 3 (c replaced by d)            decision 3, settled
//!  seats  a b c   ──▶     seats  a b d   before  a b c    ──▶     seats  a b d
//!  needs  2 of abc        needs  2 of abd and 2 of abc            needs  2 of abd
//! ```
//! Whatever follows an entry is accepted by a majority of that entry's seats: in a replacement
//! these are `before`, else they are the seats themselves. The second step of a replacement ends
//! the need for the old list, so that the replaced acceptor and one more may be gone afterwards.

use crate::decision::{Decision, Illegal, Seat, check_seats, majority};
use crate::{AcceptorId, Ballot};

/// A decision on its way through the acceptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is decided.
    pub decision: Decision,
    /// Seats of the decision before, while they are needed; else empty.
    pub before: Vec<Seat>,
}

impl Entry {
    /// The entry by which `next` follows `parent`.
    pub(crate) fn after(parent: &Decision, next: Decision) -> Self {
        let before = if next.seats == parent.seats { Vec::new() } else { parent.seats.clone() };
        Self { decision: next, before }
    }

    /// The first entry of a register, or the second step of a replacement.
    pub(crate) fn settled(decision: Decision) -> Self {
        Self { decision, before: Vec::new() }
    }

    /// The old list is still needed.
    pub fn is_joint(&self) -> bool {
        !self.before.is_empty()
    }

    /// Lists of which each has to give a majority.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &[Seat]> {
        let before = self.is_joint().then_some(self.before.as_slice());
        before.into_iter().chain([self.decision.seats.as_slice()])
    }

    /// Each list has a majority among those for whom `has` says yes.
    pub(crate) fn has_quorum(&self, has: impl Fn(AcceptorId) -> bool) -> bool {
        self.lists().all(|list| is_majority(list, &has))
    }

    /// Names, lengths, distinct seats.
    pub(crate) fn check(&self) -> Result<(), Illegal> {
        self.decision.check()?;
        let shape = |what| Illegal::Shape { number: self.decision.number, what };
        if self.is_joint() { check_seats(&self.before).map_err(shape) } else { Ok(()) }
    }
}

/// More than half of a list.
pub(crate) fn is_majority(list: &[Seat], has: impl Fn(AcceptorId) -> bool) -> bool {
    list.iter().filter(|seat| has(seat.acceptor)).count() >= majority(list)
}

/// An entry and the attempt in which an acceptor took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The attempt.
    pub ballot: Ballot,
    /// What was accepted. Perhaps not chosen.
    pub entry: Entry,
}
