//! Child processes of an arm: each in a process group of its own, output in a file, killed with
//! its whole group when it is dropped. Nothing else on the machine is ever signalled.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::clock::now;
use crate::error::Error;

/// A running process of an arm.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `log`.
    ///
    /// # Errors
    /// When the program is missing or does not start.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, Error> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::io(format!("open {}", log.display())))?;
        let copy = file.try_clone().map_err(Error::io("copy a file handle"))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::Missing { program: program.clone() },
                _ => Error::Io { what: format!("start {program}"), source },
            })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL to the whole group and reaps the child.
    pub fn kill(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // Gone already is as good as killed.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }

    /// An error when the process has ended, with the end of its output.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(5).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                Err(Error::Io {
                    what: format!("{} ended ({status}): {}", self.name, tail.join(" | ")),
                    source: std::io::Error::other("ended"),
                })
            }
            Err(source) => Err(Error::Io { what: format!("watch {}", self.name), source }),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `count` loopback ports that are free now.
///
/// # Errors
/// When the system has none.
pub fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(TcpListener::bind("127.0.0.1:0").map_err(Error::io("find a free port"))?);
    }
    held.iter()
        .map(|listener| Ok(listener.local_addr().map_err(Error::io("read a port"))?.port()))
        .collect()
}

/// A bounded wait on a condition that is asked again and again.
#[derive(Debug)]
pub struct Wait {
    what: String,
    seconds: u64,
    deadline: Instant,
}

impl Wait {
    /// Waits at most `seconds` for `what`.
    pub fn new(what: &str, seconds: u64) -> Self {
        let deadline = now() + Duration::from_secs(seconds);
        Self { what: what.to_owned(), seconds, deadline }
    }

    /// Sleeps 100 ms before the condition is asked again.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the time is up, or what a dead process says.
    pub async fn pause(&self, processes: &mut [Process]) -> Result<(), Error> {
        for process in processes {
            process.check_alive()?;
        }
        if now() >= self.deadline {
            return Err(Error::Timeout { what: self.what.clone(), seconds: self.seconds });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }
}

/// Writes a file of an arm's folder, with the folders above it.
///
/// # Errors
/// When the disk refuses.
pub fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(Error::io(format!("create {}", folder.display())))?;
    }
    std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
