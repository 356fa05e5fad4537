//! The door for a node that has only an address and a one-time token.

use std::sync::Arc;

use bytes::Bytes;
use dtm_doors::Shared;
use dtm_doors::audit::{Action, Actor, act};
use dtm_doors::auth::address;
use dtm_doors::join_token::JoinToken;
use dtm_doors::status::{internal, status, told};
use dtm_identity::Identity;
use dtm_machine::reads;
use dtm_proto::admin::join_service_server::JoinService;
use dtm_proto::admin::{JoinRequest, JoinResponse};
use dtm_types::command::UseJoinToken;
use dtm_types::command::admin::Op;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, NodeId};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::handover;

/// The service.
pub struct JoinDoor(pub Arc<Shared>);

#[tonic::async_trait]
impl JoinService for JoinDoor {
    /// Spends the token, registers the node, issues its certificate and hands over the keyring,
    /// sealed to the key that the node made for this.
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let shared = &self.0;
        let from = address(&request);
        let asked = request.into_inner();
        let token = JoinToken::parse(&asked.token)
            .ok_or_else(|| told(ErrorCode::Unauthenticated, &Told::new("refused.join_token")))?;
        let row = asked.node.ok_or_else(|| status(ErrorCode::InvalidArgument, "no node row"))?;
        let node = NodeId::from_slice(&row.node)
            .ok_or_else(|| status(ErrorCode::InvalidArgument, "a node id has 16 bytes"))?;
        let name = row.name.clone();
        let names = names_of(&[&row.grpc_address, &row.peer_address, &row.https_address]);
        let identity = Identity::Node { cluster: shared.cluster_id, node };
        let now_us = shared.clock.now_us();
        let detail =
            json!({"node": row.name, "site": row.site, "zone": row.zone, "peer": row.peer_address});
        let op = Op::UseJoinToken(UseJoinToken {
            token_hash: Bytes::copy_from_slice(&token.hash()),
            node: Some(row),
        });
        let mut actor = Actor::node(shared);
        actor.address = from;
        let action = Action {
            op,
            expected_version: None,
            reason: "join".to_owned(),
            request_id: Bytes::new(),
            detail,
        };
        // The token is spent before anything is signed.
        if let Err(refused) = act(shared, actor, action).await {
            return Err(in_words(shared, &name, node, refused).await);
        }
        let chain =
            shared.issuing()?.sign_node(&asked.certificate_request, identity, &names, now_us);
        let chain = chain.map_err(|e| status(ErrorCode::InvalidArgument, e))?;
        let keyring = shared.keyring.export();
        let sealed_keyring = handover::seal(&keyring, &asked.keyring_public_key, shared.cluster_id)
            .map_err(|e| status(ErrorCode::InvalidArgument, e))?;
        let meta = shared.directory.meta_now(shared.view()).await?;
        let nodes = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        let settings = reads::settings(meta.state.as_ref()).map_err(internal)?;
        Ok(Response::new(JoinResponse {
            cluster_id: Bytes::copy_from_slice(&shared.cluster_id.0),
            incarnation: shared.incarnation.0,
            certificate_chain: chain.iter().map(|c| Bytes::copy_from_slice(c)).collect(),
            ca_certificates: shared.ca.iter().map(|c| Bytes::copy_from_slice(c)).collect(),
            sealed_keyring: sealed_keyring.into(),
            nodes,
            settings: (settings.version > 0).then_some(settings),
        }))
    }
}

/// A refusal because of the name, in both languages; the group's own words else. The caller has
/// shown a token that holds.
async fn in_words(shared: &Shared, name: &str, node: NodeId, refused: Status) -> Status {
    if refused.code() != tonic::Code::AlreadyExists {
        return refused;
    }
    let meta = shared.directory.meta(shared.view()).await;
    let nodes = meta.ok().and_then(|meta| reads::nodes(meta.state.as_ref()).ok());
    let mut others = nodes.into_iter().flatten().filter(|row| !row.removed && row.name == name);
    let other = others.find_map(|row| NodeId::from_slice(&row.node).filter(|id| *id != node));
    other.map_or(refused, |other| {
        let what = Told::new("refused.node_name_taken").with("name", name).with("node", other);
        told(ErrorCode::AlreadyExists, &what)
    })
}

/// Host names of the addresses that the node advertises.
fn names_of(addresses: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = addresses
        .iter()
        .filter_map(|address| address.rsplit_once(':'))
        .map(|(host, _)| host.trim_matches(['[', ']']).to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}
