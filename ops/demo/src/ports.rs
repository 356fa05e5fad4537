//! Ports that are free at the start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Addresses on loopback that nobody listened on a moment ago. All are held open together, so
/// that none comes twice; they are free when this returns.
///
/// # Errors
/// What the operating system said.
pub(crate) fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    held.iter().map(TcpListener::local_addr).collect()
}
