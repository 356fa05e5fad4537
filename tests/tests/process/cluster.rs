//! Three nodes, made and joined with the same commands as any other cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dtm_client::admin::Admin;
use dtm_client::{Credential, Endpoint, TlsFiles};
use dtm_proto::admin::{ClusterStatusRequest, ClusterStatusResponse, GroupStatus};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::node::{Node, tail};
use crate::sources::{Source, definition};
use crate::wait::until;
use crate::wires::{self, Wires};

pub(crate) const NODES: usize = 3;
/// Ingest groups: enough that every node leads some.
const GROUPS: &str = "6";
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for a state of the cluster.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// Below the range from which the system takes ports of outgoing connections: a node that is
/// started again finds its port free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A test that measures delays has the machine to itself; some of the others go on beside each other.
static TURNS: Semaphore = Semaphore::const_new(ALONE as usize);
const ALONE: u32 = 3;
const BESIDE: u32 = 1;
/// Ports of this run are handed out once: a node that is down keeps its own.
static PORTS_TAKEN: AtomicU16 = AtomicU16::new(0);

/// Held as long as a cluster runs.
pub(crate) type Turn = SemaphorePermit<'static>;

/// Some nodes, mostly three, and how to talk to them. Without [`Cluster::passed`] its folder is kept.
#[derive(Debug)]
pub(crate) struct Cluster {
    dtm: PathBuf,
    home: Option<TempDir>,
    pub(crate) nodes: Vec<Node>,
    wires: Option<Wires>,
    turn: Option<Turn>,
}

