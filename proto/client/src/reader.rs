//! Reading back: streams of records that go on from their position after a failure.

use crate::backoff::Backoff;
use crate::{Endpoint, Error, status};
use bytes::Bytes;
use dtm_proto::ingest::ingest_service_client::IngestServiceClient;
use dtm_proto::ingest::{StatusRequest, StatusResponse};
use dtm_proto::records::records_service_client::RecordsServiceClient;
use dtm_proto::records::{
    LookupRequest, LookupResponse, QuarantineRequest, QuarantineResponse, ReadRequest, ReadResponse,
};
use std::time::Duration;
use tonic::Streaming;
use tonic::transport::Channel;

/// Largest answer: a record of 8 MiB and its neighbours.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Failures in a row before a stream gives up.
const FAILURES_MAX: u32 = 20;
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where a stream stands, without opening it; asks one seed after the other.
///
/// # Errors
/// The last answer, or why nobody answered.
pub async fn stream_status(
    endpoint: &Endpoint,
    source: &str,
    stream: &str,
) -> Result<StatusResponse, Error> {
    let request = StatusRequest { source: source.into(), stream: stream.into() };
    with_seeds(endpoint, stream, |channel| {
        let request = endpoint.request(request.clone());
        async move { IngestServiceClient::new(channel).status(request).await }
    })
    .await
}

/// Runs a call against the seeds in turn until one answers for good.
pub(crate) async fn with_seeds<T, F>(
    endpoint: &Endpoint,
    stream: &str,
    mut call: impl FnMut(Channel) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let mut backoff = Backoff::new(BACKOFF_MAX, rand::random());
    let mut last = Error::Closed;
    for attempt in 0..endpoint.seeds().len() * 3 {
        let address = &endpoint.seeds()[attempt % endpoint.seeds().len()];
        let error = match endpoint.channel(address).await {
            Ok(channel) => match call(channel).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status::error_of(address, stream, &status),
            },
            Err(error) => error,
        };
        if !error.retryable() {
            return Err(error);
        }
        last = error;
        if attempt + 1 >= endpoint.seeds().len() {
            tokio::time::sleep(backoff.next(None)).await;
        }
    }
    Err(last)
}

/// Reads records of one cluster.
#[derive(Clone, Debug)]
pub struct Reader {
    endpoint: Endpoint,
}

impl Reader {
    /// A reader with this endpoint's credential or certificate.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Stored records from a position to the end of what is applied.
    #[must_use]
    pub fn read(&self, request: ReadRequest) -> RecordStream<ReadRequest> {
        RecordStream::new(self.endpoint.clone(), request, false)
    }

    /// As [`Reader::read`], then what comes.
    #[must_use]
    pub fn tail(&self, request: ReadRequest) -> RecordStream<ReadRequest> {
        RecordStream::new(self.endpoint.clone(), request, true)
    }

    /// Refused records and why.
    #[must_use]
    pub fn quarantine(&self, request: QuarantineRequest) -> RecordStream<QuarantineRequest> {
        RecordStream::new(self.endpoint.clone(), request, false)
    }

    /// One record by sequence or message id.
    ///
    /// # Errors
    /// `not-found` where it is not stored; else as the seeds answer.
    pub async fn lookup(&self, request: LookupRequest) -> Result<LookupResponse, Error> {
        with_seeds(&self.endpoint, &request.stream.clone(), |channel| {
            let request = self.endpoint.request(request.clone());
            async move { client(channel).lookup(request).await }
        })
        .await
    }
}

