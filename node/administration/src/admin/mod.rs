//! `dtm.admin.v1`: what operators do. Every change goes through [`act`]: one command of meta
//! with its leaf in the same entry.

mod anchors;
mod approvals;
mod certificates;
mod cluster;
mod datasets;
mod detach;
mod keys;
mod left;
mod lines;
mod operators;
mod primacy;
mod removal;
mod settings;
mod sites;
mod source_limits;
mod sources;
mod split;
mod upgrade;

pub use datasets::dataset_row;

use std::sync::Arc;

use bytes::Bytes;
use dtm_identity::{Caller, Identity, Operation};
use dtm_proto::admin as wire;
use dtm_proto::admin::admin_service_server::AdminService;
use dtm_types::text::Told;
use dtm_types::{CALLER_DAYS_MAX, ErrorCode};
use tonic::{Request, Response, Status};

use dtm_doors::Shared;
use dtm_doors::audit::{Action, Actor, act};
use dtm_doors::auth::address;
use dtm_doors::status::{internal, status, told};
use dtm_setup::pki::{Issuing, Subject};

/// The service.
pub struct AdminDoor(pub Arc<Shared>);

/// A confirmed caller with the reason and request id of the call.
#[derive(Clone)]
struct Asker {
    caller: Caller,
    address: String,
    reason: String,
    request_id: Bytes,
}

impl AdminDoor {
    async fn asker<T>(
        &self,
        request: &Request<T>,
        operation: Operation,
        context: Option<&wire::Context>,
    ) -> Result<Asker, Status> {
        let caller = self.0.allow(request, operation, None).await?;
        let context = context.cloned().unwrap_or_default();
        if !context.second_factor.is_empty() {
            let detail = "a second factor is not supported by this version";
            return Err(status(ErrorCode::NotSupported, detail));
        }
        Ok(Asker {
            caller,
            address: address(request),
            reason: context.reason,
            request_id: context.request_id,
        })
    }

    async fn act(
        &self,
        asker: Asker,
        op: dtm_types::command::admin::Op,
        expected_version: Option<u64>,
        detail: serde_json::Value,
    ) -> Result<dtm_types::command::Done, Status> {
        let actor = Actor::of(&asker.caller, asker.address);
        let action = Action {
            op,
            expected_version,
            reason: asker.reason,
            request_id: asker.request_id,
            detail,
        };
        act(&self.0, actor, action).await
    }
}

/// A certificate that was just issued.
struct Signed {
    /// Itself first.
    chain: Vec<Bytes>,
    digest: Bytes,
    serial: Bytes,
    not_after_us: i64,
}

impl AdminDoor {
    /// Signs a request for somebody who is not a node.
    fn sign(&self, request: &[u8], identity: Identity, days: i64) -> Result<Signed, Status> {
        let days = valid_days(days)?;
        let subject = Subject { identity, names: Vec::new(), days };
        let chain = self.0.issuing()?.sign(request, &subject, self.0.clock.now_us());
        let chain = chain.map_err(|e| status(ErrorCode::InvalidArgument, e))?;
        let facts = Issuing::facts(&chain).map_err(internal)?;
        Ok(Signed {
            chain: chain.iter().map(|c| Bytes::copy_from_slice(c)).collect(),
            digest: Bytes::copy_from_slice(&facts.digest),
            serial: facts.serial.into(),
            not_after_us: facts.not_after_us,
        })
    }
}

/// Days that a key or a certificate is asked for; 0 = as long as one may hold.
fn valid_days(asked: i64) -> Result<u32, Status> {
    match u32::try_from(asked) {
        Ok(0) => Ok(CALLER_DAYS_MAX),
        Ok(days) if days <= CALLER_DAYS_MAX => Ok(days),
        _ => {
            let what = Told::new("refused.valid_days").with("days", asked);
            Err(told(ErrorCode::InvalidArgument, &what.with("max", CALLER_DAYS_MAX)))
        }
    }
}

