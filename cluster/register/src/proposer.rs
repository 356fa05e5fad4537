//! Reads and changes the register: compare and set, without a leader. Sends nothing itself.
//!
//! ```text
//!  again() ─▶ Prepare(b) ─▶ a majority of each list of the newest entry found promised
//!                │ was it accepted by a majority of each of its lists, under one ballot?
//!                ├─ no ──▶ Accept(b, the same entry): finish it ─────────┐
//!                └─ yes ─▶ chosen ◀───────────────────────────────────────┘
//!                           ├─ joint: Accept(b', the same decision without `before`)
//!                           ├─ read: done
//!                           ├─ as expected: Accept(b', what is to follow) ─▶ chosen
//!                           └─ something newer: lost
//!  Higher(b'') anywhere ─▶ Conflict: wait a moment of random length, again() above b''
//! ```
//! b' is b where nothing was sent to be accepted under b yet, else a new attempt: one ballot
//! carries one entry. **Only a chosen entry is followed.** Were an undecided one followed, a
//! replacement that never had its majority of old acceptors could be followed by a decision that
//! only new acceptors know, and the old ones would decide something else. Why this is enough: the
//! crate's root.

use std::collections::BTreeMap;

use dtm_types::NodeId;

use crate::decision::{Illegal, Seat};
use crate::entry::{Accepted, Entry, is_majority};
use crate::{AcceptorId, Answer, Ballot, Decision, ProposerId, Question, Says};

/// A question and to whom it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Who is asked.
    pub to: Seat,
    /// What is asked.
    pub question: Question,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these, and wait for answers. Empty: just wait.
    Ask(Vec<Send>),
    /// Somebody else tries. Call [`Proposer::again`] after a random moment (50 to 500 ms, longer
    /// each time), or give up.
    Conflict,
    /// It is over; later answers mean nothing.
    Done(Box<Outcome>),
}

/// An acceptor that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its seat.
    pub seat: Seat,
    /// Its node answered under another id: the file is lost, the seat is to be given to this one.
    pub stranger: Option<AcceptorId>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is chosen: the decision that was proposed, or, of a read, the newest one.
    Chosen(Decision),
    /// Nothing of ours was or will be chosen: this is.
    Lost(Decision),
    /// Ours was sent to be accepted and this newer one is chosen now. Whether ours was chosen in
    /// between is not known, and makes no difference to what is in force.
    Overtaken(Decision),
    /// A majority says that the register was never founded.
    Empty,
    /// Too few acceptors answered. Nothing of ours was sent to be accepted.
    NoQuorum(Vec<Missing>),
    /// Ours was sent to be accepted and too few answered: it may be chosen, now or by whoever reads
    /// next. Only a read says so.
    Unknown {
        /// What was proposed.
        proposed: Decision,
        /// Who did not answer.
        missing: Vec<Missing>,
    },
    /// The acceptors hold less than what is known to be chosen: files were lost or old copies put
    /// back. Nothing was changed; nobody may acknowledge by what they say.
    Backwards {
        /// What is known to be chosen.
        known: Decision,
        /// What they hold; `None` = nothing.
        found: Option<Decision>,
    },
}

#[derive(Debug)]
enum Wish {
    Read { known: Option<Decision> },
    Found { first: Decision },
    Change { known: Decision, next: Decision },
}

#[derive(Debug)]
enum Round {
    Rest,
    Prepare { ballot: Ballot, promises: BTreeMap<AcceptorId, Option<Box<Accepted>>> },
    Accept { ballot: Ballot, entry: Box<Entry>, accepted: BTreeMap<AcceptorId, ()> },
    Over,
}

/// Ways to be wrong, for the simulation that has to notice.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// A replacement takes a majority of the new list only.
    pub(crate) new_list_only: bool,
    /// What was found is followed before it is known to be chosen.
    pub(crate) follows_undecided: bool,
}

