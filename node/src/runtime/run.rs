//! A node's run, from open files to a planned stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_actors::{AckTimes, Contracts, Deps as SessionDeps, KeyVault, Limits, SourcesHandle};
use dtm_cluster::{
    ClusterConfig, ClusterNode, DbStates, Deps as ClusterDeps, NodeLogs, PeerNode, Timing,
};
use dtm_machine::seams::{Clock, Entropy};
use dtm_proto::admin::admin_service_server::AdminServiceServer;
use dtm_proto::admin::join_service_server::JoinServiceServer;
use dtm_proto::admin::node_service_server::NodeServiceServer;
use dtm_proto::records::records_service_server::RecordsServiceServer;
use dtm_storage::keys::Keyring;
use dtm_storage::log::{LogConfig, LogIdentity, NodeLog};
use dtm_storage::state::{Owner, StateConfig};
use dtm_storage::vfs::RealVfs;
use dtm_types::command::{ClusterRow, NodeRow};
use dtm_types::{ClusterId, Incarnation, NodeId};

use tokio_util::sync::CancellationToken;

use super::admit::{Started, founded, last_start, start};
use super::beside::Beside;
use super::peers::Peers;
use super::{NodeVault, boot};
use crate::config::Config;
use crate::http::{self, Console, Pages};
use crate::pki::{self, Genesis};
use crate::seams::Seams;
use crate::services::{
    AdminDoor, IngestServer, JoinDoor, Live, NodeDoor, PeerCalls, RecordsDoor, Shared, reflection,
};
use crate::shell::{RenderMetrics, Shell};
use crate::system::{OsEntropy, SystemClock};
use crate::telemetry::ContainCalls;
use crate::tls;

