//! The flow of one stream: frames in, sealed batches to the group, acks out. Hot path.
//!
//! ```text
//!  frame -> open batch (merges while batches_in_flight_max are on their way) -> sealed
//!        -> proposed -> outcome -> [refusals,] cumulative ack, room given back
//!  no outcome, or GAP behind one -> all of them proposed again, in order, after a pause
//!  where the agreement says so an ack waits until the standby has its records too
//! ```

mod backlog;
mod held;
mod site;
mod take;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::ProposeError;
use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Outcome, Refusal, RefusalKind};
use dtm_types::{GroupId, StreamKey};
use ractor::ActorRef;

use self::backlog::{Blocked, Held};
use self::held::Unread;
use self::site::SiteTrack;
use super::actor::SessionMessage;
use super::alarm::Alarm;
use super::pending::{Pending, Progress};
use crate::admission::Permit;
use crate::batch::{BatchKeys, OpenBatch, Quota, RecordChecker, Stamp};
use crate::contract::Contract;
use crate::error::Error;
use crate::opener;
use crate::outbox::Outbox;
use crate::sources::Deps;

/// Pauses between two rounds of proposing again.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(300);

/// What the actor should do next.
pub(crate) enum Step {
    Go,
    RetryAfter(Duration),
}

/// What a flow starts with.
pub(crate) struct FlowArgs {
    pub(crate) deps: Arc<Deps>,
    pub(crate) stream: StreamKey,
    pub(crate) group: GroupId,
    pub(crate) session: u64,
    pub(crate) next_sequence: u64,
    /// Index of the entry that opened it.
    pub(crate) opened_at: u64,
    /// What its client was told of the other site.
    pub(crate) site_told: (bool, u64),
    pub(crate) contract: Contract,
    pub(crate) keys: Arc<BatchKeys>,
    pub(crate) quota: Quota,
    /// 16 bytes: the source's id.
    pub(crate) actor_id: Bytes,
    pub(crate) outbox: Outbox,
}

/// See the module.
pub(crate) struct Flow {
    deps: Arc<Deps>,
    stream: StreamKey,
    group: GroupId,
    session: u64,
    contract: Contract,
    keys: Arc<BatchKeys>,
    checker: RecordChecker,
    quota: Quota,
    actor_id: Bytes,
    outbox: Outbox,
    myself: ActorRef<SessionMessage>,
    /// The sequence expected of the client next.
    next: u64,
    acked_through: u64,
    /// Index and leaf of the last ack.
    acked_at: (u64, u64),
    site: SiteTrack,
    open: Option<(OpenBatch, Vec<Permit>)>,
    pending: VecDeque<Pending>,
    next_id: u64,
    /// Since when outcomes are missing, monotonic microseconds.
    trouble_since_us: Option<i64>,
    pause: Duration,
    retry_scheduled: bool,
    /// Somebody looks whether the oldest batch is overdue.
    is_watched: bool,
    /// Why nothing is taken now.
    blocked: Option<Blocked>,
    /// What waits to be taken, in the order it came; a part of the first frame may have been taken.
    held: VecDeque<Held>,
    looks_at_held: bool,
    unread: Option<Unread>,
    /// Bytes of the refusals of pending batches.
    refused_pending: usize,
    last_error: Option<ProposeError>,
    alarm: Alarm,
}

impl Flow {
    pub(crate) fn new(args: FlowArgs, myself: ActorRef<SessionMessage>) -> Self {
        let checker = RecordChecker::new(Arc::clone(&args.deps.treatment));
        let opened = (args.next_sequence - 1, args.opened_at);
        let site = SiteTrack::new(args.contract.acks_at_site, opened, args.site_told);
        Self {
            deps: args.deps,
            stream: args.stream,
            group: args.group,
            session: args.session,
            contract: args.contract,
            keys: args.keys,
            checker,
            quota: args.quota,
            actor_id: args.actor_id,
            outbox: args.outbox,
            myself,
            next: args.next_sequence,
            acked_through: args.next_sequence - 1,
            acked_at: (0, 0),
            site,
            open: None,
            pending: VecDeque::new(),
            next_id: 0,
            trouble_since_us: None,
            pause: RETRY_FIRST,
            retry_scheduled: false,
            is_watched: false,
            blocked: None,
            held: VecDeque::new(),
            looks_at_held: false,
            unread: None,
            refused_pending: 0,
            last_error: None,
            alarm: Alarm::default(),
        }
    }

