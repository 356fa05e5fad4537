//! Addresses that stay a node's own while it is down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// All of 127.0.0.0/8 is loopback on Linux: with an address for each sandbox, nobody takes the port
/// of a node between two of its lives.
pub(super) fn fresh(node: u8) -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let sandbox = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = 64 + (std::process::id() % 128) as u8;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, process, sandbox, node)), 0)
}
