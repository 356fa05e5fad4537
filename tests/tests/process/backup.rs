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
    old_chains_go(&backed, &[&own, &next]).await?;
    backed.cluster.passed();
    Ok(())
}

// Good records; a backup, which records a digest of each group; a mass error on every stream's source and
// in administration; another backup. What is restored to the moment between has the rows and ledgers of
// every ingest group, to the digest, that the first backup recorded, each good record, and nothing of
// the error; the entries of the error stay in the backup, are counted in what the restore tells and
// named in the first leaves of the new life. One data set comes out by itself, as of both moments.
// Moments that the backup does not have are refused with those that it has.
//
// covers: F-5.6.6
// holds: ING-1, ING-2, ING-3, ING-4, LED-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mass_error_is_undone_to_the_moment_before_it() -> Result<()> {
    let mut backed = Backed::start().await?;
    let plans = plans(&backed.cluster).await?;
    let load = Load::start(&backed.cluster, plans.clone()).await?;
    load.moves(ALIVE).await?;
    backed.create(&[]).await?;
    load.moves(ALIVE).await?;
    let lines = load.finish().await?;
    let good = backed.create(&[]).await?;
    // Moments are named to the second here.
    tokio::time::sleep(APART).await;
    let moment = dtm_ctl::time(now_us()?);
    tokio::time::sleep(APART).await;

    let wrong = |plan: &Plan| Plan {
        stream: format!("{}-wrong", plan.stream),
        mark: format!("{}-wrong", plan.mark),
        ..plan.clone()
    };
    let error = Load::start(&backed.cluster, plans.iter().map(wrong).collect()).await?;
    backed.cluster.add_source("src-wrong", &["notes"]).await?;
    error.moves(ALIVE).await?;
    let wrong = error.finish().await?;
    let newest = backed.create(&[]).await?;
    ensure!(newest["parent"] == good["backup"], "{newest}");
    backed.put_into_escrow()?;

    let (good_count, wrong_count) = (valid(&lines), valid(&wrong));
    exports(&backed, &moment, good_count, good_count + wrong_count).await?;
    let told = refused_moments(&backed).await;
    told.context("moments that are not there")?;
    let then = ["--until", moment.as_str(), "--incarnation", "8"];
    same_digests(&backed, &good, &then).await?;

    backed.lose_everything()?;
    let (keyring, master) = (backed.escrow.join("keyring"), backed.escrow.join("master.key"));
    let first = backed.cluster.nodes[0].folder.clone();
    let until = ["--until", moment.as_str()];
    let restored = backed.restore_into(&first, &until, &backed.folder, &keyring, &master).await?;
    ensure!(restored["backup"] == newest["backup"], "{restored}");
    ensure!(restored["records"] == good_count, "{restored}, {good_count} were good");
    backed.cluster.nodes[0].lost = false;
    backed.cluster.start_node(0)?;
    backed.cluster.settled(1).await?;
    judge(&backed.cluster, &lines).await?;
    backed.cluster.dtm_fails(&["source", "show", "src-wrong"], "src-wrong").await?;
    backed.cluster.dtm(&["ledger", "checkpoint"]).await?;
    goes_on(&backed.cluster, &lines).await?;
    // What was left out of the cluster is in the backup as it was.
    backed.verify(&backed.folder).await?;
    exports(&backed, &moment, good_count, good_count + wrong_count).await?;
    backed.cluster.passed();
    Ok(())
}

/// Of the life in force the chain before the newest; of the life before nothing, though it is older.
async fn old_chains_go(backed: &Backed, old: &[&Value]) -> Result<()> {
    let full = backed.create(&["--full"]).await?;
    let folder = backed.folder.display().to_string();
    let remove = ["--yes", "-o", "json", "backup", "remove", &folder, "--keep-chains", "1"];
    let spoiled = backed.folder.join(full["backup"].as_str().context("an id")?).join("g001.rows");
    let rows = std::fs::read(&spoiled)?;
    std::fs::write(&spoiled, &rows[1..])?;
    said(backed.cluster.dtm(&remove).await, "exit status: 20:")?;
    listed(backed, 3 + old.len() + 1).await?;
    std::fs::write(&spoiled, rows)?;
    let done: Value = serde_json::from_str(&backed.cluster.dtm(&remove).await?)?;
    let gone = done["removed"].as_array().context("a list")?;
    ensure!(gone.len() == old.len() && done["kept_chains"] == 2, "{done}");
    ensure!(old.iter().all(|old| gone.contains(&old["backup"])), "{done}");
    listed(backed, 3 + 1).await?;
    backed.verify(&backed.folder).await.map(drop)
}

/// Longer than the second to which a moment is named and the difference of two clocks of one machine.
const APART: Duration = Duration::from_millis(1_500);

fn now_us() -> Result<i64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_micros())?)
}

