//! How much of a stream is at another site too, and acks that wait for that. Hot path.
//!
//! ```text
//!  ack through 40 (index 900) ─▶ mark (40, 900) ──┐
//!  the standby has index 950 ─────────────────────┴─▶ site_through 40, with the next ack or alone
//! ```
//! Indexes are of the group's log: that of an entry is no lower than of any before it, so the one that
//! the open had covers all that the stream held then. Where there is no standby nothing is kept.

use std::collections::VecDeque;
use std::time::Duration;

use dtm_proto::ingest;
use dtm_proto::ingest::Ack;
use dtm_proto::ingest::publish_response::Response;

use super::super::actor::SessionMessage;
use super::super::pending::Pending;
use super::Flow;
use crate::error::Error;

/// Marks that are kept; beyond it the last two become one.
const MARKS_MAX: usize = 256;
/// Between two looks while something is outstanding; longer each time that nothing has moved.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_millis(800);
/// The same where acks wait for it.
const LOOK_FIRST_WITHHELD: Duration = Duration::from_millis(10);
const LOOK_MAX_WITHHELD: Duration = Duration::from_millis(80);

/// Everything through `sequence` is there once the group's log is, through `index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    sequence: u64,
    index: u64,
}

/// What of a stream is at the site that stands by.
#[derive(Debug)]
pub(super) struct SiteTrack {
    /// Acks wait until their records are there too.
    withholds: bool,
    /// Through which index that site has the group; none = it holds no copies of it.
    held: Option<u64>,
    /// Acked and not known to be there, ascending in both.
    marks: VecDeque<Mark>,
    /// Of the last ack.
    last: Mark,
    through: u64,
    told: (bool, u64),
    pause: Duration,
    is_watched: bool,
    /// Since when the oldest batch waits for that site, monotonic microseconds.
    pub(super) waits_since_us: Option<i64>,
}

impl SiteTrack {
    /// Of a stream that holds everything through `sequence`, as the entry at `index` says that opened
    /// it; `told` is what its client knows by the open.
    pub(super) fn new(withholds: bool, (sequence, index): (u64, u64), told: (bool, u64)) -> Self {
        Self {
            withholds,
            held: None,
            marks: VecDeque::new(),
            last: Mark { sequence, index },
            through: told.1,
            told,
            pause: if withholds { LOOK_FIRST_WITHHELD } else { LOOK_FIRST },
            is_watched: false,
            waits_since_us: None,
        }
    }

    /// Whether acks wait for that site.
    pub(super) fn withholds(&self) -> bool {
        self.withholds
    }

    /// Whether the ack of a batch at `index` is to wait.
    pub(super) fn is_owed(&self, index: u64) -> bool {
        self.withholds && self.held.is_none_or(|held| held < index)
    }

    /// Takes over how far that site is; whether what is to be told of it has changed.
    pub(super) fn see(&mut self, held: Option<u64>) -> bool {
        self.held = held;
        match held {
            None => {
                self.marks.clear();
                self.through = 0;
            }
            Some(held) => {
                // It was not there before.
                if self.marks.is_empty() && self.last.sequence > self.through {
                    self.marks.push_back(self.last);
                }
                self.advance(held);
            }
        }
        self.has_news()
    }

    fn advance(&mut self, held: u64) {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.index <= held) {
            self.through = self.through.max(mark.sequence);
        }
    }

    /// Whether the client was told something else last.
    fn has_news(&self) -> bool {
        self.now() != self.told
    }

    /// Everything through `sequence` is acked, the last of it at `index`.
    pub(super) fn acked(&mut self, sequence: u64, index: u64) {
        let index = index.max(self.last.index);
        self.last = Mark { sequence, index };
        let Some(held) = self.held.filter(|_| sequence > self.through) else { return };
        let room = self.marks.len() < MARKS_MAX;
        match self.marks.back_mut() {
            Some(back) if back.index == index || !room => *back = self.last,
            _ => self.marks.push_back(self.last),
        }
        self.advance(held);
    }

    /// Index of the newest entry that the stream is known to have.
    pub(super) fn last_index(&self) -> u64 {
        self.last.index
    }

    fn now(&self) -> (bool, u64) {
        (self.held.is_some(), self.through)
    }

    /// Says it with an ack.
    pub(super) fn tell(&mut self, ack: &mut Ack) {
        self.told = self.now();
        (ack.site_copies, ack.site_through) = self.told;
    }

    /// When to look again; nothing where nothing is outstanding or somebody will look.
    pub(super) fn next_look(&mut self) -> Option<Duration> {
        let is_open = !self.marks.is_empty() || self.waits_since_us.is_some();
        if !is_open || self.is_watched {
            return None;
        }
        self.is_watched = true;
        Some(self.pause)
    }

    /// It was looked; `has_moved`: to some end.
    pub(super) fn looked(&mut self, has_moved: bool) {
        self.is_watched = false;
        let (first, most) = if self.withholds {
            (LOOK_FIRST_WITHHELD, LOOK_MAX_WITHHELD)
        } else {
            (LOOK_FIRST, LOOK_MAX)
        };
        self.pause = if has_moved { first } else { (self.pause * 2).min(most) };
    }
}

impl Flow {
    /// Takes over how far the other site is.
    fn see_site(&mut self) -> bool {
        self.site.see(self.deps.copies.through(self.group))
    }

