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
    /// The log is written in a version that this software does not know, or that nobody raised the
    /// group to.
    #[error(
        "entry {index} of group {group} needs version {version}; the group is at {at}, this \
         software knows versions up to {known}: install the release that the others run"
    )]
    Version {
        /// The group.
        group: GroupId,
        /// Log index.
        index: u64,
        /// What the entry needs.
        version: u32,
        /// Raised to so far.
        at: u32,
        /// Highest that this software knows.
        known: u32,
    },
    /// A command whose operation is empty or newer than this software: refusing it would part this
    /// replica from those that know it.
    #[error(
        "command {ordinal} of entry {index} of group {group} is of an operation that this software \
         does not know: install the release that the others run"
    )]
    UnknownOperation {
        /// The group.
        group: GroupId,
        /// Log index.
        index: u64,
        /// Place in the bundle.
        ordinal: u32,
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
    version_max: u8,
}

impl Machine {
    /// Loads the mirror from rows; an empty store is a group before its genesis.
    pub fn load(group: GroupId, state: &dyn StateRead) -> Result<Self, ApplyError> {
        Self::load_up_to(bundle::VERSION_MAX, group, state)
    }

    /// [`Machine::load`] for software that knows versions up to this one.
    ///
    /// # Errors
    /// Also [`ApplyError::Version`], where the group was raised beyond it.
    pub fn load_up_to(
        version_max: u8,
        group: GroupId,
        state: &dyn StateRead,
    ) -> Result<Self, ApplyError> {
        let mirror = Mirror::load(group, state)?;
        let (at, known) = (mirror.head.format_version, u32::from(version_max));
        if at > known {
            let index = mirror.head.applied_index;
            return Err(ApplyError::Version { group, index, version: at, at, known });
        }
        Ok(Self { group, mirror, version_max })
    }

    /// The version that the group is at: what its next bundle is to be written in.
    pub fn version(&self) -> u8 {
        u8::try_from(self.mirror.head.format_version).expect("never raised beyond what is known")
    }

    /// Index of the last entry applied; 0 = none.
    pub fn applied_index(&self) -> u64 {
        self.mirror.head.applied_index
    }

    /// Number of leaves and RFC 6962 root of the group's ledger at the applied index.
    pub fn ledger_head(&self) -> (u64, [u8; 32]) {
        (self.mirror.frontier.size(), self.mirror.frontier.root())
    }

    /// Group time at the applied index, microseconds.
    pub fn group_time_us(&self) -> i64 {
        self.mirror.head.group_time_us
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
        let (at, known) = (self.mirror.head.format_version, u32::from(self.version_max));
        let version = bytes.first().map_or(0, |version| u32::from(*version));
        if version > at {
            let (group, index) = (self.group, entry.index);
            return Err(ApplyError::Version { group, index, version, at, known });
        }
        let bundle = bundle::decode_up_to(self.version_max, bytes);
        let bundle = bundle.map_err(|source| ApplyError::Bundle {
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
                version_max: known,
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
