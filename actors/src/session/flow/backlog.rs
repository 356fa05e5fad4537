//! Frames that wait: for the keys of a new month, or for the group's word on a loss.

use std::collections::VecDeque;
use std::sync::Arc;

use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::Month;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Outcome, Refusal, RefusalKind};

use super::super::actor::SessionMessage;
use super::Flow;
use crate::admission::Permit;
use crate::batch::BatchKeys;
use crate::error::Error;
use crate::opener;

impl Flow {
    /// Frames wait until the group has answered a declaration of loss.
    pub(crate) fn hold_frames(&mut self) {
        self.backlog.get_or_insert_default();
    }

    /// A new month: everything sealed so far keeps its key; frames wait until the new one holds.
    pub(super) fn rekey(&mut self, frame: ingest::Frame, permit: Permit) {
        self.close_open();
        self.flush();
        self.backlog = Some(VecDeque::from([(frame, permit)]));
        let (deps, stream, group, actor_id) = self.parts();
        let myself = self.myself.clone();
        ractor::concurrency::spawn(async move {
            let month = Month::of_micros(deps.clock.now_us());
            let keys = opener::keys(&deps, &stream, group, month, (None, None), &actor_id).await;
            let _ = myself.cast(SessionMessage::Keys(keys));
        });
    }

    /// Goes on under the new month's keys.
    pub(crate) async fn rekeyed(&mut self, keys: Arc<BatchKeys>) -> Result<(), Error> {
        self.keys = keys;
        for (frame, permit) in self.backlog.take().unwrap_or_default() {
            self.frame(frame, permit).await?;
        }
        Ok(())
    }

    /// The group moved the cursor past lost records.
    pub(crate) async fn lost_declared(
        &mut self,
        outcome: Outcome,
        through: u64,
    ) -> Result<(), Error> {
        self.skip_lost(outcome, through)?;
        for (frame, permit) in self.backlog.take().unwrap_or_default() {
            self.frame(frame, permit).await?;
        }
        Ok(())
    }

    fn skip_lost(&mut self, outcome: Outcome, through: u64) -> Result<(), Error> {
        // The cursor is past the range already: a declaration that came twice.
        let past = |r: &Refusal| r.kind() == RefusalKind::Gap && r.sequence > through;
        match outcome.result {
            Some(Answer::Refusal(refusal))
                if refusal.kind() == RefusalKind::Gap && !past(&refusal) =>
            {
                let cause = format!(
                    "records up to {through} were declared lost, the stream goes on at {}",
                    refusal.sequence
                );
                Err(Error::Protocol { stream: self.stream.clone(), cause })
            }
            Some(Answer::Refusal(refusal)) if !past(&refusal) => {
                Err(opener::unexpected(&self.stream, &Some(Answer::Refusal(refusal))))
            }
            Some(Answer::Done(_) | Answer::Refusal(_)) => {
                self.next = self.next.max(through + 1);
                self.acked_through = self.acked_through.max(through);
                let ack = ingest::Ack {
                    acked_through: self.acked_through,
                    group: self.group.0,
                    incarnation: self.deps.incarnation.0,
                    token: self.token(self.acked_through),
                    ..ingest::Ack::default()
                };
                self.push(Response::Ack(ack))
            }
            other => Err(opener::unexpected(&self.stream, &other)),
        }
    }
}
