//! What apply keeps at hand: a mirror of rows, never a truth of its own.

use std::collections::HashMap;

use dtm_ledger::Frontier;
use dtm_types::format::{Cursor, GroupHead};
use dtm_types::{GroupId, KeyId, StreamKey};

use crate::keys::{self, SLOT_SEQUENCES};
use crate::machine::ApplyError;
use crate::overlay::{Overlay, decode_row, malformed};
use crate::seams::StateRead;

/// Streams held at hand; beyond it the mirror starts afresh from rows.
const STREAMS_MAX: usize = 50_000;
/// Bytes of one resend tag.
pub(crate) const TAG_BYTES: usize = 16;

/// Resend tags of 32 consecutive sequences.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// First sequence of the slot.
    pub(crate) base: u64,
    pub(crate) tags: [u8; SLOT_SEQUENCES as usize * TAG_BYTES],
}

impl Slot {
    pub(crate) fn empty(base: u64) -> Self {
        Self { base, tags: [0; SLOT_SEQUENCES as usize * TAG_BYTES] }
    }

    pub(crate) fn base_of(sequence: u64) -> u64 {
        sequence / SLOT_SEQUENCES * SLOT_SEQUENCES
    }

    pub(crate) fn tag(&self, sequence: u64) -> &[u8] {
        let at = (sequence - self.base) as usize * TAG_BYTES;
        &self.tags[at..at + TAG_BYTES]
    }

    pub(crate) fn set(&mut self, sequence: u64, tag: &[u8]) {
        let at = (sequence - self.base) as usize * TAG_BYTES;
        self.tags[at..at + TAG_BYTES].copy_from_slice(tag);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.tags.len());
        bytes.extend_from_slice(&self.base.to_be_bytes());
        bytes.extend_from_slice(&self.tags);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (base, tags) = bytes.split_at_checked(8)?;
        Some(Self { base: u64::from_be_bytes(base.try_into().ok()?), tags: tags.try_into().ok()? })
    }
}

/// One stream at hand.
#[derive(Clone, Debug)]
pub(crate) struct StreamMirror {
    pub(crate) cursor: Cursor,
    /// The slot that the next sequence falls into, where it is known.
    pub(crate) slot: Option<Slot>,
    /// The data key that was last seen to exist.
    pub(crate) known_key: Option<KeyId>,
}

/// Mirror of one group.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) head: GroupHead,
    pub(crate) frontier: Frontier,
    streams: HashMap<StreamKey, StreamMirror>,
}

impl Mirror {
    pub(crate) fn load(group: GroupId, state: &dyn StateRead) -> Result<Self, ApplyError> {
        let key = keys::head();
        let head: GroupHead = match state.get(&key)? {
            Some(bytes) => decode_row(group, &key, bytes)?,
            None => GroupHead { version: 1, format_version: 1, ..GroupHead::default() },
        };
        let frontier = if head.frontier.is_empty() {
            Frontier::new()
        } else {
            Frontier::decode(&head.frontier).map_err(|e| malformed(group, &key, &e.to_string()))?
        };
        assert_eq!(
            frontier.size(),
            head.ledger_size,
            "LED-1: group {group} head and frontier disagree"
        );
        Ok(Self { head, frontier, streams: HashMap::new() })
    }

    /// Takes a stream out of the mirror, or reads it; `None` where it has never been opened.
    pub(crate) fn take(
        &mut self,
        stream: &StreamKey,
        rows: &Overlay<'_>,
    ) -> Result<Option<StreamMirror>, ApplyError> {
        if let Some(mirror) = self.streams.remove(stream) {
            return Ok(Some(mirror));
        }
        let cursor: Option<Cursor> = rows.row(&keys::cursor(stream))?;
        Ok(cursor.map(|cursor| StreamMirror { cursor, slot: None, known_key: None }))
    }

    /// Puts a stream back after use.
    pub(crate) fn keep(&mut self, stream: StreamKey, mirror: StreamMirror) {
        if self.streams.len() >= STREAMS_MAX {
            self.streams.clear();
        }
        self.streams.insert(stream, mirror);
    }

    /// Writes the head once a write batch.
    pub(crate) fn store_head(&mut self, rows: &mut Overlay<'_>) {
        self.head.ledger_size = self.frontier.size();
        self.head.frontier = self.frontier.encode().into();
        rows.put_row(keys::head(), &self.head);
    }
}
