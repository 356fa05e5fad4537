//! A process that gets less CPU than it wants: by a control group where there is one, else by
//! holding it still most of the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::nemesis::Victim;
use crate::{Error, Ppm};

/// How a process is starved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A quota of its control group (version 1).
    Quota,
    /// SIGSTOP and SIGCONT in turn.
    Turns,
}

/// A process that is starved until this is dropped.
#[derive(Debug)]
pub struct Starved {
    victim: Victim,
    by: By,
}

#[derive(Debug)]
enum By {
    Quota { group: PathBuf, home: PathBuf },
    Turns { is_over: Arc<AtomicBool>, turns: Arc<AtomicU64>, thread: Option<JoinHandle<()>> },
}

/// In which the share is given.
const PERIOD: Duration = Duration::from_millis(100);
/// The kernel's least quota.
const LEAST: Duration = Duration::from_millis(1);
/// Where version 1 of control groups has its CPU quotas.
const QUOTAS: &str = "/sys/fs/cgroup/cpu";

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Starved {
    /// From now on the process gets this share of one core, by whatever means there is; at least
    /// one hundredth.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn new(victim: &Victim, share: Ppm) -> Result<Self, Error> {
        match Self::by(victim, share, Means::Quota) {
            Ok(starved) => Ok(starved),
            Err(_) => Self::by(victim, share, Means::Turns),
        }
    }

    /// As [`Starved::new`], by these means only.
    ///
    /// # Errors
    /// When the process is gone, or there is no such control group or no right to make one.
    pub fn by(victim: &Victim, share: Ppm, means: Means) -> Result<Self, Error> {
        let runs = (PERIOD * share.get() / 1_000_000).clamp(LEAST, PERIOD);
        let by = match means {
            Means::Quota => quota(victim, runs)?,
            Means::Turns => turns(victim, runs)?,
        };
        Ok(Self { victim: victim.clone(), by })
    }

    /// How it is done.
    #[must_use]
    pub fn means(&self) -> Means {
        match self.by {
            By::Quota { .. } => Means::Quota,
            By::Turns { .. } => Means::Turns,
        }
    }

    /// How often the process wanted CPU and did not get it, or was held still: whether the fault
    /// fired.
    #[must_use]
    pub fn times(&self) -> u64 {
        match &self.by {
            By::Turns { turns, .. } => turns.load(Ordering::SeqCst),
            By::Quota { group, .. } => {
                let text = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
                line.and_then(|number| number.parse().ok()).unwrap_or(0)
            }
        }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        match &mut self.by {
            By::Quota { group, home } => leave(&self.victim, group, home),
            By::Turns { is_over, thread, .. } => {
                is_over.store(true, Ordering::SeqCst);
                if let Some(thread) = thread.take() {
                    let _panicked = thread.join();
                }
                let _gone = self.victim.signal(Signal::SIGCONT);
            }
        }
    }
}

fn quota(victim: &Victim, runs: Duration) -> Result<By, Error> {
    let home = home(victim)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let group = Path::new(QUOTAS).join(format!("wansim-{}-{number}", std::process::id()));
    fs::create_dir(&group).map_err(Error::kernel("make a control group"))?;
    let set = |file: &str, value: u128| fs::write(group.join(file), value.to_string());
    let starve = || {
        set("cpu.cfs_period_us", PERIOD.as_micros())?;
        set("cpu.cfs_quota_us", runs.as_micros())?;
        set("cgroup.procs", victim.pid().into())
    };
    if let Err(error) = starve() {
        leave(victim, &group, &home);
        return Err(Error::kernel("set a quota")(error));
    }
    Ok(By::Quota { group, home })
}

/// The control group from which it comes and to which it goes back.
fn home(victim: &Victim) -> Result<PathBuf, Error> {
    let text = fs::read_to_string(victim.proc("cgroup"));
    let text = text.map_err(|_| victim.missed("is gone"))?;
    let path = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        controllers.split(',').any(|name| name == "cpu").then_some(path)
    });
    let path = path.ok_or_else(|| victim.missed("has no control group for CPU"))?;
    Ok(Path::new(QUOTAS).join(path.trim_start_matches('/')))
}

fn leave(victim: &Victim, group: &Path, home: &Path) {
    let _gone = fs::write(home.join("cgroup.procs"), victim.pid().to_string());
    // A process that it started meanwhile is in the group too.
    let left = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in left.split_whitespace() {
        let _gone = fs::write(home.join("cgroup.procs"), pid);
    }
    // A process that just ended holds the group for a moment.
    for _ in 0..100 {
        if fs::remove_dir(group).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn turns(victim: &Victim, runs: Duration) -> Result<By, Error> {
    victim.signal(Signal::SIGCONT)?;
    let (is_over, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (over, count, victim) = (Arc::clone(&is_over), Arc::clone(&turns), victim.clone());
    let work = move || {
        // Ends with the process, and when it is over.
        while !over.load(Ordering::SeqCst) && victim.signal(Signal::SIGSTOP).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(PERIOD.saturating_sub(runs));
            if victim.signal(Signal::SIGCONT).is_err() {
                return;
            }
            std::thread::sleep(runs);
        }
    };
    let builder = std::thread::Builder::new().name("wansim-starve".to_owned());
    let thread = builder.spawn(work).map_err(Error::kernel("start a thread"))?;
    Ok(By::Turns { is_over, turns, thread: Some(thread) })
}
