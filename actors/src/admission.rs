//! Byte permits, taken before anything is put into a mailbox (which has no bound of its own).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Bytes of one permit of the semaphore, whose counter is 32 bits wide.
const UNIT_BYTES: usize = 1_024;
/// Longest wait of one frame for refused records, once it is its turn.
const SLOWED_MAX: Duration = Duration::from_secs(5);

/// The node's budget of bytes that were read and are not yet committed.
#[derive(Clone, Debug)]
pub struct Admission {
    node: Arc<Semaphore>,
    units_max: u32,
}

/// What the streams of one source share: a part of the budget, so that however slowly one reads its
/// answers it does not hold up the others, and what its refused records cost it.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    of: ShareOf,
    room: Arc<Semaphore>,
    units_max: u32,
    debt: Arc<Debt>,
}

/// How much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShareOf {
    /// Bytes of memory, over all its streams on this node.
    pub(crate) bytes: u64,
    /// Refused records a second, over the same.
    pub(crate) refused_per_second_max: u64,
}

impl Share {
    pub(crate) fn new(of: ShareOf) -> Self {
        let units_max = units(usize::try_from(of.bytes).unwrap_or(usize::MAX)).max(1);
        let room = Arc::new(Semaphore::new(units_max as usize));
        Self { of, room, units_max, debt: Arc::new(Debt::new(of.refused_per_second_max)) }
    }

    /// What it was made of.
    pub(crate) fn of(&self) -> ShareOf {
        self.of
    }
}

/// Each refused record takes its part of a second: malformed data costs the node a bounded share,
/// over however many streams its source sends it.
#[derive(Debug)]
struct Debt {
    per_second: u64,
    /// When all is paid; time that passes pays. None = nothing was refused.
    paid: Mutex<Option<Instant>>,
    /// Held by the one stream that waits for it: the others that owe wait behind it.
    turn: tokio::sync::Mutex<()>,
}

impl Debt {
    fn new(refused_per_second_max: u64) -> Self {
        let turn = tokio::sync::Mutex::new(());
        Self { per_second: refused_per_second_max.max(1), paid: Mutex::new(None), turn }
    }

    fn add(&self, records: u64, now: Instant) {
        let costs = Duration::from_micros(records.saturating_mul(1_000_000) / self.per_second);
        let mut paid = self.paid.lock();
        let from = paid.map_or(now, |paid| paid.max(now));
        *paid = from.checked_add(costs).or(*paid);
    }

    fn left(&self, now: Instant) -> Duration {
        let paid = *self.paid.lock();
        paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now))
    }

    /// Waits for its turn, then for what is owed, at most [`SLOWED_MAX`]. Whether some of it is left.
    async fn pay(&self) -> bool {
        if self.left(Instant::now()).is_zero() {
            return false;
        }
        let _turn = self.turn.lock().await;
        tokio::time::sleep(self.left(Instant::now()).min(SLOWED_MAX)).await;
        !self.left(Instant::now()).is_zero()
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
        let Share { room, units_max, .. } = &stream.share;
        let source = taken(room, units.min(*units_max)).await;
        let node = taken(&self.node, units.min(self.units_max)).await;
        stream.counts.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        Permit { _node: node, _source: source, stream: stream.clone(), bytes: bytes as u64 }
    }
}

async fn taken(room: &Arc<Semaphore>, units: u32) -> OwnedSemaphorePermit {
    let permit = Arc::clone(room).acquire_many_owned(units).await;
    permit.expect("the semaphore is never closed")
}

/// What one stream has in flight, and whether records of it were refused of late.
#[derive(Clone, Debug)]
pub struct InFlight {
    counts: Arc<Counts>,
    share: Share,
}

#[derive(Debug)]
struct Counts {
    bytes: AtomicU64,
    owes: AtomicBool,
}

impl InFlight {
    /// Of a stream whose source has this share. What the source owes when it opens one more stream
    /// is waited for there too: a new stream is no way round it.
    pub(crate) fn within(share: Share) -> Self {
        let counts = Counts { bytes: AtomicU64::new(0), owes: AtomicBool::new(true) };
        Self { counts: Arc::new(counts), share }
    }

    /// Bytes now.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Acquire)
    }

    /// Where records of this stream were refused since its last frame, waits for what its source's
    /// refused records cost, in turn with the source's other streams of that kind. One frame waits
    /// [`SLOWED_MAX`] at most, and those before it as long; what is left waits for the frame after.
    /// A stream without refused records does not wait for those of another. Who is cut off here pays
    /// nothing; its stream takes no frame after that.
    pub(crate) async fn slowed(&self) {
        if self.counts.owes.swap(false, Ordering::AcqRel) && self.share.debt.pay().await {
            self.counts.owes.store(true, Ordering::Release);
        }
    }
}

