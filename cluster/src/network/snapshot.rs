//! A snapshot over the wire: see `crate::snapshot` for the order of things.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use futures::StreamExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::client::to_rpc_error;
use super::entries::{entry_from_wire, entry_to_wire};
use super::link::Link;
use crate::backfill::payload_bytes;
use crate::convert;
use crate::group::Group;
use crate::log_store::{LogEntry, LogError, READ_BYTES_MAX};
use crate::ranges::Ranges;
use crate::snapshot::{
    ROWS_FROM, ROWS_TO, RowsDigest, Snapshot, SnapshotData, SnapshotView, StagedState,
    StateProvider, is_needless,
};
use crate::type_config::{SnapshotMeta, TypeConfig, Vote};

const ROWS_A_CHUNK: usize = 512;
/// Rows of one part, unless a single one is larger: a data set's definition alone may take 1 MiB, and
/// a part has to fit a message between nodes.
const ROWS_BYTES_A_CHUNK: usize = 1 << 20;
/// Bundles of one part, unless a single one is larger.
const BUNDLES_BYTES_A_CHUNK: usize = READ_BYTES_MAX / 2;
const CHUNKS_MAX: usize = 4;
/// The other side gives the next part within this time, or it has given up.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

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
    let through = meta.last_log_id.map_or(0, |last| last.index);
    let request = link.guard().stamp(wire::HeldRequest { target: Some(target), through });
    let held = link.control().held(request).await.map_err(to_rpc_error)?.into_inner();
    let asked = Ranges::from_wire(&held.lacking);
    let manifest = manifest(Some(target), Some(&vote), &meta, &view);
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    // Nothing above the snapshot is in it, whatever the receiver names.
    let asked = asked.through(through);
    let reader = tokio::task::spawn_blocking(move || produce(&view, manifest, &asked, &chunks));
    let request = link.guard().stamp(ReceiverStream::new(receiver));
    let answered = link.copies(target.group).snapshot(request).await;
    if let Ok(Err(error)) = reader.await {
        return Err(network(error));
    }
    let answer = answered.map_err(to_rpc_error)?.into_inner();
    Ok(SnapshotResponse::new(convert::vote_from_wire(answer.vote).map_err(network)?))
}

/// A snapshot for a replica that asked for it: the rows; the bundles it fetches by itself.
pub(super) async fn offer(group: &Group) -> Result<ReceiverStream<wire::SnapshotChunk>, Status> {
    let taken = group.raft.get_snapshot().await;
    let taken = taken.map_err(|error| Status::unavailable(error.to_string()))?;
    let taken = taken.ok_or_else(|| Status::failed_precondition("nothing was applied yet"))?;
    let view = taken.snapshot.into_view();
    let view = view.ok_or_else(|| Status::internal("snapshot has no view"))?;
    let manifest = manifest(None, None, &taken.meta, &view);
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let id = group.id.0;
    tokio::task::spawn_blocking(move || {
        if let Err(error) = produce(&view, manifest, &Ranges::default(), &chunks) {
            tracing::warn!(group = id, %error, "snapshot was not sent to its end");
        }
    });
    Ok(ReceiverStream::new(receiver))
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
    view: &SnapshotView,
    manifest: wire::Manifest,
    asked: &Ranges,
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
        let rows = view.state.scan_within(&from, ROWS_TO, ROWS_A_CHUNK, ROWS_BYTES_A_CHUNK)?;
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
    produce_bundles(view, asked, send)
}

