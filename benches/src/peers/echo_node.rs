//! Replicated echo: what a record costs on this machine when nothing is done with it. A node
//! takes frames from its clients over tonic, hands them on to the two other nodes over one stream
//! each, and acknowledges when one of the two has answered. No Raft, no disk, no TLS, no check.
//! With no other nodes it is a plain echo.
//!
//! ```text
//! client ──Frame──▶ node ──Bundle──▶ two others
//!        ◀──Ack────      ◀──Done────  (the first one counts)
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::error::Error;

const ARM: &str = "replicated-echo";
/// Path of the clients' stream.
pub const PUBLISH: &str = "/bench.Echo/Publish";
const FORWARD: &str = "/bench.Echo/Forward";
const QUEUE: usize = 4096;
const BUNDLE_BYTES: usize = 256 << 10;
const BUNDLES_IN_FLIGHT: usize = 4;
const ACKS_PER_CLIENT: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Records of a client.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    /// Sequence of the last record.
    #[prost(uint64, tag = "1")]
    pub through: u64,
    /// The records, one behind the other.
    #[prost(bytes = "bytes", tag = "2")]
    pub records: Bytes,
}

/// All records up to here arrived on two nodes.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Ack {
    /// Sequence.
    #[prost(uint64, tag = "1")]
    pub through: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Bundle {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    frames: Vec<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Done {
    #[prost(uint64, tag = "1")]
    id: u64,
}

/// An endpoint with windows that do not limit.
///
/// # Errors
/// When nobody listens.
pub async fn connect(port: u16) -> Result<Grpc<Channel>, Error> {
    let failed = |error: tonic::transport::Error| Error::protocol(ARM, error.to_string());
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(failed)?;
    let channel = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect()
        .await
        .map_err(failed)?;
    Ok(Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

struct Item {
    records: Bytes,
    through: u64,
    client: mpsc::Sender<Result<Ack, Status>>,
}

impl Item {
    fn answer(self) {
        // A client that is gone, or that reads nothing, gets no acknowledgement.
        let _ = self.client.try_send(Ok(Ack { through: self.through }));
    }
}

/// Serves a node until the process is ended.
///
/// # Errors
/// When the port is taken or another node cannot be reached within 10 s.
pub async fn serve(listen: u16, others: &[u16]) -> Result<(), Error> {
    let (queue, items) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    let others = others.to_vec();
    tasks.spawn(forward(items, others));
    let address = SocketAddr::from(([127, 0, 0, 1], listen));
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .serve(address, Service { queue });
    tokio::select! {
        served = server => served.map_err(|error| Error::protocol(ARM, error.to_string())),
        Some(ended) = tasks.join_next() => {
            ended.map_err(|error| Error::protocol(ARM, error.to_string()))?
        }
    }
}

type Pending = Arc<Mutex<BTreeMap<u64, (Vec<Item>, tokio::sync::OwnedSemaphorePermit)>>>;

async fn forward(mut items: mpsc::Receiver<Item>, others: Vec<u16>) -> Result<(), Error> {
    let pending: Pending = Arc::default();
    let mut peers = Vec::new();
    let mut readers = JoinSet::new();
    for port in others {
        let (sender, mut answers) = open_peer(port).await?;
        peers.push(sender);
        let pending = Arc::clone(&pending);
        readers.spawn(async move {
            while let Some(Ok(done)) = answers.next().await {
                let found = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&done.id);
                for item in found.into_iter().flat_map(|(items, _permit)| items) {
                    item.answer();
                }
            }
        });
    }
    let room = Arc::new(tokio::sync::Semaphore::new(BUNDLES_IN_FLIGHT));
    let mut id = 0;
    while let Some(first) = items.recv().await {
        if peers.is_empty() {
            first.answer();
            continue;
        }
        let permit = Arc::clone(&room).acquire_owned().await;
        let permit = permit.map_err(|error| Error::protocol(ARM, error.to_string()))?;
        let mut bytes = first.records.len();
        let mut taken = vec![first];
        while bytes < BUNDLE_BYTES {
            let Ok(item) = items.try_recv() else { break };
            bytes += item.records.len();
            taken.push(item);
        }
        id += 1;
        let frames: Vec<Bytes> = taken.iter().map(|item| item.records.clone()).collect();
        pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (taken, permit));
        for peer in &peers {
            let bundle = Bundle { id, frames: frames.clone() };
            peer.send(bundle).await.map_err(|_| Error::protocol(ARM, "a node is gone"))?;
        }
    }
    Ok(())
}

async fn open_peer(port: u16) -> Result<(mpsc::Sender<Bundle>, Streaming<Done>), Error> {
    for _ in 0..100 {
        if let Ok(mut grpc) = connect(port).await
            && grpc.ready().await.is_ok()
        {
            let (sender, bundles) = mpsc::channel(64);
            let path = http::uri::PathAndQuery::from_static(FORWARD);
            let codec = ProstCodec::<Bundle, Done>::default();
            let request = Request::new(ReceiverStream::new(bundles));
            let answer = grpc.streaming(request, path, codec).await.map_err(Error::grpc(ARM))?;
            return Ok((sender, answer.into_inner()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::Timeout { what: format!("echo node on port {port}"), seconds: 10 })
}

#[derive(Clone)]
struct Service {
    queue: mpsc::Sender<Item>,
}

impl tower::Service<http::Request<tonic::body::Body>> for Service {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let queue = self.queue.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                PUBLISH => {
                    let codec = ProstCodec::<Ack, Frame>::default();
                    let mut grpc = tonic::server::Grpc::new(codec)
                        .max_decoding_message_size(MESSAGE_BYTES_MAX);
                    grpc.streaming(Publish { queue }, request).await
                }
                FORWARD => {
                    let codec = ProstCodec::<Done, Bundle>::default();
                    let mut grpc = tonic::server::Grpc::new(codec)
                        .max_decoding_message_size(MESSAGE_BYTES_MAX);
                    grpc.streaming(Forward, request).await
                }
                _ => Status::unimplemented("no such path").into_http(),
            })
        })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answering<T> = BoxFuture<'static, Result<Response<Answers<T>>, Status>>;

struct Publish {
    queue: mpsc::Sender<Item>,
}

impl tower::Service<Request<Streaming<Frame>>> for Publish {
    type Response = Response<Answers<Ack>>;
    type Error = Status;
    type Future = Answering<Ack>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        let queue = self.queue.clone();
        Box::pin(async move {
            let (client, acks) = mpsc::channel(ACKS_PER_CLIENT);
            let frames = request.into_inner();
            // Taking frames rides on the answer stream: no task of its own, ends with it.
            let take = frames.filter_map(move |frame| {
                let (queue, client) = (queue.clone(), client.clone());
                async move {
                    let Frame { through, records } = frame.ok()?;
                    queue.send(Item { records, through, client }).await.ok()?;
                    None::<Result<Ack, Status>>
                }
            });
            let answers = futures::stream::select(ReceiverStream::new(acks), take);
            Ok(Response::new(Box::pin(answers) as Answers<Ack>))
        })
    }
}

struct Forward;

impl tower::Service<Request<Streaming<Bundle>>> for Forward {
    type Response = Response<Answers<Done>>;
    type Error = Status;
    type Future = Answering<Done>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bundle>>) -> Self::Future {
        let done = request.into_inner().map(|bundle| bundle.map(|bundle| Done { id: bundle.id }));
        Box::pin(async move { Ok(Response::new(Box::pin(done) as Answers<Done>)) })
    }
}