    pub(crate) fn stream(&self) -> &StreamKey {
        &self.stream
    }

    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    pub(crate) fn acked_through(&self) -> u64 {
        self.acked_through
    }

    pub(crate) fn parts(&self) -> (Arc<Deps>, StreamKey, GroupId, Bytes) {
        (Arc::clone(&self.deps), self.stream.clone(), self.group, self.actor_id.clone())
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.is_settled() && self.blocked.is_none() && self.held.is_empty()
    }

    /// Everything that was taken has its outcome.
    fn is_settled(&self) -> bool {
        self.open.is_none() && self.pending.is_empty()
    }

    /// Queues an answer.
    pub(crate) fn push(&self, response: Response) -> Result<(), Error> {
        if self.outbox.push(response) {
            return Ok(());
        }
        let cause = "the client does not read its answers (outbox_bytes_max)".to_owned();
        Err(Error::Protocol { stream: self.stream.clone(), cause })
    }

    /// Seals the open batch, if there is one, and queues it.
    fn close_open(&mut self) {
        let Some((open, permits)) = self.open.take() else {
            return;
        };
        let stamp = Stamp {
            time_us: self.deps.clock.now_us(),
            entropy: self.deps.entropy.as_ref(),
            treatment: self.deps.treatment.as_ref(),
            actor_id: self.actor_id.clone(),
        };
        let sealed = open.seal(&self.stream, self.session, &self.contract, &self.keys, stamp);
        self.next_id += 1;
        self.refused_pending += sealed.refused_bytes;
        let sealed_us = self.deps.clock.monotonic_us();
        self.pending.push_back(Pending {
            id: self.next_id,
            sealed,
            permits,
            progress: Progress::Waiting,
            sealed_us,
        });
    }

    /// Proposes what waits, as far as batches_in_flight_max allows; an open batch is closed only
    /// when it can go at once or is full.
    fn flush(&mut self) {
        if self.trouble_since_us.is_some() {
            return;
        }
        for n in 0..self.pending.len() {
            if matches!(self.pending[n].progress, Progress::Waiting) {
                if !self.may_fly(self.pending[n].sealed.priority) {
                    return;
                }
                self.propose(n);
            }
        }
        if self.open.as_ref().is_some_and(|(open, _)| self.may_fly(open.class().priority)) {
            self.close_open();
            self.propose(self.pending.len() - 1);
        }
    }

    /// Whether one more batch of this priority may be on its way. Priority orders streams, never the
    /// records of one: batches that are on their way together have one priority, so that none of
    /// them overtakes another.
    fn may_fly(&self, priority: u32) -> bool {
        let in_flight = |p: &&Pending| matches!(p.progress, Progress::InFlight);
        let flying = self.pending.iter().filter(in_flight);
        let same = flying.clone().all(|p| p.sealed.priority == priority);
        same && flying.count() < self.deps.limits.batches_in_flight_max
    }

    fn propose(&mut self, at: usize) {
        let pending = &mut self.pending[at];
        pending.tell_proposed(&self.stream, self.session, self.group);
        pending.progress = Progress::InFlight;
        let (batch, myself) = (pending.id, self.myself.clone());
        let reply =
            Box::new(move |result| drop(myself.cast(SessionMessage::Outcome { batch, result })));
        self.deps.proposer.propose(self.group, pending.sealed.command.clone(), reply);
        if !self.is_watched {
            self.watch(self.deps.limits.propose_for);
        }
    }

    fn watch(&mut self, pause: Duration) {
        self.is_watched = true;
        self.myself.send_after(pause, || SessionMessage::Overdue);
    }

