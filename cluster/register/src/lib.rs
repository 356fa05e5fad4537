//! The register: one replicated decision, *which site is primary, in which incarnation*.
//!
//! ```text
//!   primary site          standby site           third place
//!  ┌────────────┐        ┌────────────┐        ┌────────────┐
//!  │ acceptor a │        │ acceptor b │        │ acceptor c │   a file of some hundred bytes each
//!  └─────▲──────┘        └─────▲──────┘        └─────▲──────┘
//!        │ confirm, each second│ prepare, accept     │
//!   Lease: may acknowledge     └─ Proposer: read, change, replace an acceptor ─┘
//! ```
//! Paxos as a register with compare and set (the construction of CASPaxos): no leader, no log, no
//! election. Why it is no Raft group: docs/adr/0011-which-site-is-primary-is-a-register.md. No
//! network, clock, randomness or runtime here; files only behind [`Keep`].
//!
//! # Why no two decisions have one number
//!
//! An entry is *chosen* when, under one ballot, a majority of each of its lists accepted it. Its
//! lists are its own seats and, in a replacement, the seats before. What proposers keep to:
//!
//! 1. One ballot carries one entry.
//! 2. Under a ballot b, the newest entry E that was found below b is proposed again, or a child of
//!    it; a majority of each list of E promised b. A child only where E is known to be chosen.
//! 3. A child either keeps the seats of its parent or has them as `before`. So **a majority of the
//!    seats of the parent accepts every child that is chosen, and a majority of the parent's seats
//!    promises before the child, once found, is followed.**
//!
//! *Claim*: if E is chosen under e, whatever is proposed under a higher ballot b is E or descends
//! from it. By induction over b. Let F be what the proposer of b found, under f < b.
//!
//! * f ≥ e: F is E or descends from it, by one entry a ballot (f = e) or the claim for f. Done.
//! * f < e: the line from the founding to E has chosen entries only (2). Let C be its last member
//!   that F is or descends from, and D the next one of the line; C ≠ E, else done. D was chosen
//!   under some d ≤ e < b, so a majority of C's seats accepted it (3). A majority of C's seats also
//!   promised b: if F is C, as F's seats; if F is a child of C, by (3); if F descends from C
//!   through a child G ≠ D that was chosen, then G and D are chosen and neither descends from the
//!   other, against the claim for the lower of the two. Both majorities share an acceptor. It
//!   accepted D before it promised b, else it had refused D; so it told of D or of something newer,
//!   and f ≥ d. By the claim for f, F is D or descends from it: against the choice of C.
//!
//! The empty register counts as the parent of the first decision, with the seats that its founder
//! names: who founds has found nothing at a majority of them.
//!
//! Each child has the number of its parent plus one, so of one number one decision is chosen. The
//! second step of a replacement is a child with the same decision: the number does not rise.
//! Replacing one seat at a time is not needed for this; it keeps two acceptors of three enough for
//! each step, whichever one is gone.
//!
//! # Why two sites never acknowledge at one time
//!
//! Let decision n be chosen, by which P is primary, and n + 1, accepted by a majority A of the
//! seats of n. P's lease under n rests on confirmations by a majority C of the same seats, and
//! shares an acceptor z with A. z confirms n only while n is what it accepted. After it has
//! accepted n + 1 in the ballot in which that was chosen it accepts only n + 1 and what descends
//! from it. So z confirmed before it accepted, P had asked earlier still, and the lease, counted
//! from the asking, ends within one lease of the moment in which n + 1 was chosen. Whoever becomes
//! primary by n + 1, or by anything later, begins a [promotion wait](LeaseTime::promotion_wait)
//! after it knew that. An acceptor that has promised n + 1 and not accepted it may go on confirming
//! n: the argument needs no promise.
//!
//! # What it rests on
//!
//! * A promise or acceptance is on stable storage before it is answered, and the file never goes
//!   back to an older state: it is in no backup, and a copy of it is never put back. A file that is
//!   lost gives a new [`AcceptorId`]; one that is damaged stops the acceptor.
//! * [`ProposerId`]s are never used twice.
//! * A site takes rights only from what is *chosen*, as a [`Proposer`] told it, never from what one
//!   acceptor accepted; and the incarnation that it waited for is noted on its disk before it
//!   acknowledges in it ([`Since`]).
//! * Clocks run wrong by less than one percent and go on in a suspended machine.

mod acceptor;
mod decision;
mod entry;
mod error;
mod guard;
mod ids;
mod keep;
mod lease;
mod message;
mod proposer;
mod proto;
mod wire;

#[cfg(test)]
mod tests;

pub use acceptor::Acceptor;
pub use decision::{Act, Cause, Decision, Illegal, Seat};
pub use entry::{Accepted, Entry};
pub use error::Error;
pub use guard::{Verdict, primary_lives};
pub use ids::{AcceptorId, Ballot, ProposerId};
pub use keep::{FileKeep, Keep, MemoryKeep};
pub use lease::{Asked, Lease, LeaseTime, Since};
pub use message::{Answer, Claim, HeardOf, Question, Says};
pub use proposer::{Missing, Outcome, Proposer, Send, Step};
pub use wire::Malformed;
