//! A world of three places from one seed: network, disks, clocks, sites and operators.
//!
//! ```text
//!  place 0 north   site 0 (primary)   host 0     host 3 (spare)
//!  place 1 south   site 1 (standby)   host 1
//!  place 2 third                      host 2     host 4 (spare)       operators anywhere
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use dtm_types::NodeId;

use super::operator::Operator;
use super::oracle::{Broken, Oracle, Violation};
use super::random::Random;
use super::site::Site;
use super::{act, founding};
use crate::entry::Entry;
use crate::{
    Accepted, Acceptor, AcceptorId, Answer, Asked, Cause, Decision, LeaseTime, MemoryKeep, Outcome,
    Proposer, ProposerId, Question, Says, Seat, Send, Step, Verdict, primary_lives,
};

pub(super) const SECOND: u64 = 1_000_000;

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    AnswersBeforeTheDisk,
    NewListOnly,
    OldIdAfterLoss,
    NoPromotionWait,
    LeaseFromTheAnswer,
    FollowsUndecided,
    ReusesProposerIds,
    ClocksBeyondTheBound,
    ConfirmsWithoutNumber,
    SleepsOnIntents,
    CarriesOutWhatOthersIntended,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A site's lease, in one life of its process.
    Lease { site: usize, life: u64, asked: Asked },
    /// A site's reading operation.
    Reads { site: usize, tag: u64 },
    /// An operator's operation.
    Operator { operator: usize, tag: u64 },
}

#[derive(Debug)]
pub(super) enum Event {
    Ask { from: End, host: usize, question: Question },
    Reply { to: End, host: usize, answer: Answer },
    Site(usize),
    SiteStarts(usize),
    Operator(usize),
    Starts(usize),
    Chaos,
    Heal,
    Look,
}

pub(super) struct Host {
    pub(super) place: usize,
    pub(super) keep: MemoryKeep,
    pub(super) acceptor: Option<Acceptor<MemoryKeep>>,
    pub(super) id: AcceptorId,
    clock: OwnClock,
}

/// A monotonic clock that runs wrong.
#[derive(Clone, Copy)]
pub(super) struct OwnClock {
    ppm: u64,
    offset: u64,
}

impl OwnClock {
    pub(super) fn new(random: &mut Random, bound_ppm: u64) -> Self {
        // The extremes find most.
        let ppm = match random.within(0, 3) {
            0 => SECOND - bound_ppm,
            1 => SECOND + bound_ppm,
            _ => random.within(SECOND - bound_ppm, SECOND + bound_ppm + 1),
        };
        Self { ppm, offset: random.within(0, 1_000 * SECOND) }
    }

    pub(super) fn at(&self, now: u64) -> Duration {
        Duration::from_micros(self.offset + now * self.ppm / SECOND)
    }
}

#[derive(Default)]
pub(super) struct Net {
    pub(super) cut: [[bool; 3]; 3],
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) slow: u64,
}

pub(super) struct World {
    pub(super) bug: Bug,
    pub(super) random: Random,
    pub(super) now: u64,
    serial: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(super) net: Net,
    pub(super) hosts: Vec<Host>,
    pub(super) sites: Vec<Site>,
    pub(super) operators: Vec<Operator>,
    pub(super) oracle: Oracle,
    /// Decisions that somebody was told: where the next one begins to ask.
    pub(super) told: Vec<Decision>,
    pub(super) is_healed: bool,
    pub(super) is_done: bool,
    pub(super) stats: Stats,
}

/// What happened, so that a quiet world is not taken for a good one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) events: u64,
    pub(super) decisions: u64,
    pub(super) replaced: u64,
    pub(super) intents: u64,
    pub(super) withdrawn: u64,
    pub(super) lost_disks: u64,
    pub(super) crashes: u64,
    pub(super) unknown: u64,
    pub(super) looks_held: u64,
    pub(super) clear: u64,
}

