//! The control socket: a line in, a line of JSON out, so that whoever started a program on the disk
//! can steer it from another process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::{Error, FaultFs};

/// Listens until dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes of a line.
const LINE_BYTES_MAX: u64 = 64 << 10;

impl Control {
    /// Serves the commands of a disk at a socket, one caller after the other.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve(disk: Arc<FaultFs>, path: &Path) -> Result<Self, Error> {
        let _none_from_before = std::fs::remove_file(path);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let listen = move || -> io::Result<JoinHandle<()>> {
            let listener = UnixListener::bind(path)?;
            std::thread::Builder::new().name("faultfs-control".to_owned()).spawn(move || {
                for caller in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    // A caller that goes away is the caller's affair.
                    let _gone = caller.and_then(|caller| answer(&disk, &caller));
                }
            })
        };
        let thread = listen().map_err(Error::backing("cannot listen at", path))?;
        Ok(Self { path: path.to_owned(), is_over, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread; without it, it would wait for a caller for ever.
        let is_woken = UnixStream::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_woken) {
            let _panicked = thread.join();
        }
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Sends one command to a control socket and returns its answer.
///
/// # Errors
/// When nobody listens there, or the command was refused.
pub fn tell(socket: &Path, command: &str) -> Result<String, Error> {
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(Error::backing("cannot ask", socket))?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", told)) => Ok(told.to_owned()),
        Some(("refused", why)) => Err(Error::Command(why.to_owned())),
        _ => Err(Error::Command("no answer".to_owned())),
    }
}

/// One caller may send several lines, and has ten seconds for each.
fn answer(disk: &FaultFs, caller: &UnixStream) -> io::Result<()> {
    caller.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut lines = BufReader::new(caller.take(LINE_BYTES_MAX)).lines();
    while let Some(line) = lines.next().transpose()? {
        let told = match disk.obey(&line) {
            Ok(told) => format!("ok {told}\n"),
            Err(error) => {
                let source = std::error::Error::source(&error);
                let source = source.map(|source| format!(": {source}")).unwrap_or_default();
                format!("refused {}\n", format!("{error}{source}").replace('\n', " | "))
            }
        };
        (&*caller).write_all(told.as_bytes())?;
    }
    Ok(())
}
