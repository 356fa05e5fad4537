//! A source that writes one stream and keeps the history of what it sent and was told.

use dtm_machine::seams::ProposeError;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{RefusalKind, SessionOpened};
use dtm_types::{GroupId, StreamKey};

use super::{GROUP, PATIENCE, Sandbox, commands};
use crate::checker::{Checker, Image, StreamNo, Verdict};

const BATCH_RECORDS: u32 = 5;
/// Tries of one command while the group has no leader.
const TRIES_MAX: usize = 40;

/// One stream and its history. Like a client it holds what was not acked and sends it again.
pub struct Load {
    stream: StreamKey,
    number: StreamNo,
    checker: Checker,
    session: u64,
    next: u64,
    sent: u64,
    openings: u64,
}

impl Load {
    /// A stream that was never opened.
    pub fn new(source: &str, stream: &str) -> Self {
        let mut checker = Checker::new();
        let number = checker.stream(source, stream);
        let stream = StreamKey::parse(source, stream).expect("names are allowed ones");
        Self { stream, number, checker, session: 0, next: 1, sent: 0, openings: 0 }
    }

    /// Puts the source's key, opens the stream and goes on where the group says.
    ///
    /// # Panics
    /// When the group does not answer in time.
    pub async fn open(&mut self, sandbox: &Sandbox, at: usize) {
        self.until_answered(sandbox, at, commands::put_key(&self.stream)).await;
        self.openings += 1;
        let open = commands::open(&self.stream, self.openings);
        match self.until_answered(sandbox, at, open).await {
            Answer::SessionOpened(SessionOpened { session, next_sequence, .. }) => {
                (self.session, self.next) = (session, next_sequence);
            }
            other => panic!("opening {}: {other:?}", self.stream),
        }
    }

    /// Sends batches one after the other, from where the stream stands; those that were sent before
    /// have the same content. Returns how many were acked; ends at the first that has no outcome.
    pub async fn write(&mut self, sandbox: &Sandbox, at: usize, batches: usize) -> usize {
        for done in 0..batches {
            let last = self.next + u64::from(BATCH_RECORDS) - 1;
            for sequence in self.sent + 1..=last {
                let digest = commands::digest(&self.stream, sequence);
                self.checker.sent(self.number, sequence, digest).expect("sent in order");
            }
            self.sent = self.sent.max(last);
            let batch = commands::batch(&self.stream, self.session, self.next, BATCH_RECORDS);
            match sandbox.propose(at, GROUP, batch).await {
                Ok(outcome) => match outcome.result {
                    Some(Answer::Appended(appended)) => {
                        self.checker.acked(self.number, appended.acked_through).expect("sent");
                        self.next = appended.acked_through + 1;
                    }
                    Some(Answer::Refusal(refusal)) if refusal.kind() == RefusalKind::Superseded => {
                        return done;
                    }
                    other => panic!("batch from {} of {}: {other:?}", self.next, self.stream),
                },
                Err(_) => return done,
            }
        }
        batches
    }

    /// Sends again everything from where the stream stands up to the last one ever sent.
    pub async fn resend(&mut self, sandbox: &Sandbox, at: usize) {
        let left = (self.sent + 1).saturating_sub(self.next) / u64::from(BATCH_RECORDS);
        self.write(sandbox, at, usize::try_from(left).expect("a scenario sends little")).await;
    }

    /// The stream.
    pub fn stream(&self) -> &StreamKey {
        &self.stream
    }

    /// Last sequence that was acked.
    pub fn acked_through(&self) -> u64 {
        self.next - 1
    }

    async fn until_answered(&self, sandbox: &Sandbox, at: usize, command: bytes::Bytes) -> Answer {
        let mut last: Option<ProposeError> = None;
        for _ in 0..TRIES_MAX {
            match sandbox.propose(at, GROUP, command.clone()).await {
                Ok(outcome) => return outcome.result.expect("an outcome says something"),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(PATIENCE / 600).await;
        }
        panic!("group {GROUP} does not answer: {last:?}");
    }

    /// Hands the judge what the nodes gave back.
    pub fn read_back(&mut self, images: &[Image]) -> Verdict {
        let mut checker = std::mem::take(&mut self.checker);
        if images.is_empty() {
            // Nobody serves the group: whatever was acked cannot be had.
            checker.node("nobody");
        }
        for image in images.iter().filter(|image| image.group != GroupId::META) {
            let node = checker.node(&image.node);
            for record in image.records() {
                let stream = checker.stream(&record.source, &record.stream);
                checker.observed(node, stream, record.sequence, record.digest);
            }
        }
        checker.verdict()
    }
}
