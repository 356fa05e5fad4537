//! A site: reads who is primary, and asks each second whether it may go on.

use std::time::Duration;

use super::oracle::Broken;
use super::world::{Bug, End, Event, OwnClock, SECOND, World};
use crate::{
    Answer, Asked, Cause, Decision, Lease, LeaseTime, Outcome, Proposer, Says, Send, Since, Step,
};

pub(super) struct Site {
    pub(super) at: usize,
    pub(super) is_up: bool,
    life: u64,
    clock: OwnClock,
    /// On its disk: the incarnation that it waited for.
    pub(super) marker: u64,
    /// On its disk: where to ask.
    known: Option<Decision>,
    /// By its own clock.
    known_at: Duration,
    lease: Option<Lease>,
    reading: Option<Reading>,
    must_read: bool,
    /// One after the other: then it asks where others say.
    failed_reads: u32,
}

struct Reading {
    tag: u64,
    proposer: Proposer,
    since: u64,
    floor: u64,
    again: bool,
}

impl Site {
    pub(super) fn new(at: usize, clock: OwnClock) -> Self {
        Self {
            at,
            is_up: true,
            life: 1,
            clock,
            marker: 0,
            known: None,
            known_at: Duration::ZERO,
            lease: None,
            reading: None,
            must_read: true,
            failed_reads: 0,
        }
    }

    fn name(&self) -> &'static str {
        ["north", "south"][self.at]
    }

    fn own(&self, now: u64) -> Duration {
        self.clock.at(now)
    }

    pub(super) fn holds(&self, now: u64) -> bool {
        self.is_up && self.lease.as_ref().is_some_and(|lease| lease.holds(self.own(now)))
    }

    /// By the decision of this number.
    pub(super) fn holds_by(&self, now: u64, number: u64) -> bool {
        self.lease.as_ref().is_some_and(|l| l.decision().number == number) && self.holds(now)
    }

    pub(super) fn stands(&self, now: u64) -> String {
        let lease = self.lease.as_ref();
        let lease = lease.map(|l| (l.decision().number, l.valid_until(), l.not_before()));
        let known = self.known.as_ref().map(|known| (known.number, &known.primary));
        let (up, reads, own) = (self.is_up, self.reading.is_some(), self.own(now));
        format!("{} up {up} knows {known:?} {lease:?} at {own:?} reads {reads}", self.name())
    }

    pub(super) fn crash(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.lease = None;
        self.reading = None;
        self.must_read = true;
    }

    fn learn(&mut self, decision: &Decision, now: u64, bug: Bug) {
        let has_waited = self.marker == decision.incarnation.0 || bug == Bug::NoPromotionWait;
        let known_at = self.own(now);
        let since = if has_waited {
            Since::Resumed
        } else {
            Since::Taken { known_at, waited: Duration::ZERO }
        };
        match &mut self.lease {
            Some(lease) => lease.follow(decision, since),
            None => {
                let time = LeaseTime::default();
                self.lease = Some(Lease::new(self.name(), decision, time, since));
            }
        }
        if self.known.as_ref() != Some(decision) {
            self.known_at = known_at;
        }
        self.known = Some(decision.clone());
        self.must_read = false;
    }
}

impl World {
    pub(super) fn site_turn(&mut self, at: usize) {
        self.after(SECOND / 2, Event::Site(at));
        if !self.sites[at].is_up {
            return;
        }
        self.ask_for_lease(at);
        let now = self.now;
        let is_due = (now / SECOND).is_multiple_of(5);
        let site = &mut self.sites[at];
        site.must_read |= is_due && site.known.as_ref().is_none_or(|d| d.primary != site.name());
        if let Some(reading) = &mut site.reading {
            if now > reading.since + 4 * SECOND {
                let reading = site.reading.take().expect("it is there");
                let (floor, outcome) = (reading.floor, reading.proposer.give_up());
                return self.site_read(at, floor, &outcome);
            }
            let again = std::mem::take(&mut reading.again);
            let sends = if again { reading.proposer.again() } else { reading.proposer.resend() };
            let from = End::Reads { site: at, tag: reading.tag };
            return self.ask(at, from, sends);
        }
        if site.must_read {
            self.site_reads(at);
        } else {
            self.site_withdraws(at);
        }
    }

