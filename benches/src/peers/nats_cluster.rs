//! Three `nats-server` processes with JetStream on file storage.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::error::Error;
use crate::peers::nats_wire::Connection;
use crate::process::{Process, Wait, free_ports, write_file};
use crate::tree;

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// How long one answer of a starting node is waited for.
const LEADS_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// A running cluster.
#[derive(Debug)]
pub struct NatsCluster {
    processes: Vec<Process>,
    ports: Vec<u16>,
}

fn program() -> PathBuf {
    tree::benches().join(".peers/bin/nats-server")
}

/// Version that the installed server tells.
pub fn version() -> String {
    Command::new(program())
        .arg("--version")
        .output()
        .map_or_else(|_| "missing".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().into())
}

impl NatsCluster {
    /// Starts the nodes below `folder`; with `always` each write is synced before its ack.
    ///
    /// # Errors
    /// When the program is missing or the cluster has no leader within 30 s.
    pub async fn start(folder: &Path, always: bool) -> Result<Self, Error> {
        let ports = free_ports(2 * NODES)?;
        let (ports, routes) = ports.split_at(NODES);
        let all: Vec<String> =
            routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut processes = Vec::new();
        for node in 0..NODES {
            let home = folder.join(format!("n{node}"));
            let sync = if always { "sync_interval: always" } else { "" };
            // 500 sources with 32 in flight are more than the default of 10,000 waiting messages.
            let text = format!(
                "server_name: n{node}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 8MB\n\
                 jetstream {{ store_dir: \"{}\", {sync}\n max_file_store: 64GB\n max_memory_store: 1GB\n \
                 max_buffered_msgs: 200000\n max_buffered_size: 2GB }}\n\
                 cluster {{ name: bench, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                ports[node],
                home.join("js").display(),
                routes[node],
                all.join(", "),
            );
            let file = home.join("nats.conf");
            write_file(&file, &text)?;
            let mut command = Command::new(program());
            command.arg("-c").arg(&file);
            processes.push(Process::start("nats-server", command, &home.join("log"))?);
        }
        let mut cluster = Self { processes, ports: ports.to_vec() };
        let wait = Wait::new("JetStream of three nodes", 30);
        for port in ports {
            // The list of names is answered only when the meta group has a leader.
            while !leads(*port).await {
                wait.pause(&mut cluster.processes).await?;
            }
        }
        Ok(cluster)
    }

    /// Client port of a node.
    pub fn port(&self, node: usize) -> u16 {
        self.ports[node]
    }

    /// Process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Creates a stream of three replicas on files; returns the node that leads it. The first
    /// tries may fail while the nodes still find each other.
    ///
    /// # Errors
    /// When it is not created within 20 s.
    pub async fn create_stream(&mut self, name: &str) -> Result<usize, Error> {
        let config = json!({
            "name": name, "subjects": [format!("{name}.*")], "retention": "limits",
            "storage": "file", "num_replicas": NODES, "discard": "new", "max_age": 0,
            "max_msgs": -1, "max_bytes": -1, "max_msg_size": -1, "duplicate_window": 100_000_000,
        });
        let port = self.ports[0];
        let subject = format!("$JS.API.STREAM.CREATE.{name}");
        let wait = Wait::new(&subject, 20);
        while ask(port, &subject, &config).await.is_err() {
            wait.pause(&mut self.processes).await?;
        }
        let info = self.settled(name).await?;
        leader_of(&info).ok_or_else(|| Error::protocol("nats", format!("no leader: {info}")))
    }

    /// Waits until all replicas of a stream hold everything; returns its description.
    ///
    /// # Errors
    /// When that takes longer than 60 s.
    pub async fn settled(&mut self, stream: &str) -> Result<Value, Error> {
        let port = self.ports[0];
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let wait = Wait::new(&format!("all replicas of {stream}"), 60);
        loop {
            let info = ask(port, &subject, &json!({})).await.unwrap_or_default();
            let replicas = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
            let level = |replica: &Value| {
                replica["current"] == json!(true) && replica["lag"].as_u64().unwrap_or(0) == 0
            };
            if replicas.len() == NODES - 1
                && replicas.iter().all(level)
                && leader_of(&info).is_some()
            {
                return Ok(info);
            }
            wait.pause(&mut self.processes).await?;
        }
    }

    /// Ends all nodes.
    pub fn stop(&mut self) {
        self.processes.clear();
    }
}

/// Whether JetStream answers: before its meta group has a leader a question gets no answer at all.
async fn leads(port: u16) -> bool {
    let asked = json!({});
    let asking = ask(port, "$JS.API.STREAM.NAMES", &asked);
    matches!(tokio::time::timeout(LEADS_WAIT, asking).await, Ok(Ok(_)))
}

async fn ask(port: u16, subject: &str, body: &Value) -> Result<Value, Error> {
    Connection::open(port, "_I.ask").await?.request(subject, body).await
}

/// Index of the node that leads what `info` describes.
pub fn leader_of(info: &Value) -> Option<usize> {
    info["cluster"]["leader"].as_str()?.strip_prefix('n')?.parse().ok()
}
