//! Peers of other sites: what is said to them goes over a line of dtm-sites, a lane for each kind of
//! traffic and each group; peers of this site are reached over TCP.
//!
//! A peer is of another site when its row names another one and an address for sites, and this node
//! has lines at all. Over each lane runs the same protocol as over TCP.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dtm_sites::{Arrived, Error, Lane, Lines, Path};
use dtm_types::NodeId;
use dtm_types::command::NodeRow;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::origin::OriginGuard;
use super::tls::{BoxIo, PeerStream, PeerTls};

/// Lanes that the server has not taken yet.
const LANES_MAX: usize = 64;

type Lanes = mpsc::Receiver<io::Result<PeerStream>>;

/// Lines to nodes of other sites.
pub trait SiteLines: Send + Sync + 'static {
    /// Keeps a line to a node at this address (`host:port`) from now on; told again at each change.
    fn place(&self, node: NodeId, address: &str);

    /// Keeps no line to it any more.
    fn forget(&self, node: NodeId);

    /// A lane to a node, within a bounded time. Cancel-safe.
    fn open(&self, node: NodeId, lane: Lane) -> BoxFuture<'_, io::Result<BoxIo>>;

    /// The next lane that a node opened, with the node that its certificate names; `None` when there
    /// will be no more. One caller. Cancel-safe.
    fn accepted(&self) -> BoxFuture<'_, Option<(NodeId, Lane, BoxIo)>>;
}

/// [`SiteLines`] over QUIC. The address that a peer's row names is the first path; further ones are
/// set up by node.
pub struct QuicSites {
    lines: Arc<Lines>,
    arrived: tokio::sync::Mutex<mpsc::Receiver<Arrived>>,
    further: BTreeMap<NodeId, Vec<Path>>,
}

impl QuicSites {
    /// What [`Lines::bind`] gave, and the paths behind the first.
    pub fn new(
        (lines, arrived): (Arc<Lines>, mpsc::Receiver<Arrived>),
        further: BTreeMap<NodeId, Vec<Path>>,
    ) -> Arc<Self> {
        Arc::new(Self { lines, arrived: tokio::sync::Mutex::new(arrived), further })
    }

    /// The lines themselves: their state, the confirmation of the two-hour rule, their end.
    pub fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }
}

impl SiteLines for QuicSites {
    fn place(&self, node: NodeId, address: &str) {
        let mut paths = vec![Path { channel: 0, remote: address.to_owned() }];
        paths.extend(self.further.get(&node).into_iter().flatten().cloned());
        let first = paths[..1].to_vec();
        let placed = self.lines.place(node, paths).or_else(|error| {
            tracing::error!(%node, %error, "paths behind the first are not used");
            self.lines.place(node, first)
        });
        if let Err(error) = placed {
            tracing::error!(%node, %error, "no line to a node of another site");
        }
    }

    fn forget(&self, node: NodeId) {
        self.lines.forget(node);
    }

    fn open(&self, node: NodeId, lane: Lane) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let io = self.lines.open(node, lane).await.map_err(|error: Error| error.into());
            io.map(|io| Box::new(io) as BoxIo)
        })
    }

    fn accepted(&self) -> BoxFuture<'_, Option<(NodeId, Lane, BoxIo)>> {
        Box::pin(async move {
            let Arrived { node, lane, io } = self.arrived.lock().await.recv().await?;
            Some((node, lane, Box::new(io) as BoxIo))
        })
    }
}

/// The certificates of the peer network, for lines.
pub struct LineTls(pub Arc<dyn PeerTls>);

impl dtm_sites::SiteTls for LineTls {
    fn server(&self) -> Arc<rustls::ServerConfig> {
        self.0.server()
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        self.0.client()
    }

    fn server_name(&self, node: NodeId) -> ServerName<'static> {
        self.0.server_name(node)
    }

    fn node_of(&self, certificate: &[u8]) -> Option<NodeId> {
        self.0.node_of(certificate)
    }
}

/// Which peers are of other sites, as meta says.
pub struct OtherSites {
    lines: Option<Arc<dyn SiteLines>>,
    own: (NodeId, String),
    /// Their addresses, and what ends connections that were made the other way.
    away: RwLock<BTreeMap<NodeId, String>>,
    ways: RwLock<BTreeMap<NodeId, CancellationToken>>,
}