/// One operation on the register. Its id is never used for another.
#[derive(Debug)]
pub struct Proposer {
    id: ProposerId,
    wish: Wish,
    /// Where to ask: the seats handed in, and those of what was found.
    contacts: Vec<Seat>,
    /// The list that was handed in: says whether the register is empty.
    first: Vec<Seat>,
    counter: u64,
    round: Round,
    /// Our own decision was sent to be accepted.
    is_sent: bool,
    /// The newest decision that is known to be chosen by this operation.
    chosen: Option<Decision>,
    strangers: BTreeMap<NodeId, AcceptorId>,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

impl Proposer {
    /// Reads the newest decision, and finishes one that may be chosen. `seats` is the newest list
    /// that the caller knows; newer ones are found as long as one node of it answers with a newer
    /// decision.
    pub fn read(id: ProposerId, seats: &[Seat]) -> Self {
        Self::new(id, seats.to_vec(), Wish::Read { known: None })
    }

    /// Reads, and says [`Outcome::Backwards`] where less is found than `known`, which was chosen.
    pub fn read_from(id: ProposerId, known: &Decision) -> Self {
        Self::new(id, known.seats.clone(), Wish::Read { known: Some(known.clone()) })
    }

    /// Sets `next` if `known`, a chosen decision, is still the newest.
    ///
    /// # Errors
    /// Where `next` cannot follow `known`: nothing is asked then.
    pub fn change(id: ProposerId, known: &Decision, next: Decision) -> Result<Self, Illegal> {
        next.check_after(known)?;
        let wish = Wish::Change { known: known.clone(), next };
        Ok(Self::new(id, known.seats.clone(), wish))
    }

    /// Sets the first decision. Whoever founds the same register names the same seats: two lists
    /// without a common majority would be two registers.
    ///
    /// # Errors
    /// Where `first` is no first decision.
    pub fn found(id: ProposerId, first: Decision) -> Result<Self, Illegal> {
        first.check()?;
        if first.number != 1 {
            let what = "a register begins with number 1";
            return Err(Illegal::Shape { number: first.number, what });
        }
        Ok(Self::new(id, first.seats.clone(), Wish::Found { first }))
    }

    fn new(id: ProposerId, seats: Vec<Seat>, wish: Wish) -> Self {
        Self {
            id,
            wish,
            contacts: seats.clone(),
            first: seats,
            counter: 0,
            round: Round::Rest,
            is_sent: false,
            chosen: None,
            strangers: BTreeMap::new(),
            #[cfg(test)]
            faults: Faults::default(),
        }
    }

    /// Asks these as well: seats of which others tell, as nodes of the other site do. Called before
    /// [`Proposer::again`]. Who was away while all acceptors that it knows were replaced has no
    /// other way to the newest decision.
    pub fn also_ask(&mut self, seats: &[Seat]) {
        for seat in seats {
            if !self.contacts.iter().any(|known| known.acceptor == seat.acceptor) {
                self.contacts.push(seat.clone());
            }
        }
    }

    /// Begins, or begins again above every ballot that was heard of. What was not answered yet
    /// counts no more.
    pub fn again(&mut self) -> Vec<Send> {
        if matches!(self.round, Round::Over) {
            return Vec::new();
        }
        self.counter = self.counter.saturating_add(1).min(Ballot::COUNTER_MAX);
        let ballot = Ballot { counter: self.counter, proposer: self.id };
        self.round = Round::Prepare { ballot, promises: BTreeMap::new() };
        self.resend()
    }

    /// Once more to everybody who has not answered: for messages that got lost.
    pub fn resend(&self) -> Vec<Send> {
        let ask = |seat: &Seat, question: &Question| Send {
            to: seat.clone(),
            question: question.clone(),
        };
        match &self.round {
            Round::Rest | Round::Over => Vec::new(),
            Round::Prepare { ballot, promises } => {
                let question = Question::Prepare { ballot: *ballot };
                let open = |seat: &&Seat| !promises.contains_key(&seat.acceptor);
                self.contacts.iter().filter(open).map(|seat| ask(seat, &question)).collect()
            }
            Round::Accept { ballot, entry, accepted } => {
                let question = Question::Accept { ballot: *ballot, entry: Entry::clone(entry) };
                let open = |seat: &&Seat| !accepted.contains_key(&seat.acceptor);
                voters(entry).iter().filter(open).map(|seat| ask(seat, &question)).collect()
            }
        }
    }

