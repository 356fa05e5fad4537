//! Addresses that stay a node's own while it is down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

const TRIES_MAX: usize = 100;
const TRY_EVERY: Duration = Duration::from_millis(20);

/// All of 127.0.0.0/8 is loopback on Linux: with an address for each node, nobody takes its port
/// between two of its lives. The port is the system's choice.
pub fn fresh_address(node: u8) -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let sandbox = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = 64 + (std::process::id() % 128) as u8;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, process, sandbox, node)), 0)
}

/// Listens at a node's address again: its earlier listener goes a moment after the node stopped.
///
/// # Panics
/// When the address does not come free.
pub async fn bind(address: &str) -> TcpListener {
    for _ in 0..TRIES_MAX {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    panic!("{address} is not free");
}
