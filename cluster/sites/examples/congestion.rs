//! BBR against Cubic between two nodes of this process, over a UDP path of 50 ms round trip, 0.5 %
//! loss each way and 100 Mbit/s: how much passes, and what a small question on another lane feels.
//!
//! `cargo run --release -p dtm-sites --example congestion [SECONDS] [SEED]`

#![allow(clippy::disallowed_methods, reason = "measures by the machine's own clock")]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/sites/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/sites/tls.rs"]
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dtm_machine::seams::ManualClock;
use dtm_sites::{
    Channel, ChannelKind, Congestion, Event, Events, Lane, LaneIo, Lines, Path, Settings, SiteTls,
};
use dtm_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);
const ONE_WAY_US: u64 = 25_000;
const LOST_PER_MILLION: u32 = 5_000;
const BITS_PER_SECOND: u64 = 100_000_000;
/// What the router's queue holds, as a time at the rate.
const QUEUE_US: u64 = 50_000;
const WARM_UP: Duration = Duration::from_secs(3);

struct Silent;

impl Events for Silent {
    fn tell(&self, _event: &Event) {
        // Nothing is cut here.
    }
}

fn lines(
    ca: &tls::Ca,
    id: NodeId,
    settings: Settings,
) -> (Arc<Lines>, tokio::sync::mpsc::Receiver<dtm_sites::Arrived>) {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let (name, credentials) = ("first".to_owned(), "key".to_owned());
    let channel = Channel {
        name,
        kind: ChannelKind::Quic,
        bind,
        credentials,
        tls: ca.node(id) as Arc<dyn SiteTls>,
    };
    let clock = Arc::new(ManualClock::default());
    Lines::bind(id, vec![channel], settings, (clock, Arc::new(Silent))).expect("loopback")
}

struct Measured {
    bytes_per_second: f64,
    round_trip: Duration,
    lost: f64,
}

/// `lane` carries as much as it may.
async fn measure(congestion: Congestion, lane: Lane, lasts: Duration, seed: u64) -> Measured {
    let ca = tls::Ca::new();
    let settings = Settings { congestion, ..Settings::default() };
    let ((a, _), (b, mut arrived)) = (lines(&ca, A, settings.clone()), lines(&ca, B, settings));
    let weather = Arc::new(proxy::Weather::default());
    weather.delay_us.store(ONE_WAY_US, Ordering::Relaxed);
    weather.lost_per_million.store(LOST_PER_MILLION, Ordering::Relaxed);
    weather.bits_per_second.store(BITS_PER_SECOND, Ordering::Relaxed);
    weather.queue_us.store(QUEUE_US, Ordering::Relaxed);
    let front = SocketAddr::from(([127, 0, 0, 1], 0));
    let remote = proxy::start(front, b.addresses()[0], &weather, seed).await;
    a.place(B, vec![Path { channel: 0, remote: remote.to_string() }]).expect("a path");
    let mut bulk = a.open(B, lane).await.expect("a line");
    let mut from = arrived.recv().await.expect("arrives").io;
    let mut small = a.open(B, Lane::Control).await.expect("a line");
    let mut echo = arrived.recv().await.expect("arrives").io;
    tokio::spawn(async move {
        let block = vec![7; 256 << 10];
        while bulk.write_all(&block).await.is_ok() {}
    });
    tokio::spawn(async move {
        let mut bytes = [0; 8];
        while echo.read_exact(&mut bytes).await.is_ok() && echo.write_all(&bytes).await.is_ok() {}
    });
    let pinging = tokio::spawn(async move {
        let mut took = Vec::new();
        let ends = Instant::now() + WARM_UP + lasts;
        while Instant::now() < ends {
            took.push(ping(&mut small).await);
            sleep(Duration::from_millis(100)).await;
        }
        took.sort();
        took[took.len() / 2]
    });
    read_for(&mut from, WARM_UP).await;
    let (begun, read) = (Instant::now(), read_for(&mut from, lasts).await);
    let bytes_per_second = read as f64 / begun.elapsed().as_secs_f64();
    let round_trip = pinging.await.expect("pings");
    let lost = a.state(B).map_or(0.0, |state| state.lost_share);
    a.close().await;
    Measured { bytes_per_second, round_trip, lost }
}

async fn read_for(from: &mut LaneIo, lasts: Duration) -> usize {
    let (mut bytes, mut all) = (vec![0; 256 << 10], 0);
    let reading = async {
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            all += read;
        }
    };
    timeout(lasts, reading).await.ok();
    all
}

async fn ping(small: &mut LaneIo) -> Duration {
    let begun = Instant::now();
    small.write_all(b"question").await.expect("the line lasts");
    small.read_exact(&mut [0; 8]).await.expect("the line lasts");
    begun.elapsed()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let lasts = Duration::from_secs(arguments.next().unwrap_or(15));
    let seed = arguments.next().unwrap_or(7);
    println!("50 ms round trip, 0.5 % loss each way, 100 Mbit/s, {lasts:?} after {WARM_UP:?}");
    let rows = [
        (Congestion::Bbr, Lane::Log(1), "no bound"),
        (Congestion::Cubic, Lane::Log(1), "no bound"),
        (Congestion::Bbr, Lane::Copies(1), "rate of copies"),
        (Congestion::Cubic, Lane::Copies(1), "rate of copies"),
    ];
    for seed in [seed, seed + 1] {
        for (congestion, lane, bound) in rows {
            let Measured { bytes_per_second, round_trip, lost } =
                measure(congestion, lane, lasts, seed).await;
            println!(
                "{congestion:?}, {bound}, seed {seed}: {:.2} MB/s, question on another lane \
                 {:.0} ms (median), {:.1} % of packets lost",
                bytes_per_second / 1e6,
                round_trip.as_secs_f64() * 1e3,
                lost * 100.0,
            );
        }
    }
}
