//! What tests put around the nodes of one process: certificates, addresses, a clock, waits.
//!
//! Nothing here is a fault or a check; those are in dtm-chaos and in the tests themselves.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

mod address;
mod clock;
mod tls;
mod wrapped;

use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_cluster::{ClusterNode, PeerNode};
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_types::GroupId;
use dtm_types::command::{NodeRow, Outcome};
use tokio::sync::oneshot;

pub use address::{bind, fresh_address};
pub use clock::TestClock;
pub use tls::Ca;
pub use wrapped::{Wrapped, WrappedLog, WrappedLogs, WrappedState, WrappedStates};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until it gives something; `None` after [`PATIENCE`].
pub async fn found_in_time<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// [`found_in_time`], named for the message of a test that fails.
///
/// # Panics
/// When it does not come in time.
pub async fn until<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    let found = found_in_time(found).await;
    found.unwrap_or_else(|| panic!("no {what} in time"))
}

/// As [`until`], where looking is itself a wait.
///
/// # Panics
/// When it does not come in time.
pub async fn until_async<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Proposes one command and waits for what became of it.
///
/// # Panics
/// When nothing is said in time.
pub async fn propose(
    node: &ClusterNode,
    group: GroupId,
    command: Bytes,
) -> Result<Outcome, ProposeError> {
    let (sender, receiver) = oneshot::channel();
    let reply = Box::new(move |result| {
        // Nobody waits any more only where the test failed.
        sender.send(result).ok();
    });
    node.propose(group, command, reply);
    tokio::time::timeout(PATIENCE, receiver).await.expect("answered in time").expect("answered")
}

/// The row that lists a node in meta.
pub fn node_row(peer: &PeerNode) -> NodeRow {
    let node = Bytes::copy_from_slice(&peer.node.0);
    NodeRow { node, peer_address: peer.peer_address.clone(), ..NodeRow::default() }
}
