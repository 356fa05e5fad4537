//! Log entries and heartbeats of leaders: what their streams are answered.

use std::sync::Arc;
use std::time::Duration;

use dtm_peers::Peer;
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::server::{ANSWERS_MAX, Answers, find, invalid, stopped};
use crate::convert;
use crate::log_store::ReplicaLog;
use crate::registry::Registry;
use crate::type_config::TypeConfig;

/// The asker has given up long before: what it asked is not kept longer than this.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers to the log entries of one leader's stream, in their order.
pub(super) async fn append_answers(
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
            has_room(id, log, append_request_from_wire(request).inspect_err(unread).ok()?).await
        }
    });
    let input = read.take_while(|request| futures::future::ready(request.is_some()));
    let input = input.filter_map(futures::future::ready).boxed();
    let answers = group.raft.stream_append(input);
    answers.map(|answer| answer.map(answer_to_wire).map_err(stopped)).boxed()
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

pub(crate) fn append_request_from_wire(
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

pub(crate) fn answer_to_wire(result: StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
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

/// Answers the heartbeats of a node, each as it is ready.
pub(super) async fn heartbeats(
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
