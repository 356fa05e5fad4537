//! What was sent in is found in no byte of any file of the nodes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_chaos::checker::Canaries;
use dtm_machine::seams::SeededEntropy;
use dtm_seal::Secret;
use dtm_storage::keys::{Keyring, Master};
use dtm_storage::vfs::RealVfs;

use crate::agent::Agent;
use crate::bad_config::{refused, serve};
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Load, Plan};
use crate::log_file::middle;
use crate::node::leaves_no_core;
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::until;

/// Stands in payloads, refused ones too, and in message ids.
pub(crate) const CANARY: &str = "CanaryQ7x2Zk9";
/// Streams of the one source: their group's log is purged soon, so that rows which are lost come
/// back from the snapshot of another node.
const STREAMS: usize = 16;
const RECORDS: u64 = 400;
const ROTATIONS: u64 = 4;
/// Entries that a group's log keeps behind what is flushed, and some more.
const PURGED_FROM: u64 = 4_096 + 200;
const REBUILDS_MAX: usize = 3;
/// Rows are flushed, and the log is purged behind them, every ten seconds.
const FLUSHED_WITHIN: Duration = Duration::from_secs(12);
/// Files beyond this many are a mistake of the test.
const FILES_MAX: usize = 10_000;

// The marker stands in all that is sent, and is searched in every file while the nodes run, after a
// kill, after rows came as a snapshot, and after an orderly stop; keys are exchanged while records
// come in; all keys have 256 bits and stand nowhere in the data; a copied disk without its key is of
// no use; a byte that changes is found when it is read.
//
// The rest of the row, beside this: every changed byte of a sealed batch is refused
// (dtm-actors any_changed_byte_is_refused), the cipher is XAES-256-GCM to its published vectors
// (dtm-seal cipher_test.rs), rotation while nodes are killed (keys.rs), damage under load
// (damage.rs), files of backups (backup.rs).
//
// covers: A1-4.2
// holds: SEC-1, ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_is_in_no_file() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    no_core_of_any_process(&cluster, &source).await?;
    let plan =
        |at| Plan { mark: format!("{CANARY}-{at}"), ..Plan::new(&source, &format!("s{at}")) };
    let load = Load::start(&cluster, (0..STREAMS).map(plan).collect()).await?;
    for _ in 0..ROTATIONS {
        load.moves(RECORDS / ROTATIONS).await?;
        cluster.dtm(&["--yes", "--reason", "test", "key", "rotate"]).await?;
    }
    load.moves(RECORDS / ROTATIONS).await?;
    until("a log that is purged", WITHIN, async || {
        let status = cluster.status().await?;
        let row = status.groups.iter().find(|row| row.group == source.group).context("group")?;
        ensure!(row.committed_index > PURGED_FROM, "{} entries", row.committed_index);
        Ok(())
    })
    .await?;
    let lines = load.finish().await?;
    // It is there: it can be read, what came before a rotation too.
    judge(&cluster, &lines).await?;
    ensure!(lines[0].acked() >= RECORDS);
    search(&cluster, &source).context("while they run")?;

    // What a killed node writes when it comes back, and what an orderly stop leaves.
    cluster.nodes[0].kill();
    cluster.start_node(0)?;
    cluster.settled(NODES).await?;
    rebuilt_from_a_snapshot(&mut cluster, 1).await?;
    judge(&cluster, &lines).await?;
    search(&cluster, &source).context("after a snapshot")?;
    cluster.nodes[0].stop().await?;
    for node in &mut cluster.nodes {
        node.kill();
    }
    search(&cluster, &source).context("after the kill")?;
    no_key_beside_the_data(&cluster)?;
    without_key(&cluster.nodes[1].folder, &cluster.nodes[0].folder).await?;
    let sealed = middle(&cluster.nodes[2].folder, source.group)?;
    sealed[sealed.len() / 2].flip()?;
    cluster.start_node(2)?;
    until("the changed byte is found", WITHIN, async || {
        let damaged = cluster.nodes[2].log_opened_with("damaged_blocks")?;
        ensure!(damaged == 1, "{damaged} damaged blocks");
        Ok(())
    })
    .await?;
    cluster.passed();
    Ok(())
}

/// Neither of the nodes, which hold keys, nor of an agent, which holds payloads in clear.
async fn no_core_of_any_process(cluster: &Cluster, source: &Source) -> Result<()> {
    for node in &cluster.nodes {
        leaves_no_core(node.pid()?)?;
    }
    let mut agent = Agent::start(cluster, source, Path::new("-"))?;
    // It waits for its input; what it does first is not instantly done.
    until("an agent without cores", WITHIN, async || leaves_no_core(agent.pid()?)).await?;
    agent.kill().await
}

/// A node loses its rows until another one's snapshot was needed to bring them back.
async fn rebuilt_from_a_snapshot(cluster: &mut Cluster, at: usize) -> Result<()> {
    for _ in 0..REBUILDS_MAX {
        // A node purges behind what it has flushed, and begins to count at its start.
        tokio::time::sleep(FLUSHED_WITHIN).await;
        cluster.nodes[at].stop().await?;
        let folder = cluster.nodes[at].folder.clone();
        std::fs::write(folder.join("data/state/CURRENT"), "no such manifest")?;
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        if std::fs::read_to_string(&cluster.nodes[at].log)?.contains("rebuilt from a snapshot") {
            return Ok(());
        }
        // Nothing was purged yet.
        let _ = std::fs::remove_dir_all(folder.join("data/state.damaged"));
    }
    bail!("no rows were rebuilt from a snapshot")
}

