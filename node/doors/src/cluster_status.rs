//! The cluster as this node sees it: its own groups, those of the nodes that answer, and what the rows of
//! meta say of those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ReadView, StateRead};
use dtm_proto::admin as wire;
use dtm_setup::pki::Issuing;
use dtm_types::format::GroupHead;
use dtm_types::{ErrorCode, GroupId};
use tonic::Status;

use super::shared::Shared;
use super::status::{internal, status};

/// How long meta may take to be confirmed before what is known here has to do.
pub(crate) const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// Health of a replica whose node does not answer.
const UNREACHABLE: &str = "unreachable";

impl Shared {
    /// Meta as it is now, or as this node knows it where no majority confirms it in time.
    async fn meta_known(&self) -> Result<GroupView, Status> {
        let now = self.directory.meta_now(self.view());
        match tokio::time::timeout(CONFIRM_WITHIN, now).await {
            Ok(Ok(meta)) => Ok(meta),
            _ => self.directory.meta(self.view()).await,
        }
    }

    /// Nodes, groups, replicas: this node's own view and what every other node says of itself.
    pub async fn status(&self) -> Result<wire::ClusterStatusResponse, Status> {
        let meta = self.meta_known().await?;
        let state = meta.state.as_ref();
        let mut rows = reads::nodes(state).map_err(internal)?;
        rows.retain(|row| !row.removed);
        let mut groups = self.local_groups();
        let others = rows.iter().filter(|row| row.node != self.node.0.as_slice());
        let asked =
            others.map(|row| async move { (row.node.clone(), self.peers.local_status(row).await) });
        let mut answers: BTreeMap<Bytes, Option<wire::LocalStatusResponse>> =
            futures::future::join_all(asked).await.into_iter().collect();
        let of_this_life = |life: u64| [0, self.incarnation.0].contains(&life);
        for answer in answers.values_mut().flatten() {
            if of_this_life(answer.incarnation) {
                merge(&mut groups, &answer.groups);
            } else if let Some(node) = &mut answer.node {
                node.stopped_reason = of_another_life(answer.incarnation, self.incarnation.0);
            }
        }
        let is_silent = |answer: &Option<wire::LocalStatusResponse>| {
            answer.as_ref().is_none_or(|answer| !of_this_life(answer.incarnation))
        };
        let silent = answers.iter().filter(|(_, answer)| is_silent(answer));
        let silent: BTreeSet<Bytes> = silent.map(|(node, _)| node.clone()).collect();
        add_silent(&mut groups, &self.members(state)?, &silent);
        let led = led_by(&groups);
        let nodes = rows
            .into_iter()
            .map(|row| {
                let mut status = match answers.get(&row.node) {
                    None => self.local_node(),
                    Some(Some(answer)) => answer.node.clone().unwrap_or_default(),
                    Some(None) => wire::NodeStatus::default(),
                };
                status.reachable = !matches!(answers.get(&row.node), Some(None));
                status.groups_led = led.get(&row.node).copied().unwrap_or_default();
                wire::NodeStatus { node: Some(row), ..status }
            })
            .collect();
        Ok(wire::ClusterStatusResponse {
            cluster: reads::cluster(state).map_err(internal)?,
            nodes,
            groups,
            answering_node: Bytes::copy_from_slice(&self.node.0),
            meta_current: meta.current,
        })
    }

    /// Who replicates each group: as its replica here knows it, else as meta does.
    fn members(&self, state: &dyn StateRead) -> Result<Vec<wire::GroupStatus>, Status> {
        let unreachable = |replica, node, voter| wire::ReplicaStatus {
            replica,
            node,
            voter,
            health: UNREACHABLE.to_owned(),
            ..wire::ReplicaStatus::default()
        };
        let of = |group, replicas| wire::GroupStatus { group, replicas, ..Default::default() };
        let here = self.cluster.status().into_iter().map(|group| {
            let replicas = group
                .replicas
                .iter()
                .map(|r| unreachable(r.replica.0, Bytes::copy_from_slice(&r.node.0), r.is_voter));
            (group.group.0, replicas.collect::<Vec<_>>())
        });
        let mut members: BTreeMap<u32, Vec<_>> = here.collect();
        members.retain(|_, replicas| !replicas.is_empty());
        for row in reads::groups(state).map_err(internal)? {
            let known = row.replicas.into_iter().filter(|r| r.confirmed && !r.removed);
            let known = known.map(|r| unreachable(r.replica, r.node, true));
            members.entry(row.group).or_insert_with(|| known.collect());
        }
        Ok(members.into_iter().map(|(group, replicas)| of(group, replicas)).collect())
    }

