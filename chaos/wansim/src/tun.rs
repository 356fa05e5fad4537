//! A TUN device: the kernel's packets of a site, as bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Its name in each site's namespace.
pub(crate) const NAME: &str = "wan0";

/// Opens a TUN device in the calling thread's namespace: whole IPv4 packets, reads that do not
/// wait.
pub(crate) fn open() -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, _rest: [0; 22] };
    request.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    request.flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    #[allow(unsafe_code)]
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, whose size and layout `Request` has; it
    // outlives the call and the descriptor is open.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// `struct ifreq` as TUNSETIFF uses it: 40 bytes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    _rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40);
