//! What a node must not leave behind: core files with keys in them, half-dead threads.

use std::io;

/// No core file, and no other process of this user may read this one's memory (SEC-1).
///
/// # Errors
/// What the operating system said.
pub fn leave_no_core() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    #[allow(unsafe_code)]
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    if limited != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this option takes one integer and touches no memory.
    #[allow(unsafe_code)]
    let closed = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if closed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whatever this process makes is its user's alone: folders 0700, files 0600.
pub fn keep_files_private() {
    // SAFETY: sets a number of the process and touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        libc::umask(0o077);
    }
}

/// A panic is logged and ends the process: state after it is not to be trusted, and the other
/// nodes take over. A panic inside a session or a call ends only that: `is_contained` tells.
pub fn abort_on_panic(is_contained: fn() -> bool) {
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no text");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if is_contained() {
            tracing::error!(panic = text, place, "a session or call failed; the node goes on");
            return;
        }
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        tracing::error!(panic = text, place, backtrace, "the node failed and ends");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    // holds: SEC-1
    #[test]
    fn no_core_is_left() {
        super::leave_no_core().expect("allowed for every process");
        let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
        let line =
            limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
        assert_eq!(line.split_whitespace().nth(4), Some("0"), "{line}");
        // SAFETY: takes no memory.
        #[allow(unsafe_code)]
        let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        assert_eq!(dumpable, 0);
    }
}
