//! Commands for groups that another node leads: one stream a peer, commands of all groups gathered.
//!
//! Openings of sessions go before batches here too, and find room where those have filled the link.
//! What one group holds of the link while it gets no answers is bounded (`shares.rs`).
//! A command is either never sent (it goes back to its queue), or answered, or its outcome is
//! unknown; never reported as failed when it may have been committed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use dtm_machine::seams::{ProposeError, Reply};
use dtm_peers::OriginGuard;
use dtm_proto::cluster as wire;
use dtm_proto::cluster::peer_service_client::PeerServiceClient;
use dtm_types::command::Outcome;
use dtm_types::{ErrorCode, GroupId};
use futures::StreamExt;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::network::Link;
use crate::queue::{CommandQueue, Item};
use crate::registry::Registry;
use crate::requests;
use crate::shares::{COMMANDS_MAX, Shares};

/// One message takes this much, unless a single command is larger.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const MESSAGES_MAX: usize = 8;
const ANSWERS_MAX: usize = 1024;

/// What became of a forwarded command.
pub(crate) enum Forwarded {
    /// Applied on the leader.
    Outcome(Box<Outcome>),
    /// Never left this node, or the receiver did not lead: it can be queued again.
    NotTaken,
    /// Refused, or unknown.
    Failed(ProposeError),
}

/// A command on its way, and the queue that waits for what becomes of it.
pub(crate) struct Job {
    pub(crate) queue: Weak<CommandQueue>,
    pub(crate) group: GroupId,
    /// Its place in the queue.
    pub(crate) number: u64,
    pub(crate) item: Item,
}

impl Job {
    fn bytes(&self) -> usize {
        self.item.command.len()
    }

    fn take_share(&self, shares: &Shares) -> bool {
        shares.take(self.group, self.item.is_opening(), self.bytes())
    }

    fn give_share_back(&self, shares: &Shares) {
        shares.give_back(self.group, self.item.is_opening(), self.bytes());
    }

    fn answer(self, forwarded: Forwarded) {
        if let Some(queue) = self.queue.upgrade() {
            return queue.forwarded(self.number, self.item, forwarded);
        }
        // The replica here is gone meanwhile, and its queue with it: whoever asked still waits.
        let group = self.group;
        (self.item.reply)(match forwarded {
            Forwarded::Outcome(outcome) => Ok(*outcome),
            Forwarded::Failed(error) => Err(error),
            Forwarded::NotTaken => {
                let cause = "the replica here has gone".to_owned();
                Err(ProposeError::Unavailable { group, cause })
            }
        });
    }
}

/// The sending side, one a peer.
pub(crate) struct Forwarder {
    openings: mpsc::Sender<Job>,
    jobs: mpsc::Sender<Job>,
    shares: Arc<Shares>,
}

impl Forwarder {
    pub(crate) fn start(link: &Link) -> Arc<Self> {
        let (openings, first) = mpsc::channel(COMMANDS_MAX);
        let (jobs, then) = mpsc::channel(COMMANDS_MAX);
        let shares = Arc::new(Shares::default());
        let worker = Worker {
            client: link.data(),
            guard: link.guard_arc(),
            jobs: Jobs { openings: first, others: then },
            shares: Arc::clone(&shares),
            waiting: HashMap::new(),
            last_id: 0,
        };
        tokio::spawn(worker.run());
        Arc::new(Self { openings, jobs, shares })
    }

    /// Takes a command unless its group holds too much of the link; then it comes back.
    pub(crate) fn send(&self, job: Job) -> Result<(), Job> {
        if !job.take_share(&self.shares) {
            return Err(job);
        }
        let jobs = if job.item.is_opening() { &self.openings } else { &self.jobs };
        jobs.try_send(job).map_err(|refused| {
            let job = refused.into_inner();
            job.give_share_back(&self.shares);
            job
        })
    }
}

/// What is to be sent, openings first.
struct Jobs {
    openings: mpsc::Receiver<Job>,
    others: mpsc::Receiver<Job>,
}

impl Jobs {
    /// Nothing once the forwarder is dropped. Cancel-safe.
    async fn recv(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            Some(job) = self.openings.recv() => Some(job),
            job = self.others.recv() => job,
        }
    }

    fn try_recv(&mut self) -> Option<Job> {
        self.openings.try_recv().or_else(|_| self.others.try_recv()).ok()
    }
}

