//! Frames on their way into batches. Hot path.

use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::Month;

use super::Flow;
use super::held::REFUSED_BATCH_MAX;
use crate::admission::Permit;
use crate::batch::{Class, OpenBatch};
use crate::error::Error;

/// Records checked before other actors get their turn.
const RECORDS_A_TURN: usize = 256;

impl Flow {
    /// Takes a frame, or holds it behind those that wait.
    pub(crate) async fn frame(
        &mut self,
        frame: ingest::Frame,
        permit: Permit,
    ) -> Result<(), Error> {
        if self.holds_frames() {
            self.held.push_back((frame, permit));
            return Ok(());
        }
        self.take(frame, permit).await
    }

    pub(super) async fn take(&mut self, frame: ingest::Frame, permit: Permit) -> Result<(), Error> {
        if let Some(backlog) = &mut self.backlog {
            backlog.push_back((frame, permit));
            return Ok(());
        }
        if Month::of_micros(self.deps.clock.now_us()) != self.keys.month {
            self.rekey(frame, permit);
            return Ok(());
        }
        if frame.first_sequence > self.next {
            let rewind = ingest::Rewind {
                expected_sequence: self.next,
                reason: ingest::RewindReason::Gap.into(),
                ..ingest::Rewind::default()
            };
            return self.push(Response::Rewind(rewind));
        }
        self.records(frame, permit).await;
        self.flush();
        Ok(())
    }

    /// Adds a frame's records to batches. Records below `next` are resends: they get a batch of
    /// their own, so that apply can tell the same content from other content.
    async fn records(&mut self, frame: ingest::Frame, permit: Permit) {
        let mut sequence = frame.first_sequence;
        let total = frame.records.len();
        let bytes = frame.records.iter().map(|r| r.payload.len()).sum::<usize>();
        let resend_until = self.next;
        let mut permit = Some(permit);
        let mut records = frame.records.into_iter().enumerate();
        while let Some((n, record)) = records.next() {
            if n > 0 && self.is_full_of_refusals() {
                let records = std::iter::once(record).chain(records.map(|(_, r)| r)).collect();
                let rest = ingest::Frame { first_sequence: sequence, records, ..frame };
                self.hold(rest, permit.take().expect("given away with the last record only"));
                metrics::counter!("dtm_records_received_total").increment(n as u64);
                return;
            }
            let class = Class::of(&record, &self.contract);
            let resend_ends = n > 0 && sequence == resend_until;
            let cut = |open: &OpenBatch| resend_ends || self.must_cut(open, class, sequence);
            if self.open.as_ref().is_some_and(|(open, _)| cut(open)) {
                self.close_open();
            }
            let (open, permits) = self.open.get_or_insert_with(|| {
                (OpenBatch::new(sequence, class, total - n, bytes), Vec::with_capacity(1))
            });
            open.push(record, &self.contract, &self.keys, &mut self.checker, &self.quota);
            if n + 1 == total {
                permits.extend(permit.take());
            }
            sequence += 1;
            self.next = self.next.max(sequence);
            if n % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        metrics::counter!("dtm_records_received_total").increment(total as u64);
    }

    fn must_cut(&self, open: &OpenBatch, class: Class, sequence: u64) -> bool {
        open.class() != class
            || open.next_sequence() != sequence
            || open.plain_bytes() >= self.deps.limits.batch_bytes_target
            || open.count() >= self.deps.limits.batch_records_max
            || open.refused_bytes() >= REFUSED_BATCH_MAX
    }
}
