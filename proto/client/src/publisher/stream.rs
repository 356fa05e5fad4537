//! Hot path: one session, from the open until it closes, fails or is left.

use super::config::Event;
use super::driver::{Driver, Exit};
use crate::frame::PartMax;
use crate::session::Ready;
use crate::spool::Released;
use crate::{EncodedFrame, Error, Session, SessionEvent};
use dtm_proto::ingest::{Ack, Reconnect, Rewind, RewindReason};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Rewinds in a row without an ack between them before the connection is given up.
const REWINDS_MAX: u32 = 32;
/// Longest stay after advice to go elsewhere.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// What to do next.
enum Work {
    Send,
    Lost(u64, u64),
    Close(bool),
    Leave(String),
    Wait,
}

impl Driver {
    pub(crate) async fn stream(&mut self, session: &mut Session) -> Exit {
        let sender = session.sender();
        let every = (self.config.ack_timeout / 4).max(Duration::from_millis(10));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.last_progress = Instant::now();
        let shared = self.shared.clone();
        loop {
            if let Some(error) = self.broken.clone() {
                return Exit::Failed(error);
            }
            let work = self.plan();
            let done = match &work {
                Work::Lost(from, to) => session.report_lost(*from, *to).await,
                Work::Close(finished) => session.close(*finished).await,
                Work::Leave(address) => {
                    return Exit::Again((!address.is_empty()).then(|| address.clone()));
                }
                Work::Send | Work::Wait => Ok(()),
            };
            if let Err(error) = done {
                return self.failed(session, error).await;
            }
            let send = matches!(work, Work::Send);
            tokio::select! {
                biased;
                event = session.next_event() => match self.event(session, event) {
                    None => {}
                    Some(exit) => return exit,
                },
                ready = sender.ready(), if send => match ready {
                    Some(ready) => self.send(ready),
                    None => {
                        let gone = Error::Connect {
                            address: session.address().to_string(),
                            reason: "connection is gone".into(),
                        };
                        return self.failed(session, gone).await;
                    }
                },
                () = shared.wake.notified(), if !send => {}
                _ = tick.tick() => if let Some(exit) = self.silent(session) {
                    return exit;
                },
            }
        }
    }

    /// The way out is gone: what the server said last tells why, if it still comes.
    async fn failed(&mut self, session: &mut Session, error: Error) -> Exit {
        for _ in 0..1024 {
            let last = tokio::time::timeout(Duration::from_secs(1), session.next_event()).await;
            match last {
                Ok(event @ (Ok(Some(_)) | Err(_))) => {
                    if let Some(exit) = self.event(session, event) {
                        return exit;
                    }
                }
                Ok(Ok(None)) | Err(_) => break,
            }
        }
        Exit::Failed(error)
    }

    fn plan(&mut self) -> Work {
        let mut state = self.shared.lock();
        state.wake_bytes = 0;
        if let Some(loss) = self.loss.as_mut().filter(|loss| !loss.reported) {
            // A word given once holds for a part too, and for the next session.
            let agreed = |(from, to): (u64, u64)| from <= loss.from && loss.to <= to;
            if state.lost_confirmed.is_some_and(agreed) {
                loss.reported = true;
                self.last_progress = Instant::now();
                return Work::Lost(loss.from, loss.to);
            }
            return Work::Wait;
        }
        if let Some((by, address)) = &self.leaving {
            if self.in_flight.is_empty() || Instant::now() >= *by {
                return Work::Leave(address.clone());
            }
            return Work::Wait;
        }
        let enough = self.config.frame_bytes_min;
        let waiting = state.store.ready_bytes(state.send_next, enough);
        if waiting == 0 {
            state.wake_bytes = 1;
            if let Some(finished) = state.closing
                && !self.close_sent
                && state.all_acked()
            {
                self.close_sent = true;
                self.last_progress = Instant::now();
                return Work::Close(finished);
            }
            return Work::Wait;
        }
        if self.in_flight.is_empty() {
            return Work::Send;
        }
        if self.in_flight.len() >= self.config.eager_frames && waiting < enough {
            state.wake_bytes = enough;
            return Work::Wait;
        }
        let credit = self.credit();
        if credit >= waiting.min(enough) {
            return Work::Send;
        }
        // Only an ack makes room.
        state.wake_bytes = usize::MAX;
        Work::Wait
    }

