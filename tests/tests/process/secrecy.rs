//! What was sent in is found in no byte of any file of the nodes.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::bad_config::{refused, serve};
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Load, Plan};
use crate::log_file::middle;
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::until;

/// Stands in payloads, refused ones too, and in message ids.
pub(crate) const CANARY: &str = "CanaryQ7x2Zk9";
const RECORDS: u64 = 400;
const ROTATIONS: u64 = 4;
/// Files beyond this many are a mistake of the test.
const FILES_MAX: usize = 10_000;

// Marker text in what is sent; rotation while it is sent; a copy of a disk without its key; a byte
// that changes. There are no backups yet: when there are, they are searched here too.
//
// holds: SEC-1, ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_is_in_no_file() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let plan = Plan { mark: CANARY.to_owned(), per_tick: 5, ..Plan::new(&source, "a") };
    let load = Load::start(&cluster, vec![plan]).await?;
    for _ in 0..ROTATIONS {
        load.moves(RECORDS / ROTATIONS).await?;
        cluster.dtm(&["--yes", "--reason", "test", "key", "rotate"]).await?;
    }
    load.moves(RECORDS / ROTATIONS).await?;
    let lines = load.finish().await?;
    // It is there: it can be read, what came before a rotation too.
    judge(&cluster, &lines).await?;
    ensure!(lines[0].acked() >= RECORDS);
    search(&cluster, &source).context("while they run")?;

    // What a killed node writes when it comes back, and what an orderly stop leaves.
    cluster.nodes[0].kill();
    cluster.start_node(0)?;
    cluster.settled(NODES).await?;
    judge(&cluster, &lines).await?;
    cluster.nodes[0].stop().await?;
    for node in &mut cluster.nodes {
        node.kill();
    }
    search(&cluster, &source).context("after the kill")?;
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

/// The disk of a node without its master key, and with the key of another node, is of no use. The
/// key has 256 bits and is nowhere beside the data.
async fn without_key(node: &Path, other: &Path) -> Result<()> {
    const KEY: &str = "keys/master.key";
    let text = std::fs::read_to_string(node.join(KEY))?;
    let key = text.trim().to_owned();
    ensure!(key.len() == 64 && key.bytes().all(|c| c.is_ascii_hexdigit()), "256 bits in hex");
    let bytes = |at: usize| u8::from_str_radix(&key[at..at + 2], 16);
    let raw: Vec<u8> = (0..key.len()).step_by(2).map(bytes).collect::<Result<_, _>>()?;
    for file in files(&node.join("data"))? {
        let content = std::fs::read(&file)?;
        let beside = content.windows(32).any(|w| w == raw);
        ensure!(
            !beside && matches!(holds(&file, std::slice::from_ref(&key))?, Searched::Clean),
            "{}",
            file.display()
        );
    }
    std::fs::remove_file(node.join(KEY))?;
    let config = node.join("dtm.toml");
    refused(&serve(&config).await?, &["keys.master_key_file"])?;
    std::fs::copy(other.join(KEY), node.join(KEY))?;
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
        for path in files(&node.folder)?.into_iter().chain([node.log.clone()]) {
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
