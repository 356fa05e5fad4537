//! An operator: reads, promotes, replaces acceptors, at any moment and without asking whether it is
//! wise. The node that carries a promotion out for it may stand still between its two steps.

use super::world::{Bug, End, Event, SECOND, World};
use crate::{Answer, Cause, Decision, Outcome, Proposer, Step};

pub(super) struct Operator {
    pub(super) place: usize,
    work: Option<Work>,
    /// Since healing: what it promoted.
    promoted: Option<Decision>,
    /// What was intended, and is carried out then.
    intent: Option<Intent>,
}

struct Intent {
    chosen: Decision,
    begun: u64,
    wakes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Read,
    Promote,
    Replace,
}

struct Work {
    tag: u64,
    wish: Wish,
    proposer: Proposer,
    floor: u64,
    next: Option<Decision>,
    deadline: u64,
    again: bool,
    begun: u64,
}

/// What was proposed, as long as it is an intent: nothing was sent by which it could take effect.
fn only_intent(next: Option<&Decision>) -> Option<&Decision> {
    next.filter(|next| next.cause == Cause::Intended)
}

impl Operator {
    pub(super) fn new(place: usize) -> Self {
        Self { place, work: None, promoted: None, intent: None }
    }

    pub(super) fn next(&self) -> Option<&Decision> {
        self.work.as_ref()?.next.as_ref()
    }
}

impl World {
    pub(super) fn operator_turn(&mut self, at: usize) {
        let pause = self.random.within(SECOND / 10, SECOND / 2);
        self.after(pause, Event::Operator(at));
        if self.is_healed && at > 0 {
            self.operator_forgets(at);
            return;
        }
        if self.operator_carries_out(at) {
            return;
        }
        if let Some(promoted) = &self.operators[at].promoted {
            let site = usize::from(promoted.primary == "south");
            self.is_done = self.sites[site].holds(self.now);
            // What was under way before healing may still have overtaken it.
            if promoted.number < self.oracle.newest_number() {
                self.operators[at].promoted = None;
            }
            return;
        }
        let now = self.now;
        let forgets = !self.is_healed && self.random.permille(5);
        let place = self.operators[at].place;
        match &mut self.operators[at].work {
            None if self.is_healed || self.random.permille(250) => self.operator_begins(at),
            None => {}
            Some(_) if forgets => self.operator_forgets(at),
            Some(work) if now > work.deadline => {
                let work = self.operators[at].work.take().expect("it is there");
                let outcome = work.proposer.give_up();
                self.stats.unknown += u64::from(matches!(outcome, Outcome::Unknown { .. }));
                self.oracle.ended(&outcome, work.floor, work.next.as_ref());
                self.operator_told(work.next.as_ref(), &outcome);
            }
            Some(work) => {
                let again = std::mem::take(&mut work.again);
                let sends = if again { work.proposer.again() } else { work.proposer.resend() };
                let from = End::Operator { operator: at, tag: work.tag };
                self.ask(place, from, sends);
            }
        }
    }

    /// The process of the operator ends; what it sent goes on.
    fn operator_forgets(&mut self, at: usize) {
        self.operators[at].intent = None;
        let work = self.operators[at].work.take();
        if let Some(intent) = work.and_then(|work| only_intent(work.next.as_ref()).cloned()) {
            self.oracle.given_up(&intent);
        }
    }

    /// Whoever asked is told that it failed, where it did not come to its second step.
    fn operator_told(&mut self, next: Option<&Decision>, outcome: &Outcome) {
        if let Some(intent) = only_intent(next)
            && !matches!(outcome, Outcome::Chosen(_))
        {
            self.oracle.given_up(intent);
        }
    }

    /// The second step of a promotion, unless it comes too late. Whether there is one to be done.
    fn operator_carries_out(&mut self, at: usize) -> bool {
        let Some(intent) = &self.operators[at].intent else { return false };
        if self.now < intent.wakes {
            return true;
        }
        let intent = self.operators[at].intent.take().expect("it is there");
        let within = u64::try_from(Decision::CARRIED_OUT_WITHIN.as_micros()).unwrap();
        if self.now - intent.begun > within {
            self.oracle.given_up(&intent.chosen);
            if self.bug != Bug::SleepsOnIntents {
                return true;
            }
        }
        let next = intent.chosen.promoted(Cause::Promoted, intent.chosen.act.clone());
        let id = self.proposer_id();
        let change = Proposer::change(id, &intent.chosen, next.clone()).expect("it follows");
        self.operator_works(at, Wish::Promote, change, Some(next));
        true
    }

