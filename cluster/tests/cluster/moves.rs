//! Replicas move: to a node that joins, away from one that is given up; nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{ClusterConfig, ClusterNode, GroupStatus, LogProvider};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_types::command::{ClusterRow, GroupRow, admin};
use dtm_types::{GroupId, NodeId};

use crate::harness::{Cluster, admin_command, command, propose, until, until_async};
use crate::replication::held;
use crate::storage::Storage;

const GROUPS: u32 = 8;

fn ingest() -> impl Iterator<Item = GroupId> {
    (1..=GROUPS).map(GroupId)
}

/// Four nodes that run, of which the first three are a cluster.
async fn three_of_four(configure: impl Fn(&mut ClusterConfig)) -> Cluster {
    let cluster = Cluster::start_with(4, |_| Storage::memory(), configure).await;
    let row = ClusterRow {
        cluster_id: vec![7; 16].into(),
        incarnation: 1,
        ingest_groups: GROUPS,
        ..ClusterRow::default()
    };
    cluster.node(0).bootstrap_single(row, cluster.row(0)).await.expect("bootstraps");
    join(&cluster, 1).await;
    join(&cluster, 2).await;
    until("three voters each", || {
        let three = |group: GroupId| voters(&cluster, group).map(|voters| voters.len()) == Some(3);
        ingest().all(three).then_some(())
    })
    .await;
    cluster
}

async fn join(cluster: &Cluster, at: usize) {
    let put = admin_command(admin::Op::PutNode(cluster.row(at)));
    propose(cluster.node(0), GroupId::META, put).await.expect("joins");
}

fn led(cluster: &Cluster, group: GroupId) -> Option<(NodeId, GroupStatus)> {
    cluster.nodes.iter().flatten().find_map(|node| {
        let hint = node.leader(group).filter(|hint| hint.is_self)?;
        Some((hint.node, node.status().into_iter().find(|status| status.group == group)?))
    })
}

/// Nodes of a group's voters, as its leader says; members that do not vote must be none.
fn voters(cluster: &Cluster, group: GroupId) -> Option<Vec<NodeId>> {
    let (_, status) = led(cluster, group)?;
    status.replicas.iter().all(|replica| replica.is_voter).then_some(())?;
    Some(status.replicas.iter().map(|replica| replica.node).collect())
}

/// How many replicas each node holds on its disk, how many groups each leads.
fn shares(cluster: &Cluster) -> (BTreeMap<NodeId, usize>, BTreeMap<NodeId, usize>) {
    let (mut holds, mut leads) = (BTreeMap::new(), BTreeMap::new());
    for disk in &cluster.disks {
        let node = disk.config.node.node;
        let replicas = disk.storage.logs().replicas();
        holds.insert(node, replicas.iter().filter(|(group, _)| !group.is_meta()).count());
        leads.insert(node, 0);
    }
    let all = ingest().chain([GroupId::META]);
    for (node, _) in all.filter_map(|group| led(cluster, group)) {
        *leads.entry(node).or_default() += 1;
    }
    (holds, leads)
}

async fn rows(node: &ClusterNode) -> Vec<GroupRow> {
    let meta = node.view(GroupId::META, Freshness::Current).await.expect("meta");
    let rows = reads::groups(meta.state.as_ref()).expect("rows");
    rows.into_iter().filter(|row| row.group > 0).collect()
}

