//! A node's run, from open files to a planned stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtm_actors::{AckTimes, Contracts, Deps as SessionDeps, KeyVault, SourcesHandle, Treatment};
use dtm_cluster::{ClusterNode, DbStates, Deps as ClusterDeps, NodeLogs, PeerTls};
use dtm_doors::http::{self, Console, Pages};
use dtm_doors::life;
use dtm_doors::lives::{self, Lives};
use dtm_doors::primacy::{Primacy, Rightful};
use dtm_doors::system::{OsEntropy, SystemClock};
use dtm_doors::vault::NodeVault;
use dtm_doors::{Live, PeerCalls, Room, Settings, Shared, SiteLines, limits};
use dtm_machine::seams::{Clock, Entropy};
use dtm_storage::keys::Keyring;
use dtm_storage::log::NodeLog;
use dtm_storage::state::Owner;
use dtm_types::Incarnation;
use dtm_types::command::{ClusterRow, NodeRow};
use tokio_util::sync::CancellationToken;

use super::admit::{Started, founded, last_start};
use super::beside::Beside;
use super::grpc::serve_grpc;
use super::over::{Found, begin, primacy};
use super::settings::{LEAVE_WITHIN, cluster_config, cluster_row, open_log, own_row, state_config};
use super::{boot, sites};
use crate::config::Config;
use crate::pki::{self, Genesis};
use crate::seams::Seams;
use crate::shell::{RenderMetrics, Shell};
use crate::tls::{self, Peers};

/// How long connections may take to end.
const DOORS_END: Duration = Duration::from_secs(10);
/// Sessions are told to leave over this long at a planned stop.
const LEAVE_OVER: Duration = Duration::from_millis(1_000);
const LEAVE_PAUSE: Duration = Duration::from_millis(20);