    fn operator_begins(&mut self, at: usize) {
        let wish = match self.random.within(0, 10) {
            _ if self.is_healed => Wish::Replace,
            0..2 => Wish::Read,
            2..6 => Wish::Promote,
            _ => Wish::Replace,
        };
        // Mostly by what is newest, sometimes by an old list.
        let newest = self.told.iter().max_by_key(|told| told.number).expect("founded").clone();
        let known = if self.is_healed || self.random.permille(800) {
            newest
        } else {
            self.told[self.random.index(self.told.len())].clone()
        };
        let id = self.proposer_id();
        self.operator_works(at, wish, Proposer::read(id, &known.seats), None);
    }

    fn operator_works(
        &mut self,
        at: usize,
        wish: Wish,
        proposer: Proposer,
        next: Option<Decision>,
    ) {
        let mut proposer = proposer;
        proposer.faults.new_list_only = self.bug == super::world::Bug::NewListOnly;
        proposer.faults.follows_undecided = self.bug == super::world::Bug::FollowsUndecided;
        let (tag, floor) = (self.tag(), self.oracle.newest_number());
        let deadline = self.now + self.random.within(SECOND, 8 * SECOND);
        let sends = proposer.again();
        let begun = self.now;
        let work = Work { tag, wish, proposer, floor, next, deadline, again: false, begun };
        let operator = &mut self.operators[at];
        operator.work = Some(work);
        let place = operator.place;
        self.ask(place, End::Operator { operator: at, tag }, sends);
    }

    pub(super) fn operator_answered(&mut self, at: usize, tag: u64, host: usize, answer: &Answer) {
        let place = self.operators[at].place;
        let Some(work) = self.operators[at].work.as_mut().filter(|work| work.tag == tag) else {
            return;
        };
        match work.proposer.on_answer(Self::node(host), answer) {
            Step::Ask(sends) => self.ask(place, End::Operator { operator: at, tag }, sends),
            Step::Conflict => work.again = true,
            Step::Done(outcome) => {
                let work = self.operators[at].work.take().expect("it is there");
                self.oracle.ended(&outcome, work.floor, work.next.as_ref());
                self.operator_told(work.next.as_ref(), &outcome);
                self.operator_ended(at, &work, &outcome);
            }
        }
    }

    fn operator_ended(&mut self, at: usize, work: &Work, outcome: &Outcome) {
        let Outcome::Chosen(decision) = outcome else {
            return;
        };
        self.told.push(decision.clone());
        if let Some(next) = &work.next {
            if next.cause == Cause::AcceptorReplaced {
                self.stats.replaced += 1;
            } else if next.cause == Cause::Intended {
                let stands_still = !self.is_healed && self.random.permille(200);
                let pause = if stands_still { self.random.within(0, 40 * SECOND) } else { 0 };
                let (begun, wakes) = (work.begun, self.now + pause);
                self.stats.intents += 1;
                self.operators[at].intent = Some(Intent { chosen: decision.clone(), begun, wakes });
                self.operator_carries_out(at);
            } else if self.is_healed {
                self.operators[at].promoted = Some(decision.clone());
            }
            return;
        }
        let node = Self::node(self.operators[at].place);
        let next = match work.wish {
            Wish::Read => return,
            Wish::Replace => self
                .replacement(decision)
                .or_else(|| self.is_healed.then(|| decision.intended(node, self.reason()))),
            Wish::Promote => Some(decision.intended(node, self.reason())),
        };
        let id = self.proposer_id();
        if let Some(next) = next {
            let proposer = Proposer::change(id, decision, next.clone()).expect("it follows");
            self.operator_works(at, work.wish, proposer, Some(next));
        }
    }

    /// A seat whose file was lost goes to the node's new acceptor or to a spare; without need, one
    /// moves to a spare.
    fn replacement(&mut self, decision: &Decision) -> Option<Decision> {
        let is_lost = |seat: &&crate::Seat| self.hosts[self.host_of(seat.node)].id != seat.acceptor;
        let lost = decision.seats.iter().find(is_lost).cloned();
        if lost.is_none() && self.is_healed {
            return None;
        }
        let gone = match lost {
            Some(lost) => lost,
            None => decision.seats[self.random.index(decision.seats.len())].clone(),
        };
        let host = self.random.index(self.hosts.len());
        let own = self.host_of(gone.node);
        let has_seat = decision.seats.iter().any(|seat| self.host_of(seat.node) == host);
        let host = if has_seat { own } else { host };
        // Under which id it comes back is not known before.
        self.hosts[host].acceptor.as_ref()?;
        let seat = self.seat(host);
        let next = decision.replaced(gone.acceptor, seat, self.reason())?;
        next.check_after(decision).is_ok().then_some(next)
    }
}
