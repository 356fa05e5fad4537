//! One group's machine: the entry point of apply and the mirror of what it needs at hand.

use bytes::Bytes;
use dtm_types::command::Outcome;
use dtm_types::{GroupId, bundle};

use crate::commands::{self, Context};
use crate::mirror::Mirror;
use crate::overlay::Overlay;
use crate::seams::{StateBatch, StateError, StateRead};

/// A committed log entry as apply sees it.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Log index.
    pub index: u64,
    /// The stored bundle (`dtm_types::bundle`); `None` for a blank or membership entry.
    pub bundle: Option<Bytes>,
}

/// The group stops on this node: the store failed or the log holds what this software cannot read.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A bundle of an unknown version, or damaged after commit.
    #[error("entry {index} of group {group} cannot be applied")]
    Bundle {
        /// The group.
        group: GroupId,
        /// Log index.
        index: u64,
        /// What is wrong with it.
        source: bundle::Error,
    },
    /// A row that this software wrote does not decode.
    #[error("row {key} of group {group} does not decode: {cause}")]
    Row {
        /// The group.
        group: GroupId,
        /// The key, in hex.
        key: String,
        /// In words.
        cause: String,
    },
}

/// The state machine of one group.
#[derive(Debug)]
pub struct Machine {
    group: GroupId,
    mirror: Mirror,
}

impl Machine {
    /// Loads the mirror from rows; an empty store is a group before its genesis.
    pub fn load(group: GroupId, state: &dyn StateRead) -> Result<Self, ApplyError> {
        Ok(Self { group, mirror: Mirror::load(group, state)? })
    }

    /// Index of the last entry applied; 0 = none.
    pub fn applied_index(&self) -> u64 {
        self.mirror.head.applied_index
    }

    /// Number of leaves and RFC 6962 root of the group's ledger at the applied index.
    pub fn ledger_head(&self) -> (u64, [u8; 32]) {
        (self.mirror.frontier.size(), self.mirror.frontier.root())
    }

    /// Records stored, refused and found doubled so far.
    pub fn counters(&self) -> (u64, u64, u64) {
        let head = &self.mirror.head;
        (head.records, head.refused, head.duplicates)
    }

    /// Applies entries in order. Row changes go to `batch` (the caller writes them in one write
    /// with its own rows); the result holds one list of outcomes an entry, one outcome a command.
    /// Entries at or below the applied index must not be given again. After an error the machine
    /// must be loaded anew and `batch` thrown away.
    pub fn apply(
        &mut self,
        state: &dyn StateRead,
        entries: &[Committed],
        batch: &mut StateBatch,
    ) -> Result<Vec<Vec<Outcome>>, ApplyError> {
        let mut rows = Overlay::new(self.group, state);
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            let applied = self.mirror.head.applied_index;
            assert!(entry.index > applied, "RAFT-1: entry {} applied after {applied}", entry.index);
            outcomes.push(self.apply_entry(&mut rows, entry)?);
            self.mirror.head.applied_index = entry.index;
        }
        self.mirror.store_head(&mut rows);
        rows.finish(batch);
        Ok(outcomes)
    }

    fn apply_entry(
        &mut self,
        rows: &mut Overlay<'_>,
        entry: &Committed,
    ) -> Result<Vec<Outcome>, ApplyError> {
        let Some(bytes) = &entry.bundle else {
            return Ok(Vec::new());
        };
        let bundle = bundle::decode(bytes).map_err(|source| ApplyError::Bundle {
            group: self.group,
            index: entry.index,
            source,
        })?;
        let group_time_us = self.mirror.head.group_time_us.max(bundle.time_us);
        self.mirror.head.group_time_us = group_time_us;
        let mut outcomes = Vec::with_capacity(bundle.commands.len());
        for (ordinal, command) in bundle.commands.into_iter().enumerate() {
            let mut ctx = Context {
                group: self.group,
                index: entry.index,
                ordinal: u32::try_from(ordinal)
                    .expect("a bundle of 1 MiB holds fewer than 2^32 commands"),
                group_time_us,
                actor_id: command.actor.map(|actor| actor.id).unwrap_or_default(),
                request_id: command.request_id,
                rows,
                mirror: &mut self.mirror,
            };
            outcomes.push(commands::apply(&mut ctx, command.op)?);
        }
        Ok(outcomes)
    }
}