/// Master keys and cluster keys have 256 bits; no node's data and no log holds one, as bytes or as
/// text. The keyring holds the cluster keys sealed.
fn no_key_beside_the_data(cluster: &Cluster) -> Result<()> {
    let mut canaries = Canaries::default();
    let mut keys = 0;
    for node in &cluster.nodes {
        let file = node.folder.join(MASTER);
        let text = std::fs::read_to_string(&file)?;
        let key = text.trim();
        ensure!(key.len() == 64 && key.bytes().all(|c| c.is_ascii_hexdigit()), "256 bits in hex");
        let bytes = |at: usize| u8::from_str_radix(&key[at..at + 2], 16);
        let raw: Vec<u8> = (0..key.len()).step_by(2).map(bytes).collect::<Result<_, _>>()?;
        canaries.add(&format!("master key of {}", node.name), &raw);
        let folder = node.folder.join("data/keyring");
        let entropy = Arc::new(SeededEntropy::new(1));
        let ring = Keyring::open(Arc::new(RealVfs), &folder, Master::read(&file)?, entropy)?;
        for info in ring.list() {
            let key = ring.cluster_key(info.id)?;
            ensure!(key.expose().len() * 8 == 256, "256 bits");
            canaries.add(&format!("cluster key {}", info.id), key.expose());
            keys += 1;
        }
    }
    ensure!(keys as u64 >= NODES as u64 * (1 + ROTATIONS), "{keys} cluster keys");
    for node in &cluster.nodes {
        let found = canaries.search_folder(&node.folder.join("data"))?;
        ensure!(found.files > 3 && found.breaches.is_empty(), "{found:?}");
        let said = canaries.search_bytes("log", &std::fs::read(&node.log)?);
        ensure!(said.is_none(), "{said:?}");
    }
    // What finds nothing must be able to find.
    let own = canaries.search_folder(&cluster.nodes[0].folder.join("keys"))?;
    ensure!(!own.breaches.is_empty(), "the search itself works");
    Ok(())
}

const MASTER: &str = "keys/master.key";

/// The disk of a node without its master key, and with the key of another node, is of no use.
async fn without_key(node: &Path, other: &Path) -> Result<()> {
    std::fs::remove_file(node.join(MASTER))?;
    let config = node.join("dtm.toml");
    refused(&serve(&config).await?, &["keys.master_key_file"])?;
    std::fs::copy(other.join(MASTER), node.join(MASTER))?;
    refused(&serve(&config).await?, &["master"])
}

/// Fails where a file of a node holds what must not be there in clear.
pub(crate) fn search(cluster: &Cluster, source: &Source) -> Result<()> {
    // Text of payloads: see `Plan::record`. The source's code itself is no secret.
    let secret = source.key.rsplit('_').next().context("a key")?.to_owned();
    let needles = [CANARY.to_owned(), secret, format!("{}-17\"", source.code.to_uppercase())];
    // A search that finds nothing because it cannot find is worth nothing.
    let probe = cluster.path("probe");
    std::fs::write(&probe, format!("{}{CANARY}", "x".repeat(CHUNK - 5)))?;
    ensure!(matches!(holds(&probe, &needles)?, Searched::Holds(_)), "the search itself works");
    std::fs::remove_file(&probe)?;
    let mut searched = 0;
    for node in &cluster.nodes {
        let open = node.open_files().into_iter().chain([node.log.clone()]);
        for path in files(&node.folder)?.into_iter().chain(open) {
            match holds(&path, &needles)? {
                Searched::Gone => {}
                Searched::Holds(needle) => {
                    bail!("SEC-1: {} holds {needle:?}", path.display());
                }
                Searched::Clean => searched += 1,
            }
        }
    }
    ensure!(searched > 3 * NODES, "{searched} files were searched");
    Ok(())
}

/// Fails where a file below a folder holds what must not be there in clear; how many were searched.
pub(crate) fn in_no_file_of(folder: &Path, needles: &[String]) -> Result<usize> {
    let all = files(folder)?;
    for path in &all {
        if let Searched::Holds(needle) = holds(path, needles)? {
            bail!("SEC-1: {} holds {needle:?}", path.display());
        }
    }
    Ok(all.len())
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        ensure!(found.len() + open.len() < FILES_MAX, "too many files");
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

const CHUNK: usize = 1 << 20;

/// What became of the search of a file.
enum Searched<'a> {
    /// A file of a running node may be gone by now.
    Gone,
    /// It was read to its end and holds none.
    Clean,
    Holds(&'a str),
}

/// Searches a file for the first of some needles that it holds.
fn holds<'a>(path: &Path, needles: &'a [String]) -> Result<Searched<'a>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Searched::Gone),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let overlap = needles.iter().map(String::len).max().unwrap_or(1) - 1;
    let mut window = Vec::with_capacity(CHUNK + overlap);
    loop {
        let kept = window.len().min(overlap);
        window.drain(..window.len() - kept);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut window);
        if read.with_context(|| path.display().to_string())? == 0 {
            return Ok(Searched::Clean);
        }
        // Segments are made longer than they are filled.
        if window.iter().all(|byte| *byte == 0) {
            continue;
        }
        if let Some(needle) = needles.iter().find(|needle| is_in(&window, needle.as_bytes())) {
            return Ok(Searched::Holds(needle));
        }
    }
}

fn is_in(mut window: &[u8], needle: &[u8]) -> bool {
    while let Some(at) = window.iter().position(|byte| *byte == needle[0]) {
        if window[at..].starts_with(needle) {
            return true;
        }
        window = &window[at + 1..];
    }
    false
}
