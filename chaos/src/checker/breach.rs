//! What a checker found, by the property that it breaks.

use std::fmt;

use dtm_types::GroupId;

/// A safety property, by the id that asserts, alarms and documents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// An acked record is never lost.
    Ing1,
    /// A record is never stored twice.
    Ing2,
    /// The order of a stream holds.
    Ing3,
    /// Nothing appears that was not sent.
    Ing4,
    /// Committed prefixes are the same on all replicas; a vote is never taken back.
    Raft1,
    /// A read that says it is current is.
    Read1,
    /// Every head of an origin is consistent with every later one.
    Led1,
    /// Nothing secret in clear; no nonce twice under one key.
    Sec1,
    /// No effect without a command of somebody who may, and its entry.
    Sec2,
    /// Queues are bounded; all groups are writable soon after the last fault.
    Live1,
    /// A fault that was survived is visible in a metric.
    Obs1,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ing1 => "ING-1",
            Self::Ing2 => "ING-2",
            Self::Ing3 => "ING-3",
            Self::Ing4 => "ING-4",
            Self::Raft1 => "RAFT-1",
            Self::Read1 => "READ-1",
            Self::Led1 => "LED-1",
            Self::Sec1 => "SEC-1",
            Self::Sec2 => "SEC-2",
            Self::Live1 => "LIVE-1",
            Self::Obs1 => "OBS-1",
        })
    }
}

/// One breach of anything but ING-1 to ING-4. Histories of records have their own verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Two replicas hold different bytes at one committed index.
    #[error("RAFT-1: group {group} index {index} differs between {one} and {other}")]
    EntryDiffers {
        /// The group.
        group: GroupId,
        /// Log index.
        index: u64,
        /// A node.
        one: String,
        /// Another.
        other: String,
    },
    /// Two replicas that applied the same entries hold different rows.
    #[error("RAFT-1: group {group} row {key} at index {applied} differs: {one}, {other}")]
    RowDiffers {
        /// The group.
        group: GroupId,
        /// Applied index of both.
        applied: u64,
        /// The first key that differs, in hex.
        key: String,
        /// A node.
        one: String,
        /// Another.
        other: String,
    },
    /// Two replicas hold different leaves at one place of their ledgers.
    #[error("RAFT-1: group {group} leaf {leaf} differs between {one} and {other}")]
    LeafDiffers {
        /// The group.
        group: GroupId,
        /// Leaf index.
        leaf: u64,
        /// A node.
        one: String,
        /// Another.
        other: String,
    },
    /// A replica came back without a vote that it had said was on disk.
    #[error("RAFT-1: {replica} gave a vote and came back with another one")]
    VoteTakenBack {
        /// Node, group and replica.
        replica: String,
    },
    /// A read said it was current, and lacked what was known before it began.
    #[error("READ-1: {stream} on {node}: read through {seen} as current; {known} was known before")]
    StaleRead {
        /// `source/stream`.
        stream: String,
        /// The node that was read.
        node: String,
        /// Last sequence that the read saw.
        seen: u64,
        /// Last sequence that was acked, or seen by another current read, before it began.
        known: u64,
    },
    /// A ledger is not what its own rows, heads or batches say.
    #[error("LED-1: ledger of group {group} on {node}: {cause}")]
    Ledger {
        /// The group.
        group: GroupId,
        /// The node.
        node: String,
        /// In words.
        cause: String,
    },
    /// Two heads of one origin cannot both be true.
    #[error("LED-1: group {group}: head of {size} leaves seen on {seen} is not one of {node}'s")]
    Forked {
        /// The group.
        group: GroupId,
        /// Size of the older head.
        size: u64,
        /// Where the older head was seen.
        seen: String,
        /// Whose ledger denies it.
        node: String,
    },
    /// A secret lies where anybody can read it.
    #[error("SEC-1: {place} holds {secret} in clear")]
    SecretFound {
        /// File, metric page or log.
        place: String,
        /// Name of the secret, never the secret.
        secret: String,
    },
    /// Two different batches were sealed under one key and nonce.
    #[error("SEC-1: key {key} nonce {nonce} sealed two batches: {first} and {second}")]
    NonceTwice {
        /// Key id, in hex.
        key: String,
        /// The nonce, in hex.
        nonce: String,
        /// Stream and sequence of the one.
        first: String,
        /// Stream and sequence of the other.
        second: String,
    },
    /// A row of meta that no committed command explains, or the lack of one.
    #[error("SEC-2: row {key} on {node} is not what the committed commands make of it")]
    Unexplained {
        /// The key, in hex.
        key: String,
        /// The node.
        node: String,
    },
    /// An entry changed rows of meta and left no leaf, or a leaf of nothing.
    #[error("SEC-2: entry {index} changed {rows} rows of meta and left {leaves} leaves")]
    LeafAmiss {
        /// Log index.
        index: u64,
        /// Rows changed.
        rows: usize,
        /// Administrative leaves appended.
        leaves: usize,
    },
    /// An effect in the name of nobody, or of somebody who may not.
    #[error("SEC-2: entry {index} took effect for {actor}, who may not act")]
    Unauthorised {
        /// Log index.
        index: u64,
        /// Who, as far as the command says.
        actor: String,
    },
    /// A group took no command in time after the last fault was healed.
    #[error("LIVE-1: group {group} is not writable {within_ms} ms after the last fault was healed")]
    NotWritable {
        /// The group.
        group: GroupId,
        /// How long it had.
        within_ms: u64,
    },
    /// A queue holds more than its bound.
    #[error("LIVE-1: group {group} on {node} queues {bytes} bytes, {bytes_max} at most")]
    QueueOverBound {
        /// The group.
        group: GroupId,
        /// The node.
        node: String,
        /// What it holds.
        bytes: usize,
        /// What it may hold.
        bytes_max: usize,
    },
    /// A fault left no trace in any metric that is to show it.
    #[error("OBS-1: {fault} moved none of {metrics}")]
    Unseen {
        /// The fault.
        fault: String,
        /// Metrics of which one must move.
        metrics: String,
    },
}

impl Breach {
    /// The property that is broken.
    pub fn property(&self) -> Property {
        match self {
            Self::EntryDiffers { .. }
            | Self::RowDiffers { .. }
            | Self::LeafDiffers { .. }
            | Self::VoteTakenBack { .. } => Property::Raft1,
            Self::StaleRead { .. } => Property::Read1,
            Self::Ledger { .. } | Self::Forked { .. } => Property::Led1,
            Self::SecretFound { .. } | Self::NonceTwice { .. } => Property::Sec1,
            Self::Unexplained { .. } | Self::LeafAmiss { .. } | Self::Unauthorised { .. } => {
                Property::Sec2
            }
            Self::NotWritable { .. } | Self::QueueOverBound { .. } => Property::Live1,
            Self::Unseen { .. } => Property::Obs1,
        }
    }
}