/// Why a node did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error("the log cannot be opened: {error}{}", if_foreign(is_foreign_log(.0)), error = .0)]
    Log(#[from] dtm_storage::log::Error),
    /// The rows.
    #[error("the state cannot be opened: {error}{}", if_foreign(is_foreign_state(.0)), error = .0)]
    State(#[from] dtm_storage::state::Error),
    /// The groups.
    #[error("the groups cannot run: {0}")]
    Cluster(#[from] dtm_cluster::Error),
    /// Files of the node.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// A file of the data folder.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The log of a founded cluster is not there: never found it a second time.
    #[error(
        "{path} is empty, yet this node founded its cluster: mount the right disk; a node that \
         lost its disk is removed and joins anew under a new id"
    )]
    LogGone {
        /// Folder of the log.
        path: std::path::PathBuf,
    },
    /// The lives of the cluster on this disk.
    #[error(transparent)]
    Lives(lives::Error),
    /// Lines to other sites.
    #[error("the lines to other sites cannot be opened (node.sites, [sites]): {0}")]
    Sites(#[from] dtm_sites::Error),
    /// The certificate of the second channel.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The certificate of the second channel is another node's.
    #[error(
        "{path} is not this node's: sites.second_certificate names the node that tls.certificate names"
    )]
    SecondCertificate {
        /// Where.
        path: std::path::PathBuf,
    },
    /// The acceptor of the register.
    #[error(transparent)]
    Register(#[from] dtm_register::Error),
    /// Keys.
    #[error("{0}")]
    Keys(String),
    /// A part of the node ended by itself.
    #[error("the node stops: {0} ended; the log says why")]
    Ended(&'static str),
    /// Sessions.
    #[error("sessions cannot be started: {0}")]
    Sessions(#[from] dtm_actors::Error),
}

fn is_foreign_log(error: &dtm_storage::log::Error) -> bool {
    matches!(error, dtm_storage::log::Error::Foreign { .. })
}

fn is_foreign_state(error: &dtm_storage::state::Error) -> bool {
    use dtm_storage::state::Error::{OtherCluster, OtherNode};
    matches!(error, OtherCluster { .. } | OtherNode { .. })
}

/// What to do with the data of another node or cluster.
fn if_foreign(is_foreign: bool) -> &'static str {
    if is_foreign {
        "; node.data names the folder of another node: name this node's own, or put its own data \
         or tls files back (docs/errors/wrong-cluster.md)"
    } else {
        ""
    }
}

impl Error {
    /// The process's exit code: what an operator must mend in files is 78.
    pub fn exit(&self) -> u8 {
        use dtm_storage::{log, state};
        match self {
            Self::Log(
                log::Error::Foreign { .. } | log::Error::Version { .. } | log::Error::Locked { .. },
            )
            | Self::State(
                state::Error::OtherCluster { .. }
                | state::Error::OtherNode { .. }
                | state::Error::Format { .. }
                | state::Error::InUse { .. },
            )
            | Self::Cluster(
                dtm_cluster::Error::OldCopy { .. }
                | dtm_cluster::Error::WentBack { .. }
                | dtm_cluster::Error::NodeRemoved { .. },
            )
            | Self::Pki(_)
            | Self::File { .. }
            | Self::LogGone { .. }
            | Self::Lives(_)
            | Self::Sites(_)
            | Self::Tls(_)
            | Self::SecondCertificate { .. }
            | Self::Register(_)
            | Self::Keys(_) => crate::config::EXIT_CONFIG,
            Self::Log(_)
            | Self::State(_)
            | Self::Cluster(_)
            | Self::Sessions(_)
            | Self::Ended(_) => 1,
        }
    }
}

impl From<lives::Error> for Error {
    fn from(error: lives::Error) -> Self {
        match error {
            lives::Error::Cluster(error) => Self::Cluster(error),
            error => Self::Lives(error),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The node is to be started again, in the same process or another: it lives on in another life
    /// of the cluster.
    Again,
}

/// Runs the node until `shell.shutdown`, or until it goes over to another life of the cluster.
pub(crate) async fn run(shell: Shell, keyring: Keyring, seams: Seams) -> Result<Ended, Error> {
    let (config, data) = (shell.loaded.config.clone(), shell.loaded.config.node.data.clone());
    let (cluster_id, node) = shell.material.node();
    let (genesis, last, lives) = (Genesis::read(&data)?, last_start(&data)?, Lives::of(&data));
    let (clock, entropy) = of_system();
    let mut row = own_row(&config, node, last.counter + 1, &shell);
    let tls = (seams.peers)(node, Peers::new(Arc::clone(&shell.material)));
    let sites = sites::open(&shell, &tls, &clock, &mut row)?;
    let mut cluster_config = cluster_config(&config, cluster_id, &row, node, own_life(&data)?);
    // First whatever may refuse this folder: then nothing was written.
    dtm_cluster::ask_first(&cluster_config, &tls, &clock, &data.join("state")).await?;
    let log = open_log(&data, &config, cluster_id, node)?;
    let founding = is_founding(&data, genesis.is_some(), &log)?;
    let (keyring, owner) = (Arc::new(keyring), Owner { cluster: cluster_id, node });
    let states = DbStates::open(&data.join("state"), owner, &state_config(&config))?;
    let incarnation = lives.follow(cluster_config.incarnation, node, &log, &states).await?;
    (cluster_config.incarnation, cluster_config.plan) = (incarnation, Some(lives.plan()));
    let vault = (seams.vault)(vault(&keyring, &entropy, genesis.is_some())?);
    let logs = lives.logs(incarnation, &log)?;
    let primacy = primacy(&data, &config, node, incarnation, &states, (&clock, &entropy))?;
    let deps = cluster_deps(logs, &states, tls, &clock, (sites.as_ref(), &primacy));
    let starting = ClusterNode::listen(cluster_config, deps, shell.peers.into_tcp())?;
    let (data, clock) = (&data, &clock);
    let found = Found { data, lives: &lives, own: incarnation, last, states: &states, clock };
    let Started { cluster, stamping } =
        match begin(starting, found, &primacy, &shell.shutdown).await? {
            Ok(started) => started,
            Err(ended) => return Ok(ended),
        };
    if let (true, Some(genesis)) = (founding, &genesis) {
        bootstrap(&cluster, cluster_row(genesis, cluster_id, &keyring), &row, data).await?;
    }
    let (ack_times, clock) = (Arc::new(AckTimes::default()), cluster.clock());
    let (treated, time) = ((&vault, seams.treatment), (&clock, &entropy, &ack_times));
    let deps = session_deps((&config, incarnation), (&cluster, &primacy), treated, time);
    let sources = SourcesHandle::start(deps).await?;
    let shared = Arc::new(Shared {
        cluster_id,
        incarnation,
        node,
        row,
        cluster,
        log,
        states: states.db().clone(),
        material: Arc::clone(&shell.material),
        ack_times,
        peers: PeerCalls::new(Arc::clone(&shell.material)),
        sources,
        contracts: Contracts::default(),
        directory: Default::default(),
        rights: Default::default(),
        vault,
        keyring,
        clock,
        console: Arc::new(Console::new(Arc::clone(&entropy), node)),
        entropy,
        ca: roots(&config)?,
        room: Room::new(&config.limits),
        settings: Settings::new(shell.loaded),
        primacy,
        goes_over: CancellationToken::new(),
        sites: sites.clone(),
        config,
    });
    let (cluster, beside) = (shared.cluster.clone(), Beside::start(&shared, stamping, genesis));
    let goes_over = shared.goes_over.clone();
    let doors = Doors { https: shell.https, grpc: shell.grpc.with_wire(seams.clients) };
    let served = serve(shared, doors, beside, shell.metrics, shell.shutdown);
    until_ended(cluster, sites, goes_over, served).await
}

fn cluster_deps(
    logs: NodeLogs,
    states: &DbStates,
    tls: Arc<dyn PeerTls>,
    clock: &Arc<dyn Clock>,
    (sites, primacy): (Option<&SiteLines>, &Arc<Primacy>),
) -> ClusterDeps {
    ClusterDeps {
        logs: Arc::new(logs),
        states: Arc::new(states.clone()),
        tls,
        clock: Arc::clone(clock),
        sites: sites.map(|sites| Arc::clone(&sites.peers) as _),
        acceptor: Some(Arc::clone(primacy) as _),
    }
}

/// What the sessions stand on.
fn session_deps(
    (config, incarnation): (&Config, Incarnation),
    (cluster, primacy): (&Arc<ClusterNode>, &Arc<Primacy>),
    (vault, treatment): (&Arc<dyn KeyVault>, Arc<dyn Treatment>),
    (clock, entropy, ack_times): (&Arc<dyn Clock>, &Arc<dyn Entropy>, &Arc<AckTimes>),
) -> SessionDeps {
    let groups = Arc::new(Rightful::new(Arc::clone(cluster), Arc::clone(primacy)));
    SessionDeps {
        proposer: Arc::clone(&groups) as _,
        copies: groups,
        vault: Arc::clone(vault),
        treatment,
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        limits: limits(config),
        ack_times: Arc::clone(ack_times),
        incarnation,
        node_name: config.node.name.clone(),
    }
}

fn of_system() -> (Arc<dyn Clock>, Arc<dyn Entropy>) {
    (Arc::new(SystemClock::start()), Arc::new(OsEntropy))
}

/// The ports that clients and operators use.
struct Doors {
    https: tls::Listener,
    grpc: tls::Listener,
}

/// Serves until the node is told to stop, or learns that this start must not go on: then there is
/// no planned stop, since it has no right to lead or to hand over anything.
async fn until_ended(
    cluster: Arc<ClusterNode>,
    sites: Option<SiteLines>,
    goes_over: CancellationToken,
    served: impl Future<Output = Result<(), Error>>,
) -> Result<Ended, Error> {
    let ended = tokio::select! {
        ended = served => ended,
        Some(error) = cluster.condemned() => {
            cluster.stop().await;
            Err(Error::Cluster(error))
        }
    };
    if let Some(sites) = sites {
        // Else other sites would take this node for silent.
        sites.peers.lines().close().await;
    }
    ended.map(|()| if goes_over.is_cancelled() { Ended::Again } else { Ended::Stopped })
}

/// Root certificates of the cluster (DER), for nodes that join.
fn roots(config: &Config) -> Result<Vec<Vec<u8>>, Error> {
    Ok(pki::read_certificates(&config.tls.ca)?.iter().map(|c| c.to_vec()).collect())
}

/// The life of the cluster that the data folder belongs to.
fn own_life(data: &Path) -> Result<Incarnation, Error> {
    life::read(data).map_err(|source| Error::File { path: data.join(life::FILE), source })
}

/// The first node of a cluster makes it, once.
async fn bootstrap(
    cluster: &ClusterNode,
    first: ClusterRow,
    row: &NodeRow,
    data: &Path,
) -> Result<(), Error> {
    cluster.bootstrap_single(first, row.clone()).await?;
    founded(data)
}

/// Whether the founding of the cluster is still to be done, or to be completed, on this node.
fn is_founding(data: &Path, has_genesis: bool, log: &NodeLog) -> Result<bool, Error> {
    let founded = boot::is_founded(data);
    if has_genesis && founded && log.groups().is_empty() {
        return Err(Error::LogGone { path: data.join("log") });
    }
    Ok(has_genesis && !founded)
}

/// Opens the doors until the node is told to stop, then stops in order.
async fn serve(
    shared: Arc<Shared>,
    doors: Doors,
    mut beside: Beside,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let router = pages(&shared, metrics);
    let mut pages =
        tokio::spawn(tls::serve_https(router, doors.https.run(shutdown.clone()), shutdown.clone()));
    let mut grpc = tokio::spawn(serve_grpc(Arc::clone(&shared), doors.grpc, shutdown.clone()));
    tracing::info!("node runs");
    // A node that lost a part stops: half of it would hold up the others.
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        () = shared.goes_over.cancelled() => None,
        name = shared.cluster.part_ended() => Some(name),
        name = beside.ended() => Some(name),
        _ = &mut pages => Some("the HTTPS port"),
        _ = &mut grpc => Some("the gRPC port"),
    };
    // At a planned stop the ports end because of it, and may be heard of first.
    let is_asked = shutdown.is_cancelled() || shared.goes_over.is_cancelled();
    let ended = ended.filter(|_| !is_asked);
    shutdown.cancel();
    beside.leave();
    stop(&shared).await;
    let doors = async {
        while !(pages.is_finished() && grpc.is_finished()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(DOORS_END, doors).await.is_err() {
        tracing::warn!("connections are cut off");
    }
    shared.cluster.stop().await;
    match ended {
        None => tracing::info!("node stopped"),
        Some(what) => return Err(Error::Ended(what)),
    }
    Ok(())
}

/// A planned stop: leaders hand over, sources move to the new ones, and only then the groups stop.
/// What arrives meanwhile is forwarded.
async fn stop(shared: &Arc<Shared>) {
    shared.cluster.leave_soon();
    if let Err(error) = shared.cluster.drain().await {
        tracing::warn!(%error, "leaderships could not be handed over");
    }
    shared.sources.drain(|group| shared.leader_elsewhere(group), LEAVE_OVER);
    let deadline = tokio::time::Instant::now() + LEAVE_WITHIN;
    while shared.sources.sessions() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LEAVE_PAUSE).await;
    }
}

fn pages(shared: &Arc<Shared>, metrics: RenderMetrics) -> axum::Router {
    let clock = Arc::clone(&shared.clock);
    let measured = Arc::clone(shared);
    http::router(Pages {
        status: Arc::new(Live { shared: Arc::clone(shared) }),
        metrics: Arc::new(move || {
            measured.measure();
            metrics()
        }),
        console: Arc::clone(&shared.console),
        cluster: shared.cluster_id,
        now_us: Arc::new(move || clock.now_us()),
    })
}

fn vault(
    keyring: &Arc<Keyring>,
    entropy: &Arc<dyn Entropy>,
    founding: bool,
) -> Result<Arc<dyn KeyVault>, Error> {
    let failed = |cause: &dyn std::fmt::Display| Error::Keys(cause.to_string());
    match NodeVault::new(Arc::clone(keyring), Arc::clone(entropy)) {
        Ok(vault) => Ok(Arc::new(vault)),
        Err(_) if founding => {
            NodeVault::found(keyring, entropy.as_ref()).map_err(|e| failed(&e))?;
            let vault =
                NodeVault::new(Arc::clone(keyring), Arc::clone(entropy)).map_err(|e| failed(&e))?;
            Ok(Arc::new(vault))
        }
        Err(cause) => Err(failed(&cause)),
    }
}
