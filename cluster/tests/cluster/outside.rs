//! Nodes of several sites: their lines, over UDP paths whose weather a test makes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{LineTls, PeerTls, QuicSites, SiteLines};
use dtm_machine::seams::Clock;
use dtm_sites::{Channel, ChannelKind, Event, Events, Lines, Settings};
use dtm_testkit::{fresh_address, until};
use dtm_types::NodeId;

use crate::proxy::{self, Weather};

struct Silent;

impl Events for Silent {
    fn tell(&self, _event: &Event) {
        // What a cut does is looked for in the groups.
    }
}

/// Silence is found soon, so that a test is short.
fn quick() -> Settings {
    Settings {
        keep_alive: Duration::from_millis(200),
        idle: Duration::from_millis(1_000),
        handshake: Duration::from_millis(1_000),
        backoff: (Duration::from_millis(20), Duration::from_millis(200)),
        patience: Duration::from_millis(300),
        drain: Duration::from_millis(500),
        ..Settings::default()
    }
}

/// The side of a node that other sites see.
pub(crate) struct Outside {
    pub(crate) site: &'static str,
    /// What its row names: the front of the path to it.
    pub(crate) front: String,
    bind: SocketAddr,
    lines: Option<Arc<QuicSites>>,
}

impl Outside {
    /// A path to a node that is not open yet.
    pub(crate) async fn new(site: &'static str, number: u8, weather: &Arc<Weather>) -> Self {
        let socket = std::net::UdpSocket::bind(fresh_address(number)).expect("a port");
        let bind = socket.local_addr().expect("bound");
        let at = SocketAddr::new(bind.ip(), 0);
        let front = proxy::start(at, bind, weather, u64::from(number)).await.to_string();
        Self { site, front, bind, lines: None }
    }

    /// Opens the lines, again after [`Outside::close`].
    pub(crate) async fn open(
        &mut self,
        node: NodeId,
        tls: &Arc<dyn PeerTls>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<dyn SiteLines> {
        let channel = || Channel {
            name: "first".to_owned(),
            kind: ChannelKind::Quic,
            bind: self.bind,
            credentials: "key".to_owned(),
            tls: Arc::new(LineTls(Arc::clone(tls))),
        };
        let bound = until("the port of the lines", || {
            let seams = (Arc::clone(clock), Arc::new(Silent) as _);
            Lines::bind(node, vec![channel()], quick(), seams).ok()
        })
        .await;
        let sites = QuicSites::new(bound, BTreeMap::new());
        self.lines = Some(Arc::clone(&sites));
        sites
    }

    /// The lines end with their node.
    pub(crate) async fn close(&mut self) {
        if let Some(sites) = self.lines.take() {
            sites.lines().close().await;
        }
    }

    /// Whether there is a line to a node.
    pub(crate) fn reaches(&self, node: NodeId) -> bool {
        let state = self.lines.as_ref().and_then(|sites| sites.lines().state(node));
        state.is_some_and(|state| state.path.is_some())
    }
}
