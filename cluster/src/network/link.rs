//! One peer: its two connections, its address, the streams that all groups share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dtm_proto::cluster::peer_service_client::PeerServiceClient;
use dtm_types::NodeId;
use parking_lot::{Mutex, RwLock};
use tonic::transport::{Channel, Endpoint};

use super::heartbeat::HeartbeatHub;
use super::matched::MatchedLogs;
use super::origin::OriginGuard;
use super::presence::Presence;
use super::tls::{Connector, PeerTls};
use crate::clocks::Clocks;
use crate::error::Error;
use crate::forward::Forwarder;

/// Largest peer message, bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
// Of both ends of a connection.
pub(super) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// h2 frames: fewer, larger ones cost less than the default 16 KiB.
pub(super) const FRAME_BYTES_MAX: u32 = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a peer answers to a call, if it does within that time.
///
/// # Errors
/// [`Error::Timeout`] and [`Error::Refused`], which name the call as `what` says.
pub(crate) async fn answered<T>(
    within: Duration,
    what: impl Fn() -> String,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    let answer = tokio::time::timeout(within, call).await.map_err(|_| Error::Timeout(what()))?;
    let refused =
        |status: tonic::Status| Error::Refused(format!("{}: {}", what(), status.message()));
    answer.map(tonic::Response::into_inner).map_err(refused)
}

/// One peer.
pub(crate) struct Link {
    address: RwLock<String>,
    guard: Arc<OriginGuard>,
    data: PeerServiceClient<Channel>,
    control: PeerServiceClient<Channel>,
    heartbeats: Mutex<Option<Arc<HeartbeatHub>>>,
    forwarder: Mutex<Option<Arc<Forwarder>>>,
}

fn client(channel: Channel) -> PeerServiceClient<Channel> {
    PeerServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl Link {
    fn new(
        node: NodeId,
        address: String,
        tls: Arc<dyn PeerTls>,
        guard: Arc<OriginGuard>,
        presence: Arc<Presence>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak: &std::sync::Weak<Self>| {
            let weak = weak.clone();
            let address_now = Arc::new(move || {
                weak.upgrade().map(|link| link.address.read().clone()).unwrap_or_default()
            });
            let connector = Connector::new(tls, node, address_now, presence);
            let endpoint = || {
                Endpoint::from_static("http://peer")
                    .connect_timeout(CONNECT_TIMEOUT)
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .max_frame_size(FRAME_BYTES_MAX)
                    .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                    .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                    .keep_alive_while_idle(true)
            };
            Self {
                address: RwLock::new(address),
                guard,
                data: client(endpoint().connect_with_connector_lazy(connector.clone())),
                control: client(endpoint().connect_with_connector_lazy(connector)),
                heartbeats: Mutex::new(None),
                forwarder: Mutex::new(None),
            }
        })
    }

    pub(crate) fn guard(&self) -> &OriginGuard {
        &self.guard
    }

    pub(crate) fn guard_arc(&self) -> Arc<OriginGuard> {
        Arc::clone(&self.guard)
    }

    /// For log entries, snapshots and forwarded commands.
    pub(crate) fn data(&self) -> PeerServiceClient<Channel> {
        self.data.clone()
    }

    /// For heartbeats, votes and small questions.
    pub(crate) fn control(&self) -> PeerServiceClient<Channel> {
        self.control.clone()
    }

    pub(crate) fn heartbeats(self: &Arc<Self>) -> Arc<HeartbeatHub> {
        let mut slot = self.heartbeats.lock();
        Arc::clone(slot.get_or_insert_with(|| HeartbeatHub::start(self)))
    }

    pub(crate) fn forwarder(self: &Arc<Self>) -> Arc<Forwarder> {
        let mut slot = self.forwarder.lock();
        Arc::clone(slot.get_or_insert_with(|| Forwarder::start(self)))
    }
}

/// All peers that were ever talked to.
pub(crate) struct Links {
    tls: Arc<dyn PeerTls>,
    guard: Arc<OriginGuard>,
    presence: Arc<Presence>,
    clocks: Arc<Clocks>,
    links: Mutex<HashMap<NodeId, Arc<Link>>>,
    leaving: AtomicBool,
    matched: MatchedLogs,
}

impl Links {
    pub(crate) fn new(
        tls: Arc<dyn PeerTls>,
        guard: Arc<OriginGuard>,
        presence: Arc<Presence>,
        clocks: Arc<Clocks>,
    ) -> Arc<Self> {
        let (links, leaving) = (Mutex::new(HashMap::new()), AtomicBool::new(false));
        let matched = MatchedLogs::new(Arc::clone(&guard));
        Arc::new(Self { tls, guard, presence, clocks, links, leaving, matched })
    }

    /// What replicas of other nodes told leaders here that they have on disk.
    pub(crate) fn matched(&self) -> &MatchedLogs {
        &self.matched
    }

    /// Which peers are gone.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// What the clocks of the nodes are worth.
    pub(crate) fn clocks(&self) -> &Arc<Clocks> {
        &self.clocks
    }

    /// This node is about to stop: it takes no leadership any more.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// See [`Links::leave`].
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Who may speak, and as what.
    pub(crate) fn guard(&self) -> &OriginGuard {
        &self.guard
    }

    /// The link to a node, made at first use. A new address takes effect at the next connection.
    pub(crate) fn to(&self, node: NodeId, address: &str) -> Arc<Link> {
        let mut links = self.links.lock();
        let link = links.entry(node).or_insert_with(|| {
            let (tls, guard) = (Arc::clone(&self.tls), Arc::clone(&self.guard));
            Link::new(node, address.to_owned(), tls, guard, Arc::clone(&self.presence))
        });
        if !address.is_empty() && *link.address.read() != address {
            address.clone_into(&mut link.address.write());
        }
        Arc::clone(link)
    }
}
