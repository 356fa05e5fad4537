//! Accepts TCP, bounds it, and hands over connections after their handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::limit::{Limit, Slot};
use super::{Door, Error, Material, TlsIo, TlsWire, Wire};
use crate::config::Tls;

/// Connections that wait for tonic or hyper to take them.
const WAITING_MAX: usize = 64;
/// Pause after the operating system refused to accept (no file handles): it does not get better
/// by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections for [`tonic::transport::server::Router::serve_with_incoming_shutdown`] or
/// [`super::serve_https`].
pub type Incoming = ReceiverStream<Result<TlsIo, io::Error>>;

/// Bounds of a door.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// A handshake that takes longer is dropped.
    pub handshake_timeout: Duration,
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one address.
    pub per_address_max: usize,
}

impl From<&Tls> for ListenOptions {
    fn from(tls: &Tls) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            handshake_timeout: Duration::from_millis(tls.handshake_timeout_ms),
            connections_max: number(tls.connections_max),
            per_address_max: number(tls.connections_per_address_max),
        }
    }
}

/// An open port.
pub struct Listener {
    tcp: TcpListener,
    door: Door,
    material: Arc<Material>,
    options: ListenOptions,
    wire: Arc<dyn Wire>,
}

impl Listener {
    /// Opens the port; nothing is accepted before [`Listener::run`].
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn bind(
        address: SocketAddr,
        door: Door,
        material: Arc<Material>,
        options: ListenOptions,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, door: door.name(), source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { tcp, door, material, options, wire: Arc::new(TlsWire) })
    }

    /// Shakes hands in another way, as the planted bugs do.
    pub fn with_wire(mut self, wire: Arc<dyn Wire>) -> Self {
        self.wire = wire;
        self
    }

    /// Where it listens: the real port where 0 was asked for.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn address(&self) -> Result<SocketAddr, Error> {
        let failed = |source| Error::Listen {
            address: ([0, 0, 0, 0], 0).into(),
            door: self.door.name(),
            source,
        };
        self.tcp.local_addr().map_err(failed)
    }

    /// The bare port, for a layer that shakes hands itself with the same certificates.
    pub fn into_tcp(self) -> TcpListener {
        self.tcp
    }

    /// Starts accepting until `shutdown`. The stream ends then.
    pub fn run(self, shutdown: CancellationToken) -> Incoming {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(self.accept(sender, shutdown));
        ReceiverStream::new(receiver)
    }

    async fn accept(
        self,
        sender: mpsc::Sender<Result<TlsIo, io::Error>>,
        shutdown: CancellationToken,
    ) {
        let limit = Limit::new(self.options.connections_max, self.options.per_address_max);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                () = sender.closed() => return,
                accepted = self.tcp.accept() => accepted,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, door = self.door.name(), "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match limit.enter(address.ip()) {
                Ok(slot) => self.shake_hands(tcp, address, slot, sender.clone()),
                Err(reason) => self.refused(reason),
            }
        }
    }

    fn refused(&self, reason: &'static str) {
        metrics::counter!("dtm_connections_refused_total", "door" => self.door.name(), "reason" => reason).increment(1);
    }

    /// Bounded by the slot it holds and by the timeout.
    fn shake_hands(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        slot: Slot,
        sender: mpsc::Sender<Result<TlsIo, io::Error>>,
    ) {
        let accepting = self.material.server(self.door);
        let wire = Arc::clone(&self.wire);
        let (door, timeout) = (self.door, self.options.handshake_timeout);
        tokio::spawn(async move {
            let refuse = |reason: &'static str, error: &dyn std::fmt::Display| {
                tracing::debug!(%address, door = door.name(), reason, %error, "connection refused");
                metrics::counter!("dtm_connections_refused_total", "door" => door.name(), "reason" => reason)
                    .increment(1);
            };
            // Small acks must not wait for more to send.
            if let Err(error) = tcp.set_nodelay(true) {
                return refuse("socket", &error);
            }
            let accepted = tokio::time::timeout(timeout, wire.accept(tcp, accepting)).await;
            let wired = match accepted {
                Ok(Ok(wired)) => wired,
                Ok(Err(error)) => return refuse("handshake", &error),
                Err(error) => return refuse("handshake_timeout", &error),
            };
            let io = TlsIo::new(wired, address, slot, timeout);
            metrics::counter!("dtm_connections_total", "door" => door.name()).increment(1);
            // The receiver is gone only when the door is closing.
            let _ = sender.send(Ok(io)).await;
        });
    }
}
