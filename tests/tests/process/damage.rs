//! Stored bytes that are not what was written: nothing that was acked is lost, the node says what it
//! found, and its replica is mended from the others or stays out of what it may not do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::log_file::{flip, middle, tear};
use crate::readback::judge;

const ALIVE: u64 = 20;
/// A damaged replica that was not mended by then stays out.
const MENDED_WITHIN: Duration = Duration::from_secs(15);
/// Entries of each group before the damage.
const BEFORE: u64 = 60;

async fn loaded() -> Result<(Cluster, Load)> {
    let cluster = Cluster::start().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(BEFORE).await?;
    Ok((cluster, load))
}

/// Everything is where it belongs, on every node that is not out.
async fn whole(mut cluster: Cluster, load: Load) -> Result<()> {
    load.moves(ALIVE).await?;
    let is_whole = cluster.present().len() == NODES;
    if is_whole {
        cluster.settled(NODES).await?;
    }
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    if is_whole {
        cluster.roots_agree().await?;
    }
    cluster.passed();
    Ok(())
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_tail_is_cut() -> Result<()> {
    let (mut cluster, load) = loaded().await?;
    for at in 0..NODES {
        cluster.nodes[at].kill();
        let folder = cluster.nodes[at].folder.clone();
        tear(&folder)?;
        cluster.start_node(at)?;
        cluster.settled(NODES).await.with_context(|| format!("n{}", at + 1))?;
        ensure!(
            cluster.nodes[at].log_opened_with("torn_bytes")? > 0,
            "n{} found no torn tail",
            at + 1
        );
        load.moves(ALIVE).await?;
    }
    whole(cluster, load).await
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bit_that_flips_in_the_middle_of_the_log_is_found() -> Result<()> {
    let (mut cluster, load) = loaded().await?;
    let group = load.lines[0].plan.source.group;
    let at = cluster.leader(group).await?;
    cluster.nodes[at].kill();
    let found = middle(&cluster.nodes[at].folder, group)?;
    found[found.len() / 2].flip()?;
    cluster.start_node(at)?;
    load.moves(ALIVE).await?;
    ensure!(cluster.nodes[at].log_opened_with("damaged_blocks")? == 1, "it found no damage");
    if mends(&mut cluster).await.is_err() {
        let leader = cluster.leader(group).await?;
        ensure!(leader != at, "a damaged replica leads");
        let status = cluster.status().await?;
        let row = status.groups.iter().find(|row| row.group == group).context("the group")?;
        let healthy = row.replicas.iter().filter(|replica| replica.health == "healthy").count();
        ensure!(healthy < NODES, "a damaged replica is shown as healthy: {row:?}");
        cluster.nodes[at].lost = true;
    }
    whole(cluster, load).await
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bit_that_flips_in_a_table_of_rows_is_found() -> Result<()> {
    let (mut cluster, load) = loaded().await?;
    let at = 2;
    // A planned stop writes the rows out.
    cluster.nodes[at].stop()?;
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(cluster.nodes[at].folder.join("data/state"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "sst") {
            tables.push(path);
        }
    }
    ensure!(!tables.is_empty(), "no tables");
    for path in &tables {
        flip(path, std::fs::metadata(path)?.len() / 3)?;
    }
    cluster.start_node(at)?;
    load.moves(ALIVE).await?;
    if let Err(why) = mends(&mut cluster).await {
        let why = cluster.nodes[at].check().err().unwrap_or(why);
        let said = format!("{why:#}");
        ensure!(said.contains(".sst") && said.contains("damaged"), "{said}");
        cluster.nodes[at].lost = true;
    }
    whole(cluster, load).await
}

/// Waits until every replica is healthy, not for long.
async fn mends(cluster: &mut Cluster) -> Result<()> {
    let settled = tokio::time::timeout(MENDED_WITHIN, cluster.settled(NODES)).await;
    settled.context("not mended in time")?
}
