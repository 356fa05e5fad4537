//! TLS between nodes. Certificates are asked for at each new connection, so they reload without a
//! restart; a peer's certificate must name the node it claims to be.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dtm_sites::Lane;
use dtm_types::NodeId;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;
use tonic::transport::server::Connected;

use super::handshakes::Handshakes;
use super::origin::OriginGuard;
use super::presence::Presence;
use super::roster::Line;
use super::sites::{Ending, OtherSites};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKES_MAX: usize = 64;
const ACCEPTED_MAX: usize = 64;

/// Certificates of this node and what those of others say. Asked at each connection.
pub trait PeerTls: Send + Sync + 'static {
    /// For accepting: must demand a client certificate of the cluster's CA.
    fn server(&self) -> Arc<rustls::ServerConfig>;

    /// For connecting: carries this node's certificate, trusts the cluster's CA only.
    fn client(&self) -> Arc<rustls::ClientConfig>;

    /// The name under which a node's certificate was issued.
    fn server_name(&self, node: NodeId) -> ServerName<'static>;

    /// The node that a verified end-entity certificate (DER) names; `None` for anything that is
    /// not a node's certificate.
    fn node_of(&self, certificate: &[u8]) -> Option<NodeId>;

    /// Shakes hands with the node that was called; refuses any other.
    fn connect(&self, node: NodeId, tcp: TcpStream) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(connect(self, node, tcp))
    }

    /// Shakes hands with a caller and tells which node it is; refuses what is not one.
    fn accept(&self, tcp: TcpStream) -> BoxFuture<'_, io::Result<(BoxIo, NodeId)>> {
        Box::pin(accept(self, tcp))
    }
}

/// Bytes between two nodes, in both directions.
pub trait PeerIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> PeerIo for T {}

/// A connection after its handshake.
pub type BoxIo = Box<dyn PeerIo>;

async fn connect<T: PeerTls + ?Sized>(tls: &T, node: NodeId, tcp: TcpStream) -> io::Result<BoxIo> {
    let mut config = (*tls.client()).clone();
    h2_only(&mut config.alpn_protocols);
    let name = tls.server_name(node);
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let named = node_of(tls, stream.get_ref().1.peer_certificates());
    if named != Some(node) {
        count_refused("certificate");
        let cause = format!("certificate of {node} names {named:?}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, cause));
    }
    Ok(Box::new(stream))
}

async fn accept<T: PeerTls + ?Sized>(tls: &T, tcp: TcpStream) -> io::Result<(BoxIo, NodeId)> {
    let mut config = (*tls.server()).clone();
    h2_only(&mut config.alpn_protocols);
    let stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
    let Some(node) = node_of(tls, stream.get_ref().1.peer_certificates()) else {
        count_refused("certificate");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a node's certificate"));
    };
    Ok((Box::new(stream), node))
}

fn count_refused(cause: &'static str) {
    metrics::counter!("dtm_cluster_peer_refused_total", "cause" => cause).increment(1);
}

/// Who is at the other end, by certificate.
#[derive(Clone, Debug)]
pub struct PeerCertificate(Arc<Line>);

impl PeerCertificate {
    pub fn new(line: Arc<Line>) -> Self {
        Self(line)
    }

    /// The connection.
    pub fn line(&self) -> &Line {
        &self.0
    }
}

fn h2_only(alpn: &mut Vec<Vec<u8>>) {
    *alpn = vec![b"h2".to_vec()];
}

/// Connects to one node at whatever address it has now, or over a line where it is of another site.
#[derive(Clone)]
pub struct Connector {
    node: NodeId,
    /// What the connection is for, where the node is of another site.
    lane: Lane,
    address: Arc<dyn Fn() -> String + Send + Sync>,
    way: Way,
}

/// What all connectors of a node stand on.
#[derive(Clone)]
pub struct Way {
    /// Certificates.
    pub tls: Arc<dyn PeerTls>,
    /// What was heard of each peer, and when.
    pub presence: Arc<Presence>,
    /// Peers that are reached over a line.
    pub sites: Arc<OtherSites>,
}

impl Connector {
    /// A way to one node for one kind of traffic; `address` is asked at each connection.
    pub fn new(
        node: NodeId,
        lane: Lane,
        address: Arc<dyn Fn() -> String + Send + Sync>,
        way: Way,
    ) -> Self {
        Self { node, lane, address, way }
    }

    async fn connect(self) -> io::Result<TokioIo<BoxIo>> {
        let Self { node, lane, address, way } = self;
        let changes = way.sites.way(node);
        let stream = if way.sites.is_away(node) {
            way.sites.open(node, lane).await?
        } else {
            let tcp = TcpStream::connect(address()).await?;
            tcp.set_nodelay(true)?;
            way.presence.watch(node, way.tls.connect(node, tcp).await?)
        };
        Ok(TokioIo::new(match changes {
            Some(changes) => Ending::over(stream, changes),
            None => stream,
        }))
    }
}

fn node_of<T: PeerTls + ?Sized>(
    tls: &T,
    certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>,
) -> Option<NodeId> {
    tls.node_of(certificates?.first()?.as_ref())
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<BoxIo>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connect = self.clone().connect();
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake took too long");
            tokio::time::timeout(HANDSHAKE_TIMEOUT, connect).await.map_err(late)?
        })
    }
}

