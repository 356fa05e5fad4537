//! One `dtm serve` process, its folder and its log. Dropped while it runs, it is killed by its id.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::faulty;

/// What Linux counts processor time in, whatever the kernel's own clock.
const TICKS_PER_SECOND: u64 = 100;
/// A planned end takes no longer.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// A node of a test.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) ports: [SocketAddr; 3],
    /// Under which address others reach it.
    pub(crate) host: Ipv4Addr,
    /// Where clients reach it.
    pub(crate) grpc: SocketAddr,
    /// It will not come back.
    pub(crate) lost: bool,
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
    /// Settings that this node alone has, as `DTM__SECTION__KEY`.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it stands; none = where all do.
    pub(crate) site: Option<String>,
    /// Its sessions have a planted bug ([`crate::faulty`]).
    pub(crate) is_faulty: bool,
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// `ports`: HTTPS, gRPC, peers.
    pub(crate) fn new(name: &str, ports: [SocketAddr; 3], host: Ipv4Addr, home: &Path) -> Self {
        Self {
            name: name.to_owned(),
            ports,
            host,
            grpc: SocketAddr::from((host, ports[1].port())),
            lost: false,
            folder: home.join(name),
            log: home.join(format!("{name}.log")),
            environment: Vec::new(),
            site: None,
            is_faulty: false,
            child: None,
            paused: false,
        }
    }

    pub(crate) fn start(&mut self, dtm: &Path) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).context("log")?;
        // What it writes for a moment is searched like the rest of its folder.
        let temporary = self.folder.join("tmp");
        std::fs::create_dir_all(&temporary)?;
        let config = self.folder.join("dtm.toml");
        let mut command = if self.is_faulty {
            faulty::serve(&config)?
        } else {
            let mut command = Command::new(dtm);
            command.arg("serve").arg("--config").arg(config);
            command
        };
        command
            .env("DTM_LANG", "en")
            .env("TMPDIR", temporary)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn().context("dtm serve")?);
        self.paused = false;
        Ok(())
    }

    /// It was started, was not killed and is not paused.
    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// An error when it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            bail!("{} ended by itself: {status}\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// Waits until it has ended by itself; its exit code.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<i32> {
        let deadline = Instant::now() + within;
        loop {
            let child = self.child.as_mut().context("it does not run")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                let code = status.code();
                return code.with_context(|| format!("{} ended by a signal", self.name));
            }
            ensure!(Instant::now() < deadline, "{} still runs after {within:?}", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL: no goodbye, no flush.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.paused = false;
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.paused = true;
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.paused = false;
        Ok(())
    }

    /// SIGTERM, and waits for the planned end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let code = self.ended(STOPS_WITHIN).await?;
        ensure!(code == 0, "{} ended with {code}\n{}", self.name, tail(&self.log));
        Ok(())
    }

    /// Memory that it holds, KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        self.memory_kib("VmRSS:")
    }

    /// The most memory that it ever held, KiB.
    pub(crate) fn peak_resident_kib(&self) -> Result<u64> {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, what: &'static str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kib = line.and_then(|line| line.split_whitespace().next()).context(what)?;
        Ok(kib.parse()?)
    }

    /// A number of what the node said about its log when it opened it for the last time, such as
    /// `torn_bytes`.
    pub(crate) fn log_opened_with(&self, what: &str) -> Result<u64> {
        let text = std::fs::read_to_string(&self.log)?;
        let (_, said) = text.rsplit_once("\"log opened\"").context("it opened its log")?;
        let (_, number) = said.split_once(&format!("{what}: ")).context("another text")?;
        let end = number.find(|c: char| !c.is_ascii_digit()).context("another text")?;
        Ok(number[..end].parse()?)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<i32> {
        let child = self.child.as_ref().context("it does not run")?;
        i32::try_from(child.id()).context("pid")
    }

    /// Processor time that it has taken, of all its threads.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The name stands in brackets and may hold anything; the third field follows it.
        let (_, rest) = stat.rsplit_once(')').context("a name")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    /// Files that it holds open, wherever they lie, those without a name too.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        let Ok(pid) = self.pid() else { return Vec::new() };
        let Ok(held) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
        let paths = held.filter_map(|entry| Some(entry.ok()?.path()));
        // Neither sockets nor devices.
        paths.filter(|path| std::fs::metadata(path).is_ok_and(|data| data.is_file())).collect()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()?), signal).context("signal")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process leaves no core file, with whatever it knows, and no other process of its user may read
/// its memory: the system then counts what /proc shows of it as root's (of root's own it shows no
/// difference).
///
/// # Errors
/// One of it does not hold.
pub(crate) fn leaves_no_core(pid: i32) -> Result<()> {
    let folder = format!("/proc/{pid}");
    let limits = std::fs::read_to_string(format!("{folder}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let allowed: Vec<&str> = line.context("a limit")?.split_whitespace().take(2).collect();
    ensure!(allowed == ["0", "0"], "process {pid} may leave core files of {allowed:?}");
    let owner = std::fs::metadata(format!("{folder}/environ"))?.uid();
    ensure!(owner == 0, "the memory of process {pid} may be read by user {owner}");
    Ok(())
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(16_384)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
