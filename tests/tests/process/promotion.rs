//! The site that acknowledged is lost; the standby goes on in the next life of the cluster. The old
//! primary acknowledges nothing when it comes back: it tells what it held alone, stands by, and is made
//! primary again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_client::Session;
use dtm_proto::admin::{LeftBehindRequest, PrimacyRequest};
use dtm_proto::ingest::Open;

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
const ALIVE: u64 = 20;
pub(crate) const PROMOTE: [&str; 5] = ["site", "promote", STANDBY, "--yes", "--reason"];
/// The primary is silent for a lease, then the standby waits for its right to end.
pub(crate) const PROMOTED_WITHIN: Duration = Duration::from_secs(150);

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1, LED-1
// fault: F27
// target: P18, P19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_and_the_old_primary_comes_back() -> Result<()> {
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
    let late = late.finish().await?;
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

    comes_back(&mut cluster, third, &lines[0].plan.source).await?;
    settles_what_was_left(&cluster, &late).await?;
    lines.extend(late);
    for at in 0..NODES {
        cluster.nodes[at].lost = false;
    }
    cluster.fulfilled().await?;
    holds_everything(&cluster, PRIMARY).await?;
    judge(&cluster, &lines).await.context("after the old primary came back")?;

    goes_back(&mut cluster, &mut lines).await?;
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

/// The life that a node lives in.
pub(crate) async fn life(cluster: &Cluster, at: usize) -> Result<u64> {
    let admin = cluster.admin_at(&[at])?;
    let told = admin.call(|mut client| async move { client.primacy(PrimacyRequest {}).await });
    Ok(told.await?.life)
}

/// The old primary runs again: it acknowledges nothing, and goes on in the life in force.
async fn comes_back(cluster: &mut Cluster, third: usize, old: &Source) -> Result<()> {
    for at in 0..NODES {
        cluster.start_node(at)?;
    }
    for at in (0..NODES).chain([third]) {
        until("a node in the life in force", PROMOTED_WITHIN, async || {
            let life = life(cluster, at).await?;
            ensure!(life == 2, "n{} lives in life {life}", at + 1);
            Ok(())
        })
        .await?;
    }
    for at in 0..NODES {
        let endpoint = cluster.endpoint_at(old, &[at])?;
        let (source, dataset) = (old.code.clone(), "notes".to_owned());
        let open = Open { source, stream: "too late".into(), dataset, ..Open::default() };
        let address = cluster.nodes[at].grpc.to_string();
        let waits = (Duration::from_secs(5), Duration::from_secs(5));
        let opened = Session::open_within(&endpoint, &address, open, waits).await;
        ensure!(opened.is_err(), "n{} of the site that stands by acknowledges", at + 1);
    }
    Ok(())
}

/// Records of each stream that the life in force is not known to have, of what the old primary kept.
async fn lacking(cluster: &Cluster, nodes: &[usize]) -> Result<BTreeMap<(String, String), u64>> {
    let mut told = BTreeMap::new();
    for at in nodes {
        let admin = cluster.admin_at(&[*at])?;
        let asked =
            admin.call(|mut client| async move { client.left_behind(LeftBehindRequest {}).await });
        for stream in asked.await?.replicas.into_iter().flat_map(|of| of.streams) {
            let known: &mut u64 = told.entry((stream.source, stream.stream)).or_default();
            *known = stream.lacking.max(*known);
        }
    }
    Ok(told)
}

/// Every record that the old primary acknowledged and the life in force lacks is told, and sent again.
async fn settles_what_was_left(cluster: &Cluster, late: &[Arc<Line>]) -> Result<()> {
    let primary: Vec<usize> = (0..NODES).collect();
    let told = lacking(cluster, &primary).await?;
    for line in late {
        let key = (line.plan.source.code.clone(), line.plan.stream.clone());
        let lacking = told.get(&key).copied().unwrap_or_default();
        ensure!(lacking >= line.acked(), "{key:?}: {lacking} of {}", line.acked());
    }
    let reason = ["--yes", "--reason", "its sources are gone"];
    let kept = cluster.dtm(&["site", "left", "list"]).await;
    ensure!(kept.is_err_and(|told| format!("{told:#}").contains("exit status: 10")), "it is kept");
    // What was decided by administration stays: it is made again by hand.
    let sent = cluster.dtm(&[&["site", "left", "resend"], &reason[..]].concat()).await;
    println!("{sent:?}");
    let still = lacking(cluster, &primary).await?;
    ensure!(still.values().all(|count| *count == 0), "sent again, and lacking: {still:?}");
    println!("{}", cluster.dtm(&[&["site", "left", "discard"], &reason[..]].concat()).await?);
    cluster.dtm(&["site", "left", "list"]).await.map(|_| ())
}

/// The first site is primary again, while all of them run.
async fn goes_back(cluster: &mut Cluster, lines: &mut Vec<Arc<Line>>) -> Result<()> {
    let begun = Instant::now();
    let back = ["site", "failback", PRIMARY, "--yes", "--reason", "it is mended"];
    let (done, acts) = tokio::join!(cluster.dtm(&back), administers(cluster));
    let done = done?;
    let acts = acts?;
    println!("{done} after {:.1?}, {} actions meanwhile", begun.elapsed(), acts.len());
    let after = at_streams(cluster, lines, "back").await?;
    after.moves(ALIVE).await?;
    println!("acknowledged after {:.1?}", begun.elapsed());
    lines.extend(after.finish().await?);
    for at in cluster.present() {
        until("a node in the life in force", PROMOTED_WITHIN, async || {
            let life = life(cluster, at).await?;
            ensure!(life == 3, "n{} lives in life {life}", at + 1);
            Ok(())
        })
        .await?;
    }
    cluster.fulfilled().await?;
    holds_everything(cluster, STANDBY).await?;
    judge(cluster, lines).await.context("after the way back")?;
    for code in acts {
        let shown = cluster.dtm(&["source", "show", &code]).await;
        shown.with_context(|| format!("{code} was entered, and is left behind"))?;
    }
    let lacking = lacking(cluster, &cluster.present()).await?;
    ensure!(lacking.values().all(|count| *count == 0), "left by a planned change: {lacking:?}");
    Ok(())
}

/// Registers sources while sites change, until it was refused and done again; those that were told as
/// entered.
async fn administers(cluster: &Cluster) -> Result<Vec<String>> {
    let (mut entered, mut refused) = (Vec::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < PROMOTED_WITHIN {
        let code = format!("change-{}-{refused}", entered.len());
        match cluster.add_source(&code, &["notes"]).await {
            Ok(_) => entered.push(code),
            Err(_) => refused += 1,
        }
        if refused > 0 && entered.last().is_some_and(|code| !code.ends_with("-0")) {
            return Ok(entered);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("{} entered, {refused} refused", entered.len())
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
    cluster.healthy().await?;
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