/// The first life of a cluster.
const FIRST: Incarnation = Incarnation(1);
/// How long connections may take to end.
const DOORS_END: Duration = Duration::from_secs(10);
/// Sessions are told to leave over this long at a planned stop.
const LEAVE_OVER: Duration = Duration::from_millis(1_000);
/// What did not leave by then is cut off.
const LEAVE_WITHIN: Duration = Duration::from_millis(2_500);
const LEAVE_PAUSE: Duration = Duration::from_millis(20);
/// Largest request of administration: a data set's definition of 1 MiB. It is decoded before anybody
/// knows who asks.
const ADMIN_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Why a node did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error("the log cannot be opened: {error}{}", if_foreign(is_foreign_log(.0)), error = .0)]
    Log(#[from] dtm_storage::log::Error),
    /// The rows.
    #[error("the state cannot be opened: {error}{}", if_foreign(is_foreign_state(.0)), error = .0)]
    State(#[from] dtm_storage::state::Error),
    /// The groups.
    #[error("the groups cannot run: {0}")]
    Cluster(#[from] dtm_cluster::Error),
    /// Files of the node.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// A file of the data folder.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The log of a founded cluster is not there: never found it a second time.
    #[error(
        "{path} is empty, yet this node founded its cluster: mount the right disk; a node that \
         lost its disk is removed and joins anew under a new id"
    )]
    LogGone {
        /// Folder of the log.
        path: std::path::PathBuf,
    },
    /// Keys.
    #[error("{0}")]
    Keys(String),
    /// A part of the node ended by itself.
    #[error("the node stops: {0} ended; the log says why")]
    Ended(&'static str),
    /// Sessions.
    #[error("sessions cannot be started: {0}")]
    Sessions(#[from] dtm_actors::Error),
}

fn is_foreign_log(error: &dtm_storage::log::Error) -> bool {
    matches!(error, dtm_storage::log::Error::Foreign { .. })
}

fn is_foreign_state(error: &dtm_storage::state::Error) -> bool {
    use dtm_storage::state::Error::{OtherCluster, OtherNode};
    matches!(error, OtherCluster { .. } | OtherNode { .. })
}

/// What to do with the data of another node or cluster.
fn if_foreign(is_foreign: bool) -> &'static str {
    if is_foreign {
        "; node.data names the folder of another node: name this node's own, or put its own data \
         or tls files back (docs/errors/wrong-cluster.md)"
    } else {
        ""
    }
}

impl Error {
    /// The process's exit code: what an operator must mend in files is 78.
    pub fn exit(&self) -> u8 {
        use dtm_storage::{log, state};
        match self {
            Self::Log(
                log::Error::Foreign { .. } | log::Error::Version { .. } | log::Error::Locked { .. },
            )
            | Self::State(
                state::Error::OtherCluster { .. }
                | state::Error::OtherNode { .. }
                | state::Error::Format { .. }
                | state::Error::InUse { .. },
            )
            | Self::Cluster(
                dtm_cluster::Error::OldCopy { .. }
                | dtm_cluster::Error::WentBack { .. }
                | dtm_cluster::Error::NodeRemoved { .. },
            )
            | Self::Pki(_)
            | Self::File { .. }
            | Self::LogGone { .. }
            | Self::Keys(_) => crate::config::EXIT_CONFIG,
            Self::Log(_)
            | Self::State(_)
            | Self::Cluster(_)
            | Self::Sessions(_)
            | Self::Ended(_) => 1,
        }
    }
}

/// Runs the node until `shell.shutdown`.
pub(crate) async fn run(shell: Shell, keyring: Keyring, seams: Seams) -> Result<(), Error> {
    let (config, data) = (shell.config.clone(), shell.config.node.data.clone());
    let (cluster_id, node) = shell.material.node();
    let (genesis, last) = (Genesis::read(&data)?, last_start(&data)?);
    let (clock, entropy) = of_system();
    let row = own_row(&config, node, last.counter + 1, &shell);
    let cluster_config = cluster_config(&config, cluster_id, &row, node);
    let tls = (seams.peers)(node, Peers::new(Arc::clone(&shell.material)));
    // First whatever may refuse this folder: then nothing was written.
    dtm_cluster::ask_first(&cluster_config, &tls, &clock, &data.join("state")).await?;
    let log = open_log(&data, &config, cluster_id, node)?;
    let founding = is_founding(&data, genesis.is_some(), &log)?;
    let (keyring, owner) = (Arc::new(keyring), Owner { cluster: cluster_id, node });
    let states = DbStates::open(&data.join("state"), owner, &state_config(&config))?;
    let vault = (seams.vault)(vault(&keyring, &entropy, genesis.is_some())?);
    let deps = ClusterDeps {
        logs: Arc::new(NodeLogs::new(Arc::clone(&log), FIRST)),
        states: Arc::new(states.clone()),
        tls,
        clock: Arc::clone(&clock),
    };
    let starting = ClusterNode::listen(cluster_config, deps, shell.peers.into_tcp())?;
    let started = start(starting, last, &data, &clock, &shell.shutdown).await?;
    let Some(Started { cluster, stamping }) = started else { return Ok(()) };
    if let (true, Some(genesis)) = (founding, &genesis) {
        cluster.bootstrap_single(cluster_row(genesis, cluster_id, &keyring), row.clone()).await?;
        founded(&data)?;
    }
    let (ack_times, clock) = (Arc::new(AckTimes::default()), cluster.clock());
    let sources = SourcesHandle::start(SessionDeps {
        proposer: cluster.clone(),
        vault: Arc::clone(&vault),
        treatment: seams.treatment,
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
        limits: limits(&config),
        ack_times: Arc::clone(&ack_times),
        incarnation: FIRST,
        node_name: config.node.name.clone(),
    })
    .await?;
    let shared = Arc::new(Shared {
        cluster_id,
        incarnation: FIRST,
        node,
        row,
        cluster,
        log,
        states: states.db().clone(),
        material: Arc::clone(&shell.material),
        ack_times,
        peers: PeerCalls::new(Arc::clone(&shell.material)),
        sources,
        contracts: Contracts::default(),
        directory: Default::default(),
        rights: Default::default(),
        vault,
        keyring,
        clock,
        console: Arc::new(Console::new(Arc::clone(&entropy), node)),
        entropy,
        ca: roots(&config)?,
        config,
        reads: Shared::read_places(),
    });
    let beside = Beside::start(&shared, stamping, genesis);
    let doors = Doors { https: shell.https, grpc: shell.grpc.with_wire(seams.clients) };
    let cluster = Arc::clone(&shared.cluster);
    until_ended(cluster, serve(shared, doors, beside, shell.metrics, shell.shutdown)).await
}

fn of_system() -> (Arc<dyn Clock>, Arc<dyn Entropy>) {
    (Arc::new(SystemClock::start()), Arc::new(OsEntropy))
}

/// The ports that clients and operators use.
struct Doors {
    https: tls::Listener,
    grpc: tls::Listener,
}

/// Serves until the node is told to stop, or learns that this start must not go on: then there is
/// no planned stop, since it has no right to lead or to hand over anything.
async fn until_ended(
    cluster: Arc<ClusterNode>,
    served: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    tokio::select! {
        ended = served => ended,
        Some(error) = cluster.condemned() => {
            cluster.stop().await;
            Err(Error::Cluster(error))
        }
    }
}

/// Root certificates of the cluster (DER), for nodes that join.
fn roots(config: &Config) -> Result<Vec<Vec<u8>>, Error> {
    Ok(pki::read_certificates(&config.tls.ca)?.iter().map(|c| c.to_vec()).collect())
}

/// Whether the founding of the cluster is still to be done, or to be completed, on this node.
fn is_founding(data: &Path, has_genesis: bool, log: &NodeLog) -> Result<bool, Error> {
    let founded = boot::is_founded(data);
    if has_genesis && founded && log.groups().is_empty() {
        return Err(Error::LogGone { path: data.join("log") });
    }
    Ok(has_genesis && !founded)
}

/// Opens the doors until the node is told to stop, then stops in order.
async fn serve(
    shared: Arc<Shared>,
    doors: Doors,
    mut beside: Beside,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let router = pages(&shared, metrics);
    let mut pages =
        tokio::spawn(tls::serve_https(router, doors.https.run(shutdown.clone()), shutdown.clone()));
    let mut grpc = tokio::spawn(serve_grpc(Arc::clone(&shared), doors.grpc, shutdown.clone()));
    tracing::info!("node runs");
    // A node that lost a part stops: half of it would hold up the others.
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        name = shared.cluster.part_ended() => Some(name),
        name = beside.ended() => Some(name),
        _ = &mut pages => Some("the HTTPS port"),
        _ = &mut grpc => Some("the gRPC port"),
    };
    // At a planned stop the ports end because of it, and may be heard of first.
    let ended = ended.filter(|_| !shutdown.is_cancelled());
    shutdown.cancel();
    beside.leave();
    stop(&shared).await;
    let doors = async {
        while !(pages.is_finished() && grpc.is_finished()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(DOORS_END, doors).await.is_err() {
        tracing::warn!("connections are cut off");
    }
    shared.cluster.stop().await;
    match ended {
        None => tracing::info!("node stopped"),
        Some(what) => return Err(Error::Ended(what)),
    }
    Ok(())
}

fn cluster_config(
    config: &Config,
    cluster: ClusterId,
    row: &NodeRow,
    node: NodeId,
) -> ClusterConfig {
    let mut settings = ClusterConfig::new(cluster, peer_node(row, node));
    settings.incarnation = FIRST;
    settings.boot_counter = row.boot_counter;
    settings.scrub_bytes_per_second = config.log.scrub_bytes_per_second;
    settings.timing = Timing {
        heartbeat_ms: config.raft.heartbeat_ms,
        election_min_ms: config.raft.election_min_ms,
        election_max_ms: config.raft.election_max_ms,
    };
    settings.clock_offset_max_ms = config.raft.clock_offset_max_ms;
    settings
}

/// A planned stop: leaders hand over, sources move to the new ones, and only then the groups stop.
/// What arrives meanwhile is forwarded.
async fn stop(shared: &Arc<Shared>) {
    shared.cluster.leave_soon();
    if let Err(error) = shared.cluster.drain().await {
        tracing::warn!(%error, "leaderships could not be handed over");
    }
    shared.sources.drain(|group| shared.leader_elsewhere(group), LEAVE_OVER);
    let deadline = tokio::time::Instant::now() + LEAVE_WITHIN;
    while shared.sources.sessions() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LEAVE_PAUSE).await;
    }
}

