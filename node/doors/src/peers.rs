//! What nodes ask of each other beside Raft: status, keys, draining. Both sides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_identity::Operation;
use dtm_proto::admin as wire;
use dtm_proto::admin::node_service_client::NodeServiceClient;
use dtm_proto::admin::node_service_server::NodeService;
use dtm_proto::records::{LookupResponse, QuarantineResponse, ReadResponse};
use dtm_seal::{ClusterKey, Secret};
use dtm_setup::tls::{Material, connector};
use dtm_types::command::{ActorKind, NodeRow, SettingsRow};
use dtm_types::{ErrorCode, GroupId, KeyId, NodeId};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::audit::Actor;
use super::records::Answers;
use super::settings::check_here;
use super::shared::Shared;
use super::status::{internal, status};
use super::{elsewhere, records};

/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call may take to be answered.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: a record of 8 MiB and its neighbours.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Nodes and addresses that connections are kept of.
const CHANNELS_MAX: usize = 64;
/// Sessions told to leave are spread over this long.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// The calling side. One connection a node, made when it is needed and again when it broke.
pub struct PeerCalls {
    material: Arc<Material>,
    channels: Mutex<HashMap<(NodeId, String), Channel>>,
}

impl PeerCalls {
    /// Calls under this node's certificate.
    pub fn new(material: Arc<Material>) -> Self {
        Self { material, channels: Mutex::default() }
    }

    /// What a node says of itself; `None` where it does not answer in time.
    pub async fn local_status(&self, row: &NodeRow) -> Option<wire::LocalStatusResponse> {
        let call = async {
            let mut client = self.of_row(row).ok()?;
            client.local_status(wire::LocalStatusRequest {}).await.ok().map(Response::into_inner)
        };
        tokio::time::timeout(PATIENCE, call).await.ok().flatten()
    }

    /// Hands a cluster key to a node.
    pub async fn adopt_key(
        &self,
        row: &NodeRow,
        request: wire::AdoptClusterKeyRequest,
    ) -> Result<(), Status> {
        self.of_row(row)?.adopt_cluster_key(request).await.map(|_| ())
    }

    /// A cluster key that a node holds, with the time of its making; `None` where it lacks the key or
    /// does not answer in time.
    pub async fn cluster_key(&self, row: &NodeRow, id: KeyId) -> Option<(ClusterKey, i64)> {
        let call = async {
            let request = wire::ClusterKeyRequest { key_id: Bytes::copy_from_slice(&id.0) };
            let answer = self.of_row(row).ok()?.cluster_key(request).await.ok()?.into_inner();
            Some((key_of(&answer.key).ok()?, answer.created_us))
        };
        tokio::time::timeout(PATIENCE, call).await.ok().flatten()
    }

    /// Whether a node could go by these settings; `UNAVAILABLE` where it does not answer in time.
    pub async fn check_settings(&self, row: &NodeRow, to: SettingsRow) -> Result<(), Status> {
        let request = wire::CheckSettingsRequest { row: Some(to) };
        let call = async { self.of_row(row)?.check_settings(request).await.map(|_| ()) };
        let answered = tokio::time::timeout(PATIENCE, call).await;
        answered.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")))
    }

    /// Empties a node, or lets it take sessions again.
    pub async fn drain(
        &self,
        row: &NodeRow,
        request: wire::DrainLocalRequest,
    ) -> Result<wire::DrainLocalResponse, Status> {
        self.of_row(row)?.drain_local(request).await.map(Response::into_inner)
    }

    /// Tells a node to renew its certificate.
    pub async fn renew_certificate(
        &self,
        row: &NodeRow,
        request: wire::RenewCertificateRequest,
    ) -> Result<wire::RenewCertificateResponse, Status> {
        self.of_row(row)?.renew_certificate(request).await.map(Response::into_inner)
    }

    /// Tells a node that the second channel was confirmed; how many of its lines waited for it, `None`
    /// where it does not answer in time.
    pub async fn confirm_lines(&self, row: &NodeRow) -> Option<u32> {
        let call = async {
            let mut client = self.of_row(row).ok()?;
            let answer = client.confirm_lines(wire::ConfirmLinesRequest {}).await.ok()?;
            Some(answer.into_inner().lines)
        };
        tokio::time::timeout(PATIENCE, call).await.ok().flatten()
    }

