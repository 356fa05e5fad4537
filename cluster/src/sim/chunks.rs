//! A snapshot in one letter: the same parts as over the product's network.

use bytes::Bytes;
use dtm_proto::cluster as wire;
use wire::snapshot_chunk::Part;

use super::letter::Letter;
use crate::convert;
use crate::log_store::LogEntry;
use crate::network::{entry_from_wire, entry_to_wire};
use crate::snapshot::{ROWS_FROM, ROWS_TO, Snapshot, SnapshotData, StagedState};
use crate::type_config::{SnapshotMeta, Vote};

/// Everything: rows, and the bundles that are held.
pub(super) fn of_snapshot(
    target: wire::Target,
    vote: &Vote,
    snapshot: Snapshot,
) -> Result<Letter, String> {
    let view = snapshot.snapshot.into_view().ok_or("a snapshot without a view")?;
    let meta = snapshot.meta;
    let manifest = wire::Manifest {
        target: Some(target),
        vote: Some(convert::vote_to_wire(vote)),
        last: meta.last_log_id.as_ref().map(convert::log_id_to_wire),
        membership: Some(convert::stored_membership_to_wire(&meta.last_membership)),
        ledger_size: view.ledger.0,
        ledger_root: Bytes::copy_from_slice(&view.ledger.1),
    };
    let rows = view.state.scan(ROWS_FROM, ROWS_TO, usize::MAX).map_err(|e| e.to_string())?;
    let rows = rows.into_iter().map(|(key, value)| wire::Row { key, value }).collect();
    let last = meta.last_log_id.map_or(0, |last| last.index);
    let held = (1..=last).filter_map(|index| view.log.read_record(index).ok());
    let entries = held.map(entry_to_wire).collect();
    let parts = [
        Part::Manifest(manifest),
        Part::Rows(wire::Rows { rows }),
        Part::Bundles(wire::Bundles { entries }),
    ];
    let chunks = parts.into_iter().map(|part| wire::SnapshotChunk { part: Some(part) });
    Ok(Letter::Snapshot(chunks.collect()))
}

/// A snapshot as it arrived.
pub(super) struct Arrived {
    pub(super) vote: Vote,
    pub(super) snapshot: Snapshot,
    pub(super) bundles: Vec<LogEntry>,
}

pub(super) fn arrived(
    chunks: Vec<wire::SnapshotChunk>,
    mut stage: Box<dyn StagedState>,
) -> Option<Arrived> {
    let mut parts = chunks.into_iter().filter_map(|chunk| chunk.part);
    let (Part::Manifest(manifest), Part::Rows(rows), Part::Bundles(bundles)) =
        (parts.next()?, parts.next()?, parts.next()?)
    else {
        return None;
    };
    let last_membership = convert::stored_membership_from_wire(manifest.membership).ok()?;
    let last_log_id = manifest.last.map(convert::log_id_from_wire);
    stage.put(rows.rows.into_iter().map(|row| (row.key, row.value)).collect()).ok()?;
    let meta = SnapshotMeta { last_log_id, last_membership };
    let bundles = bundles.entries.into_iter().map(entry_from_wire);
    Some(Arrived {
        vote: convert::vote_from_wire(manifest.vote).ok()?,
        snapshot: Snapshot { meta, snapshot: SnapshotData::staged(stage) },
        bundles: bundles.collect::<Result<_, _>>().ok()?,
    })
}
