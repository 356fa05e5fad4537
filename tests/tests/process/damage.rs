//! Stored bytes that are not what was written: nothing that was acked is lost, the node says what it
//! found, and its replica is mended from the others.

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::Load;
use crate::log_file::{flip, middle, tear};
use crate::readback::judge;
use crate::wait::until;

const ALIVE: u64 = 20;
/// Entries of each group before the damage.
const BEFORE: u64 = 60;

async fn loaded() -> Result<(Cluster, Load)> {
    let cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(BEFORE).await?;
    Ok((cluster, load))
}

/// Everything is where it belongs, on every node.
async fn whole(mut cluster: Cluster, load: Load) -> Result<()> {
    load.moves(ALIVE).await?;
    cluster.settled(NODES).await.context("not mended in time")?;
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

async fn finds_a_damaged_block(cluster: &Cluster, at: usize) -> Result<()> {
    until("the damage is noticed", WITHIN, async || {
        let damaged = cluster.nodes[at].log_opened_with("damaged_blocks")?;
        ensure!(damaged == 1, "n{}: {damaged} damaged blocks", at + 1);
        Ok(())
    })
    .await
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
async fn bit_that_flips_in_the_middle_of_the_log_is_mended() -> Result<()> {
    let (mut cluster, load) = loaded().await?;
    let group = load.lines[0].plan.source.group;
    let at = cluster.leader(group).await?;
    cluster.nodes[at].kill();
    let found = middle(&cluster.nodes[at].folder, group)?;
    found[found.len() / 2].flip()?;
    cluster.start_node(at)?;
    load.moves(ALIVE).await?;
    finds_a_damaged_block(&cluster, at).await?;
    whole(cluster, load).await
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_that_flip_at_different_places_of_two_nodes_are_mended() -> Result<()> {
    let (mut cluster, load) = loaded().await?;
    let group = load.lines[0].plan.source.group;
    for at in [0, 1] {
        cluster.nodes[at].kill();
    }
    for at in [0, 1] {
        let found = middle(&cluster.nodes[at].folder, group)?;
        found[found.len() * (1 + at) / 3].flip()?;
    }
    for at in [0, 1] {
        cluster.start_node(at)?;
    }
    for at in [0, 1] {
        finds_a_damaged_block(&cluster, at).await?;
    }
    whole(cluster, load).await
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bit_that_flips_in_a_table_of_rows_is_mended() -> Result<()> {
    let (mut cluster, load) = loaded().await?;
    let at = 2;
    // A planned stop writes the rows out.
    cluster.nodes[at].stop().await?;
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
    until("the damage is noticed", WITHIN, async || {
        let log = std::fs::read_to_string(&cluster.nodes[at].log)?;
        let said = ["rows are damaged and moved aside", "rows are rebuilt", "rows rebuilt"];
        ensure!(said.iter().any(|said| log.contains(said)), "nothing was noticed");
        Ok(())
    })
    .await?;
    whole(cluster, load).await
}
