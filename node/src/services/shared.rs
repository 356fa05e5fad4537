//! What every service of a node shares.

use std::sync::Arc;

use dtm_actors::{AckTimes, Contracts, KeyVault, SourcesHandle};
use dtm_cluster::ClusterNode;
use dtm_identity::Caller;
use dtm_machine::seams::{Clock, Entropy, ReadView};
use dtm_storage::keys::Keyring;
use dtm_storage::log::NodeLog;
use dtm_storage::state::StateDb;
use dtm_types::command::NodeRow;
use dtm_types::{ClusterId, Incarnation, NodeId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::config::{Config, Limits};
use crate::http::Console;
use crate::primacy::Primacy;
use crate::tls::Material;

use super::ahead::Ahead;
use super::arrivals::Arrivals;
use super::directory::Directory;
use super::lines::SiteLines;
use super::peers::PeerCalls;
use super::rights::{Entered, Rights};
use super::settings::Settings;

/// Reads of stored records that run at a time on a node; more wait. None waits for its caller.
const READS_MAX: usize = 16;

/// The node behind its doors.
pub(crate) struct Shared {
    pub(crate) cluster_id: ClusterId,
    pub(crate) incarnation: Incarnation,
    pub(crate) node: NodeId,
    pub(crate) row: NodeRow,
    pub(crate) cluster: Arc<ClusterNode>,
    pub(crate) log: Arc<NodeLog>,
    pub(crate) states: StateDb,
    pub(crate) material: Arc<Material>,
    pub(crate) ack_times: Arc<AckTimes>,
    pub(crate) peers: PeerCalls,
    pub(crate) sources: SourcesHandle,
    pub(crate) contracts: Contracts,
    pub(crate) directory: Directory,
    pub(crate) rights: Arc<Rights>,
    pub(crate) vault: Arc<dyn KeyVault>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) console: Arc<Console>,
    pub(crate) ca: Vec<Vec<u8>>,
    /// As the node started: for what does not change while it runs. Limits: [`Shared::limits`].
    pub(crate) config: Config,
    /// Whether this node may acknowledge, where a register decides which site may.
    pub(crate) primacy: Arc<Primacy>,
    /// Cancelled where this node is to end and be started again, in another life of the cluster.
    pub(crate) goes_over: CancellationToken,
    /// Lines to other sites, where this node has them.
    pub(crate) sites: Option<SiteLines>,
    pub(crate) settings: Settings,
    pub(crate) room: Room,
}

/// What calls take of the node beside its streams' own bounds.
pub(crate) struct Room {
    /// Places for readers.
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) ahead: Ahead,
    pub(crate) arrivals: Arrivals,
    /// One backup is written at a time.
    pub(crate) backups: Arc<tokio::sync::Mutex<()>>,
}

impl Room {
    /// As the node is set up.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            ahead: Ahead::new(limits.read_ahead_bytes_max),
            arrivals: Arrivals::new(limits.arriving_bytes_max, limits.request_within_ms),
            backups: Arc::default(),
        }
    }
}

impl Shared {
    /// See [`Rights::enter_reading`].
    pub(crate) fn enter_reading(&self, caller: &Caller) -> Result<Entered, Status> {
        let limits = self.limits();
        self.rights.enter_reading(caller, limits.reads_open_max)
    }

    /// The limits that are in force now.
    pub(crate) fn limits(&self) -> Limits {
        self.settings.now().running.limits.clone()
    }

    /// Reading the groups.
    pub(crate) fn view(&self) -> &dyn ReadView {
        self.cluster.as_ref()
    }
}