    /// This node about itself.
    pub fn local_node(&self) -> wire::NodeStatus {
        let (clock, settings) = (self.cluster.clock_status(), self.settings.now());
        let own = self.material.own();
        wire::NodeStatus {
            certificate_serial: own.serial.into(),
            certificate_not_after_us: own.not_after_us,
            node: Some(self.row.clone()),
            reachable: true,
            groups_led: 0,
            sessions: u32::try_from(self.sources.sessions()).unwrap_or(u32::MAX),
            stopped_reason: self.stopped().unwrap_or_default(),
            disk_free_bytes: self.disk_free_bytes(),
            meta_age_ms: self.rights.age_ms(self.clock.monotonic_us()),
            clock_offset_us: clock.offset_us,
            clock_astray: clock.is_astray,
            clock_spread_us: clock.spread_us.unsigned_abs(),
            settings_version: settings.row.version,
            settings_pending: settings.pending.clone(),
            settings_unknown: settings.not_taken.clone(),
            lines: self.local_lines(),
        }
    }

    /// The groups as this node sees them, each with this node's own replica.
    pub fn local_groups(&self) -> Vec<wire::GroupStatus> {
        self.cluster.status().into_iter().map(|group| self.group_status(&group)).collect()
    }

    fn group_status(&self, group: &dtm_cluster::GroupStatus) -> wire::GroupStatus {
        let own = group.replicas.iter().find(|r| r.replica == group.replica);
        let health = match (&group.recovering, &group.failure, &group.alarm) {
            (Some(_), _, _) => "recovering",
            (None, Some(_), _) => "stopped",
            (None, None, Some(_)) => "differs",
            (None, None, None) if group.missing_bundles > 0 => "fetching",
            (None, None, None) => "healthy",
        };
        let counted = self.counters(group.group);
        let replica = wire::ReplicaStatus {
            replica: group.replica.0,
            node: Bytes::copy_from_slice(&self.node.0),
            voter: own.is_some_and(|r| r.is_voter),
            last_index: group.last_index,
            applied_index: group.head.index,
            ledger_size: group.head.ledger_size,
            ledger_root: Bytes::copy_from_slice(&group.head.ledger_root),
            health: health.to_owned(),
            records: counted.records,
            refused: counted.refused,
            day: counted.day,
            day_records: counted.day_records,
            day_refused: counted.day_refused,
            day_from_us: counted.day_from_us,
        };
        wire::GroupStatus {
            group: group.group.0,
            term: group.term,
            leader_node: group.leader.map(|n| Bytes::copy_from_slice(&n.0)).unwrap_or_default(),
            replicas: vec![replica],
            committed_index: group.head.index,
            lags: group.lags.iter().map(lag_to_wire).collect(),
            standby_sets: group.standby_sets.map(small),
            compared: group.compared.as_ref().map(|found| compared_to_wire(group.group, found)),
        }
    }

    fn counters(&self, group: GroupId) -> GroupHead {
        let view = futures::FutureExt::now_or_never(self.cluster.view(group, Freshness::Local));
        let head = view.and_then(Result::ok).and_then(|view| reads::head(view.state.as_ref()).ok());
        head.unwrap_or_default()
    }

    /// What of this node does not serve, while the others do: replicas, or the node for its clock.
    pub(crate) fn degraded(&self) -> Option<String> {
        let name = |group: dtm_cluster::GroupStatus| {
            let cause = group.recovering.or(group.failure)?;
            Some(format!("group {}: {cause}", group.group))
        };
        let mut bad: Vec<String> = self.cluster.status().into_iter().filter_map(name).collect();
        let clock = self.cluster.clock_status();
        if clock.is_astray {
            bad.push(format!("the clock is {} ms off", clock.offset_us / 1_000));
        }
        (!bad.is_empty()).then(|| bad.join("; "))
    }

    /// First reason of the log's fail-stop latch.
    pub fn stopped(&self) -> Option<String> {
        self.log.stopped().map(|reason| reason.to_string())
    }

    /// Of the disk of the data folder; 0 where it cannot be asked.
    pub fn disk_free_bytes(&self) -> u64 {
        dtm_storage::vfs::Vfs::free_bytes(&dtm_storage::vfs::RealVfs, &self.config.node.data)
            .unwrap_or_default()
    }

