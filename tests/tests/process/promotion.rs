//! The site that acknowledged is lost; the standby goes on in the next life of the cluster. The old
//! primary acknowledges nothing when it comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dtm_client::{Publisher, PublisherConfig};

use crate::cluster::{Cluster, NODES};
use crate::layout::site;
use crate::load::{Line, Load, Plan};
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::until;

pub(crate) const PRIMARY: &str = "main";
pub(crate) const STANDBY: &str = "b";
pub(crate) const THIRD: &str = "c";
const SOURCES: usize = 3;
/// Longer than a lease.
const SILENT: Duration = Duration::from_secs(12);
const ALIVE: u64 = 20;
pub(crate) const PROMOTE: [&str; 5] = ["site", "promote", STANDBY, "--yes", "--reason"];
/// The primary is silent for a lease, then the standby waits for its right to end.
pub(crate) const PROMOTED_WITHIN: Duration = Duration::from_secs(150);

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1, LED-1
// fault: F27
// target: P18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_and_the_old_primary_acknowledges_nothing() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, SOURCES).await?;
    let mut standby = Vec::new();
    for _ in 0..NODES {
        standby.push(cluster.add_node_with(&[], Some(STANDBY)).await?);
    }
    let third = cluster.add_node_with(&[], Some(THIRD)).await?;
    stands_by(&mut cluster, &load).await?;
    load.moves(ALIVE).await?;
    let mut lines = load.finish().await?;
    holds_everything(&cluster, STANDBY).await?;

    // What is acknowledged now only the primary has.
    standby.iter().for_each(|at| cluster.nodes[*at].kill());
    let late = at_streams(&cluster, &lines, "late").await?;
    late.moves(ALIVE).await?;
    late.finish().await?;
    for at in 0..NODES {
        cluster.nodes[at].kill();
    }
    standby.iter().try_for_each(|at| cluster.start_node(*at))?;
    let lost = Instant::now();
    until("a promotion", PROMOTED_WITHIN, async || {
        cluster.dtm(&[&PROMOTE[..], &["the primary is lost"]].concat()).await.map(|_| ())
    })
    .await?;
    println!("promoted after {:.1?}", lost.elapsed());
    // Neither the old primary nor the third place serves.
    for at in (0..NODES).chain([third]) {
        cluster.nodes[at].lost = true;
    }
    let after = at_streams(&cluster, &lines, "after").await?;
    after.moves(ALIVE).await?;
    println!("acknowledged after {:.1?}", lost.elapsed());
    lines.extend(after.finish().await?);
    judge(&cluster, &lines).await?;

    comes_back(&mut cluster, &lines[0].plan.source).await?;
    ensure!(standby.iter().all(|at| cluster.nodes[*at].is_up()), "the standby runs on");
    cluster.passed();
    Ok(())
}

/// New streams of the same sources.
async fn at_streams(cluster: &Cluster, lines: &[Arc<Line>], name: &str) -> Result<Load> {
    let plans = lines.iter().take(SOURCES).enumerate();
    let plans = plans.map(|(at, line)| Plan::new(&line.plan.source, &format!("{name}-{at}")));
    Load::start(cluster, plans.collect()).await
}

async fn holds_everything(cluster: &Cluster, name: &str) -> Result<()> {
    until("a standby that holds everything", crate::cluster::WITHIN, async || {
        let status = cluster.sites().await?;
        let lags = &site(&status, name)?.lags;
        let behind: u64 = lags.iter().map(|lag| lag.entries).sum();
        ensure!(behind == 0 && !lags.is_empty(), "{behind} entries behind");
        Ok(())
    })
    .await
}

/// The old primary runs again: it acknowledges nothing.
async fn comes_back(cluster: &mut Cluster, old: &Source) -> Result<()> {
    for at in 0..NODES {
        cluster.start_node(at)?;
    }
    tokio::time::sleep(SILENT).await;
    for at in 0..NODES {
        let endpoint = cluster.endpoint_at(old, &[at])?;
        let config = PublisherConfig::new(&old.code, "too late", "notes");
        let opening =
            tokio::time::timeout(Duration::from_secs(5), Publisher::open(endpoint, config));
        let opened = opening.await;
        ensure!(
            !matches!(opened, Ok(Ok(_))),
            "n{} of the site that stands by acknowledges",
            at + 1
        );
    }
    Ok(())
}

/// The second site stands by, the third decides with them.
pub(crate) async fn three_places(cluster: &Cluster) -> Result<()> {
    let sites = ["--primary", PRIMARY, "--standby", STANDBY, "--arbiter", THIRD];
    // Once a node of each site runs.
    until("a layout with three places", crate::cluster::WITHIN, async || {
        cluster.lay_out(&[&["standby"], &sites[..]].concat()).await
    })
    .await?;
    cluster.fulfilled().await?;
    // Its context learns every address.
    until("a cluster that is healthy", crate::cluster::WITHIN, async || {
        cluster.dtm(&["cluster", "status"]).await.map(|_| ())
    })
    .await?;
    until("a register that confirms the primary", crate::cluster::WITHIN, async || {
        let told = cluster.dtm(&["-o", "json", "site", "status"]).await?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        ensure!(told["register"]["primary"] == PRIMARY, "{told}");
        Ok(())
    })
    .await
}

/// Nobody takes over while the primary lives.
async fn stands_by(cluster: &mut Cluster, load: &Load) -> Result<()> {
    three_places(cluster).await?;
    load.moves(ALIVE).await?;
    until("a refusal while the primary lives", crate::cluster::WITHIN, async || {
        let by_mistake = [&PROMOTE[..], &["by mistake"]].concat();
        cluster.dtm_fails(&by_mistake, "may still acknowledge").await
    })
    .await?;
    Ok(())
}
