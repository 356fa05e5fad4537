//! The cluster: status, tokens for nodes, leadership.

use std::collections::BTreeSet;

use bytes::Bytes;
use dtm_doors::join_token::JoinToken;
use dtm_doors::status::{internal, status, told};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_machine::seams::ReadView;
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::{JoinTokenRow, NodeRow, TransferLeader};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId, NodeId};
use serde_json::json;
use tonic::{Request, Status};

use super::{AdminDoor, Asker};

impl AdminDoor {
    pub(crate) async fn cluster_status(
        &self,
        request: Request<wire::ClusterStatusRequest>,
    ) -> Result<wire::ClusterStatusResponse, Status> {
        self.0.allow_known(&request, Operation::ClusterStatus).await?;
        self.0.status().await
    }

    pub(crate) async fn create_join_token(
        &self,
        request: Request<wire::CreateJoinTokenRequest>,
    ) -> Result<wire::CreateJoinTokenResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::CreateJoinToken, asked.context.as_ref()).await?;
        let mut secret = [0_u8; dtm_identity::SECRET_BYTES];
        self.0.entropy.fill(&mut secret);
        let root = self.0.ca.first().ok_or_else(|| internal("no root certificate"))?;
        let token = JoinToken::new(root, secret);
        let expires_us = self.0.clock.now_us() + JoinToken::VALID_US;
        let row = JoinTokenRow {
            token_hash: Bytes::copy_from_slice(&token.hash()),
            expires_us,
            site: asked.site.clone(),
            zone: asked.zone.clone(),
            used: false,
        };
        let detail = json!({"site": row.site, "zone": row.zone, "expires_us": expires_us});
        self.act(asker, Op::PutJoinToken(row), None, detail).await?;
        Ok(wire::CreateJoinTokenResponse { token: token.reveal().to_string(), expires_us })
    }

    pub(crate) async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<wire::TransferLeaderResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::TransferLeader, asked.context.as_ref()).await?;
        let to = node_id(&asked.to_node)?;
        let groups: Vec<GroupId> = if asked.from_node.is_empty() {
            let group = GroupId(asked.group);
            if !group.is_meta() && !self.0.cluster.ingest_groups().contains(&group) {
                let what = Told::new("refused.no_group").with("group", group);
                return Err(told(ErrorCode::NotFound, &what));
            }
            vec![group]
        } else {
            let from = node_id(&asked.from_node)?;
            let status = self.0.status().await?;
            let led = status.groups.iter().filter(|g| g.leader_node == from.0.as_slice());
            led.map(|g| GroupId(g.group)).collect()
        };
        self.enter_transfer(asker, &groups, to).await?;
        let mut moved = 0;
        for group in groups {
            self.0
                .cluster
                .transfer(group, to)
                .await
                .map_err(|e| status(ErrorCode::Unavailable, e))?;
            moved += 1;
        }
        Ok(wire::TransferLeaderResponse { moved })
    }

    /// The entry of a transfer, committed before any leader moves; none where none is to move.
    async fn enter_transfer(
        &self,
        asker: Asker,
        groups: &[GroupId],
        to: NodeId,
    ) -> Result<(), Status> {
        let groups: BTreeSet<u32> = groups.iter().map(|group| group.0).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let detail = json!({"groups": groups, "to": to.to_string()});
        let to = Bytes::copy_from_slice(&to.0);
        let op = Op::TransferLeader(TransferLeader { groups: groups.into_iter().collect(), to });
        self.act(asker, op, None, detail).await.map(|_| ())
    }

    /// Moves every leadership off the node and asks its sources to connect elsewhere.
    pub async fn drain_node(
        &self,
        request: Request<wire::DrainNodeRequest>,
    ) -> Result<wire::DrainNodeResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::DrainNode, asked.context.as_ref()).await?;
        let node = node_id(&asked.node)?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::node(meta.state.as_ref(), node).map_err(internal)?;
        let row = row.ok_or_else(|| {
            told(ErrorCode::NotFound, &Told::new("refused.no_node").with("node", node))
        })?;
        self.put_draining(asker, &row, !asked.resume).await?;
        let request = wire::DrainLocalRequest { resume: asked.resume };
        let answer = if node == self.0.node {
            self.0.drain_local(asked.resume).await
        } else {
            self.0.peers.drain(&row, request).await?
        };
        Ok(wire::DrainNodeResponse {
            leaders_moved: answer.leaders_moved,
            sessions_told: answer.sessions_told,
        })
    }

    /// Enters whether a node is to lead nothing.
    pub(super) async fn put_draining(
        &self,
        asker: Asker,
        row: &NodeRow,
        draining: bool,
    ) -> Result<(), Status> {
        let row = NodeRow { draining, ..row.clone() };
        let detail = json!({"node": row.name, "draining": draining});
        self.act(asker, Op::PutNode(row), None, detail).await.map(|_| ())
    }
}

pub(crate) fn node_id(bytes: &[u8]) -> Result<NodeId, Status> {
    NodeId::from_slice(bytes)
        .ok_or_else(|| status(ErrorCode::InvalidArgument, "a node id has 16 bytes"))
}