    /// What was intended and not carried out is withdrawn.
    fn site_withdraws(&mut self, at: usize) {
        let site = &self.sites[at];
        let Some(known) = site.known.clone().filter(|known| known.intends.is_some()) else {
            return;
        };
        let next = if self.bug == Bug::CarriesOutWhatOthersIntended {
            known.promoted(Cause::Promoted, known.act.clone())
        } else if site.own(self.now).saturating_sub(site.known_at) >= Decision::INTENT_LEFT_AFTER {
            known.withdrawn(self.reason())
        } else {
            return;
        };
        let change = Proposer::change(self.proposer_id(), &known, next).expect("it follows");
        self.site_works(at, change);
    }

    fn ask_for_lease(&mut self, at: usize) {
        let now = self.now;
        let site = &mut self.sites[at];
        let (own, life) = (site.own(now), site.life);
        let Some(lease) = site.lease.as_ref().filter(|l| l.decision().primary == site.name())
        else {
            return;
        };
        if own >= lease.not_before() {
            // Written to its disk before the first ack.
            site.marker = lease.decision().incarnation.0;
        }
        let (asked, question) = lease.ask(own);
        let seats = lease.decision().seats.clone();
        let sends = seats.into_iter().map(|to| Send { to, question: question.clone() }).collect();
        self.ask(at, End::Lease { site: at, life, asked }, sends);
    }

    fn site_reads(&mut self, at: usize) {
        let known = self.sites[at].known.clone();
        let id = self.proposer_id();
        let mut proposer = match &known {
            Some(known) => Proposer::read_from(id, known),
            None => Proposer::read(id, &self.told[0].seats),
        };
        if self.sites[at].failed_reads > 2 {
            let newest = self.told.iter().max_by_key(|told| told.number).expect("founded");
            proposer.also_ask(&newest.seats);
        }
        self.site_works(at, proposer);
    }

    fn site_works(&mut self, at: usize, mut proposer: Proposer) {
        let tag = self.tag();
        let sends = proposer.again();
        let floor = self.oracle.newest_number();
        self.sites[at].reading =
            Some(Reading { tag, proposer, since: self.now, floor, again: false });
        self.ask(at, End::Reads { site: at, tag }, sends);
    }

    pub(super) fn site_answered(&mut self, at: usize, tag: u64, host: usize, answer: &Answer) {
        let Some(reading) = self.sites[at].reading.as_mut().filter(|r| r.tag == tag) else {
            return;
        };
        match reading.proposer.on_answer(Self::node(host), answer) {
            Step::Ask(sends) => self.ask(at, End::Reads { site: at, tag }, sends),
            Step::Conflict => reading.again = true,
            Step::Done(outcome) => {
                let floor = reading.floor;
                self.sites[at].reading = None;
                self.site_read(at, floor, &outcome);
            }
        }
    }

    fn site_read(&mut self, at: usize, floor: u64, outcome: &Outcome) {
        self.oracle.ended(outcome, floor, None);
        let site = &mut self.sites[at];
        let (Outcome::Chosen(decision) | Outcome::Lost(decision) | Outcome::Overtaken(decision)) =
            outcome
        else {
            site.failed_reads += 1;
            site.must_read = true;
            return;
        };
        site.failed_reads = 0;
        if site.known.as_ref().is_some_and(|known| known.number > decision.number) {
            return self.oracle.violated(Broken::Lost, format!("site {at} read {decision:?}"));
        }
        site.learn(decision, self.now, self.bug);
        self.told.push(decision.clone());
    }

    pub(super) fn lease_answered(&mut self, at: usize, life: u64, asked: Asked, answer: &Answer) {
        let (now, bug) = (self.now, self.bug);
        let site = &mut self.sites[at];
        if site.life != life || !site.is_up {
            return;
        }
        let own = site.own(now);
        match (&answer.says, &mut site.lease) {
            (Says::Confirmed { .. }, Some(lease)) => {
                let at = if bug == Bug::LeaseFromTheAnswer { own } else { asked.at };
                lease.confirmed(answer.acceptor, Asked { at, ..asked });
            }
            (Says::Changed { .. }, _) => site.must_read = true,
            _ => {}
        }
    }
}
