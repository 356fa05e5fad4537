//! Frames on their way into batches. Hot path.

use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::Month;

use super::Flow;
use super::backlog::Held;
use super::held::REFUSED_BATCH_MAX;
use crate::admission::Permit;
use crate::batch::{Class, OpenBatch};
use crate::error::Error;

/// Records checked before other actors get their turn.
const RECORDS_A_TURN: usize = 256;

/// A frame, or what is left of one.
pub(super) struct Incoming {
    /// Sequence of the next record.
    next: u64,
    records: std::vec::IntoIter<ingest::Record>,
    /// Of the whole frame.
    payload_bytes: usize,
    permit: Permit,
}

impl Incoming {
    fn new(frame: ingest::Frame, permit: Permit) -> Self {
        Self {
            next: frame.first_sequence,
            payload_bytes: frame.records.iter().map(|r| r.payload.len()).sum(),
            records: frame.records.into_iter(),
            permit,
        }
    }
}

impl Flow {
    /// Takes a frame, or holds it behind what waits.
    pub(crate) async fn frame(
        &mut self,
        frame: ingest::Frame,
        permit: Permit,
    ) -> Result<(), Error> {
        let incoming = Incoming::new(frame, permit);
        if self.waits() {
            self.held.push_back(Held::Frame(incoming));
            return Ok(());
        }
        self.take(incoming).await
    }

    pub(super) async fn take(&mut self, incoming: Incoming) -> Result<(), Error> {
        if Month::of_micros(self.deps.clock.now_us()) != self.keys.month {
            self.rekey(incoming);
            return Ok(());
        }
        if incoming.next > self.next {
            let rewind = ingest::Rewind {
                expected_sequence: self.next,
                reason: ingest::RewindReason::Gap.into(),
                ..ingest::Rewind::default()
            };
            return self.push(Response::Rewind(rewind));
        }
        self.records(incoming).await;
        self.flush();
        Ok(())
    }

    /// Adds a frame's records to batches. Records below `next` are resends: they get batches of
    /// their own, so that apply can tell the same content from other content.
    async fn records(&mut self, mut incoming: Incoming) {
        let total = incoming.records.len();
        for n in 0..total {
            if n > 0 && self.is_full_of_refusals() {
                metrics::counter!("dtm_records_received_total").increment(n as u64);
                return self.hold(incoming);
            }
            let Some(record) = incoming.records.next() else { break };
            let (sequence, class) = (incoming.next, Class::of(&record, &self.contract));
            if self.open.as_ref().is_some_and(|(open, _)| self.must_cut(open, class, sequence)) {
                self.close_open();
            }
            let (open, _) = self.open.get_or_insert_with(|| {
                let limits = &self.deps.limits;
                let records = (total - n).min(limits.batch_records_max as usize);
                let bytes = incoming.payload_bytes.min(limits.batch_bytes_target);
                let resend_until = (sequence < self.next).then_some(self.next);
                let open = OpenBatch::new(sequence, class, records, bytes, resend_until);
                (open, Vec::with_capacity(1))
            });
            open.push(record, &self.contract, &self.keys, &mut self.checker, &self.quota);
            incoming.next = sequence + 1;
            self.next = self.next.max(incoming.next);
            if n % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        // The room is given back with the last of its records.
        if let Some((_, permits)) = &mut self.open {
            permits.push(incoming.permit);
        }
        metrics::counter!("dtm_records_received_total").increment(total as u64);
    }

    fn must_cut(&self, open: &OpenBatch, class: Class, sequence: u64) -> bool {
        open.class() != class
            || open.next_sequence() != sequence
            || open.resend_until() == Some(sequence)
            || open.plain_bytes() >= self.deps.limits.batch_bytes_target
            || open.count() >= self.deps.limits.batch_records_max
            || open.refused_bytes() >= REFUSED_BATCH_MAX
    }
}
