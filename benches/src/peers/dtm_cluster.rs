//! Three `dtm serve` processes, made and joined with the commands of any other cluster, with TLS
//! and all defaults.
//!
//! Owns the processes; dropping it kills them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dtm_client::admin::Admin;
use dtm_client::{Endpoint, TlsFiles};
use dtm_proto::admin::{ClusterStatusRequest, ClusterStatusResponse};
use tokio::process::Command;

use super::dtm_metrics;
use super::dtm_node::Part;
use crate::error::Error;
use crate::process::{Process, Wait, free_ports, write_file};

/// Nodes of the cluster.
pub const NODES: usize = 3;
const ARM: &str = "ours";
const OPERATOR: &str = "admin";
const COMMAND_SECONDS: u64 = 60;
const LOOK_SECONDS: u64 = 20;

/// What the cluster is told beside its defaults.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Ingest groups.
    pub groups: u32,
    /// Connections that one address may hold on a node.
    pub connections: u32,
    /// Parts that the nodes leave out ([`super::dtm_node`]).
    pub without: &'static [Part],
}

/// A running cluster.
#[derive(Debug)]
pub struct DtmCluster {
    folder: PathBuf,
    settings: Settings,
    ports: Vec<u16>,
    /// `None` where a node was killed.
    processes: Vec<Option<Process>>,
}

/// The program: `DTM_BIN`, else beside the load generator.
fn program() -> PathBuf {
    std::env::var_os("DTM_BIN").map_or_else(
        || {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("dtm")
        },
        PathBuf::from,
    )
}

/// Version that the program tells.
pub fn version() -> String {
    std::process::Command::new(program())
        .arg("--version")
        .output()
        .map_or_else(|_| "missing".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().into())
}

/// The error of a client call as an error of the arm.
pub fn failed(what: &str) -> impl Fn(dtm_client::Error) -> Error + '_ {
    move |error| Error::protocol(ARM, format!("{what}: {error}"))
}

impl DtmCluster {
    /// Founds a cluster of three below `folder` and waits until every group has a leader and three
    /// healthy voters and leaders are spread over the nodes.
    ///
    /// # Errors
    /// What a command said, or that the cluster is not complete within two minutes.
    pub async fn start(folder: &Path, settings: Settings) -> Result<Self, Error> {
        let mut cluster = Self {
            folder: folder.to_owned(),
            settings,
            ports: free_ports(NODES * 3)?,
            processes: (0..NODES).map(|_| None).collect(),
        };
        let mut found = words(&["cluster", "init"]);
        found.extend(cluster.node_words(0));
        let groups = cluster.settings.groups.to_string();
        found.extend(words(&["--name", "bench", "--operator", OPERATOR, "--groups", &groups]));
        cluster.dtm(&found).await?;
        cluster.launch(0)?;
        cluster.wait_for("the first node", leaders_missing).await?;
        for node in 1..NODES {
            cluster.join(node).await?;
        }
        cluster.complete().await?;
        // As with the peers, sources come when leaders have settled.
        cluster.wait_for("leaders spread", leaders_crowd).await?;
        Ok(cluster)
    }

    async fn join(&mut self, node: usize) -> Result<(), Error> {
        let made = self.dtm(&words(&["-o", "json", "cluster", "token"])).await?;
        let made: serde_json::Value = serde_json::from_str(&made)
            .map_err(|error| Error::protocol(ARM, format!("cluster token: {error}")))?;
        let token = self.folder.join("join.token");
        write_file(&token, made["token"].as_str().unwrap_or_default())?;
        let mut join = words(&["cluster", "join"]);
        join.extend(self.node_words(node));
        let at = self.address(0);
        join.extend(words(&["--address", &at, "--token-file"]));
        join.push(token.display().to_string());
        self.dtm(&join).await?;
        self.launch(node)
    }

    fn home(&self, node: usize) -> PathBuf {
        self.folder.join(format!("n{}", node + 1))
    }

    fn node_words(&self, node: usize) -> Vec<String> {
        let listen = |door: usize| format!("127.0.0.1:{}", self.ports[node * 3 + door]);
        let home = self.home(node).display().to_string();
        let name = format!("n{}", node + 1);
        words(&[
            "--folder",
            &home,
            "--node",
            &name,
            "--advertise",
            "127.0.0.1",
            "--https",
            &listen(0),
            "--grpc",
            &listen(1),
            "--peers",
            &listen(2),
        ])
    }

