//! Connections follow the cluster: spread over its nodes, to one that joins, away from one that is
//! drained.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::load::{Load, Plan};
use crate::readback::finish_and_judge;
use crate::wait::{is_long, until};

/// Of a cluster that an operator founds without saying otherwise.
const GROUPS: &str = "12";
const TICK: Duration = Duration::from_millis(500);
const ALIVE: u64 = 3;
/// No node has more of the connections.
const MOST_PERCENT: u32 = 40;
/// Of its even share, the node that joined has so much.
const SHARE_PERCENT: u32 = 60;
/// How soon.
const WITHIN: Duration = Duration::from_secs(60);

fn sources() -> usize {
    if is_long() { 500 } else { 96 }
}

async fn many(cluster: &Cluster) -> Result<Load> {
    let mut plans = Vec::new();
    for at in 1..=sources() {
        let source = cluster.add_source(&format!("src-{at}"), &["notes"]).await?;
        plans.push(Plan { tick: TICK, ..Plan::new(&source, "a") });
    }
    Load::start(cluster, plans).await
}

/// Open streams of each node.
async fn streams(cluster: &Cluster) -> Result<Vec<u32>> {
    let status = cluster.status().await?;
    let of = |name: &str| {
        let mut rows = status.nodes.iter();
        let row = rows.find(|n| n.node.as_ref().is_some_and(|n| n.name == name));
        row.map_or(0, |row| row.sessions)
    };
    Ok(cluster.nodes.iter().map(|node| of(&node.name)).collect())
}

/// Waits until every stream is open once and no node has too many; how they are spread.
async fn spread(cluster: &Cluster, also: impl Fn(&[u32], u32) -> bool) -> Result<Vec<u32>> {
    let all = u32::try_from(sources())?;
    until("spread connections", WITHIN, async || {
        let streams = streams(cluster).await?;
        ensure!(streams.iter().sum::<u32>() == all, "{streams:?} of {all}");
        ensure!(streams.iter().all(|at| at * 100 <= all * MOST_PERCENT), "{streams:?}");
        ensure!(also(&streams, all), "{streams:?}");
        Ok(streams)
    })
    .await
}

/// Attempts that failed and connections that were cut, over all streams.
fn troubles(load: &Load) -> u64 {
    load.lines.iter().map(|line| line.troubles.load(Ordering::Relaxed)).sum()
}

// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_spread_and_follow_a_join_and_a_drain() -> Result<()> {
    let mut cluster = Cluster::of_groups(GROUPS).await?;
    cluster.spread().await?;
    let load = many(&cluster).await?;
    load.moves(ALIVE).await?;
    println!("three nodes: {:?}", spread(&cluster, |_, _| true).await?);

    let at = cluster.add_node().await?;
    let joined = Instant::now();
    let nodes = u32::try_from(cluster.nodes.len())?;
    let has_share = |streams: &[u32], all: u32| streams[at] * nodes * 100 >= all * SHARE_PERCENT;
    let streams = spread(&cluster, has_share).await?;
    println!("the fourth has its share after {:.1?}: {streams:?}", joined.elapsed());
    load.moves(ALIVE).await?;

    // Replicas may still move; what is drained is left alone by it.
    let (before, begun) = (troubles(&load), Instant::now());
    cluster.dtm(&["cluster", "drain", "n2"]).await?;
    let streams = spread(&cluster, |streams, _| streams[1] == 0).await?;
    println!("n2 is left after {:.1?}: {streams:?}", begun.elapsed());
    load.moves(ALIVE).await?;
    let failed = troubles(&load) - before;
    let why = || load.lines.iter().filter_map(|line| line.reasons.lock().front().cloned());
    ensure!(failed == 0, "{failed} failed: {:?}", why().take(3).collect::<Vec<_>>());
    finish_and_judge(cluster, load).await
}
