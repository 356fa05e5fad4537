//! The cluster of a drill: made, joined and administered with the same commands as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use dtm_client::admin::Admin;
use dtm_client::{Endpoint, TlsFiles};
use dtm_proto::admin::{ClusterStatusRequest, ClusterStatusResponse, GroupStatus, ReplicaStatus};
use dtm_scenario::{ClusterPlan, LayoutAsked};
use tokio::process::Command;

use crate::ground::Ground;
use crate::node::Node;

/// Longest time for one command.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);
/// Longest wait for one look.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
pub(crate) const EVERY: Duration = Duration::from_millis(200);
/// Longest wait of the founding for a state.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);
/// Replicas of a group that vote.
const REPLICAS: usize = 3;
/// Groups of a cluster over sites: seven processes on one machine have enough to do.
const GROUPS_OF_SITES: &str = "6";

/// Folder of the backups, which every node writes to.
pub(crate) const BACKUPS: &str = "backups";

/// The cluster said no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// Some nodes and how to talk to them.
pub(crate) struct Cluster {
    dtm: PathBuf,
    home: PathBuf,
    /// The nodes, n1 first; lost ones stay in the list.
    pub(crate) nodes: Vec<Node>,
    /// What they stand on. Behind the nodes: it goes after them.
    pub(crate) ground: Ground,
    /// Its sites, and the lines between.
    pub(crate) plan: ClusterPlan,
    /// How replicas are to lie over them now.
    pub(crate) layout: LayoutAsked,
}

impl Cluster {
    /// Founded and joined, every group with all its voters.
    ///
    /// # Errors
    /// What the commands or the processes said.
    pub(crate) async fn start(
        dtm: &Path,
        home: &Path,
        ground: Ground,
        plan: &ClusterPlan,
    ) -> Result<Self> {
        let mut cluster = Self {
            dtm: dtm.to_owned(),
            home: home.to_owned(),
            nodes: Vec::new(),
            ground,
            plan: plan.clone(),
            layout: LayoutAsked::default(),
        };
        for (site, of) in plan.sites.iter().enumerate() {
            for _ in 0..of.nodes {
                cluster.place_node(site)?;
            }
        }
        cluster.found().await?;
        cluster.start_node(0)?;
        cluster.settled(WITHIN).await?;
        cluster.assemble().await?;
        Ok(cluster)
    }

    async fn found(&mut self) -> Result<()> {
        let mut init = self.node_arguments(["cluster", "init"], 0);
        init.extend(["--name", "drill", "--operator", "admin"].map(str::to_owned));
        if self.plan.sites.len() > 1 {
            init.extend(["--groups", GROUPS_OF_SITES].map(str::to_owned));
        }
        self.dtm(&init).await?;
        self.nodes[0].has_joined = true;
        Ok(())
    }

    fn place_node(&mut self, site: usize) -> Result<usize> {
        let at = self.nodes.len();
        let listen = self.ground.listen(at)?;
        self.ground.stand(at, site)?;
        let mut node = Node::new(format!("n{}", at + 1), site, listen, &self.home);
        let backups = self.path(BACKUPS).display().to_string();
        node.environment.push(("DTM__BACKUP__FOLDER".to_owned(), backups));
        if let Some(address) = self.ground.sites_address(at, &self.plan) {
            node.environment.push(("DTM__NODE__SITES".to_owned(), address.to_string()));
        }
        self.nodes.push(node);
        Ok(at)
    }

    /// One more node joins at a site, with an address and a token; the groups are not waited for.
    ///
    /// # Errors
    /// What the commands or the process said.
    pub(crate) async fn add_node(&mut self, site: usize) -> Result<usize> {
        let at = self.place_node(site)?;
        self.join(at).await?;
        Ok(at)
    }

