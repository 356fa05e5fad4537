//! A UDP path between two nodes whose weather a test makes: delay, loss by a seed, a rate with a
//! bounded queue, a cut.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const PACKET_BYTES_MAX: usize = 65_536;
const PACKETS_MAX: usize = 65_536;

/// What happens to packets, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    pub(crate) is_cut: AtomicBool,
    pub(crate) delay_us: AtomicU64,
    pub(crate) lost_per_million: AtomicU32,
    /// Bits a second; 0 = no bound.
    pub(crate) bits_per_second: AtomicU64,
    /// What waits longer than this is dropped; 0 = 100 ms.
    pub(crate) queue_us: AtomicU64,
}

impl Weather {
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

/// One direction: decides when a packet leaves, if it does.
struct Way {
    weather: Arc<Weather>,
    chance: StdRng,
    free_at: Instant,
}

impl Way {
    fn new(weather: &Arc<Weather>, seed: u64) -> Self {
        let weather = Arc::clone(weather);
        Self { weather, chance: StdRng::seed_from_u64(seed), free_at: Instant::now() }
    }

    fn leaves_at(&mut self, bytes: usize) -> Option<Instant> {
        let (weather, now) = (&self.weather, Instant::now());
        let is_lost = self.chance.random_range(0..1_000_000)
            < weather.lost_per_million.load(Ordering::Relaxed);
        if is_lost || weather.is_cut.load(Ordering::Relaxed) {
            return None;
        }
        let micros = |value: &AtomicU64| Duration::from_micros(value.load(Ordering::Relaxed));
        let rate = weather.bits_per_second.load(Ordering::Relaxed);
        let mut leaves = now;
        // With the headers of IP and UDP.
        let nanos = (bytes as u64 + 28) * 8 * 1_000_000_000;
        if let Some(nanos) = nanos.checked_div(rate) {
            let queue = Some(micros(&weather.queue_us)).filter(|queue| !queue.is_zero());
            let begins = self.free_at.max(now);
            if begins - now > queue.unwrap_or(Duration::from_millis(100)) {
                return None;
            }
            self.free_at = begins + Duration::from_nanos(nanos);
            leaves = self.free_at;
        }
        Some(leaves + micros(&weather.delay_us))
    }
}

/// Starts a path to `target`; it ends with the runtime.
pub(crate) async fn start(
    at: SocketAddr,
    target: SocketAddr,
    weather: &Arc<Weather>,
    seed: u64,
) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind(at).await.expect("a port"));
    let address = front.local_addr().expect("bound");
    let weather = Arc::clone(weather);
    tokio::spawn(async move {
        let mut callers: HashMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = HashMap::new();
        let (mut way, mut bytes) = (Way::new(&weather, seed), vec![0; PACKET_BYTES_MAX]);
        while let Ok((length, from)) = front.recv_from(&mut bytes).await {
            let Some(at) = way.leaves_at(length) else { continue };
            if let Entry::Vacant(caller) = callers.entry(from) {
                let own = SocketAddr::new(address.ip(), 0);
                let back = Arc::new(UdpSocket::bind(own).await.expect("a port"));
                back.connect(target).await.expect("loopback");
                caller.insert(deliver(Arc::clone(&back), None));
                let answers = deliver(Arc::clone(&front), Some(from));
                let way = Way::new(&weather, seed ^ u64::from(from.port()));
                tokio::spawn(answer(back, answers, way));
            }
            // A full queue drops, as a router does.
            callers[&from].try_send((at, bytes[..length].to_vec())).ok();
        }
    });
    address
}

async fn answer(back: Arc<UdpSocket>, to: mpsc::Sender<(Instant, Vec<u8>)>, mut way: Way) {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    loop {
        // A port that is closed for a while is reported here.
        let Ok(length) = back.recv(&mut bytes).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        if let Some(at) = way.leaves_at(length) {
            to.try_send((at, bytes[..length].to_vec())).ok();
        }
    }
}

fn deliver(socket: Arc<UdpSocket>, to: Option<SocketAddr>) -> mpsc::Sender<(Instant, Vec<u8>)> {
    let (sender, mut packets) = mpsc::channel::<(Instant, Vec<u8>)>(PACKETS_MAX);
    tokio::spawn(async move {
        while let Some((at, bytes)) = packets.recv().await {
            if at > Instant::now() {
                sleep_until(at).await;
            }
            match to {
                Some(to) => socket.send_to(&bytes, to).await.ok(),
                None => socket.send(&bytes).await.ok(),
            };
        }
    });
    sender
}
