//! What the log counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of a histogram: powers of two from 1.
pub(super) const BUCKETS: usize = 40;

/// A snapshot of a histogram; bucket `n` counts values in `2^n .. 2^(n+1)`, 0 goes to bucket 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Counts by bucket.
    pub buckets: [u64; 40],
}

impl Histogram {
    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bound of the bucket in which the given share (0 to 1) of the values ends.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return 1 << (bucket + 1);
            }
        }
        0
    }
}

#[derive(Debug)]
pub(super) struct Counts([AtomicU64; BUCKETS]);

impl Default for Counts {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Counts {
    pub(super) fn add(&self, value: u64) {
        let bucket = (63 - value.max(1).leading_zeros() as usize).min(BUCKETS - 1);
        self.0[bucket].fetch_add(1, Relaxed);
    }

    fn snapshot(&self) -> Histogram {
        Histogram { buckets: std::array::from_fn(|bucket| self.0[bucket].load(Relaxed)) }
    }
}

/// A snapshot of the log's counters since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMetrics {
    /// Writes that gathered requests and were synced before anybody was told.
    pub rounds: u64,
    /// `fdatasync` calls of rounds.
    pub round_syncs: u64,
    /// `fdatasync` calls that proved the last round after a while without work.
    pub idle_syncs: u64,
    /// Requests written.
    pub requests: u64,
    /// Blocks written, checkpoints and footers included.
    pub blocks: u64,
    /// Payload bytes written.
    pub payload_bytes: u64,
    /// All bytes written to segments.
    pub written_bytes: u64,
    /// Segments sealed.
    pub segments_sealed: u64,
    /// Blocks that were found damaged when read.
    pub damaged_reads: u64,
    /// Entries that had to be read from disk.
    pub disk_reads: u64,
    /// Payload bytes in the cache.
    pub cache_bytes: u64,
    /// Bytes a round.
    pub round_bytes: Histogram,
    /// Microseconds a round took, write and sync.
    pub round_us: Histogram,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rounds: AtomicU64,
    pub(super) round_syncs: AtomicU64,
    pub(super) idle_syncs: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) blocks: AtomicU64,
    pub(super) payload_bytes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) segments_sealed: AtomicU64,
    pub(super) damaged_reads: AtomicU64,
    pub(super) disk_reads: AtomicU64,
    pub(super) cache_bytes: AtomicU64,
    pub(super) round_bytes: Counts,
    pub(super) round_us: Counts,
}

pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> LogMetrics {
        LogMetrics {
            rounds: self.rounds.load(Relaxed),
            round_syncs: self.round_syncs.load(Relaxed),
            idle_syncs: self.idle_syncs.load(Relaxed),
            requests: self.requests.load(Relaxed),
            blocks: self.blocks.load(Relaxed),
            payload_bytes: self.payload_bytes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            segments_sealed: self.segments_sealed.load(Relaxed),
            damaged_reads: self.damaged_reads.load(Relaxed),
            disk_reads: self.disk_reads.load(Relaxed),
            cache_bytes: self.cache_bytes.load(Relaxed),
            round_bytes: self.round_bytes.snapshot(),
            round_us: self.round_us.snapshot(),
        }
    }
}
