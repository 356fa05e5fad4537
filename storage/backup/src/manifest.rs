//! The manifest: what a backup holds, in clear, with a checksum and a seal over it.
//!
//! ```text
//!  "DTMBAKM1" ‖ bytes u32 ‖ crc32c u32 ‖ nonce 24 ‖ tag 16 ‖ Manifest (protobuf)
//!   crc32c over all before it but itself, nonce, tag and the protobuf
//!   tag: seal of nothing with "DTMBAKM1" ‖ protobuf as associated data
//! ```

use bytes::Bytes;
use dtm_types::format::{Leaf, WrappedKey};
use dtm_types::{BackupId, ClusterId, GroupId};

/// Name of its file.
pub const MANIFEST: &str = "manifest";
/// Version that this software writes.
pub(crate) const VERSION: u32 = 1;
pub(crate) const MAGIC: &[u8; 8] = b"DTMBAKM1";
/// Bytes before the protobuf.
pub(crate) const PREFIX_BYTES: usize = 56;
/// Larger is no manifest: about 300 bytes a group.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What a backup holds. No personal content and no secret stands in it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Manifest {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// 16 bytes; a version 7 UUID, so that names sort by time.
    #[prost(bytes = "bytes", tag = "2")]
    pub backup: Bytes,
    /// The backup that it continues; empty = a full one.
    #[prost(bytes = "bytes", tag = "3")]
    pub parent: Bytes,
    /// SHA-256 of the parent's manifest file; empty = a full one.
    #[prost(bytes = "bytes", tag = "4")]
    pub parent_digest: Bytes,
    /// The cluster.
    #[prost(bytes = "bytes", tag = "5")]
    pub cluster: Bytes,
    /// Its name.
    #[prost(string, tag = "6")]
    pub cluster_name: String,
    /// Its life.
    #[prost(uint64, tag = "7")]
    pub incarnation: u64,
    /// When it was begun, Unix microseconds.
    #[prost(int64, tag = "8")]
    pub began_us: i64,
    /// When its last file was written.
    #[prost(int64, tag = "9")]
    pub ended_us: i64,
    /// The key of its files, wrapped by the cluster key.
    #[prost(message, optional, tag = "10")]
    pub key: Option<WrappedKey>,
    /// Leaf of meta that it is cut along.
    #[prost(uint64, tag = "11")]
    pub anchor_leaf: u64,
    /// That leaf: sizes and roots of all ledgers.
    #[prost(message, optional, boxed, tag = "12")]
    pub anchor: Option<Box<Leaf>>,
    /// Ascending by group; meta is the first.
    #[prost(message, repeated, tag = "13")]
    pub groups: Vec<GroupPart>,
    /// Root certificates of the cluster, DER.
    #[prost(bytes = "bytes", repeated, tag = "14")]
    pub roots: Vec<Bytes>,
    /// Version of the software that wrote it.
    #[prost(string, tag = "15")]
    pub software: String,
}

/// What a backup holds of a group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GroupPart {
    /// The group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// Last entry that was applied.
    #[prost(uint64, tag = "2")]
    pub last_index: u64,
    /// Its term.
    #[prost(uint64, tag = "3")]
    pub last_term: u64,
    /// Replica that led it.
    #[prost(uint64, tag = "4")]
    pub last_leader: u64,
    /// Leaves of its ledger there.
    #[prost(uint64, tag = "5")]
    pub ledger_size: u64,
    /// Root of its ledger there, 32 bytes.
    #[prost(bytes = "bytes", tag = "6")]
    pub ledger_root: Bytes,
    /// All its rows.
    #[prost(message, optional, tag = "7")]
    pub rows: Option<FilePart>,
    /// Its entries from `entries_from` to `last_index`; absent where there is none that is new.
    #[prost(message, optional, tag = "8")]
    pub entries: Option<FilePart>,
    /// First entry that the parent does not hold; 1 where there is no parent.
    #[prost(uint64, tag = "9")]
    pub entries_from: u64,
    /// SHA-256 over all rows as they lie in the file, opened: the state of the group, 32 bytes.
    #[prost(bytes = "bytes", tag = "10")]
    pub state_digest: Bytes,
}

/// A file of a backup.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilePart {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its size.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// Chunks in it.
    #[prost(uint64, tag = "3")]
    pub chunks: u64,
    /// Rows or entries in it.
    #[prost(uint64, tag = "4")]
    pub items: u64,
    /// SHA-256 of the file as it lies there, 32 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub digest: Bytes,
}

impl Manifest {
    /// Its id. Sixteen bytes are checked when it is read.
    #[must_use]
    pub fn id(&self) -> BackupId {
        BackupId::from_slice(&self.backup).unwrap_or_default()
    }

    /// The backup that it continues.
    #[must_use]
    pub fn parent_id(&self) -> Option<BackupId> {
        BackupId::from_slice(&self.parent)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::from_slice(&self.cluster).unwrap_or_default()
    }

    /// Group time of meta at the anchor, Unix microseconds: what was acknowledged before is in it.
    #[must_use]
    pub fn anchor_us(&self) -> i64 {
        self.anchor.as_ref().map_or(0, |leaf| leaf.group_time_us)
    }

    /// Bytes of its files, the manifest left out.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// Its files but the manifest.
    pub fn files(&self) -> impl Iterator<Item = &FilePart> {
        self.groups.iter().flat_map(|group| group.rows.iter().chain(&group.entries))
    }

    /// What it holds of a group.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupPart> {
        self.groups.iter().find(|part| part.group == group.0)
    }
}
