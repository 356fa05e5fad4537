//! Room left in a source's quarantine, shared by the sessions of that source on this node: each
//! alone would keep as much as all of them may.

use std::sync::Arc;

use parking_lot::Mutex;

/// See the module. A clone is the same room.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    left: Arc<Mutex<Left>>,
    /// Bytes kept of one record.
    record_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Left {
    records: u64,
    bytes: u64,
}

impl Quota {
    /// No room yet.
    pub(crate) fn new(record_bytes_max: usize) -> Self {
        Self { left: Arc::default(), record_bytes_max }
    }

    /// What the group said when a stream was opened. What other sessions have on its way just then
    /// is not counted: by so much a source may go over.
    pub(crate) fn set(&self, records: u64, bytes: u64) {
        *self.left.lock() = Left { records, bytes };
    }

    /// How many of a refused record's bytes are kept; `None` where there is no room left.
    pub(crate) fn keep(&self, bytes: usize) -> Option<usize> {
        let kept = bytes.min(self.record_bytes_max);
        let mut left = self.left.lock();
        if left.records == 0 || left.bytes < kept as u64 {
            return None;
        }
        left.records -= 1;
        left.bytes -= kept as u64;
        Some(kept)
    }

    #[cfg(test)]
    pub(crate) fn records(&self) -> u64 {
        self.left.lock().records
    }
}
