//! What happens beside each other: real time and batch, and changes under load.

use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use dtm_client::Mode;

use crate::cluster::Cluster;
use crate::load::{Load, Plan};
use crate::readback::judge;
use crate::sources::definition;
use crate::wait::is_long;

/// Records of the batch: in the long form as many as the requirement's check says.
fn batch_records() -> u64 {
    if is_long() { 1_000_000 } else { 20_000 }
}

// covers: F-5.1.2, C9.3.1
// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_source_streams_while_its_batch_is_loaded() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let realtime = Plan::new(&source, "events");
    let batch = Plan {
        mode: Mode::Batch,
        per_tick: if is_long() { 1_000 } else { 100 },
        count_max: Some(batch_records()),
        // Within the source's quota of quarantine, however many there are.
        broken_every: 400,
        ..Plan::new(&source, "nightly")
    };
    let load = Load::start(&cluster, vec![realtime, batch]).await?;
    let events = load.lines[0].clone();
    let before = events.acked();
    load.reach_ends().await?;
    let acked = events.acked() - before;
    ensure!(acked >= 20, "{acked} events were acked while the batch was loaded");
    let lines = load.finish().await?;
    let verdict = judge(&cluster, &lines).await?;
    ensure!(verdict.acked > batch_records(), "{verdict}");
    cluster.passed();
    Ok(())
}

// covers: F-5.1.6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_and_dataset_go_live_under_load() -> Result<()> {
    let cluster = Cluster::beside().await?;
    // A stream moves with the leader of its group: none moves without a cause after this.
    cluster.spread().await?;
    let mut load = Load::usual(&cluster, 4).await?;
    load.moves(20).await?;
    cluster.publish_dataset(&definition("remarks")).await?;
    let source = cluster.add_source("src-new", &["notes", "remarks"]).await?;
    for dataset in ["notes", "remarks"] {
        let plan = Plan { dataset: dataset.to_owned(), ..Plan::new(&source, dataset) };
        load.add(&cluster, plan).await?;
    }
    load.moves(50).await?;
    let lines = load.finish().await?;
    ensure!(lines.len() == 10, "eight streams and two new ones");
    for line in &lines {
        let sessions = line.sessions.load(Ordering::Relaxed);
        let troubles = line.troubles.load(Ordering::Relaxed);
        let broken = line.sent.lock().iter().filter(|(_, valid)| !valid).count();
        let told = line.told.lock().len();
        ensure!(
            sessions == 1 && troubles == 0,
            "{}: {sessions} sessions, {troubles} failures",
            line.name()
        );
        ensure!(told == broken, "{}: {told} refused of {broken}", line.name());
    }
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}
