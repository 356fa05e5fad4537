//! Serves gRPC and HTTPS on accepted connections, with bounds on what one of them may hold.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tower::ServiceExt;

use super::Incoming;

/// A silent connection is asked for a sign of life after this.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(4);
/// And closed when none came by then: what it holds is free again within ten seconds.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(6);
/// A request's header must be complete by then (slow senders).
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent requests on one connection.
const STREAMS_MAX: u32 = 1_024;
/// What a connection may have sent that no handler has read.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The same for one stream.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Requests of one connection that may be left unread at once: one window less than a connection's
/// holds, or those that are read would get nothing. Said in the setting `limits.arriving_bytes_max`.
pub(super) const UNREAD_MAX: usize = (CONNECTION_WINDOW_BYTES / STREAM_WINDOW_BYTES - 1) as usize;
/// Header list of one request.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Open pages and probes get this long to finish at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// A tonic server with the house's bounds. Add services, then
/// `serve_with_incoming_shutdown(listener.run(token), …)`.
pub fn grpc_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
}

/// Serves pages until `incoming` ends, then lets open requests finish for a few seconds. Each
/// request carries [`super::PeerInfo`] in its extensions.
pub async fn serve_https(router: Router, mut incoming: Incoming, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    // Bounded by the door's connections_max: each connection holds a place.
    while let Some(connection) = incoming.next().await {
        let Ok(io) = connection else { continue };
        let info = io.info().clone();
        let service =
            router.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(info.clone());
                request
            });
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            builder
                .http2()
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .max_concurrent_streams(64)
                .max_header_list_size(HEADER_BYTES_MAX);
            let connection =
                builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "HTTPS connection ended");
            }
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}
