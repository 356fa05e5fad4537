//! Byte permits, taken before anything is put into a mailbox (which has no bound of its own).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit of the semaphore, whose counter is 32 bits wide.
const UNIT_BYTES: usize = 1_024;

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

    /// Waits for room for a frame; not reading on meanwhile is the back-pressure. Cancel-safe.
    pub async fn admit(&self, stream: &InFlight, bytes: usize) -> Permit {
        let units =
            u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_max);
        let node = Arc::clone(&self.node).acquire_many_owned(units).await;
        let node = node.expect("the semaphore is never closed");
        stream.0.fetch_add(bytes as u64, Ordering::AcqRel);
        Permit { _node: node, stream: stream.clone(), bytes: bytes as u64 }
    }
}

/// Bytes of one stream in flight.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<AtomicU64>);

impl InFlight {
    /// Bytes now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Room for one frame; given back when dropped, which is when its records are committed.
#[derive(Debug)]
pub struct Permit {
    _node: OwnedSemaphorePermit,
    stream: InFlight,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.stream.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
