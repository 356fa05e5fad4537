//! One process, told apart from a later one of the same id by when it began.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// A process to be disturbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    pid: u32,
    /// Ticks since the machine's start.
    began: u64,
}

/// How long a signal may take to show.
const SHOWS_WITHIN: Duration = Duration::from_secs(5);

impl Victim {
    /// The process of this id, as it runs now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let (_, began) = stat(pid)?;
        Ok(Self { pid, began })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is still there and no zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state().is_ok_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Ends it at once (SIGKILL) and waits until it is gone. Its parent still has to wait for it.
    ///
    /// # Errors
    /// When it is gone already, or does not go.
    pub fn kill(&self) -> Result<(), Error> {
        self.signal(Signal::SIGKILL)?;
        self.until("does not end", |victim| !victim.is_alive())
    }

    /// Holds it still (SIGSTOP); when this returns, it is. It goes on when what is returned is
    /// dropped.
    ///
    /// # Errors
    /// When it is gone, or does not stop.
    pub fn pause(&self) -> Result<Paused, Error> {
        self.signal(Signal::SIGSTOP)?;
        let paused = Paused { victim: self.clone() };
        self.until("does not stop", |victim| victim.state().is_ok_and(|state| state == 'T'))?;
        Ok(paused)
    }

    /// Holds it still for so long. The caller waits.
    ///
    /// # Errors
    /// As [`Victim::pause`].
    pub fn pause_for(&self, time: Duration) -> Result<(), Error> {
        let paused = self.pause()?;
        std::thread::sleep(time);
        paused.resume()
    }

    /// Whether it is held still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state().is_ok_and(|state| state == 'T')
    }

    /// CPU time that all its threads have used.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        self.state()?;
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let text = text.map_err(|_| self.missed("is gone"))?;
        // The fourteenth and fifteenth words: ticks of a hundredth of a second.
        let words = text.rsplit_once(')').map_or("", |(_, words)| words).split_whitespace();
        let ticks: u64 = words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.state()?;
        let pid = i32::try_from(self.pid).map_err(|_| self.missed("has no such id"))?;
        kill(Pid::from_raw(pid), signal).map_err(Error::kernel("send a signal"))
    }

    pub(super) fn missed(&self, message: &str) -> Error {
        Error::Process { pid: self.pid, message: message.to_owned() }
    }

    pub(super) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }

    fn state(&self) -> Result<char, Error> {
        let (state, began) = stat(self.pid)?;
        if began != self.began {
            return Err(self.missed("is gone; another one has its id"));
        }
        Ok(state)
    }

    fn until(&self, message: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let end = Instant::now() + SHOWS_WITHIN;
        while !holds(self) {
            if Instant::now() > end {
                return Err(self.missed(message));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A process that is held still.
#[derive(Debug)]
pub struct Paused {
    victim: Victim,
}

impl Paused {
    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(self) -> Result<(), Error> {
        self.victim.signal(Signal::SIGCONT)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _gone = self.victim.signal(Signal::SIGCONT);
    }
}

/// State and beginning of a process.
fn stat(pid: u32) -> Result<(char, u64), Error> {
    let missed = |message: &str| Error::Process { pid, message: message.to_owned() };
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let text = text.map_err(|_| missed("is gone"))?;
    // The name may hold anything, brackets too; what follows is words.
    let words = text.rsplit_once(')').map_or("", |(_, words)| words);
    let mut words = words.split_whitespace();
    let state = words.next().and_then(|word| word.chars().next());
    let began = words.nth(18).and_then(|word| word.parse().ok());
    state.zip(began).ok_or_else(|| missed("has a status that is not understood"))
}
