//! The cluster key is exchanged while records come in, and while nodes die in the middle of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bad_config::copy;
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Load, Plan};
use crate::readback::judge;
use crate::secrecy::{CANARY, search};
use crate::wait::{is_long, until};

/// Acks on each stream that show that it is alive.
const ALIVE: u64 = 20;
/// The node that carries a rotation out is killed so long after it was asked.
const KILLED_AFTER_MS: [u64; 6] = [0, 10, 30, 80, 200, 500];
const KILLED_AFTER_MS_SHORT: [u64; 3] = [10, 80, 500];

const ROTATE: [&str; 5] = ["-o", "json", "--yes", "key", "rotate"];

/// Rotates; the new key's id and how many keys were wrapped anew.
async fn rotate(cluster: &Cluster) -> Result<(String, u64)> {
    let done = cluster.dtm(&ROTATE).await?;
    let done: serde_json::Value = serde_json::from_str(&done)?;
    let id = done["cluster_key_id"].as_str().context("id")?.to_owned();
    Ok((id, done["keys_rewrapped"].as_u64().context("count")?))
}

/// The last node comes back with the keyring of before the rotation, as one that joined meanwhile: it
/// fetches what it lacks. What it gives back is judged at the end.
async fn lacks_the_newest(
    cluster: &mut Cluster,
    ring: &Path,
    former: &Path,
    key: &str,
) -> Result<()> {
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(ring)?;
    std::fs::rename(former, ring)?;
    cluster.start_node(2)?;
    cluster.settled(NODES).await?;
    let log = cluster.nodes[2].log.clone();
    until("the key on n3", WITHIN, async || {
        let log = std::fs::read_to_string(&log)?;
        let mut lines = log.lines();
        let is_told =
            lines.any(|line| line.contains("lacking here is fetched") && line.contains(key));
        ensure!(is_told, "n3 did not fetch {key}");
        Ok(())
    })
    .await
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1, SEC-1
// fault: F24
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_key_is_rotated_under_load_and_under_kills() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-canary", &["notes"]).await?;
    let line = Load::line(Plan { mark: CANARY.to_owned(), ..Plan::new(&source, "a") });
    let publisher = line.open(cluster.endpoint(&source)?).await?;
    for _ in 0..100 {
        ensure!(line.send(&publisher)?, "the window holds so few");
    }
    line.flush(&publisher).await?;

    let load = Load::usual(&cluster, 3).await?;
    load.moves(ALIVE).await?;
    let (first, count) = rotate(&cluster).await?;
    // Four sources with a data key and a source key each, and the audit key.
    ensure!(count >= 9, "{count} keys were wrapped anew");
    load.moves(ALIVE).await?;
    let moments = if is_long() { &KILLED_AFTER_MS[..] } else { &KILLED_AFTER_MS_SHORT };
    for after_ms in moments.iter().copied() {
        let _ = tokio::time::timeout(Duration::from_millis(after_ms), rotate(&cluster)).await;
        cluster.nodes[0].kill();
        load.moves(ALIVE).await.with_context(|| format!("killed after {after_ms} ms"))?;
        cluster.start_node(0)?;
        cluster.settled(NODES).await?;
        load.moves(ALIVE).await.with_context(|| format!("back after {after_ms} ms"))?;
    }
    // A node that is down could not open what the others wrap: no rotation without it.
    cluster.nodes[2].kill();
    cluster.dtm_fails(&ROTATE, "Unavailable").await.context("without n3")?;
    load.moves(ALIVE).await?;
    cluster.start_node(2)?;
    cluster.settled(NODES).await?;
    let ring = cluster.nodes[2].folder.join("data/keyring");
    let former = cluster.path("former-keyring");
    copy(&ring, &former)?;
    let (last, again) = rotate(&cluster).await?;
    ensure!(last != first && again >= count, "{again} keys after {count}");
    load.moves(ALIVE).await?;
    lacks_the_newest(&mut cluster, &ring, &former, &last).await?;
    load.moves(ALIVE).await?;

    let mut lines = load.finish().await?;
    lines.push(line);
    judge(&cluster, &lines).await?;
    cluster.roots_agree().await?;
    for node in &mut cluster.nodes {
        node.kill();
    }
    search(&cluster, &source)?;
    cluster.passed();
    Ok(())
}
