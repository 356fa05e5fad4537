//! One connection's right to write one stream: open, send frames, receive what the server says.
//!
//! The layer under [`crate::Publisher`], public for load generators. It keeps nothing and resends
//! nothing.

use crate::{EncodedFrame, Endpoint, Error, status};
use bytes::BufMut;
use dtm_proto::ingest::publish_request::Request;
use dtm_proto::ingest::publish_response::Response;
use dtm_proto::ingest::{Close, Lost, Open, Opened, PublishRequest, PublishResponse};
use futures::future::BoxFuture;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::transport::Channel;

/// What the server says on a session.
pub type SessionEvent = Response;

/// Frames that wait for the connection; what counts is the window, this only decouples the tasks.
const OUTBOUND_FRAMES: usize = 4;
/// Largest answer that is taken: refusals with their texts.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An open stream. Dropping it ends the connection's call without closing the stream.
#[derive(Debug)]
pub struct Session {
    address: Arc<str>,
    stream: Arc<str>,
    opened: Opened,
    outbound: mpsc::Sender<Outbound>,
    inbound: Streaming<PublishResponse>,
}

impl Session {
    /// Opens a stream at `address` and waits until the cluster has committed the session.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Rejected`], [`Error::Superseded`], [`Error::OutcomeUnknown`]
    /// when no answer came within twice the endpoint's connect timeout: a session may then be open,
    /// and the next one fences it.
    pub async fn open(endpoint: &Endpoint, address: &str, open: Open) -> Result<Self, Error> {
        let limit = endpoint.connect_timeout();
        Self::open_within(endpoint, address, open, (limit, limit * 2)).await
    }

    /// As [`Session::open`], with limits of its own for the connection and for the answer after it.
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::Connect`] where the connection takes too long: nothing was
    /// asked then.
    pub async fn open_within(
        endpoint: &Endpoint,
        address: &str,
        open: Open,
        (connect, answer): (Duration, Duration),
    ) -> Result<Self, Error> {
        let late = |_| Error::Connect {
            address: address.to_owned(),
            reason: format!("no connection within {connect:?}"),
        };
        let channel = tokio::time::timeout(connect, endpoint.channel(address));
        let channel = channel.await.map_err(late)??;
        let unknown = |_| Error::OutcomeUnknown { address: address.to_owned(), waited: answer };
        let opening = Self::open_over(endpoint, address, channel, open);
        tokio::time::timeout(answer, opening).await.map_err(unknown)?
    }

    fn open_over<'a>(
        endpoint: &'a Endpoint,
        address: &'a str,
        channel: Channel,
        open: Open,
    ) -> BoxFuture<'a, Result<Self, Error>> {
        Box::pin(async move {
            let stream: Arc<str> = open.stream.as_str().into();
            let (outbound, frames) = mpsc::channel(OUTBOUND_FRAMES);
            let first = PublishRequest { request: Some(Request::Open(open)) };
            outbound.try_send(Outbound::Message(first)).expect("the channel is new and empty");

            let refused = |status: Status| status::error_of(address, &stream, &status);
            let mut grpc =
                tonic::client::Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            grpc.ready().await.map_err(|e| Error::Connect {
                address: address.to_owned(),
                reason: status::innermost(&e),
            })?;
            let path = http::uri::PathAndQuery::from_static("/dtm.ingest.v1.IngestService/Publish");
            let request = endpoint.request(ReceiverStream::new(frames));
            let answer = grpc.streaming(request, path, PublishCodec).await.map_err(refused)?;
            let mut inbound = answer.into_inner();
            let first = inbound.message().await.map_err(refused)?;
            let Some(Response::Opened(opened)) = first.and_then(|answer| answer.response) else {
                return Err(Error::Protocol {
                    address: address.to_owned(),
                    what: "the first answer is not Opened",
                });
            };
            if opened.next_sequence == 0 {
                return Err(Error::Protocol {
                    address: address.to_owned(),
                    what: "sequences count from 1",
                });
            }
            Ok(Self { address: address.into(), stream, opened, outbound, inbound })
        })
    }

    /// Where this session is connected.
    #[must_use]
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// The server's answer to the open.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Hands a frame to the connection; waits while it is busy. The caller keeps to the window.
    /// Cancel-safe: a frame is handed over or not.
    ///
    /// # Errors
    /// [`Error::Connect`] when the connection is gone.
    pub async fn send_frame(&self, frame: EncodedFrame) -> Result<(), Error> {
        self.send(Outbound::Frame(frame)).await
    }

    /// The way out alone, to wait on it beside the events.
    pub(crate) fn sender(&self) -> SessionSender {
        SessionSender(self.outbound.clone())
    }

    /// Says that sequences are lost.
    ///
    /// # Errors
    /// [`Error::Connect`] when the connection is gone.
    pub async fn report_lost(&self, from_sequence: u64, to_sequence: u64) -> Result<(), Error> {
        let request = Request::Lost(Lost { from_sequence, to_sequence });
        self.send(Outbound::Message(PublishRequest { request: Some(request) })).await
    }

    /// Asks to close; `finished` says that nothing will ever follow on this stream. The answer is
    /// [`SessionEvent::Closed`].
    ///
    /// # Errors
    /// [`Error::Connect`] when the connection is gone.
    pub async fn close(&self, finished: bool) -> Result<(), Error> {
        let request = Request::Close(Close { finished });
        self.send(Outbound::Message(PublishRequest { request: Some(request) })).await
    }

    /// The next thing the server says; `None` at the end of the call. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Superseded`].
    pub async fn next_event(&mut self) -> Result<Option<SessionEvent>, Error> {
        loop {
            match self.inbound.message().await {
                // An answer of a kind that this version does not know is passed over.
                Ok(Some(PublishResponse { response: None })) => {}
                Ok(Some(PublishResponse { response })) => return Ok(response),
                Ok(None) => return Ok(None),
                Err(status) => {
                    return Err(status::error_of(&self.address, &self.stream, &status));
                }
            }
        }
    }

    async fn send(&self, message: Outbound) -> Result<(), Error> {
        self.outbound.send(message).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> Error {
        Error::Connect { address: self.address.to_string(), reason: "connection is gone".into() }
    }
}

