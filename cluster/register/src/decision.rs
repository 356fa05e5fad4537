//! What is decided, and which decision may follow which.
//!
//! ```text
//!  number       1 ─────▶ 2 ───────▶ 3 ───────▶ 4 ────────▶ 5 ───────▶ 6 ────────▶ 7
//!  cause        founded  intended   promoted   acceptor    intended   withdrawn   detached
//!  incarnation  1        1          2          2 replaced  2          2           2
//!  primary      north    north      south      south       south      south       south
//!  seats        a b c    a b c      a b c      a b d       a b d      a b d       a b d
//! ```
//! A decision that changes the primary raises the incarnation and keeps the seats; one that
//! replaces an acceptor changes one seat and nothing else. So the seats of two neighbours differ by
//! one at most, and a change of both kinds is two decisions.
//!
//! **A promotion is two decisions too**: an intent, which changes nothing, and right after it, by
//! the node that intended it, the promotion. Whoever finds a decision that is perhaps chosen
//! finishes it, however late; what is found of a promotion that was cut off is nearly always its
//! intent, and that one is harmless. An intent that is not followed is withdrawn: the promotion
//! that follows it, should it still be on its way, finds another decision and is lost.
//!
//! A standby that was *detached* is not promoted: what is acknowledged since does not wait for it.
//! Only a later layout that names it attaches it again.

use std::collections::BTreeSet;
use std::time::Duration;

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
    /// A node is about to raise the incarnation; nothing changed yet.
    Intended,
    /// What was intended is not done.
    Withdrawn,
    /// The standby is not waited for any more, and cannot be promoted.
    Detached,
    /// A standby that was detached stands by again.
    Attached,
}

