//! An accepted TLS connection as tonic and hyper take it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::PeerInfo;
use super::limit::Slot;
use super::wire::{WireIo, Wired};

/// A connection after its handshake. Holds its place among the connections until it is dropped.
pub struct TlsIo {
    stream: Box<dyn WireIo>,
    info: PeerInfo,
    /// Until the first byte: when the connection is given up.
    silent_until: Option<Pin<Box<Sleep>>>,
    _slot: Slot,
}

impl TlsIo {
    /// A caller that sends nothing for `silence` after its handshake is cut off: hyper waits for the
    /// first bytes of HTTP/2 without end.
    pub(super) fn new(wired: Wired, address: SocketAddr, slot: Slot, silence: Duration) -> Self {
        let certificate = wired.certificate.map(Arc::new);
        Self {
            stream: wired.io,
            info: PeerInfo::new(address, certificate),
            silent_until: Some(Box::pin(tokio::time::sleep(silence))),
            _slot: slot,
        }
    }

    /// Who is at the other end.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }
}

impl Connected for TlsIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.silent_until = None;
        } else if let Some(until) = &mut self.silent_until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
