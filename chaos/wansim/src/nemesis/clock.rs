//! A process whose clock is wrong, by libfaketime: the machine's own clock is left as it is.
//!
//! Only the time of day is turned; timers and `Instant` go on as before, as on a machine whose
//! clock is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::Error;
use crate::nemesis::Victim;

/// A clock that is shared by the processes which were prepared with it.
#[derive(Debug)]
pub struct TurnedClock {
    faketime: PathBuf,
    file: PathBuf,
}

/// Where Debian has it: a folder for each kind of machine.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// How often a clock that drifts is set.
const STEP: Duration = Duration::from_millis(200);
/// How much the check may be off by: the probe takes its time to start.
const TOLERANCE: Duration = Duration::from_secs(2);

impl TurnedClock {
    /// A clock that is right for now, kept in this file.
    ///
    /// # Errors
    /// When libfaketime is not installed (`ops/bootstrap.sh tests`), or the file cannot be written.
    pub fn new(file: &Path) -> Result<Self, Error> {
        let folders = fs::read_dir(LIBRARIES).map_err(Error::kernel("look for libfaketime"))?;
        let mut known = folders.flatten().map(|folder| folder.path().join(LIBRARY));
        let faketime = known.find(|path| path.exists()).ok_or(Error::Tool {
            program: "libfaketime",
            message: "is not installed".to_owned(),
        })?;
        let clock = Self { faketime, file: file.to_owned() };
        clock.set(0)?;
        Ok(clock)
    }

    /// Makes `command`, and what it starts, live by this clock.
    pub fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.faketime)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            // Seconds after which the file is read again.
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// Turns the clock to so much beside the right time, before it where negative. Processes that
    /// run see it within two seconds.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, by_ms: i64) -> Result<(), Error> {
        let sign = if by_ms < 0 { '-' } else { '+' };
        let (seconds, rest) = (by_ms.unsigned_abs() / 1_000, by_ms.unsigned_abs() % 1_000);
        let next = self.file.with_extension("next");
        // Whole or not at all: a process may read it at any moment.
        fs::write(&next, format!("{sign}{seconds}.{rest:03}\n"))
            .and_then(|()| fs::rename(&next, &self.file))
            .map_err(Error::kernel("write the clock's file"))
    }

    /// Lets the clock run so many millionths faster than it should, or slower where negative, from
    /// where it is right, until what is returned is dropped; then it stays as far off as it is.
    /// Processes see it in steps of a second.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn drift(&self, ppm: i64) -> Result<Drifting, Error> {
        let (stop, stopped) = sync_channel::<()>(0);
        let clock = Self { faketime: self.faketime.clone(), file: self.file.clone() };
        let work = move || {
            let began = Instant::now();
            // Ends when the other end is dropped.
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                let ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
                // A folder that is gone is the end of the processes too.
                let _gone = clock.set(ms.saturating_mul(ppm) / 1_000_000);
            }
        };
        let builder = std::thread::Builder::new().name("wansim-drift".to_owned());
        let thread = builder.spawn(work).map_err(Error::kernel("start a thread"))?;
        Ok(Drifting { stop: Some(stop), thread: Some(thread) })
    }

    /// Makes sure that a process lives by this clock: that it holds the library and this file, and
    /// that a program which is started like it sees this time.
    ///
    /// # Errors
    /// When it does not: statically linked programs and some that ask the kernel themselves.
    pub fn check(&self, victim: &Victim, by_ms: i64) -> Result<(), Error> {
        let read = |file: &str| {
            let bytes = fs::read(victim.proc(file)).map_err(|_| victim.missed("is gone"))?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let faketime = self.faketime.to_string_lossy();
        if !read("maps")?.contains(&*faketime) {
            return Err(victim.missed("does not hold libfaketime"));
        }
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display());
        if !read("environ")?.split('\0').any(|variable| variable == file) {
            return Err(victim.missed("lives by another clock"));
        }
        let mut probe = Command::new("date");
        let output = self.prepare(probe.arg("+%s")).output().map_err(Error::kernel("run date"))?;
        let seen: Option<i64> = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
        let right = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wanted = i64::try_from(right.as_millis()).unwrap_or(i64::MAX) + by_ms;
        let off = seen.map(|seen| Duration::from_millis((seen * 1_000).abs_diff(wanted)));
        if off.is_none_or(|off| off > TOLERANCE) {
            return Err(victim.missed("does not see the other time"));
        }
        Ok(())
    }
}

/// A clock that runs fast or slow until this is dropped.
#[derive(Debug)]
pub struct Drifting {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Drifting {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
