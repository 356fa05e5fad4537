//! One node: a `dtm serve` process of ours, its folder and its log. Dropped while it runs, it is
//! killed by its id.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A planned end takes no longer.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a log's end that are shown.
const TAIL_BYTES: usize = 16_384;
/// And lines.
const TAIL_LINES: usize = 15;

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

/// A node of the drill.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name: n1, n2 …
    pub(crate) name: String,
    /// Its addresses.
    pub(crate) listen: Listen,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// What it says.
    pub(crate) log: PathBuf,
    /// Of which site of the drill's cluster.
    pub(crate) site: usize,
    /// It was founded or joined.
    pub(crate) has_joined: bool,
    /// It will not come back.
    pub(crate) is_lost: bool,
    /// It lives in a life of the cluster that is over, since another site was promoted.
    pub(crate) is_over: bool,
    /// Settings as `DTM__SECTION__KEY`.
    pub(crate) environment: Vec<(String, String)>,
    child: Option<Child>,
    is_paused: bool,
}

impl Node {
    /// One that does not run.
    pub(crate) fn new(name: String, site: usize, listen: Listen, home: &Path) -> Self {
        let (folder, log) = (home.join(&name), home.join(format!("{name}.log")));
        Self {
            name,
            listen,
            folder,
            log,
            site,
            has_joined: false,
            is_lost: false,
            is_over: false,
            environment: Vec::new(),
            child: None,
            is_paused: false,
        }
    }

    /// It belongs to the cluster as it is now.
    pub(crate) fn is_present(&self) -> bool {
        self.has_joined && !self.is_lost && !self.is_over
    }

    /// Starts its process; `prepare` says where and under which clock.
    pub(crate) fn start(&mut self, dtm: &Path, prepare: impl FnOnce(&mut Command)) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).context("log")?;
        let mut command = Command::new(dtm);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.folder.join("dtm.toml"))
            .env("DTM_LANG", "en")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C goes to the drill, which heals and ends its nodes itself.
            .process_group(0);
        prepare(&mut command);
        self.child = Some(command.spawn().context("dtm serve")?);
        self.is_paused = false;
        Ok(())
    }

    /// It was started and not ended by us.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// It runs and is not held still.
    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some() && !self.is_paused
    }

    /// An error with the end of its log when it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            bail!("{} ended by itself: {status}\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// SIGKILL without waiting for the end, for several at once; [`Node::kill`] follows.
    pub(crate) fn strike(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// SIGKILL: no goodbye, no flush.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.is_paused = false;
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.is_paused = true;
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.is_paused = false;
        Ok(())
    }

    /// SIGTERM, and waits for the planned end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let end = Instant::now() + STOPS_WITHIN;
        loop {
            let child = self.child.as_mut().context("it does not run")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                ensure!(status.success(), "{} ended with {status}\n{}", self.name, tail(&self.log));
                return Ok(());
            }
            ensure!(Instant::now() < end, "{} does not stop within 60 s", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        Ok(child.id())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("signal to {}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