impl World {
    pub(super) fn new(seed: u64, bug: Bug) -> Self {
        let mut random = Random(seed);
        let bound = if bug == Bug::ClocksBeyondTheBound { 150_000 } else { 9_900 };
        let clock = |random: &mut Random| OwnClock::new(random, bound);
        let host = |random: &mut Random, place| {
            let (keep, id) = (MemoryKeep::new(), AcceptorId(random.id()));
            let acceptor = Acceptor::open(keep.clone(), id, Duration::ZERO).unwrap();
            if bug == Bug::AnswersBeforeTheDisk {
                keep.lie();
            }
            Host { place, keep, acceptor: Some(acceptor), id, clock: clock(random) }
        };
        let hosts = [0, 1, 2, 0, 2].map(|place| host(&mut random, place)).into();
        let sites = [0, 1].map(|at| Site::new(at, clock(&mut random))).into();
        let operators = (0..random.within(1, 4)).map(|_| Operator::new(random.index(3))).collect();
        let mut world = Self {
            bug,
            random,
            now: SECOND,
            serial: 0,
            queue: BTreeMap::new(),
            net: Net::default(),
            hosts,
            sites,
            operators,
            oracle: Oracle::default(),
            told: Vec::new(),
            is_healed: false,
            is_done: false,
            stats: Stats::default(),
        };
        world.found();
        world
    }

    /// The first decision, before any fault.
    fn found(&mut self) {
        let seats = (0..3).map(|host| self.seat(host)).collect();
        let first = Decision { seats, ..founding() };
        let mut proposer = Proposer::found(ProposerId([1; 16]), first.clone()).unwrap();
        let mut sends = proposer.again();
        while let Some(send) = sends.pop() {
            let host = self.host_of(send.to.node);
            let answer = self.answer(host, &send.question).unwrap();
            match proposer.on_answer(send.to.node, &answer) {
                Step::Ask(more) => sends.extend(more),
                Step::Conflict => unreachable!("nobody else"),
                Step::Done(outcome) => assert_eq!(*outcome, Outcome::Chosen(first.clone())),
            }
        }
        self.told.push(first);
        self.sites[0].marker = 1;
        for site in 0..2 {
            self.after(0, Event::Site(site));
        }
        for operator in 0..self.operators.len() {
            self.after(SECOND, Event::Operator(operator));
        }
        self.after(SECOND, Event::Chaos);
        self.after(SECOND, Event::Look);
        self.after(90 * SECOND, Event::Heal);
    }

