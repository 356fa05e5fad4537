//! What every service of a node shares.

use std::sync::Arc;

use dtm_actors::{AckTimes, Contracts, KeyVault, SourcesHandle};
use dtm_cluster::ClusterNode;
use dtm_identity::Caller;
use dtm_machine::seams::{Clock, Entropy, ReadView};
use dtm_setup::config::{Config, Limits};
use dtm_setup::tls::Material;
use dtm_storage::keys::Keyring;
use dtm_storage::log::NodeLog;
use dtm_storage::state::StateDb;
use dtm_types::command::NodeRow;
use dtm_types::{ClusterId, Incarnation, NodeId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::http::Console;
use crate::primacy::Primacy;

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
pub struct Shared {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// The life of the cluster that this process lives in.
    pub incarnation: Incarnation,
    /// Which node.
    pub node: NodeId,
    /// As this node stands in meta from its own settings; what operators change there is not here.
    pub row: NodeRow,
    /// The groups.
    pub cluster: Arc<ClusterNode>,
    /// The log of all replicas of this node.
    pub log: Arc<NodeLog>,
    /// The rows of all replicas of this node.
    pub states: StateDb,
    /// Certificates and keys of this node's own doors.
    pub material: Arc<Material>,
    /// How long acks took.
    pub ack_times: Arc<AckTimes>,
    /// Calls to other nodes.
    pub peers: PeerCalls,
    /// The sessions.
    pub sources: SourcesHandle,
    /// Data sets, compiled.
    pub contracts: Contracts,
    /// Which group holds what, and replicas to read it from.
    pub directory: Directory,
    /// Who may call, as meta was last seen.
    pub rights: Arc<Rights>,
    /// Keys of the data.
    pub vault: Arc<dyn KeyVault>,
    /// Keys of the cluster.
    pub keyring: Arc<Keyring>,
    /// The node's clock.
    pub clock: Arc<dyn Clock>,
    /// The node's randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What the live page shows, and who may see it.
    pub console: Arc<Console>,
    /// Roots of the cluster, DER.
    pub ca: Vec<Vec<u8>>,
    /// As the node started: for what does not change while it runs. Limits: [`Shared::limits`].
    pub config: Config,
    /// Whether this node may acknowledge, where a register decides which site may.
    pub primacy: Arc<Primacy>,
    /// Cancelled where this node is to end and be started again, in another life of the cluster.
    pub goes_over: CancellationToken,
    /// Lines to other sites, where this node has them.
    pub sites: Option<SiteLines>,
    /// What the cluster sets.
    pub settings: Settings,
    /// What calls take.
    pub room: Room,
}

/// What calls take of the node beside its streams' own bounds.
pub struct Room {
    /// Places for readers.
    pub reads: Arc<Semaphore>,
    /// Answers that wait for their reader.
    pub ahead: Ahead,
    /// Requests that are being read.
    pub arrivals: Arrivals,
    /// One backup is written at a time.
    pub backups: Arc<tokio::sync::Mutex<()>>,
}

impl Room {
    /// As the node is set up.
    pub fn new(limits: &Limits) -> Self {
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
    pub fn enter_reading(&self, caller: &Caller) -> Result<Entered, Status> {
        let limits = self.limits();
        self.rights.enter_reading(caller, limits.reads_open_max)
    }

    /// The limits that are in force now.
    pub fn limits(&self) -> Limits {
        self.settings.now().running.limits.clone()
    }

    /// Reading the groups.
    pub fn view(&self) -> &dyn ReadView {
        self.cluster.as_ref()
    }
}