fn valid(lines: &[Arc<Line>]) -> usize {
    lines.iter().map(|line| line.sent.lock().iter().filter(|(_, valid)| *valid).count()).sum()
}

/// The whole of a backup and the moment behind it have the same groups, to the digest.
async fn same_digests(backed: &Backed, whole: &Value, then: &[&str]) -> Result<()> {
    let (keyring, master) = (backed.escrow.join("keyring"), backed.escrow.join("master.key"));
    let which = ["--backup", whole["backup"].as_str().context("an id")?, "--incarnation", "7"];
    let mut ledgers = Vec::new();
    for (name, which) in [("whole", &which[..]), ("then", then)] {
        let probe = backed.cluster.path(name);
        let made = backed.restore_into(&probe, which, &backed.folder, &keyring, &master).await?;
        ledgers.push(made["ledgers"].as_array().context("ledgers")?.clone());
    }
    let [whole, then] = [&ledgers[0], &ledgers[1]];
    ensure!(whole.len() == then.len() && then.len() > 1, "{whole:?}, {then:?}");
    for (whole, then) in whole.iter().zip(then) {
        let not_taken = then["not_taken"].as_u64().context("a count")?;
        ensure!(whole["not_taken"] == 0 && whole["group"] == then["group"], "{whole}, {then}");
        if whole["group"] == 0 {
            // The first backup is entered in meta once it is there.
            ensure!(not_taken > 0, "{then}");
            ensure!(whole["ledger_size"].as_u64() < then["ledger_size"].as_u64(), "{then}");
            continue;
        }
        for what in ["index", "records", "ledger_size", "ledger_root", "state_sha256"] {
            ensure!(whole[what] == then[what], "{what}: {whole}, {then}");
        }
    }
    let left: u64 = then.iter().skip(1).filter_map(|of| of["not_taken"].as_u64()).sum();
    ensure!(left > 0, "nothing came behind the moment: {then:?}");
    Ok(())
}

async fn refused_moments(backed: &Backed) -> Result<()> {
    let (keyring, master) = (backed.escrow.join("keyring"), backed.escrow.join("master.key"));
    let probe = backed.cluster.path("no-moment");
    for (moment, what) in [
        ("2001-01-01T00:00:00+07:00", "the first moment that can be had"),
        ("2101-01-01T00:00:00+07:00", "the newest moment that this backup gives"),
    ] {
        let until = ["--until", moment];
        let made = backed.restore_into(&probe, &until, &backed.folder, &keyring, &master).await;
        said(made, what)?;
        ensure!(!probe.join("data").exists(), "something was left");
    }
    Ok(())
}

/// The records of the data set, of the newest backup and as of the moment, and of one source.
async fn exports(backed: &Backed, moment: &str, then: usize, all: usize) -> Result<()> {
    for (more, count) in [(&[][..], all), (&["--until", moment], then)] {
        let into = tempfile::tempdir_in(&backed.escrow)?;
        let done = export(backed, into.path(), more).await?;
        ensure!(done["records"] == count, "{done}, {count} were stored");
        let mut lines = 0;
        for source in 1..=SOURCES {
            let sent = into.path().join(format!("publish/src-{source}.jsonl"));
            let documents = into.path().join(format!("records/src-{source}.jsonl"));
            let (sent, documents) =
                (std::fs::read_to_string(sent)?, std::fs::read_to_string(documents)?);
            ensure!(sent.lines().count() == documents.lines().count(), "src-{source}");
            for (sent, document) in sent.lines().zip(documents.lines()) {
                let (sent, document): (Value, Value) =
                    (serde_json::from_str(sent)?, serde_json::from_str(document)?);
                ensure!(document["payload"] == sent, "{document}");
            }
            lines += sent.lines().count();
        }
        ensure!(lines == count, "{lines} lines of {count}");
    }
    let into = tempfile::tempdir_in(&backed.escrow)?;
    let done = export(backed, into.path(), &["--source", "src-1"]).await?;
    let sources = done["sources"].as_array().context("sources")?;
    ensure!(sources.len() == 1 && sources[0]["source"] == "src-1", "{done}");
    let into = tempfile::tempdir_in(&backed.escrow)?;
    said(export(backed, into.path(), &["--source", "nobody"]).await, "holds no record")
}

async fn export(backed: &Backed, into: &Path, more: &[&str]) -> Result<Value> {
    let text = |path: &Path| path.display().to_string();
    let (from, into) = (text(&backed.folder), text(into));
    let (keyring, master) =
        (text(&backed.escrow.join("keyring")), text(&backed.escrow.join("master.key")));
    let arguments = [
        &["-o", "json", "backup", "export", "--dataset", "notes", "--from", &from],
        &["--into", &into, "--keyring", &keyring, "--master", &master][..],
        more,
    ];
    Ok(serde_json::from_str(&backed.cluster.dtm(&arguments.concat()).await?)?)
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