    fn credit(&self) -> usize {
        (self.window.in_flight_bytes_max as usize).saturating_sub(self.in_flight_bytes)
    }

    /// Cuts the next frame and hands it over.
    fn send(&mut self, ready: Ready<'_>) {
        if let Some(frame) = self.cut() {
            ready.send_frame(frame);
        }
    }

    /// The next frame within window and limits; a frame that is larger than the window goes only
    /// when nothing else is in flight.
    fn cut(&mut self) -> Option<EncodedFrame> {
        let limit = self.config.frame_bytes_max.min(self.window.frame_bytes_max as usize);
        let credit = self.credit();
        let alone = self.in_flight.is_empty();
        let room = if alone { credit.max(1) } else { credit };
        let mut state = self.shared.lock();
        let next = state.send_next;
        let max = PartMax { bytes: limit.min(room), records: self.window.frame_records_max };
        let frame = match state.store.frame_from(next, max) {
            Ok(frame) => frame?,
            Err(error) => {
                self.broken = Some(error.into());
                return None;
            }
        };
        let bytes = frame.wire_bytes();
        if bytes > credit && !alone {
            // Its first record alone is larger than the credit: the window counts as used up, so
            // that it is not cut again before an ack.
            drop(state);
            self.in_flight_bytes =
                self.in_flight_bytes.max(self.window.in_flight_bytes_max as usize);
            return None;
        }
        state.send_next = frame.last_sequence() + 1;
        state.counters.records_sent += u64::from(frame.count());
        state.counters.frames_sent += 1;
        drop(state);
        if alone {
            self.last_progress = Instant::now();
        }
        self.in_flight.push_back((frame.last_sequence(), bytes));
        self.in_flight_bytes += bytes;
        Some(frame)
    }

    /// Nothing was heard for too long while something was owed.
    fn silent(&mut self, session: &Session) -> Option<Exit> {
        let waited = self.last_progress.elapsed();
        let reported = self.loss.is_some_and(|loss| loss.reported);
        let owed = !self.in_flight.is_empty() || self.close_sent || reported;
        (owed && waited > self.config.ack_timeout).then(|| {
            let address = session.address().to_string();
            Exit::Failed(Error::OutcomeUnknown { address, waited })
        })
    }

    fn event(
        &mut self,
        session: &Session,
        event: Result<Option<SessionEvent>, Error>,
    ) -> Option<Exit> {
        match event {
            Ok(Some(SessionEvent::Ack(ack))) => return self.ack(ack),
            Ok(Some(SessionEvent::Refused(refused))) => {
                self.shared.lock().counters.refused += refused.records.len() as u64;
                self.tell(Event::Refused(refused.records));
            }
            Ok(Some(SessionEvent::Rewind(rewind))) => return self.rewind(session, rewind),
            Ok(Some(SessionEvent::Reconnect(advice))) => self.leave(advice),
            Ok(Some(SessionEvent::Window(window))) => self.take_window(window),
            Ok(Some(SessionEvent::Closed(closed))) => {
                self.acked(closed.acked_through, None);
                let done = self.close_sent && self.shared.lock().all_acked();
                return Some(if done { Exit::Closed } else { Exit::Again(None) });
            }
            Ok(Some(SessionEvent::Opened(_))) => {
                return Some(Exit::Failed(Error::Protocol {
                    address: session.address().to_string(),
                    what: "a second Opened",
                }));
            }
            Ok(None) => {
                return Some(Exit::Failed(Error::Connect {
                    address: session.address().to_string(),
                    reason: "the server ended the call".into(),
                }));
            }
            Err(error) => return Some(Exit::Failed(error)),
        }
        None
    }

    fn ack(&mut self, ack: Ack) -> Option<Exit> {
        let given = self.shared.lock().store.next_sequence() - 1;
        if ack.acked_through > given {
            return Some(Exit::Failed(self.ahead(ack.acked_through, given)));
        }
        if !ack.only_site {
            self.backoff.reset();
            self.rewinds = 0;
            self.last_progress = Instant::now();
        }
        self.acked(ack.acked_through, Some(ack));
        None
    }