    /// Runs to the end; says what was broken first.
    pub(super) fn run(mut self) -> (Stats, Option<Violation>) {
        let end = 90 * SECOND + 120 * SECOND;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.stats.events += 1;
            self.handle(event);
            self.look();
            if self.oracle.violation.is_some() || self.is_done {
                break;
            }
            if self.now > end || self.stats.events > 200_000 {
                let text = self.stuck();
                self.oracle.violated(Broken::Liveness, text);
            }
        }
        self.oracle.finish();
        self.stats.decisions = self.oracle.newest_number();
        self.stats.withdrawn = self.oracle.count(Cause::Withdrawn);
        (self.stats, self.oracle.violation)
    }

    /// Where it stands, for whoever looks into a seed.
    fn stuck(&self) -> String {
        let seats = |seats: &[Seat]| -> Vec<String> {
            seats.iter().map(|seat| format!("{}", seat.acceptor)[..4].to_owned()).collect()
        };
        let mut text = format!("not done {} s after healing", (self.now / SECOND) - 90);
        for host in &self.hosts {
            let accepted = host.acceptor.as_ref().and_then(|acceptor| acceptor.accepted());
            let accepted = accepted.map(|accepted| {
                let Accepted { ballot, entry } = accepted;
                let (before, now) = (seats(&entry.before), seats(&entry.decision.seats));
                (ballot.counter, entry.decision.number, before, now)
            });
            text.push_str(&format!("\n  {:.4} {accepted:?}", host.id.to_string()));
        }
        for site in &self.sites {
            text.push_str(&format!("\n  {}", site.stands(self.now)));
        }
        let told = self.told.iter().max_by_key(|told| told.number);
        let told = told.map(|told| (told.number, seats(&told.seats)));
        text.push_str(&format!("\n  told {told:?}, chosen {}", self.oracle.newest_number()));
        text
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ask { from, host, question } => self.asked(from, host, &question),
            Event::Reply { to, host, answer } => match to {
                End::Lease { site, life, asked } => self.lease_answered(site, life, asked, &answer),
                End::Reads { site, tag } => self.site_answered(site, tag, host, &answer),
                End::Operator { operator, tag } => {
                    self.operator_answered(operator, tag, host, &answer);
                }
            },
            Event::Site(site) => self.site_turn(site),
            Event::SiteStarts(site) => self.sites[site].is_up = true,
            Event::Operator(operator) => self.operator_turn(operator),
            Event::Starts(host) => self.start(host),
            Event::Chaos => self.chaos(),
            Event::Heal => self.heal(),
            Event::Look => {
                self.judge();
                self.after(SECOND / 50, Event::Look);
            }
        }
    }

    /// Where the guard says that a promotion takes nothing from anybody, nobody holds a lease.
    fn judge(&mut self) {
        // A lease that outlived a decision which changed no primary rests on the one before: the wait's
        // part.
        let newest = self.oracle.newest();
        let newest =
            newest.filter(|d| matches!(d.cause, Cause::Founded | Cause::Promoted)).cloned();
        let Some(newest) = newest.filter(|_| self.random.permille(100)) else {
            return;
        };
        let silent = self.random.index(self.hosts.len() + 1);
        let mut answers = BTreeMap::new();
        for (_, host) in self.hosts.iter().enumerate().filter(|(at, _)| *at != silent) {
            if let Some(acceptor) = &host.acceptor {
                let Ok(heard) = acceptor.heard(host.clock.at(self.now)) else { continue };
                answers.insert(acceptor.id(), heard);
            }
        }
        if primary_lives(&newest, &answers, LeaseTime::default()) == Verdict::Clear {
            self.stats.clear += 1;
            if self.sites.iter().any(|site| site.holds_by(self.now, newest.number)) {
                let text = format!("the guard saw no primary at {} us", self.now);
                self.oracle.violated(Broken::TwoPrimaries, text);
            }
        }
    }

    /// Nobody but one site may acknowledge, at any moment.
    fn look(&mut self) {
        let holds = |site: &Site| site.holds(self.now);
        let held = self.sites.iter().filter(|site| holds(site)).count();
        self.stats.looks_held += u64::from(held == 1);
        if held > 1 {
            let text = format!("both sites may acknowledge at {} us", self.now);
            self.oracle.violated(Broken::TwoPrimaries, text);
        }
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((self.now + delay, self.serial), event);
    }

    fn send(&mut self, from: usize, to: usize, event: impl Fn() -> Event) {
        if self.net.cut[from][to] || self.random.permille(self.net.loss) {
            return;
        }
        let copies = if self.random.permille(self.net.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.random.permille(self.net.slow);
            let delay = self.random.within(500, if slow { 5 * SECOND } else { 60_000 });
            self.after(delay, event());
        }
    }

    pub(super) fn ask(&mut self, place: usize, from: End, sends: Vec<Send>) {
        for Send { to, question } in sends {
            let host = self.host_of(to.node);
            let target = self.hosts[host].place;
            self.send(place, target, || Event::Ask { from, host, question: question.clone() });
        }
    }

    /// A question arrives. The host may crash before it is worked on, or before the answer leaves.
    fn asked(&mut self, from: End, host: usize, question: &Question) {
        let crashes = !self.is_healed && self.random.permille(3);
        if crashes && self.random.permille(500) {
            return self.crash(host);
        }
        let Some(answer) = self.answer(host, question) else {
            return;
        };
        if crashes {
            return self.crash(host);
        }
        let place = match from {
            End::Lease { site, .. } | End::Reads { site, .. } => site,
            End::Operator { operator, .. } => self.operators[operator].place,
        };
        let here = self.hosts[host].place;
        self.send(here, place, || Event::Reply { to: from, host, answer: answer.clone() });
    }

    fn answer(&mut self, host: usize, question: &Question) -> Option<Answer> {
        let now = self.now;
        let at = &mut self.hosts[host];
        let acceptor = at.acceptor.as_mut()?;
        // Through bytes and back, as between nodes.
        let question = Question::decode(&question.encode()).unwrap();
        let question = match (question, self.bug) {
            (Question::Confirm(mut claim), Bug::ConfirmsWithoutNumber) => {
                if let Some(accepted) = acceptor.accepted()
                    && accepted.entry.decision.incarnation == claim.incarnation
                {
                    claim.number = accepted.entry.decision.number;
                }
                Question::Confirm(claim)
            }
            (question, _) => question,
        };
        let Ok(answer) = acceptor.answer(&question, at.clock.at(now)) else {
            self.crash(host);
            return None;
        };
        match (&question, &answer.says) {
            (Question::Accept { entry, .. }, Says::Accepted { ballot }) => {
                self.oracle.accepted(answer.acceptor, *ballot, entry);
            }
            // Also what reached the disk when the answer did not leave.
            (_, Says::Promised { accepted: Some(accepted), .. }) => {
                self.oracle.accepted(answer.acceptor, accepted.ballot, &accepted.entry);
            }
            _ => {}
        }
        Some(Answer::decode(&answer.encode()).unwrap())
    }

    /// What may still be accepted: messages, and what operators are about to propose.
    pub(super) fn on_their_way(&self) -> Vec<Entry> {
        let newest = self.oracle.newest_number();
        let messages = self.queue.values().filter_map(|event| match event {
            Event::Ask { question: Question::Accept { entry, .. }, .. } => Some(entry.clone()),
            _ => None,
        });
        let planned = self.operators.iter().filter_map(|operator| operator.next().cloned());
        let all = messages.chain(planned.map(Entry::settled));
        all.filter(|entry| entry.decision.number >= newest).collect()
    }

    pub(super) fn crash(&mut self, host: usize) {
        self.stats.crashes += 1;
        self.hosts[host].keep.crash();
        if self.hosts[host].acceptor.take().is_some() {
            let delay = self.random.within(SECOND / 10, 8 * SECOND);
            self.after(delay, Event::Starts(host));
        }
    }

    pub(super) fn start(&mut self, host: usize) {
        let fresh = match self.bug {
            Bug::OldIdAfterLoss => self.hosts[host].id,
            _ => AcceptorId(self.random.id()),
        };
        let now = self.now;
        let at = &mut self.hosts[host];
        if at.acceptor.is_some() {
            return;
        }
        match Acceptor::open(at.keep.clone(), fresh, at.clock.at(now)) {
            Ok(acceptor) => {
                at.id = acceptor.id();
                at.acceptor = Some(acceptor);
            }
            // The disk failed once more.
            Err(_) => self.after(SECOND, Event::Starts(host)),
        }
    }

    pub(super) fn node(host: usize) -> NodeId {
        NodeId([u8::try_from(host).unwrap() + 1; 16])
    }

    pub(super) fn host_of(&self, node: NodeId) -> usize {
        usize::from(node.0[0] - 1)
    }

    pub(super) fn seat(&self, host: usize) -> Seat {
        let at = &self.hosts[host];
        let place = ["north", "south", "third"][at.place].to_owned();
        Seat { place, node: Self::node(host), acceptor: at.id }
    }

    pub(super) fn proposer_id(&mut self) -> ProposerId {
        match self.bug {
            Bug::ReusesProposerIds => ProposerId([7; 16]),
            _ => ProposerId(self.random.id()),
        }
    }

    pub(super) fn tag(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn reason(&self) -> crate::Act {
        act(&format!("at {} us, {}", self.now, self.serial))
    }
}
