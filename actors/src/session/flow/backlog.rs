//! What waits to be taken: frames behind refusals that are not told yet, behind the keys of a new
//! month, or behind the group's word on a loss; and declarations of loss among them. All in the order
//! in which the client sent it.

use std::sync::Arc;

use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::Month;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Outcome, Refusal, RefusalKind};
use tokio::sync::OwnedSemaphorePermit;

use super::super::actor::SessionMessage;
use super::Flow;
use super::take::Incoming;
use crate::batch::BatchKeys;
use crate::error::Error;
use crate::opener;

/// What waits.
pub(super) enum Held {
    /// A frame, or the rest of one.
    Frame(Incoming),
    /// A declaration of loss; the next one waits for the permit.
    Lost(ingest::Lost, OwnedSemaphorePermit),
}

/// Why nothing is taken now.
pub(super) enum Blocked {
    /// The keys of a new month are on their way.
    Keys,
    /// A loss is declared once everything before it is committed: the group takes it right behind
    /// its cursor only.
    Settling(ingest::Lost, OwnedSemaphorePermit),
    /// The group was asked to move its cursor past the loss.
    Declaring,
}

impl Flow {
    /// The client lost these records: after everything that it sent before.
    pub(crate) fn lost(&mut self, lost: ingest::Lost, turn: OwnedSemaphorePermit) {
        if self.waits() {
            self.held.push_back(Held::Lost(lost, turn));
        } else {
            self.settle(lost, turn);
        }
    }

    /// Whether what comes now has to wait behind something.
    pub(super) fn waits(&self) -> bool {
        self.blocked.is_some() || !self.held.is_empty()
    }

    pub(super) fn settle(&mut self, lost: ingest::Lost, turn: OwnedSemaphorePermit) {
        self.flush();
        self.blocked = Some(Blocked::Settling(lost, turn));
    }

    /// A loss that is to be declared now.
    pub(crate) fn settled_loss(&mut self) -> Option<(ingest::Lost, OwnedSemaphorePermit)> {
        if !self.is_settled() {
            return None;
        }
        let settling = |blocked: &mut Blocked| matches!(blocked, Blocked::Settling(..));
        let Some(Blocked::Settling(lost, turn)) = self.blocked.take_if(settling) else {
            return None;
        };
        self.blocked = Some(Blocked::Declaring);
        Some((lost, turn))
    }

    /// A new month: everything sealed so far keeps its key; frames wait until the new one holds.
    pub(super) fn rekey(&mut self, incoming: Incoming) {
        self.close_open();
        self.flush();
        self.held.push_front(Held::Frame(incoming));
        self.blocked = Some(Blocked::Keys);
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
        self.blocked = None;
        self.go_on().await
    }

    /// The group moved the cursor past lost records.
    pub(crate) async fn lost_declared(
        &mut self,
        outcome: Outcome,
        through: u64,
    ) -> Result<(), Error> {
        self.skip_lost(outcome, through)?;
        self.blocked = None;
        self.go_on().await
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
            Some(known @ (Answer::Done(_) | Answer::Refusal(_))) => {
                self.next = self.next.max(through + 1);
                self.acked_through = self.acked_through.max(through);
                // Nothing is stored of what is lost: it waits for no other site. Where the declaration
                // came twice, its entry lies below the one that is told next.
                let index = match known {
                    Answer::Done(done) => done.offset,
                    _ => self.site.last_index(),
                };
                self.site.acked(self.acked_through, index);
                let mut ack = ingest::Ack {
                    acked_through: self.acked_through,
                    group: self.group.0,
                    incarnation: self.deps.incarnation.0,
                    token: self.token(self.acked_through),
                    ..ingest::Ack::default()
                };
                self.site.tell(&mut ack);
                self.push(Response::Ack(ack))?;
                self.acknowledge()
            }
            other => Err(opener::unexpected(&self.stream, &other)),
        }
    }
}
