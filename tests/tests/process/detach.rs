//! A standby that is gone is detached by two people: administration waits for it no more, and nobody
//! promotes it, though with the third place it is a majority. It stands by again by a later layout.

use anyhow::{Context, Result, ensure};

use crate::approvals::add_person;
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::promotion::{PROMOTE, PROMOTED_WITHIN, STANDBY, THIRD, life, three_places};
use crate::sources::source_row;
use crate::wait::until;

const DETACH: [&str; 6] = ["--yes", "--reason", "it burned", "site", "detach", STANDBY];

// holds: ING-1, SEC-2
// fault: F27
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_gone_is_detached_and_nobody_promotes_it() -> Result<()> {
    let mut cluster = Cluster::production().await?;
    let standby = [
        cluster.add_node_with(&[], Some(STANDBY)).await?,
        cluster.add_node_with(&[], Some(STANDBY)).await?,
    ];
    let third = cluster.add_node_with(&[], Some(THIRD)).await?;
    three_places(&cluster).await?;
    add_person(&cluster, "binh", "operator").await?;
    cluster.register(source_row("before", &["notes"])).await?;

    standby.iter().for_each(|at| cluster.nodes[*at].kill());
    let late = cluster.register(source_row("late", &["notes"])).await.err();
    let late = format!("{:#}", late.context("told as done while the standby does not have it")?);
    ensure!(late.contains("dtm site detach"), "{late}");
    is_detached_by_two(&cluster).await?;
    cluster.register(source_row("alone", &["notes"])).await?;
    // What was told as unknown is entered.
    cluster.dtm(&["source", "show", "late"]).await?;

    // The standby comes back while the primary is away: it did not hear of it, and is refused.
    (0..NODES).for_each(|at| cluster.nodes[at].kill());
    standby.iter().try_for_each(|at| cluster.start_node(*at))?;
    until("a refusal to promote what was detached", PROMOTED_WITHIN, async || {
        cluster.dtm_fails(&[&PROMOTE[..], &["the primary is lost"]].concat(), "was detached").await
    })
    .await?;

    // All run again: by a later layout it stands by, holds what was entered without it, and is promoted.
    (0..NODES).try_for_each(|at| cluster.start_node(at))?;
    cluster.healthy().await?;
    three_places(&cluster).await?;
    until("a standby that is attached", WITHIN, async || {
        let told: serde_json::Value =
            serde_json::from_str(&cluster.dtm(&["-o", "json", "site", "status"]).await?)?;
        ensure!(told["register"]["detached"] == false, "{told}");
        Ok(())
    })
    .await?;
    cluster.register(source_row("again", &["notes"])).await?;
    (0..NODES).for_each(|at| cluster.nodes[at].kill());
    until("a promotion", PROMOTED_WITHIN, async || {
        cluster.dtm(&[&PROMOTE[..], &["the primary is lost"]].concat()).await.map(|_| ())
    })
    .await?;
    (0..NODES).chain([third]).for_each(|at| cluster.nodes[at].lost = true);
    for code in ["before", "late", "alone", "again"] {
        let shown = cluster.dtm(&["source", "show", code]).await;
        shown.with_context(|| format!("{code} is left behind"))?;
    }
    cluster.passed();
    Ok(())
}

/// One person alone changes nothing; the approval does not wait for the standby.
async fn is_detached_by_two(cluster: &Cluster) -> Result<()> {
    cluster.dtm_fails(&["site", "layout", "--kind", "single"], "dtm site detach").await?;
    // Nor by the way out of a primary that lost its right: nothing is decided before it is refused.
    let alone = ["site", "layout", "--kind", "single", "--accept-split", "--reason", "in a hurry"];
    cluster.dtm_fails(&alone, "production").await?;
    cluster.dtm_fails(&DETACH, "[approval-needed]").await?;
    let list: serde_json::Value =
        serde_json::from_str(&cluster.dtm(&["-o", "json", "approval", "list"]).await?)?;
    ensure!(list[0]["kind"] == "detach-site", "{list}");
    ensure!(list[0]["object"].as_str().is_some_and(|o| o.starts_with("site=b layout=")), "{list}");
    let id = list[0]["id"].as_str().context("an id")?.to_owned();
    let approved = [&DETACH[..], &["--approval", &id]].concat();
    cluster.dtm_fails(&approved, "not granted yet").await?;
    cluster.dtm(&["--context", "binh", "--yes", "approval", "grant", &id]).await?;
    cluster.dtm(&approved).await?;
    let told: serde_json::Value =
        serde_json::from_str(&cluster.dtm(&["-o", "json", "approval", "show", &id]).await?)?;
    ensure!(told["state"] == "used", "{told}");
    Ok(())
}

// The primary and the third place are lost: two of three places are gone. Two people sign, the
// standby goes on in a life of its own; the primary hears of it when it runs again, and rejoins.
//
// holds: ING-1, SEC-2
// fault: F27
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_is_accepted_by_two_people_and_the_old_primary_hears_of_it() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let standby = [
        cluster.add_node_with(&[], Some(STANDBY)).await?,
        cluster.add_node_with(&[], Some(STANDBY)).await?,
    ];
    let third = cluster.add_node_with(&[], Some(THIRD)).await?;
    three_places(&cluster).await?;
    add_person(&cluster, "chi", "approver").await?;
    cluster.register(source_row("before", &["notes"])).await?;

    let file = cluster.path("split.json").display().to_string();
    let split = ["--accept-split", "--request-file", &file];
    let split = [&PROMOTE[..], &["two places are lost"], &split].concat();
    cluster.dtm(&split).await?;
    let sign = ["--yes", "approval", "sign", &file];
    cluster.dtm(&sign).await?;
    let alone = cluster.dtm(&split).await.err().context("one person did it")?;
    ensure!(format!("{alone:#}").contains("it takes two"), "{alone:#}");
    cluster.dtm(&[&["--context", "chi"][..], &sign].concat()).await?;
    cluster.dtm_fails(&split, "two of the places answer").await?;

    cluster.nodes[third].kill();
    (0..NODES).for_each(|at| cluster.nodes[at].kill());
    (0..NODES).chain([third]).for_each(|at| cluster.nodes[at].lost = true);
    until("a life of its own", PROMOTED_WITHIN, async || cluster.dtm(&split).await.map(|_| ()))
        .await?;
    for at in standby {
        let life = life(&cluster, at).await?;
        ensure!(life > 1_000, "n{} lives in life {life}", at + 1);
    }
    cluster.dtm(&["source", "show", "before"]).await?;
    cluster.register(source_row("after", &["notes"])).await?;

    // Those that were gone run again: they hear of it, end by themselves, and rejoin.
    (0..NODES).chain([third]).try_for_each(|at| cluster.start_node(at))?;
    for at in (0..NODES).chain([third]) {
        cluster.nodes[at].lost = false;
        until("a node in the life that began", PROMOTED_WITHIN, async || {
            let life = life(&cluster, at).await?;
            ensure!(life > 1_000, "n{} lives in life {life}", at + 1);
            Ok(())
        })
        .await?;
    }
    cluster.dtm(&["source", "show", "after"]).await?;
    cluster.passed();
    Ok(())
}
