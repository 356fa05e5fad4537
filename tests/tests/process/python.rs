//! The Python example client against a real cluster.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use dtm_client::stream_status;
use tokio::process::Child;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Ids, Load, Plan};
use crate::python_env::Example;
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::until;

const RECORDS: u64 = 8_000;
/// So long that what is on its way (1 MiB) is a small part of all.
const NOTE_BYTES: usize = 1_000;
const STREAM: &str = "py";

// holds: ING-1, ING-2, ING-3, ING-4
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_client_resumes_after_kills_of_a_node_and_of_itself() -> Result<()> {
    let Some(example) = Example::prepared() else { return Ok(()) };
    let mut cluster = Cluster::beside().await?;
    // Else the client may be following a leader that goes home just when its node is killed.
    cluster.spread().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let plan = Plan { note_bytes: NOTE_BYTES, ids: Ids::None, ..Plan::new(&source, STREAM) };
    let line = Load::line(plan);
    let file = cluster.path("records.jsonl");
    std::fs::write(&file, line.hand_out(RECORDS))?;

    let told = cluster.path("first.txt");
    let mut first = start(example, &cluster, &source, &file, &told, "0.05")?;
    reaches(&told, RECORDS / 8).await?;
    // Its own node, whoever leads the group: the loss of a leader elsewhere it need not notice.
    let at = connected_to(&cluster, &told)?;
    cluster.nodes[at].kill();
    let acked = acked(&told);
    reaches(&told, acked + RECORDS / 8).await?;
    cluster.start_node(at)?;
    reaches(&told, acked + RECORDS / 4).await?;
    first.kill().await?;
    ensure!(cut_offs(&told) > 0, "the kill of its node went by unnoticed");

    // What it was told is there, before anybody sends it again.
    let acked = self::acked(&told);
    ensure!(acked < RECORDS, "it was killed too late to show anything");
    let held = stream_status(&cluster.endpoint(&source)?, &source.code, STREAM).await?;
    ensure!(held.acked_through >= acked, "ING-1: {acked} acked, {held:?}");

    let told = cluster.path("second.txt");
    let second = start(example, &cluster, &source, &file, &told, "0")?;
    let output = tokio::time::timeout(WITHIN, second.wait_with_output()).await??;
    // 1 = some records were refused.
    ensure!(output.status.code() == Some(1), "{}\n{}", output.status, text(&told));
    let last = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(last.contains(&format!("acked through {RECORDS}, refused ")), "{last}");
    line.acked.store(RECORDS, Ordering::Relaxed);
    cluster.settled(NODES).await?;
    judge(&cluster, &[line]).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

fn start(
    example: &Example,
    cluster: &Cluster,
    source: &Source,
    file: &Path,
    told: &Path,
    slow: &str,
) -> Result<Child> {
    let mut command = example.command();
    command.arg(file).args(["--source", &source.code, "--stream", STREAM, "--dataset", "notes"]);
    command.args(["--language", "en", "--key", &source.key, "--slow", slow]);
    command.arg("--ca").arg(cluster.source_files().ca);
    for node in &cluster.nodes {
        command.args(["--address", &node.grpc.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(told)?);
    command.spawn().context("publish.py")
}

async fn reaches(told: &Path, wanted: u64) -> Result<()> {
    until("acks of the Python client", WITHIN, async || {
        let acked = acked(told);
        ensure!(acked >= wanted, "acked {acked} of {wanted}: {}", text(told));
        Ok(())
    })
    .await
}

/// The last `acked N` that it printed.
fn acked(told: &Path) -> u64 {
    let text = text(told);
    let acks = text.lines().filter_map(|line| line.strip_prefix("acked "));
    acks.filter_map(|ack| ack.parse().ok()).max().unwrap_or_default()
}

/// The node that it named last.
fn connected_to(cluster: &Cluster, told: &Path) -> Result<usize> {
    let text = text(told);
    let mut named = text.lines().filter_map(|line| line.strip_prefix("connected to "));
    let (name, _) = named.next_back().and_then(|line| line.split_once(',')).context("a node")?;
    cluster.nodes.iter().position(|node| node.name == name).context(name.to_owned())
}

fn cut_offs(told: &Path) -> usize {
    text(told).lines().filter(|line| line.starts_with("cut off")).count()
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}