    /// Everything up to `through` is kept by the cluster.
    pub(crate) fn acked(&mut self, through: u64, ack: Option<Ack>) {
        while let Some((last, bytes)) = self.in_flight.front()
            && *last <= through
        {
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(*bytes);
            self.in_flight.pop_front();
        }
        if self.in_flight.is_empty() {
            self.in_flight_bytes = 0;
        }
        self.loss = self.loss.filter(|loss| loss.to > through);
        let released = {
            let mut state = self.shared.lock();
            state.acked_through = state.acked_through.max(through);
            state.lost_confirmed = state.lost_confirmed.filter(|(_, to)| *to > through);
            // A rewind may have been overtaken by this ack: what it covers is not sent again.
            state.send_next = state.send_next.max(through + 1);
            if let Some(ack) = &ack {
                state.site_copies = ack.site_copies || ack.site_through > 0;
                state.site_through = state.site_through.max(ack.site_through);
                state.counters.duplicates += u64::from(ack.duplicates);
                state.counters.unverified += ack.unverified;
            }
            // Only what this ack covers: an ack of an earlier life proves nothing about now.
            let release = state.releasable(through);
            let noted = Ack { acked_through: through, ..ack.clone().unwrap_or_default() };
            let (let_go, released) =
                state.store.release(release, noted, self.config.held_bytes_max);
            state.counters.let_go += let_go;
            released
        };
        // Senders do not wait for the disk: their lock is free again.
        if let Some(Err(error)) = released.map(Released::clean) {
            self.broken = Some(error.into());
        }
        self.shared.progress.send_modify(|progress| {
            progress.acked_through = progress.acked_through.max(through);
            if let Some(ack) = ack {
                progress.site_through = progress.site_through.max(ack.site_through);
                progress.incarnation = ack.incarnation;
                if !ack.only_site {
                    progress.group = ack.group;
                    progress.offset = ack.offset;
                    progress.leaf_index = ack.leaf_index;
                }
                if !ack.token.is_empty() {
                    progress.token = ack.token;
                }
            }
        });
        self.shared.changed.notify_waiters();
    }

    /// A rewind is an ack only of the sequence that it names as held with other content: what comes
    /// after that is sent again and judged by itself.
    fn rewind(&mut self, session: &Session, rewind: Rewind) -> Option<Exit> {
        self.rewinds += 1;
        let (given, acked) = {
            let state = self.shared.lock();
            (state.store.next_sequence() - 1, state.acked_through)
        };
        let conflict = (rewind.reason() == RewindReason::Conflict)
            .then_some(rewind.conflict_sequence)
            .filter(|sequence| *sequence > 0);
        let mut next = rewind.expected_sequence;
        if let Some(sequence) = conflict {
            self.conflicts(sequence, &rewind.conflict_sequences);
            next = sequence.max(acked) + 1;
            if sequence > acked {
                self.rewinds = 0;
            }
        }
        if next > given + 1 {
            return Some(Exit::Failed(self.ahead(next - 1, given)));
        }
        if self.rewinds > REWINDS_MAX || next == 0 {
            return Some(Exit::Failed(Error::Protocol {
                address: session.address().to_string(),
                what: "it rewinds without end",
            }));
        }
        if let Some(sequence) = conflict {
            self.acked(sequence, None);
        }
        self.send_from(next);
        None
    }

    /// Tells each conflict once: those behind the first come again with what is sent again.
    fn conflicts(&mut self, first: u64, all: &[u64]) {
        let named = if all.is_empty() { std::slice::from_ref(&first) } else { all };
        for &sequence in named.iter().filter(|sequence| **sequence > self.conflict_told) {
            self.shared.lock().counters.conflicts += 1;
            self.tell(Event::Conflict { sequence });
        }
        self.conflict_told = self.conflict_told.max(named[named.len() - 1]);
    }

    fn leave(&mut self, advice: Reconnect) {
        let stay = Duration::from_millis(advice.after_ms).min(LEAVE_WITHIN);
        self.leaving = Some((Instant::now() + stay, advice.address));
    }
}
