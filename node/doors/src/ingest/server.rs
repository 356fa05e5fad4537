//! The server of `dtm.ingest.v1`: as tonic generates one, but with a decoder of its own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dtm_proto::ingest::ingest_service_server::SERVICE_NAME;
use dtm_proto::ingest::{StatusRequest, StatusResponse};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::IngestDoor;
use super::codec::{Inbound, PublishCodec};
use crate::shared::Shared;

/// What a message may hold besides its frame.
const MESSAGE_SLACK_BYTES: usize = 1 << 20;

/// Answers the calls of the contract.
#[derive(Clone)]
pub struct IngestServer {
    door: Arc<IngestDoor>,
}

impl IngestServer {
    /// Path of the call that sends records.
    pub const PUBLISH: &'static str = "/dtm.ingest.v1.IngestService/Publish";

    /// Intake of a node.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { door: Arc::new(IngestDoor(shared)) }
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let door = self.door;
        match request.uri().path() {
            Self::PUBLISH => {
                // As they are when the stream is opened: its session keeps them, too.
                let limits = door.0.limits();
                let codec = PublishCodec { frame_records_max: limits.frame_records_max };
                let frame = usize::try_from(limits.frame_bytes_max).unwrap_or(usize::MAX);
                let message = frame.saturating_add(MESSAGE_SLACK_BYTES);
                let mut grpc = Grpc::new(codec).max_decoding_message_size(message);
                let (request, inlet) = door.0.room.arrivals.wait_for_sender(request, message);
                let publish = service_fn(|asked: Request<Streaming<Inbound>>| {
                    let (door, inlet) = (Arc::clone(&door), Arc::clone(&inlet));
                    async move { door.publish(asked, inlet).await }
                });
                grpc.streaming(publish, request).await
            }
            "/dtm.ingest.v1.IngestService/Status" => {
                let mut grpc = Grpc::new(ProstCodec::<StatusResponse, StatusRequest>::default());
                let status = service_fn(|asked: Request<StatusRequest>| {
                    let door = Arc::clone(&door);
                    async move { door.status(asked).await }
                });
                grpc.unary(status, request).await
            }
            _ => Status::unimplemented("").into_http(),
        }
    }
}

impl NamedService for IngestServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for IngestServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.answer(request).await) })
    }
}
