//! gRPC reflection behind the table of who may do what: contracts are for those who are known.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dtm_identity::Operation;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::Service;

use super::shared::Shared;

/// A service that is asked only by who may do one thing.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    shared: Arc<Shared>,
    operation: Operation,
}

/// The reflection service, guarded.
pub fn reflection(
    shared: &Arc<Shared>,
) -> Guarded<
    impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static,
> {
    let inner = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(dtm_proto::DESCRIPTORS)
        .build_v1()
        .expect("the committed descriptors decode");
    Guarded { inner, shared: Arc::clone(shared), operation: Operation::Reflection }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let (shared, operation) = (Arc::clone(&self.shared), self.operation);
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let asked = Request::from_parts(metadata, request.extensions().clone(), ());
        Box::pin(async move {
            match shared.allow(&asked, operation, None).await {
                Ok(_) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
