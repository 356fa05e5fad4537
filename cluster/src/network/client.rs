//! A way to one replica, as openraft wants it.
// Hot path: `stream_append` carries every entry to every follower.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dtm_proto::cluster as wire;
use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::Status;

use super::link::Link;
use super::matched::{MatchedLog, WentBack};
use super::snapshot;
use crate::convert;
use crate::snapshot::{Snapshot, SnapshotData};
use crate::type_config::{TypeConfig, Vote};

/// A peer that owes an answer this long, without any other one coming, has failed.
const NO_PROGRESS: Duration = Duration::from_secs(5);
/// Before a peer that refuses the connection is asked again. openraft's own pause begins when its
/// requests are taken, which is not before there is a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What openraft wants the client for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Replicate,
    Heartbeat,
}

/// A way to one replica.
pub(crate) struct ReplicaClient {
    link: Arc<Link>,
    target: wire::Target,
    purpose: Purpose,
    matched: Arc<MatchedLog>,
}

type RpcError = RPCError<TypeConfig>;
type AppendResult = Result<StreamAppendResult<TypeConfig>, RpcError>;

impl ReplicaClient {
    pub(crate) fn new(
        link: Arc<Link>,
        target: wire::Target,
        purpose: Purpose,
        matched: Arc<MatchedLog>,
    ) -> Self {
        Self { link, target, purpose, matched }
    }

    async fn heartbeat<S>(&self, mut input: S) -> Result<BoxStream<'static, AppendResult>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let Some(request) = input.next().await else {
            return Ok(futures::stream::empty().boxed());
        };
        let term = request.vote.leader_id.term;
        self.matched.sends(term, committed(&request));
        let answer =
            self.link.heartbeats().ask(self.target, &request).await.map_err(to_rpc_error)?;
        let answer = self.matched.judge(term, answer).map_err(went_back)?;
        Ok(futures::stream::once(async move { Ok(answer) }).boxed())
    }

    async fn replicate<S>(&self, input: S) -> Result<BoxStream<'static, AppendResult>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, target) = (Arc::clone(&sent), self.target);
        // All requests of one stream are of one leader.
        let term = Arc::new(AtomicU64::new(0));
        let (of_leader, matched) = (Arc::clone(&term), Arc::clone(&self.matched));
        let requests = input.map(move |request: AppendEntriesRequest<TypeConfig>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let term = request.vote.leader_id.term;
            of_leader.store(term, Ordering::Relaxed);
            matched.sends(term, committed(&request));
            append_request_to_wire(target, request)
        });
        let opened =
            self.link.log(self.target.group).append(self.link.guard().stamp(requests)).await;
        let answers = opened.map_err(to_rpc_error)?.into_inner();
        let watched = Watched {
            answers,
            sent,
            received: 0,
            failed: false,
            term,
            matched: Arc::clone(&self.matched),
        };
        Ok(futures::stream::unfold(watched, Watched::next).boxed())
    }
}

struct Watched {
    answers: tonic::Streaming<wire::AppendResponse>,
    sent: Arc<AtomicU64>,
    received: u64,
    failed: bool,
    term: Arc<AtomicU64>,
    matched: Arc<MatchedLog>,
}

impl Watched {
    /// The next answer. openraft does not time a stalled stream out; this does.
    async fn next(mut self) -> Option<(AppendResult, Self)> {
        if self.failed {
            return None;
        }
        loop {
            let owed = self.sent.load(Ordering::Relaxed) > self.received;
            match tokio::time::timeout(NO_PROGRESS, self.answers.next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(answer))) => {
                    self.received += 1;
                    let term = self.term.load(Ordering::Relaxed);
                    let result = match answer_from_wire(answer.result) {
                        Ok(answer) => self.matched.judge(term, answer).map_err(went_back),
                        Err(error) => Err(to_network_error(error)),
                    };
                    self.failed = result.is_err();
                    return Some((result, self));
                }
                Ok(Some(Err(status))) => {
                    self.failed = true;
                    return Some((Err(to_rpc_error(status)), self));
                }
                Err(_) if owed => {
                    self.failed = true;
                    metrics::counter!("dtm_cluster_append_stalls_total").increment(1);
                    let error = NetworkError::from_string("no answer in time");
                    return Some((Err(RPCError::Network(error)), self));
                }
                Err(_) => {}
            }
        }
    }
}

/// What a leader knows as committed when it sends.
fn committed(request: &AppendEntriesRequest<TypeConfig>) -> u64 {
    request.leader_commit.as_ref().map_or(0, |last| last.index)
}