    /// The issuing certificate; every node holds it in its keyring.
    pub fn issuing(&self) -> Result<Issuing, Status> {
        crate::keyring::issuing(&self.keyring).ok_or_else(|| {
            status(ErrorCode::KeyMissing, "the keyring of this node holds no issuing certificate")
        })
    }
}

/// Its replicas are not those of this life, and count for nothing in it.
fn of_another_life(life: u64, own: u64) -> String {
    format!("it lives in life {life} of the cluster, this is life {own}; it rejoins by itself")
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn compared_to_wire(group: GroupId, found: &dtm_cluster::RowsCompared) -> wire::RowsCompared {
    wire::RowsCompared {
        group: group.0,
        index: found.index,
        age_ms: u64::try_from(found.age.as_millis()).unwrap_or(u64::MAX),
        rows: found.rows,
        replicas: small(found.replicas),
        absent: small(found.absent),
        differing: found.differing,
        undecided: found.undecided,
        named: found.named.clone(),
    }
}

fn lag_to_wire(lag: &dtm_cluster::ReplicaLag) -> wire::ReplicaLag {
    wire::ReplicaLag {
        replica: lag.replica.0,
        site: lag.site.clone(),
        entries: lag.entries,
        lag_ms: u64::try_from(lag.behind.as_millis()).unwrap_or(u64::MAX),
        late: lag.is_late,
    }
}

/// Adds what another node says of its own replicas.
fn merge(groups: &mut Vec<wire::GroupStatus>, more: &[wire::GroupStatus]) {
    for other in more {
        match groups.iter_mut().find(|g| g.group == other.group) {
            None => groups.push(other.clone()),
            Some(group) => {
                if other.term > group.term || group.leader_node.is_empty() {
                    group.term = group.term.max(other.term);
                    group.leader_node = other.leader_node.clone();
                }
                group.committed_index = group.committed_index.max(other.committed_index);
                group.replicas.extend(other.replicas.iter().cloned());
                group.lags.extend(other.lags.iter().cloned());
                group.standby_sets = group.standby_sets.or(other.standby_sets);
                group.compared = group.compared.take().or_else(|| other.compared.clone());
            }
        }
    }
}

/// Adds the replicas of nodes that do not answer, and takes such a node for no leader: nobody
/// confirms it.
fn add_silent(
    groups: &mut Vec<wire::GroupStatus>,
    members: &[wire::GroupStatus],
    silent: &BTreeSet<Bytes>,
) {
    for known in members {
        let lost = known.replicas.iter().filter(|replica| silent.contains(&replica.node)).cloned();
        match groups.iter_mut().find(|group| group.group == known.group) {
            Some(group) => group.replicas.extend(lost),
            None => groups.push(wire::GroupStatus {
                group: known.group,
                replicas: lost.collect(),
                ..wire::GroupStatus::default()
            }),
        }
    }
    for group in groups.iter_mut().filter(|group| silent.contains(&group.leader_node)) {
        group.leader_node = Bytes::new();
    }
    groups.sort_by_key(|group| group.group);
}

/// Groups led by each node.
fn led_by(groups: &[wire::GroupStatus]) -> BTreeMap<Bytes, u32> {
    let mut led = BTreeMap::new();
    for group in groups {
        *led.entry(group.leader_node.clone()).or_default() += 1;
    }
    led
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_of_a_silent_node_are_counted_and_it_leads_nothing() {
        let node = |id: u8| Bytes::from(vec![id; 16]);
        let replica = |id: u8, health: &str| wire::ReplicaStatus {
            replica: id.into(),
            node: node(id),
            health: health.to_owned(),
            ..wire::ReplicaStatus::default()
        };
        let group = |group, leader: Bytes, replicas| wire::GroupStatus {
            group,
            leader_node: leader,
            replicas,
            ..wire::GroupStatus::default()
        };
        let healthy = || vec![replica(1, "healthy"), replica(3, "healthy")];
        let mut groups = vec![group(1, node(2), healthy()), group(2, node(3), healthy())];
        let all = || (1..=3).map(|id| replica(id, UNREACHABLE)).collect::<Vec<_>>();
        let members = [0, 1, 2].map(|id| group(id, Bytes::new(), all()));
        add_silent(&mut groups, &members, &[node(2)].into());
        let lost = vec![replica(2, UNREACHABLE)];
        let three = || healthy().into_iter().chain(lost.clone()).collect::<Vec<_>>();
        assert_eq!(
            groups,
            [
                group(0, Bytes::new(), lost.clone()),
                group(1, Bytes::new(), three()),
                group(2, node(3), three()),
            ]
        );
    }
}