struct Worker {
    client: PeerServiceClient<Channel>,
    guard: Arc<OriginGuard>,
    jobs: Jobs,
    shares: Arc<Shares>,
    /// Sent and not yet answered, by the number of this stream's worker.
    waiting: HashMap<u64, Job>,
    last_id: u64,
}

impl Worker {
    async fn run(mut self) {
        while let Some(first) = self.jobs.recv().await {
            let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
            let request = self.guard.stamp(ReceiverStream::new(receiver));
            match self.client.forward(request).await {
                Ok(answers) => {
                    let status = self.exchange(first, messages, answers.into_inner()).await;
                    self.lose(&status);
                }
                Err(status) => {
                    let group = first.group.0;
                    tracing::debug!(group, %status, "no stream to the leader");
                    metrics::counter!("dtm_cluster_forward_streams_failed_total").increment(1);
                    self.give_back(first);
                }
            }
        }
    }

    /// Nothing of these was sent.
    fn give_back(&mut self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            job.give_share_back(&self.shares);
            job.answer(Forwarded::NotTaken);
            next = self.jobs.try_recv();
        }
    }

    async fn exchange(
        &mut self,
        first: Job,
        messages: mpsc::Sender<wire::ForwardRequest>,
        mut answers: Streaming<wire::ForwardResponse>,
    ) -> Status {
        let mut next = Some(first);
        loop {
            if let Some(job) = next.take() {
                let message = self.gather(job);
                let sending = messages.send(message);
                tokio::pin!(sending);
                // Answers are read on while the peer's window is full.
                loop {
                    tokio::select! {
                        sent = &mut sending => match sent {
                            Ok(()) => break,
                            Err(_) => return Status::unavailable("forward stream closed"),
                        },
                        answer = answers.next() => {
                            if let Err(status) = self.deliver(answer) {
                                return status;
                            }
                        }
                    }
                }
            }
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => next = Some(job),
                    None => return Status::cancelled("the link was dropped"),
                },
                answer = answers.next() => {
                    if let Err(status) = self.deliver(answer) {
                        return status;
                    }
                }
            }
        }
    }

    fn gather(&mut self, first: Job) -> wire::ForwardRequest {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        let are_logged = requests::are_logged();
        while let Some(job) = next {
            if are_logged {
                requests::forwarded(job.group, &job.item.command);
            }
            self.last_id += 1;
            bytes += job.bytes();
            let (id, command) = (self.last_id, job.item.command.clone());
            items.push(wire::ForwardItem { id, group: job.group.0, command });
            self.waiting.insert(id, job);
            next = if bytes < MESSAGE_BYTES_MAX { self.jobs.try_recv() } else { None };
        }
        wire::ForwardRequest { items }
    }

    fn deliver(
        &mut self,
        answer: Option<Result<wire::ForwardResponse, Status>>,
    ) -> Result<(), Status> {
        let answer = answer.ok_or_else(|| Status::unavailable("forward stream ended"))??;
        for item in answer.items {
            if let Some(job) = self.waiting.remove(&item.id) {
                job.give_share_back(&self.shares);
                let (group, bytes) = (job.group, job.bytes());
                job.answer(from_wire(group, bytes, item.result));
            }
        }
        Ok(())
    }

    /// The stream broke: what was sent may have been committed or not.
    fn lose(&mut self, status: &Status) {
        for (_, job) in self.waiting.drain() {
            job.give_share_back(&self.shares);
            let group = job.group;
            let cause = format!("connection to the leader was lost: {}", status.message());
            job.answer(Forwarded::Failed(ProposeError::OutcomeUnknown { group, cause }));
        }
    }
}

