//! A request's body that is read message by message, each when it has room. Hot path: nothing is
//! copied but five bytes of a message that waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use dtm_types::ErrorCode;
use futures::FutureExt;
use hyper::body::Frame;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::{Inlet, Taken};
use crate::status::{internal, status_with};

/// Before each message: whether it is compressed, and its length in four bytes.
const HEADER_BYTES: usize = 5;

/// Why a message is not read to its end: the source of the status that says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRead {
    #[error("request_within_ms = {0}: a request was begun and not completed by then")]
    TooLate(u64),
    #[error(
        "arriving_bytes_max = {0}: as many requests of this connection as may wait for room already \
         do; send fewer or smaller ones at once, or over more connections"
    )]
    NoRoom(u64),
}

impl NotRead {
    /// The setting behind it, and its value.
    pub(crate) fn limit(&self) -> (&'static str, u64) {
        match self {
            Self::TooLate(within_ms) => ("request_within_ms", *within_ms),
            Self::NoRoom(bytes) => ("arriving_bytes_max", *bytes),
        }
    }

    fn status(self) -> Status {
        let (name, value) = self.limit();
        let values = [("limit", name.to_owned()), ("value", value.to_string())];
        let mut status = status_with(ErrorCode::Overloaded, &self, &values);
        status.set_source(Arc::new(self));
        status
    }
}

/// What a call's messages are held against.
pub(crate) struct Bounds {
    pub message_bytes_max: usize,
    pub within: Duration,
    /// The setting that all room comes from.
    pub arriving_bytes_max: u64,
    /// Places among the requests of its connection that wait for room.
    pub unread: Arc<Semaphore>,
}

/// Where in the body it stands.
enum At {
    /// So many bytes of a message's header have come, and wait for the others.
    Header([u8; HEADER_BYTES], usize),
    /// The message waits for room; its header was not passed on.
    Waiting([u8; HEADER_BYTES], usize, Pin<Box<dyn Future<Output = Taken> + Send>>),
    /// So many bytes of it, and what is left of its header, are still to come.
    Message(usize, Instant),
}

impl At {
    const BETWEEN: Self = Self::Header([0; HEADER_BYTES], 0);
}

/// See the module.
pub(crate) struct Arriving {
    body: Body,
    inlet: Arc<Inlet>,
    bounds: Bounds,
    at: At,
    /// Came and was not passed on: a piece of the size that HTTP/2 carries at once.
    held: Bytes,
    late: Option<Pin<Box<Sleep>>>,
}

type Passed = Option<Result<Frame<Bytes>, Status>>;

impl Arriving {
    pub(crate) fn new(body: Body, inlet: Arc<Inlet>, bounds: Bounds) -> Self {
        let (at, held) = (At::BETWEEN, Bytes::new());
        Self { body, inlet, bounds, at, held, late: None }
    }

    /// What of the bytes that came may be passed on; nothing where more have to come.
    fn pass(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            match &mut self.at {
                At::Header(..) if self.held.is_empty() => return Poll::Ready(Ok(None)),
                At::Header(header, got) => {
                    let more = self.held.len().min(HEADER_BYTES - *got);
                    let (from, to) = (*got, *got + more);
                    header[from..to].copy_from_slice(&self.held[..more]);
                    let (header, is_split) = (*header, from > 0);
                    if to < HEADER_BYTES {
                        self.at = At::Header(header, to);
                        self.held.advance(more);
                        continue;
                    }
                    self.begin(header, is_split, more)?;
                }
                At::Waiting(header, bytes, room) => {
                    let taken = ready!(room.as_mut().poll(context));
                    *self.inlet.taken.lock() = Some(taken);
                    let (header, bytes) = (*header, *bytes);
                    self.at = self.of(bytes);
                    return Poll::Ready(Ok(Some(Bytes::copy_from_slice(&header))));
                }
                At::Message(0, _) => self.at = At::BETWEEN,
                At::Message(..) if self.held.is_empty() => return Poll::Ready(Ok(None)),
                At::Message(left, _) => {
                    let piece = self.held.split_to(self.held.len().min(*left));
                    *left -= piece.len();
                    return Poll::Ready(Ok(Some(piece)));
                }
            }
        }
    }

    /// A message's header is here, the last `more` bytes of it in `held`.
    fn begin(
        &mut self,
        header: [u8; HEADER_BYTES],
        is_split: bool,
        more: usize,
    ) -> Result<(), Status> {
        let bytes = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let share = self.inlet.share.get().ok_or_else(|| internal("a call without a sender"))?;
        // The message before is decoded: nobody waits holding room.
        drop(self.inlet.taken());
        // Too large: refused by its header.
        let taken =
            if bytes > self.bounds.message_bytes_max { None } else { Some(share.try_take(bytes)) };
        match taken {
            Some(Some(_)) | None if !is_split => {
                *self.inlet.taken.lock() = taken.flatten();
                self.at = self.of(HEADER_BYTES + bytes);
            }
            taken => {
                self.held.advance(more);
                let room: Pin<Box<dyn Future<Output = Taken> + Send>> = match taken.flatten() {
                    Some(taken) => Box::pin(std::future::ready(taken)),
                    None => {
                        let unread = Arc::clone(&self.bounds.unread);
                        let place = unread.try_acquire_owned().map_err(|_| self.no_room())?;
                        let room = Arc::clone(share).take(bytes.min(self.bounds.message_bytes_max));
                        Box::pin(room.inspect(|_| drop(place)))
                    }
                };
                self.at = At::Waiting(header, bytes, room);
            }
        }
        Ok(())
    }

    fn of(&self, bytes: usize) -> At {
        At::Message(bytes, Instant::now() + self.bounds.within)
    }

    /// What waits is left unread and holds its connection's window: more of it would leave nothing
    /// to the requests that have room, and so nobody's would ever be given back.
    fn no_room(&self) -> Status {
        metrics::counter!("dtm_requests_crowded_total").increment(1);
        NotRead::NoRoom(self.bounds.arriving_bytes_max).status()
    }

    /// Whether the message that has begun is too late.
    fn too_late(&mut self, context: &mut Context<'_>) -> Poll<Passed> {
        let At::Message(_, deadline) = self.at else { return Poll::Pending };
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if late.deadline() != deadline {
            late.as_mut().reset(deadline);
        }
        ready!(late.as_mut().poll(context));
        let within_ms = u64::try_from(self.bounds.within.as_millis()).unwrap_or(u64::MAX);
        metrics::counter!("dtm_requests_late_total").increment(1);
        Poll::Ready(Some(Err(NotRead::TooLate(within_ms).status())))
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = ready!(self.pass(context))? {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                return self.too_late(context);
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.held = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                None => return Poll::Ready(self.end()),
            }
        }
    }
}

impl Arriving {
    /// A piece of a header that nothing followed is the decoder's to refuse.
    fn end(&mut self) -> Passed {
        match std::mem::replace(&mut self.at, At::BETWEEN) {
            At::Header(header, got @ 1..) => {
                Some(Ok(Frame::data(Bytes::copy_from_slice(&header[..got]))))
            }
            at => {
                self.at = at;
                None
            }
        }
    }
}
