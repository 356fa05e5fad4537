//! What carries lanes between two nodes: a QUIC connection, or a session over TCP. Lines know no
//! difference.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Error;
use crate::tcp::{Session, TcpLane};

/// An open connection to a peer. Clones are of the same one.
#[derive(Clone)]
pub(crate) enum Wire {
    Quic(Connection),
    Tcp(Arc<Session>),
}

/// What a connection counted since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Packets that were lost, of those sent; TCP does not tell.
    pub(crate) packets_lost: u64,
    pub(crate) packets_sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// Bytes of one lane in both directions.
pub(crate) enum WireIo {
    Quic(SendStream, RecvStream),
    Tcp(Box<TcpLane>),
}

impl Wire {
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Quic(connection) => connection.close_reason().is_none(),
            Self::Tcp(session) => session.is_open(),
        }
    }

    /// Ends it and all lanes on it. Over QUIC the peer is told why.
    pub(crate) fn close(&self, code: VarInt, why: &[u8]) {
        match self {
            Self::Quic(connection) => connection.close(code, why),
            Self::Tcp(session) => session.close(),
        }
    }

    /// Returns when it has ended.
    pub(crate) async fn closed(&self) {
        match self {
            Self::Quic(connection) => drop(connection.closed().await),
            Self::Tcp(session) => session.closed().await,
        }
    }

    /// A lane that has no name yet. Cancel-safe.
    pub(crate) async fn open(&self) -> Result<WireIo, Error> {
        match self {
            Self::Quic(connection) => {
                let (send, receive) = connection.open_bi().await?;
                Ok(WireIo::Quic(send, receive))
            }
            Self::Tcp(session) => Ok(WireIo::Tcp(Box::new(session.open().await?))),
        }
    }

    /// The next lane that the peer opens; `None` once the connection has ended. One caller.
    pub(crate) async fn accept(&self) -> Option<WireIo> {
        match self {
            Self::Quic(connection) => {
                let (send, receive) = connection.accept_bi().await.ok()?;
                Some(WireIo::Quic(send, receive))
            }
            Self::Tcp(session) => Some(WireIo::Tcp(Box::new(session.accept().await?))),
        }
    }

    pub(crate) fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(connection) => connection.rtt(),
            Self::Tcp(session) => session.round_trip(),
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                Figures {
                    packets_lost: stats.path.lost_packets,
                    packets_sent: stats.path.sent_packets,
                    sent_bytes: stats.udp_tx.bytes,
                    received_bytes: stats.udp_rx.bytes,
                }
            }
            Self::Tcp(session) => session.figures(),
        }
    }
}

impl AsyncRead for WireIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(_, receive) => AsyncRead::poll_read(Pin::new(receive), context, buffer),
            Self::Tcp(lane) => Pin::new(lane).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic(send, _) => AsyncWrite::poll_write(Pin::new(send), context, bytes),
            Self::Tcp(lane) => Pin::new(lane).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(send, _) => AsyncWrite::poll_flush(Pin::new(send), context),
            Self::Tcp(lane) => Pin::new(lane).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(send, _) => AsyncWrite::poll_shutdown(Pin::new(send), context),
            Self::Tcp(lane) => Pin::new(lane).poll_shutdown(context),
        }
    }
}