macro_rules! calls {
    ($($name:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl AdminService for AdminDoor {
            $(async fn $name(&self, request: Request<wire::$request>) -> Result<Response<wire::$response>, Status> {
                AdminDoor::$name(self, request).await.map(Response::new)
            })*
        }
    };
}

calls! {
    cluster_status: ClusterStatusRequest -> ClusterStatusResponse;
    create_join_token: CreateJoinTokenRequest -> CreateJoinTokenResponse;
    transfer_leader: TransferLeaderRequest -> TransferLeaderResponse;
    drain_node: DrainNodeRequest -> DrainNodeResponse;
    remove_node: RemoveNodeRequest -> RemoveNodeResponse;
    renew_node_certificate: RenewNodeCertificateRequest -> RenewNodeCertificateResponse;
    put_source: PutSourceRequest -> PutSourceResponse;
    list_sources: ListSourcesRequest -> ListSourcesResponse;
    issue_source_key: IssueSourceKeyRequest -> IssueSourceKeyResponse;
    revoke_source_key: RevokeSourceKeyRequest -> RevokeSourceKeyResponse;
    issue_source_certificate: IssueSourceCertificateRequest -> IssueSourceCertificateResponse;
    revoke_source_certificate: RevokeSourceCertificateRequest -> RevokeSourceCertificateResponse;
    upgrade_cluster: UpgradeClusterRequest -> UpgradeClusterResponse;
    publish_dataset: PublishDatasetRequest -> PublishDatasetResponse;
    list_datasets: ListDatasetsRequest -> ListDatasetsResponse;
    add_operator: AddOperatorRequest -> AddOperatorResponse;
    list_operators: ListOperatorsRequest -> ListOperatorsResponse;
    revoke_operator: RevokeOperatorRequest -> RevokeOperatorResponse;
    rotate_cluster_key: RotateClusterKeyRequest -> RotateClusterKeyResponse;
    console_link: ConsoleLinkRequest -> ConsoleLinkResponse;
    list_approvals: ListApprovalsRequest -> ListApprovalsResponse;
    get_approval: GetApprovalRequest -> GetApprovalResponse;
    request_approval: RequestApprovalRequest -> RequestApprovalResponse;
    grant_approval: GrantApprovalRequest -> GrantApprovalResponse;
    deny_approval: DenyApprovalRequest -> DenyApprovalResponse;
    list_anchors: ListAnchorsRequest -> ListAnchorsResponse;
    put_settings: PutSettingsRequest -> PutSettingsResponse;
    rollback_settings: RollbackSettingsRequest -> RollbackSettingsResponse;
    show_settings: ShowSettingsRequest -> ShowSettingsResponse;
    settings_history: SettingsHistoryRequest -> SettingsHistoryResponse;
    promote_site: PromoteSiteRequest -> PromoteSiteResponse;
    hand_over: HandOverRequest -> HandOverResponse;
    left_behind: LeftBehindRequest -> LeftBehindResponse;
    settle_left: SettleLeftRequest -> SettleLeftResponse;
    primacy: PrimacyRequest -> PrimacyResponse;
    put_layout: PutLayoutRequest -> PutLayoutResponse;
    site_status: SiteStatusRequest -> SiteStatusResponse;
    confirm_channel: ConfirmChannelRequest -> ConfirmChannelResponse;
    detach_site: DetachSiteRequest -> DetachSiteResponse;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_taken_as_they_are_or_refused() {
        let taken = [0, 1, 365].map(|days| valid_days(days).expect("taken"));
        assert_eq!(taken, [CALLER_DAYS_MAX, 1, CALLER_DAYS_MAX]);
        for days in [-1, 366, i64::MAX] {
            let refused = valid_days(days).expect_err("refused");
            let said = format!("valid_days = {days}: 1 to 365");
            assert!(refused.message().contains(&said), "{refused}");
        }
    }
}
