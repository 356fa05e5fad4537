//! Who may see a page.

use axum::extract::Request;
use dtm_identity::{Caller, Operation, access, confirm_operator};
use dtm_setup::tls::PeerInfo;
use dtm_types::ErrorCode;
use http::HeaderMap;

use super::Pages;

/// Who is at the other end of the request's connection.
pub(crate) fn peer(request: &Request) -> Option<PeerInfo> {
    request.extensions().get::<PeerInfo>().cloned()
}

/// Checks the client certificate and the operator's row behind it.
///
/// # Errors
/// The code that is told.
pub(crate) async fn by_certificate(
    pages: &Pages,
    peer: Option<PeerInfo>,
    operation: Operation,
) -> Result<(), ErrorCode> {
    let info = peer.ok_or(ErrorCode::Unauthenticated)?;
    let caller = info.caller(pages.cluster).map_err(|e| e.code())?;
    may(pages, &caller, operation).await
}

/// Checks the session of a browser and the operator's row behind it, else the client certificate.
///
/// # Errors
/// The code that is told: of the session, where there is one and no certificate.
pub(crate) async fn by_session(
    pages: &Pages,
    headers: &HeaderMap,
    peer: Option<PeerInfo>,
    operation: Operation,
) -> Result<(), ErrorCode> {
    let by_session = match pages.console.caller(headers, (pages.now_us)()) {
        Ok(Some(caller)) => may(pages, &caller, operation).await,
        Ok(None) => Err(ErrorCode::Unauthenticated),
        Err(code) => Err(code),
    };
    match by_session {
        Ok(()) => Ok(()),
        Err(code) if peer.as_ref().is_none_or(|peer| peer.certificate.is_none()) => Err(code),
        Err(_) => by_certificate(pages, peer, operation).await,
    }
}

async fn may(pages: &Pages, caller: &Caller, operation: Operation) -> Result<(), ErrorCode> {
    access::authorize(caller, operation, None).map_err(|e| e.code())?;
    if let Caller::Operator { name, .. } = caller {
        let row = pages.status.operator(name).await;
        confirm_operator(caller, row.as_ref(), (pages.now_us)()).map_err(|e| e.code())?;
    }
    Ok(())
}
