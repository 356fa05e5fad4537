//! A standby site is added to a cluster that serves, and taken away again: voters at the primary,
//! copies at the standby, lag told, nothing lost.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_proto::admin::{SiteDetail, SiteStatusRequest, SiteStatusResponse};

use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::readback::judge;
use crate::wait::until;

const PRIMARY: &str = "main";
const STANDBY: &str = "b";
/// Nodes of the standby.
const COPIES: u32 = 2;
/// The ingest groups of a test's cluster, and meta.
const GROUPS: u32 = 7;
const ALIVE: u64 = 20;
/// For replicas to move on a machine that does other things beside.
const MOVED_WITHIN: Duration = Duration::from_secs(180);
const ALARM: (&str, &str) = ("DTM__SITES__LAG_ALARM_MS", "1500");

impl Cluster {
    pub(crate) async fn sites(&self) -> Result<SiteStatusResponse> {
        let admin = self.admin()?;
        let asked =
            admin.call(|mut client| async move { client.site_status(SiteStatusRequest {}).await });
        Ok(asked.await?)
    }

    pub(crate) async fn lay_out(&self, arguments: &[&str]) -> Result<()> {
        let arguments = [&["site", "layout", "--kind"], arguments].concat();
        self.dtm(&arguments).await.map(|_| ())
    }

    /// Waits until the command line says that the layout is fulfilled: the sites as it tells them.
    pub(crate) async fn fulfilled(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        until("a layout that is fulfilled", MOVED_WITHIN, async || {
            let told = self.dtm(&["-o", "json", "site", "status"]).await?;
            let told: serde_json::Value = serde_json::from_str(&told)?;
            ensure!(told["fulfilled"] == true, "{told}");
            let sites = told["sites"].as_array().context("sites")?.clone();
            Ok(sites.into_iter().map(|site| (site["site"].as_str().unwrap_or("").into(), site)))
        })
        .await
        .map(Iterator::collect)
    }
}

pub(crate) fn site<'a>(status: &'a SiteStatusResponse, name: &str) -> Result<&'a SiteDetail> {
    status.sites.iter().find(|site| site.site == name).context("the site is not told")
}

// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_site_comes_and_goes_under_load() -> Result<()> {
    let mut cluster = Cluster::start_with(&[ALARM]).await?;
    let load = Load::usual(&cluster, 3).await?;
    load.moves(ALIVE).await?;
    let mut others = Vec::new();
    for _ in 0..COPIES {
        others.push(cluster.add_node_with(&[ALARM], Some(STANDBY)).await?);
    }
    // Single: voters spread over both sites, so that there is something to take back.
    until("a voter at the new site", MOVED_WITHIN, async || {
        let status = cluster.sites().await?;
        ensure!(site(&status, STANDBY)?.voters > 0, "no voter there yet: {:?}", status.sites);
        Ok(())
    })
    .await?;

    cluster.lay_out(&["standby", "--primary", PRIMARY, "--standby", STANDBY]).await?;
    load.moves(ALIVE).await?;
    let sites = cluster.fulfilled().await?;
    let counts = |name: &str, key: &str| sites[name][key].as_u64().unwrap_or(u64::MAX);
    let voters = u64::from(GROUPS) * NODES as u64;
    assert_eq!((counts(PRIMARY, "voters"), counts(PRIMARY, "learners")), (voters, 0), "{sites:?}");
    let copies = u64::from(GROUPS * COPIES);
    assert_eq!((counts(STANDBY, "voters"), counts(STANDBY, "learners")), (0, copies), "{sites:?}");
    until("leaders at the primary alone, and the lag of every group", MOVED_WITHIN, async || {
        let status = cluster.sites().await?;
        let (primary, standby) = (site(&status, PRIMARY)?, site(&status, STANDBY)?);
        ensure!((primary.leaders, standby.leaders) == (GROUPS, 0), "{:?}", status.sites);
        let told: Vec<_> = standby.lags.iter().map(|lag| (lag.group, lag.replicas)).collect();
        let wanted: Vec<_> = (0..GROUPS).map(|group| (group, COPIES)).collect();
        ensure!(told == wanted && primary.lags.is_empty(), "{:?}", status.sites);
        Ok(())
    })
    .await?;

    lags_and_catches_up(&mut cluster, &load, &others).await?;
    let swapped = ["standby", "--primary", STANDBY, "--standby", PRIMARY];
    let swapped = [&["site", "layout", "--kind"], &swapped[..]].concat();
    cluster.dtm_fails(&swapped, "promoting the standby").await?;
    cluster.dtm_fails(&["site", "layout", "--kind", "stretched"], "three different sites").await?;

    cluster.lay_out(&["single"]).await?;
    load.moves(ALIVE).await?;
    let sites = cluster.fulfilled().await?;
    let all: u64 = sites.values().filter_map(|site| site["voters"].as_u64()).sum();
    assert_eq!(all, voters, "{sites:?}");
    load.moves(ALIVE).await?;
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}

/// The standby stands still: acks do not wait for it, its lag is told; then it has all again.
async fn lags_and_catches_up(cluster: &mut Cluster, load: &Load, others: &[usize]) -> Result<()> {
    others.iter().try_for_each(|at| cluster.nodes[*at].pause())?;
    until("a lag that is told", MOVED_WITHIN, async || {
        load.moves(1).await?;
        let status = cluster.sites().await?;
        let standby = site(&status, STANDBY)?;
        let late = standby.lags.iter().filter(|lag| lag.late && lag.entries > 0);
        ensure!(late.count() > 0, "nothing lags: {standby:?}");
        Ok(())
    })
    .await?;
    let said = cluster.dtm(&["site", "status"]).await;
    ensure!(format!("{:?}", said.err()).contains("exit status: 10"), "a site that lags is told");
    cluster.resume(others)?;
    cluster.fulfilled().await.map(|_| ())
}
