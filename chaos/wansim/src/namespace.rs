//! A network namespace without a name: it lives as long as its descriptor or a process in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::panic;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// A network namespace of this run's own.
#[derive(Clone, Debug)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// A new, empty one, with its loopback up. The caller's own namespace is left as it is.
    ///
    /// # Errors
    /// Without root (or `unshare -Urnm`) the kernel refuses.
    pub fn new() -> Result<Self, Error> {
        // On a thread of its own, which ends: the caller's thread never leaves its namespace.
        let made = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = joined(made.join()).map_err(Error::kernel("make a network namespace"))?;
        let namespace = Self { fd: Arc::new(fd) };
        // Only IPv4 is carried; without this each interface sends router solicitations.
        namespace.enter(|| {
            let _absent_without_ipv6 =
                std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        })?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside. Sockets that it opens stay inside wherever they are used
    /// later; a runtime whose threads all begin by [`Namespace::join`] lives in it whole.
    ///
    /// # Errors
    /// When the kernel does not let the thread in.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.join().map(|()| work()));
            joined(inside.join())
        })
    }

    /// Moves the calling thread inside, for good.
    ///
    /// # Errors
    /// When the kernel does not let it in.
    pub fn join(&self) -> Result<(), Error> {
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(Error::kernel("enter a network namespace"))
    }

    /// Makes `command` run inside.
    pub fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let fd = Arc::clone(&self.fd);
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec only `setns` is called, which allocates nothing and takes
        // no lock; the descriptor is held open by the closure.
        unsafe {
            command.pre_exec(move || {
                setns(fd.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            })
        }
    }

    /// Starts `command` inside; it is killed when what is returned is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Running, Error> {
        let child = self.prepare(command).spawn().map_err(Error::kernel("start a process"))?;
        Ok(Running { child })
    }

    /// A path under which `ip link … netns` finds it, while this process lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Runs lines of `ip` inside.
    pub(crate) fn ip(&self, lines: &[&str]) -> Result<(), Error> {
        self.tool("ip", &["-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
    }

    /// Runs a tool inside and returns what it prints.
    pub(crate) fn tool(
        &self,
        program: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, Error> {
        let failed = |message: String| Error::Tool { program, message };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            self.prepare(&mut command).spawn().map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends early says why on its standard error.
            let _ended_early = io::Write::write_all(&mut stdin, input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends every process that is inside. Nothing but what this run put there can be.
    pub(crate) fn end_processes(&self) {
        let Ok(own) = nix::sys::stat::fstat(self.fd.as_fd()) else { return };
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        for process in processes.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let inside = std::fs::metadata(process.path().join("ns/net"));
            let is_inside =
                inside.is_ok_and(|inside| (inside.ino(), inside.dev()) == (own.st_ino, own.st_dev));
            if is_inside && Pid::from_raw(pid) != Pid::this() {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// A process in a namespace; killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// The process itself: its pipes, its id, waiting for it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not yet waited for, so the id is still its own.
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What a thread returned; its panic goes on here.
fn joined<T>(outcome: thread::Result<T>) -> T {
    outcome.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}
