//! Asks the cluster whether it holds these records: they are sent again under their sequences, and
//! what the stream holds there with other content is answered as a conflict. Nothing is stored.

use super::error::Error;
use crate::{Endpoint, FrameBuilder, PublisherConfig, Session, SessionEvent};
use dtm_proto::ingest::{Record, RewindReason};
use std::collections::VecDeque;
use std::time::Duration;

/// Records that are compared: the last ones that are there. The cluster compares the last 4,096.
const RECORDS_MAX: usize = 64;
const BYTES_MAX: usize = 256 << 10;
/// Turns over the seeds.
const TURNS: usize = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// The last records of those that are there.
#[derive(Default)]
pub(crate) struct Last {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Last {
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.payload.len();
        self.records.push_back(record);
        while self.records.len() > 1 && (self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX)
        {
            let gone = self.records.pop_front().expect("there is more than one");
            self.bytes -= gone.payload.len();
        }
    }

    /// The first sequence up to `through` that the stream holds with other content.
    ///
    /// # Errors
    /// As [`Session::open`], where no seed answers.
    pub(crate) async fn differs(
        self,
        endpoint: &Endpoint,
        config: &PublisherConfig,
        through: u64,
    ) -> Result<Option<u64>, Error> {
        let seeds = endpoint.seeds();
        let mut last = crate::Error::Closed;
        for turn in 0..seeds.len() * TURNS {
            if turn > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.ask(endpoint, &seeds[turn % seeds.len()], config, through).await {
                Ok(differs) => return Ok(differs),
                Err(error) if !error.retryable() => return Err(error.into()),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        address: &str,
        config: &PublisherConfig,
        through: u64,
    ) -> Result<Option<u64>, crate::Error> {
        let mut frame = FrameBuilder::new(through + 1 - self.records.len() as u64);
        for record in &self.records {
            frame.push(record);
        }
        let Some(frame) = frame.finish() else {
            return Ok(None);
        };
        let mut session = Session::open(endpoint, address, config.open()).await?;
        session.send_frame(frame).await?;
        let waited = config.ack_timeout;
        let answered = tokio::time::timeout(waited, answer(&mut session)).await;
        let unknown = |_| crate::Error::OutcomeUnknown { address: address.to_owned(), waited };
        answered.map_err(unknown)?
    }
}

/// The first answer that settles it.
async fn answer(session: &mut Session) -> Result<Option<u64>, crate::Error> {
    // Ends with the session: the caller bounds the wait.
    while let Some(event) = session.next_event().await? {
        match event {
            SessionEvent::Ack(ack) if !ack.only_site => return Ok(None),
            SessionEvent::Rewind(rewind) if rewind.reason() == RewindReason::Conflict => {
                return Ok(Some(rewind.conflict_sequence));
            }
            _ => {}
        }
    }
    let address = session.address().to_string();
    Err(crate::Error::Connect { address, reason: "the session ended without an answer".into() })
}