pub(crate) fn append_request_to_wire(
    target: wire::Target,
    request: AppendEntriesRequest<TypeConfig>,
) -> wire::AppendRequest {
    wire::AppendRequest {
        target: Some(target),
        vote: Some(convert::vote_to_wire(&request.vote)),
        prev: request.prev_log_id.as_ref().map(convert::log_id_to_wire),
        commit: request.leader_commit.as_ref().map(convert::log_id_to_wire),
        entries: request.entries.iter().map(convert::entry_to_wire).collect(),
    }
}

pub(crate) fn answer_from_wire(
    result: Option<wire::append_response::Result>,
) -> Result<StreamAppendResult<TypeConfig>, convert::Error> {
    use wire::append_response::Result as Answer;
    match result.ok_or(convert::Error::Missing("result of an append"))? {
        Answer::Appended(appended) => Ok(Ok(appended.through.map(convert::log_id_from_wire))),
        Answer::Conflict(log_id) => {
            Ok(Err(StreamAppendError::Conflict(convert::log_id_from_wire(log_id))))
        }
        Answer::HigherVote(vote) => {
            Ok(Err(StreamAppendError::HigherVote(convert::vote_from_wire(Some(vote))?)))
        }
    }
}

/// Unreachable makes openraft back off; anything else is tried again soon.
pub(super) fn to_rpc_error(status: Status) -> RpcError {
    match status.code() {
        tonic::Code::Unavailable
        | tonic::Code::NotFound
        | tonic::Code::PermissionDenied
        | tonic::Code::FailedPrecondition => RPCError::Unreachable(Unreachable::new(&status)),
        _ => RPCError::Network(NetworkError::new(&status)),
    }
}

/// The replica is left alone: openraft would take the conflict for a bug of its own and stop the
/// leader. Its node hears of it when it says hello.
fn went_back(error: WentBack) -> RpcError {
    metrics::counter!("dtm_cluster_logs_went_back_total").increment(1);
    RPCError::Unreachable(Unreachable::new(&error))
}

fn to_network_error(error: convert::Error) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}

async fn within<T>(
    option: &RPCOption,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(option.hard_ttl(), call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner).map_err(to_rpc_error),
        Err(_) => Err(RPCError::Network(NetworkError::from_string("no answer in time"))),
    }
}

impl NetStreamAppend<TypeConfig> for ReplicaClient {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendResult>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            match self.purpose {
                Purpose::Heartbeat => self.heartbeat(input).await,
                Purpose::Replicate => {
                    let opened = self.replicate(input).await;
                    if opened.is_err() {
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                    opened
                }
            }
        })
    }
}

impl ReplicaClient {
    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        option: &RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        // Its log is not what it was: its vote would be for less than it once held.
        if let Some(found) = self.matched.found() {
            return Err(went_back(found));
        }
        let kept = self.matched.kept();
        let message = wire::VoteRequest {
            target: Some(self.target),
            vote: Some(convert::vote_to_wire(&request.vote)),
            last: request.last_log_id.as_ref().map(convert::log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        };
        let mut client = self.link.control();
        let answer = within(option, client.vote(self.link.guard().stamp(message))).await?;
        let last = answer.last.as_ref().map_or(0, |last| last.index);
        self.matched.still_holds(kept, last).map_err(went_back)?;
        let vote = convert::vote_from_wire(answer.vote).map_err(to_network_error)?;
        Ok(VoteResponse::new(vote, answer.last.map(convert::log_id_from_wire), answer.granted))
    }
}

impl NetVote<TypeConfig> for ReplicaClient {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(request, &option, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(request, &option, true).await
    }
}

impl NetTransferLeader<TypeConfig> for ReplicaClient {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = wire::TransferLeaderRequest {
            target: Some(self.target),
            from: Some(convert::vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(convert::log_id_to_wire),
        };
        let mut client = self.link.control();
        let answer =
            within(&option, client.transfer_leader(self.link.guard().stamp(message))).await?;
        let actual = answer.actual.map(convert::log_id_from_wire);
        Ok(match answer.actual_vote {
            Some(vote) => Err(TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: convert::vote_from_wire(Some(vote)).map_err(to_network_error)?,
            }),
            None if answer.not_flushed => Err(TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual,
            }),
            None => Ok(()),
        })
    }
}

impl NetSnapshot<TypeConfig> for ReplicaClient {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (term, last) = (vote.leader_id.term, snapshot.meta.last_log_id);
        let sending = snapshot::send(&self.link, self.target, vote, snapshot);
        tokio::select! {
            sent = sending => {
                // A higher vote in the answer: nothing was installed.
                if sent.as_ref().is_ok_and(|answer| answer.vote == vote) {
                    let index = last.map_or(0, |last| last.index);
                    self.matched.note(term, index);
                    self.matched.sends(term, index);
                }
                sent
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl NetBackoff<TypeConfig> for ReplicaClient {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