    fn of_row(&self, row: &NodeRow) -> Result<NodeServiceClient<Channel>, Status> {
        let node =
            NodeId::from_slice(&row.node).ok_or_else(|| internal("a node id has 16 bytes"))?;
        self.client(node, &row.grpc_address)
    }

    /// A client of a node; connects at its first call.
    pub fn client(
        &self,
        node: NodeId,
        address: &str,
    ) -> Result<NodeServiceClient<Channel>, Status> {
        let client = NodeServiceClient::new(self.kept(node, address)?);
        Ok(client.max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// The connection that is kept, or a new one.
    fn kept(&self, node: NodeId, address: &str) -> Result<Channel, Status> {
        let place = (node, address.to_owned());
        let mut channels = self.channels.lock();
        if let Some(known) = channels.get(&place) {
            return Ok(known.clone());
        }
        let channel = self.channel(node, address)?;
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(place, channel.clone());
        Ok(channel)
    }

    fn channel(&self, node: NodeId, address: &str) -> Result<Channel, Status> {
        let name = ServerName::try_from(dtm_setup::pki::peer_name(node)).map_err(internal)?;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(internal)?;
        let material = Arc::clone(&self.material);
        let connector = connector(address, name, move || material.client());
        let endpoint = endpoint.connect_timeout(PATIENCE).timeout(CALL_TIMEOUT);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

fn key_id(bytes: &[u8]) -> Result<KeyId, Status> {
    KeyId::from_slice(bytes)
        .ok_or_else(|| status(ErrorCode::InvalidArgument, "a key id has 16 bytes"))
}

fn key_of(bytes: &[u8]) -> Result<ClusterKey, Status> {
    let mut bytes: [u8; 32] = bytes
        .try_into()
        .map_err(|_| status(ErrorCode::InvalidArgument, "a cluster key has 32 bytes"))?;
    Ok(ClusterKey::from_bytes(&mut bytes))
}

/// The answering side.
pub struct NodeDoor(pub Arc<Shared>);

impl Shared {
    /// Gives up what this node leads and tells its sessions to leave; or takes sessions again.
    pub async fn drain_local(&self, resume: bool) -> wire::DrainLocalResponse {
        if resume {
            self.sources.resume();
            return wire::DrainLocalResponse::default();
        }
        let before = self.led();
        if let Err(error) = self.cluster.drain().await {
            tracing::warn!(%error, "not every leadership could be handed over");
        }
        let told = self.sources.drain(|group| self.leader_elsewhere(group), DRAIN_SPREAD);
        wire::DrainLocalResponse {
            leaders_moved: before.saturating_sub(self.led()),
            sessions_told: u32::try_from(told).unwrap_or(u32::MAX),
        }
    }

    fn led(&self) -> u32 {
        let led = self.cluster.status().iter().filter(|g| g.leader == Some(self.node)).count();
        u32::try_from(led).unwrap_or(u32::MAX)
    }
}

#[tonic::async_trait]
impl NodeService for NodeDoor {
    type ReadGroupStream = Answers<ReadResponse>;
    type QuarantineOfGroupStream = Answers<QuarantineResponse>;

    async fn local_status(
        &self,
        request: Request<wire::LocalStatusRequest>,
    ) -> Result<Response<wire::LocalStatusResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        Ok(Response::new(wire::LocalStatusResponse {
            node: Some(self.0.local_node()),
            groups: self.0.local_groups(),
            incarnation: self.0.incarnation.0,
        }))
    }

    async fn adopt_cluster_key(
        &self,
        request: Request<wire::AdoptClusterKeyRequest>,
    ) -> Result<Response<wire::AdoptClusterKeyResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let asked = request.into_inner();
        let id = key_id(&asked.key_id)?;
        if asked.make_current {
            self.0.keyring.make_current(id).map_err(internal)?;
            return Ok(Response::new(wire::AdoptClusterKeyResponse {}));
        }
        self.0.keyring.adopt(id, key_of(&asked.key)?, asked.created_us).map_err(internal)?;
        Ok(Response::new(wire::AdoptClusterKeyResponse {}))
    }

    async fn cluster_key(
        &self,
        request: Request<wire::ClusterKeyRequest>,
    ) -> Result<Response<wire::ClusterKeyResponse>, Status> {
        let caller = self.0.allow(&request, Operation::PeerCall, None).await?;
        let id = key_id(&request.get_ref().key_id)?;
        let held = self.0.keyring.list().into_iter().find(|info| info.id == id);
        let held = held.ok_or_else(|| status(ErrorCode::NotFound, format!("cluster key {id}")))?;
        let key = self.0.keyring.cluster_key(id).map_err(internal)?;
        tracing::info!(key = %id, %caller, "a cluster key is handed to a node that lacks it");
        let key = Bytes::copy_from_slice(key.expose());
        Ok(Response::new(wire::ClusterKeyResponse { key, created_us: held.created_us }))
    }

    async fn check_settings(
        &self,
        request: Request<wire::CheckSettingsRequest>,
    ) -> Result<Response<wire::CheckSettingsResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let row = request.into_inner().row.unwrap_or_default();
        check_here(&self.0, &row)?;
        Ok(Response::new(wire::CheckSettingsResponse {}))
    }

    async fn renew_certificate(
        &self,
        request: Request<wire::RenewCertificateRequest>,
    ) -> Result<Response<wire::RenewCertificateResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let asked = request.into_inner();
        let who = asked.actor.unwrap_or_default();
        if who.kind() != ActorKind::Operator || who.id.len() != 16 {
            return Err(status(ErrorCode::InvalidArgument, "an operator's id has 16 bytes"));
        }
        let (name, address) = (asked.actor_name, asked.actor_address);
        let actor = Actor { kind: ActorKind::Operator, id: who.id, name, address };
        self.0.renew_certificate(actor, asked.reason).await.map(Response::new)
    }

