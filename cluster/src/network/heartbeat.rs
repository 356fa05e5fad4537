//! Heartbeats of all groups between two nodes travel together: whatever is waiting when the stream
//! takes the next message leaves in it.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_peers::OriginGuard;
use dtm_proto::cluster as wire;
use dtm_proto::cluster::peer_service_client::PeerServiceClient;
use futures::StreamExt;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::link::Link;
use crate::convert;
use crate::type_config::TypeConfig;

const PENDING_MAX: usize = 256;
const BATCHES_MAX: usize = 16;

type Answer = Result<StreamAppendResult<TypeConfig>, Status>;

struct Pending {
    request: wire::HeartbeatRequest,
    answer: oneshot::Sender<Answer>,
}

/// Gathers the heartbeats to one peer.
pub(crate) struct HeartbeatHub {
    pending: mpsc::Sender<Pending>,
}

impl HeartbeatHub {
    pub(super) fn start(link: &Link) -> Arc<Self> {
        let (pending, receiver) = mpsc::channel(PENDING_MAX);
        let worker = Worker { client: link.control(), guard: link.guard_arc(), pending: receiver };
        tokio::spawn(worker.run());
        Arc::new(Self { pending })
    }

    /// Sends one heartbeat and waits for its answer. Cancel-safe.
    pub(crate) async fn ask(
        &self,
        target: wire::Target,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Answer {
        let request = wire::HeartbeatRequest {
            id: 0,
            target: Some(target),
            vote: Some(convert::vote_to_wire(&request.vote)),
            prev: request.prev_log_id.as_ref().map(convert::log_id_to_wire),
            commit: request.leader_commit.as_ref().map(convert::log_id_to_wire),
        };
        let (answer, receiver) = oneshot::channel();
        let closed = |_| Status::unavailable("heartbeat worker ended");
        let full = |_| Status::unavailable("heartbeats queue up");
        self.pending.try_send(Pending { request, answer }).map_err(full)?;
        receiver.await.map_err(closed)?
    }
}

struct Worker {
    client: PeerServiceClient<Channel>,
    guard: Arc<OriginGuard>,
    pending: mpsc::Receiver<Pending>,
}

impl Worker {
    async fn run(mut self) {
        while let Some(first) = self.pending.recv().await {
            let (batches, receiver) = mpsc::channel(BATCHES_MAX);
            let request = self.guard.stamp(ReceiverStream::new(receiver));
            match self.client.heartbeat(request).await {
                Ok(answers) => self.exchange(first, batches, answers.into_inner()).await,
                Err(status) => {
                    first.answer.send(Err(status.clone())).ok();
                    while let Ok(next) = self.pending.try_recv() {
                        next.answer.send(Err(status.clone())).ok();
                    }
                }
            }
        }
    }

    async fn exchange(
        &mut self,
        first: Pending,
        batches: mpsc::Sender<wire::HeartbeatBatch>,
        mut answers: tonic::Streaming<wire::HeartbeatResponses>,
    ) {
        let mut waiting: HashMap<u64, oneshot::Sender<Answer>> = HashMap::new();
        let mut last_id = 0;
        let mut next = Some(first);
        let status = loop {
            if let Some(pending) = next.take() {
                let batch = self.gather(pending, &mut waiting, &mut last_id);
                if batches.try_send(batch).is_err() {
                    break Status::unavailable("peer takes no heartbeats");
                }
            }
            tokio::select! {
                pending = self.pending.recv() => match pending {
                    Some(pending) => next = Some(pending),
                    None => return,
                },
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => deliver(answer, &mut waiting),
                    Some(Err(status)) => break status,
                    None => break Status::unavailable("heartbeat stream ended"),
                },
            }
        };
        for (_, answer) in waiting {
            answer.send(Err(status.clone())).ok();
        }
    }

    fn gather(
        &mut self,
        first: Pending,
        waiting: &mut HashMap<u64, oneshot::Sender<Answer>>,
        last_id: &mut u64,
    ) -> wire::HeartbeatBatch {
        // Those whose asker gave up need no answer any more.
        waiting.retain(|_, answer| !answer.is_closed());
        let mut items = Vec::new();
        let mut next = Some(first);
        while let Some(mut pending) = next {
            *last_id += 1;
            pending.request.id = *last_id;
            items.push(pending.request);
            waiting.insert(*last_id, pending.answer);
            next = if items.len() < PENDING_MAX { self.pending.try_recv().ok() } else { None };
        }
        wire::HeartbeatBatch { items }
    }
}

fn deliver(answers: wire::HeartbeatResponses, waiting: &mut HashMap<u64, oneshot::Sender<Answer>>) {
    for item in answers.items {
        if let Some(waiter) = waiting.remove(&item.id) {
            waiter.send(from_wire(item.result)).ok();
        }
    }
}

fn from_wire(result: Option<wire::heartbeat_response::Result>) -> Answer {
    use wire::heartbeat_response::Result as Sent;
    match result {
        Some(Sent::Appended(appended)) => Ok(Ok(appended.through.map(convert::log_id_from_wire))),
        Some(Sent::Conflict(log_id)) => {
            Ok(Err(StreamAppendError::Conflict(convert::log_id_from_wire(log_id))))
        }
        Some(Sent::HigherVote(vote)) => match convert::vote_from_wire(Some(vote)) {
            Ok(vote) => Ok(Err(StreamAppendError::HigherVote(vote))),
            Err(error) => Err(Status::internal(error.to_string())),
        },
        Some(Sent::Failed(cause)) => Err(Status::not_found(cause)),
        None => Err(Status::internal("a heartbeat answer without result")),
    }
}