    /// Ends a session whose oldest batch has no outcome for too long: a leader that has lost its
    /// followers answers nothing, and the client may find one that has not.
    pub(crate) fn overdue(&mut self) -> Result<(), Error> {
        self.is_watched = false;
        // What is done waits for the other site, which has a patience of its own.
        let oldest = self.pending.iter().find(|pending| !pending.is_answered());
        let Some(oldest) = oldest else { return Ok(()) };
        let waited_us = self.deps.clock.monotonic_us() - oldest.sealed_us;
        let waited = Duration::from_micros(u64::try_from(waited_us).unwrap_or(0));
        let patience = self.deps.limits.propose_for;
        if waited < patience {
            self.watch(patience.saturating_sub(waited));
            return Ok(());
        }
        let cause = format!("no majority answered within {patience:?}");
        let unavailable = ProposeError::Unavailable { group: self.group, cause };
        let source = self.last_error.take().unwrap_or(unavailable);
        Err(Error::Propose { stream: self.stream.clone(), source })
    }

    /// A batch got its outcome, or none.
    pub(crate) fn outcome(
        &mut self,
        batch: u64,
        result: Result<Outcome, ProposeError>,
    ) -> Result<Step, Error> {
        let Some(at) = self.pending.iter().position(|p| p.id == batch) else {
            return Ok(Step::Go);
        };
        match result.map(|outcome| outcome.result) {
            Ok(Some(Answer::Appended(appended))) => {
                self.pending[at].progress = Progress::Done(appended);
                self.acknowledge()?;
            }
            Ok(Some(Answer::Refusal(refusal))) => self.refused(at, &refusal)?,
            Ok(other) => return Err(opener::unexpected(&self.stream, &other)),
            Err(error) => self.failed(at, error)?,
        }
        if self.trouble_since_us.is_none() {
            self.flush();
        }
        Ok(self.next_step())
    }

    fn refused(&mut self, at: usize, refusal: &Refusal) -> Result<(), Error> {
        self.pending[at].tell_unstored(&refusal.kind().as_str_name());
        match refusal.kind() {
            RefusalKind::Superseded => {
                Err(Error::Superseded { stream: self.stream.clone(), session: refusal.session })
            }
            // One before it got no outcome and is proposed again first.
            RefusalKind::Gap => {
                let cause = "an earlier batch is missing".to_owned();
                let error = ProposeError::OutcomeUnknown { group: self.group, cause };
                self.mark_failed(at, error).map(drop)
            }
            RefusalKind::Conflict if at > 0 && self.site.withholds() => {
                self.pending[at].progress = Progress::Conflicted(refusal.clone());
                Ok(())
            }
            RefusalKind::Conflict => {
                self.conflict(at, refusal)?;
                self.acknowledge()
            }
            kind => {
                let cause = format!("the group refused a batch: {kind:?} {}", refusal.detail);
                Err(Error::Protocol { stream: self.stream.clone(), cause })
            }
        }
    }

    /// Only the conflicting batch is known to be held: what came after it is still on its way and
    /// must not pass for acked (ING-1).
    fn conflict(&mut self, at: usize, refusal: &Refusal) -> Result<(), Error> {
        let held = self.pending.remove(at).map_or(self.acked_through, |p| {
            self.refused_pending -= p.sealed.refused_bytes;
            p.sealed.last
        });
        let rewind = ingest::Rewind {
            expected_sequence: held + 1,
            reason: ingest::RewindReason::Conflict.into(),
            conflict_sequence: refusal.sequence,
            conflict_sequences: refusal.conflicts.clone(),
        };
        metrics::counter!("dtm_resend_conflicts_total").increment(1);
        self.push(Response::Rewind(rewind))
    }

    fn failed(&mut self, at: usize, error: ProposeError) -> Result<(), Error> {
        self.pending[at].tell_unstored(&error);
        self.last_error = Some(self.mark_failed(at, error)?);
        Ok(())
    }

    /// Gives the error back while there is patience. The last one that is a cause of its own is
    /// what the client is told in the end.
    fn mark_failed(&mut self, at: usize, error: ProposeError) -> Result<ProposeError, Error> {
        self.pending[at].progress = Progress::Failed;
        let now_us = self.deps.clock.monotonic_us();
        let since = *self.trouble_since_us.get_or_insert(now_us);
        let patience = i64::try_from(self.deps.limits.propose_for.as_micros()).unwrap_or(i64::MAX);
        let gave_up = now_us - since > patience;
        let is_final = !error.retryable();
        if gave_up || is_final || matches!(error, ProposeError::Stopped { .. }) {
            let earlier = self.last_error.take().filter(|_| !is_final);
            let source = earlier.unwrap_or(error);
            return Err(Error::Propose { stream: self.stream.clone(), source });
        }
        Ok(error)
    }

