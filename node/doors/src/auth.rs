//! Who is calling: certificate or source key, held against the rows of meta; then the one table of
//! who may do what.

use dtm_identity::{
    Caller, Operation, SourceKey, authorize, confirm_node, confirm_operator, confirm_source_key,
};
use dtm_machine::reads;
use dtm_machine::seams::{GroupView, StateError, StateRead};
use dtm_setup::tls::PeerInfo;
use dtm_types::ErrorCode;
use dtm_types::text::Told;
use tonic::{Code, Request, Status};

use super::cluster_status::CONFIRM_WITHIN;
use super::rights::held;
use super::shared::Shared;
use super::status::{internal, of_identity, source_id, told};

/// The scheme of the `authorization` metadata.
const BEARER: &str = "Bearer ";

impl Shared {
    /// The caller, confirmed. A source key in the metadata comes before the certificate.
    ///
    /// # Errors
    /// Unauthenticated, with what is wrong; nothing is told about which sources exist.
    pub async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(header) = request.metadata().get("authorization") {
            let text = header.to_str().ok().and_then(bearer);
            let key = text
                .map(str::trim)
                .ok_or(dtm_identity::Error::SourceKey)
                .and_then(SourceKey::parse);
            return self.by_key(&key.map_err(|e| of_identity(&e))?).await;
        }
        let Some(peer) = request.extensions().get::<PeerInfo>() else {
            return Ok(Caller::Anonymous);
        };
        let caller = peer.caller(self.cluster_id).map_err(|e| of_identity(&e))?;
        self.confirm(&caller).await?;
        Ok(caller)
    }

    /// Rows of meta that may decide about a credential: as they are here when the leader confirmed
    /// them within 5 s, else confirmed now.
    async fn meta_of_rights(&self) -> Result<GroupView, Status> {
        if !self.rights.is_fresh(self.clock.monotonic_us()) {
            self.confirm_meta().await?;
        }
        self.directory.meta(self.view()).await
    }

    /// Meta is here with everything committed before the call. However many callers with whatever
    /// credentials wait for that, the leader is asked once at a time.
    async fn confirm_meta(&self) -> Result<(), Status> {
        let ask = async {
            let asked_us = self.clock.monotonic_us();
            self.directory.meta_now(self.view()).await?;
            self.rights.confirmed(asked_us);
            Ok(())
        };
        self.directory.confirmations.confirm(ask).await
    }

    /// Holds a credential against meta; what does not hold here is asked of the leader, since it may
    /// have been issued a moment ago on another node.
    async fn held<T>(
        &self,
        judge: impl Fn(&dyn StateRead) -> Result<Result<T, dtm_identity::Error>, StateError>,
    ) -> Result<T, Status> {
        let meta = self.meta_of_rights().await?;
        if let Ok(held) = judge(meta.state.as_ref()).map_err(internal)? {
            return Ok(held);
        }
        self.confirm_meta().await?;
        let meta = self.directory.meta(self.view()).await?;
        judge(meta.state.as_ref()).map_err(internal)?.map_err(|e| of_identity(&e))
    }

    async fn by_key(&self, key: &SourceKey) -> Result<Caller, Status> {
        let (source, now_us) = (key.source().as_str(), self.clock.now_us());
        let judge = |state: &dyn StateRead| {
            Ok(confirm_source_key(key, &reads::source_keys(state, source)?, now_us))
        };
        self.held(judge).await
    }

    async fn confirm(&self, caller: &Caller) -> Result<(), Status> {
        let now_us = self.clock.now_us();
        match caller {
            Caller::Anonymous => Ok(()),
            // A peer is asked for by nodes that may have no leader to ask.
            Caller::Node { node } => {
                let meta = self.directory.meta(self.view()).await?;
                let row = reads::node(meta.state.as_ref(), *node).map_err(internal)?;
                confirm_node(*node, row.as_ref()).map_err(|e| of_identity(&e))
            }
            Caller::Operator { name, .. } => {
                let judge = |state: &dyn StateRead| {
                    let row = reads::operator(state, name)?;
                    Ok(confirm_operator(caller, row.as_ref(), now_us))
                };
                self.held(judge).await
            }
            Caller::Source { .. } => {
                self.held(|state: &dyn StateRead| held(state, caller, now_us)).await
            }
        }
    }

    /// The caller, if they may do this.
    pub async fn allow<T>(
        &self,
        request: &Request<T>,
        operation: Operation,
        owner: Option<&str>,
    ) -> Result<Caller, Status> {
        let caller = self.caller(request).await?;
        self.permit(&caller, operation, owner)?;
        Ok(caller)
    }

    /// As [`Shared::allow`], for what an operator has to see most when meta has no majority: then the
    /// operator's row as this node knows it decides. For what shows state of the cluster only.
    pub async fn allow_known<T>(
        &self,
        request: &Request<T>,
        operation: Operation,
    ) -> Result<Caller, Status> {
        let confirmed = self.allow(request, operation, None);
        let unconfirmed = match tokio::time::timeout(CONFIRM_WITHIN, confirmed).await {
            Ok(Ok(caller)) => return Ok(caller),
            Ok(Err(status)) if status.code() != Code::Unavailable => return Err(status),
            Ok(Err(status)) => status,
            Err(_) => told(ErrorCode::Unavailable, &Told::new("refused.meta_late")),
        };
        let peer = request.extensions().get::<PeerInfo>().ok_or_else(|| unconfirmed.clone())?;
        let caller = peer.caller(self.cluster_id).map_err(|e| of_identity(&e))?;
        let Caller::Operator { name, .. } = &caller else { return Err(unconfirmed) };
        let meta = self.directory.meta(self.view()).await?;
        let row = reads::operator(meta.state.as_ref(), name).map_err(internal)?;
        confirm_operator(&caller, row.as_ref(), self.clock.now_us())
            .map_err(|e| of_identity(&e))?;
        self.permit(&caller, operation, None)?;
        Ok(caller)
    }

    /// The table's answer for a confirmed caller.
    pub fn permit(
        &self,
        caller: &Caller,
        operation: Operation,
        owner: Option<&str>,
    ) -> Result<(), Status> {
        let owner = owner.map(source_id).transpose()?;
        authorize(caller, operation, owner.as_ref()).map_err(|e| of_identity(&e))
    }
}

/// What stands behind the scheme, which is written in any case (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, secret) = header.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(secret)
}

/// Where a call comes from, for the ledger's sealed details.
pub fn address<T>(request: &Request<T>) -> String {
    request.extensions().get::<PeerInfo>().map(|peer| peer.address.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_written_in_any_case() {
        for header in ["Bearer abc", "bearer abc", "BEARER abc"] {
            assert_eq!(bearer(header), Some("abc"), "{header}");
        }
        for header in ["", "Bear", "Basic abc", "Bearerabc", "Bé bearer"] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }
}
