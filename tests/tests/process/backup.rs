//! A cluster is lost to its last node and comes back out of a backup, as one node that others join.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::bad_config::copy;
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Line, Load, Plan};
use crate::readback::judge;
use crate::secrecy::{CANARY, in_no_file_of};
use crate::wait::until;

const ALIVE: u64 = 20;
/// More than one moment of load has to be in each backup.
const SOURCES: usize = 4;
/// A streams' further records, once it goes on.
const MORE: u64 = 30;

/// A cluster whose nodes write backups into one folder, and that folder.
struct Backed {
    cluster: Cluster,
    folder: PathBuf,
    escrow: PathBuf,
    _home: TempDir,
}

impl Backed {
    async fn start() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("dtm-backups-").tempdir()?;
        let (folder, escrow) = (home.path().join("backups"), home.path().join("escrow"));
        let settings = [("DTM__BACKUP__FOLDER", folder.display().to_string())];
        let cluster = Cluster::beside_with(&settings).await?;
        Ok(Self { cluster, folder, escrow, _home: home })
    }

    async fn create(&self, more: &[&str]) -> Result<Value> {
        let arguments = [&["-o", "json", "--reason", "test", "backup", "create"], more].concat();
        let begun = Instant::now();
        let done: Value = serde_json::from_str(&self.cluster.dtm(&arguments).await?)?;
        println!("backup of {} bytes in {:.1?}", done["bytes"], begun.elapsed());
        Ok(done)
    }

    async fn verify(&self, folder: &Path) -> Result<String> {
        self.cluster.dtm(&["backup", "verify", &folder.display().to_string()]).await
    }

    /// Keyring and master key of a node, as they lie in a safe.
    fn put_into_escrow(&self) -> Result<()> {
        let node = &self.cluster.nodes[0].folder;
        std::fs::create_dir_all(&self.escrow)?;
        copy(&node.join("data/keyring"), &self.escrow.join("keyring"))?;
        std::fs::copy(node.join("keys/master.key"), self.escrow.join("master.key"))?;
        Ok(())
    }

    /// Makes the first node's folder anew, for the same ports.
    async fn restore(&self, from: &Path, keys: &Path, master: &Path) -> Result<Value> {
        self.restore_into(&self.cluster.nodes[0].folder, &[], from, keys, master).await
    }

    async fn restore_into(
        &self,
        folder: &Path,
        which: &[&str],
        from: &Path,
        keys: &Path,
        master: &Path,
    ) -> Result<Value> {
        let node = &self.cluster.nodes[0];
        let text = |path: &Path| path.display().to_string();
        let arguments = [
            ["-o", "json"].map(str::to_owned).to_vec(),
            ["backup", "restore", "--node", &node.name].map(str::to_owned).to_vec(),
            which.iter().map(|argument| (*argument).to_owned()).collect(),
            vec!["--folder".into(), text(folder), "--from".into(), text(from)],
            vec!["--keyring".into(), text(keys), "--master".into(), text(master)],
            vec!["--advertise".into(), node.host.to_string()],
            vec!["--https".into(), node.ports[0].to_string()],
            vec!["--grpc".into(), node.ports[1].to_string()],
            vec!["--peers".into(), node.ports[2].to_string()],
        ]
        .concat();
        Ok(serde_json::from_str(&self.cluster.dtm(&arguments).await?)?)
    }

    /// From its next start on the first node writes a backup where the newest is an hour old, or of
    /// another life.
    fn writes_by_itself(&mut self) {
        let schedule = ("DTM__BACKUP__EVERY_MINUTES".to_owned(), "60".to_owned());
        self.cluster.nodes[0].environment.push(schedule);
    }

    async fn written_by_itself(&self) -> Result<Value> {
        let folder = self.folder.display().to_string();
        until("a backup that nobody asked for", WITHIN, async || {
            let listed = self.cluster.dtm(&["-o", "json", "backup", "list", &folder]).await?;
            let listed: Value = serde_json::from_str(&listed)?;
            let newest = listed.as_array().and_then(|all| all.last()).context("a list")?.clone();
            ensure!(newest["incarnation"] == 2 && newest["parent"].is_null(), "{newest}");
            Ok(newest)
        })
        .await
    }

    /// Every node ends at once, and what the first had is gone but its operator's files.
    fn lose_everything(&mut self) -> Result<()> {
        for node in &mut self.cluster.nodes {
            node.kill();
            node.lost = true;
        }
        let first = self.cluster.nodes[0].folder.clone();
        for name in ["data", "keys", "tls", "root-ca"] {
            std::fs::remove_dir_all(first.join(name))?;
        }
        std::fs::remove_file(first.join("dtm.toml"))?;
        Ok(())
    }
}

