//! Nodes that are killed or paused under load. The property throughout: what was acked is there
//! once, in order, on every node, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_client::{Reader, stream_status};
use dtm_proto::records::LookupRequest;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::https::metric_at;
use crate::load::{Load, Plan};
use crate::readback::{finish_and_judge, judge, judge_running};
use crate::wait::{is_long, until};

/// Kills, and how many lie between two readings of all that is there: short and long form.
const KILLS: [(usize, usize); 2] = [(3, 2), (30, 10)];
/// Acks on each stream that show that it is alive.
const ALIVE: u64 = 20;
/// Longer than connections live without an answer.
const PAUSE: Duration = Duration::from_secs(5);

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_is_killed_again_and_again() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 4).await?;
    let (kills, read_back_every) = KILLS[usize::from(is_long())];
    for kill in 0..kills {
        load.moves(ALIVE).await?;
        let source = &load.lines[kill % load.lines.len()].plan.source;
        let at = cluster.leader(source.group).await?;
        cluster.nodes[at].kill();
        load.moves(ALIVE).await.with_context(|| format!("n{} was killed", at + 1))?;
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        if (kill + 1) % read_back_every == 0 {
            judge_running(&cluster, &load.lines).await?;
        }
    }
    load.moves(ALIVE).await?;
    let lines = load.finish().await?;
    let verdict = judge(&cluster, &lines).await?;
    ensure!(verdict.excused > 0, "no record was refused");
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

// Between reception and ack: both followers are paused, so the leader has the records and cannot
// commit them; then it is killed. The client sends them again by itself; afterwards the same
// messages come once more on another stream.
//
// covers: F-5.1.7
// holds: ING-1, ING-2
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_and_not_acked_is_stored_once() -> Result<()> {
    const COUNT: u64 = 200;
    let mut cluster = Cluster::beside().await?;
    cluster.spread().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let line = Load::line(Plan::new(&source, "a"));
    let at = cluster.leader(source.group).await?;
    let publisher = line.open(cluster.endpoint(&source)?).await?;
    let send = |count: u64| -> Result<()> {
        for _ in 0..count {
            ensure!(line.send(&publisher)?, "the window holds so few");
        }
        Ok(())
    };
    send(COUNT)?;
    line.flush(&publisher).await?;

    let others = cluster.pause_others(at)?;
    let received = async || metric_at(&cluster, at, "dtm_records_received_total ").await;
    let before = received().await?;
    send(COUNT)?;
    // The client sends a frame and gathers the rest until an ack comes.
    until("some of the second half received by the leader", WITHIN, async || {
        let received = received().await?;
        ensure!(received > before, "{received} received");
        Ok(())
    })
    .await?;
    // It could ack now if it ever would.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let acked = publisher.snapshot().acked_through;
    ensure!(acked == COUNT, "acked {acked} without a majority");
    cluster.nodes[at].kill();
    cluster.resume(&others)?;
    let progress = line.flush(&publisher).await?;
    ensure!(progress.acked_through == 2 * COUNT);
    ensure!(publisher.snapshot().sessions >= 2, "it was never cut off");

    let mut again = Plan::new(&source, "again");
    again.mark = "a".to_owned();
    let again = Load::line(again);
    let resend = again.open(cluster.endpoint(&source)?).await?;
    for _ in 0..COUNT / 10 {
        again.send(&resend)?;
    }
    again.flush(&resend).await?;
    let twice = stream_status(&cluster.endpoint(&source)?, &source.code, "again").await?;
    // None of these is broken: each was stored, by its message id.
    ensure!(twice.records == 0 && twice.duplicates == COUNT / 10, "{twice:?}");

    cluster.start_node(at)?;
    cluster.settled(NODES).await?;
    judge(&cluster, &[line]).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

// Three processes die at once. The operating system lives, so what was written and not synced is
// still there: of F3 this shows the restart of all, not the loss of unsynced data.
//
// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_killed_at_once() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(ALIVE).await?;
    for node in &mut cluster.nodes {
        node.kill();
    }
    for at in 0..NODES {
        cluster.start_node(at)?;
    }
    load.moves(ALIVE).await?;
    cluster.settled(NODES).await?;
    finish_and_judge(cluster, load).await
}

// holds: ING-1, ING-2, ING-3, ING-4, READ-1
// fault: F14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_leader_says_nothing_stale() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(ALIVE).await?;
    let line = load.lines[0].clone();
    let group = line.plan.source.group;
    cluster.spread().await?;
    let at = cluster.leader(group).await?;
    cluster.nodes[at].pause()?;
    let paused = tokio::time::Instant::now();
    until("another leader", WITHIN, async || {
        ensure!(cluster.leader(group).await? != at, "the paused node leads");
        Ok(())
    })
    .await?;
    load.moves(ALIVE).await?;
    if is_long() {
        // Its connections are given up by then; in the short form they are still open.
        tokio::time::sleep_until(paused + PAUSE).await;
    }

    // Acked by the new leader before the old one goes on: from its first word on it knows it.
    let valid = |sequence: &u64| line.plan.record(*sequence).1;
    let newest = (1..=line.acked()).rev().find(valid).context("an ack")?;
    let reader = Reader::new(cluster.endpoint_at(&line.plan.source, &[at])?);
    cluster.nodes[at].resume()?;
    let found = until("a current answer of the old leader", WITHIN, async || {
        let request = LookupRequest {
            source: line.plan.source.code.clone(),
            stream: line.plan.stream.clone(),
            sequence: newest,
            current: true,
            purpose: "test".to_owned(),
            ..LookupRequest::default()
        };
        match reader.lookup(request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(dtm_types::ErrorCode::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let found = found.context("READ-1: a current answer without an acked record")?;
    ensure!(found.current && found.record.is_some(), "{found:?}");

    cluster.settled(NODES).await?;
    load.moves(ALIVE).await?;
    finish_and_judge(cluster, load).await
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_was_away_catches_up() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let mut plans = Vec::new();
    for at in 1..=4 {
        let source = cluster.add_source(&format!("src-{at}"), &["notes"]).await?;
        plans.push(Plan { per_tick: 4, ..Plan::new(&source, "a") });
    }
    let load = Load::start(&cluster, plans).await?;
    load.moves(ALIVE).await?;
    let leader = cluster.leader(load.lines[0].plan.source.group).await?;
    let away = (leader + 1) % NODES;
    cluster.nodes[away].kill();
    // Several times what is in flight: it comes back far behind.
    load.moves(20 * ALIVE).await?;
    cluster.start_node(away)?;
    cluster.settled(NODES).await?;
    load.moves(ALIVE).await?;
    let lines = load.finish().await?;
    let groups = cluster.roots_agree().await?;
    ensure!(groups > 1, "meta and the ingest groups");
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}
