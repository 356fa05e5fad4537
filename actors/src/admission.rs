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

/// The part of the budget that the streams of one source share: however slowly one reads its answers,
/// it does not hold up the others.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    room: Arc<Semaphore>,
    units_max: u32,
}

impl Share {
    pub(crate) fn new(bytes: u64) -> Self {
        let units_max = units(usize::try_from(bytes).unwrap_or(usize::MAX)).max(1);
        Self { room: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl Admission {
    /// A budget of `node_in_flight_bytes_max`.
    pub fn new(node_in_flight_bytes_max: usize) -> Self {
        let units_max = units(node_in_flight_bytes_max).max(1);
        Self { node: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// Bytes that hold a permit now, in whole kibibytes.
    pub fn in_flight_bytes(&self) -> u64 {
        let free = u32::try_from(self.node.available_permits()).unwrap_or(u32::MAX);
        u64::from(self.units_max.saturating_sub(free)) * UNIT_BYTES as u64
    }

    /// Waits for room for a frame, first in its source's share: not reading on meanwhile is the
    /// back-pressure. The stream counts `bytes`, as its client does, source and node what the frame
    /// takes in memory. Cancel-safe.
    pub async fn admit(&self, stream: &InFlight, bytes: usize, memory: usize) -> Permit {
        let units = units(memory).max(1);
        let source = match &stream.share {
            Some(Share { room, units_max }) => Some(taken(room, units.min(*units_max)).await),
            None => None,
        };
        let node = taken(&self.node, units.min(self.units_max)).await;
        stream.counts.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        Permit { _node: node, _source: source, stream: stream.clone(), bytes: bytes as u64 }
    }
}

async fn taken(room: &Arc<Semaphore>, units: u32) -> OwnedSemaphorePermit {
    let permit = Arc::clone(room).acquire_many_owned(units).await;
    permit.expect("the semaphore is never closed")
}

/// What one stream has in flight, and how many of its records were refused of late.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    counts: Arc<Counts>,
    share: Option<Share>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl InFlight {
    /// Of a stream whose source has this share.
    pub(crate) fn within(share: Share) -> Self {
        Self { counts: Arc::default(), share: Some(share) }
    }

    /// Bytes now.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Acquire)
    }

    /// How long the next frame waits for the records that were refused since: each takes its part
    /// of a second, so that a stream of malformed records costs the node a bounded share. At most
    /// [`SLOWED_MAX`] at once; the rest waits for the frame after.
    pub fn slowed(&self, refused_per_second_max: u64) -> Duration {
        let per_second = refused_per_second_max.max(1);
        let at_once = per_second.saturating_mul(SLOWED_MAX.as_secs());
        let refused = self.counts.refused.load(Ordering::Acquire).min(at_once);
        self.counts.refused.fetch_sub(refused, Ordering::AcqRel);
        Duration::from_micros(refused.saturating_mul(1_000_000) / per_second)
    }
}

/// Room for one frame; given back when dropped, which is when its records are committed.
#[derive(Debug)]
pub struct Permit {
    _node: OwnedSemaphorePermit,
    _source: Option<OwnedSemaphorePermit>,
    stream: InFlight,
    bytes: u64,
}

impl Permit {
    /// So many records of its stream were refused.
    pub fn refused(&self, records: u64) {
        self.stream.counts.refused.fetch_add(records, Ordering::AcqRel);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.stream.counts.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_takes_no_more_than_its_share() {
        let admission = Admission::new(8 << 10);
        let share = Share::new(2 << 10);
        let streams = [(); 3].map(|()| InFlight::within(share.clone()));
        let other = InFlight::within(Share::new(2 << 10));
        let held = admission.admit(&streams[0], 1_024, 1_024).await;
        let large = admission.admit(&streams[1], 1_024, 1_024).await;
        let third = admission.admit(&streams[2], 1, 1);
        let wait = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, third).await.is_err(), "its source has taken its share");
        drop(admission.admit(&other, 2_048, 2_048).await);
        drop((held, large));
        // More than the share: alone, but not never.
        drop(admission.admit(&streams[2], 4_096, 4_096).await);
        assert_eq!(admission.in_flight_bytes(), 0);
    }

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