    /// A node that has its place joins, and its process starts.
    ///
    /// # Errors
    /// What the commands or the process said.
    pub(crate) async fn join(&mut self, at: usize) -> Result<()> {
        let mut token = vec!["-o", "json", "cluster", "token"];
        let site = self.plan.sites[self.nodes[at].site].name.clone();
        if self.plan.sites.len() > 1 {
            token.extend(["--site", &site]);
        }
        let made = self.dtm(&token).await?;
        let made: serde_json::Value = serde_json::from_str(&made).context("cluster token")?;
        let file = self.home.join("join.token");
        std::fs::write(&file, made["token"].as_str().context("cluster token")?)?;
        let known = self.nodes.iter().find(|node| node.is_up() && !node.is_over);
        let address = known.context("no node is up")?.listen.grpc.to_string();
        let mut join = self.node_arguments(["cluster", "join"], at);
        join.extend(["--address".to_owned(), address]);
        join.extend(["--token-file".to_owned(), file.display().to_string()]);
        let joined = self.dtm(&join).await;
        std::fs::remove_file(&file)?;
        joined?;
        self.nodes[at].has_joined = true;
        self.start_node(at)
    }

    /// A command that makes a node's folder.
    pub(crate) fn node_arguments(&self, command: [&str; 2], at: usize) -> Vec<String> {
        let node = &self.nodes[at];
        let pairs = [
            ("--folder", node.folder.display().to_string()),
            ("--node", node.name.clone()),
            ("--advertise", node.listen.grpc.ip().to_string()),
            ("--https", node.listen.https.to_string()),
            ("--grpc", node.listen.grpc.to_string()),
            ("--peers", node.listen.peers.to_string()),
        ];
        let head = command.map(str::to_owned).into_iter();
        let has_sites = self.plan.sites.len() > 1;
        let site = has_sites.then(|| ("--site", self.plan.sites[node.site].name.clone()));
        let pairs = pairs.into_iter().chain(site);
        head.chain(pairs.flat_map(|(name, value)| [name.to_owned(), value])).collect()
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn start_node(&mut self, at: usize) -> Result<()> {
        let ground = &self.ground;
        self.nodes[at].start(&self.dtm, |command| ground.prepare(at, command))
    }

    /// Runs a command of `dtm` as the operator; its standard output.
    ///
    /// # Errors
    /// What it said, or that it took too long.
    pub(crate) async fn dtm<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = Command::new(&self.dtm);
        command
            .args(arguments)
            .env("DTM_CONTEXTS", self.home.join("contexts.toml"))
            .env("DTM_LANG", "en")
            .env_remove("DTM_CONTEXT")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let words = arguments.iter().map(|a| a.as_ref().to_string_lossy().into_owned());
        let shown = format!("dtm {}", words.take(5).collect::<Vec<_>>().join(" "));
        let output = tokio::time::timeout(COMMAND_WITHIN, command.output()).await;
        let output = output.with_context(|| format!("{shown}: no answer within 120 s"))?;
        let output = output.with_context(|| self.dtm.display().to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = format!("{shown}: {}: {}", output.status, said.trim());
            // 1: the command was understood and the cluster said no.
            return Err(match output.status.code() {
                Some(1) => Refused(said).into(),
                _ => anyhow!(said),
            });
        }
        String::from_utf8(output.stdout).context("dtm writes UTF-8")
    }

