//! From a node's configuration to the settings and rows of its parts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::{ClusterConfig, PeerNode, Timing};
use dtm_doors::life;
use dtm_storage::keys::Keyring;
use dtm_storage::log::{LogConfig, LogIdentity, NodeLog};
use dtm_storage::state::StateConfig;
use dtm_storage::vfs::RealVfs;
use dtm_types::bundle::VERSION_MAX;
use dtm_types::command::{ClusterRow, NodeRow};
use dtm_types::{ClusterId, Incarnation, NodeId};

use super::Error;
use crate::config::Config;
use crate::pki::Genesis;
use crate::shell::Shell;
use crate::tls;

/// A session that did not leave by then, at a planned stop, is cut off.
pub(super) const LEAVE_WITHIN: Duration = Duration::from_millis(2_500);

pub(super) fn cluster_config(
    config: &Config,
    cluster: ClusterId,
    row: &NodeRow,
    node: NodeId,
    life: Incarnation,
) -> ClusterConfig {
    let mut settings = ClusterConfig::new(cluster, peer_node(row, node));
    settings.incarnation = life;
    settings.boot_counter = row.boot_counter;
    settings.sites_address = row.sites_address.clone();
    settings.version_max = version_max(config);
    settings.scrub_bytes_per_second = config.log.scrub_bytes_per_second;
    settings.compare_every_ms = config.state.compare_every_ms;
    settings.compare_bytes_per_second = config.state.compare_bytes_per_second;
    settings.timing = Timing {
        heartbeat_ms: config.raft.heartbeat_ms,
        election_min_ms: config.raft.election_min_ms,
        election_max_ms: config.raft.election_max_ms,
    };
    settings.clock_offset_max_ms = config.raft.clock_offset_max_ms;
    settings.rebalance = config.placement.rebalance;
    settings.dead_after_ms = config.placement.dead_after_ms;
    settings.copy_bytes_per_second = config.placement.copy_bytes_per_second;
    settings.lag_alarm_ms = config.sites.lag_alarm_ms;
    settings
}

pub(super) fn cluster_row(genesis: &Genesis, cluster: ClusterId, keyring: &Keyring) -> ClusterRow {
    ClusterRow {
        cluster_id: Bytes::copy_from_slice(&cluster.0),
        name: genesis.cluster_name.clone(),
        incarnation: life::FIRST.0,
        ingest_groups: genesis.ingest_groups,
        production: genesis.production,
        cluster_key_id: Bytes::copy_from_slice(&keyring.current().0),
        ..ClusterRow::default()
    }
}

/// Whose the log is, as it stands in its files.
pub(crate) fn log_identity(cluster: ClusterId, node: NodeId) -> LogIdentity {
    LogIdentity { cluster: u128::from_be_bytes(cluster.0), node: u128::from_be_bytes(node.0) }
}

pub(super) fn open_log(
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

pub(super) fn state_config(config: &Config) -> StateConfig {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    StateConfig {
        block_cache_bytes: bytes(config.state.block_cache_bytes),
        write_buffer_bytes: bytes(config.state.write_buffer_bytes),
        ..StateConfig::default()
    }
}

/// Highest version that this node speaks: what the software knows, or less where it is held back.
fn version_max(config: &Config) -> u8 {
    u8::try_from(config.node.protocol_version_max).unwrap_or(VERSION_MAX)
}

pub(super) fn own_row(config: &Config, node: NodeId, boot_counter: u64, shell: &Shell) -> NodeRow {
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
        version_max: u32::from(version_max(config)),
        ..NodeRow::default()
    }
}

pub(crate) fn peer_node(row: &NodeRow, node: NodeId) -> PeerNode {
    PeerNode {
        node,
        site: row.site.clone(),
        zone: row.zone.clone(),
        peer_address: row.peer_address.clone(),
        grpc_address: row.grpc_address.clone(),
        https_address: row.https_address.clone(),
    }
}