/// What was asked for, and at the end what of it is not held here either.
fn produce_bundles(
    view: &SnapshotView,
    asked: &Ranges,
    send: impl Fn(wire::snapshot_chunk::Part) -> Result<(), ProduceError>,
) -> Result<(), ProduceError> {
    use wire::snapshot_chunk::Part;
    let (mut entries, mut bytes, mut count) = (Vec::new(), 0, 0);
    let mut lacking = Ranges::default();
    for index in asked.iter().flat_map(|range| range.from..=range.to) {
        let entry = match view.log.read_record(index) {
            Ok(entry) => entry,
            Err(LogError::NotFound(_) | LogError::Damaged(_)) => {
                lacking.insert(index, index);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Before it, not behind it: the largest bundle fits a message only alone.
        if bytes > 0 && bytes + entry.payload.len() > BUNDLES_BYTES_A_CHUNK {
            send(Part::Bundles(wire::Bundles { entries: std::mem::take(&mut entries) }))?;
            bytes = 0;
        }
        bytes += entry.payload.len();
        count += 1;
        entries.push(entry_to_wire(entry));
    }
    if !entries.is_empty() {
        send(Part::Bundles(wire::Bundles { entries }))?;
    }
    send(Part::BundlesEnd(wire::BundlesEnd { count, lacking: lacking.to_wire() }))
}

fn manifest(
    target: Option<wire::Target>,
    vote: Option<&Vote>,
    meta: &SnapshotMeta,
    view: &SnapshotView,
) -> wire::Manifest {
    wire::Manifest {
        target,
        vote: vote.map(convert::vote_to_wire),
        last: meta.last_log_id.as_ref().map(convert::log_id_to_wire),
        membership: Some(convert::stored_membership_to_wire(&meta.last_membership)),
        ledger_size: view.ledger.0,
        ledger_root: Bytes::copy_from_slice(&view.ledger.1),
    }
}

/// Receives a snapshot: stages the rows, hands them to openraft, stores the bundles.
pub(super) async fn receive(
    group: &Group,
    states: &Arc<dyn StateProvider>,
    manifest: wire::Manifest,
    chunks: Chunks,
) -> Result<wire::SnapshotResponse, Status> {
    let vote = convert::vote_from_wire(manifest.vote).map_err(invalid)?;
    let last = manifest.last.map_or(0, |last| last.index);
    let stage = states.stage(group.id).map_err(|e| Status::internal(e.to_string()))?;
    let (stage, chunks) = receive_rows(group.id, stage, chunks).await?;
    let in_force = group.raft.server_metrics().borrow_watched().vote;
    let meta = meta_of(&manifest)?;
    if is_needless(&*group.log, &in_force, &vote, meta.last_log_id.as_ref()).await {
        metrics::counter!("dtm_cluster_snapshots_needless_total").increment(1);
        return Ok(wire::SnapshotResponse { vote: Some(convert::vote_to_wire(&vote)) });
    }
    let snapshot = Snapshot { meta, snapshot: SnapshotData::staged(stage) };
    let installed = group.raft.install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|error| Status::unavailable(error.to_string()))?;
    // A higher vote is in force here: nothing was installed.
    if group.applied.head().index >= last {
        receive_bundles(group, chunks).await?;
    }
    Ok(wire::SnapshotResponse { vote: Some(convert::vote_to_wire(&response.vote)) })
}

fn invalid(error: convert::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn meta_of(manifest: &wire::Manifest) -> Result<SnapshotMeta, Status> {
    let membership = manifest.membership.clone();
    let last_membership = convert::stored_membership_from_wire(membership).map_err(invalid)?;
    Ok(SnapshotMeta { last_log_id: manifest.last.map(convert::log_id_from_wire), last_membership })
}

/// Stores what comes until the last part. Cut before that it is an error: the note of missing
/// bundles names the rest.
async fn receive_bundles(group: &Group, mut chunks: Chunks) -> Result<(), Status> {
    use wire::snapshot_chunk::Part;
    let mut count = 0;
    let cause = loop {
        match next_chunk(&mut chunks).await {
            Some(Ok(wire::SnapshotChunk { part: Some(Part::Bundles(bundles)) })) => {
                let entries: Vec<LogEntry> =
                    bundles.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?;
                count += entries.len() as u64;
                group.backfill.links.copies().take(payload_bytes(&entries)).await;
                let kept = group.backfill.keep(entries).await;
                kept.map_err(|error| Status::unavailable(error.to_string()))?;
            }
            Some(Ok(wire::SnapshotChunk { part: Some(Part::BundlesEnd(end)) })) => {
                let lacking = Ranges::from_wire(&end.lacking).count();
                if end.count == count {
                    tracing::info!(group = group.id.0, count, lacking, "bundles of a snapshot");
                    return Ok(());
                }
                break format!("{count} bundles came, {} were sent", end.count);
            }
            Some(Ok(_)) => break "bundles are expected after the end of the rows".to_owned(),
            Some(Err(status)) => break status.message().to_owned(),
            None => break "no end".to_owned(),
        }
    };
    metrics::counter!("dtm_cluster_snapshots_cut_total").increment(1);
    let missing = group.backfill.missing.count();
    tracing::warn!(group = group.id.0, missing, cause, "bundles of a snapshot were cut off");
    Err(Status::aborted(format!("snapshot of group {} was cut off: {cause}", group.id)))
}

/// The rows of a snapshot that was asked for, staged.
pub(crate) async fn fetched(
    group: GroupId,
    stage: Box<dyn StagedState>,
    mut chunks: Chunks,
) -> Result<(SnapshotMeta, Box<dyn StagedState>), Status> {
    let first = next_chunk(&mut chunks).await.transpose()?.and_then(|chunk| chunk.part);
    let Some(wire::snapshot_chunk::Part::Manifest(manifest)) = first else {
        return Err(Status::invalid_argument("a snapshot begins with its manifest"));
    };
    let (stage, _) = receive_rows(group, stage, chunks).await?;
    Ok((meta_of(&manifest)?, stage))
}

type Chunks = tonic::Streaming<wire::SnapshotChunk>;

/// The next part; an error when the other side makes no progress.
async fn next_chunk(chunks: &mut Chunks) -> Option<Result<wire::SnapshotChunk, Status>> {
    let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.next()).await;
    next.unwrap_or_else(|_| Some(Err(Status::deadline_exceeded("no progress"))))
}

async fn receive_rows(
    group: GroupId,
    mut stage: Box<dyn StagedState>,
    mut chunks: Chunks,
) -> Result<(Box<dyn StagedState>, Chunks), Status> {
    use wire::snapshot_chunk::Part;
    let mut digest = RowsDigest::default();
    while let Some(chunk) = next_chunk(&mut chunks).await {
        match chunk?.part {
            Some(Part::Rows(rows)) => {
                let rows: Vec<_> = rows.rows.into_iter().map(|row| (row.key, row.value)).collect();
                rows.iter().for_each(|(key, value)| digest.add(key, value));
                let put =
                    tokio::task::spawn_blocking(move || stage.put(rows).map(|()| stage)).await;
                let put = put.map_err(|error| Status::internal(error.to_string()))?;
                stage = put.map_err(|error| Status::internal(error.to_string()))?;
            }
            Some(Part::End(end)) => {
                let (rows, found) = digest.finish();
                if rows != end.rows || found[..] != end.rows_digest[..] {
                    let cause = format!("snapshot of group {group} does not match its digest");
                    return Err(Status::data_loss(cause));
                }
                return Ok((stage, chunks));
            }
            Some(Part::Bundles(_) | Part::BundlesEnd(_) | Part::Manifest(_)) | None => {
                return Err(Status::invalid_argument("unexpected part"));
            }
        }
    }
    Err(Status::aborted("the snapshot ended early"))
}
