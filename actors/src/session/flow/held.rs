//! Frames that are held back while the refusals of earlier records wait for their outcome or for the
//! client to read them: a refusal is many times the size of the record that it is about, so without
//! this a few kilobytes of broken records would take gigabytes.

use std::time::Duration;

use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use prost::Message;

use super::Flow;
use super::backlog::Held;
use super::take::Incoming;
use crate::error::Error;

/// Refusals of one stream that wait, bytes; records behind them are taken later.
const REFUSED_WAITING_MAX: usize = 512 << 10;
/// A batch is closed at this many bytes of refusals.
pub(super) const REFUSED_BATCH_MAX: usize = 64 << 10;
/// Largest message of refusals, unless a single one is larger; clients take 4 MiB by default.
const REFUSED_MESSAGE_MAX: usize = 256 << 10;
/// Held frames are looked at this often.
const HELD_LOOK: Duration = Duration::from_millis(10);
/// A client that reads none of its answers for so long, while frames are held, is not served.
const READS_WITHIN_US: i64 = 30_000_000;

/// Since when nothing was read, and how many answers had been read then.
#[derive(Clone, Copy)]
pub(super) struct Unread {
    since_us: i64,
    taken: u64,
}

impl Flow {
    /// Whether refusals that wait leave no room for more records.
    pub(super) fn is_full_of_refusals(&self) -> bool {
        let open = self.open.as_ref().map_or(0, |(open, _)| open.refused_bytes());
        let waiting = self.refused_pending + open;
        // Nothing to be refused: the usual case asks nobody.
        let at_client = if waiting > 0 || !self.held.is_empty() { self.outbox.bytes() } else { 0 };
        waiting + at_client > REFUSED_WAITING_MAX
    }

    /// What is left of a frame, and the room it takes, waits.
    pub(super) fn hold(&mut self, rest: Incoming) {
        self.held.push_front(Held::Frame(rest));
        self.look_again();
    }

    fn look_again(&mut self) {
        if !self.looks_at_held {
            self.looks_at_held = true;
            self.myself.send_after(HELD_LOOK, || super::SessionMessage::Held);
        }
    }

    /// Goes on with what was held, as far as there is room.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the client has not read its answers for long.
    pub(crate) async fn go_on(&mut self) -> Result<(), Error> {
        self.looks_at_held = false;
        while self.blocked.is_none() && !self.is_full_of_refusals() {
            match self.held.pop_front() {
                Some(Held::Frame(incoming)) => self.take(incoming).await?,
                Some(Held::Lost(lost, turn)) => self.settle(lost, turn),
                None => break,
            }
        }
        // Who is blocked is called again when that is over.
        if self.held.is_empty() || self.blocked.is_some() {
            self.unread = None;
            return Ok(());
        }
        self.look_again();
        self.flush();
        let (now_us, taken) = (self.deps.clock.monotonic_us(), self.outbox.taken());
        let unread = *self.unread.get_or_insert(Unread { since_us: now_us, taken });
        if unread.taken != taken || self.outbox.bytes() == 0 {
            self.unread = Some(Unread { since_us: now_us, taken });
        } else if now_us - unread.since_us > READS_WITHIN_US {
            let cause = "the client has read none of its answers for 30 s".to_owned();
            return Err(Error::Protocol { stream: self.stream.clone(), cause });
        }
        Ok(())
    }

    /// Tells refusals in messages of bounded size.
    pub(super) fn push_refused(
        &mut self,
        refused: Vec<ingest::RefusedRecord>,
    ) -> Result<(), Error> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in refused {
            let length = record.encoded_len();
            if bytes + length > REFUSED_MESSAGE_MAX && !records.is_empty() {
                let full = std::mem::take(&mut records);
                self.push(Response::Refused(ingest::Refused { records: full }))?;
                bytes = 0;
            }
            bytes += length;
            records.push(record);
        }
        self.push(Response::Refused(ingest::Refused { records }))
    }
}
