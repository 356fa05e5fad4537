//! The lines of this node to its peers in other sites.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::Clock;
use dtm_types::NodeId;
use parking_lot::Mutex;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::bucket::Bucket;
use crate::error::Error;
use crate::events::Events;
use crate::keep::keep;
use crate::lane::{Lane, LaneIo};
use crate::line::{Line, LineState};
use crate::path::{Channel, ChannelKind, Path, check_independent};
use crate::settings::Settings;
use crate::tcp;
use crate::tls;

/// Lanes of peers that nobody has taken yet.
const ARRIVED_MAX: usize = 64;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS_A_SAMPLE: u64 = 5;
/// What the peers are told before the sockets go.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A lane that a peer opened.
pub struct Arrived {
    /// Who opened it, by certificate.
    pub node: NodeId,
    /// What it is for.
    pub lane: Lane,
    /// Its bytes.
    pub io: LaneIo,
}

/// A channel whose socket is open.
pub(crate) struct OpenChannel {
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
    pub(crate) socket: Socket,
}

/// What a channel calls through.
pub(crate) enum Socket {
    Quic {
        endpoint: Endpoint,
    },
    /// Each call takes a socket of its own, at the channel's address.
    Tcp,
}

/// What a channel hears calls with.
enum Listening {
    /// With what each accepted connection begins with, but for its certificates.
    Quic(Endpoint, Box<ServerConfig>),
    Tcp(TcpListener),
}

/// What all lines of a node have in common.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) settings: Settings,
    pub(crate) transport: Arc<TransportConfig>,
    pub(crate) channels: Vec<OpenChannel>,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) copies: Option<Arc<Bucket>>,
    pub(crate) arrivals: mpsc::Sender<Arrived>,
    clock: Arc<dyn Clock>,
    lines: Mutex<HashMap<NodeId, Kept>>,
    pub(crate) stop: CancellationToken,
}

struct Kept {
    line: Arc<Line>,
    /// Cancelled when the peer is forgotten.
    keeper: Option<CancellationToken>,
}

impl Shared {
    /// Monotonic, from some fixed moment.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.clock.monotonic_us().unsigned_abs())
    }

    /// Ends with the node.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// The line to a peer; one without paths where it called and none were given yet.
    pub(crate) fn line(&self, node: NodeId) -> Arc<Line> {
        let mut lines = self.lines.lock();
        let kept =
            lines.entry(node).or_insert_with(|| Kept { line: Line::new(self, node), keeper: None });
        Arc::clone(&kept.line)
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.channels.iter().filter_map(|open| match &open.socket {
            Socket::Quic { endpoint } => Some(endpoint),
            Socket::Tcp => None,
        })
    }

    /// Ends everything, sessions over TCP with it.
    fn end(&self) {
        self.stop.cancel();
        for endpoint in self.endpoints() {
            endpoint.close(VarInt::from_u32(0), b"stops");
        }
    }

    fn known(&self, node: NodeId) -> Option<Arc<Line>> {
        self.lines.lock().get(&node).map(|kept| Arc::clone(&kept.line))
    }
}

/// The lines of this node. Dropped, they end.
pub struct Lines {
    shared: Arc<Shared>,
}

impl Lines {
    /// Opens the sockets and accepts; yields the lanes that peers open. To be called within a runtime.
    /// How long a line is cut is told by the monotonic time of `clock`.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Bind`], [`Error::Tls`].
    pub fn bind(
        node: NodeId,
        channels: Vec<Channel>,
        settings: Settings,
        (clock, events): (Arc<dyn Clock>, Arc<dyn Events>),
    ) -> Result<(Arc<Self>, mpsc::Receiver<Arrived>), Error> {
        settings.check()?;
        let transport = settings.transport();
        let open = |channel| open(channel, &transport);
        let opened = channels.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let (channels, listening): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let copies = Bucket::new(settings.copies_bytes_per_second, Instant::now()).map(Arc::new);
        let (arrivals, arrived) = mpsc::channel(ARRIVED_MAX);
        let (lines, stop) = (Mutex::default(), CancellationToken::new());
        let shared = Arc::new(Shared {
            node,
            settings,
            transport,
            channels,
            events,
            copies,
            arrivals,
            clock,
            lines,
            stop,
        });
        for (channel, listening) in listening.into_iter().enumerate() {
            let by = Arc::clone(&shared);
            match listening {
                Listening::Quic(endpoint, base) => {
                    shared.spawn(accept::connections(by, channel, (endpoint, *base)));
                }
                Listening::Tcp(listener) => {
                    shared.spawn(tcp::connections(by, (channel, listener), Arc::default()));
                }
            }
        }
        shared.spawn(look(Arc::clone(&shared)));
        Ok((Arc::new(Self { shared }), arrived))
    }

