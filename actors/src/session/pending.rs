//! A batch on its way: what it holds until its outcome is acknowledged.

use std::sync::Arc;

use dtm_types::command::{Appended, Refusal};
use dtm_types::{GroupId, REQUEST_LOG, StreamKey};

use crate::admission::Permit;
use crate::batch::Sealed;
use crate::sources::Deps;

/// How far a batch is.
pub(super) enum Progress {
    Waiting,
    InFlight,
    Failed,
    Done(Appended),
    /// Held with other content; told in its turn.
    Conflicted(Refusal),
}

/// A sealed batch and the room that its frames take.
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) sealed: Sealed,
    pub(super) permits: Vec<Permit>,
    pub(super) progress: Progress,
    /// When it was sealed: microseconds, monotonic.
    pub(super) sealed_us: i64,
}

impl Pending {
    /// The outcome of a batch that is done.
    pub(super) fn appended(&self) -> Option<Appended> {
        match self.progress {
            Progress::Done(appended) => Some(appended),
            _ => None,
        }
    }

    /// Its group has said what became of it.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.progress, Progress::Done(_) | Progress::Conflicted(_))
    }

    /// Of a batch that is held with other content; once.
    pub(super) fn take_conflict(&mut self) -> Option<Refusal> {
        match &mut self.progress {
            Progress::Conflicted(refusal) => Some(std::mem::take(refusal)),
            _ => None,
        }
    }

    /// The batch is on its way to its group. Costs nothing unless somebody listens, as the lines below.
    pub(super) fn tell_proposed(&self, stream: &StreamKey, session: u64, group: GroupId) {
        tracing::debug!(
            target: REQUEST_LOG,
            request_id = %self.sealed.request_id,
            source = stream.source.as_str(),
            stream = &*stream.stream,
            session,
            group = group.0,
            first = self.sealed.first(),
            last = self.sealed.last,
            count = self.sealed.count,
            bytes = self.sealed.command.len(),
            again = matches!(self.progress, Progress::Failed),
            "batch proposed"
        );
    }

    /// Its group did not store it, or nobody knows.
    pub(super) fn tell_unstored(&self, cause: &dyn std::fmt::Display) {
        let request_id = self.sealed.request_id;
        tracing::debug!(target: REQUEST_LOG, %request_id, %cause, "batch not acknowledged");
    }

    /// Its client is told that it is kept.
    pub(super) fn tell_acknowledged(
        &self,
        stream: &StreamKey,
        (session, group): (u64, GroupId),
        appended: &Appended,
        now_us: i64,
    ) {
        tracing::debug!(
            target: REQUEST_LOG,
            request_id = %self.sealed.request_id,
            source = stream.source.as_str(),
            stream = &*stream.stream,
            session,
            group = group.0,
            first = self.sealed.first(),
            last = self.sealed.last,
            index = appended.offset,
            leaf = appended.leaf_index,
            already = appended.already,
            took_us = now_us - self.sealed_us,
            "batch acknowledged"
        );
    }

    /// What the metrics say of a batch that is done, and what its stream waits for refused records.
    pub(super) fn count(&self, appended: &Appended, deps: &Deps, dataset: &Arc<str>) {
        let now_us = deps.clock.monotonic_us();
        let took_us = u64::try_from(now_us - self.sealed_us).unwrap_or(0);
        deps.ack_times.record(now_us, took_us);
        metrics::histogram!("dtm_ack_seconds").record(took_us as f64 / 1e6);
        let refused = self.sealed.refused.len() as u64;
        metrics::counter!("dtm_records_total", "dataset" => Arc::clone(dataset))
            .increment(u64::from(self.sealed.count) - refused);
        metrics::counter!("dtm_record_bytes_total").increment(self.sealed.plain_bytes);
        metrics::counter!("dtm_duplicates_total").increment(u64::from(appended.duplicates));
        if refused > 0 {
            metrics::counter!("dtm_records_refused_total", "dataset" => Arc::clone(dataset))
                .increment(refused);
            if let Some(permit) = self.permits.first() {
                permit.refused(refused);
            }
        }
    }
}