impl OtherSites {
    /// `own` stands at `site` until meta says otherwise; without `lines` every peer is reached over TCP.
    pub fn new(lines: Option<Arc<dyn SiteLines>>, own: NodeId, site: &str) -> Arc<Self> {
        let (away, ways) = (RwLock::default(), RwLock::default());
        Arc::new(Self { lines, own: (own, site.to_owned()), away, ways })
    }

    /// Takes over what meta says now. Connections to a node that is reached another way than before
    /// are cut; their calls are tried again.
    pub fn learn(&self, rows: &[NodeRow]) {
        let Some(lines) = &self.lines else { return };
        // Where a node stands is the word of the operator who let it in, not of its configuration.
        let own = rows.iter().find(|row| row.node == self.own.0.0[..]);
        let own_site = own.map_or(&self.own.1, |row| &row.site);
        let is_away =
            |row: &&NodeRow| !row.removed && row.site != *own_site && !row.sites_address.is_empty();
        let of = |row: &NodeRow| Some((NodeId::from_slice(&row.node)?, row.sites_address.clone()));
        let now: BTreeMap<_, _> = rows.iter().filter(is_away).filter_map(of).collect();
        let before = std::mem::replace(&mut *self.away.write(), now.clone());
        for (node, address) in &now {
            if before.get(node) != Some(address) {
                lines.place(*node, address);
            }
        }
        for node in before.keys().filter(|node| !now.contains_key(node)) {
            lines.forget(*node);
        }
        let changed = |node: &&NodeId| before.contains_key(node) != now.contains_key(node);
        for node in before.keys().chain(now.keys()).filter(changed) {
            self.ways.write().remove(node).inspect(CancellationToken::cancel);
        }
    }

    /// Whether a node is reached over a line.
    pub fn is_away(&self, node: NodeId) -> bool {
        self.away.read().contains_key(&node)
    }

    /// A lane to a node that [is away](OtherSites::is_away).
    pub async fn open(&self, node: NodeId, lane: Lane) -> io::Result<BoxIo> {
        match &self.lines {
            Some(lines) => lines.open(node, lane).await,
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "this node has no lines")),
        }
    }

    /// Cancelled when a node is reached another way than now. To be asked for before a connection is
    /// made; `None` where that never changes.
    pub fn way(&self, node: NodeId) -> Option<CancellationToken> {
        self.lines.as_ref()?;
        Some(self.ways.write().entry(node).or_default().clone())
    }

    /// Takes the lanes that peers open until there are no more; those for copies apart, since their
    /// rate is bounded and they answer late. Returns where each is given out.
    pub fn serve(&self, guard: &Arc<OriginGuard>, stop: &CancellationToken) -> Option<[Lanes; 2]> {
        let lines = Arc::clone(self.lines.as_ref()?);
        let ((others, first), (copies, second)) =
            (mpsc::channel(LANES_MAX), mpsc::channel(LANES_MAX));
        let (guard, ends) = (Arc::clone(guard), stop.clone());
        let taking = async move {
            while let Some((node, lane, stream)) = lines.accepted().await {
                // Cut with this node, or alone.
                let cut = ends.child_token();
                let line = guard.roster().accept(node, cut.clone());
                let to = if matches!(lane, Lane::Copies(_)) { &copies } else { &others };
                let stream = PeerStream::new(Ending::over(stream, cut), line);
                if to.send(Ok(stream)).await.is_err() {
                    return;
                }
            }
        };
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(taking).await });
        Some([first, second])
    }
}

/// A connection whose streams never end by themselves: it is cut here.
pub(crate) struct Ending {
    stream: BoxIo,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ending {
    pub(crate) fn over(stream: BoxIo, cut: CancellationToken) -> BoxIo {
        Box::new(Self { stream, ended: Box::pin(cut.cancelled_owned()) })
    }
}

impl AsyncRead for Ending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(context).is_ready() {
            let cause = "this node stops, hears that one no more, or reaches it another way";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, cause)));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

writes_through!(Ending);
