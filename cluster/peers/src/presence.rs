//! Which peers are gone: a process that dies takes its connections with it at once, and its port
//! then refuses new ones. Both together are told to whoever takes its groups over; a silent peer
//! (cut cable, paused process) is left to heartbeats and the election timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dtm_types::NodeId;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::tls::BoxIo;

/// Ends of connections that wait to be looked at; more say nothing new.
const ENDED_MAX: usize = 64;
/// Pauses before each look at a port: a dying process may close its port after its connections.
const LOOKS_MS: [u64; 6] = [0, 10, 20, 50, 100, 200];
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// What the connections of this node say about its peers.
pub struct Presence {
    ended: mpsc::Sender<NodeId>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looking: BTreeSet<NodeId>,
    /// Told as away, with the address that was looked at.
    away: BTreeMap<NodeId, Away>,
}

struct Away {
    address: String,
    /// Its port refused.
    gone: bool,
}

impl Presence {
    /// With the receiver of nodes to which a connection ended.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<NodeId>) {
        let (ended, receiver) = mpsc::channel(ENDED_MAX);
        (Arc::new(Self { ended, state: Mutex::default() }), receiver)
    }

    /// A connection was made and its certificate checked. It is told when it ends.
    pub fn watch(self: &Arc<Self>, node: NodeId, stream: BoxIo) -> BoxIo {
        if let Some(Away { address, .. }) = self.state.lock().away.remove(&node) {
            tracing::info!(%node, address, "a node is back");
        }
        Box::new(Watched { stream, presence: Arc::clone(self), node })
    }

    /// True from the moment its port refused until it is connected again.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.state.lock().away.get(&node).is_some_and(|away| away.gone)
    }

    /// Looks whether anything listens there. True when nothing does; bounded to about a second,
    /// and false at once where a look is under way.
    pub async fn look(&self, node: NodeId, address: &str) -> bool {
        if !self.state.lock().looking.insert(node) {
            return false;
        }
        let found = found(address).await;
        let mut state = self.state.lock();
        state.looking.remove(&node);
        if found == Found::Open {
            return false;
        }
        let gone = found == Found::Refused;
        // Each connection that ends is looked at: what was told is not told again.
        let is_news = match state.away.get(&node) {
            None => true,
            Some(known) => gone && !known.gone,
        };
        if is_news {
            let what =
                if gone { "a node is gone: its port refuses" } else { "a node does not answer" };
            tracing::warn!(%node, address, "{what}");
            state.away.insert(node, Away { address: address.to_owned(), gone });
        }
        gone
    }
}

/// What is at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Something listens.
    Open,
    /// Nothing listens there any more.
    Refused,
    /// No answer: it is not known to be gone.
    Silent,
}

async fn found(address: &str) -> Found {
    let mut last = Found::Open;
    for pause_ms in LOOKS_MS {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        last = match tokio::time::timeout(LOOK_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Found::Refused;
            }
            Ok(Err(_)) => Found::Silent,
            Ok(Ok(_)) => Found::Open,
            Err(_) => return Found::Silent,
        };
    }
    last
}

/// One connection; its drop is its end.
struct Watched {
    stream: BoxIo,
    presence: Arc<Presence>,
    node: NodeId,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

writes_through!(Watched);

impl Drop for Watched {
    fn drop(&mut self) {
        // A full queue holds news enough.
        self.presence.ended.try_send(self.node).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([7; 16]);

    #[tokio::test]
    async fn a_port_that_refuses_is_gone_until_it_is_connected_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (presence, mut ended) = Presence::new();
        let stream = || -> BoxIo { Box::new(tokio::io::empty()) };
        drop(presence.watch(NODE, stream()));
        assert_eq!(ended.recv().await, Some(NODE));
        assert!(!presence.look(NODE, &address).await, "it listens");
        assert!(!presence.is_gone(NODE));
        drop(listener);
        assert!(presence.look(NODE, &address).await);
        assert!(presence.is_gone(NODE));
        let _again = presence.watch(NODE, stream());
        assert!(!presence.is_gone(NODE));
    }
}
