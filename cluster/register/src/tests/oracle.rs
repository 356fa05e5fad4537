//! Sees everything, and says when something happened that must never happen.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Entry;
use crate::{AcceptorId, Act, Ballot, Cause, Decision, Outcome};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Broken {
    /// Two decisions of one number, or under one ballot; or numbers and incarnations out of order.
    Agreement,
    /// A read or an operation said less than, or something else than, what was chosen.
    Lost,
    /// A promotion took effect that somebody was told had failed.
    Late,
    /// Two sites might acknowledge at one time.
    TwoPrimaries,
    /// It did not come back after everything had healed.
    Liveness,
}

#[derive(Debug)]
pub(super) struct Violation {
    pub(super) broken: Broken,
    pub(super) text: String,
}

#[derive(Default)]
pub(super) struct Oracle {
    ballots: BTreeMap<Ballot, (Entry, BTreeSet<AcceptorId>)>,
    pub(super) chosen: BTreeMap<u64, Decision>,
    /// Proposed by operations that said that nothing of theirs can be chosen.
    never: Vec<Decision>,
    /// Promotions that were given up, or told as failed, before their second step.
    given_up: Vec<Act>,
    pub(super) violation: Option<Violation>,
}

impl Oracle {
    pub(super) fn violated(&mut self, broken: Broken, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { broken, text });
        }
    }

    /// An acceptor says that it accepted.
    pub(super) fn accepted(&mut self, by: AcceptorId, ballot: Ballot, entry: &Entry) {
        let (known, acceptors) =
            self.ballots.entry(ballot).or_insert_with(|| (entry.clone(), BTreeSet::new()));
        if known != entry {
            return self.violated(Broken::Agreement, format!("two entries under {ballot}"));
        }
        acceptors.insert(by);
        if entry.has_quorum(|acceptor| acceptors.contains(&acceptor)) {
            self.choose(&entry.decision.clone());
        }
    }

    fn choose(&mut self, decision: &Decision) {
        if let Some(known) = self.chosen.get(&decision.number) {
            if known != decision {
                let text = format!("two decisions {}: {known:?} and {decision:?}", decision.number);
                self.violated(Broken::Agreement, text);
            }
            return;
        }
        if decision.number > 1 {
            let order = match self.chosen.get(&(decision.number - 1)) {
                None => Err(format!("{} was chosen before the one before it", decision.number)),
                Some(before) => decision.check_after(before).map_err(|error| error.to_string()),
            };
            if let Err(text) = order {
                self.violated(Broken::Agreement, text);
            }
        }
        self.chosen.insert(decision.number, decision.clone());
    }

    pub(super) fn newest(&self) -> Option<&Decision> {
        self.chosen.values().next_back()
    }

    pub(super) fn newest_number(&self) -> u64 {
        self.newest().map_or(0, |decision| decision.number)
    }

    /// An operation ended that began when `floor` was chosen, and proposed `next`.
    pub(super) fn ended(&mut self, outcome: &Outcome, floor: u64, next: Option<&Decision>) {
        let wrong = match outcome {
            Outcome::Chosen(told) | Outcome::Lost(told) | Outcome::Overtaken(told)
                if self.chosen.get(&told.number) != Some(told) || told.number < floor =>
            {
                Some(format!("told {told:?}, at least {floor} was chosen"))
            }
            Outcome::Chosen(told) => {
                next.is_some_and(|next| next != told).then(|| format!("told {told:?} for {next:?}"))
            }
            Outcome::Empty | Outcome::Backwards { .. } => Some(format!("{outcome:?}")),
            _ => None,
        };
        if let Some(text) = wrong {
            return self.violated(Broken::Lost, text);
        }
        if let (Outcome::Lost(_) | Outcome::NoQuorum(_), Some(next)) = (outcome, next) {
            self.never.push(next.clone());
        }
    }

    /// A promotion ended with its intent.
    pub(super) fn given_up(&mut self, intent: &Decision) {
        self.given_up.push(intent.act.clone());
    }

    /// Of decisions of this cause.
    pub(super) fn count(&self, cause: Cause) -> u64 {
        self.chosen.values().map(|decision| u64::from(decision.cause == cause)).sum()
    }

    pub(super) fn finish(&mut self) {
        let is_late = |decision: &&Decision| {
            decision.cause == Cause::Promoted && self.given_up.contains(&decision.act)
        };
        if let Some(late) = self.chosen.values().find(is_late) {
            let text = format!("told as failed, and done: {late:?}");
            self.violated(Broken::Late, text);
        }
        let found = self.never.iter().find(|next| self.chosen.get(&next.number) == Some(next));
        if let Some(next) = found {
            let text = format!("said to be never chosen: {next:?}");
            self.violated(Broken::Lost, text);
        }
    }
}
