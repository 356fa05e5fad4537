//! Byte permits, taken before anything is put into a mailbox (which has no bound of its own).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit of the semaphore, whose counter is 32 bits wide.
const UNIT_BYTES: usize = 1_024;
/// Longest wait of one frame for refused records.
pub(crate) const SLOWED_MAX: Duration = Duration::from_secs(5);

/// The node's budget of bytes that were read and are not yet committed.
#[derive(Clone, Debug)]
pub struct Admission {
    node: Arc<Semaphore>,
    units_max: u32,
}

impl Admission {
    /// A budget of `node_in_flight_bytes_max`.
    pub fn new(node_in_flight_bytes_max: usize) -> Self {
        let units =
            u32::try_from(node_in_flight_bytes_max.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        Self { node: Arc::new(Semaphore::new(units as usize)), units_max: units }
    }

    /// Bytes that hold a permit now, in whole kibibytes.
    pub fn in_flight_bytes(&self) -> u64 {
        let free = u32::try_from(self.node.available_permits()).unwrap_or(u32::MAX);
        u64::from(self.units_max.saturating_sub(free)) * UNIT_BYTES as u64
    }

    /// Waits for room for a frame; not reading on meanwhile is the back-pressure. The stream counts
    /// `bytes`, as its client does, the node what the frame takes in memory. Cancel-safe.
    pub async fn admit(&self, stream: &InFlight, bytes: usize, memory: usize) -> Permit {
        let units =
            u32::try_from(memory.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_max);
        let node = Arc::clone(&self.node).acquire_many_owned(units).await;
        let node = node.expect("the semaphore is never closed");
        stream.0.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        Permit { _node: node, stream: stream.clone(), bytes: bytes as u64 }
    }
}

/// What one stream has in flight, and how many of its records were refused of late.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl InFlight {
    /// Bytes now.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// How long the next frame waits for the records that were refused since: each takes its part
    /// of a second, so that a stream of malformed records costs the node a bounded share. At most
    /// [`SLOWED_MAX`] at once; the rest waits for the frame after.
    pub fn slowed(&self, refused_per_second_max: u64) -> Duration {
        let per_second = refused_per_second_max.max(1);
        let at_once = per_second.saturating_mul(SLOWED_MAX.as_secs());
        let refused = self.0.refused.load(Ordering::Acquire).min(at_once);
        self.0.refused.fetch_sub(refused, Ordering::AcqRel);
        Duration::from_micros(refused.saturating_mul(1_000_000) / per_second)
    }
}

/// Room for one frame; given back when dropped, which is when its records are committed.
#[derive(Debug)]
pub struct Permit {
    _node: OwnedSemaphorePermit,
    stream: InFlight,
    bytes: u64,
}

impl Permit {
    /// So many records of its stream were refused.
    pub fn refused(&self, records: u64) {
        self.stream.0.refused.fetch_add(records, Ordering::AcqRel);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.stream.0.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_records_slow_their_stream_and_no_other() {
        let admission = Admission::new(1 << 20);
        let (bad, good) = (InFlight::default(), InFlight::default());
        let permit = admission.admit(&bad, 10, 10).await;
        permit.refused(1_500);
        assert_eq!(good.slowed(1_000), Duration::ZERO);
        assert_eq!(bad.slowed(1_000), Duration::from_millis(1_500));
        assert_eq!(bad.slowed(1_000), Duration::ZERO, "it is paid");
        permit.refused(7_000);
        assert_eq!(bad.slowed(1_000), SLOWED_MAX);
        assert_eq!(bad.slowed(1_000), Duration::from_secs(2), "the rest");
    }
}