/// The way out of a session.
pub(crate) struct SessionSender(mpsc::Sender<Outbound>);

impl SessionSender {
    /// Waits for room for one message; `None` when the connection is gone. Cancel-safe.
    pub(crate) async fn ready(&self) -> Option<Ready<'_>> {
        self.0.reserve().await.ok().map(Ready)
    }
}

/// Room for one message.
pub(crate) struct Ready<'a>(mpsc::Permit<'a, Outbound>);

impl Ready<'_> {
    pub(crate) fn send_frame(self, frame: EncodedFrame) {
        self.0.send(Outbound::Frame(frame));
    }
}

/// What goes out: frames are encoded already.
#[derive(Debug)]
pub(crate) enum Outbound {
    Message(PublishRequest),
    Frame(EncodedFrame),
}

/// Writes frames as they lie.
struct PublishCodec;

impl Codec for PublishCodec {
    type Encode = Outbound;
    type Decode = PublishResponse;
    type Encoder = OutboundEncoder;
    type Decoder = ResponseDecoder;

    fn encoder(&mut self) -> OutboundEncoder {
        OutboundEncoder
    }

    fn decoder(&mut self) -> ResponseDecoder {
        ResponseDecoder
    }
}

struct OutboundEncoder;

impl Encoder for OutboundEncoder {
    type Item = Outbound;
    type Error = Status;

    fn encode(&mut self, item: Outbound, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Outbound::Message(message) => {
                message.encode(out).map_err(|_| Status::internal("the buffer does not grow"))?
            }
            Outbound::Frame(frame) => {
                out.reserve(frame.wire_bytes());
                debug_assert!(out.remaining_mut() >= frame.wire_bytes());
                frame.encode_request(out);
            }
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Small at rest: a process may hold hundreds of idle streams.
        BufferSettings::new(1024, 32 * 1024)
    }
}

struct ResponseDecoder;

impl Decoder for ResponseDecoder {
    type Item = PublishResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<PublishResponse>, Status> {
        PublishResponse::decode(from)
            .map(Some)
            .map_err(|e| Status::internal(format!("answer cannot be read: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1024, 32 * 1024)
    }
}
