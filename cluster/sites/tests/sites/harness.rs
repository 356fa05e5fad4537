//! Two nodes of two sites in one process, with paths whose weather the test makes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use dtm_machine::seams::ManualClock;
use dtm_sites::{
    Arrived, Channel, ChannelKind, Event, Events, Lane, LaneIo, Lines, Path, Settings, SiteTls,
};
use dtm_types::NodeId;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::{self, Weather};
use crate::tcp;
use crate::tls::{Ca, NodeTls};

pub(crate) const A: NodeId = NodeId([1; 16]);
pub(crate) const B: NodeId = NodeId([2; 16]);
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses of one test: all of 127.0.0.0/8 is loopback.
pub(crate) fn at(test: u8, host: u8) -> SocketAddr {
    let process = 64 + (std::process::id() % 128) as u8;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, process, test, host)), 0)
}

pub(crate) fn fresh() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<Event>>);

impl Events for Heard {
    fn tell(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

impl Heard {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().clone()
    }
}

/// Silence is found soon, so that a test is short.
pub(crate) fn quick() -> Settings {
    Settings {
        keep_alive: Duration::from_millis(200),
        idle: Duration::from_millis(800),
        handshake: Duration::from_millis(800),
        backoff: (Duration::from_millis(20), Duration::from_millis(200)),
        patience: Duration::from_millis(300),
        return_after: Duration::from_millis(600),
        drain: Duration::from_millis(300),
        open_wait: Duration::from_millis(1_500),
        copies_bytes_per_second: 0,
        ..Settings::default()
    }
}

pub(crate) struct Node {
    pub(crate) lines: Arc<Lines>,
    pub(crate) arrived: mpsc::Receiver<Arrived>,
    pub(crate) heard: Arc<Heard>,
    /// What the two-hour rule goes by.
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) fn node(
    id: NodeId,
    channels: Vec<(SocketAddr, Arc<dyn SiteTls>)>,
    settings: Settings,
) -> Node {
    let quic = |(bind, tls)| (ChannelKind::Quic, bind, tls);
    node_of_kinds(id, channels.into_iter().map(quic).collect(), settings)
}

pub(crate) fn node_of_kinds(
    id: NodeId,
    channels: Vec<(ChannelKind, SocketAddr, Arc<dyn SiteTls>)>,
    settings: Settings,
) -> Node {
    let (heard, clock) = (Arc::new(Heard::default()), Arc::new(ManualClock::at(1 << 40)));
    let seams = (Arc::clone(&clock) as _, Arc::clone(&heard) as _);
    let named = channels.into_iter().enumerate().map(|(at, (kind, bind, tls))| Channel {
        name: format!("channel-{at}"),
        kind,
        bind,
        credentials: format!("key-{at}"),
        tls,
    });
    let (lines, arrived) = Lines::bind(id, named.collect(), settings, seams).expect("binds");
    Node { lines, arrived, heard, clock }
}

/// Two nodes with two paths each; `weather` by path.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) weather: [Arc<Weather>; 2],
    /// What A shows on each of its channels.
    pub(crate) shown: [Arc<NodeTls>; 2],
}

pub(crate) async fn pair(settings: Settings) -> Pair {
    pair_of([ChannelKind::Quic; 2], settings).await
}

pub(crate) async fn pair_of(kinds: [ChannelKind; 2], settings: Settings) -> Pair {
    let (ca, test) = (Ca::new(), fresh());
    let weather: [Arc<Weather>; 2] = Default::default();
    let of = |id: NodeId, host: u8| {
        let shown = [ca.node(id), ca.node(id)];
        let channel = |index: usize| {
            let tls = Arc::clone(&shown[index]) as Arc<dyn SiteTls>;
            (kinds[index], at(test, host + index as u8), tls)
        };
        let node = node_of_kinds(id, vec![channel(0), channel(1)], settings.clone());
        (node, shown)
    };
    let ((a, shown), (b, _)) = (of(A, 1), of(B, 3));
    for (own, node, peer, host) in [(&a, B, &b, 10), (&b, A, &a, 20)] {
        let mut paths = Vec::new();
        for (channel, target) in peer.lines.addresses().into_iter().enumerate() {
            let front = at(test, host + channel as u8);
            let remote = match kinds[channel] {
                ChannelKind::Quic => proxy::start(front, target, &weather[channel], 7).await,
                ChannelKind::Tcp => tcp::proxy(front, target, &weather[channel]).await,
            };
            paths.push(Path { channel, remote: remote.to_string() });
        }
        own.lines.place(node, paths).expect("independent paths");
    }
    Pair { a, b, weather, shown }
}

impl Pair {
    /// A lane from A to B, with both of its ends.
    pub(crate) async fn lane(&mut self, lane: Lane) -> (LaneIo, LaneIo) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let opened = self.a.lines.open(B, lane).await;
            if let Ok(here) = opened {
                let there = timeout(PATIENCE, self.b.arrived.recv()).await.expect("arrives");
                let there = there.expect("runs");
                assert_eq!((there.node, there.lane), (A, lane));
                return (here, there.io);
            }
            assert!(Instant::now() < deadline, "no line in time");
        }
    }
}

pub(crate) async fn until(what: &str, mut found: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !found() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Sends eight bytes there and back; how long that took.
pub(crate) async fn ping(here: &mut LaneIo, there: &mut LaneIo) -> std::io::Result<Duration> {
    let (begun, mut bytes) = (Instant::now(), [0; 8]);
    here.write_all(b"question").await?;
    there.read_exact(&mut bytes).await?;
    there.write_all(&bytes).await?;
    here.read_exact(&mut bytes).await?;
    assert_eq!(&bytes, b"question");
    Ok(begun.elapsed())
}