/// An accepted connection of a node: when this node stops, or hears the other no more, it is cut.
pub struct PeerStream {
    stream: BoxIo,
    certificate: PeerCertificate,
}

impl PeerStream {
    /// A connection that was accepted, until `line` is cut.
    pub fn new(stream: BoxIo, line: Arc<Line>) -> Self {
        Self { stream, certificate: PeerCertificate::new(line) }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerCertificate;

    fn connect_info(&self) -> PeerCertificate {
        self.certificate.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

writes_through!(PeerStream);

/// Accepts, shakes hands, checks the certificate; yields what passed.
pub struct Incoming {
    tls: Arc<dyn PeerTls>,
    guard: Arc<OriginGuard>,
    listener: TcpListener,
    handshakes: Arc<Handshakes>,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
    presence: Arc<Presence>,
    stop: CancellationToken,
}

impl Incoming {
    /// Starts accepting until cancelled; at most [`HANDSHAKES_MAX`] handshakes at a time.
    pub fn start(
        listener: TcpListener,
        tls: Arc<dyn PeerTls>,
        guard: Arc<OriginGuard>,
        presence: Arc<Presence>,
        stop: CancellationToken,
    ) -> mpsc::Receiver<io::Result<PeerStream>> {
        let (accepted, receiver) = mpsc::channel(ACCEPTED_MAX);
        let handshakes = Handshakes::new(HANDSHAKES_MAX);
        let incoming =
            Self { tls, guard, listener, handshakes, accepted, presence, stop: stop.clone() };
        tokio::spawn(async move { stop.run_until_cancelled(incoming.run()).await });
        receiver
    }

    async fn run(self) {
        while !self.accepted.is_closed() {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "peer connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (tls, accepted) = (Arc::clone(&self.tls), self.accepted.clone());
            let (guard, stop) = (Arc::clone(&self.guard), self.stop.clone());
            let presence = Arc::clone(&self.presence);
            let handshake = self.handshakes.enter(from.ip().to_canonical());
            tokio::spawn(async move {
                let shaking = shake(stream, &*tls, (&guard, &presence), &stop);
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking) => shaken,
                    () = handshake.given_up() => return count_refused("handshakes"),
                };
                drop(handshake);
                match shaken {
                    Ok(Ok(stream)) => {
                        accepted.send(Ok(stream)).await.ok();
                    }
                    Ok(Err(error)) => tracing::warn!(%from, %error, "peer connection refused"),
                    Err(_) => tracing::warn!(%from, "peer handshake took too long"),
                }
            });
        }
    }
}

async fn shake(
    stream: TcpStream,
    tls: &dyn PeerTls,
    (guard, presence): (&OriginGuard, &Arc<Presence>),
    stop: &CancellationToken,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let (stream, node) = tls.accept(stream).await?;
    let stream = presence.watch(node, stream);
    // Cut with this node, or alone.
    let cut = stop.child_token();
    let line = guard.roster().accept(node, cut.clone());
    Ok(PeerStream::new(Ending::over(stream, cut), line))
}
