//! Backups of the drill's cluster, and its next life out of one.
//!
//! ```text
//!  backup   dtm backup create ─▶ dtm backup verify ─▶ keyring and master key into the safe
//!  restore  every process ends at once ─▶ every disk is gone
//!             ─▶ n1: dtm backup restore, with what lay in the safe ─▶ n2, n3 … join with tokens
//! ```
//! The nodes keep their names and addresses, as machines that are set up again do: sources find them
//! by themselves, compare with the new life and send again what they hold.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clock;
use crate::cluster::{BACKUPS, Cluster};
use crate::faults::remove_all_but;
use crate::hands::Drilled;
use crate::loss::SiteFault;

/// Where keyring and master key are kept apart from backups and nodes.
const SAFE: &str = "safe";
/// The operator's files: they lie on the operator's machine, not on a node's disk.
const OPERATOR: &str = "operator";

impl Drilled {
    /// Writes a backup, the first one full, reads the chain to its end, and puts into the safe what a
    /// restore needs beside it.
    ///
    /// # Errors
    /// What the commands said; a chain that does not go on.
    pub(crate) fn backup(&mut self) -> Result<String> {
        let folder = self.cluster.path(BACKUPS);
        let folder = folder.to_str().context("a path of Unicode")?;
        let create = ["-o", "json", "backup", "create", "--reason", "drill"];
        let done = parsed(&self.command(&create)?).context("backup create")?;
        let kind = if done["parent"].is_null() { "full" } else { "incremental" };
        let verified = self.command(&["-o", "json", "backup", "verify", folder])?;
        let verified = parsed(&verified).context("backup verify")?;
        ensure!(verified["whole"] == true && verified["backup"] == done["backup"], "{verified}");
        self.keep_keys()?;
        let (id, bytes) = (done["backup"].as_str().context("an id")?, &done["bytes"]);
        let chain = &verified["backups"];
        Ok(format!("{kind}, {id}, {bytes} bytes, chain of {chain} verified"))
    }

    /// Keyring and master key of one node.
    fn keep_keys(&self) -> Result<()> {
        let present = self.cluster.present();
        let at = *present.first().context("no node is left")?;
        let (node, safe) = (&self.cluster.nodes[at].folder, self.cluster.path(SAFE));
        let keyring = safe.join("keyring");
        std::fs::create_dir_all(&keyring)?;
        remove_all_but(&keyring, None)?;
        for entry in std::fs::read_dir(node.join("data/keyring"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), keyring.join(entry.file_name()))?;
        }
        std::fs::copy(node.join("keys/master.key"), safe.join("master.key"))?;
        Ok(())
    }

    /// Every node ends at once and for good, with its disk; then the newest backup begins the next
    /// life on the first of them, which the others join. The loss is what the drill measures.
    ///
    /// # Errors
    /// What the commands or the processes said.
    pub(crate) fn restore(&mut self, within: Duration) -> Result<String> {
        let end = Instant::now() + within;
        let nodes: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        let mut fault = SiteFault::new(nodes.clone(), true, self.load.as_ref());
        for at in self.standing(None) {
            if self.cluster.nodes[at].is_running() {
                self.cluster.nodes[at].strike()?;
            }
        }
        self.cluster.lose_everything()?;
        if let Some(load) = &self.load {
            // From the first ack of the new life on.
            load.may_lose(true);
        }
        let restored = self.runtime.block_on(self.cluster.begin_from_backup())?;
        fault.reborn = Some(clock::now());
        self.site_fault = Some(fault);
        self.cluster.start_node(0)?;
        let left = end.saturating_duration_since(Instant::now());
        self.runtime.block_on(self.cluster.settled(left))?;
        for at in nodes.into_iter().skip(1) {
            self.runtime.block_on(self.cluster.join(at))?;
        }
        let left = end.saturating_duration_since(Instant::now());
        self.runtime.block_on(self.cluster.settled(left))?;
        let (backup, life) = (restored["backup"].as_str(), &restored["incarnation"]);
        let records = &restored["records"];
        Ok(format!("{}: life {life}, {records} records", backup.context("an id")?))
    }
}

impl Cluster {
    /// Processes and disks of all nodes are gone.
    fn lose_everything(&mut self) -> Result<()> {
        self.keep_operator_once()?;
        for node in &mut self.nodes {
            node.kill();
            (node.has_joined, node.is_lost, node.is_over) = (false, false, false);
            if node.folder.exists() {
                remove_all_but(&node.folder, Some(OPERATOR))?;
            }
        }
        Ok(())
    }

    /// The first node's folder out of the newest backup; what the command said.
    async fn begin_from_backup(&mut self) -> Result<Value> {
        let safe = self.path(SAFE);
        let mut arguments = vec!["-o".to_owned(), "json".to_owned()];
        arguments.extend(self.node_arguments(["backup", "restore"], 0));
        let named = |name: &str, path: &Path| [name.to_owned(), path.display().to_string()];
        arguments.extend(named("--from", &self.path(BACKUPS)));
        arguments.extend(named("--keyring", &safe.join("keyring")));
        arguments.extend(named("--master", &safe.join("master.key")));
        let restored = parsed(&self.dtm(&arguments).await?).context("backup restore")?;
        self.nodes[0].has_joined = true;
        Ok(restored)
    }
}

fn parsed(said: &str) -> Result<Value> {
    Ok(serde_json::from_str(said)?)
}
