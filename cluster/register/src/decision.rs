//! What is decided, and which decision may follow which.
//!
//! ```text
//!  number       1 ─────▶ 2 ─────────────▶ 3 ─────────────▶ 4 ─────────▶
//!  cause        founded  promoted         acceptor         returned
//!  incarnation  1        2                2  replaced      3
//!  primary      north    south            south            north
//!  seats        a b c    a b c            a b d            a b d
//! ```
//! A decision that changes the primary raises the incarnation and keeps the seats; one that
//! replaces an acceptor changes one seat and nothing else. So the seats of two neighbours differ by
//! one at most, and a change of both kinds is two decisions.

use std::collections::BTreeSet;

use dtm_types::{Incarnation, NodeId};

use crate::AcceptorId;

/// One acceptor and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Place: the name of a site, or of the third place.
    pub place: String,
    /// Node that runs it: how it is reached.
    pub node: NodeId,
    /// Under which id its answers count.
    pub acceptor: AcceptorId,
}

/// Why a decision was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first decision of a register.
    Founded,
    /// A standby became primary, with a quorum of the register.
    Promoted,
    /// A promotion made without a quorum is entered afterwards.
    Forced,
    /// The primary went back to the other site.
    Returned,
    /// One acceptor was replaced; nothing else changed.
    AcceptorReplaced,
}

/// Who decided when, and why: for people and for the ledger. No rule reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Act {
    /// Unix microseconds by the clock of the node that proposed.
    pub at_us: i64,
    /// Operator or node, as the ledger names it.
    pub by: String,
    /// Reason given.
    pub reason: String,
}

/// The value of the register: which site is primary, in which life of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Rises by one with each decision; the first is 1.
    pub number: u64,
    /// The life of the cluster that is in force.
    pub incarnation: Incarnation,
    /// The site whose nodes may acknowledge.
    pub primary: String,
    /// The site that follows it.
    pub standby: String,
    /// The acceptors that the next decision needs a majority of.
    pub seats: Vec<Seat>,
    /// The node that draws up the plan of this incarnation. It keeps it before anybody else has it, so
    /// that there are no two of one incarnation; where it is lost before, the next one names another.
    pub coordinator: Option<NodeId>,
    /// Why it was made.
    pub cause: Cause,
    /// By whom and when.
    pub act: Act,
}

/// Why a decision cannot stand, or cannot follow another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// A name, a list or a number is not allowed.
    #[error("decision {number}: {what}")]
    Shape {
        /// The decision.
        number: u64,
        /// What is wrong, in words.
        what: &'static str,
    },
    /// It does not follow the decision that it was made for.
    #[error("decision {number} cannot follow {before}: {what}")]
    Order {
        /// The decision.
        number: u64,
        /// The one before.
        before: u64,
        /// What is wrong, in words.
        what: &'static str,
    },
}

impl Decision {
    /// Longest name of a site or place, bytes.
    pub const NAME_BYTES_MAX: usize = 128;
    /// Longest reason, bytes.
    pub const REASON_BYTES_MAX: usize = 4_096;
    /// Most acceptors.
    pub const SEATS_MAX: usize = 7;

    /// The first decision of a register, in the life that the cluster lives in.
    pub fn founded(
        incarnation: Incarnation,
        (primary, standby): (&str, &str),
        seats: Vec<Seat>,
        act: Act,
    ) -> Self {
        Self {
            number: 1,
            incarnation,
            primary: primary.to_owned(),
            standby: standby.to_owned(),
            seats,
            coordinator: None,
            cause: Cause::Founded,
            act,
        }
    }

    /// The next decision: the standby becomes primary in the next incarnation, of which this node draws
    /// up the plan.
    #[must_use]
    pub fn promoted(&self, cause: Cause, coordinator: Option<NodeId>, act: Act) -> Self {
        Self {
            number: self.number.saturating_add(1),
            incarnation: Incarnation(self.incarnation.0.saturating_add(1)),
            primary: self.standby.clone(),
            standby: self.primary.clone(),
            seats: self.seats.clone(),
            coordinator,
            cause,
            act,
        }
    }