    /// Begins to look, where there is something to look for.
    pub(crate) fn watch_site(&mut self) {
        self.see_site();
        self.look_at_site_later();
    }

    fn look_at_site_later(&mut self) {
        if let Some(pause) = self.site.next_look() {
            self.myself.send_after(pause, || SessionMessage::Site);
        }
    }

    /// Acks what is done, and waits for nothing; behind it, in its turn, what is held with other
    /// content: a client takes that for an ack of all before it.
    pub(super) fn acknowledge(&mut self) -> Result<(), Error> {
        self.see_site();
        let mut has_acked = self.acknowledge_done()?;
        while let Some(refusal) = self.pending.front_mut().and_then(Pending::take_conflict) {
            self.conflict(0, &refusal)?;
            has_acked |= self.acknowledge_done()?;
        }
        let waits = self.pending.front().is_some_and(|pending| pending.appended().is_some());
        let since_us = self.site.waits_since_us.take().filter(|_| !has_acked);
        let now_us = || self.deps.clock.monotonic_us();
        self.site.waits_since_us = waits.then(|| since_us.unwrap_or_else(now_us));
        self.look_at_site_later();
        Ok(())
    }

    /// Time to look: tells what moved there, and acks what waited for it.
    ///
    /// # Errors
    /// [`Error::SiteBehind`] where acks waited for too long.
    pub(crate) fn look_at_site(&mut self) -> Result<(), Error> {
        let has_moved = self.see_site();
        self.site.looked(has_moved);
        self.acknowledge()?;
        if self.site.has_news() {
            let (offset, leaf_index) = self.acked_at;
            let mut ack = ingest::Ack {
                acked_through: self.acked_through,
                group: self.group.0,
                offset,
                leaf_index,
                incarnation: self.deps.incarnation.0,
                token: self.token(self.acked_through),
                only_site: true,
                ..ingest::Ack::default()
            };
            self.site.tell(&mut ack);
            self.push(Response::Ack(ack))?;
        }
        let Some(since_us) = self.site.waits_since_us else { return Ok(()) };
        let waited_us = self.deps.clock.monotonic_us() - since_us;
        let waited = Duration::from_micros(u64::try_from(waited_us).unwrap_or(0));
        if waited < self.deps.limits.site_ack_within {
            return Ok(());
        }
        metrics::counter!("dtm_site_acks_late_total").increment(1);
        let within = self.deps.limits.site_ack_within;
        Err(Error::SiteBehind { stream: self.stream.clone(), within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(withholds: bool) -> SiteTrack {
        SiteTrack::new(withholds, (40, 900), (true, 0))
    }

    fn told(track: &mut SiteTrack) -> (bool, u64) {
        let mut ack = Ack::default();
        track.tell(&mut ack);
        (ack.site_copies, ack.site_through)
    }

    // holds: ING-1
    #[test]
    fn what_was_there_at_the_open_is_through_once_its_entry_is() {
        let mut track = track(false);
        assert!(!track.see(Some(899)), "told before: there is a standby, nothing is known");
        assert_eq!(told(&mut track), (true, 0));
        track.acked(50, 910);
        assert!(track.see(Some(900)));
        assert_eq!(told(&mut track), (true, 40));
        assert!(!track.see(Some(909)));
        assert!(track.see(Some(2_000)));
        assert_eq!(told(&mut track), (true, 50));
        assert!(!track.see(Some(10)), "another leader knows less: what was told stays");
        assert_eq!(told(&mut track), (true, 50));
        track.acked(60, 920);
        assert!(!track.see(Some(10)), "and nothing is told before it knows");
        assert!(track.see(Some(920)));
    }

    #[test]
    fn a_standby_that_comes_or_goes_is_told() {
        let mut track = SiteTrack::new(false, (0, 3), (false, 0));
        assert!(!track.see(None));
        track.acked(10, 20);
        assert!(track.next_look().is_none(), "nothing to look for");
        assert!(track.see(Some(0)), "there is one now");
        assert_eq!(told(&mut track), (true, 0));
        assert_eq!(track.next_look(), Some(LOOK_FIRST));
        assert!(track.next_look().is_none(), "one look at a time");
        assert!(track.see(Some(20)));
        assert_eq!(told(&mut track), (true, 10));
        assert!(track.see(None));
        assert_eq!(told(&mut track), (false, 0));
    }

    #[test]
    fn marks_are_bounded_and_looks_become_rare() {
        let mut track = track(false);
        track.see(Some(0));
        for n in 0..10_000 {
            track.acked(41 + n, 901 + n);
        }
        assert_eq!(track.marks.len(), MARKS_MAX);
        assert!(track.see(Some(u64::MAX)));
        assert_eq!(told(&mut track), (true, 10_040));
        for _ in 0..10 {
            track.looked(false);
        }
        assert_eq!(track.pause, LOOK_MAX);
        track.looked(true);
        assert_eq!(track.pause, LOOK_FIRST);
    }

    #[test]
    fn an_ack_waits_while_nothing_is_known_and_while_there_is_no_standby() {
        let mut track = track(true);
        assert!(track.is_owed(900));
        track.see(Some(900));
        assert!(!track.is_owed(900) && track.is_owed(901));
        track.see(None);
        assert!(track.is_owed(1), "it never degrades");
        assert!(!SiteTrack::new(false, (0, 0), (false, 0)).is_owed(1));
    }
}
