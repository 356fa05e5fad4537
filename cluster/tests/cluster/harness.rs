//! A cluster of in-process nodes over memory or disk, with a CA of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_cluster::{ClusterConfig, ClusterNode, Deps, Error, PeerNode, PeerTls};
use dtm_machine::seams::{Clock, ProposeError, Proposer, ReadView};
use dtm_types::command::{
    Admin, ClusterRow, Command, CountRefusals, NodeRow, Outcome, RefusalCount, admin, command::Op,
};
use dtm_types::{ClusterId, GroupId, NodeId};
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::storage::{Faults, FaultyLogs, FaultyStates, Storage};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct TestClock {
    start: Instant,
    base_us: AtomicI64,
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.base_us.load(Ordering::Relaxed) + self.monotonic_us()
    }

    fn monotonic_us(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_micros()).expect("tests end before that")
    }
}

pub(crate) struct Ca {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Arc<Self> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        Arc::new(Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA") })
    }
}

pub(crate) fn name_of(node: NodeId) -> String {
    format!("{node}.node.dtm")
}

pub(crate) struct TestTls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    names: Arc<parking_lot::Mutex<HashMap<Vec<u8>, NodeId>>>,
}

impl TestTls {
    pub(crate) fn new(
        ca: &Ca,
        node: NodeId,
        names: &Arc<parking_lot::Mutex<HashMap<Vec<u8>, NodeId>>>,
    ) -> Arc<Self> {
        static PROVIDER: OnceLock<()> = OnceLock::new();
        PROVIDER.get_or_init(|| {
            rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        });
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name_of(node)]).expect("parameters");
        let certificate = params.signed_by(&key, &ca.issuer).expect("a certificate");
        let chain = vec![certificate.der().clone()];
        names.lock().insert(certificate.der().to_vec(), node);
        let private = || PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(ca.issuer.der().to_vec())).expect("a root");
        let roots = Arc::new(roots);
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::clone(&roots)).build();
        let server = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(chain.clone(), private())
            .expect("a server");
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private())
            .expect("a client");
        Arc::new(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            names: Arc::clone(names),
        })
    }
}

impl PeerTls for TestTls {
    fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server)
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.client)
    }

    fn server_name(&self, node: NodeId) -> ServerName<'static> {
        ServerName::try_from(name_of(node)).expect("a name")
    }

    fn node_of(&self, certificate: &[u8]) -> Option<NodeId> {
        self.names.lock().get(certificate).copied()
    }
}

/// What a node keeps over a restart.
pub(crate) struct Disk {
    pub(crate) config: ClusterConfig,
    pub(crate) storage: Storage,
    pub(crate) tls: Arc<TestTls>,
    /// Put between the node and its storage.
    pub(crate) faults: Arc<Faults>,
}

pub(crate) struct Cluster {
    pub(crate) disks: Vec<Disk>,
    pub(crate) nodes: Vec<Option<Arc<ClusterNode>>>,
    clock: Arc<TestClock>,
}

impl Cluster {
    /// Nodes that know nothing of each other yet, in memory.
    pub(crate) async fn start(size: u8) -> Self {
        Self::start_with(size, |_| Storage::memory(), |_| {}).await
    }

    /// The same on files, with bounds that make snapshots and purges come soon.
    pub(crate) async fn start_on_disk(size: u8) -> Self {
        let soon = |config: &mut ClusterConfig| {
            config.flush_interval_ms = 200;
            config.log_entries_kept = 8;
        };
        Self::start_with(size, |_| Storage::disk(), soon).await
    }

    /// Nodes that know nothing of each other yet, stored and set up as told.
    pub(crate) async fn start_with(
        size: u8,
        storage: impl Fn(u8) -> Storage,
        configure: impl Fn(&mut ClusterConfig),
    ) -> Self {
        let ca = Ca::new();
        let names = Arc::default();
        let clock = Arc::new(TestClock { start: Instant::now(), base_us: AtomicI64::new(1 << 50) });
        let mut cluster = Self { disks: Vec::new(), nodes: Vec::new(), clock };
        for byte in 1..=size {
            let node = NodeId([byte; 16]);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let peer_address = listener.local_addr().expect("an address").to_string();
            let peer = PeerNode { node, peer_address, ..PeerNode::default() };
            let mut config = ClusterConfig::new(ClusterId([7; 16]), peer);
            configure(&mut config);
            let tls = TestTls::new(&ca, node, &names);
            let disk = Disk { config, storage: storage(byte), tls, faults: Arc::default() };
            cluster.disks.push(disk);
            cluster.nodes.push(None);
            cluster.run(usize::from(byte) - 1, listener).await;
        }
        cluster
    }

    async fn run(&mut self, at: usize, listener: TcpListener) {
        self.try_run(at, listener).await.expect("starts");
    }

