//! Room for requests that have begun and are not complete: without it their bytes would be taken off
//! the wire before any other bound sees them. Owner of the state: [`Arrivals`].
//!
//! ```text
//!  length of a message ─▶ room in its sender's share, then in the node's ─▶ its bytes are read
//!                                                                            │ complete, admitted
//!                          ◀───────────────── given back ◀───────────────────┘ or too late
//! ```
//! A sender is a source from the first byte of a `Publish` call on, and an address for every other
//! call. What waits for room is not read: HTTP/2's windows then hold its sender up. No more calls of
//! a connection wait at once than leave those with room a part of its window: more are refused.

mod body;
#[cfg(test)]
mod body_test;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use dtm_setup::tls::PeerInfo;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

pub(crate) use self::body::NotRead;
use self::body::{Arriving, Bounds};

/// Bytes of one permit of a semaphore, whose counter is 32 bits wide.
const UNIT_BYTES: usize = 1_024;
/// The share of a sender: one part in so many of all room.
const SHARES: usize = 2;
/// Room for calls of whom nobody knows: one part in so many.
const STRANGERS: usize = 4;
/// Streams of one source that wait for their first request at once; more are not read meanwhile.
const OPENING_MAX: usize = 64;

/// All room of a node.
pub struct Arrivals {
    node: Room,
    /// For calls of whom nobody knows: they hold up no source.
    strangers: Room,
    /// Senders with open calls.
    senders: Mutex<HashMap<String, Weak<Share>>>,
    within: Duration,
    bytes_max: u64,
}

/// One count of bytes.
#[derive(Clone)]
struct Room {
    free: Arc<Semaphore>,
    units_max: usize,
}

impl Room {
    fn new(bytes: usize) -> Self {
        let units_max = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(units_max)), units_max }
    }

    /// What is larger than all room is taken alone.
    fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, self.units_max);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(self.units(bytes)).ok()
    }

    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.free).acquire_many_owned(self.units(bytes)).await;
        permit.expect("the semaphore is never closed")
    }
}

/// What the calls of one sender share.
pub struct Share {
    all: Room,
    own: Room,
    opening: Arc<Semaphore>,
}

/// Room of one message, until it is dropped.
pub struct Taken {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Share {
    /// Room for a message where it is free now.
    fn try_take(&self, bytes: usize) -> Option<Taken> {
        let own = self.own.try_take(bytes)?;
        Some(Taken { _own: own, _all: self.all.try_take(bytes)? })
    }

    async fn take(self: Arc<Self>, bytes: usize) -> Taken {
        let own = self.own.take(bytes).await;
        Taken { _own: own, _all: self.all.take(bytes).await }
    }

    /// A place among the calls that wait for their first request. Cancel-safe.
    pub async fn opening(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.opening).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }
}

impl Arrivals {
    /// Of `limits.arriving_bytes_max`; a message is complete after `limits.request_within_ms`.
    pub fn new(bytes_max: u64, within_ms: u64) -> Self {
        let bytes = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self {
            node: Room::new(bytes),
            strangers: Room::new(bytes / STRANGERS),
            senders: Mutex::default(),
            within: Duration::from_millis(within_ms),
            bytes_max,
        }
    }

    /// What a known sender shares with its other calls.
    pub fn share(&self, sender: String) -> Arc<Share> {
        self.share_of(&self.node, sender)
    }

    fn share_of(&self, all: &Room, sender: String) -> Arc<Share> {
        let mut senders = self.senders.lock();
        if let Some(share) = senders.get(&sender).and_then(Weak::upgrade) {
            return share;
        }
        senders.retain(|_, share| share.strong_count() > 0);
        let own = Room::new(all.units_max / SHARES * UNIT_BYTES);
        let opening = Arc::new(Semaphore::new(OPENING_MAX));
        let share = Arc::new(Share { all: all.clone(), own, opening });
        senders.insert(sender, Arc::downgrade(&share));
        share
    }

    /// Bytes that have room now, in whole kibibytes.
    pub fn bytes(&self) -> u64 {
        let taken = |room: &Room| room.units_max.saturating_sub(room.free.available_permits());
        ((taken(&self.node) + taken(&self.strangers)) * UNIT_BYTES) as u64
    }

    /// A call of a sender who is not known before its requests are read: reads nothing before
    /// [`Inlet::enter`]. Messages over `message_bytes_max` are refused by whoever decodes them.
    pub fn wait_for_sender(
        &self,
        request: http::Request<Body>,
        message_bytes_max: usize,
    ) -> (http::Request<Body>, Arc<Inlet>) {
        let inlet = Arc::<Inlet>::default();
        let unread = request.extensions().get::<PeerInfo>().map(|peer| Arc::clone(&peer.unread));
        let bounds = Bounds {
            message_bytes_max,
            within: self.within,
            arriving_bytes_max: self.bytes_max,
            // A call without a connection is one of its own.
            unread: unread.unwrap_or_else(|| Arc::new(Semaphore::new(1))),
        };
        let request =
            request.map(|body| Body::new(Arriving::new(body, Arc::clone(&inlet), bounds)));
        (request, inlet)
    }

    /// A call that is decoded before anybody knows who asks.
    pub fn of_address(&self, request: http::Request<Body>) -> http::Request<Body> {
        let address = request.extensions().get::<PeerInfo>().map(|peer| peer.address.ip());
        let sender = address.map_or_else(String::new, |ip| format!("address {ip}"));
        let share = self.share_of(&self.strangers, sender);
        let (request, inlet) = self.wait_for_sender(request, usize::MAX);
        inlet.enter(share);
        request
    }
}

/// Between a call's body and who reads its messages.
#[derive(Default)]
pub struct Inlet {
    share: OnceLock<Arc<Share>>,
    taken: Mutex<Option<Taken>>,
}

impl Inlet {
    /// Whose call it is. Once, before its first message is asked for.
    pub fn enter(&self, share: Arc<Share>) {
        let _ = self.share.set(share);
    }

    /// The room of the message that was read last, to be held until it has room elsewhere.
    pub fn taken(&self) -> Option<Taken> {
        self.taken.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sender_takes_no_more_than_its_share_and_all_no_more_than_there_is() {
        let arrivals = Arrivals::new(8 << 10, 1_000);
        let [one, two, three] = ["one", "two", "three"].map(|name| arrivals.share(name.to_owned()));
        let held = one.try_take(4_000).expect("free");
        assert!(
            one.try_take(1).is_none() && arrivals.share("one".to_owned()).try_take(1).is_none()
        );
        assert_eq!(arrivals.bytes(), 4_096);
        let more = two.try_take(4_000).expect("its own share");
        assert!(three.try_take(1).is_none(), "the node has no more");
        drop(held);
        drop(three.try_take(1).expect("given back"));
        drop(more);
        drop(three.try_take(9 << 10).expect("more than all: alone, but not never"));
        assert_eq!(arrivals.bytes(), 0);
        drop((one, two, three));
        drop(arrivals.share("6".to_owned()));
        assert_eq!(arrivals.senders.lock().len(), 1, "senders without calls are forgotten");
    }
}