/// Writes to every group in turn until told to stop; what was acknowledged.
fn write(node: &Arc<ClusterNode>, stop: &Arc<std::sync::atomic::AtomicBool>) -> Writing {
    let (node, stop) = (Arc::clone(node), Arc::clone(stop));
    tokio::spawn(async move {
        let mut acked = Vec::new();
        for number in 0_u32..100_000 {
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            let group = GroupId(1 + number % GROUPS);
            let text = format!("w{number}");
            if propose(&node, group, command(&text)).await.is_ok() {
                acked.push((group, text));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        acked
    })
}

type Writing = tokio::task::JoinHandle<Vec<(GroupId, String)>>;

async fn every_one_is_held(cluster: &Cluster, acked: &[(GroupId, String)]) {
    for group in ingest() {
        let holders = cluster.nodes.iter().flatten().filter(|node| node.is_here(group));
        for holder in holders {
            let texts = held(holder, group, 10_000).await;
            for (_, text) in acked.iter().filter(|(of, _)| *of == group) {
                assert_eq!(texts.iter().filter(|held| *held == text).count(), 1, "{text}");
            }
        }
    }
}

// holds: ING-1, ING-2, LIVE-1
// fault: F21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_gets_its_share_of_replicas_and_leaders() {
    let cluster = three_of_four(|config| config.rebalance = true).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writing = write(cluster.node(1), &stop);
    join(&cluster, 3).await;
    until("an even spread", || {
        let (holds, leads) = shares(&cluster);
        let whole = ingest().all(|group| voters(&cluster, group).is_some_and(|of| of.len() == 3));
        let is_even =
            holds.values().all(|n| *n == 6) && leads.values().all(|n| (2..=3).contains(n));
        (whole && is_even).then_some(())
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let acked = writing.await.expect("writes");
    assert!(acked.len() > 100, "{} acked while replicas moved", acked.len());
    every_one_is_held(&cluster, &acked).await;
    for row in rows(cluster.node(0)).await {
        let (gone, live): (Vec<_>, Vec<_>) = row.replicas.iter().partition(|row| row.removed);
        assert_eq!(live.len(), 3, "{row:?}");
        assert!(
            gone.len() <= 1 && gone.iter().all(|gone| gone.leaving),
            "none moves twice: {row:?}"
        );
    }
}

// holds: ING-1
// fault: F2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stays_silent_is_replaced_and_its_disk_comes_back_empty_handed() {
    let mut cluster = three_of_four(|config| config.dead_after_ms = 1_500).await;
    join(&cluster, 3).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writing = write(cluster.node(1), &stop);
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.kill(2).await;
    let dead = NodeId([3; 16]);
    until("every group without the dead node", || {
        let moved = |group: GroupId| {
            voters(&cluster, group).is_some_and(|of| of.len() == 3 && !of.contains(&dead))
        };
        ingest().all(moved).then_some(())
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let acked = writing.await.expect("writes");
    every_one_is_held(&cluster, &acked).await;
    cluster.restart(2).await;
    until("its old replicas are forgotten", || {
        let replicas = cluster.disks[2].storage.logs().replicas();
        replicas.iter().all(|(group, _)| group.is_meta()).then_some(())
    })
    .await;
    until_async("writes through it", async || {
        propose(cluster.node(2), GroupId(1), command("again")).await.ok().map(|_| ())
    })
    .await;
}

// holds: ING-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_under_another_leader_of_meta() {
    let mut cluster = three_of_four(|config| config.rebalance = true).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    join(&cluster, 3).await;
    let first = cluster.leader_of(GroupId::META).await;
    let other = (first + 1) % 3;
    let writing = write(cluster.node(other), &stop);
    until_async("a replica that leaves", async || {
        let rows = rows(cluster.node(other)).await;
        rows.iter().any(|row| row.replicas.iter().any(|r| r.leaving && !r.removed)).then_some(())
    })
    .await;
    cluster.kill(first).await;
    until_async("another leader goes on", async || {
        let leader = cluster
            .nodes
            .iter()
            .flatten()
            .find(|node| node.leader(GroupId::META).is_some_and(|hint| hint.is_self))?;
        let view = leader.view(GroupId::META, Freshness::Current).await.ok()?;
        let rows = reads::groups(view.state.as_ref()).ok()?;
        let has_left = rows.iter().flat_map(|row| &row.replicas).any(|r| r.leaving && r.removed);
        has_left.then_some(())
    })
    .await;
    cluster.restart(first).await;
    until("an even spread", || {
        let (holds, _) = shares(&cluster);
        let whole = ingest().all(|group| voters(&cluster, group).is_some_and(|of| of.len() == 3));
        (whole && holds.values().all(|count| *count == 6)).then_some(())
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    every_one_is_held(&cluster, &writing.await.expect("writes")).await;
}
