//! A rolling upgrade, node by node under load: a release that knows the version before, held at it,
//! beside one that is not.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use dtm_proto::admin::UpgradeClusterRequest;

use crate::availability::{Probe, of, sees_what_is_away};
use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::readback::finish_and_judge;
use crate::wait::until;

/// Holds a node at the protocol of the release before.
const HOLD: &str = "DTM__NODE__PROTOCOL_VERSION_MAX";
const ALIVE: u64 = 20;
const WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Waits until all groups are at a version, and so many nodes stand against a higher one.
async fn are_at(cluster: &Cluster, version: u32, held: usize) -> Result<()> {
    until("the version of all groups", WITHIN, async || {
        let request = UpgradeClusterRequest { check: true, ..Default::default() };
        let admin = cluster.admin()?;
        let answer = admin.call(|mut client| {
            let request = request.clone();
            async move { client.upgrade_cluster(request).await }
        });
        let plan = answer.await?;
        let found: Vec<_> = plan.groups.iter().map(|group| group.version).collect();
        ensure!(!found.is_empty() && found.iter().all(|at| *at == version), "{found:?}");
        ensure!(plan.obstacles.len() == held, "not {held} nodes: {:?}", plan.obstacles);
        Ok(())
    })
    .await
}

// A probe watches from outside: none of it is an interruption. Then nodes go away for good.
//
// covers: AV-2
// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_fails_no_ack() -> Result<()> {
    let mut cluster = Cluster::start_with(&[(HOLD, 1)]).await?;
    are_at(&cluster, 1, 0).await?;
    let load = Load::usual(&cluster, 8).await?;
    load.moves(ALIVE).await?;
    let probe = Probe::start(&cluster).await?;
    for at in 0..NODES {
        cluster.nodes[at].stop().await?;
        cluster.nodes[at].environment.retain(|(name, _)| name != HOLD);
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        load.moves(ALIVE).await?;
        // The nodes that are still held stand against it, each by its name.
        let held = NODES - 1 - at;
        are_at(&cluster, 1, held).await?;
        let raised = cluster.dtm(&["cluster", "upgrade", "finalize"]).await;
        ensure!(raised.is_ok() == (held == 0), "with {held} held: {raised:?}");
    }
    are_at(&cluster, 2, 0).await?;
    load.moves(ALIVE).await?;
    // What only the new version has.
    cluster.dtm(&["config", "set", "limits.streams_open_max=65"]).await?;
    let failed: u64 = load.lines.iter().map(|line| line.troubles.load(Ordering::Relaxed)).sum();
    let why = load.lines.iter().find_map(|line| line.reasons.lock().front().cloned());
    ensure!(
        failed == 0,
        "{failed} connections were cut or refused, such as: {}",
        why.context("?")?
    );
    probe.until_more(&cluster, "seen").await?;
    let account = probe.account(&cluster).await?;
    ensure!(of(&account, "interrupted")? == 0, "{account}");
    ensure!(probe.told().is_empty(), "{}", probe.told());

    sees_what_is_away(&mut cluster, &probe).await?;
    load.moves(ALIVE).await?;
    probe.stop().await?;
    finish_and_judge(cluster, load).await
}
