//! What a node answers to its peers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dtm_proto::cluster as wire;
use dtm_proto::cluster::peer_service_server::{PeerService, PeerServiceServer};
use dtm_types::{GroupId, ReplicaId};
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, VoteRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::entries;
use super::hello;
use super::link;
use super::origin::{OriginGuard, Peer};
use super::snapshot;
use super::tls::PeerStream;
use crate::clocks::Standing;
use crate::convert;
use crate::elsewhere;
use crate::forward;
use crate::group::Group;
use crate::log_store::ReplicaLog;
use crate::registry::Registry;
use crate::type_config::TypeConfig;

const STREAMS_MAX: u32 = 1024;
const ANSWERS_MAX: usize = 64;
/// The asker has given up long before: what it asked is not kept longer than this.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `dtm.cluster.v1.PeerService`.
struct PeerServer {
    registry: Arc<Registry>,
    guard: Arc<OriginGuard>,
}

/// Answers on what was accepted, until nothing more is.
pub(crate) fn serve(
    registry: Arc<Registry>,
    guard: Arc<OriginGuard>,
    incoming: mpsc::Receiver<io::Result<PeerStream>>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> {
    let service = PeerServiceServer::new(PeerServer { registry, guard })
        .max_decoding_message_size(link::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(link::MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .initial_stream_window_size(link::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(link::CONNECTION_WINDOW_BYTES)
        .max_frame_size(link::FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(link::KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(link::KEEP_ALIVE_TIMEOUT))
        .serve_with_incoming(service, ReceiverStream::new(incoming))
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl PeerServer {
    /// The replica that a checked call is about.
    fn target<T>(
        &self,
        request: &Request<T>,
        target: Option<wire::Target>,
    ) -> Result<Arc<Group>, Status> {
        find(&self.registry, self.guard.check(request)?, target)
    }
}

fn find(
    registry: &Registry,
    peer: Peer,
    target: Option<wire::Target>,
) -> Result<Arc<Group>, Status> {
    let target = target.ok_or_else(|| Status::invalid_argument("no target"))?;
    may(registry, peer, target.group)?;
    let group = registry.group(GroupId(target.group));
    group.filter(|group| group.replica == ReplicaId(target.replica)).ok_or_else(|| {
        Status::not_found(format!("no replica {} of group {}", target.replica, target.group))
    })
}

/// Whether a checked peer is heard in a group.
fn may(registry: &Registry, peer: Peer, group: u32) -> Result<(), Status> {
    let running = || registry.group(GroupId(group));
    peer.may(group, |node| running().is_some_and(|group| group.names(node)))
}

fn invalid(error: convert::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

async fn append_answers(
    registry: Arc<Registry>,
    peer: Peer,
    mut requests: Streaming<wire::AppendRequest>,
) -> Answers<wire::AppendResponse> {
    let failed = |status| futures::stream::once(async move { Err(status) }).boxed();
    let first = match requests.message().await {
        Ok(Some(first)) => first,
        Ok(None) => return futures::stream::empty().boxed(),
        Err(status) => return failed(status),
    };
    let group = match find(&registry, peer, first.target) {
        Ok(group) => group,
        Err(status) => return failed(status),
    };
    let target = first.target;
    let (id, log) = (group.id, Arc::clone(&group.log));
    let all = futures::stream::once(async move { Ok(first) }).chain(requests);
    // Ends at the first that is not to be taken.
    let read = all.then(move |request| {
        let log = Arc::clone(&log);
        async move {
            let request = request.ok().filter(|request| request.target == target)?;
            let unread = |error: &convert::Error| {
                tracing::error!(group = id.0, %error, "append of a peer does not read");
            };
            has_room(id, log, append_from_wire(request).inspect_err(unread).ok()?).await
        }
    });
    let input = read.take_while(|request| futures::future::ready(request.is_some()));
    let input = input.filter_map(futures::future::ready).boxed();
    let answers = group.raft.stream_append(input);
    answers.map(|answer| answer.map(append_to_wire).map_err(stopped)).boxed()
}

/// An append for which the disk has no room never reaches the group, which would wait for it and
/// answer nobody meanwhile: the stream ends, and the leader tries again.
async fn has_room(
    group: GroupId,
    log: Arc<dyn ReplicaLog>,
    request: AppendEntriesRequest<TypeConfig>,
) -> Option<AppendEntriesRequest<TypeConfig>> {
    let bytes = request.entries.iter().map(|entry| convert::payload_bytes(&entry.payload)).sum();
    if bytes > 0
        && let Err(error) = log.ready(bytes).await
    {
        tracing::warn!(group = group.0, %error, "append of a peer turned away");
        metrics::counter!("dtm_cluster_appends_turned_away_total").increment(1);
        return None;
    }
    Some(request)
}

fn append_from_wire(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, convert::Error> {
    Ok(AppendEntriesRequest {
        vote: convert::vote_from_wire(request.vote)?,
        prev_log_id: request.prev.map(convert::log_id_from_wire),
        leader_commit: request.commit.map(convert::log_id_from_wire),
        entries: request
            .entries
            .into_iter()
            .map(convert::entry_from_wire)
            .collect::<Result<_, _>>()?,
    })
}

fn append_to_wire(result: StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
    use wire::append_response::Result as Answer;
    let result = match result {
        Ok(through) => Answer::Appended(wire::Appended {
            through: through.as_ref().map(convert::log_id_to_wire),
        }),
        Err(StreamAppendError::Conflict(log_id)) => {
            Answer::Conflict(convert::log_id_to_wire(&log_id))
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            Answer::HigherVote(convert::vote_to_wire(&vote))
        }
    };
    wire::AppendResponse { result: Some(result) }
}

async fn heartbeat(
    registry: Arc<Registry>,
    peer: Peer,
    request: wire::HeartbeatRequest,
) -> wire::HeartbeatResponse {
    use wire::heartbeat_response::Result as Answer;
    let id = request.id;
    let handled = try_heartbeat(&registry, peer, request);
    let handled = tokio::time::timeout(HEARTBEAT_TIMEOUT, handled).await;
    let late = |_| Err(Status::deadline_exceeded("no answer in time"));
    let result = match handled.unwrap_or_else(late) {
        Ok(Ok(through)) => Answer::Appended(wire::Appended {
            through: through.as_ref().map(convert::log_id_to_wire),
        }),
        Ok(Err(StreamAppendError::Conflict(log_id))) => {
            Answer::Conflict(convert::log_id_to_wire(&log_id))
        }
        Ok(Err(StreamAppendError::HigherVote(vote))) => {
            Answer::HigherVote(convert::vote_to_wire(&vote))
        }
        Err(status) => Answer::Failed(status.message().to_owned()),
    };
    wire::HeartbeatResponse { id, result: Some(result) }
}

async fn try_heartbeat(
    registry: &Registry,
    peer: Peer,
    request: wire::HeartbeatRequest,
) -> Result<StreamAppendResult<TypeConfig>, Status> {
    let group = find(registry, peer, request.target)?;
    let prev_log_id = request.prev.map(convert::log_id_from_wire);
    let request = AppendEntriesRequest {
        vote: convert::vote_from_wire(request.vote).map_err(invalid)?,
        prev_log_id,
        leader_commit: request.commit.map(convert::log_id_from_wire),
        entries: Vec::new(),
    };
    let answer = group.raft.append_entries(request).await.map_err(stopped)?;
    Ok(answer.into_stream_result(prev_log_id, prev_log_id))
}

async fn heartbeats(
    registry: Arc<Registry>,
    peer: Peer,
    mut batches: Streaming<wire::HeartbeatBatch>,
    answers: mpsc::Sender<Result<wire::HeartbeatResponses, Status>>,
) {
    while let Ok(Some(batch)) = batches.message().await {
        let items = batch.items.into_iter();
        let handled: FuturesUnordered<_> =
            items.map(|item| heartbeat(Arc::clone(&registry), peer, item)).collect();
        let answers = answers.clone();
        // A group that is slow to answer holds up nobody else's heartbeat.
        tokio::spawn(async move {
            let mut handled = handled.ready_chunks(ANSWERS_MAX);
            while let Some(items) = handled.next().await {
                if answers.send(Ok(wire::HeartbeatResponses { items })).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type AppendStream = Answers<wire::AppendResponse>;
    type HeartbeatStream = ReceiverStream<Result<wire::HeartbeatResponses, Status>>;
    type FetchSnapshotStream = Answers<wire::SnapshotChunk>;
    type ForwardStream = ReceiverStream<Result<wire::ForwardResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let peer = self.guard.check(&request)?;
        let answers = append_answers(Arc::clone(&self.registry), peer, request.into_inner());
        Ok(Response::new(futures::stream::once(answers).flatten().boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<wire::HeartbeatBatch>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let peer = self.guard.check(&request)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(heartbeats(Arc::clone(&self.registry), peer, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let group = self.target(&request, request.get_ref().target)?;
        let message = request.into_inner();
        let vote = convert::vote_from_wire(message.vote).map_err(invalid)?;
        let mut ask = VoteRequest::new(vote, message.last.map(convert::log_id_from_wire));
        ask.leadership_transfer = message.leadership_transfer;
        let answer = if message.pre_vote {
            group.raft.pre_vote(ask).await
        } else {
            group.raft.vote(ask).await
        };
        let answer = answer.map_err(stopped)?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(convert::vote_to_wire(&answer.vote)),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(convert::log_id_to_wire),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let group = self.target(&request, request.get_ref().target)?;
        let message = request.into_inner();
        let from = convert::vote_from_wire(message.from).map_err(invalid)?;
        let last = message.last.map(convert::log_id_from_wire);
        let ask = TransferLeaderRequest::new(from, message.to, last);
        let answer = group.raft.handle_transfer_leader(ask).await.map_err(stopped)?;
        let mut response = wire::TransferLeaderResponse::default();
        match answer {
            Ok(()) => {}
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                response.actual_vote = Some(convert::vote_to_wire(&actual));
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                response.not_flushed = true;
                response.actual = actual.as_ref().map(convert::log_id_to_wire);
            }
        }
        Ok(Response::new(response))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        let peer = self.guard.check(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|chunk| chunk.part);
        let Some(wire::snapshot_chunk::Part::Manifest(manifest)) = first else {
            return Err(Status::invalid_argument("a snapshot begins with its manifest"));
        };
        let group = find(&self.registry, peer, manifest.target)?;
        let states = self.registry.states();
        snapshot::receive(&group, states, manifest, chunks).await.map(Response::new)
    }

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        self.guard.check(&request)?.listed()?;
        let registry = Arc::clone(&self.registry);
        Ok(Response::new(forward::serve(registry, request.into_inner())))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        let group = self.target(&request, request.get_ref().target)?;
        let index = group.read_index_here(READ_INDEX_TIMEOUT).await.map_err(stopped)?;
        Ok(Response::new(wire::ReadIndexResponse { index }))
    }

    async fn leaders(
        &self,
        request: Request<wire::LeadersRequest>,
    ) -> Result<Response<wire::LeadersResponse>, Status> {
        self.guard.check(&request)?;
        Ok(Response::new(elsewhere::leaders(&self.registry)))
    }

    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        let node = self.guard.check_hello(&request)?;
        let answer = hello::answer(&self.registry, &self.guard, node, request.into_inner()).await;
        Ok(Response::new(answer))
    }

    async fn time(
        &self,
        request: Request<wire::TimeRequest>,
    ) -> Result<Response<wire::TimeResponse>, Status> {
        self.guard.check(&request)?;
        let time_us = self.registry.links().clocks().now_us();
        Ok(Response::new(wire::TimeResponse { time_us }))
    }

    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        self.guard.check(&request)?;
        Ok(Response::new(self.registry.report().map_err(stopped)?))
    }

    async fn create_replica(
        &self,
        request: Request<wire::CreateReplicaRequest>,
    ) -> Result<Response<wire::CreateReplicaResponse>, Status> {
        let peer = self.guard.check(&request)?;
        let asked = request.into_inner();
        let target = asked.target.ok_or_else(|| Status::invalid_argument("no target"))?;
        may(&self.registry, peer, target.group)?;
        let (group, replica) = (GroupId(target.group), ReplicaId(target.replica));
        let registry = Arc::clone(&self.registry);
        // Goes on when the caller is gone: a replica that was begun is also started.
        let created = tokio::spawn(async move {
            registry.create_allocated(group, replica, asked.boot_counter).await
        });
        created.await.map_err(stopped)?.map_err(stopped)?;
        Ok(Response::new(wire::CreateReplicaResponse {}))
    }

    async fn retire_replica(
        &self,
        request: Request<wire::RetireReplicaRequest>,
    ) -> Result<Response<wire::RetireReplicaResponse>, Status> {
        let peer = self.guard.check(&request)?;
        let target = request.into_inner().target;
        let target = target.ok_or_else(|| Status::invalid_argument("no target"))?;
        may(&self.registry, peer, target.group)?;
        let (group, replica) = (GroupId(target.group), ReplicaId(target.replica));
        let registry = Arc::clone(&self.registry);
        // Goes on when the caller is gone: half of a replica must not stay.
        let retired = tokio::spawn(async move { registry.retire(group, replica).await });
        retired.await.map_err(stopped)?.map_err(stopped)?;
        Ok(Response::new(wire::RetireReplicaResponse {}))
    }

    async fn reconcile(
        &self,
        request: Request<wire::ReconcileRequest>,
    ) -> Result<Response<wire::ReconcileResponse>, Status> {
        may(&self.registry, self.guard.check(&request)?, request.get_ref().group)?;
        let settled = self.registry.reconcile(request.into_inner()).await.map_err(stopped)?;
        Ok(Response::new(wire::ReconcileResponse { settled }))
    }

    async fn heads(
        &self,
        request: Request<wire::HeadsRequest>,
    ) -> Result<Response<wire::HeadsResponse>, Status> {
        let peer = self.guard.check(&request)?;
        let targets = request.into_inner().targets.into_iter();
        let groups = targets
            .filter_map(|target| {
                let group = find(&self.registry, peer, Some(target)).ok()?;
                let heads = group.applied.heads().iter().map(crate::roots::head_to_wire).collect();
                Some(wire::GroupHeads { target: Some(target), heads })
            })
            .collect();
        Ok(Response::new(wire::HeadsResponse { groups }))
    }

    async fn held(
        &self,
        request: Request<wire::HeldRequest>,
    ) -> Result<Response<wire::HeldResponse>, Status> {
        let group = self.target(&request, request.get_ref().target)?;
        let message = request.into_inner();
        let applied = group.applied.head().index;
        let mut lacking = group.backfill.missing.ranges();
        lacking.insert(applied + 1, message.through);
        let leaving = self.registry.links().is_leaving();
        let astray = group.standing() == Standing::Astray;
        Ok(Response::new(wire::HeldResponse { lacking: lacking.to_wire(), leaving, astray }))
    }

    async fn entries(
        &self,
        request: Request<wire::EntriesRequest>,
    ) -> Result<Response<wire::EntriesResponse>, Status> {
        let peer = self.guard.check(&request)?;
        let message = request.into_inner();
        may(&self.registry, peer, message.target.map_or(0, |target| target.group))?;
        let (log, applied) = self.registry.log_of(message.target)?;
        let answer = move || entries::answer(&*log, applied, &message);
        let answer = tokio::task::spawn_blocking(answer).await;
        answer.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<wire::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        may(&self.registry, self.guard.check(&request)?, request.get_ref().group)?;
        let message = request.into_inner();
        let group = self.registry.group(GroupId(message.group));
        let group =
            group.ok_or_else(|| Status::not_found(format!("no group {}", message.group)))?;
        if group.applied.head().index < message.at_least {
            return Err(Status::failed_precondition("this replica is behind"));
        }
        let chunks = snapshot::offer(&group).await?;
        Ok(Response::new(chunks.map(Ok).boxed()))
    }
}