// Records come in while the first two backups are written; the third is written when they stop. All
// nodes are lost. What is restored holds every record that was acknowledged, none twice, with the
// ledgers of the backup; streams go on with their cursors; another node joins; the marker of the
// payloads stands in no file of a backup; a flipped byte, another master key and a folder that holds
// a node are refused, and leave nothing. A node writes one by itself where its settings say so.
//
// A restore compares, before it ends, the digest of each group's rows with the one in the backup, and
// the ledger made anew from its leaves with the anchor.
//
// covers: F-5.6.5
// holds: ING-1, ING-2, ING-3, ING-4, LED-1, SEC-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_comes_back_out_of_a_backup() -> Result<()> {
    let mut backed = Backed::start().await?;
    let load = Load::start(&backed.cluster, plans(&backed.cluster).await?).await?;
    load.moves(ALIVE).await?;
    let first = backed.create(&[]).await?;
    load.moves(ALIVE).await?;
    let second = backed.create(&[]).await?;
    load.moves(ALIVE).await?;
    let lines = load.finish().await?;
    let third = backed.create(&[]).await?;
    ensure!(first["parent"].is_null() && second["parent"] == first["backup"], "{second}");
    ensure!(third["parent"] == second["backup"], "{third}");
    listed(&backed, 3).await?;
    backed.verify(&backed.folder).await?;
    ensure!(in_no_file_of(&backed.folder, &[CANARY.to_owned()])? > 3 * NODES, "too few files");
    backed.put_into_escrow()?;
    let (keyring, master) = (backed.escrow.join("keyring"), backed.escrow.join("master.key"));
    let other = backed.cluster.nodes[1].folder.join("keys/master.key");

    let there = backed.restore(&backed.folder, &keyring, &master).await;
    said(there, "exists already")?;
    backed.lose_everything()?;
    let wrong = backed.restore(&backed.folder, &keyring, &other).await;
    said(wrong, "not the one that sealed")?;
    let spoiled = with_a_flipped_byte(&backed, &first)?;
    said(backed.verify(&spoiled).await, "exit status: 20:")?;
    said(backed.restore(&spoiled, &keyring, &master).await, "g001.entries")?;
    ensure!(!backed.cluster.nodes[0].folder.join("data").exists(), "something was left");

    // What was written under load: rows and ledgers are those that were recorded then.
    let (probe, of) = (backed.cluster.path("probe"), second["backup"].as_str().context("an id")?);
    let which = ["--backup", of, "--incarnation", "7"];
    let early = backed.restore_into(&probe, &which, &backed.folder, &keyring, &master).await?;
    ensure!(early["backup"] == second["backup"] && early["incarnation"] == 7, "{early}");

    let begun = Instant::now();
    let restored = backed.restore(&backed.folder, &keyring, &master).await?;
    ensure!(restored["incarnation"] == 2 && restored["backup"] == third["backup"], "{restored}");
    let valid = |line: &Arc<Line>| line.sent.lock().iter().filter(|(_, valid)| *valid).count();
    let kept: usize = lines.iter().map(valid).sum();
    ensure!(restored["records"] == kept, "{restored}, {kept} were accepted");
    backed.cluster.nodes[0].lost = false;
    backed.writes_by_itself();
    backed.cluster.start_node(0)?;
    backed.cluster.settled(1).await?;
    println!("restored and settled after {:.1?}", begun.elapsed());
    judge(&backed.cluster, &lines).await?;
    goes_on(&backed.cluster, &lines).await?;

    backed.cluster.add_node().await?;
    backed.cluster.settled(2).await?;
    judge(&backed.cluster, &lines).await?;
    // A new life begins a new chain, by itself.
    let own = backed.written_by_itself().await?;
    // It may still be read back: one is written at a time.
    let next = until("the next backup", WITHIN, async || backed.create(&[]).await).await?;
    ensure!(next["parent"] == own["backup"], "{next} does not continue {own}");
    backed.cluster.passed();
    Ok(())
}

async fn plans(cluster: &Cluster) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for at in 1..=SOURCES {
        let source = cluster.add_source(&format!("src-{at}"), &["notes"]).await?;
        for stream in ["a", "b"] {
            let mark = format!("{CANARY}-{stream}");
            plans.push(Plan { mark, ..Plan::new(&source, stream) });
        }
    }
    Ok(plans)
}

async fn listed(backed: &Backed, count: usize) -> Result<()> {
    let folder = backed.folder.display().to_string();
    let listed = backed.cluster.dtm(&["-o", "json", "backup", "list", &folder]).await?;
    let listed: Value = serde_json::from_str(&listed)?;
    let all = listed.as_array().context("a list")?;
    ensure!(all.len() == count && all.iter().all(|one| one["error"].is_null()), "{listed}");
    Ok(())
}

/// A copy of the folder in which a byte of the oldest backup is another one.
fn with_a_flipped_byte(backed: &Backed, of: &Value) -> Result<PathBuf> {
    let spoiled = backed.folder.with_file_name("spoiled");
    copy(&backed.folder, &spoiled)?;
    let name = of["backup"].as_str().context("an id")?;
    let file = spoiled.join(name).join("g001.entries");
    let mut bytes = std::fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes)?;
    Ok(spoiled)
}

fn said<T>(of: Result<T>, what: &str) -> Result<()> {
    let Err(error) = of else { anyhow::bail!("it did not fail with {what:?}") };
    let told = format!("{error:#}");
    ensure!(told.contains(what), "no {what:?}: {told}");
    Ok(())
}

/// Each stream is opened where it ended and takes more.
async fn goes_on(cluster: &Cluster, lines: &[Arc<Line>]) -> Result<()> {
    for line in lines {
        let before = line.acked();
        let publisher = line.open(cluster.endpoint(&line.plan.source)?).await?;
        for _ in 0..MORE {
            while !line.send(&publisher)? {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let progress = line.flush(&publisher).await?;
        ensure!(progress.acked_through == before + MORE, "{}: {progress:?}", line.name());
        ensure!(progress.incarnation == 2, "{}: {progress:?}", line.name());
    }
    Ok(())
}
