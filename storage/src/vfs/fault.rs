//! Faults of the in-memory file system: what is to go wrong, and proof that it did.

use std::path::Path;

/// How often each kind of fault really happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Power cuts.
    pub crashes: u64,
    /// Sectors of unsynced writes that a power cut dropped.
    pub sectors_lost: u64,
    /// Sectors of unsynced writes that survived a power cut though nobody synced them.
    pub sectors_kept: u64,
    /// Names (creations, removals, renames) that a power cut undid.
    pub names_undone: u64,
    /// Syncs answered with EIO.
    pub sync_errors: u64,
    /// Writes answered with EIO.
    pub write_errors: u64,
    /// Reads of unreadable pages, answered with EIO.
    pub read_errors: u64,
    /// Requests refused because the disk was full.
    pub disk_full: u64,
    /// Bits flipped in stored bytes.
    pub bits_flipped: u64,
}

/// What is to go wrong from now on.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The sync after this many good ones answers EIO, once; what it should have made durable
    /// is dropped as Linux does (pages marked clean).
    pub sync_error_after: Option<u64>,
    /// The write after this many good ones answers EIO, once, having written half.
    pub write_error_after: Option<u64>,
    /// Size of the disk; without it the disk is endless.
    pub capacity_bytes: Option<u64>,
}

impl Faults {
    /// Counts one call down; true when this one is to fail (once).
    pub(super) fn fires(after: &mut Option<u64>) -> bool {
        match after {
            Some(0) => {
                *after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

/// A small seeded generator (splitmix64): the same seed tears the same sectors.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// The folder of a path, as the key of the name table.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
