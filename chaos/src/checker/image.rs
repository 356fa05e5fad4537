//! What one node holds of one group, read through its own read view: the input of the checkers.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_machine::keys::table;
use dtm_machine::seams::{GroupView, RecordError, StateError};
use dtm_types::command::command::Op;
use dtm_types::command::{AppendBatch, Bundle, Command};
use dtm_types::format::{GroupHead, Place};
use dtm_types::{GroupId, bundle};
use prost::Message;

use super::streams::Digest;

/// Rows below are the cluster crate's own and may differ between replicas.
const ROWS_FROM: &[u8] = &[0x01];
const ROWS_TO: &[u8] = &[0xff; 64];
const ROWS_A_STEP: usize = 1_024;
const HASH_BYTES: usize = 32;

/// All rows and bundles of one group on one node, at one applied index.
#[derive(Clone, Debug)]
pub struct Image {
    /// The node.
    pub node: String,
    /// The group.
    pub group: GroupId,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Whether everything committed before the reading is in it.
    pub is_current: bool,
    /// Bundles that the node serves, by log index.
    pub bundles: BTreeMap<u64, Bytes>,
    /// The machine's rows.
    pub rows: BTreeMap<Bytes, Bytes>,
    /// Bundles that the node would not serve, and why.
    pub refused: BTreeMap<u64, String>,
}

/// A record as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The source.
    pub source: String,
    /// Its stream.
    pub stream: String,
    /// From 1.
    pub sequence: u64,
    /// The first half of the record's hash.
    pub digest: Digest,
}

/// A batch as it lies in its bundle, with the row that points to it.
#[derive(Clone, Debug)]
pub struct PlacedBatch {
    /// The row.
    pub place: Place,
    /// The command, where the bundle is there and holds one at this place.
    pub command: Option<(Command, AppendBatch)>,
}

impl Image {
    /// Reads everything. Blocking.
    ///
    /// # Errors
    /// What the node's rows answer.
    pub fn read(node: &str, view: &GroupView) -> Result<Self, StateError> {
        let mut rows = BTreeMap::new();
        let mut from = ROWS_FROM.to_vec();
        loop {
            let step = view.state.scan(&from, ROWS_TO, ROWS_A_STEP)?;
            let Some((last, _)) = step.last() else {
                break;
            };
            from = [last, &[0][..]].concat();
            rows.extend(step);
        }
        let mut image = Self::of_rows(node, view.group, rows);
        image.is_current = view.current;
        for index in 1..=image.applied {
            match view.records.bundle(index) {
                Ok(bytes) => {
                    image.bundles.insert(index, bytes);
                }
                Err(RecordError::NotHeld(_)) => {}
                Err(error) => {
                    image.refused.insert(index, error.to_string());
                }
            }
        }
        Ok(image)
    }

    /// An image of rows alone.
    pub fn of_rows(node: &str, group: GroupId, rows: BTreeMap<Bytes, Bytes>) -> Self {
        let mut image = Self {
            node: node.to_owned(),
            group,
            applied: 0,
            is_current: false,
            bundles: BTreeMap::new(),
            rows,
            refused: BTreeMap::new(),
        };
        image.applied = image.head().applied_index;
        image
    }

    /// How far the machine is; blank where the row is missing or not readable.
    pub fn head(&self) -> GroupHead {
        let row = self.rows.get(&[table::HEAD][..]);
        row.and_then(|row| GroupHead::decode(row.clone()).ok()).unwrap_or_default()
    }

    /// Rows of one table, keys without the table's byte.
    pub fn table(&self, table: u8) -> impl Iterator<Item = (&[u8], &Bytes)> {
        let rows = self.rows.range(Bytes::copy_from_slice(&[table])..);
        rows.take_while(move |(key, _)| key[0] == table).map(|(key, value)| (&key[1..], value))
    }

    /// The bundle at an index, decoded.
    pub fn bundle(&self, index: u64) -> Option<Bundle> {
        bundle::decode(self.bundles.get(&index)?).ok()
    }

    /// Batches in commit order.
    pub fn batches(&self) -> Vec<PlacedBatch> {
        let mut last: Option<(u64, Bundle)> = None;
        let places = self.table(table::PLACE).map(|(_, row)| Place::decode(row.clone()));
        let mut batches = Vec::new();
        for place in places.filter_map(Result::ok) {
            if last.as_ref().is_none_or(|(index, _)| *index != place.index) {
                last = self.bundle(place.index).map(|bundle| (place.index, bundle));
            }
            let command = last
                .as_ref()
                .filter(|(index, _)| *index == place.index)
                .and_then(|(_, bundle)| bundle.commands.get(place.ordinal as usize))
                .and_then(|command| match &command.op {
                    Some(Op::AppendBatch(append)) => Some((command.clone(), append.clone())),
                    _ => None,
                });
            batches.push(PlacedBatch { place, command });
        }
        batches
    }

    /// Records that a reader would get, in commit order: neither refused nor found doubled.
    pub fn records(&self) -> Vec<Stored> {
        let mut records = Vec::new();
        for PlacedBatch { place, command } in self.batches() {
            let Some(body) = command.and_then(|(_, append)| append.body) else {
                continue;
            };
            let hashes = body.record_hashes.chunks_exact(HASH_BYTES);
            for (at, (sequence, hash)) in (place.first_sequence..).zip(hashes).enumerate() {
                if bit(&place.refusal_bitmap, at) || bit(&place.duplicate_bitmap, at) {
                    continue;
                }
                let mut digest = Digest::default();
                digest.copy_from_slice(&hash[..16]);
                let (source, stream) = (place.source.clone(), place.stream.clone());
                records.push(Stored { source, stream, sequence, digest });
            }
        }
        records
    }
}

fn bit(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