    /// Where the channels are bound, in order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.channels.iter().map(|open| open.address).collect()
    }

    /// Says how a peer is reached, and keeps a line to it from now on. Another list replaces it.
    ///
    /// # Errors
    /// [`Error::Shared`] where a later path is not independent of an earlier one,
    /// [`Error::NoChannel`]; what held before goes on.
    pub fn place(&self, node: NodeId, paths: Vec<Path>) -> Result<(), Error> {
        let channels = self.shared.channels.iter().map(|open| &open.channel);
        check_independent(&channels.collect::<Vec<_>>(), &paths)?;
        let line = self.shared.line(node);
        line.place(&self.shared, paths);
        let mut lines = self.shared.lines.lock();
        if let Some(kept) = lines.get_mut(&node).filter(|kept| kept.keeper.is_none()) {
            let keeper = self.shared.stop.child_token();
            kept.keeper = Some(keeper.clone());
            let keeping = keep(Arc::clone(&self.shared), line);
            tokio::spawn(async move { keeper.run_until_cancelled(keeping).await });
        }
        Ok(())
    }

    /// Ends the line to a peer and keeps none to it any more.
    pub fn forget(&self, node: NodeId) {
        let kept = self.shared.lines.lock().remove(&node);
        if let Some(Kept { line, keeper }) = kept {
            keeper.inspect(CancellationToken::cancel);
            line.close();
        }
    }

    /// A lane to a peer. Waits a bounded time ([`Settings::open_wait`]) for a line. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Cut`].
    pub async fn open(&self, node: NodeId, lane: Lane) -> Result<LaneIo, Error> {
        let line = self.shared.known(node).ok_or(Error::Unknown(node))?;
        let mut changes = line.changes();
        let opening = async {
            loop {
                changes.mark_unchanged();
                if let Some(live) = line.current()
                    && let Ok(mut io) = live.wire.open().await
                    && io.write_all(&lane.to_bytes()).await.is_ok()
                    && io.flush().await.is_ok()
                {
                    return LaneIo::new(lane, io, self.shared.copies.as_ref());
                }
                // The sender lives as long as the line that is held here.
                changes.changed().await.ok();
            }
        };
        timeout(self.shared.settings.open_wait, opening).await.map_err(|_| Error::Cut(node))
    }

    /// The one confirmation that the two-hour rule waits for; false where it waits for none.
    pub fn confirm(&self, node: NodeId) -> bool {
        self.shared.known(node).is_some_and(|line| line.confirm(&self.shared))
    }

    /// As [`Lines::confirm`], for all lines; how many waited for it.
    pub fn confirm_all(&self) -> usize {
        self.kept().filter(|line| line.confirm(&self.shared)).count()
    }

    /// What the lines to all peers that have paths are doing, by node.
    pub fn states(&self) -> BTreeMap<NodeId, LineState> {
        let now = self.shared.now();
        self.kept().map(|line| (line.node, line.state(now))).collect()
    }

    fn kept(&self) -> impl Iterator<Item = Arc<Line>> {
        let lines = self.shared.lines.lock();
        let kept = lines.values().filter(|kept| kept.keeper.is_some());
        kept.map(|kept| Arc::clone(&kept.line)).collect::<Vec<_>>().into_iter()
    }

    /// What the line to a peer is doing; `None` where there is none.
    pub fn state(&self, node: NodeId) -> Option<LineState> {
        self.shared.known(node).map(|line| line.state(self.shared.now()))
    }

    /// Ends all lines and tells the peers, within a bounded time.
    pub async fn close(&self) {
        self.shared.end();
        for endpoint in self.shared.endpoints() {
            timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await.ok();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.end();
    }
}

fn open(
    channel: Channel,
    transport: &Arc<TransportConfig>,
) -> Result<(OpenChannel, Listening), Error> {
    let bound = match channel.kind {
        ChannelKind::Quic => {
            let base = tls::base(&*channel.tls, transport)?;
            listen_quic(channel.bind, base)
        }
        ChannelKind::Tcp => listen_tcp(channel.bind),
    };
    match bound {
        Ok((address, socket, listening)) => {
            Ok((OpenChannel { channel, address, socket }, listening))
        }
        Err(source) => Err(Error::Bind { channel: channel.name.clone(), source }),
    }
}

fn listen_quic(
    bind: SocketAddr,
    base: ServerConfig,
) -> std::io::Result<(SocketAddr, Socket, Listening)> {
    let socket = std::net::UdpSocket::bind(bind)?;
    let (config, server) = (EndpointConfig::default(), Some(base.clone()));
    let endpoint = Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?;
    let listening = Listening::Quic(endpoint.clone(), Box::new(base));
    Ok((endpoint.local_addr()?, Socket::Quic { endpoint }, listening))
}

fn listen_tcp(bind: SocketAddr) -> std::io::Result<(SocketAddr, Socket, Listening)> {
    let listener = std::net::TcpListener::bind(bind)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    Ok((listener.local_addr()?, Socket::Tcp, Listening::Tcp(listener)))
}

/// Lets the two-hour rule speak, and takes figures.
async fn look(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0u64.. {
        interval.tick().await;
        let lines: Vec<_> =
            shared.lines.lock().values().map(|kept| Arc::clone(&kept.line)).collect();
        for line in &lines {
            line.note_heard(shared.now());
            line.apply_rule(&shared);
        }
        if look % LOOKS_A_SAMPLE == 0 {
            lines.iter().for_each(|line| line.sample(shared.now()));
        }
    }
}