    async fn try_run(&mut self, at: usize, listener: TcpListener) -> Result<(), Error> {
        let disk = &self.disks[at];
        let (logs, states) = disk.storage.open(disk.config.node.node).await;
        let faults = &disk.faults;
        let deps = Deps {
            logs: Arc::new(FaultyLogs { inner: logs, faults: Arc::clone(faults) }),
            states: Arc::new(FaultyStates { inner: states, faults: Arc::clone(faults) }),
            tls: Arc::clone(&disk.tls) as _,
            clock: Arc::clone(&self.clock) as _,
        };
        self.nodes[at] = Some(ClusterNode::start(disk.config.clone(), deps, listener).await?);
        Ok(())
    }

    /// Starts a node under this start counter.
    pub(crate) async fn start_as(&mut self, at: usize, boot_counter: u64) -> Result<(), Error> {
        self.disks[at].config.boot_counter = boot_counter;
        let address = self.disks[at].config.node.peer_address.clone();
        // The earlier listener goes away a moment after its node has stopped.
        for _ in 0..100 {
            if let Ok(listener) = TcpListener::bind(&address).await {
                return self.try_run(at, listener).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{address} is not free");
    }

    pub(crate) async fn restart(&mut self, at: usize) {
        let next = self.disks[at].config.boot_counter + 1;
        self.start_as(at, next).await.expect("starts");
    }

    /// The node ends without handing anything over; rows that were not flushed are gone.
    pub(crate) async fn kill(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            node.stop().await;
            self.disks[at].storage.crash();
        }
    }

    pub(crate) fn node(&self, at: usize) -> &Arc<ClusterNode> {
        self.nodes[at].as_ref().expect("runs")
    }

    /// A cluster of all nodes: the first makes it, the others are put into meta; returns when every
    /// group has a voter on three of them, and meta a replica on each.
    pub(crate) async fn form(&self, ingest_groups: u32) {
        let cluster = ClusterRow {
            cluster_id: vec![7; 16].into(),
            incarnation: 1,
            ingest_groups,
            ..ClusterRow::default()
        };
        self.node(0).bootstrap_single(cluster, self.row(0)).await.expect("bootstraps");
        for at in 1..self.nodes.len() {
            let op =
                Op::Admin(Admin { op: Some(admin::Op::PutNode(self.row(at))), ..Admin::default() });
            let command = Command { op: Some(op), ..Command::default() }.encode_to_vec();
            propose(self.node(0), GroupId::META, command.into()).await.expect("joins");
        }
        until("every group has all voters", || {
            let status = self.nodes.iter().flatten().map(|node| node.status()).collect::<Vec<_>>();
            let nodes = self.nodes.len();
            let whole = (0..=ingest_groups).map(GroupId).all(|id| {
                let replicas = if id.is_meta() { nodes } else { nodes.min(3) };
                let here: Vec<_> =
                    status.iter().flatten().filter(|group| group.group == id).collect();
                let voters = |group: &dtm_cluster::GroupStatus| {
                    group.replicas.iter().filter(|replica| replica.is_voter).count()
                };
                here.len() == replicas && here.iter().all(|group| voters(group) == nodes.min(3))
            });
            whole.then_some(())
        })
        .await;
    }

    pub(crate) fn row(&self, at: usize) -> NodeRow {
        let peer = &self.disks[at].config.node;
        let node = Bytes::copy_from_slice(&peer.node.0);
        NodeRow { node, peer_address: peer.peer_address.clone(), ..NodeRow::default() }
    }

    /// Position of the running node that leads a group and that the others agree on.
    pub(crate) async fn leader_of(&self, group: GroupId) -> usize {
        until("a leader", || {
            let running = self.nodes.iter().enumerate();
            running.filter_map(|(at, node)| node.as_ref().map(|node| (at, node))).find_map(
                |(at, node)| node.leader(group).is_some_and(|hint| hint.is_self).then_some(at),
            )
        })
        .await
    }
}

/// Waits until it gives something; panics after [`PATIENCE`].
pub(crate) async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn command(text: &str) -> Bytes {
    let count = RefusalCount { prefix: text.into(), code: "unauthenticated".into(), count: 1 };
    let op = Op::CountRefusals(CountRefusals { counts: vec![count] });
    let request_id = Bytes::copy_from_slice(&[1; 16]);
    Command { request_id, op: Some(op), ..Command::default() }.encode_to_vec().into()
}

pub(crate) async fn propose(
    node: &ClusterNode,
    group: GroupId,
    command: Bytes,
) -> Result<Outcome, ProposeError> {
    let (sender, receiver) = oneshot::channel();
    node.propose(
        group,
        command,
        Box::new(move |result| {
            sender.send(result).ok();
        }),
    );
    tokio::time::timeout(PATIENCE, receiver).await.expect("answered in time").expect("answered")
}
