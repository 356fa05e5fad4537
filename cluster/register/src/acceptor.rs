//! One of the few that remember: promises, what was accepted, and when the primary asked.
//!
//! ```text
//!  prepare(b)      b ≥ promised ──▶ promised = b ─────────────────── saved ──▶ Promised(accepted)
//!  accept(b, e)    b ≥ promised ──▶ promised = b, accepted = (b, e) ─ saved ──▶ Accepted
//!                  else ───────────────────────────────────────────────────▶ Higher(promised)
//!  confirm(claim)  accepted says the same number, incarnation and primary ──▶ Confirmed
//! ```
//! **A promise does not end confirmations, an acceptance does.** Nothing is decided by a promise: a
//! decision is chosen by acceptances of a majority, every right to acknowledge rests on
//! confirmations of a majority, and the two share an acceptor. That one confirmed before it
//! accepted. Were promises enough to refuse, anyone who only asks would stop the primary.
//!
//! **The number counts, not only the primary.** The primary may know an older list of acceptors,
//! and a majority of that list need not meet the acceptors of the newest decision; it meets those
//! of the decision that replaced it, which has a number of its own.
//!
//! When a primary last asked and was confirmed is not stored: it only says whether a promotion
//! would be hasty, and [`HeardOf::up_for`] says how far back it reaches. It is kept over an
//! acceptance: a confirmation of a moment ago still counts for its asker.

use std::time::Duration;

use crate::entry::{Accepted, Entry};
use crate::error::Error;
use crate::keep::Keep;
use crate::wire::State;
use crate::{AcceptorId, Answer, Ballot, Claim, Decision, HeardOf, Question, Says};

/// An acceptor over its stable storage. Questions are answered one after the other.
///
/// After a failed write it answers nothing more ([`Error::Stopped`]): what the disk holds is
/// unknown until it is loaded again.
#[derive(Debug)]
pub struct Acceptor<K> {
    keep: K,
    state: State,
    started: Duration,
    heard: Option<Duration>,
    failed: Option<String>,
}

impl<K: Keep> Acceptor<K> {
    /// Loads the state; where there is none, makes one under the id `fresh`, which is on stable
    /// storage when this returns. `fresh` is drawn at random for each call. `now` is a monotonic
    /// time of this node, from any epoch.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the file is not what was written: it is never taken for an empty
    /// one.
    pub fn open(mut keep: K, fresh: AcceptorId, now: Duration) -> Result<Self, Error> {
        let io = |action, keep: &K| {
            let at = keep.name();
            move |source| Error::Io { at, action, source }
        };
        let state = match keep.load().map_err(io("reading", &keep))? {
            Some(bytes) => State::decode(&bytes)
                .map_err(|source| Error::Damaged { at: keep.name(), source })?,
            None => {
                let state = State { acceptor: fresh, promised: None, accepted: None };
                keep.save(&state.encode()).map_err(io("writing", &keep))?;
                state
            }
        };
        Ok(Self { keep, state, started: now, heard: None, failed: None })
    }

    /// Under which id it answers.
    pub fn id(&self) -> AcceptorId {
        self.state.acceptor
    }

    /// What it accepted last. Perhaps not chosen: a hint where to read, never a right.
    pub fn accepted(&self) -> Option<&Accepted> {
        self.state.accepted.as_ref()
    }

    /// Answers a question; `now` as in [`Acceptor::open`].
    pub fn answer(&mut self, question: &Question, now: Duration) -> Result<Answer, Error> {
        let says = match question {
            Question::Prepare { ballot } => self.prepare(*ballot),
            Question::Accept { ballot, entry } => self.accept(*ballot, entry),
            Question::Confirm(claim) => self.confirm(claim, now),
            Question::Heard => self.heard(now).map(Says::Heard),
        }?;
        Ok(Answer { acceptor: self.id(), says })
    }

    /// Promises to take nothing below `ballot`. The promise is on stable storage when it is given.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Says, Error> {
        self.is_running()?;
        if let Some(promised) = self.state.promised.filter(|promised| *promised > ballot) {
            return Ok(Says::Higher { asked: ballot, promised });
        }
        if self.state.promised != Some(ballot) {
            self.save(State { promised: Some(ballot), ..self.state.clone() })?;
        }
        Ok(Says::Promised { ballot, accepted: self.state.accepted.clone().map(Box::new) })
    }

    /// Takes an entry, unless a higher ballot was promised. It is on stable storage when it is said
    /// to be accepted.
    pub fn accept(&mut self, ballot: Ballot, entry: &Entry) -> Result<Says, Error> {
        self.is_running()?;
        if let Some(promised) = self.state.promised.filter(|promised| *promised > ballot) {
            return Ok(Says::Higher { asked: ballot, promised });
        }
        match &self.state.accepted {
            Some(accepted) if accepted.ballot == ballot && accepted.entry != *entry => {
                return Err(Error::BallotReused { ballot });
            }
            Some(accepted) if accepted.ballot == ballot => {}
            _ => {
                let accepted = Some(Accepted { ballot, entry: entry.clone() });
                let acceptor = self.state.acceptor;
                self.save(State { acceptor, promised: Some(ballot), accepted })?;
            }
        }
        Ok(Says::Accepted { ballot })
    }

    /// Whether a site may go on acknowledging, for one lease from the moment it asked.
    pub fn confirm(&mut self, claim: &Claim, now: Duration) -> Result<Says, Error> {
        self.is_running()?;
        let accepted = self.state.accepted.as_ref().map(|accepted| &accepted.entry.decision);
        if accepted.is_some_and(|decision| is_same(decision, claim)) {
            self.heard = Some(now);
            return Ok(Says::Confirmed { number: claim.number });
        }
        Ok(Says::Changed { accepted: accepted.cloned().map(Box::new) })
    }

    /// When the primary asked last.
    pub fn heard(&self, now: Duration) -> Result<HeardOf, Error> {
        self.is_running()?;
        Ok(HeardOf {
            number: self.accepted().map_or(0, |accepted| accepted.entry.decision.number),
            ago: self.heard.map(|at| now.saturating_sub(at)),
            up_for: now.saturating_sub(self.started),
        })
    }

    fn is_running(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(first) => Err(Error::Stopped { at: self.keep.name(), first: first.clone() }),
        }
    }

    fn save(&mut self, state: State) -> Result<(), Error> {
        if let Err(source) = self.keep.save(&state.encode()) {
            self.failed = Some(source.to_string());
            return Err(Error::Io { at: self.keep.name(), action: "writing", source });
        }
        self.state = state;
        Ok(())
    }
}

fn is_same(decision: &Decision, claim: &Claim) -> bool {
    decision.number == claim.number
        && decision.incarnation == claim.incarnation
        && decision.primary == claim.site
}