/// What became of a command of so many bytes.
fn from_wire(
    group: GroupId,
    bytes: usize,
    result: Option<wire::forward_answer::Result>,
) -> Forwarded {
    use wire::forward_answer::Result as Sent;
    let unknown = |cause: String| Forwarded::Failed(ProposeError::OutcomeUnknown { group, cause });
    match result {
        Some(Sent::Outcome(bytes)) => match Outcome::decode(bytes) {
            Ok(outcome) => Forwarded::Outcome(Box::new(outcome)),
            Err(error) => unknown(error.to_string()),
        },
        Some(Sent::Error(error)) => match ErrorCode::from_name(&error.code) {
            Some(ErrorCode::NotLeader) => Forwarded::NotTaken,
            Some(ErrorCode::Unavailable) => {
                Forwarded::Failed(ProposeError::Unavailable { group, cause: error.cause })
            }
            Some(ErrorCode::Overloaded) => {
                let retry_after_ms = error.retry_after_ms;
                Forwarded::Failed(ProposeError::Overloaded { group, retry_after_ms })
            }
            Some(ErrorCode::DiskFull) => Forwarded::Failed(ProposeError::DiskFull { group }),
            Some(ErrorCode::NotSupported) => {
                Forwarded::Failed(ProposeError::NotSupported { group, cause: error.cause })
            }
            Some(ErrorCode::TooLarge) => {
                let bytes_max = usize::try_from(error.bytes_max).unwrap_or(usize::MAX);
                Forwarded::Failed(ProposeError::TooLarge { group, bytes, bytes_max })
            }
            Some(ErrorCode::NodeStopped) => {
                Forwarded::Failed(ProposeError::Stopped { reason: error.cause })
            }
            _ => unknown(error.cause),
        },
        None => unknown("an answer without result".to_owned()),
    }
}

fn to_wire(id: u64, result: Result<Outcome, ProposeError>) -> wire::ForwardAnswer {
    use wire::forward_answer::Result as Sent;
    let result = match result {
        Ok(outcome) => Sent::Outcome(outcome.encode_to_vec().into()),
        Err(error) => Sent::Error(wire::ForwardError {
            code: error.code().name().to_owned(),
            retry_after_ms: match error {
                ProposeError::Overloaded { retry_after_ms, .. } => retry_after_ms,
                _ => 0,
            },
            leader: String::new(),
            bytes_max: match error {
                ProposeError::TooLarge { bytes_max, .. } => bytes_max as u64,
                _ => 0,
            },
            cause: error.to_string(),
        }),
    };
    wire::ForwardAnswer { id, result: Some(result) }
}

/// The receiving side of one peer's stream: commands join the bundles of the groups led here.
pub(crate) fn serve(
    registry: Arc<Registry>,
    requests: Streaming<wire::ForwardRequest>,
) -> ReceiverStream<Result<wire::ForwardResponse, Status>> {
    // A place for each command that the sender may have here without an answer: no group's commands
    // wait for a place that those of another hold.
    let (answers, gathered) = mpsc::channel(COMMANDS_MAX);
    let (responses, receiver) = mpsc::channel(MESSAGES_MAX);
    tokio::spawn(take_requests(registry, requests, answers));
    tokio::spawn(send_answers(gathered, responses));
    ReceiverStream::new(receiver)
}

async fn take_requests(
    registry: Arc<Registry>,
    mut requests: Streaming<wire::ForwardRequest>,
    answers: mpsc::Sender<wire::ForwardAnswer>,
) {
    while let Ok(Some(request)) = requests.message().await {
        for item in request.items {
            // A place for the answer is taken first: an unread answer stream stops the requests.
            let Ok(place) = answers.clone().reserve_owned().await else {
                return;
            };
            let group = GroupId(item.group);
            let id = item.id;
            let reply: Reply = Box::new(move |result| {
                place.send(to_wire(id, result));
            });
            let Some(reply) = rightful(&registry, group, reply) else { continue };
            match registry.group(group) {
                Some(group) => group.bundler.push_forwarded(item.command, reply),
                None => reply(Err(ProposeError::NotLeader { group, leader: None })),
            }
        }
    }
}

/// What is told only while this node may acknowledge; nothing where it may not now, and that was told.
/// The node that forwards may not know of the right: it may hold nothing of meta.
fn rightful(registry: &Registry, group: GroupId, reply: Reply) -> Option<Reply> {
    let Some(port) = registry.deps().acceptor.clone().filter(|_| !group.is_meta()) else {
        return Some(reply);
    };
    if !port.may_acknowledge() {
        let cause = "the node that leads may not acknowledge now".to_owned();
        reply(Err(ProposeError::Unavailable { group, cause }));
        return None;
    }
    Some(Box::new(move |result| match result {
        Ok(_) if !port.may_acknowledge() => {
            let cause = "the right to acknowledge ended meanwhile".to_owned();
            reply(Err(ProposeError::OutcomeUnknown { group, cause }));
        }
        result => reply(result),
    }))
}

