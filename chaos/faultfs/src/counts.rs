//! What the disk was asked for and what it did about it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the disk was mounted first. A fault that does not show here did
        /// not fire.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The running numbers.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Reads that came from the kernel.
    reads,
    /// Writes.
    writes,
    /// Their bytes.
    bytes_written,
    /// Syncs of files that succeeded.
    syncs,
    /// Syncs of folders that succeeded.
    folder_syncs,
    /// Operations that failed by a rule.
    failed,
    /// Operations that waited by a rule.
    delayed,
    /// Reads that got what the file held earlier.
    stale_reads,
    /// Reads that got what stands elsewhere.
    misdirected_reads,
    /// Operations refused for want of space.
    no_space,
    /// Bits turned at rest.
    bits_flipped,
    /// Power cuts.
    power_cuts,
    /// Files that a cut took back to an older state.
    files_rolled_back,
    /// Unsynced bytes that cuts took, counted by sectors and length.
    bytes_dropped,
    /// Entries of folders that cuts undid.
    entries_undone,
    /// Unsynced sectors that arrived in torn cuts.
    sectors_arrived,
    /// Files whose unsynced data was taken as written, since too much was to be remembered.
    written_back,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
