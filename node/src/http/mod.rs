//! The HTTPS port: health, metrics and the live page.
//!
//! `/healthz` and `/readyz` are open. `/metrics` and `/` need a certificate of an operator, or, for
//! the page, a link of ten minutes (`dtm console open`). Answers are never cached and carry no
//! script.
//!
//! Owner of the state: nobody; [`LiveStatus`] is asked at each request.

mod access;
mod link;
mod page;
mod status;

pub use link::{LINK_SECONDS, LinkKey};
pub use status::{GroupLine, LiveStatus, NodeLine, Overview, Readiness, SourceLine};

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dtm_identity::Operation;
use dtm_types::text::Lang;
use dtm_types::{ClusterId, ErrorCode};
use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::telemetry::ContainCalls;

/// What the pages need.
pub struct Pages {
    /// The cluster as this node sees it.
    pub status: Arc<dyn LiveStatus>,
    /// Renders `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Checks links of ten minutes.
    pub link: Arc<LinkKey>,
    /// This cluster.
    pub cluster: ClusterId,
    /// Unix microseconds.
    pub now_us: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// The router of the HTTPS port, for [`crate::tls::serve_https`].
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/", get(front))
        .fallback(|| async { problem(ErrorCode::NotFound, Lang::En) })
        .with_state(Arc::new(pages))
        .layer(axum::middleware::from_fn(no_grpc))
        .layer(ContainCalls)
}

/// A client that took this port for the one of `node.grpc` is told so in its own protocol.
async fn no_grpc(request: Request, next: axum::middleware::Next) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return crate::services::not_the_grpc_port().into_http();
    }
    next.run(request).await
}

#[derive(serde::Deserialize)]
struct Asked {
    t: Option<String>,
    lang: Option<String>,
}

async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    match pages.status.readiness().await {
        Readiness::Ready => plain("ready\n".into()),
        Readiness::Degraded { reason } => plain(format!("ready, degraded: {reason}\n")),
        Readiness::NotReady { reason } => {
            let headers = [(RETRY_AFTER, HeaderValue::from_static("2"))];
            (StatusCode::SERVICE_UNAVAILABLE, headers, format!("not ready: {reason}\n"))
                .into_response()
        }
    }
}

async fn metrics(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (peer, lang) = (access::peer(&request), language(request.headers(), None));
    match access::by_certificate(&pages, peer, Operation::ReadMetrics).await {
        Ok(()) => {
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(CONTENT_TYPE, kind)], (pages.metrics)()).into_response()
        }
        Err(code) => problem(code, lang),
    }
}

async fn front(
    State(pages): State<Arc<Pages>>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Response {
    let (peer, lang) = (access::peer(&request), language(request.headers(), asked.lang.as_deref()));
    let seen_by = match &asked.t {
        Some(token) => access::by_link(&pages, token),
        None => access::by_certificate(&pages, peer, Operation::ViewPage).await,
    };
    match seen_by {
        Ok(()) => {
            let overview = pages.status.overview().await;
            page::answer(&overview, lang, asked.t.as_deref(), (pages.now_us)())
        }
        Err(code) => problem(code, lang),
    }
}

/// The query's language, else the browser's first that we have, else Vietnamese.
fn language(headers: &HeaderMap, asked: Option<&str>) -> Lang {
    let header = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let of_header = || header?.split(',').take(16).find_map(|part| Lang::parse(part.trim()));
    asked.and_then(Lang::parse).or_else(of_header).unwrap_or_default()
}

fn plain(text: String) -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], text).into_response()
}

/// An error as `application/problem+json` (RFC 9457).
fn problem(code: ErrorCode, lang: Lang) -> Response {
    let title = dtm_types::text::render(lang, &format!("error.{code}"), &[]);
    let status =
        StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::json!({
        "type": format!("urn:dtm:error:{code}"),
        "title": title,
        "status": status.as_u16(),
        "code": code.name(),
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
#[path = "http_test.rs"]
mod tests;
