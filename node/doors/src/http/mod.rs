//! The HTTPS port: health, metrics and the live page.
//!
//! `/healthz` and `/readyz` are open. `/metrics` and `/` need a certificate of an operator, or, for
//! the page, the session that a link of `dtm console open` is exchanged for. Answers are never cached
//! and carry no script.
//!
//! Owner of the state: [`Console`] holds links and sessions; [`LiveStatus`] is asked at each
//! request.

mod access;
mod console;
mod page;
mod status;

pub use console::{Console, LINK_SECONDS, SESSION_SECONDS};
pub use status::{GroupLine, LiveStatus, NodeLine, Overview, Readiness, SourceLine, Today};

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dtm_identity::Operation;
use dtm_types::text::Lang;
use dtm_types::{ClusterId, ErrorCode};
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::telemetry::ContainCalls;

/// What the pages need.
pub struct Pages {
    /// The cluster as this node sees it.
    pub status: Arc<dyn LiveStatus>,
    /// Renders `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Links and sessions of browsers.
    pub console: Arc<Console>,
    /// This cluster.
    pub cluster: ClusterId,
    /// Unix microseconds.
    pub now_us: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// The router of the HTTPS port, for [`dtm_setup::tls::serve_https`].
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/", get(front))
        .fallback(|headers: HeaderMap| async move {
            problem(ErrorCode::NotFound, language(&headers, None))
        })
        .with_state(Arc::new(pages))
        .layer(axum::middleware::from_fn(no_grpc))
        .layer(ContainCalls)
}

/// A client that took this port for the one of `node.grpc` is told so in its own protocol.
async fn no_grpc(request: Request, next: axum::middleware::Next) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return crate::not_the_grpc_port().into_http();
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
    let (peer, headers) = (access::peer(&request), request.headers().clone());
    let lang = language(&headers, asked.lang.as_deref());
    let seen_by = access::by_session(&pages, &headers, peer, Operation::ViewPage).await;
    if let Some(link) = &asked.t {
        let to = asked.lang.as_deref().and_then(Lang::parse);
        // Whoever is in already keeps the session; a look at the head alone uses no link up.
        let entered = match (&seen_by, request.method()) {
            (Ok(()), _) => Ok(None),
            (_, &Method::GET) => pages.console.exchange(link, (pages.now_us)()).map(Some),
            _ => Err(ErrorCode::Unauthenticated),
        };
        return match entered {
            Ok(cookie) => without_link(cookie, to),
            Err(code) => turned_away(&headers, code, lang),
        };
    }
    match seen_by {
        Ok(()) => page::answer(&pages.status.overview().await, lang, (pages.now_us)()),
        Err(code) => turned_away(&headers, code, lang),
    }
}

/// To the page itself, so that the link's secret leaves the address.
fn without_link(cookie: Option<HeaderValue>, lang: Option<Lang>) -> Response {
    let to = match lang {
        None => "/",
        Some(Lang::Vi) => "/?lang=vi",
        Some(Lang::En) => "/?lang=en",
    };
    let headers = [
        (LOCATION, HeaderValue::from_static(to)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let mut answer = (StatusCode::SEE_OTHER, headers).into_response();
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// A browser gets a page that says how to come in, a program the problem.
fn turned_away(headers: &HeaderMap, code: ErrorCode, lang: Lang) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/html") { page::turned_away(code, lang) } else { problem(code, lang) }
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

fn http_status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An error as `application/problem+json` (RFC 9457).
fn problem(code: ErrorCode, lang: Lang) -> Response {
    let title = dtm_types::text::render(lang, &format!("error.{code}"), &[]);
    let status = http_status(code);
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