    /// In trouble, and nothing is on its way any more: time to propose again.
    fn next_step(&mut self) -> Step {
        let flying = self.pending.iter().any(|p| matches!(p.progress, Progress::InFlight));
        if self.trouble_since_us.is_none() || flying || self.retry_scheduled {
            return Step::Go;
        }
        if !self.pending.iter().any(|p| matches!(p.progress, Progress::Failed)) {
            self.calm();
            self.flush();
            return Step::Go;
        }
        self.retry_scheduled = true;
        let pause = self.pause;
        self.pause = (self.pause * 2).min(RETRY_MAX);
        Step::RetryAfter(pause)
    }

    /// Proposes again, in order, what got no outcome.
    pub(crate) fn retry(&mut self) {
        self.retry_scheduled = false;
        metrics::counter!("dtm_batches_proposed_again_total").increment(1);
        for n in 0..self.pending.len() {
            if matches!(self.pending[n].progress, Progress::Failed) {
                if !self.may_fly(self.pending[n].sealed.priority) {
                    return;
                }
                self.propose(n);
            }
        }
    }

    fn calm(&mut self) {
        self.trouble_since_us = None;
        self.pause = RETRY_FIRST;
        self.last_error = None;
    }

    /// Acks every batch at the front that is done, and where it has to be is at the other site:
    /// refusals first, then one cumulative ack. Whether there was one.
    fn acknowledge_done(&mut self) -> Result<bool, Error> {
        let mut ack: Option<ingest::Ack> = None;
        while let Some(appended) = self.pending.front().and_then(Pending::appended) {
            if self.site.is_owed(appended.offset) {
                break;
            }
            let pending = self.pending.pop_front().expect("looked at just now");
            assert!(
                appended.acked_through >= pending.sealed.last,
                "ING-1: ack below what was stored"
            );
            pending.count(&appended, &self.deps, &self.contract.dataset);
            let now_us = self.deps.clock.monotonic_us();
            let place = (self.session, self.group);
            pending.tell_acknowledged(&self.stream, place, &appended, now_us);
            if !appended.already {
                self.alarm.raise(
                    &pending.sealed.tally,
                    now_us,
                    &self.stream,
                    &self.contract.dataset,
                );
            }
            self.refused_pending -= pending.sealed.refused_bytes;
            if !pending.sealed.refused.is_empty() {
                if !appended.already {
                    let is_idle = self.pending.is_empty() && self.open.is_none();
                    let held = (appended.quarantine_records, appended.quarantine_bytes);
                    self.quota.learn(held, is_idle);
                }
                self.push_refused(pending.sealed.refused)?;
            }
            self.acked_through = self.acked_through.max(appended.acked_through);
            let sum = ack.unwrap_or_default();
            ack = Some(ingest::Ack {
                acked_through: self.acked_through,
                group: self.group.0,
                offset: appended.offset,
                leaf_index: appended.leaf_index,
                incarnation: self.deps.incarnation.0,
                duplicates: sum.duplicates + appended.duplicates,
                unverified: sum.unverified + appended.unverified,
                ..ingest::Ack::default()
            });
            drop(pending.permits);
        }
        let Some(mut ack) = ack else { return Ok(false) };
        self.acked_at = (ack.offset, ack.leaf_index);
        self.site.acked(ack.acked_through, ack.offset);
        self.site.tell(&mut ack);
        ack.token = self.token(ack.acked_through);
        self.push(Response::Ack(ack)).map(|()| true)
    }

    /// Shown at the next open: proof that this ack was given (ING-1 is then an alarm).
    fn token(&self, through: u64) -> Bytes {
        self.keys.ack_token(&self.stream, self.deps.incarnation.0, through)
    }
}