impl Cluster {
    /// Founded, joined, every group with three healthy voters; the data set `notes` published.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with::<u64>(&[]).await
    }

    /// As [`Cluster::start`], for a test that stands another cluster beside its own: it measures
    /// no delays.
    pub(crate) async fn beside() -> Result<Self> {
        Self::beside_with::<u64>(&[]).await
    }

    /// As [`Cluster::beside`], each node with these settings from its first start on.
    pub(crate) async fn beside_with<V: ToString>(settings: &[(&str, V)]) -> Result<Self> {
        Self::with(settings, turn_of(BESIDE).await?).await
    }

    /// As [`Cluster::start`], each node with these settings from its first start on.
    pub(crate) async fn start_with<V: ToString>(settings: &[(&str, V)]) -> Result<Self> {
        Self::with(settings, turn().await?).await
    }

    async fn with<V: ToString>(settings: &[(&str, V)], turn: Turn) -> Result<Self> {
        let ports = free_ports(NODES * 3)?;
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), value.to_string()));
        let settings: Vec<_> = settings.collect();
        Self::found(NODES, |_| Ipv4Addr::LOCALHOST, None, ports, &settings, &[], turn).await
    }

    /// As [`Cluster::start`], with so many groups.
    pub(crate) async fn of_groups(groups: &str) -> Result<Self> {
        let turn = turn().await?;
        let (ports, found) = (free_ports(NODES * 3)?, ["--groups", groups]);
        Self::found(NODES, |_| Ipv4Addr::LOCALHOST, None, ports, &[], &found, turn).await
    }

    /// As [`Cluster::start`], marked production.
    pub(crate) async fn production() -> Result<Self> {
        let turn = turn_of(BESIDE).await?;
        let (ports, found) = (free_ports(NODES * 3)?, ["--production"]);
        Self::found(NODES, |_| Ipv4Addr::LOCALHOST, None, ports, &[], &found, turn).await
    }

    /// So many nodes, whose network can be cut.
    pub(crate) async fn wired(count: usize) -> Result<Self> {
        let turn = turn().await?;
        let ports = free_ports(count * 3)?;
        let wired = ports.chunks_exact(3).map(|ports| vec![ports[1].port(), ports[2].port()]);
        let wires = Wires::start(&wired.collect::<Vec<_>>()).await?;
        Self::found(count, wires::host, Some(wires), ports, &[], &[], turn).await
    }

    async fn found(
        count: usize,
        host: impl Fn(usize) -> Ipv4Addr,
        wires: Option<Wires>,
        ports: Vec<SocketAddr>,
        settings: &[(String, String)],
        init: &[&str],
        turn: Turn,
    ) -> Result<Self> {
        let home =
            tempfile::Builder::new().prefix("dtm-process-").tempdir().context("scratch folder")?;
        let node = |(at, ports): (usize, &[SocketAddr])| {
            let ports = [ports[0], ports[1], ports[2]];
            let mut node = Node::new(&format!("n{}", at + 1), ports, host(at), home.path());
            node.environment.extend_from_slice(settings);
            node
        };
        let nodes = ports.chunks_exact(3).enumerate().map(node).collect();
        let begun = Instant::now();
        let mut cluster = Self { dtm: binary()?, nodes, wires, home: Some(home), turn: Some(turn) };
        let mut found = cluster.node_arguments("init", 0);
        found.extend(["--name", "test", "--operator", "admin"].map(str::to_owned));
        if !init.contains(&"--groups") {
            found.extend(["--groups", GROUPS].map(str::to_owned));
        }
        found.extend(init.iter().map(|argument| (*argument).to_owned()));
        cluster.dtm(&found).await?;
        cluster.start_node(0)?;
        cluster.settled(1).await?;
        for at in 1..count {
            cluster.join(at).await?;
        }
        cluster.settled(count).await?;
        cluster.publish_dataset(&definition("notes")).await?;
        // Each test pays for this: a pause that grows is to be seen.
        println!("{count} nodes after {:.1?}", begun.elapsed());
        Ok(cluster)
    }

    /// Lets others have its turn while it does next to nothing for a while.
    pub(crate) fn rest(&mut self) {
        self.turn = None;
    }

    /// Waits for a turn beside others.
    pub(crate) async fn go_on(&mut self) -> Result<()> {
        self.turn = Some(turn_of(BESIDE).await?);
        Ok(())
    }

    /// One more node, joined with an address and a token. The groups are not waited for.
    pub(crate) async fn add_node(&mut self) -> Result<usize> {
        self.add_node_with(&[], None).await
    }

    /// As [`Cluster::add_node`], with settings of its own, at a site.
    pub(crate) async fn add_node_with(
        &mut self,
        settings: &[(&str, &str)],
        site: Option<&str>,
    ) -> Result<usize> {
        let (at, ports) = (self.nodes.len(), free_ports(3)?);
        let ports = [ports[0], ports[1], ports[2]];
        let home = self.home.as_ref().expect("held until the drop").path();
        let mut node = Node::new(&format!("n{}", at + 1), ports, Ipv4Addr::LOCALHOST, home);
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        node.environment.extend(settings);
        node.site = site.map(str::to_owned);
        self.nodes.push(node);
        self.join(at).await?;
        Ok(at)
    }

    /// The network of a cluster that is [`Cluster::wired`].
    pub(crate) fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("a wired cluster")
    }

    /// The nodes that are not lost.
    pub(crate) fn present(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| !self.nodes[*at].lost).collect()
    }

    async fn join(&mut self, at: usize) -> Result<()> {
        let mut token = vec!["-o", "json", "cluster", "token"];
        if let Some(site) = &self.nodes[at].site {
            token.extend(["--site", site]);
        }
        let made = self.dtm(&token).await?;
        let made: serde_json::Value = serde_json::from_str(&made).context("token")?;
        let file = self.path("join.token");
        std::fs::write(&file, made["token"].as_str().context("token")?)?;
        let mut join = self.node_arguments("join", at);
        join.extend(["--address".to_owned(), self.nodes[0].grpc.to_string()]);
        join.extend(["--token-file".to_owned(), file.display().to_string()]);
        self.dtm(&join).await?;
        std::fs::remove_file(&file)?;
        self.start_node(at)
    }

    fn node_arguments(&self, verb: &str, at: usize) -> Vec<String> {
        let node = &self.nodes[at];
        let pairs = [
            ("--folder", node.folder.display().to_string()),
            ("--node", node.name.clone()),
            ("--advertise", node.host.to_string()),
            ("--https", node.ports[0].to_string()),
            ("--grpc", node.ports[1].to_string()),
            ("--peers", node.ports[2].to_string()),
        ];
        let head = ["cluster".to_owned(), verb.to_owned()].into_iter();
        let pairs = pairs.into_iter().chain(node.site.clone().map(|site| ("--site", site)));
        head.chain(pairs.flat_map(|(name, value)| [name.to_owned(), value])).collect()
    }

    pub(crate) fn start_node(&mut self, at: usize) -> Result<()> {
        self.nodes[at].start(&self.dtm)?;
        if let Some(wires) = &self.wires {
            wires.runs(at, self.nodes[at].pid()?);
        }
        Ok(())
    }

    /// Runs a command of `dtm`; its standard output.
    pub(crate) async fn dtm<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = Command::new(&self.dtm);
        command
            .args(arguments)
            .env("DTM_CONTEXTS", self.path("contexts.toml"))
            .env("DTM_LANG", "en")
            .env_remove("DTM_CONTEXT")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_WITHIN, command.output()).await??;
        ensure!(
            output.status.success(),
            "dtm {:?}: {}: {}",
            arguments.iter().map(|a| a.as_ref().to_owned()).collect::<Vec<_>>(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command of `dtm` that must fail, which is neither wrong use nor a crash, and say so.
    pub(crate) async fn dtm_fails<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: &[S],
        said: &str,
    ) -> Result<()> {
        let Err(error) = self.dtm(arguments).await else { bail!("it did not fail with {said:?}") };
        let told = format!("{error:#}");
        ensure!(told.contains("exit status: 1:") && told.contains(said), "no {said:?}: {told}");
        Ok(())
    }

    /// A command of `dtm` that works as a source: with contexts of its own.
    pub(crate) fn source_command(&self, source: &Source) -> Result<Command> {
        let files = self.source_files();
        let (key, contexts) = (self.path(&source.code).with_extension("key"), source.code.clone());
        let contexts = self.path(&contexts).with_extension("toml");
        std::fs::write(&key, &source.key)?;
        let address: Vec<_> = self.nodes.iter().map(|node| node.grpc.to_string()).collect();
        let text = format!(
            "current = \"c\"\n[contexts.c]\naddress = {address:?}\nca = {:?}\n\
             source_key_file = {key:?}\nsource = {:?}\n",
            files.ca, source.code
        );
        std::fs::write(&contexts, text)?;
        let mut command = Command::new(&self.dtm);
        command.env("DTM_CONTEXTS", contexts).env("DTM_LANG", "en").env_remove("DTM_CONTEXT");
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// A path in the scratch folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.as_ref().expect("held until the drop").path().join(name)
    }

    /// What is needed to speak as a source, beside its key.
    pub(crate) fn source_files(&self) -> TlsFiles {
        TlsFiles { ca: self.nodes[0].folder.join("tls/ca.pem"), certificate: None, key: None }
    }

    /// Administration through the nodes that are up.
    pub(crate) fn admin(&self) -> Result<Admin> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up()).collect();
        self.admin_at(&up)
    }

    /// Administration through these nodes only.
    pub(crate) fn admin_at(&self, nodes: &[usize]) -> Result<Admin> {
        let endpoint = self.operator_endpoint(nodes)?;
        Ok(Admin::new(endpoint.with_connect_timeout(Duration::from_secs(2))))
    }

    /// Some nodes with the operator's certificate.
    pub(crate) fn operator_endpoint(&self, nodes: &[usize]) -> Result<Endpoint> {
        let operator = self.nodes[0].folder.join("operator");
        let files = TlsFiles {
            certificate: Some(operator.join("admin.pem")),
            key: Some(operator.join("admin.key")),
            ..self.source_files()
        };
        let seeds = nodes.iter().map(|at| self.nodes[*at].grpc.to_string());
        let endpoint = Endpoint::new(seeds, &files)?;
        Ok(endpoint.with_shared_connections())
    }

    pub(crate) async fn status(&self) -> Result<ClusterStatusResponse> {
        let admin = self.admin()?;
        let status = admin
            .call(|mut client| async move { client.cluster_status(ClusterStatusRequest {}).await });
        Ok(status.await?)
    }

    /// Waits until `count` nodes are there and every group has a leader and that many healthy
    /// voters.
    pub(crate) async fn settled(&mut self, count: usize) -> Result<()> {
        for node in &mut self.nodes {
            node.check()?;
        }
        until("a settled cluster", WITHIN, async || {
            let status = self.status().await?;
            let reachable =
                status.nodes.iter().filter(|n| n.reachable && n.stopped_reason.is_empty());
            ensure!(reachable.count() >= count && !status.groups.is_empty(), "nodes are missing");
            for group in &status.groups {
                let healthy = group.replicas.iter().filter(|r| r.voter && r.health == "healthy");
                let healthy = healthy.count();
                ensure!(!group.leader_node.is_empty(), "{} has no leader", group.group);
                ensure!(healthy >= count, "{}: {healthy} healthy voters", group.group);
            }
            Ok(())
        })
        .await
    }

    /// The node that leads a group, by the nodes that are up.
    pub(crate) async fn leader(&self, group: u32) -> Result<usize> {
        until("a leader", WITHIN, async || {
            let status = self.status().await?;
            let row = status.groups.iter().find(|row| row.group == group);
            let leader = &row.context("no such group")?.leader_node;
            let mut nodes = status.nodes.iter().filter_map(|n| n.node.as_ref());
            let named = nodes.find(|n| n.node == *leader).context("there is no leader")?;
            let at = self.nodes.iter().position(|n| n.name == named.name);
            at.filter(|at| self.nodes[*at].is_up()).context("the leader is down")
        })
        .await
    }

    /// Waits until the groups are spread over the nodes, so that no leader moves without a cause;
    /// a node that leads most.
    pub(crate) async fn spread(&self) -> Result<usize> {
        until("spread leaders", WITHIN, async || {
            let status = self.status().await?;
            let led = |name: &str| {
                let mut rows = status.nodes.iter();
                let row = rows.find(|n| n.node.as_ref().is_some_and(|n| n.name == name));
                row.map_or(0, |row| row.groups_led)
            };
            let led: Vec<u32> = self.nodes.iter().map(|node| led(&node.name)).collect();
            let (most, least) = (led.iter().max().copied(), led.iter().min().copied());
            let (most, least) = (most.context("nodes")?, least.context("nodes")?);
            ensure!(most <= least + 1, "leaders crowd: {led:?}");
            led.iter().position(|count| *count == most).context("nodes")
        })
        .await
    }

    /// SIGSTOP to all but one, which is no majority then; who they are.
    pub(crate) fn pause_others(&mut self, at: usize) -> Result<Vec<usize>> {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != at).collect();
        others.iter().try_for_each(|other| self.nodes[*other].pause())?;
        Ok(others)
    }

    /// SIGCONT to these.
    pub(crate) fn resume(&mut self, paused: &[usize]) -> Result<()> {
        paused.iter().try_for_each(|at| self.nodes[*at].resume())
    }

    /// Waits until each group's replicas were seen with one root at one size. Two roots at
    /// one size are an error at once (RAFT-1).
    pub(crate) async fn roots_agree(&self) -> Result<usize> {
        let mut seen = BTreeMap::new();
        until("equal ledger roots", WITHIN, async || {
            for group in &self.status().await?.groups {
                // Meta has a replica on every node.
                let all = if group.group == 0 { self.present().len() } else { NODES };
                let agrees = roots(group, all);
                assert!(agrees != Some(false), "RAFT-1: two roots at one size: {group:?}");
                let known = seen.entry(group.group).or_insert(false);
                *known |= agrees.is_some();
            }
            ensure!(!seen.is_empty() && seen.values().all(|known| *known), "not level: {seen:?}");
            Ok(seen.len())
        })
        .await
    }

    /// The whole cluster with a source's key.
    pub(crate) fn endpoint(&self, source: &Source) -> Result<Endpoint> {
        self.endpoint_at(source, &self.present())
    }

    /// Some nodes with a source's key.
    pub(crate) fn endpoint_at(&self, source: &Source, nodes: &[usize]) -> Result<Endpoint> {
        let seeds = nodes.iter().map(|at| self.nodes[*at].grpc.to_string());
        let endpoint = Endpoint::new(seeds, &self.source_files())?;
        Ok(endpoint
            .with_credential(Credential::source_key(&source.key)?)
            .with_connect_timeout(Duration::from_secs(2)))
    }

    /// Waits until the command line calls the cluster healthy: leaders move home for a while after a
    /// node came back.
    pub(crate) async fn healthy(&self) -> Result<()> {
        until("a cluster that is healthy", WITHIN, async || {
            self.dtm(&["cluster", "status"]).await.map(|_| ())
        })
        .await
    }

    /// Nothing is kept of it.
    pub(crate) fn passed(mut self) {
        self.nodes.clear();
        if let Some(home) = self.home.take() {
            let _ = home.close();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let logs: Vec<PathBuf> = self.nodes.iter().map(|node| node.log.clone()).collect();
        self.nodes.clear();
        if let Some(home) = self.home.take() {
            let kept = home.keep();
            for log in logs {
                eprintln!("-- {}\n{}", log.display(), tail(&log));
            }
            eprintln!("kept: {}", kept.display());
        }
    }
}