    async fn confirm_lines(
        &self,
        request: Request<wire::ConfirmLinesRequest>,
    ) -> Result<Response<wire::ConfirmLinesResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        Ok(Response::new(wire::ConfirmLinesResponse { lines: self.0.confirm_lines() }))
    }

    async fn drain_local(
        &self,
        request: Request<wire::DrainLocalRequest>,
    ) -> Result<Response<wire::DrainLocalResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let answer = self.0.drain_local(request.get_ref().resume).await;
        Ok(Response::new(answer))
    }

    async fn read_group(
        &self,
        request: Request<wire::ReadGroupRequest>,
    ) -> Result<Response<Self::ReadGroupStream>, Status> {
        let caller = self.0.allow(&request, Operation::PeerCall, None).await?;
        let asked = request.into_inner();
        let read = asked.read.unwrap_or_default();
        records::read_here(&self.0, GroupId(asked.group), read, &caller)
    }

    async fn lookup_in_group(
        &self,
        request: Request<wire::LookupInGroupRequest>,
    ) -> Result<Response<LookupResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let asked = request.into_inner();
        let lookup = asked.lookup.unwrap_or_default();
        records::lookup_here(&self.0, GroupId(asked.group), lookup).await.map(Response::new)
    }

    async fn quarantine_of_group(
        &self,
        request: Request<wire::QuarantineOfGroupRequest>,
    ) -> Result<Response<Self::QuarantineOfGroupStream>, Status> {
        let caller = self.0.allow(&request, Operation::PeerCall, None).await?;
        let asked = request.into_inner();
        let (group, with_payload) = (GroupId(asked.group), asked.with_payload);
        let quarantine = asked.quarantine.unwrap_or_default();
        let reading = self.0.room.ahead.enter(&caller);
        let answers =
            records::quarantine_here(&self.0, group, quarantine, with_payload, &reading).await?;
        Ok(records::counted(reading, answers))
    }

    async fn rows(
        &self,
        request: Request<wire::RowsRequest>,
    ) -> Result<Response<wire::RowsResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        elsewhere::rows_here(&self.0, request.into_inner()).await.map(Response::new)
    }
}
