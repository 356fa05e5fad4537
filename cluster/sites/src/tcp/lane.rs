//! A lane over TCP: a connection that ends with its session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Io;
use super::session::Session;

/// Bytes of one lane in both directions. Dropped, its connection ends; the session stays.
pub(crate) struct TcpLane {
    io: Io,
    session: Arc<Session>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session of this lane has ended")
}

impl TcpLane {
    pub(super) fn new(io: Io, session: Arc<Session>) -> Self {
        let ended = Box::pin(session.token().cancelled_owned());
        session.lane_begins();
        Self { io, session, ended }
    }
}

impl Drop for TcpLane {
    fn drop(&mut self) {
        self.session.lane_ended();
    }
}

impl AsyncRead for TcpLane {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever uses a lane reads it: this wakes them.
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(ended()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.session.count(0, buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpLane {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.session.is_open() {
            return Poll::Ready(Err(ended()));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.session.count(written, 0);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