impl Cause {
    /// Whether the next incarnation begins by it.
    fn begins_life(self) -> bool {
        matches!(self, Self::Promoted | Self::Forced | Self::Returned)
    }
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
    /// The node that is about to raise the incarnation; of an intent alone.
    pub intends: Option<NodeId>,
    /// The version of the layout whose standby was detached; 0 = it is attached.
    pub detached_layout: u64,
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
    /// Who intended to raise the incarnation does it within that, by its own clock, or not at all.
    pub const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(5);
    /// Who knows of an intent for so long, by its own clock, withdraws it.
    pub const INTENT_LEFT_AFTER: Duration = Duration::from_secs(15);

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
            intends: None,
            detached_layout: 0,
        }
    }

    /// The next decision, which changes nothing else.
    fn noted(&self, cause: Cause, act: Act) -> Self {
        let number = self.number.saturating_add(1);
        Self { number, cause, act, intends: None, ..self.clone() }
    }

    /// The next decision: this node is about to raise the incarnation.
    #[must_use]
    pub fn intended(&self, node: NodeId, act: Act) -> Self {
        Self { intends: Some(node), ..self.noted(Cause::Intended, act) }
    }

    /// The next decision after an intent that nobody carried out.
    #[must_use]
    pub fn withdrawn(&self, act: Act) -> Self {
        self.noted(Cause::Withdrawn, act)
    }

    /// The next decision: the standby of this version of the layout is not waited for any more, and
    /// cannot be promoted.
    #[must_use]
    pub fn detached(&self, layout: u64, act: Act) -> Self {
        Self { detached_layout: layout, ..self.noted(Cause::Detached, act) }
    }

    /// The next decision: the standby that was detached stands by again.
    #[must_use]
    pub fn attached(&self, act: Act) -> Self {
        Self { detached_layout: 0, ..self.noted(Cause::Attached, act) }
    }

    /// Whether its standby can be promoted.
    pub fn is_attached(&self) -> bool {
        self.detached_layout == 0
    }

    /// The next decision after an intent: the standby becomes primary in the next incarnation, of
    /// which the node that intended it draws up the plan.
    #[must_use]
    pub fn promoted(&self, cause: Cause, act: Act) -> Self {
        Self {
            incarnation: Incarnation(self.incarnation.0.saturating_add(1)),
            primary: self.standby.clone(),
            standby: self.primary.clone(),
            coordinator: self.intends,
            ..self.noted(cause, act)
        }
    }

    /// The next decision after an intent: the same site begins another incarnation, of which the
    /// node that intended it draws up the plan; that of the one before never was.
    #[must_use]
    pub fn begun_anew(&self, act: Act) -> Self {
        Self {
            incarnation: Incarnation(self.incarnation.0.saturating_add(1)),
            coordinator: self.intends,
            ..self.noted(Cause::Promoted, act)
        }
    }

    /// The next decision: `seat` takes the seat of acceptor `gone`. `None` where nobody of that id
    /// has a seat.
    #[must_use]
    pub fn replaced(&self, gone: AcceptorId, seat: Seat, act: Act) -> Option<Self> {
        let at = self.seats.iter().position(|seat| seat.acceptor == gone)?;
        let mut seats = self.seats.clone();
        seats[at] = seat;
        Some(Self { seats, ..self.noted(Cause::AcceptorReplaced, act) })
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
        if self.intends.is_some() != (self.cause == Cause::Intended) {
            return fail("an intent names its node, and nothing else does");
        }
        if (self.cause == Cause::Detached && self.is_attached())
            || (self.cause == Cause::Attached && !self.is_attached())
        {
            return fail("a decision that detaches names the layout, one that attaches none");
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
        let follows = if self.cause == Cause::AcceptorReplaced {
            self.replaces_one(before)
        } else if self.seats != before.seats {
            Err("only a decision that replaces an acceptor changes the seats")
        } else if self.cause.begins_life() {
            self.begins_life_after(before)
        } else {
            self.notes_after(before)
        };
        follows.or_else(fail)
    }

    /// What a decision that begins no life leaves as it is.
    fn life(&self) -> (Incarnation, &str, &str, Option<NodeId>) {
        (self.incarnation, &self.primary, &self.standby, self.coordinator)
    }

    fn replaces_one(&self, before: &Self) -> Result<(), &'static str> {
        let changed = self.seats.iter().zip(&before.seats).filter(|(new, old)| new != old).count();
        if self.life() != before.life() || self.detached_layout != before.detached_layout {
            return Err("a decision that replaces an acceptor changes nothing else");
        }
        if self.seats.len() != before.seats.len() || changed != 1 {
            return Err("one acceptor is replaced at a time");
        }
        let gone = before.seats.iter().find(|seat| !self.seats.contains(seat));
        if gone.is_some_and(|gone| self.seat(gone.acceptor).is_some()) {
            return Err("an acceptor moves with its file, under a new id");
        }
        Ok(())
    }

    fn begins_life_after(&self, before: &Self) -> Result<(), &'static str> {
        if self.incarnation <= before.incarnation {
            return Err("the incarnation rises");
        }
        if before.intends.is_none() || self.coordinator != before.intends {
            return Err("it follows the intent of the node that draws its plan up");
        }
        if !before.is_attached() || !self.is_attached() {
            return Err("a standby that was detached is not promoted");
        }
        Ok(())
    }

    fn notes_after(&self, before: &Self) -> Result<(), &'static str> {
        if self.life() != before.life() {
            return Err("it changes neither sites nor incarnation");
        }
        match self.cause {
            Cause::Detached if !before.is_attached() => {
                return Err("the standby is detached already");
            }
            Cause::Attached if before.is_attached() => return Err("the standby is attached"),
            Cause::Detached | Cause::Attached => return Ok(()),
            Cause::Withdrawn if before.intends.is_none() => return Err("nothing was intended"),
            Cause::Intended if !before.is_attached() => {
                return Err("a standby that was detached is not promoted");
            }
            _ => {}
        }
        if self.detached_layout != before.detached_layout {
            return Err("it neither detaches nor attaches");
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
