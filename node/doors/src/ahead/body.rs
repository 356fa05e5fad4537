//! The body of an answer that is counted: sends its pages in pieces, and gives room back with each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dtm_types::ErrorCode;
use dtm_types::text::Told;
use http::HeaderMap;
use hyper::body::Frame;
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;

use super::{Next, Reading};
use crate::status::told;

/// What the HTTP layer takes at once: it holds two of them where its client takes nothing.
const PIECE_BYTES: usize = 32 << 10;

/// Counts the answers of a read, which stands among the response's extensions.
pub fn metered(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<Arc<Reading>>() {
        Some(reading) => response.map(|work| Body::new(Metered::new(reading, work))),
        None => response,
    }
}

struct Metered {
    reading: Arc<Reading>,
    /// Taken out where the read is ended for others.
    work: Arc<Mutex<Option<Body>>>,
    is_told: bool,
}

impl Metered {
    fn new(reading: Arc<Reading>, work: Body) -> Self {
        let work = Arc::new(Mutex::new(Some(work)));
        reading.begins(&work);
        Self { reading, work, is_told: false }
    }

    /// The status that it ends with, once.
    fn ended(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let mut trailers = HeaderMap::new();
        let ended = told(ErrorCode::Unavailable, &Told::new("refused.read_stalled"));
        Some(ended.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
    }
}

impl hyper::body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match self.reading.next(PIECE_BYTES) {
                Next::Piece(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Next::Ended => return Poll::Ready(self.ended()),
                Next::Nothing => {}
            }
            let work = Arc::clone(&self.work);
            let polled = match work.lock().as_mut() {
                Some(work) => ready!(Pin::new(work).poll_frame(context)),
                None => return Poll::Ready(self.ended()),
            };
            match polled.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(answers))) => self.reading.fill(answers),
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                None => return Poll::Ready(None),
            }
        }
    }
}