/// Whether the replicas of a group agree; none = they are not all there at one size.
fn roots(group: &GroupStatus, all: usize) -> Option<bool> {
    let replicas: Vec<_> = group.replicas.iter().filter(|r| !r.ledger_root.is_empty()).collect();
    let (first, rest) = replicas.split_first()?;
    let differ = replicas.iter().enumerate().any(|(at, a)| {
        replicas[..at]
            .iter()
            .any(|b| a.ledger_size == b.ledger_size && a.ledger_root != b.ledger_root)
    });
    if differ {
        return Some(false);
    }
    let level = replicas.len() == all && rest.iter().all(|r| r.ledger_size == first.ledger_size);
    level.then_some(true)
}

/// The binary: DTM_BIN, else beside the folder of this test's own binary.
pub(crate) fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().and_then(Path::parent).map(|folder| folder.join("dtm"));
    let named = std::env::var_os("DTM_BIN").map(PathBuf::from);
    let path = named.or(beside).context("no folder of binaries")?;
    if !path.is_file() {
        bail!(
            "there is no {}: run `cargo build --release -p dtm` first, or name it in DTM_BIN",
            path.display()
        );
    }
    Ok(std::fs::canonicalize(path)?)
}

/// Waits until no other cluster runs, and keeps it so.
pub(crate) async fn turn() -> Result<Turn> {
    turn_of(ALONE).await
}

/// In the order of asking.
async fn turn_of(share: u32) -> Result<Turn> {
    Ok(TURNS.acquire_many(share).await?)
}

pub(crate) fn free_ports(count: usize) -> Result<Vec<SocketAddr>> {
    let span = PORTS.end - PORTS.start;
    // Runs beside each other start at different places.
    let first = u16::try_from(std::process::id() * 61 % u32::from(span))?;
    let mut held = Vec::with_capacity(count);
    for _ in 0..span {
        let step = PORTS_TAKEN.fetch_add(1, Ordering::Relaxed) % span;
        let port = PORTS.start + (first + step) % span;
        // On every address: forwarders take the same ports on others of this host's.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            held.push(listener);
        }
        if held.len() == count {
            let free = held.iter().map(|held: &TcpListener| {
                Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, held.local_addr()?.port())))
            });
            return free.collect();
        }
    }
    bail!("no {count} free ports in {PORTS:?}")
}
