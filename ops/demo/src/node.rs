//! One node: a `dtm serve` process of ours, its folder and its log.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::say::Say;

/// Lines of a log that are shown when a node does not start.
const LOG_LINES: usize = 20;
/// Longest end of a log that is read, bytes.
const LOG_BYTES: u64 = 64 * 1024;
/// Time to stop in order before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen {
    /// HTTPS.
    pub(crate) https: SocketAddr,
    /// gRPC.
    pub(crate) grpc: SocketAddr,
    /// Peers.
    pub(crate) peers: SocketAddr,
}

/// A node of the demo. Dropped while it runs, it is killed.
#[derive(Debug)]
pub(crate) struct Node {
    /// Name.
    pub(crate) name: String,
    /// Addresses.
    pub(crate) listen: Listen,
    /// Its folder.
    pub(crate) folder: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that is not running.
    pub(crate) fn new(name: String, listen: Listen, folder: PathBuf, log: PathBuf) -> Self {
        Self { name, listen, folder, log, child: None }
    }

    /// Starts `dtm serve`; its output is appended to the log. Returns the process id.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn start(&mut self, dtm: &Path, say: Say) -> Result<u32> {
        let shown = || self.log.display().to_string();
        let log = File::options().create(true).append(true).open(&self.log).with_context(shown)?;
        let mut command = Command::new(dtm);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.folder.join("dtm.toml"))
            .env("DTM_LANG", say.pick("vi", "en"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C goes to the demo, which stops its nodes itself.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| dtm.display().to_string())?;
        let pid = child.id().context("a process that was just started has an id")?;
        self.child = Some(child);
        Ok(pid)
    }

    /// Whether it was started and has not ended.
    ///
    /// # Errors
    /// With the end of its log where it ended by itself.
    pub(crate) fn check(&mut self, say: Say) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!(self.epitaph(say, &status.to_string()));
        }
        Ok(())
    }

    /// It runs, as far as the demo knows.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL: no goodbye, no flush.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("kill")?;
        }
        Ok(())
    }

    /// Asks it to stop; kills it when it takes too long.
    pub(crate) async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Ended already is as good as stopped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }

    /// Why a node is not there, with the end of its log.
    pub(crate) fn epitaph(&self, say: Say, status: &str) -> String {
        let log = self.log.display().to_string();
        let head =
            say.text("node_ended", &[("node", &self.name), ("status", status), ("log", &log)]);
        format!("{head}\n{}", tail(&self.log))
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;

    #[tokio::test]
    async fn a_node_that_ends_says_why() {
        let home = tempfile::tempdir().expect("a folder");
        let listen = "127.0.0.1:1".parse().expect("an address");
        let listen = Listen { https: listen, grpc: listen, peers: listen };
        let log = home.path().join("n1.log");
        let program = home.path().join("dtm");
        std::fs::write(&program, "#!/bin/sh\nfor i in $(seq 30); do echo line $i; done\nexit 78\n")
            .expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("executable");
        let mut node = Node::new("n1".into(), listen, home.path().into(), log.clone());
        node.start(&program, Say(Lang::En)).expect("it starts");
        let mut why = None;
        for _ in 0..200 {
            if let Err(error) = node.check(Say(Lang::En)) {
                why = Some(error.to_string());
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let why = why.expect("it has ended");
        assert!(
            why.contains("line 30") && why.contains("line 11") && !why.contains("line 10\n"),
            "{why}"
        );
        assert!(why.contains(&log.display().to_string()) && !node.is_running(), "{why}");
    }
}
