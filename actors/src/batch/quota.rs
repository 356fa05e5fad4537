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
    /// The whole room of a month, records and bytes, as the session that holds this was opened.
    whole: (u64, u64),
}

#[derive(Debug, Default)]
struct Left {
    records: u64,
    bytes: u64,
}

impl Quota {
    /// No room yet.
    pub(crate) fn new(record_bytes_max: usize) -> Self {
        Self { left: Arc::default(), record_bytes_max, whole: (0, 0) }
    }

    /// What the group said when a stream was opened. What other sessions have on its way just then
    /// is not counted: by so much a source may go over.
    pub(crate) fn set(&self, records: u64, bytes: u64) {
        *self.left.lock() = Left { records, bytes };
    }

    /// The same room, for a session of a source that may have so much in a month.
    pub(crate) fn of(&self, records_max: u64, bytes_max: u64) -> Self {
        Self { whole: (records_max, bytes_max), ..self.clone() }
    }

    /// What the source has in quarantine of this month, by the group's word: through other nodes
    /// too. Room comes back (another month) only where nothing of this session is on its way, else
    /// that would be counted twice.
    pub(crate) fn learn(&self, (records, bytes): (u64, u64), is_idle: bool) {
        let free = (self.whole.0.saturating_sub(records), self.whole.1.saturating_sub(bytes));
        let mut left = self.left.lock();
        *left = if is_idle {
            Left { records: free.0, bytes: free.1 }
        } else {
            Left { records: left.records.min(free.0), bytes: left.bytes.min(free.1) }
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_learns_what_others_put_into_quarantine_and_that_a_month_is_over() {
        let quota = Quota::new(100).of(10, 1_000);
        quota.set(10, 1_000);
        let left = |quota: &Quota| {
            let left = quota.left.lock();
            (left.records, left.bytes)
        };
        quota.learn((7, 100), false);
        assert_eq!(left(&quota), (3, 900), "others have put seven");
        quota.learn((1, 10), false);
        assert_eq!(left(&quota), (3, 900), "not while something is on its way");
        quota.learn((1, 10), true);
        assert_eq!(left(&quota), (9, 990), "a new month");
        quota.learn((11, 2_000), true);
        assert_eq!(left(&quota), (0, 0));
    }
}
