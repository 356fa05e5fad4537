//! A lane: one stream of the connection to a peer, named by its first six bytes.
//!
//! ```text
//!  version 1 ▏ kind 1 ▏ group 4, big endian ▏ bytes in both directions …
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::bucket::Bucket;
use crate::wire::WireIo;

/// Bytes of the name.
pub(crate) const NAME_BYTES: usize = 6;
const VERSION: u8 = 1;

/// What a stream is for. Lanes do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes and small questions.
    Control,
    /// Commands that are forwarded to leaders.
    Forward,
    /// The log of a group.
    Log(u32),
    /// Copies of a group: snapshots and what was missed. Bounded in its rate, behind all others.
    Copies(u32),
}

impl Lane {
    pub(crate) fn to_bytes(self) -> [u8; NAME_BYTES] {
        let (kind, group) = match self {
            Self::Control => (0, 0),
            Self::Log(group) => (1, group),
            Self::Copies(group) => (2, group),
            Self::Forward => (3, 0),
        };
        let mut bytes = [VERSION, kind, 0, 0, 0, 0];
        bytes[2..].copy_from_slice(&group.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; NAME_BYTES]) -> Option<Self> {
        let [VERSION, kind, group @ ..] = bytes else { return None };
        match (kind, u32::from_be_bytes(group)) {
            (0, 0) => Some(Self::Control),
            (1, group) => Some(Self::Log(group)),
            (2, group) => Some(Self::Copies(group)),
            (3, 0) => Some(Self::Forward),
            _ => None,
        }
    }

    /// Of what waits at the sender, the higher one leaves first.
    fn priority(self) -> i32 {
        match self {
            Self::Control => 1,
            Self::Forward | Self::Log(_) => 0,
            Self::Copies(_) => -1,
        }
    }
}

/// Bytes in both directions. Dropped, both are ended; the connection stays.
pub struct LaneIo {
    io: WireIo,
    rate: Option<Rate>,
}

struct Rate {
    bucket: Arc<Bucket>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl LaneIo {
    pub(crate) fn new(lane: Lane, io: WireIo, copies: Option<&Arc<Bucket>>) -> Self {
        if let WireIo::Quic(send, _) = &io {
            // Refused only by a stream that has ended: its first use says so.
            send.set_priority(lane.priority()).ok();
        }
        let copies = copies.filter(|_| matches!(lane, Lane::Copies(_)));
        let rate = copies.map(|bucket| Rate { bucket: Arc::clone(bucket), pause: None });
        Self { io, rate }
    }
}

impl Rate {
    /// How many bytes may leave now, at least one.
    fn poll_take(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match self.bucket.take(wanted, Instant::now()) {
                Ok(taken) => return Poll::Ready(taken),
                Err(until) => self.pause = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
    }
}

impl AsyncRead for LaneIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for LaneIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(rate) = &mut this.rate else {
            return Pin::new(&mut this.io).poll_write(context, bytes);
        };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = ready!(rate.poll_take(context, bytes.len()));
        let written = Pin::new(&mut this.io).poll_write(context, &bytes[..taken]);
        let used = if let Poll::Ready(Ok(written)) = &written { *written } else { 0 };
        rate.bucket.give_back(taken - used);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_nothing_else_is() {
        let groups = [Lane::Log(0), Lane::Log(u32::MAX), Lane::Copies(7)];
        for lane in groups.into_iter().chain([Lane::Control, Lane::Forward]) {
            assert_eq!(Lane::from_bytes(lane.to_bytes()), Some(lane));
        }
        for foreign in [[0; 6], [2, 0, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1]] {
            assert_eq!(Lane::from_bytes(foreign), None, "{foreign:?}");
        }
    }
}
