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
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

/// Largest answer: a record of 8 MiB and its neighbours.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Failures in a row before a stream gives up.
const FAILURES_MAX: u32 = 20;
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A call that held for so long ends a row of failures, though nothing was to be told: a tail of a
/// quiet source goes on over as many restarts of nodes as come.
const HELD: Duration = Duration::from_secs(5);

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

/// Answers in order, each once; after a failure it goes on from the last position, at the next seed.
#[derive(Debug)]
pub struct RecordStream<R: Resumable> {
    endpoint: Endpoint,
    request: R,
    tail: bool,
    inner: Option<Streaming<R::Answer>>,
    finished: bool,
    failures: u32,
    /// Failures in a row before the first answer, at most.
    failures_at_first: u32,
    has_begun: bool,
    turn: usize,
    backoff: Backoff,
    /// When the present call was accepted.
    since: Option<Instant>,
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
            failures_at_first: FAILURES_MAX,
            has_begun: false,
            turn: 0,
            backoff: Backoff::new(BACKOFF_MAX, seed),
            since: None,
        }
    }

    /// Gives up before the first answer once each seed has failed twice: for people, who want to know
    /// at once that there is no cluster or that it does not want them.
    #[must_use]
    pub fn hasty(mut self) -> Self {
        let seeds = u32::try_from(self.endpoint.seeds().len()).unwrap_or(FAILURES_MAX);
        self.failures_at_first = seeds.saturating_mul(2).min(FAILURES_MAX);
        self
    }

    /// The request as it would go on now: its position is that of the last answer.
    #[must_use]
    pub fn request(&self) -> &R {
        &self.request
    }

    /// The next answer; `None` at the end, which a tail has only by its limit. Cancel-safe.
    ///
    /// # Errors
    /// What the server said for good, or the last of 20 failures in a row. [`RecordStream::request`]
    /// says from where another one would go on.
    pub async fn next(&mut self) -> Result<Option<R::Answer>, Error> {
        while !self.finished {
            match self.try_next().await {
                Ok(Some(answer)) => {
                    self.failures = 0;
                    self.has_begun = true;
                    self.backoff.reset();
                    self.finished = !self.request.advance(&answer);
                    return Ok(Some(answer));
                }
                Ok(None) if !self.tail => self.finished = true,
                outcome => {
                    // A tail is ended by a node that goes; another one has the records.
                    let error = outcome.err().unwrap_or_else(|| self.ended());
                    self.inner = None;
                    if self.since.take().is_some_and(|since| since.elapsed() >= HELD) {
                        self.failures = 0;
                        self.has_begun = true;
                        self.backoff.reset();
                    }
                    self.failures += 1;
                    self.turn += 1;
                    let most = if self.has_begun { FAILURES_MAX } else { self.failures_at_first };
                    if !error.retryable() || self.failures >= most {
                        self.finished = true;
                        return Err(error);
                    }
                    tokio::time::sleep(self.backoff.next(None)).await;
                }
            }
        }
        Ok(None)
    }

    fn ended(&self) -> Error {
        let seeds = self.endpoint.seeds();
        let address = seeds[self.turn % seeds.len()].clone();
        Error::Connect { address, reason: "it ended the tail".into() }
    }

    async fn try_next(&mut self) -> Result<Option<R::Answer>, Error> {
        let seeds = self.endpoint.seeds();
        let address = seeds[self.turn % seeds.len()].clone();
        let refused = |status: tonic::Status| status::error_of(&address, "", &status);
        if self.inner.is_none() {
            let channel = self.endpoint.channel(&address).await?;
            let call = self.request.call(channel, &self.endpoint, self.tail);
            self.inner = Some(call.await.map_err(refused)?);
            self.since = Some(Instant::now());
        }
        let inner = self.inner.as_mut().expect("it was just set");
        inner.message().await.map_err(refused)
    }
}