/// Room for one frame; given back when dropped, which is when its records are committed.
#[derive(Debug)]
pub struct Permit {
    _node: OwnedSemaphorePermit,
    _source: OwnedSemaphorePermit,
    stream: InFlight,
    bytes: u64,
}

impl Permit {
    /// So many records of its stream were refused.
    pub fn refused(&self, records: u64) {
        self.stream.share.debt.add(records, Instant::now());
        self.stream.counts.owes.store(true, Ordering::Release);
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

    fn share(bytes: u64, refused_per_second_max: u64) -> Share {
        Share::new(ShareOf { bytes, refused_per_second_max })
    }

    #[tokio::test]
    async fn a_source_takes_no_more_than_its_share() {
        let admission = Admission::new(8 << 10);
        let own = share(2 << 10, 1_000);
        let streams = [(); 3].map(|()| InFlight::within(own.clone()));
        let other = InFlight::within(share(2 << 10, 1_000));
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

    /// Streams of one source, whose share takes anything; nothing is owed.
    async fn streams<const N: usize>(refused_per_second_max: u64) -> [InFlight; N] {
        let own = share(1 << 20, refused_per_second_max);
        let streams = [(); N].map(|()| InFlight::within(own.clone()));
        for stream in &streams {
            stream.slowed().await;
        }
        streams
    }

    #[test]
    fn time_that_passes_pays() {
        let (debt, from) = (Debt::new(1_000), Instant::now());
        let after = |ms| from + Duration::from_millis(ms);
        let left = |ms| debt.left(after(ms)).as_millis();
        assert_eq!(left(0), 0);
        debt.add(1_500, after(0));
        assert_eq!((left(0), left(400), left(1_500), left(9_000)), (1_500, 1_100, 0, 0));
        debt.add(500, after(400));
        assert_eq!(left(400), 1_600, "on top of what is owed");
        debt.add(100, after(60_000));
        assert_eq!(left(60_000), 100, "nothing is saved up");
        debt.add(u64::MAX, after(60_000));
        assert!(left(60_000) >= 100);
    }

    #[tokio::test]
    async fn refused_records_slow_their_stream_and_no_other() {
        let admission = Admission::new(1 << 20);
        let [bad, good] = streams(1_000).await;
        let [other] = streams(1_000).await;
        let owes = |stream: &InFlight| stream.counts.owes.load(Ordering::Acquire);
        let left = |stream: &InFlight| stream.share.debt.left(Instant::now());
        let permit = admission.admit(&bad, 10, 10).await;
        permit.refused(400);
        assert!(owes(&bad) && !owes(&good), "the source owes, not its other stream");
        assert!(!owes(&other) && left(&other).is_zero(), "nor another source");
        bad.slowed().await;
        assert!(left(&bad).is_zero() && !owes(&bad), "it is paid");
        let opened_then = InFlight::within(bad.share.clone());
        permit.refused(400);
        opened_then.slowed().await;
        assert!(left(&bad).is_zero(), "a new stream is no way round it");
        permit.refused(7_000);
        let late = tokio::time::timeout(Duration::from_millis(100), bad.slowed()).await;
        assert!(late.is_err(), "seconds");
        assert!(left(&bad) > SLOWED_MAX, "more than one frame waits for");
    }

    // What one stream may cost is what all of them may cost: by their number it is no more.
    //
    // holds: LIVE-1
    #[tokio::test]
    async fn the_streams_of_a_source_share_what_malformed_data_may_cost() {
        const STREAMS: usize = 64;
        const FRAMES: u64 = 5;
        const RECORDS: u64 = 100;
        const PER_SECOND: u64 = 40_000;
        let admission = Admission::new(1 << 20);
        let streams = streams::<STREAMS>(PER_SECOND).await;
        let from = Instant::now();
        let send = |stream: InFlight| {
            let admission = admission.clone();
            async move {
                for _ in 0..FRAMES {
                    stream.slowed().await;
                    let permit = admission.admit(&stream, 10, 10).await;
                    // Committed a moment later.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    permit.refused(RECORDS);
                }
            }
        };
        futures::future::join_all(streams.into_iter().map(send)).await;
        // The last frame of each is not waited for here.
        let waited_for = STREAMS as u64 * (FRAMES - 1) * RECORDS;
        let least = Duration::from_micros(waited_for * 1_000_000 / PER_SECOND).mul_f64(0.8);
        assert!(from.elapsed() >= least, "{:?} for {waited_for} refused", from.elapsed());
    }

    #[tokio::test]
    async fn who_leaves_while_it_waits_holds_nobody_up() {
        let admission = Admission::new(1 << 20);
        let [one, two] = streams(1_000).await;
        for stream in [&one, &two] {
            admission.admit(stream, 10, 10).await.refused(750);
        }
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, one.slowed()).await.is_err(), "1.5 s");
        two.slowed().await;
        assert!(two.share.debt.left(Instant::now()).is_zero(), "its turn came");
    }
}