    /// A file or folder beside the nodes' own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The nodes of the cluster as it is now: not lost, not of a life that is over.
    pub(crate) fn present(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_present()).collect()
    }

    /// Those of them that hold records and serve sources: not of a third place.
    pub(crate) fn doors(&self) -> Vec<usize> {
        let third = self.plan.third();
        self.present().into_iter().filter(|at| Some(self.nodes[*at].site) != third).collect()
    }

    /// gRPC addresses of these.
    pub(crate) fn addresses(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|at| self.nodes[*at].listen.grpc.to_string()).collect()
    }

    /// What is needed to speak as a source, beside its key.
    pub(crate) fn source_files(&self) -> TlsFiles {
        // The first node's folder may be lost; the certificates of founding are kept beside it.
        let ca = self.home.join("operator/ca.pem");
        TlsFiles { ca, certificate: None, key: None }
    }

    /// Keeps what the operator needs outside of the first node's folder, once.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn keep_operator_once(&self) -> Result<()> {
        let (first, kept) = (&self.nodes[0].folder, self.home.join("operator"));
        if kept.join("admin.key").exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&kept)?;
        for (from, name) in [
            ("tls/ca.pem", "ca.pem"),
            ("operator/admin.pem", "admin.pem"),
            ("operator/admin.key", "admin.key"),
        ] {
            std::fs::copy(first.join(from), kept.join(name)).with_context(|| from.to_owned())?;
        }
        Ok(())
    }

    /// Administration through the nodes that are up.
    ///
    /// # Errors
    /// No node is up, or certificates that cannot be used.
    pub(crate) fn admin(&self) -> Result<Admin> {
        let up: Vec<usize> =
            self.present().into_iter().filter(|at| self.nodes[*at].is_up()).collect();
        ensure!(!up.is_empty(), "no node is up");
        self.admin_at(&up)
    }

    /// Administration through these nodes.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub(crate) fn admin_at(&self, nodes: &[usize]) -> Result<Admin> {
        let kept = self.home.join("operator");
        let files = TlsFiles {
            certificate: Some(kept.join("admin.pem")),
            key: Some(kept.join("admin.key")),
            ..self.source_files()
        };
        let endpoint = Endpoint::new(self.addresses(nodes), &files)?;
        Ok(Admin::new(endpoint.with_connect_timeout(Duration::from_secs(2))))
    }

    /// One look.
    ///
    /// # Errors
    /// What the nodes said, or that none answered in time.
    pub(crate) async fn status(&self) -> Result<ClusterStatusResponse> {
        let admin = self.admin()?;
        let status = admin
            .call(|mut client| async move { client.cluster_status(ClusterStatusRequest {}).await });
        Ok(tokio::time::timeout(LOOK_WITHIN, status).await.context("no node answers")??)
    }

    /// Waits until every node of the cluster answers, every group has a leader and all its voters,
    /// and replicas lie over the sites as the layout says, not behind.
    ///
    /// # Errors
    /// What is missing at the end; a node that ended by itself.
    pub(crate) async fn settled(&mut self, within: Duration) -> Result<()> {
        self.keep_operator_once()?;
        let (end, count) = (Instant::now() + within, self.present().len());
        self.until(within, "a settled cluster", |status| unsettled(status, count)).await?;
        self.laid_out(end.saturating_duration_since(Instant::now())).await
    }

    /// Waits until each group's replicas were seen with one ledger root at one size.
    ///
    /// # Errors
    /// Two roots at one size, at once; groups that were never level.
    pub(crate) async fn ledgers_agree(&mut self, within: Duration) -> Result<usize> {
        let mut level = BTreeMap::new();
        let mut differs = None;
        let (nodes, is_laid) = (self.present().len(), self.is_laid());
        let names = self.present().into_iter().map(|at| self.nodes[at].name.clone());
        let names: BTreeSet<String> = names.collect();
        let agreed = self
            .until(within, "equal ledgers", |status| {
                let mut lacks = None;
                for group in &status.groups {
                    let known = level.entry(group.group).or_insert(false);
                    let replicas = replicas_on(status, group, &names);
                    let wanted = match group.group {
                        // Copies at another site too, which are members.
                        _ if is_laid => group.replicas.len().max(REPLICAS),
                        0 => nodes,
                        _ => nodes.min(REPLICAS),
                    };
                    match roots(&replicas, wanted) {
                        Some(true) => *known = true,
                        Some(false) => differs = Some(group.group),
                        None => {}
                    }
                    if !*known {
                        lacks.get_or_insert_with(|| sizes(group.group, wanted, &replicas));
                    }
                }
                let is_over = differs.is_some() || (lacks.is_none() && !level.is_empty());
                (!is_over).then(|| lacks.unwrap_or_else(|| "there are no groups".to_owned()))
            })
            .await;
        if let Some(group) = differs {
            bail!("the replicas of group {group} have different ledgers (RAFT-1)");
        }
        agreed.map(|()| level.len())
    }

    async fn until(
        &mut self,
        within: Duration,
        what: &str,
        mut missing: impl FnMut(&ClusterStatusResponse) -> Option<String>,
    ) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            self.check()?;
            let lacks = match self.status().await {
                Ok(status) => match missing(&status) {
                    None => return Ok(()),
                    Some(lacks) => lacks,
                },
                Err(error) => format!("{error:#}"),
            };
            ensure!(Instant::now() < end, "no {what} within {} s: {lacks}", within.as_secs());
            tokio::time::sleep(EVERY).await;
        }
    }

    /// An error when a node ended by itself that belongs to the cluster.
    ///
    /// # Errors
    /// The end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.nodes.iter_mut().filter(|node| node.is_present()).try_for_each(Node::check)
    }

    /// The node that leads a group.
    ///
    /// # Errors
    /// There is none within the time.
    pub(crate) async fn leader(&mut self, group: u16, within: Duration) -> Result<usize> {
        let mut found = None;
        let names: Vec<_> = self.nodes.iter().map(|n| (n.name.clone(), n.is_up())).collect();
        self.until(within, "leader", |status| {
            let row = status.groups.iter().find(|row| row.group == u32::from(group));
            let Some(row) = row else { return Some(format!("there is no group {group}")) };
            let mut nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
            let leader = nodes.find(|node| node.node == row.leader_node);
            found = leader.and_then(|l| names.iter().position(|(n, up)| *n == l.name && *up));
            found.is_none().then(|| format!("group {group} has no leader that is up"))
        })
        .await?;
        found.context("a leader")
    }
}

