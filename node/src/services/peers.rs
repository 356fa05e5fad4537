//! What nodes ask of each other beside Raft: status, keys, draining. Both sides.

use std::sync::Arc;
use std::time::Duration;

use dtm_identity::Operation;
use dtm_proto::admin as wire;
use dtm_proto::admin::node_service_client::NodeServiceClient;
use dtm_proto::admin::node_service_server::NodeService;
use dtm_seal::{ClusterKey, Secret};
use dtm_types::command::NodeRow;
use dtm_types::{ErrorCode, KeyId, NodeId};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use super::shared::Shared;
use super::status::{internal, status};
use crate::tls::Material;

/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Sessions told to leave are spread over this long.
const DRAIN_SPREAD_MS: u64 = 5_000;

/// The calling side.
pub(crate) struct PeerCalls {
    material: Arc<Material>,
}

impl PeerCalls {
    /// Calls under this node's certificate.
    pub(crate) fn new(material: Arc<Material>) -> Self {
        Self { material }
    }

    /// What a node says of itself; `None` where it does not answer in time.
    pub(crate) async fn local_status(&self, row: &NodeRow) -> Option<wire::LocalStatusResponse> {
        let call = async {
            let mut client = self.client(row).await.ok()?;
            client.local_status(wire::LocalStatusRequest {}).await.ok().map(Response::into_inner)
        };
        tokio::time::timeout(PATIENCE, call).await.ok().flatten()
    }

    /// Hands a cluster key to a node.
    pub(crate) async fn adopt_key(
        &self,
        row: &NodeRow,
        request: wire::AdoptClusterKeyRequest,
    ) -> Result<(), Status> {
        self.client(row).await?.adopt_cluster_key(request).await.map(|_| ())
    }

    /// Empties a node, or lets it take sessions again.
    pub(crate) async fn drain(
        &self,
        row: &NodeRow,
        request: wire::DrainLocalRequest,
    ) -> Result<wire::DrainLocalResponse, Status> {
        self.client(row).await?.drain_local(request).await.map(Response::into_inner)
    }

    async fn client(&self, row: &NodeRow) -> Result<NodeServiceClient<Channel>, Status> {
        let node =
            NodeId::from_slice(&row.node).ok_or_else(|| internal("a node id has 16 bytes"))?;
        let name = ServerName::try_from(crate::pki::peer_name(node)).map_err(internal)?;
        let tls = TlsConnector::from(self.material.client());
        let address: Arc<str> = row.grpc_address.as_str().into();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(internal)?;
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls, name) = (Arc::clone(&address), tls.clone(), name.clone());
            async move {
                let tcp = TcpStream::connect(&*address).await?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
            }
        });
        let endpoint = endpoint.connect_timeout(PATIENCE).timeout(Duration::from_secs(30));
        let channel = endpoint.connect_with_connector(connector).await;
        let unreachable =
            |e| status(ErrorCode::Unavailable, format!("node {} does not answer: {e}", row.name));
        Ok(NodeServiceClient::new(channel.map_err(unreachable)?))
    }
}

/// The answering side.
pub(crate) struct NodeDoor(pub(crate) Arc<Shared>);

impl Shared {
    /// Gives up what this node leads and tells its sessions to leave; or takes sessions again.
    pub(crate) async fn drain_local(&self, resume: bool) -> wire::DrainLocalResponse {
        if resume {
            self.sources.resume();
            return wire::DrainLocalResponse::default();
        }
        let before = self.led();
        if let Err(error) = self.cluster.drain().await {
            tracing::warn!(%error, "not every leadership could be handed over");
        }
        let told = self.sources.drain("", DRAIN_SPREAD_MS);
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
    async fn local_status(
        &self,
        request: Request<wire::LocalStatusRequest>,
    ) -> Result<Response<wire::LocalStatusResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        Ok(Response::new(wire::LocalStatusResponse {
            node: Some(self.0.local_node()),
            groups: self.0.local_groups(),
        }))
    }

    async fn adopt_cluster_key(
        &self,
        request: Request<wire::AdoptClusterKeyRequest>,
    ) -> Result<Response<wire::AdoptClusterKeyResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let asked = request.into_inner();
        let id = KeyId::from_slice(&asked.key_id)
            .ok_or_else(|| status(ErrorCode::InvalidArgument, "a key id has 16 bytes"))?;
        if asked.make_current {
            self.0.keyring.make_current(id).map_err(internal)?;
            return Ok(Response::new(wire::AdoptClusterKeyResponse {}));
        }
        let mut bytes: [u8; 32] = asked
            .key
            .as_ref()
            .try_into()
            .map_err(|_| status(ErrorCode::InvalidArgument, "a cluster key has 32 bytes"))?;
        let key = ClusterKey::from_bytes(&mut bytes);
        self.0.keyring.adopt(id, key, asked.created_us).map_err(internal)?;
        Ok(Response::new(wire::AdoptClusterKeyResponse {}))
    }

    async fn drain_local(
        &self,
        request: Request<wire::DrainLocalRequest>,
    ) -> Result<Response<wire::DrainLocalResponse>, Status> {
        self.0.allow(&request, Operation::PeerCall, None).await?;
        let answer = self.0.drain_local(request.get_ref().resume).await;
        Ok(Response::new(answer))
    }
}