    async fn dtm(&self, arguments: &[String]) -> Result<String, Error> {
        let shown = format!("dtm {}", arguments[..2.min(arguments.len())].join(" "));
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("DTM_CONTEXTS", self.folder.join("contexts.toml"))
            .env("DTM_LANG", "en")
            .env_remove("DTM_CONTEXT")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        self.configure(command.as_std_mut());
        let done =
            tokio::time::timeout(Duration::from_secs(COMMAND_SECONDS), command.output()).await;
        let output = done
            .map_err(|_| Error::Timeout { what: shown.clone(), seconds: COMMAND_SECONDS })?
            .map_err(Error::io(format!("run {}", program().display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::protocol(ARM, format!("{shown}: {said}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn configure(&self, command: &mut std::process::Command) {
        let connections = self.settings.connections.to_string();
        command
            .env("DTM__TLS__CONNECTIONS_MAX", &connections)
            .env("DTM__TLS__CONNECTIONS_PER_ADDRESS_MAX", &connections);
    }

    fn launch(&mut self, node: usize) -> Result<(), Error> {
        let mut command = self.serve()?;
        command.arg("--config").arg(self.home(node).join("dtm.toml")).env("DTM_LANG", "en");
        self.configure(&mut command);
        let log = self.folder.join(format!("n{}.log", node + 1));
        self.processes[node] = Some(Process::start("dtm serve", command, &log)?);
        Ok(())
    }

    /// The product, or this program where a part is left out.
    fn serve(&self) -> Result<std::process::Command, Error> {
        let without = self.settings.without;
        if without.is_empty() {
            let mut command = std::process::Command::new(program());
            command.arg("serve");
            return Ok(command);
        }
        let own = std::env::current_exe().map_err(Error::io("find this program"))?;
        let mut command = std::process::Command::new(own);
        let parts: Vec<&str> = without.iter().map(|part| part.name()).collect();
        command.args(["dtm-node", "--without", &parts.join(",")]);
        Ok(command)
    }

    /// Figures without labels that the nodes which run show, summed.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>, Error> {
        let mut sum = BTreeMap::new();
        for node in (0..NODES).filter(|node| self.processes[*node].is_some()) {
            let address = format!("127.0.0.1:{}", self.ports[node * 3]);
            for (name, value) in dtm_metrics::scrape(&address, &self.files(true)).await? {
                *sum.entry(name).or_insert(0.0) += value;
            }
        }
        Ok(sum)
    }

    /// gRPC address of a node.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node * 3 + 1])
    }

    /// What a client needs to trust the nodes, and with `operator` to administer them.
    pub fn files(&self, operator: bool) -> TlsFiles {
        let home = self.home(0);
        let own = |end: &str| operator.then(|| home.join(format!("operator/{OPERATOR}.{end}")));
        TlsFiles { ca: home.join("tls/ca.pem"), certificate: own("pem"), key: own("key") }
    }

    /// Administration through the nodes that run.
    ///
    /// # Errors
    /// Certificate files that cannot be used.
    pub fn admin(&self) -> Result<Admin, Error> {
        let running = (0..NODES).filter(|node| self.processes[*node].is_some());
        let endpoint = Endpoint::new(running.map(|n| self.address(n)), &self.files(true))
            .map_err(failed("endpoint"))?;
        Ok(Admin::new(endpoint.with_shared_connections()))
    }

    /// One node as the operator sees it.
    ///
    /// # Errors
    /// Certificate files that cannot be used.
    pub fn operator(&self, node: usize) -> Result<Endpoint, Error> {
        Endpoint::new([self.address(node)], &self.files(true)).map_err(failed("endpoint"))
    }

    /// What the cluster says about itself.
    ///
    /// # Errors
    /// What the nodes said, or that none answered within 20 s.
    pub async fn status(&self) -> Result<ClusterStatusResponse, Error> {
        look(&self.admin()?).await
    }

    async fn wait_for(
        &mut self,
        what: &str,
        missing: impl Fn(&ClusterStatusResponse) -> bool,
    ) -> Result<(), Error> {
        let admin = self.admin()?;
        let wait = Wait::new(what, 120);
        loop {
            if look(&admin).await.is_ok_and(|status| !missing(&status)) {
                return Ok(());
            }
            for process in self.processes.iter_mut().flatten() {
                process.check_alive()?;
            }
            wait.pause(&mut []).await?;
        }
    }

    /// Waits until every group has a leader and three healthy voters.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub async fn complete(&mut self) -> Result<(), Error> {
        self.wait_for("three healthy voters of every group", incomplete).await
    }

    /// Kills (SIGKILL) the node that leads most groups; returns which.
    ///
    /// # Errors
    /// When no node says who leads.
    pub async fn kill_busiest(&mut self) -> Result<usize, Error> {
        let status = self.status().await?;
        let led = |node: usize| {
            let name = format!("n{}", node + 1);
            let mut named = status.nodes.iter();
            let row = named.find(|n| n.node.as_ref().is_some_and(|row| row.name == name));
            row.map_or(0, |row| row.groups_led)
        };
        let running = (0..NODES).filter(|node| self.processes[*node].is_some());
        let busiest = running.max_by_key(|node| led(*node));
        let node = busiest.ok_or_else(|| Error::protocol(ARM, "no node runs"))?;
        if let Some(mut process) = self.processes[node].take() {
            process.kill();
        }
        Ok(node)
    }

    /// Starts a killed node again and waits until the cluster is complete.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub async fn restart(&mut self, node: usize) -> Result<(), Error> {
        self.launch(node)?;
        self.complete().await
    }

    /// Ids of the processes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().flatten().map(Process::pid).collect()
    }
}

async fn look(admin: &Admin) -> Result<ClusterStatusResponse, Error> {
    let call = admin
        .call(|mut client| async move { client.cluster_status(ClusterStatusRequest {}).await });
    tokio::time::timeout(Duration::from_secs(LOOK_SECONDS), call)
        .await
        .map_err(|_| Error::Timeout { what: "cluster status".to_owned(), seconds: LOOK_SECONDS })?
        .map_err(failed("cluster status"))
}

fn leaders_missing(status: &ClusterStatusResponse) -> bool {
    !status.meta_current || status.groups.iter().any(|g| g.leader_node.is_empty())
}

/// Some node leads at least two groups more than another.
fn leaders_crowd(status: &ClusterStatusResponse) -> bool {
    let led = || status.nodes.iter().map(|node| node.groups_led);
    led().max().unwrap_or(0) > led().min().unwrap_or(0) + 1
}

fn incomplete(status: &ClusterStatusResponse) -> bool {
    let good = status.nodes.iter().filter(|n| n.reachable).count();
    let healthy = |group: &dtm_proto::admin::GroupStatus| {
        let voters = group.replicas.iter();
        voters.filter(|r| r.voter && r.health == "healthy").count() >= NODES
    };
    good < NODES
        || status.groups.is_empty()
        || leaders_missing(status)
        || !status.groups.iter().all(healthy)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