    /// Takes an answer that came from `node`. Old, double and foreign ones change nothing.
    pub fn on_answer(&mut self, node: NodeId, answer: &Answer) -> Step {
        let from = answer.acceptor;
        if !self.contacts.iter().any(|seat| seat.acceptor == from) {
            self.strangers.insert(node, from);
            // What it knows may show the way from an old list to the newest. Whoever tells of an
            // entry: only majorities of the entry's own lists count.
            if !matches!(&answer.says, Says::Promised { accepted: Some(_), .. }) {
                return Step::Ask(Vec::new());
            }
        }
        match (&mut self.round, &answer.says) {
            (Round::Prepare { ballot, promises }, Says::Promised { ballot: of, accepted })
                if of == ballot =>
            {
                promises.insert(from, accepted.clone());
                self.promised()
            }
            (Round::Accept { ballot, entry, accepted }, Says::Accepted { ballot: of })
                if of == ballot =>
            {
                accepted.insert(from, ());
                if !entry.has_quorum(|acceptor| accepted.contains_key(&acceptor)) {
                    return Step::Ask(Vec::new());
                }
                let entry = entry.clone();
                self.is_chosen(&entry, None)
            }
            (
                Round::Prepare { ballot, .. } | Round::Accept { ballot, .. },
                Says::Higher { asked, promised },
            ) if asked == ballot => {
                self.counter = self.counter.max(promised.counter);
                self.round = Round::Rest;
                Step::Conflict
            }
            _ => Step::Ask(Vec::new()),
        }
    }

    /// Ends it where it stands: the caller waited long enough.
    pub fn give_up(self) -> Outcome {
        let missing = self.missing();
        match (self.wish, self.chosen) {
            (Wish::Read { .. }, Some(chosen)) => Outcome::Chosen(chosen),
            (Wish::Found { first: next } | Wish::Change { next, .. }, Some(chosen))
                if next == chosen =>
            {
                Outcome::Chosen(next)
            }
            (Wish::Found { first: proposed } | Wish::Change { next: proposed, .. }, _)
                if self.is_sent =>
            {
                Outcome::Unknown { proposed, missing }
            }
            _ => Outcome::NoQuorum(missing),
        }
    }

    /// Who was asked and has not answered, with what their nodes said instead.
    pub fn missing(&self) -> Vec<Missing> {
        let has_answered = |acceptor: AcceptorId| match &self.round {
            Round::Rest | Round::Over => false,
            Round::Prepare { promises, .. } => promises.contains_key(&acceptor),
            Round::Accept { accepted, .. } => accepted.contains_key(&acceptor),
        };
        let open = self.contacts.iter().filter(|seat| !has_answered(seat.acceptor));
        open.map(|seat| Missing {
            seat: seat.clone(),
            stranger: self.strangers.get(&seat.node).copied(),
        })
        .collect()
    }

    fn promised(&mut self) -> Step {
        let Round::Prepare { ballot, promises } = &self.round else {
            return Step::Ask(Vec::new());
        };
        let ballot = *ballot;
        let newest = promises.values().flatten().max_by_key(|accepted| accepted.ballot).cloned();
        let has_promised = |acceptor| promises.contains_key(&acceptor);
        let Some(newest) = newest else {
            let is_empty = is_majority(&self.first, has_promised);
            return if is_empty { self.nothing(ballot) } else { Step::Ask(Vec::new()) };
        };
        if !newest.entry.has_quorum(has_promised) {
            return Step::Ask(self.contact(&newest.entry, ballot));
        }
        let has_it =
            |acceptor| promises.get(&acceptor).is_some_and(|a| a.as_ref() == Some(&newest));
        if newest.entry.has_quorum(has_it) || self.follows_undecided() {
            self.is_chosen(&newest.entry, Some(ballot))
        } else {
            self.propose(ballot, newest.entry)
        }
    }

    /// Asks those seats of an entry that were not asked yet.
    fn contact(&mut self, entry: &Entry, ballot: Ballot) -> Vec<Send> {
        let mut sends = Vec::new();
        for seat in voters(entry) {
            if !self.contacts.iter().any(|known| known.acceptor == seat.acceptor) {
                self.contacts.push(seat.clone());
                sends.push(Send { to: seat, question: Question::Prepare { ballot } });
            }
        }
        sends
    }