async fn send_answers(
    mut gathered: mpsc::Receiver<wire::ForwardAnswer>,
    responses: mpsc::Sender<Result<wire::ForwardResponse, Status>>,
) {
    let mut items = Vec::new();
    while gathered.recv_many(&mut items, ANSWERS_MAX).await > 0 {
        let response = wire::ForwardResponse { items: std::mem::take(&mut items) };
        if responses.send(Ok(response)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dtm_types::command::command::Op;
    use dtm_types::command::{AppendBatch, Command, OpenSession};

    use super::*;
    use crate::queue::QueueConfig;

    /// A batch, then an opening, as a queue hands them out.
    fn jobs() -> [Job; 2] {
        let config = QueueConfig { bytes_max: 1 << 20, leader_wait: Duration::from_secs(5) };
        let queue = CommandQueue::new(GroupId(1), config);
        let job = |op| {
            let command = Command { op: Some(op), ..Command::default() }.encode_to_vec();
            queue.push(command.into(), Box::new(drop), false);
            let (number, item) = queue.take(usize::MAX).remove(0);
            Job { queue: Arc::downgrade(&queue), group: GroupId(1), number, item }
        };
        [job(Op::AppendBatch(AppendBatch::default())), job(Op::OpenSession(OpenSession::default()))]
    }

    fn forwarder() -> (Forwarder, Jobs) {
        let (openings, first) = mpsc::channel(8);
        let (jobs, then) = mpsc::channel(8);
        let forwarder = Forwarder { openings, jobs, shares: Arc::default() };
        (forwarder, Jobs { openings: first, others: then })
    }

    /// Takes all room of the group of [`jobs`].
    fn fill(forwarder: &Forwarder, is_opening: bool) {
        for bytes in [64 << 10, 1] {
            while forwarder.shares.take(GroupId(1), is_opening, bytes) {}
        }
    }

    // holds: LIVE-1
    #[test]
    fn who_asked_is_told_though_the_queue_is_gone() {
        let config = QueueConfig { bytes_max: 1 << 20, leader_wait: Duration::from_secs(5) };
        let group = GroupId(1);
        let unknown = ProposeError::OutcomeUnknown { group, cause: String::new() };
        for forwarded in [Forwarded::NotTaken, Forwarded::Failed(unknown)] {
            let (told, heard) = std::sync::mpsc::sync_channel(1);
            let queue = CommandQueue::new(group, config);
            let op = Op::AppendBatch(AppendBatch::default());
            let command = Command { op: Some(op), ..Command::default() }.encode_to_vec();
            let reply = Box::new(move |result| told.send(result).expect("it is waited for"));
            queue.push(command.into(), reply, false);
            let (number, item) = queue.take(usize::MAX).remove(0);
            let job = Job { queue: Arc::downgrade(&queue), group, number, item };
            drop(queue);
            job.answer(forwarded);
            assert!(heard.try_recv().expect("told at once").is_err());
        }
    }

    #[tokio::test]
    async fn openings_leave_before_what_waits() {
        let (forwarder, mut waiting) = forwarder();
        for job in jobs().into_iter().chain(jobs()) {
            assert!(forwarder.send(job).is_ok());
        }
        let first = waiting.recv().await.expect("it waits").item.is_opening();
        let next = waiting.try_recv().expect("it waits").item.is_opening();
        let last = waiting.recv().await.expect("it waits").item.is_opening();
        assert_eq!((first, next, last), (true, true, false));
        drop(forwarder);
        assert!(waiting.recv().await.is_some(), "what was taken is sent");
        assert!(waiting.recv().await.is_none());
    }

    #[tokio::test]
    async fn openings_find_room_where_batches_have_filled_the_link() {
        let (forwarder, mut waiting) = forwarder();
        fill(&forwarder, false);
        let [batch, opening] = jobs();
        assert!(forwarder.send(batch).is_err());
        assert!(forwarder.send(opening).is_ok());
        fill(&forwarder, true);
        let [_, opening] = jobs();
        assert!(forwarder.send(opening).is_err(), "there is a bound for them too");
        waiting.recv().await.expect("it waits").give_share_back(&forwarder.shares);
        let [_, opening] = jobs();
        assert!(forwarder.send(opening).is_ok(), "an answer makes room");
    }
}
