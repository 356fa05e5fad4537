//! What a node answers to its peers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dtm_peers::PeerStream;
use dtm_peers::{OriginGuard, Peer};
use dtm_proto::cluster as wire;
use dtm_proto::cluster::peer_service_server::{PeerService, PeerServiceServer};
use dtm_types::{GroupId, ReplicaId};
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, VoteRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::appends::{append_answers, heartbeats};
use super::entries;
use super::hello;
use super::link;
use super::snapshot;
use crate::clocks::Standing;
use crate::compare;
use crate::convert;
use crate::elsewhere;
use crate::forward;
use crate::group::Group;
use crate::raft::GroupRaft;
use crate::registry::Registry;
use crate::standby;

const STREAMS_MAX: u32 = 1024;
pub(super) const ANSWERS_MAX: usize = 64;
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `dtm.cluster.v1.PeerService`.
struct PeerServer {
    registry: Arc<Registry>,
    guard: Arc<OriginGuard>,
}

/// Who asks a connection for signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignsOfLife {
    /// The server.
    Asked,
    /// The line that it is a lane of: its rate is bounded, so answers are late.
    OfTheLine,
}

/// Answers on what was accepted, until nothing more is.
pub(crate) fn serve(
    registry: Arc<Registry>,
    guard: Arc<OriginGuard>,
    incoming: mpsc::Receiver<io::Result<PeerStream>>,
    signs: SignsOfLife,
) -> impl Future<Output = Result<(), tonic::transport::Error>> {
    let service = PeerServiceServer::new(PeerServer { registry, guard })
        .max_decoding_message_size(link::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(link::MESSAGE_BYTES_MAX);
    let asked = signs == SignsOfLife::Asked;
    tonic::transport::Server::builder()
        .initial_stream_window_size(link::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(link::CONNECTION_WINDOW_BYTES)
        .max_frame_size(link::FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(asked.then_some(link::KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(link::KEEP_ALIVE_TIMEOUT))
        .serve_with_incoming(service, ReceiverStream::new(incoming))
}

pub(super) type Answers<T> = BoxStream<'static, Result<T, Status>>;

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

pub(super) fn find(
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

pub(super) fn invalid(error: convert::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// A vote, or what would be voted, of one replica.
pub(crate) async fn answer_vote(
    raft: &GroupRaft,
    message: wire::VoteRequest,
) -> Result<wire::VoteResponse, Status> {
    let vote = convert::vote_from_wire(message.vote).map_err(invalid)?;
    let mut ask = VoteRequest::new(vote, message.last.map(convert::log_id_from_wire));
    ask.leadership_transfer = message.leadership_transfer;
    let answer = if message.pre_vote { raft.pre_vote(ask).await } else { raft.vote(ask).await };
    let answer = answer.map_err(stopped)?;
    Ok(wire::VoteResponse {
        vote: Some(convert::vote_to_wire(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(convert::log_id_to_wire),
    })
}

/// Whether one replica takes leadership over.
pub(crate) async fn answer_transfer(
    raft: &GroupRaft,
    message: wire::TransferLeaderRequest,
) -> Result<wire::TransferLeaderResponse, Status> {
    let from = convert::vote_from_wire(message.from).map_err(invalid)?;
    let last = message.last.map(convert::log_id_from_wire);
    let ask = TransferLeaderRequest::new(from, message.to, last);
    let mut response = wire::TransferLeaderResponse::default();
    match raft.handle_transfer_leader(ask).await.map_err(stopped)? {
        Ok(()) => {}
        Err(TransferLeaderError::VoteChanged { actual, .. }) => {
            response.actual_vote = Some(convert::vote_to_wire(&actual));
        }
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            response.not_flushed = true;
            response.actual = actual.as_ref().map(convert::log_id_to_wire);
        }
    }
    Ok(response)
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
        answer_vote(&group.raft, request.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let group = self.target(&request, request.get_ref().target)?;
        answer_transfer(&group.raft, request.into_inner()).await.map(Response::new)
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
        let wire::HeadsRequest { targets, newest_only } = request.into_inner();
        let groups = targets
            .into_iter()
            .filter_map(|target| {
                let group = find(&self.registry, peer, Some(target)).ok()?;
                let heads =
                    if newest_only { vec![group.applied.head()] } else { group.applied.heads() };
                let heads = heads.iter().map(crate::roots::head_to_wire).collect();
                let cause = String::new();
                Some(wire::GroupHeads { target: Some(target), heads, cause })
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

    async fn stand(
        &self,
        request: Request<wire::StandRequest>,
    ) -> Result<Response<wire::StandResponse>, Status> {
        self.guard.check(&request)?.listed()?;
        let (promotion, asked) = (Arc::clone(self.registry.promotion()?), request.into_inner());
        // Goes on when the caller is gone: a log is not left half-way behind its rows.
        let stood = tokio::spawn(async move { promotion.stand(&asked).await });
        stood.await.map_err(stopped)?.map(Response::new)
    }

    async fn level(
        &self,
        request: Request<wire::LevelRequest>,
    ) -> Result<Response<wire::LevelResponse>, Status> {
        self.guard.check(&request)?.listed()?;
        let (promotion, asked) = (Arc::clone(self.registry.promotion()?), request.into_inner());
        // Goes on when the caller is gone: what was begun is whole when it is asked for again.
        let levelled = tokio::spawn(async move { promotion.level(asked).await });
        levelled.await.map_err(stopped)?.map(Response::new)
    }

    async fn plan_of(
        &self,
        request: Request<wire::PlanOfRequest>,
    ) -> Result<Response<wire::PlanOfResponse>, Status> {
        self.guard.check_of_any_life(&request)?;
        let plan = self.registry.plan_of(request.get_ref().incarnation);
        Ok(Response::new(wire::PlanOfResponse { plan }))
    }

    async fn positions(
        &self,
        request: Request<wire::PositionsRequest>,
    ) -> Result<Response<wire::PositionsResponse>, Status> {
        let caller = self.guard.check_of_any_life(&request)?;
        let (registry, asked) = (Arc::clone(&self.registry), request.into_inner());
        let read = tokio::task::spawn_blocking(move || registry.positions(caller, &asked)).await;
        read.map_err(stopped)?.map(Response::new)
    }

    async fn site_through(
        &self,
        request: Request<wire::SiteThroughRequest>,
    ) -> Result<Response<wire::SiteThroughResponse>, Status> {
        self.guard.check(&request)?;
        Ok(Response::new(standby::answer(&self.registry, request.get_ref()).await))
    }

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let from = self.guard.check_of_any_life(&request)?;
        let none = || Status::unavailable("no acceptor on this node");
        let acceptor = self.registry.deps().acceptor.clone().ok_or_else(none)?;
        let question = request.into_inner().question;
        let answered = tokio::task::spawn_blocking(move || acceptor.answer(from, &question)).await;
        let answer = answered.map_err(stopped)?.map_err(stopped)?;
        Ok(Response::new(wire::RegisterResponse { answer: answer.into() }))
    }

    async fn compare_rows(
        &self,
        request: Request<wire::CompareRowsRequest>,
    ) -> Result<Response<wire::CompareRowsResponse>, Status> {
        let peer = self.guard.check(&request)?;
        let caller = peer.node();
        let group = find(&self.registry, peer, request.get_ref().target)?;
        let asked = request.into_inner();
        compare::answer(&self.registry, group, caller, asked).await.map(Response::new)
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