    /// A majority of the list that was handed in has accepted nothing.
    fn nothing(&mut self, ballot: Ballot) -> Step {
        match &self.wish {
            Wish::Found { first } => {
                let first = first.clone();
                self.is_sent = true;
                self.propose(ballot, Entry::settled(first))
            }
            Wish::Read { known: None } => self.over(Outcome::Empty),
            Wish::Read { known: Some(known) } | Wish::Change { known, .. } => {
                let known = known.clone();
                self.over(Outcome::Backwards { known, found: None })
            }
        }
    }

    fn propose(&mut self, ballot: Ballot, entry: Entry) -> Step {
        let _ = self.contact(&entry, ballot);
        self.round = Round::Accept { ballot, entry: Box::new(entry), accepted: BTreeMap::new() };
        Step::Ask(self.resend())
    }

    /// An entry is chosen. `free` is the ballot of this attempt, where nothing was sent under it.
    fn is_chosen(&mut self, entry: &Entry, free: Option<Ballot>) -> Step {
        let found = entry.decision.clone();
        if let Some(next) = self.own().filter(|next| self.chosen.as_ref() == Some(next)) {
            // Ours was chosen before; whatever came since does not change that.
            if found != *next {
                let next = next.clone();
                return self.over(Outcome::Chosen(next));
            }
        }
        if let Wish::Read { known: Some(known) } | Wish::Change { known, .. } = &self.wish
            && is_behind(&found, known)
        {
            let known = known.clone();
            return self.over(Outcome::Backwards { known, found: Some(found) });
        }
        self.chosen = Some(found.clone());
        if entry.is_joint() {
            return self.follow(Entry::settled(found), free);
        }
        match &self.wish {
            Wish::Change { known, next } if *known == found => {
                let child = self.child(known, next);
                self.is_sent |= free.is_some();
                return self.follow(child, free);
            }
            _ => {}
        }
        let outcome = match self.own() {
            Some(next) if *next != found => {
                let is_certain = !self.is_sent || found.number == next.number;
                if is_certain { Outcome::Lost(found) } else { Outcome::Overtaken(found) }
            }
            _ => Outcome::Chosen(found),
        };
        self.over(outcome)
    }

    /// What this operation proposes.
    fn own(&self) -> Option<&Decision> {
        match &self.wish {
            Wish::Read { .. } => None,
            Wish::Found { first: next } | Wish::Change { next, .. } => Some(next),
        }
    }

    /// Proposes under this ballot, or takes a new one first and finds the same again.
    fn follow(&mut self, entry: Entry, free: Option<Ballot>) -> Step {
        match free {
            Some(ballot) => self.propose(ballot, entry),
            None => Step::Ask(self.again()),
        }
    }

    fn over(&mut self, outcome: Outcome) -> Step {
        self.round = Round::Over;
        Step::Done(Box::new(outcome))
    }

    #[cfg(not(test))]
    fn child(&self, known: &Decision, next: &Decision) -> Entry {
        Entry::after(known, next.clone())
    }

    #[cfg(test)]
    fn child(&self, known: &Decision, next: &Decision) -> Entry {
        if self.faults.new_list_only {
            return Entry::settled(next.clone());
        }
        Entry::after(known, next.clone())
    }

    #[cfg(not(test))]
    fn follows_undecided(&self) -> bool {
        false
    }

    #[cfg(test)]
    fn follows_undecided(&self) -> bool {
        self.faults.follows_undecided
    }
}

/// Another decision at or below the number of one that is chosen.
fn is_behind(found: &Decision, known: &Decision) -> bool {
    found.number < known.number || (found.number == known.number && found != known)
}

/// Everybody whom an entry asks, each once.
fn voters(entry: &Entry) -> Vec<Seat> {
    let mut seats: Vec<Seat> = Vec::new();
    for seat in entry.lists().flatten() {
        if !seats.iter().any(|known| known.acceptor == seat.acceptor) {
            seats.push(seat.clone());
        }
    }
    seats
}
