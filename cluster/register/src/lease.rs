//! The right to acknowledge: how long it holds, and how long a successor waits for it to end.
//!
//! ```text
//!  old primary   ask ●────────────── lease ──────────────▶│ ends       by its own clock
//!                    ╲ ▲                                   ┊
//!  acceptor           ●╱  confirms      ● accepts n+1      ┊            ask < accept
//!                                        ╲                 ┊
//!  successor                              ● knows ─── promotion wait ───▶│ begins
//! ```
//! A right is counted **from the asking**: an answer may be on its way for any time, and meanwhile
//! its acceptor may have accepted another decision. What is confirmed by a majority was asked
//! before the next decision was chosen (see [`Acceptor`](crate::Acceptor)), so it ends within one
//! lease of that moment, and the successor begins after it.
//!
//! **Clocks.** Only durations are compared, never readings. With clocks that run wrong by r at
//! most, the old lease lasts lease / (1 − r) and the wait lasts at least wait / (1 + r). The wait
//! has 1/50 of the lease on top: enough up to r = 1/101, some hundred times what a crystal is wrong
//! by and twenty times what a clock is slewed by. The half second more is for what lies between
//! looking at the lease and the ack's way out of the process.
//!
//! Times are those of one monotonic clock from any epoch. It has to go on while the machine sleeps
//! (`CLOCK_BOOTTIME`): a lease that does not age in a suspended machine does not end. A lease is in
//! memory only; a process that starts has none.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{AcceptorId, Claim, Decision, Question};

/// How long a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// From the asking. The same on every node: a successor waits by its own value.
    pub lease: Duration,
}

impl Default for LeaseTime {
    fn default() -> Self {
        Self { lease: Duration::from_secs(10) }
    }
}

impl LeaseTime {
    /// One part in so many is added for clocks of different rates.
    pub const RATE_ALLOWANCE: u32 = 50;
    /// Added for what lies between looking at the lease and sending.
    pub const PAUSE_ALLOWANCE: Duration = Duration::from_millis(500);

    /// How long a successor waits, on its own clock, from when it knew that it was chosen: 10.7 s
    /// for a lease of 10 s.
    pub fn promotion_wait(&self) -> Duration {
        self.lease + self.lease / Self::RATE_ALLOWANCE + Self::PAUSE_ALLOWANCE
    }
}

/// How a site came to the incarnation that it wants to acknowledge in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It has acknowledged in this incarnation, or waited for it, before: its groups of this
    /// incarnation are there. Also the founder's, in a cluster in which nobody acknowledged yet.
    Resumed,
    /// It takes over: nobody of it acknowledges before the promotion wait is over.
    Taken {
        /// When it knew that the decision is chosen, by its own clock: after the last answer.
        known_at: Duration,
        /// For how long it had known it then: a process that was started again meanwhile.
        waited: Duration,
    },
}

/// A question that was asked: goes with the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub(crate) number: u64,
    pub(crate) at: Duration,
}

/// The right of one process of one site.
#[derive(Clone, Debug)]
pub struct Lease {
    site: String,
    time: LeaseTime,
    decision: Decision,
    not_before: Duration,
    /// Newest question that each acceptor confirmed: when it was asked.
    confirmed: BTreeMap<AcceptorId, Duration>,
    /// Until when a majority of an older list confirmed the same primary and incarnation.
    inherited: Option<Duration>,
}

impl Lease {
    /// No right yet, under a decision that is *known to be chosen* ([`Outcome`](crate::Outcome)),
    /// not merely accepted somewhere.
    pub fn new(site: &str, decision: &Decision, time: LeaseTime, since: Since) -> Self {
        let not_before = match since {
            Since::Resumed => Duration::ZERO,
            Since::Taken { known_at, waited } => {
                known_at.saturating_add(time.promotion_wait().saturating_sub(waited))
            }
        };
        Self {
            site: site.to_owned(),
            time,
            decision: decision.clone(),
            not_before,
            confirmed: BTreeMap::new(),
            inherited: None,
        }
    }

    /// The decision that it goes by.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The question for every seat of the decision, and what goes with the answers. Asked about
    /// each tenth of the lease.
    pub fn ask(&self, now: Duration) -> (Asked, Question) {
        let claim = Claim {
            number: self.decision.number,
            incarnation: self.decision.incarnation,
            site: self.site.clone(),
        };
        (Asked { number: claim.number, at: now }, Question::Confirm(claim))
    }

    /// An acceptor confirmed what was asked. Answers to questions about another decision, and of
    /// acceptors without a seat, change nothing.
    pub fn confirmed(&mut self, from: AcceptorId, asked: Asked) {
        if asked.number == self.decision.number && self.decision.seat(from).is_some() {
            let at = self.confirmed.entry(from).or_insert(asked.at);
            *at = asked.at.max(*at);
        }
    }

    /// Goes by a newer decision that is known to be chosen. Where only an acceptor was replaced the
    /// right goes on to its end, since what ends it comes after; else it is gone.
    pub fn follow(&mut self, next: &Decision, since: Since) {
        if next.number <= self.decision.number {
            return;
        }
        let goes_on =
            next.incarnation == self.decision.incarnation && next.primary == self.decision.primary;
        if goes_on {
            self.inherited = self.until();
            self.confirmed.clear();
            self.decision = next.clone();
        } else {
            *self = Self::new(&self.site, next, self.time, since);
        }
    }

    /// Until when the right holds; `None` where it does not begin at all, or before `not_before`.
    pub fn valid_until(&self) -> Option<Duration> {
        if self.decision.primary != self.site {
            return None;
        }
        self.until().filter(|until| *until > self.not_before)
    }

    /// From when on, by the promotion wait.
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Whether this process may acknowledge now. Looked at after the commit and right before the
    /// ack is handed out, for each.
    pub fn holds(&self, now: Duration) -> bool {
        now >= self.not_before && self.valid_until().is_some_and(|until| now < until)
    }

    /// What a majority confirmed, or what an older list did.
    fn until(&self) -> Option<Duration> {
        let mut asked: Vec<Duration> = self.confirmed.values().copied().collect();
        asked.sort_unstable_by(|a, b| b.cmp(a));
        // The majority's last: a majority was asked then or later.
        let own = asked.get(self.decision.majority() - 1);
        let own = own.map(|at| at.saturating_add(self.time.lease));
        own.max(self.inherited)
    }
}
