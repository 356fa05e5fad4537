//! What was sent in is found in no byte of any file of the nodes.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Cluster, NODES, Source};
use crate::load::{Load, Plan};
use crate::readback::judge;

/// Stands in payloads, refused ones too, and in message ids.
pub(crate) const CANARY: &str = "CanaryQ7x2Zk9";
const RECORDS: u64 = 400;
/// Files beyond this many are a mistake of the test.
const FILES_MAX: usize = 10_000;

// The row's check (A1-4.2) also asks for key lengths, a copied disk, changed bytes and rotation:
// it is not claimed here.
//
// holds: SEC-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_is_in_no_file() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let plan = Plan { mark: CANARY.to_owned(), ..Plan::new(&source, "a") };
    let line = Load::line(plan);
    let publisher = line.open(cluster.endpoint(&source)?).await?;
    for _ in 0..RECORDS {
        ensure!(line.send(&publisher)?, "the window holds so few");
    }
    let progress = publisher.flush().await?;
    line.acked.store(progress.acked_through, Ordering::Relaxed);
    // It is there: it can be read.
    judge(&cluster, std::slice::from_ref(&line)).await?;
    ensure!(line.acked() == RECORDS);
    search(&cluster, &source).context("while they run")?;

    // What a killed node writes when it comes back, and what an orderly stop leaves.
    cluster.nodes[0].kill();
    cluster.start_node(0)?;
    cluster.settled(NODES).await?;
    for node in &mut cluster.nodes {
        node.kill();
    }
    search(&cluster, &source).context("after the kill")?;
    cluster.passed();
    Ok(())
}

/// Fails where a file of a node holds what must not be there in clear.
pub(crate) fn search(cluster: &Cluster, source: &Source) -> Result<()> {
    // Text of payloads: see `Plan::record`. The source's code itself is no secret.
    let secret = source.key.rsplit('_').next().context("a key")?.to_owned();
    let needles = [CANARY.to_owned(), secret, format!("{}-17\"", source.code.to_uppercase())];
    // A search that finds nothing because it cannot find is worth nothing.
    let probe = cluster.path("probe");
    std::fs::write(&probe, format!("{}{CANARY}", "x".repeat(CHUNK - 5)))?;
    ensure!(holds(&probe, &needles)?.is_some(), "the search itself works");
    std::fs::remove_file(&probe)?;
    let mut files = 0;
    for node in &cluster.nodes {
        let mut open = vec![node.folder.clone(), node.log.clone()];
        while let Some(path) = open.pop() {
            files += 1;
            ensure!(files < FILES_MAX, "too many files");
            if path.is_dir() {
                open.extend(
                    std::fs::read_dir(&path)?
                        .map(|e| e.map(|e| e.path()))
                        .collect::<Result<Vec<_>, _>>()?,
                );
            } else if let Some(needle) = holds(&path, &needles)? {
                bail!("SEC-1: {} holds {needle:?}", path.display());
            }
        }
    }
    ensure!(files > 3 * NODES, "{files} files were searched");
    Ok(())
}

const CHUNK: usize = 1 << 20;

/// The first needle that a file holds.
fn holds<'a>(path: &Path, needles: &'a [String]) -> Result<Option<&'a str>> {
    // A file of a running node may be gone by now.
    let Ok(file) = std::fs::File::open(path) else { return Ok(None) };
    let overlap = needles.iter().map(String::len).max().unwrap_or(1) - 1;
    let mut window = Vec::with_capacity(CHUNK + overlap);
    let mut file = file;
    loop {
        let kept = window.len().min(overlap);
        window.drain(..window.len() - kept);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut window)?;
        if read == 0 {
            return Ok(None);
        }
        for needle in needles {
            if window.windows(needle.len()).any(|w| w == needle.as_bytes()) {
                return Ok(Some(needle));
            }
        }
    }
}
