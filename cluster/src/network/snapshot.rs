//! A snapshot over the wire: see `crate::snapshot` for the order of things.

use std::sync::Arc;

use bytes::Bytes;
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use futures::StreamExt;
use openraft::errors::{NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::client::to_rpc_error;
use super::link::Link;
use crate::convert;
use crate::group::Group;
use crate::log_store::{LogEntry, LogError, READ_BYTES_MAX};
use crate::snapshot::{
    ROWS_FROM, ROWS_TO, RowsDigest, Snapshot, SnapshotData, SnapshotView, Staged, StagedState,
    StateProvider,
};
use crate::type_config::{SnapshotMeta, TypeConfig, Vote};

const ROWS_A_CHUNK: usize = 512;
const CHUNKS_MAX: usize = 4;

type SendError = StreamingError<TypeConfig>;

fn network(cause: impl ToString) -> SendError {
    StreamingError::Network(NetworkError::from_string(cause))
}

/// Streams a snapshot to a replica and waits until it is installed there.
pub(super) async fn send(
    link: &Arc<Link>,
    target: wire::Target,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, SendError> {
    let meta = snapshot.meta;
    let view = snapshot.snapshot.into_view().ok_or_else(|| network("snapshot has no view"))?;
    let request = link.guard().stamp(wire::HeldRequest { target: Some(target) });
    let held = link.control().held(request).await.map_err(to_rpc_error)?.into_inner().through;
    let manifest = wire::Manifest {
        target: Some(target),
        vote: Some(convert::vote_to_wire(&vote)),
        last: meta.last_log_id.as_ref().map(convert::log_id_to_wire),
        membership: Some(convert::stored_membership_to_wire(&meta.last_membership)),
        ledger_size: view.ledger.0,
        ledger_root: Bytes::copy_from_slice(&view.ledger.1),
    };
    let last = meta.last_log_id.map_or(0, |last| last.index);
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let reader = tokio::task::spawn_blocking(move || produce(view, manifest, held, last, &chunks));
    let request = link.guard().stamp(ReceiverStream::new(receiver));
    let answered = link.data().snapshot(request).await;
    if let Ok(Err(error)) = reader.await {
        return Err(network(error));
    }
    let answer = answered.map_err(to_rpc_error)?.into_inner();
    Ok(SnapshotResponse::new(convert::vote_from_wire(answer.vote).map_err(network)?))
}

#[derive(Debug, thiserror::Error)]
enum ProduceError {
    #[error(transparent)]
    State(#[from] dtm_machine::seams::StateError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the receiver went away")]
    Gone,
}

fn produce(
    view: SnapshotView,
    manifest: wire::Manifest,
    held: u64,
    last: u64,
    chunks: &mpsc::Sender<wire::SnapshotChunk>,
) -> Result<(), ProduceError> {
    use wire::snapshot_chunk::Part;
    let send = |part: Part| {
        let chunk = wire::SnapshotChunk { part: Some(part) };
        chunks.blocking_send(chunk).map_err(|_| ProduceError::Gone)
    };
    send(Part::Manifest(manifest))?;
    let mut digest = RowsDigest::default();
    let mut from = ROWS_FROM.to_vec();
    loop {
        let rows = view.state.scan(&from, ROWS_TO, ROWS_A_CHUNK)?;
        let Some((last_key, _)) = rows.last() else {
            break;
        };
        from = last_key.to_vec();
        from.push(0);
        rows.iter().for_each(|(key, value)| digest.add(key, value));
        let rows = rows.into_iter().map(|(key, value)| wire::Row { key, value }).collect();
        send(Part::Rows(wire::Rows { rows }))?;
    }
    let (rows, rows_digest) = digest.finish();
    let rows_digest = Bytes::copy_from_slice(&rows_digest);
    send(Part::End(wire::SnapshotEnd { rows, rows_digest }))?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    for index in held + 1..=last {
        let entry = match view.log.read_record(index) {
            Ok(entry) => entry,
            // Retired by retention, or never a record of ours: the rows do not refer to it.
            Err(LogError::NotFound(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        bytes += entry.payload.len();
        entries.push(entry_to_wire(entry));
        if bytes >= READ_BYTES_MAX / 2 {
            send(Part::Bundles(wire::Bundles { entries: std::mem::take(&mut entries) }))?;
            bytes = 0;
        }
    }
    if !entries.is_empty() {
        send(Part::Bundles(wire::Bundles { entries }))?;
    }
    Ok(())
}

fn entry_to_wire(entry: LogEntry) -> wire::Entry {
    let log_id = convert::log_id(entry.term, entry.leader, entry.index);
    wire::Entry { log_id: Some(convert::log_id_to_wire(&log_id)), payload: entry.payload }
}

fn entry_from_wire(entry: wire::Entry) -> Result<LogEntry, Status> {
    let log_id = entry.log_id.ok_or_else(|| Status::invalid_argument("entry without log id"))?;
    let wire::LogId { term, leader, index } = log_id;
    Ok(LogEntry { index, term, leader, payload: entry.payload })
}

/// Receives a snapshot, stages it, stores its bundles, hands it to openraft.
pub(super) async fn receive(
    group: &Group,
    states: &Arc<dyn StateProvider>,
    manifest: wire::Manifest,
    chunks: tonic::Streaming<wire::SnapshotChunk>,
) -> Result<wire::SnapshotResponse, Status> {
    let invalid = |error: convert::Error| Status::invalid_argument(error.to_string());
    let vote = convert::vote_from_wire(manifest.vote).map_err(invalid)?;
    let last_membership =
        convert::stored_membership_from_wire(manifest.membership).map_err(invalid)?;
    let meta =
        SnapshotMeta { last_log_id: manifest.last.map(convert::log_id_from_wire), last_membership };
    let stage = states.stage(group.id).map_err(|e| Status::internal(e.to_string()))?;
    let (stage, chunks) = receive_rows(group.id, stage, chunks).await?;
    let staged = Staged { stage, bundles: chunks.map(bundles_of).boxed() };
    let snapshot = Snapshot { meta, snapshot: SnapshotData::staged(staged) };
    let installed = group.raft.install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(wire::SnapshotResponse { vote: Some(convert::vote_to_wire(&response.vote)) })
}

fn bundles_of(chunk: Result<wire::SnapshotChunk, Status>) -> Result<Vec<LogEntry>, Status> {
    match chunk?.part {
        Some(wire::snapshot_chunk::Part::Bundles(bundles)) => {
            bundles.entries.into_iter().map(entry_from_wire).collect()
        }
        _ => Err(Status::invalid_argument("bundles are expected after the end of the rows")),
    }
}

type Chunks = tonic::Streaming<wire::SnapshotChunk>;

async fn receive_rows(
    group: GroupId,
    mut stage: Box<dyn StagedState>,
    mut chunks: Chunks,
) -> Result<(Box<dyn StagedState>, Chunks), Status> {
    use wire::snapshot_chunk::Part;
    let mut digest = RowsDigest::default();
    while let Some(chunk) = chunks.next().await {
        match chunk?.part {
            Some(Part::Rows(rows)) => {
                let rows: Vec<_> = rows.rows.into_iter().map(|row| (row.key, row.value)).collect();
                rows.iter().for_each(|(key, value)| digest.add(key, value));
                stage.put(rows).map_err(|e| Status::internal(e.to_string()))?;
            }
            Some(Part::End(end)) => {
                let (rows, found) = digest.finish();
                if rows != end.rows || found[..] != end.rows_digest[..] {
                    let cause = format!("snapshot of group {group} does not match its digest");
                    return Err(Status::data_loss(cause));
                }
                return Ok((stage, chunks));
            }
            Some(Part::Bundles(_) | Part::Manifest(_)) | None => {
                return Err(Status::invalid_argument("unexpected part"));
            }
        }
    }
    Err(Status::aborted("the snapshot ended early"))
}
