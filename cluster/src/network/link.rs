//! One peer: its two connections, or its lanes where it is of another site; its address, the streams
//! that all groups share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dtm_peers::OriginGuard;
use dtm_peers::Presence;
use dtm_peers::{Connector, Way};
use dtm_proto::cluster::peer_service_client::PeerServiceClient;
use dtm_sites::Lane;
use dtm_types::NodeId;
use dtm_types::command::NodeRow;
use parking_lot::{Mutex, RwLock};
use tonic::transport::{Channel, Endpoint};

use super::heartbeat::HeartbeatHub;
use super::matched::MatchedLogs;
use crate::clocks::Clocks;
use crate::error::Error;
use crate::forward::Forwarder;
use crate::pace::Pace;

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
    node: NodeId,
    address: Arc<RwLock<String>>,
    guard: Arc<OriginGuard>,
    way: Way,
    data: PeerServiceClient<Channel>,
    control: PeerServiceClient<Channel>,
    /// To a peer of another site: a client a group, for its log and for its copies.
    lanes: Mutex<HashMap<Lane, PeerServiceClient<Channel>>>,
    heartbeats: Mutex<Option<Arc<HeartbeatHub>>>,
    forwarder: Mutex<Option<Arc<Forwarder>>>,
}

fn client(lane: Lane, connector: Connector) -> PeerServiceClient<Channel> {
    let endpoint = Endpoint::from_static("http://peer")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX);
    let endpoint = match lane {
        // Its rate is bounded, so its answers are late; the line itself asks for signs of life.
        Lane::Copies(_) => endpoint,
        _ => endpoint
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true),
    };
    PeerServiceClient::new(endpoint.connect_with_connector_lazy(connector))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn connector(node: NodeId, lane: Lane, address: &Arc<RwLock<String>>, way: &Way) -> Connector {
    let address = Arc::clone(address);
    Connector::new(node, lane, Arc::new(move || address.read().clone()), way.clone())
}

impl Link {
    fn new(node: NodeId, address: String, guard: Arc<OriginGuard>, way: Way) -> Arc<Self> {
        let address = Arc::new(RwLock::new(address));
        let [data, control] = [Lane::Forward, Lane::Control]
            .map(|lane| client(lane, connector(node, lane, &address, &way)));
        let (lanes, heartbeats, forwarder) = (Mutex::default(), Mutex::new(None), Mutex::new(None));
        Arc::new(Self { node, address, guard, way, data, control, lanes, heartbeats, forwarder })
    }

    pub(crate) fn guard(&self) -> &OriginGuard {
        &self.guard
    }

    pub(crate) fn guard_arc(&self) -> Arc<OriginGuard> {
        Arc::clone(&self.guard)
    }

    /// For forwarded commands.
    pub(crate) fn data(&self) -> PeerServiceClient<Channel> {
        self.data.clone()
    }

    /// For the entries of a group's log.
    pub(crate) fn log(&self, group: u32) -> PeerServiceClient<Channel> {
        self.lane(Lane::Log(group))
    }

    /// For snapshots of a group, and what was missed of it.
    pub(crate) fn copies(&self, group: u32) -> PeerServiceClient<Channel> {
        self.lane(Lane::Copies(group))
    }

    /// Within a site the connection for data; to another one a lane, made at first use.
    fn lane(&self, lane: Lane) -> PeerServiceClient<Channel> {
        if !self.way.sites.is_away(self.node) {
            return self.data();
        }
        let mut lanes = self.lanes.lock();
        let made = || client(lane, connector(self.node, lane, &self.address, &self.way));
        lanes.entry(lane).or_insert_with(made).clone()
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
    guard: Arc<OriginGuard>,
    way: Way,
    clocks: Arc<Clocks>,
    links: Mutex<HashMap<NodeId, Arc<Link>>>,
    leaving: AtomicBool,
    matched: MatchedLogs,
    copies: Pace,
}

impl Links {
    pub(crate) fn new(
        way: Way,
        guard: Arc<OriginGuard>,
        clocks: Arc<Clocks>,
        copies: Pace,
    ) -> Arc<Self> {
        let (links, leaving) = (Mutex::new(HashMap::new()), AtomicBool::new(false));
        let matched = MatchedLogs::new(Arc::clone(&guard));
        Arc::new(Self { guard, way, clocks, links, leaving, matched, copies })
    }

    /// How fast copies of other nodes are taken.
    pub(crate) fn copies(&self) -> &Pace {
        &self.copies
    }

    /// Takes over what meta says of the nodes now: who is heard, and who is of another site.
    pub(crate) fn learn(&self, rows: &[NodeRow]) {
        self.guard.roster().learn(rows);
        self.way.sites.learn(rows);
    }

    /// What replicas of other nodes told leaders here that they have on disk.
    pub(crate) fn matched(&self) -> &MatchedLogs {
        &self.matched
    }

    /// Which peers are gone.
    pub(crate) fn presence(&self) -> &Presence {
        &self.way.presence
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
            Link::new(node, address.to_owned(), Arc::clone(&self.guard), self.way.clone())
        });
        if !address.is_empty() && *link.address.read() != address {
            address.clone_into(&mut link.address.write());
        }
        Arc::clone(link)
    }
}
