//! The live page: readiness, and what it shows of nodes, groups and sources.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView, StateRead};
use dtm_proto::admin as wire;
use dtm_types::GroupId;
use dtm_types::command::OperatorRow;

use super::cluster_key;
use super::shared::Shared;
use super::today::today;
use crate::http::{GroupLine, LiveStatus, NodeLine, Overview, Readiness, SourceLine};

/// Sources on the page.
const SOURCES_MAX: usize = 200;
/// Streams counted of one source on the page.
const STREAMS_MAX: usize = 64;
/// How long the page waits for its sources, and `/readyz` for meta.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the page waits for the cluster: for meta, then for the other nodes.
const STATUS_WITHIN: Duration = Duration::from_secs(5);
/// Why a removed node is not ready.
const REMOVED: &str = "removed from the cluster: stop it; it comes back only under a new id \
                       (dtm cluster join)";

/// The page's view.
pub struct Live {
    /// The node that is looked at.
    pub shared: Arc<Shared>,
}

#[async_trait]
impl LiveStatus for Live {
    async fn readiness(&self) -> Readiness {
        let cluster = &self.shared.cluster;
        if let Some(reason) = self.shared.stopped() {
            return Readiness::NotReady { reason };
        }
        if self.shared.sources.is_draining() {
            // A removed node is drained first, and may run on for a while.
            let reason = if self.is_removed().await { REMOVED } else { "draining" };
            return Readiness::NotReady { reason: reason.to_owned() };
        }
        let groups = std::iter::once(GroupId::META).chain(cluster.ingest_groups());
        for group in groups {
            if cluster.leader(group).is_none() {
                return Readiness::NotReady { reason: format!("group {group} has no leader") };
            }
        }
        let current = cluster.view(GroupId::META, Freshness::Current);
        match tokio::time::timeout(PATIENCE, current).await {
            Ok(Ok(meta)) => self.of_meta(meta.state.as_ref()),
            Ok(Err(error)) => Readiness::NotReady { reason: error.to_string() },
            Err(_) => Readiness::NotReady { reason: "meta does not answer in time".to_owned() },
        }
    }

    async fn overview(&self) -> Overview {
        let status = tokio::time::timeout(STATUS_WITHIN, self.shared.status());
        let sources = tokio::time::timeout(PATIENCE, self.sources());
        let (status, sources) = tokio::join!(status, sources);
        let status = status.ok().and_then(Result::ok).unwrap_or_default();
        let (sources, has_more_sources) = sources.ok().flatten().unwrap_or_default();
        let now_us = self.shared.clock.monotonic_us();
        let [ack_p50_ms, ack_p99_ms] = self.shared.ack_times.quantiles_ms(now_us, [0.5, 0.99]);
        let name_of = |node: &Bytes| {
            let found =
                status.nodes.iter().filter_map(|n| n.node.as_ref()).find(|n| n.node == *node);
            found.map(|n| n.name.clone()).unwrap_or_default()
        };
        let most = |pick: fn(&wire::ReplicaStatus) -> u64| -> u64 {
            status.groups.iter().map(|g| g.replicas.iter().map(pick).max().unwrap_or(0)).sum()
        };
        Overview {
            cluster: status.cluster.as_ref().map(|c| c.name.clone()).unwrap_or_default(),
            node: self.shared.row.name.clone(),
            nodes: status.nodes.iter().map(node_line).collect(),
            groups: status.groups.iter().map(|g| group_line(g, name_of(&g.leader_node))).collect(),
            sources,
            has_more_sources,
            records: most(|r| r.records),
            refused: most(|r| r.refused),
            today: today(&status.groups, self.shared.clock.now_us()),
            ack_p50_ms,
            ack_p99_ms,
        }
    }

    async fn operator(&self, name: &str) -> Option<OperatorRow> {
        let meta = self.shared.directory.meta(self.shared.view()).await.ok()?;
        reads::operator(meta.state.as_ref(), name).ok().flatten()
    }
}

impl Live {
    /// Readiness of a node that meta is confirmed on.
    fn of_meta(&self, meta: &dyn StateRead) -> Readiness {
        if let Some(reason) = cluster_key::lack(&self.shared.keyring, meta) {
            return Readiness::NotReady { reason };
        }
        let degraded = self.shared.degraded();
        degraded.map_or(Readiness::Ready, |reason| Readiness::Degraded { reason })
    }

    /// Whether meta, as it is applied here, says that this node was removed.
    async fn is_removed(&self) -> bool {
        let shared = &self.shared;
        let meta = tokio::time::timeout(PATIENCE, shared.directory.meta(shared.view())).await;
        let Ok(Ok(meta)) = meta else { return false };
        let own = reads::node(meta.state.as_ref(), shared.node).ok().flatten();
        own.is_some_and(|row| row.removed)
    }

    /// The first sources, and whether there are more.
    async fn sources(&self) -> Option<(Vec<SourceLine>, bool)> {
        let shared = &self.shared;
        let meta = shared.directory.meta(shared.view()).await.ok()?;
        let mut rows = reads::sources(meta.state.as_ref(), None, SOURCES_MAX + 1).ok()?;
        let has_more = rows.len() > SOURCES_MAX;
        rows.truncate(SOURCES_MAX);
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let mut line = SourceLine {
                source: row.source.clone(),
                title_vi: row.title_vi,
                title_en: row.title_en,
                ..SourceLine::default()
            };
            let range = reads::streams_range(&row.source);
            if let Ok(rows) = shared.rows(GroupId(row.group), Freshness::Local, range).await {
                let streams =
                    reads::streams(rows.as_ref(), &row.source, STREAMS_MAX).unwrap_or_default();
                line.streams = u32::try_from(streams.len()).unwrap_or(u32::MAX);
                line.records = streams.iter().map(|(_, c)| c.records).sum();
                line.refused = streams.iter().map(|(_, c)| c.refused).sum();
                line.reported = streams.iter().map(|(_, c)| c.reported).sum();
                line.unmasked = streams.iter().map(|(_, c)| c.unmasked).sum();
            }
            lines.push(line);
        }
        Some((lines, has_more))
    }
}

fn node_line(status: &wire::NodeStatus) -> NodeLine {
    let row = status.node.clone().unwrap_or_default();
    NodeLine {
        name: row.name,
        site: row.site,
        zone: row.zone,
        address: row.grpc_address,
        reachable: status.reachable,
        stopped: !status.stopped_reason.is_empty(),
        draining: row.draining,
        groups_led: status.groups_led,
        sessions: status.sessions,
    }
}

fn group_line(status: &wire::GroupStatus, leader: String) -> GroupLine {
    GroupLine {
        group: status.group,
        leader,
        term: status.term,
        replicas_healthy: u32::try_from(
            status.replicas.iter().filter(|r| r.health == "healthy").count(),
        )
        .unwrap_or(0),
        replicas: u32::try_from(status.replicas.len()).unwrap_or(0),
        committed: status.committed_index,
        ledger_size: status.replicas.iter().map(|r| r.ledger_size).max().unwrap_or(0),
    }
}
