//! Who may see a page.

use axum::extract::Request;
use dtm_identity::{Caller, Operation, access, confirm_operator};
use dtm_types::ErrorCode;

use super::Pages;
use crate::tls::PeerInfo;

/// Who is at the other end of the request's connection.
pub(super) fn peer(request: &Request) -> Option<PeerInfo> {
    request.extensions().get::<PeerInfo>().cloned()
}

/// Checks the client certificate and the operator's row behind it.
pub(super) async fn by_certificate(
    pages: &Pages,
    peer: Option<PeerInfo>,
    operation: Operation,
) -> Result<(), ErrorCode> {
    let info = peer.ok_or(ErrorCode::Unauthenticated)?;
    let caller = info.caller(pages.cluster).map_err(|e| e.code())?;
    access::authorize(&caller, operation, None).map_err(|e| e.code())?;
    if let Caller::Operator { name, .. } = &caller {
        let row = pages.status.operator(name).await;
        confirm_operator(&caller, row.as_ref(), (pages.now_us)()).map_err(|e| e.code())?;
    }
    Ok(())
}

/// Checks a link of ten minutes.
pub(super) fn by_link(pages: &Pages, token: &str) -> Result<(), ErrorCode> {
    pages.link.check(token, (pages.now_us)())
}
