//! The network of a simulation, as openraft wants it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use futures::{Stream, StreamExt};
use openraft::RaftNetworkFactory;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use prost::Message;

use super::letter::Letter;
use super::{Post, chunks};
use crate::convert;
use crate::network::{answer_from_wire, append_request_to_wire};
use crate::snapshot::{Snapshot, SnapshotData};
use crate::type_config::{PeerNode, TypeConfig, Vote};

/// openraft would wait an hour for a snapshot; the product ends one that makes no progress.
const ANSWER_MOST: Duration = Duration::from_secs(10);

type RpcError = RPCError<TypeConfig>;

/// Of one replica.
pub(super) struct Net {
    pub(super) group: GroupId,
    pub(super) from: u64,
    pub(super) post: Arc<dyn Post>,
}

impl RaftNetworkFactory<TypeConfig> for Net {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _node: &PeerNode) -> Way {
        let (group, from) = (self.group, self.from);
        Way { group, from, to: target, post: Arc::clone(&self.post) }
    }
}

/// From one replica to another.
#[derive(Clone)]
pub(super) struct Way {
    group: GroupId,
    from: u64,
    to: u64,
    post: Arc<dyn Post>,
}

fn failed(cause: impl ToString) -> RpcError {
    RPCError::Network(NetworkError::from_string(cause))
}

impl Way {
    fn target(&self) -> wire::Target {
        wire::Target { group: self.group.0, replica: self.to }
    }

    async fn ask<T: Message + Default>(
        &self,
        letter: &Letter,
        option: &RPCOption,
    ) -> Result<T, RpcError> {
        let answer = self.post.carry(self.from, self.to, letter.seal());
        let answer = tokio::time::timeout(option.hard_ttl().min(ANSWER_MOST), answer).await;
        let answer: Option<Bytes> = answer.map_err(|_| failed("no answer in time"))?;
        let answer = answer.ok_or_else(|| failed("refused"))?;
        T::decode(answer).map_err(failed)
    }

    async fn append(
        self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        let letter = Letter::Append(append_request_to_wire(self.target(), request));
        let answer: wire::AppendResponse = self.ask(&letter, &option).await?;
        answer_from_wire(answer.result).map_err(failed)
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        option: &RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let letter = Letter::Vote(wire::VoteRequest {
            target: Some(self.target()),
            vote: Some(convert::vote_to_wire(&request.vote)),
            last: request.last_log_id.as_ref().map(convert::log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        });
        let answer: wire::VoteResponse = self.ask(&letter, option).await?;
        let vote = convert::vote_from_wire(answer.vote).map_err(failed)?;
        Ok(VoteResponse::new(vote, answer.last.map(convert::log_id_from_wire), answer.granted))
    }
}

impl NetStreamAppend<TypeConfig> for Way {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let way = self.clone();
        // In their order, as on one connection.
        let answers = input.then(move |request| way.clone().append(request, option.clone()));
        Box::pin(async move { Ok(answers.boxed()) })
    }
}

impl NetVote<TypeConfig> for Way {
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

impl NetTransferLeader<TypeConfig> for Way {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let letter = Letter::Transfer(wire::TransferLeaderRequest {
            target: Some(self.target()),
            from: Some(convert::vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(convert::log_id_to_wire),
        });
        let answer: wire::TransferLeaderResponse = self.ask(&letter, &option).await?;
        let actual = answer.actual.map(convert::log_id_from_wire);
        Ok(match answer.actual_vote {
            Some(vote) => Err(TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: convert::vote_from_wire(Some(vote)).map_err(failed)?,
            }),
            None if answer.not_flushed => Err(TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual,
            }),
            None => Ok(()),
        })
    }
}

impl NetSnapshot<TypeConfig> for Way {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let letter = chunks::of_snapshot(self.target(), &vote, snapshot);
        let letter = letter.map_err(NetworkError::from_string)?;
        tokio::select! {
            biased;
            answer = self.ask::<wire::SnapshotResponse>(&letter, &option) => {
                let vote = convert::vote_from_wire(answer?.vote);
                let vote = vote.map_err(|error| NetworkError::new(&error))?;
                Ok(SnapshotResponse::new(vote))
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl NetBackoff<TypeConfig> for Way {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
