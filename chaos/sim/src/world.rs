//! What the replicas of a simulation share: dice, time, the network between them, the count of
//! steps, and the trace of everything that happened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::sim::{Post, Replica, kind_of};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// Last events that a failed run shows.
const SHOWN: usize = 60;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: Duration,
    kind: &'static str,
    from: u64,
    to: u64,
    size: u64,
}

/// What the network does to letters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Of a thousand letters and answers so many are lost.
    pub(crate) lost: u32,
    /// So many arrive twice.
    pub(crate) doubled: u32,
    /// A way takes at most so long; letters overtake each other.
    pub(crate) delay: Duration,
}

impl Weather {
    /// Of one data centre.
    pub(crate) const FAIR: Self = Self { lost: 0, doubled: 0, delay: Duration::from_millis(2) };
}

struct Inner {
    dice: SmallRng,
    up: BTreeMap<u64, Arc<Replica>>,
    /// From whom nothing comes to whom.
    cut: BTreeSet<(u64, u64)>,
    weather: Weather,
    /// How far clocks are off, microseconds.
    skews: BTreeMap<u64, i64>,
    steps: u64,
    /// Snapshots that arrived.
    snapshots: u64,
    digest: u64,
    last: VecDeque<Event>,
}

/// Shared by all parts of one run.
pub(crate) struct World {
    inner: Mutex<Inner>,
    begun: Instant,
    steps_max: u64,
}

impl World {
    pub(crate) fn new(seed: u64, steps_max: u64) -> Arc<Self> {
        let inner = Inner {
            dice: SmallRng::seed_from_u64(seed),
            up: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::FAIR,
            skews: BTreeMap::new(),
            steps: 0,
            snapshots: 0,
            digest: FNV_OFFSET,
            last: VecDeque::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), begun: Instant::now(), steps_max })
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.inner.lock().dice.random_range(0..end)
    }

    /// Between two durations.
    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_micros() as u64, most.as_micros() as u64);
        Duration::from_micros(self.inner.lock().dice.random_range(least..=most))
    }

    pub(crate) fn sync_takes(&self) -> Duration {
        self.between(Duration::from_micros(200), Duration::from_millis(4))
    }

    /// Since the beginning of the run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Notes what happened and counts it.
    pub(crate) fn step(&self, kind: &'static str, from: u64, to: u64, size: u64) {
        let event = Event { at: self.begun.elapsed(), kind, from, to, size };
        let mut inner = self.inner.lock();
        inner.steps += 1;
        inner.snapshots += u64::from(kind == "snapshot");
        let words = [event.at.as_micros() as u64, from, to, size];
        let numbers = words.iter().flat_map(|word| word.to_le_bytes());
        for byte in numbers.chain(kind.bytes()) {
            inner.digest = (inner.digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if inner.last.len() == SHOWN {
            inner.last.pop_front();
        }
        inner.last.push_back(event);
    }

    /// Enough has happened: faults end.
    pub(crate) fn is_over(&self) -> bool {
        self.inner.lock().steps >= self.steps_max
    }

    /// Steps so far, and the digest of all of them.
    pub(crate) fn trace(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.steps, inner.digest)
    }

    /// Snapshots that arrived so far.
    pub(crate) fn snapshots(&self) -> u64 {
        self.inner.lock().snapshots
    }

    /// The last events, one a line.
    pub(crate) fn tail(&self) -> String {
        let inner = self.inner.lock();
        let line = |event: &Event| {
            let Event { at, kind, from, to, size } = event;
            format!("{:>10.4} {kind} {from} > {to} {size}\n", at.as_secs_f64())
        };
        inner.last.iter().map(line).collect()
    }

    pub(crate) fn set_up(&self, id: u64, replica: Arc<Replica>) {
        self.inner.lock().up.insert(id, replica);
    }

    pub(crate) fn take_down(&self, id: u64) -> Option<Arc<Replica>> {
        self.inner.lock().up.remove(&id)
    }

    /// The replica, if it runs.
    pub(crate) fn replica(&self, id: u64) -> Option<Arc<Replica>> {
        self.inner.lock().up.get(&id).cloned()
    }

    /// All that run.
    pub(crate) fn running(&self) -> Vec<(u64, Arc<Replica>)> {
        self.inner.lock().up.iter().map(|(id, replica)| (*id, Arc::clone(replica))).collect()
    }

    pub(crate) fn cut(&self, ways: impl IntoIterator<Item = (u64, u64)>) {
        self.inner.lock().cut.extend(ways);
    }

    /// All ways are open.
    pub(crate) fn join(&self) {
        self.inner.lock().cut.clear();
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// The clock of a replica's node is so far off from now on.
    pub(crate) fn set_clock(&self, id: u64, by_us: i64) {
        self.step("clock", id, id, by_us.unsigned_abs());
        self.inner.lock().skews.insert(id, by_us);
    }

    pub(crate) fn set_clocks_right(&self) {
        self.inner.lock().skews.clear();
    }

    pub(crate) fn skew_us(&self, id: u64) -> i64 {
        self.inner.lock().skews.get(&id).copied().unwrap_or_default()
    }

    /// What becomes of a letter: how long each copy of it takes. None: it is lost.
    fn ways(&self) -> Vec<Duration> {
        let mut inner = self.inner.lock();
        let Weather { lost, doubled, delay } = inner.weather;
        if inner.dice.random_range(0..1_000) < lost {
            return Vec::new();
        }
        let copies = 1 + usize::from(inner.dice.random_range(0..1_000) < doubled);
        let most = delay.as_micros() as u64;
        let takes = |_| Duration::from_micros(inner.dice.random_range(50..=most.max(51)));
        (0..copies).map(takes).collect()
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.inner.lock().cut.contains(&(from, to))
    }
}

/// The network.
pub(crate) struct Wires(pub(crate) Arc<World>);

impl Post for Wires {
    fn carry(&self, from: u64, to: u64, letter: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let world = Arc::clone(&self.0);
        Box::pin(async move {
            let copies = world.ways();
            let (tell, mut told) = tokio::sync::mpsc::channel::<Option<Bytes>>(2);
            for takes in copies {
                let (world, letter, tell) = (Arc::clone(&world), letter.clone(), tell.clone());
                // Goes on when the asker has given up.
                tokio::spawn(async move {
                    if let Some(answer) = deliver(&world, from, to, letter, takes).await {
                        let _ = tell.try_send(answer);
                    }
                });
            }
            // While this end is held the channel does not end: whoever waits for what is lost waits
            // until it gives up.
            let answer = told.recv().await;
            drop(tell);
            answer.flatten()
        })
    }
}

/// `None`: lost on one of its ways.
async fn deliver(
    world: &World,
    from: u64,
    to: u64,
    letter: Bytes,
    takes: Duration,
) -> Option<Option<Bytes>> {
    tokio::time::sleep(takes).await;
    if world.is_cut(from, to) {
        return None;
    }
    let (kind, size) = (kind_of(&letter), letter.len() as u64);
    world.step(kind, from, to, size);
    let Some(replica) = world.replica(to) else { return Some(None) };
    let answer = replica.receive(letter).await;
    let back = world.ways().first().copied()?;
    tokio::time::sleep(back).await;
    (!world.is_cut(to, from)).then_some(answer)
}