async fn serve_grpc(shared: Arc<Shared>, listener: tls::Listener, shutdown: CancellationToken) {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<IngestServer>().await;
    health_reporter.set_serving::<RecordsServiceServer<RecordsDoor>>().await;
    health_reporter.set_serving::<AdminServiceServer<AdminDoor>>().await;
    let reflection = reflection(&shared);
    let ingest = IngestServer::new(Arc::clone(&shared));
    let records = RecordsServiceServer::new(RecordsDoor(Arc::clone(&shared)))
        .max_encoding_message_size(usize::MAX);
    let admin = AdminServiceServer::new(AdminDoor(Arc::clone(&shared)))
        .max_decoding_message_size(ADMIN_BYTES_MAX);
    let nodes = NodeServiceServer::new(NodeDoor(Arc::clone(&shared)));
    let join = JoinServiceServer::new(JoinDoor(shared));
    let served = tls::grpc_server()
        .layer(ContainCalls)
        .add_service(health)
        .add_service(reflection)
        .add_service(ingest)
        .add_service(records)
        .add_service(admin)
        .add_service(nodes)
        .add_service(join)
        .serve_with_incoming_shutdown(listener.run(shutdown.clone()), shutdown.cancelled());
    let ended = tokio::select! {
        ended = served => ended,
        // Streams that live for months do not end by themselves.
        () = async { shutdown.cancelled().await; tokio::time::sleep(LEAVE_WITHIN * 2).await } => Ok(()),
    };
    if let Err(error) = ended {
        tracing::error!(%error, "the gRPC port ended");
    }
}

fn pages(shared: &Arc<Shared>, metrics: RenderMetrics) -> axum::Router {
    let clock = Arc::clone(&shared.clock);
    let measured = Arc::clone(shared);
    http::router(Pages {
        status: Arc::new(Live { shared: Arc::clone(shared) }),
        metrics: Arc::new(move || {
            measured.measure();
            metrics()
        }),
        console: Arc::clone(&shared.console),
        cluster: shared.cluster_id,
        now_us: Arc::new(move || clock.now_us()),
    })
}