fn client(channel: Channel) -> RecordsServiceClient<Channel> {
    RecordsServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A request whose stream can go on from a position.
pub trait Resumable: Clone + Send {
    /// One answer of the stream.
    type Answer: Send;

    /// Starts the call.
    #[doc(hidden)]
    fn call(
        &self,
        channel: Channel,
        endpoint: &Endpoint,
        tail: bool,
    ) -> impl Future<Output = Result<Streaming<Self::Answer>, tonic::Status>> + Send;

    /// Goes on after this answer; false when nothing more is wanted.
    #[doc(hidden)]
    fn advance(&mut self, answer: &Self::Answer) -> bool;
}

impl Resumable for ReadRequest {
    type Answer = ReadResponse;

    async fn call(
        &self,
        channel: Channel,
        endpoint: &Endpoint,
        tail: bool,
    ) -> Result<Streaming<ReadResponse>, tonic::Status> {
        let request = endpoint.request(self.clone());
        let answer = if tail {
            client(channel).tail(request).await
        } else {
            client(channel).read(request).await
        };
        answer.map(tonic::Response::into_inner)
    }

    fn advance(&mut self, answer: &ReadResponse) -> bool {
        let count = answer.records.len() as u64;
        advance(&mut self.position, &answer.position, &mut self.records_max, count)
    }
}

impl Resumable for QuarantineRequest {
    type Answer = QuarantineResponse;

    async fn call(
        &self,
        channel: Channel,
        endpoint: &Endpoint,
        _tail: bool,
    ) -> Result<Streaming<QuarantineResponse>, tonic::Status> {
        let request = endpoint.request(self.clone());
        client(channel).quarantine(request).await.map(tonic::Response::into_inner)
    }

    fn advance(&mut self, answer: &QuarantineResponse) -> bool {
        let count = answer.records.len() as u64;
        advance(&mut self.position, &answer.position, &mut self.records_max, count)
    }
}

fn advance(position: &mut Bytes, to: &Bytes, records_max: &mut u64, count: u64) -> bool {
    if !to.is_empty() {
        position.clone_from(to);
    }
    // 0 means no limit: a limit that is used up must not become none.
    if *records_max == 0 {
        return true;
    }
    *records_max = records_max.saturating_sub(count);
    *records_max > 0
}

/// Answers in order, each once; after a failure it goes on from the last position.
#[derive(Debug)]
pub struct RecordStream<R: Resumable> {
    endpoint: Endpoint,
    request: R,
    tail: bool,
    inner: Option<Streaming<R::Answer>>,
    finished: bool,
    failures: u32,
    turn: usize,
    backoff: Backoff,
}

impl<R: Resumable> RecordStream<R> {
    fn new(endpoint: Endpoint, request: R, tail: bool) -> Self {
        let seed = rand::random();
        Self {
            endpoint,
            request,
            tail,
            inner: None,
            finished: false,
            failures: 0,
            turn: 0,
            backoff: Backoff::new(BACKOFF_MAX, seed),
        }
    }

    /// The request as it would go on now: its position is that of the last answer.
    #[must_use]
    pub fn request(&self) -> &R {
        &self.request
    }

    /// The next answer; `None` at the end.
    ///
    /// # Errors
    /// What the server said for good, or the last of 20 failures in a row.
    pub async fn next(&mut self) -> Result<Option<R::Answer>, Error> {
        while !self.finished {
            match self.try_next().await {
                Ok(Some(answer)) => {
                    self.failures = 0;
                    self.backoff.reset();
                    self.finished = !self.request.advance(&answer);
                    return Ok(Some(answer));
                }
                Ok(None) if !self.tail => self.finished = true,
                Ok(None) => self.inner = None,
                Err(error) => {
                    self.inner = None;
                    self.failures += 1;
                    self.turn += 1;
                    if !error.retryable() || self.failures >= FAILURES_MAX {
                        self.finished = true;
                        return Err(error);
                    }
                    tokio::time::sleep(self.backoff.next(None)).await;
                }
            }
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Option<R::Answer>, Error> {
        let seeds = self.endpoint.seeds();
        let address = seeds[self.turn % seeds.len()].clone();
        let refused = |status: tonic::Status| status::error_of(&address, "", &status);
        if self.inner.is_none() {
            let channel = self.endpoint.channel(&address).await?;
            let call = self.request.call(channel, &self.endpoint, self.tail);
            self.inner = Some(call.await.map_err(refused)?);
        }
        let inner = self.inner.as_mut().expect("it was just set");
        inner.message().await.map_err(refused)
    }
}