/// What keeps a cluster from being settled.
fn unsettled(status: &ClusterStatusResponse, count: usize) -> Option<String> {
    let up = status.nodes.iter().filter(|n| n.reachable && n.stopped_reason.is_empty()).count();
    if up < count || status.groups.is_empty() {
        return Some(format!("{up} of {count} nodes"));
    }
    status.groups.iter().find_map(|group| {
        let wanted = count.min(REPLICAS);
        let healthy = group.replicas.iter().filter(|r| r.voter && r.health == "healthy").count();
        let lacks = group.leader_node.is_empty() || healthy < wanted;
        lacks.then(|| format!("group {}: {healthy} of {wanted} healthy voters", group.group))
    })
}

/// The replicas of a group that nodes of the cluster hold and answer for, by name of the node: a node
/// of a life that is over still tells of its own.
fn replicas_on<'s>(
    status: &'s ClusterStatusResponse,
    group: &'s GroupStatus,
    names: &BTreeSet<String>,
) -> Vec<(&'s str, &'s ReplicaStatus)> {
    let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let names: BTreeMap<_, _> = nodes
        .filter(|node| names.contains(&node.name))
        .map(|node| (&node.node, node.name.as_str()))
        .collect();
    let answered = group.replicas.iter().filter(|replica| !replica.ledger_root.is_empty());
    answered.filter_map(|replica| Some((*names.get(&replica.node)?, replica))).collect()
}

/// Whether the replicas of a group agree; none = they are not all there at one size.
fn roots(replicas: &[(&str, &ReplicaStatus)], all: usize) -> Option<bool> {
    let ((_, first), rest) = replicas.split_first()?;
    let differ = replicas.iter().enumerate().any(|(at, (_, a))| {
        let mut same_size = replicas[..at].iter().filter(|(_, b)| a.ledger_size == b.ledger_size);
        same_size.any(|(_, b)| a.ledger_root != b.ledger_root)
    });
    if differ {
        return Some(false);
    }
    let is_first = |(_, replica): &(&str, &ReplicaStatus)| replica.ledger_size == first.ledger_size;
    (replicas.len() >= all && rest.iter().all(is_first)).then_some(true)
}

/// Why a group is not level.
fn sizes(group: u32, wanted: usize, replicas: &[(&str, &ReplicaStatus)]) -> String {
    let each = replicas.iter().map(|(node, replica)| format!("{node} {}", replica.ledger_size));
    let each = each.collect::<Vec<_>>().join(", ");
    format!("group {group}: {} of {wanted} replicas answer: {each}", replicas.len())
}