fn vault(
    keyring: &Arc<Keyring>,
    entropy: &Arc<dyn Entropy>,
    founding: bool,
) -> Result<Arc<dyn KeyVault>, Error> {
    let failed = |cause: &dyn std::fmt::Display| Error::Keys(cause.to_string());
    match NodeVault::new(Arc::clone(keyring), Arc::clone(entropy)) {
        Ok(vault) => Ok(Arc::new(vault)),
        Err(_) if founding => {
            NodeVault::found(keyring, entropy.as_ref()).map_err(|e| failed(&e))?;
            let vault =
                NodeVault::new(Arc::clone(keyring), Arc::clone(entropy)).map_err(|e| failed(&e))?;
            Ok(Arc::new(vault))
        }
        Err(cause) => Err(failed(&cause)),
    }
}

fn cluster_row(genesis: &Genesis, cluster: ClusterId, keyring: &Keyring) -> ClusterRow {
    ClusterRow {
        cluster_id: Bytes::copy_from_slice(&cluster.0),
        name: genesis.cluster_name.clone(),
        incarnation: FIRST.0,
        ingest_groups: genesis.ingest_groups,
        production: false,
        cluster_key_id: Bytes::copy_from_slice(&keyring.current().0),
        ..ClusterRow::default()
    }
}

/// Whose the log is, as it stands in its files.
pub(crate) fn log_identity(cluster: ClusterId, node: NodeId) -> LogIdentity {
    LogIdentity { cluster: u128::from_be_bytes(cluster.0), node: u128::from_be_bytes(node.0) }
}

fn open_log(
    data: &Path,
    config: &Config,
    cluster: ClusterId,
    node: NodeId,
) -> Result<Arc<NodeLog>, Error> {
    let settings = LogConfig {
        segment_bytes: config.log.segment_bytes,
        disk_reserve_bytes: config.limits.disk_reserved_bytes,
        ..LogConfig::default()
    };
    let identity = log_identity(cluster, node);
    let (log, recovery) = NodeLog::open(Arc::new(RealVfs), &data.join("log"), settings, identity)?;
    tracing::info!(?recovery, "log opened");
    Ok(Arc::new(log))
}

fn state_config(config: &Config) -> StateConfig {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    StateConfig {
        block_cache_bytes: bytes(config.state.block_cache_bytes),
        write_buffer_bytes: bytes(config.state.write_buffer_bytes),
        ..StateConfig::default()
    }
}

fn limits(config: &Config) -> Limits {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let limits = &config.limits;
    Limits {
        record_bytes_max: bytes(limits.record_bytes_max),
        frame_bytes_max: bytes(limits.frame_bytes_max),
        frame_records_max: bytes(limits.frame_records_max),
        stream_in_flight_bytes_max: bytes(limits.stream_in_flight_bytes_max),
        node_in_flight_bytes_max: bytes(limits.node_in_flight_bytes_max),
        refused_per_second_max: limits.refused_per_second_max,
        streams_open_max: bytes(limits.streams_open_max),
        stream_names_max: u32::try_from(limits.stream_names_max).unwrap_or(u32::MAX),
        quarantine_records_max: limits.quarantine_records_max,
        quarantine_bytes_max: limits.quarantine_bytes_max,
        ..Limits::default()
    }
}

fn own_row(config: &Config, node: NodeId, boot_counter: u64, shell: &Shell) -> NodeRow {
    let host = config.node.advertise.first().map(String::as_str).unwrap_or_default();
    let port = |listener: &tls::Listener, asked: SocketAddr| {
        listener.address().map_or(asked.port(), |a| a.port())
    };
    let at = |port| crate::config::host_and_port(host, port);
    NodeRow {
        node: Bytes::copy_from_slice(&node.0),
        name: config.node.name.clone(),
        site: config.node.site.clone(),
        zone: config.node.zone.clone(),
        grpc_address: at(port(&shell.grpc, config.node.grpc)),
        peer_address: at(port(&shell.peers, config.node.peers)),
        https_address: at(port(&shell.https, config.node.https)),
        boot_counter,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        version_max: u32::from(dtm_types::bundle::VERSION_MAX),
        ..NodeRow::default()
    }
}

fn peer_node(row: &NodeRow, node: NodeId) -> PeerNode {
    PeerNode {
        node,
        site: row.site.clone(),
        zone: row.zone.clone(),
        peer_address: row.peer_address.clone(),
        grpc_address: row.grpc_address.clone(),
        https_address: row.https_address.clone(),
    }
}
