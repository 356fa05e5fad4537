//! Nodes that must not start: exit 78, file, key and what to do, and not a byte written.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::cluster::{Cluster, NODES, binary};
use crate::load::Load;
use crate::readback::judge;

const ENDS_WITHIN: Duration = Duration::from_secs(20);
const EXIT_CONFIG: i32 = 78;
const FILES_MAX: usize = 10_000;

/// Two nodes of two clusters that were founded and have not run.
struct Pair {
    home: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("dtm-config-").tempdir()?;
        let pair = Self { home };
        for name in ["a", "b"] {
            let made = Command::new(binary()?)
                .args([
                    "cluster",
                    "init",
                    "--name",
                    name,
                    "--no-context",
                    "--advertise",
                    "127.0.0.1",
                ])
                .args(["--https", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--peers", "127.0.0.1:0"])
                .arg("--folder")
                .arg(pair.path(name))
                .output();
            let made = made.await?;
            ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(pair)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("a/dtm.toml")
    }

    /// Starts `a`, which must end at once as `wanted` and leave its folder as it was.
    async fn refuses(&self, what: &str, wanted: &[&str]) -> Result<()> {
        let before = contents(&self.path("a"))?;
        let output = serve(&self.config()).await.context(what.to_owned())?;
        refused(&output, wanted).context(what.to_owned())?;
        let output = check(&self.config()).await.context(what.to_owned())?;
        refused(&output, wanted).context(format!("config check: {what}"))?;
        ensure!(contents(&self.path("a"))? == before, "{what}: something was written");
        Ok(())
    }

    /// As [`Pair::refuses`] with another text as the configuration, then puts the old one back.
    async fn refuses_text(&self, what: &str, text: &str, wanted: &[&str]) -> Result<()> {
        let good = std::fs::read_to_string(self.config())?;
        std::fs::write(self.config(), text)?;
        self.refuses(what, wanted).await?;
        Ok(std::fs::write(self.config(), good)?)
    }

    /// As [`Pair::refuses`] with a file of `a` replaced; none = taken away.
    async fn refuses_file(
        &self,
        what: &str,
        file: &str,
        instead: Option<&Path>,
        wanted: &[&str],
    ) -> Result<()> {
        let path = self.path("a").join(file);
        let kept = self.path("kept");
        std::fs::rename(&path, &kept)?;
        if let Some(instead) = instead {
            std::fs::copy(instead, &path)?;
        }
        self.refuses(what, wanted).await?;
        Ok(std::fs::rename(&kept, &path)?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_configuration_is_refused_with_file_line_and_key() -> Result<()> {
    let pair = Pair::new().await?;
    let good = std::fs::read_to_string(pair.config())?;
    let at = |line: usize| format!("dtm.toml:{line}");
    let lines = good.lines().count();

    let broken = format!("{good}\n[limits\n");
    pair.refuses_text("broken TOML", &broken, &[&at(lines + 2)]).await?;
    let unknown = format!("{good}\n[limits]\nrecord_bytes_maximum = 1\n");
    let wanted = [&at(lines + 3)[..], "limits.record_bytes_maximum"];
    pair.refuses_text("unknown key", &unknown, &wanted).await?;
    let range = format!("{good}\n[limits]\nstreams_open_max = 0\n");
    let wanted = [&at(lines + 3)[..], "limits.streams_open_max", "1 to 4096"];
    pair.refuses_text("out of range", &range, &wanted).await?;

    for (key, file) in [
        ("tls.key", "tls/node.key"),
        ("tls.certificate", "tls/node.pem"),
        ("tls.ca", "tls/ca.pem"),
        ("keys.master_key_file", "keys/master.key"),
    ] {
        pair.refuses_file("a missing file", file, None, &["dtm.toml", key, file]).await?;
    }
    let other = pair.path("b/keys/master.key");
    let wanted = ["keyring", "master"];
    pair.refuses_file("a wrong master key", "keys/master.key", Some(&other), &wanted).await?;
    let other = pair.path("b/tls/node.key");
    let wanted = ["tls.key", "node.key", "node.pem", "put back"];
    pair.refuses_file("a key of another certificate", "tls/node.key", Some(&other), &wanted).await
}

// Files of one cluster beside those of another, in a folder that has not run: nothing is founded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_another_cluster_are_refused() -> Result<()> {
    let pair = Pair::new().await?;
    let other = pair.path("b/tls/ca.pem");
    let wanted = ["tls.ca", "tls/ca.pem", "node.pem", "wrong-cluster.md"];
    pair.refuses_file("another cluster's CA", "tls/ca.pem", Some(&other), &wanted).await?;
    let swap = |with: &str| -> Result<()> {
        std::fs::rename(pair.path("a").join(with), pair.path("kept-part"))?;
        copy(&pair.path("b").join(with), &pair.path("a").join(with))
    };
    let restore = |with: &str| -> Result<()> {
        std::fs::remove_dir_all(pair.path("a").join(with))?;
        Ok(std::fs::rename(pair.path("kept-part"), pair.path("a").join(with))?)
    };
    swap("tls")?;
    let wanted = ["node.data", "genesis.toml", "is of cluster", "wrong-cluster.md"];
    pair.refuses("another cluster's certificate", &wanted).await?;
    // The data folder of a node that joined has no genesis; its keys say whose it is.
    std::fs::rename(pair.path("a/data/genesis.toml"), pair.path("genesis.toml"))?;
    let wanted = ["node.data", "keyring", "another cluster"];
    pair.refuses("another cluster's keyring", &wanted).await?;
    std::fs::rename(pair.path("genesis.toml"), pair.path("a/data/genesis.toml"))?;
    restore("tls")
}

// The folder of another cluster, then of another node: neither is opened, nothing is written, so no
// vote can be cast with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_cluster_or_node_is_refused() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let pair = Pair::new().await?;
    for node in &mut cluster.nodes {
        node.stop().await?;
    }
    let data = |at: usize| cluster.nodes[at].folder.join("data");
    let parts = ["log", "state"];
    for part in parts {
        copy(&data(0).join(part), &pair.path("a/data").join(part))?;
    }
    pair.refuses("data of another cluster", &["cluster"]).await?;

    // Log and state of n1 in the folder of n2.
    let kept = cluster.path("kept");
    std::fs::create_dir(&kept)?;
    for part in parts {
        std::fs::rename(data(1).join(part), kept.join(part))?;
        copy(&data(0).join(part), &data(1).join(part))?;
    }
    let before = contents(&cluster.nodes[1].folder)?;
    let output = serve(&cluster.nodes[1].folder.join("dtm.toml")).await?;
    refused(&output, &["node"])?;
    ensure!(contents(&cluster.nodes[1].folder)? == before, "something was written");
    for part in parts {
        std::fs::remove_dir_all(data(1).join(part))?;
        std::fs::rename(kept.join(part), data(1).join(part))?;
    }
    // It was all put back: the cluster runs.
    for at in 0..NODES {
        cluster.start_node(at)?;
    }
    cluster.settled(NODES).await?;
    let load = Load::usual(&cluster, 1).await?;
    load.moves(10).await?;
    judge(&cluster, &load.finish().await?).await?;
    cluster.passed();
    Ok(())
}

/// Starts a node that must end by itself.
pub(crate) async fn serve(config: &Path) -> Result<Output> {
    run(&["serve"], config).await
}

/// What `dtm config check` says of the same.
async fn check(config: &Path) -> Result<Output> {
    run(&["config", "check"], config).await
}

async fn run(arguments: &[&str], config: &Path) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(arguments).arg("--config").arg(config).env("DTM_LANG", "en").kill_on_drop(true);
    command.stdin(Stdio::null());
    let output = tokio::time::timeout(ENDS_WITHIN, command.output()).await;
    Ok(output.context("it runs")??)
}

/// It ended with 78 and these words.
pub(crate) fn refused(output: &Output, wanted: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(EXIT_CONFIG), "{}: {said}", output.status);
    for word in wanted {
        ensure!(said.contains(word), "no {word:?} in: {said}");
    }
    Ok(())
}

/// Length, time of the last change and digest of each file.
pub(crate) type Contents = BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)>;

/// Every file below a folder.
pub(crate) fn contents(folder: &Path) -> Result<Contents> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        ensure!(found.len() < FILES_MAX, "too many files");
        let data = std::fs::metadata(&path)?;
        if data.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                open.push(entry?.path());
            }
            found.insert(path, (0, 0, 0, Vec::new()));
        } else {
            let digest = Sha256::digest(std::fs::read(&path)?).to_vec();
            found.insert(path, (data.len(), data.mtime(), data.mtime_nsec(), digest));
        }
    }
    Ok(found)
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut open = vec![(from.to_owned(), to.to_owned())];
    let mut count = 0;
    while let Some((from, to)) = open.pop() {
        count += 1;
        ensure!(count < FILES_MAX, "too many files");
        if from.is_dir() {
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(&from)? {
                let entry = entry?;
                open.push((entry.path(), to.join(entry.file_name())));
            }
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