    /// The next decision: the same site begins another incarnation, of which this node draws up the
    /// plan; that of the one before never was.
    #[must_use]
    pub fn begun_anew(&self, coordinator: NodeId, act: Act) -> Self {
        Self {
            number: self.number.saturating_add(1),
            incarnation: Incarnation(self.incarnation.0.saturating_add(1)),
            coordinator: Some(coordinator),
            cause: Cause::Promoted,
            act,
            ..self.clone()
        }
    }

    /// The next decision: `seat` takes the seat of acceptor `gone`. `None` where nobody of that id
    /// has a seat.
    #[must_use]
    pub fn replaced(&self, gone: AcceptorId, seat: Seat, act: Act) -> Option<Self> {
        let at = self.seats.iter().position(|seat| seat.acceptor == gone)?;
        let mut seats = self.seats.clone();
        seats[at] = seat;
        let number = self.number.saturating_add(1);
        Some(Self { number, seats, cause: Cause::AcceptorReplaced, act, ..self.clone() })
    }

    /// Whether it can stand by itself: names, lengths, distinct seats.
    pub fn check(&self) -> Result<(), Illegal> {
        let fail = |what| Err(Illegal::Shape { number: self.number, what });
        if self.number == 0 || self.incarnation.0 == 0 {
            return fail("numbers and incarnations count from 1");
        }
        if self.cause == Cause::Founded && self.number != 1 {
            return fail("only the first decision founds");
        }
        if !is_name(&self.primary) || !is_name(&self.standby) {
            return fail("sites have names of 1 to 128 bytes without control characters");
        }
        if self.primary == self.standby {
            return fail("primary and standby are different sites");
        }
        if self.act.by.len() > Self::NAME_BYTES_MAX
            || self.act.reason.len() > Self::REASON_BYTES_MAX
        {
            return fail("the name of who decided or the reason is too long");
        }
        check_seats(&self.seats).or_else(fail)
    }

    /// Whether it may come right after `before`: see the module.
    pub fn check_after(&self, before: &Self) -> Result<(), Illegal> {
        self.check()?;
        let fail = |what| Err(Illegal::Order { number: self.number, before: before.number, what });
        if self.number.checked_sub(1) != Some(before.number) {
            return fail("numbers rise by one");
        }
        let changed = self.seats.iter().zip(&before.seats).filter(|(new, old)| new != old).count();
        if self.cause == Cause::AcceptorReplaced {
            let life = |of: &Self| {
                (of.incarnation, of.primary.clone(), of.standby.clone(), of.coordinator)
            };
            if life(self) != life(before) {
                return fail("a decision that replaces an acceptor changes nothing else");
            }
            if self.seats.len() != before.seats.len() || changed != 1 {
                return fail("one acceptor is replaced at a time");
            }
            let gone = before.seats.iter().find(|seat| !self.seats.contains(seat));
            if gone.is_some_and(|gone| self.seat(gone.acceptor).is_some()) {
                return fail("an acceptor moves with its file, under a new id");
            }
            return Ok(());
        }
        if self.seats.len() != before.seats.len() || changed != 0 {
            return fail("only a decision that replaces an acceptor changes the seats");
        }
        if self.incarnation <= before.incarnation {
            return fail("the incarnation rises");
        }
        Ok(())
    }

    /// The seat of an acceptor.
    pub fn seat(&self, acceptor: AcceptorId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.acceptor == acceptor)
    }

    /// Acceptors that are a majority of the seats.
    pub fn majority(&self) -> usize {
        majority(&self.seats)
    }
}

/// More than half.
pub(crate) fn majority(seats: &[Seat]) -> usize {
    seats.len() / 2 + 1
}

fn is_name(name: &str) -> bool {
    (1..=Decision::NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

pub(crate) fn check_seats(seats: &[Seat]) -> Result<(), &'static str> {
    if !(1..=Decision::SEATS_MAX).contains(&seats.len()) {
        return Err("a register has 1 to 7 acceptors");
    }
    if !seats.iter().all(|seat| is_name(&seat.place)) {
        return Err("places have names of 1 to 128 bytes without control characters");
    }
    let ids: BTreeSet<_> = seats.iter().map(|seat| seat.acceptor).collect();
    let nodes: BTreeSet<_> = seats.iter().map(|seat| seat.node).collect();
    if ids.len() != seats.len() || nodes.len() != seats.len() {
        return Err("no acceptor and no node has two seats");
    }
    Ok(())
}
