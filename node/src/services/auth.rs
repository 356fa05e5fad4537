//! Who is calling: certificate or source key, held against the rows of meta; then the one table of
//! who may do what.

use dtm_identity::{
    Caller, Operation, SourceKey, authorize, confirm_node, confirm_operator, confirm_source_key,
};
use dtm_machine::reads;
use dtm_types::SourceId;
use tonic::{Request, Status};

use super::shared::Shared;
use super::status::{of_identity, status};
use crate::tls::PeerInfo;

/// The scheme of the `authorization` metadata.
const BEARER: &str = "Bearer ";

impl Shared {
    /// The caller, confirmed. A source key in the metadata comes before the certificate.
    ///
    /// # Errors
    /// Unauthenticated, with what is wrong; nothing is told about which sources exist.
    pub(crate) async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(header) = request.metadata().get("authorization") {
            let text = header.to_str().ok().and_then(|text| text.strip_prefix(BEARER));
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

    async fn by_key(&self, key: &SourceKey) -> Result<Caller, Status> {
        let source = key.source().as_str().to_owned();
        let now_us = self.clock.now_us();
        let rows = self.directory.source_keys(self.view(), &source).await?;
        match confirm_source_key(key, &rows, now_us) {
            Ok(caller) => Ok(caller),
            // It may have been issued a moment ago on another node.
            Err(_) => {
                let rows = self.directory.source_keys_now(self.view(), &source).await?;
                confirm_source_key(key, &rows, now_us).map_err(|e| of_identity(&e))
            }
        }
    }

    async fn confirm(&self, caller: &Caller) -> Result<(), Status> {
        if let Caller::Node { node } = caller {
            let meta = self.directory.meta(self.view()).await?;
            let row = reads::node(meta.state.as_ref(), *node).map_err(super::status::internal)?;
            return confirm_node(*node, row.as_ref()).map_err(|e| of_identity(&e));
        }
        let Caller::Operator { name, .. } = caller else { return Ok(()) };
        let meta = self.directory.meta(self.view()).await?;
        let row = reads::operator(meta.state.as_ref(), name).map_err(super::status::internal)?;
        if confirm_operator(caller, row.as_ref(), self.clock.now_us()).is_ok() {
            return Ok(());
        }
        let meta = self.directory.meta_now(self.view()).await?;
        let row = reads::operator(meta.state.as_ref(), name).map_err(super::status::internal)?;
        confirm_operator(caller, row.as_ref(), self.clock.now_us()).map_err(|e| of_identity(&e))
    }

    /// The caller, if they may do this.
    pub(crate) async fn allow<T>(
        &self,
        request: &Request<T>,
        operation: Operation,
        owner: Option<&str>,
    ) -> Result<Caller, Status> {
        let caller = self.caller(request).await?;
        self.permit(&caller, operation, owner)?;
        Ok(caller)
    }

    /// The table's answer for a confirmed caller.
    pub(crate) fn permit(
        &self,
        caller: &Caller,
        operation: Operation,
        owner: Option<&str>,
    ) -> Result<(), Status> {
        let owner = match owner {
            None => None,
            Some(name) => Some(SourceId::parse(name).ok_or_else(|| {
                status(
                    dtm_types::ErrorCode::InvalidArgument,
                    "a source code is 1 to 64 of a-z 0-9 . - _",
                )
            })?),
        };
        authorize(caller, operation, owner.as_ref()).map_err(|e| of_identity(&e))
    }
}

/// Where a call comes from, for the ledger's sealed details.
pub(crate) fn address<T>(request: &Request<T>) -> String {
    request.extensions().get::<PeerInfo>().map(|peer| peer.address.to_string()).unwrap_or_default()
}
