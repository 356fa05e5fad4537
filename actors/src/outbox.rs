//! Answers on their way to the client. Acks are cumulative, so a newer one replaces the one that
//! still waits: a slow reader holds one ack, not thousands.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dtm_proto::ingest::publish_response::Response;
use dtm_proto::ingest::{Ack, PublishResponse};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use prost::Message;

use crate::error::Error;

/// Both ends of a session's answers.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Response>,
    bytes: usize,
    end: Option<Result<(), Error>>,
    closed: bool,
    /// Answers that were read.
    taken: u64,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(bytes_max: usize) -> Self {
        let inner = Inner { queue: Mutex::default(), waker: AtomicWaker::new(), bytes_max };
        Self(Arc::new(inner))
    }

    /// Queues an answer. False when the client has let too much pile up or the stream has ended.
    #[must_use]
    pub fn push(&self, response: Response) -> bool {
        let mut queue = self.0.queue.lock();
        if queue.closed || queue.bytes > self.0.bytes_max {
            return false;
        }
        if let (Response::Ack(new), Some(Response::Ack(old))) =
            (&response, queue.waiting.back_mut())
        {
            *old = merged(old, new);
        } else {
            queue.bytes += response_bytes(&response);
            queue.waiting.push_back(response);
        }
        drop(queue);
        self.0.waker.wake();
        true
    }

    /// Of the answers that wait to be read.
    pub(crate) fn bytes(&self) -> usize {
        self.0.queue.lock().bytes
    }

    /// Answers that were read so far.
    pub(crate) fn taken(&self) -> u64 {
        self.0.queue.lock().taken
    }

    /// Ends the answers after what is queued; the first end counts.
    pub fn end(&self, result: Result<(), Error>) {
        let mut queue = self.0.queue.lock();
        if !queue.closed {
            queue.closed = true;
            queue.end = Some(result);
        }
        drop(queue);
        self.0.waker.wake();
    }
}

fn merged(old: &Ack, new: &Ack) -> Ack {
    Ack {
        duplicates: old.duplicates + new.duplicates,
        unverified: old.unverified + new.unverified,
        only_site: old.only_site && new.only_site,
        ..new.clone()
    }
}

fn response_bytes(response: &Response) -> usize {
    match response {
        Response::Refused(refused) => refused.encoded_len(),
        _ => 64,
    }
}

impl Stream for Outbox {
    type Item = Result<PublishResponse, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.waker.register(cx.waker());
        let mut queue = self.0.queue.lock();
        if let Some(response) = queue.waiting.pop_front() {
            queue.bytes = queue.bytes.saturating_sub(response_bytes(&response));
            queue.taken += 1;
            return Poll::Ready(Some(Ok(PublishResponse { response: Some(response) })));
        }
        match queue.end.take() {
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            Some(Ok(())) => Poll::Ready(None),
            None if queue.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn ack(through: u64) -> Response {
        Response::Ack(Ack { acked_through: through, duplicates: 1, ..Ack::default() })
    }

    #[tokio::test]
    async fn waiting_acks_become_one() {
        let mut outbox = Outbox::new(1_000);
        assert!(outbox.push(ack(1)) && outbox.push(ack(2)));
        outbox.end(Ok(()));
        assert!(!outbox.push(ack(3)));
        let only = outbox.next().await.expect("one").expect("fine").response;
        assert_eq!(
            only,
            Some(Response::Ack(Ack { acked_through: 2, duplicates: 2, ..Ack::default() }))
        );
        assert!(outbox.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_bounded() {
        let outbox = Outbox::new(100);
        let refused = || {
            let record = dtm_proto::ingest::RefusedRecord {
                message_id: "x".repeat(60),
                ..Default::default()
            };
            Response::Refused(dtm_proto::ingest::Refused { records: vec![record] })
        };
        let taken = (0..10).filter(|_| outbox.push(refused())).count();
        assert_eq!(taken, 2);
    }
}
