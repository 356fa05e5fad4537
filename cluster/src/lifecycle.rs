//! A node's life in the cluster: start, bootstrap, stop.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Proposer, Reply};
use dtm_proto::cluster::peer_service_server::PeerServiceServer;
use dtm_types::{GroupId, ReplicaId};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ClusterConfig, Deps};
use crate::error::Error;
use crate::network::{Incoming, Links, MESSAGE_BYTES_MAX, OriginGuard, PeerServer};
use crate::registry::Registry;

const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const FRAME_BYTES_MAX: u32 = 256 << 10;
const STREAMS_MAX: u32 = 1024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);

/// This node's groups, served to its peers.
pub struct ClusterNode {
    config: ClusterConfig,
    registry: Arc<Registry>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ClusterNode {
    /// Serves the peer port and starts every replica found on disk.
    pub async fn start(
        config: ClusterConfig,
        deps: Deps,
        listener: TcpListener,
    ) -> Result<Arc<Self>, Error> {
        let guard = OriginGuard::new(
            config.cluster,
            config.node.node,
            config.incarnation,
            config.boot_counter,
        );
        let links = Links::new(Arc::clone(&deps.tls), Arc::clone(&guard));
        let registry = Registry::new(config.clone(), deps.clone(), links);
        registry.open_all().await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let incoming = Incoming::start(listener, Arc::clone(&deps.tls), stop.clone());
        let server = PeerServer { registry: Arc::clone(&registry), guard };
        let service = PeerServiceServer::new(server)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let serving = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .serve_with_incoming(service, ReceiverStream::new(incoming));
        let until = stop.clone();
        tasks.spawn(async move {
            if let Some(Err(error)) = until.run_until_cancelled(serving).await {
                tracing::error!(%error, "peer port ended");
            }
        });
        Ok(Arc::new(Self { config, registry, stop, tasks }))
    }

    /// Creates group meta and the ingest groups with this node as their only voter. Once in a
    /// cluster's life, on its first node. The first command of each group (genesis) is the
    /// caller's to propose.
    pub async fn bootstrap_single(&self, ingest_groups: u32) -> Result<(), Error> {
        for group in (0..=ingest_groups).map(GroupId) {
            let started = self.registry.create(group, ReplicaId(1)).await?;
            started.initialize(self.config.node.clone()).await?;
        }
        Ok(())
    }

    /// Stops every group and the peer port. Logs and rows stay as they are.
    pub async fn stop(&self) {
        self.registry.stop().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn known_groups(&self) -> Vec<GroupId> {
        self.registry.groups().iter().map(|group| group.id).filter(|id| !id.is_meta()).collect()
    }
}

impl Proposer for ClusterNode {
    fn propose(&self, group: GroupId, command: Bytes, reply: Reply) {
        match self.registry.group(group) {
            Some(group) => group.bundler.push(command, reply),
            None => {
                let cause = "this node holds no replica".to_owned();
                reply(Err(ProposeError::Unavailable { group, cause }));
            }
        }
    }
}
