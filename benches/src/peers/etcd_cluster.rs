//! Three `etcd` processes.

use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::peers::etcd_api::{Client, Put};
use crate::process::{Process, Wait, free_ports};

const PROGRAM: &str = "/usr/bin/etcd";

/// A running cluster.
#[derive(Debug)]
pub struct EtcdCluster {
    processes: Vec<Process>,
    /// Client port of each node.
    pub ports: Vec<u16>,
    /// The node that leads.
    pub leader: usize,
    /// Version that the nodes tell.
    pub version: String,
}

impl EtcdCluster {
    /// Starts the nodes below `folder`.
    ///
    /// # Errors
    /// When the program is missing or there is no leader within 30 s.
    pub async fn start(folder: &Path) -> Result<Self, Error> {
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let members: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(node, port)| format!("e{node}=http://127.0.0.1:{port}"))
            .collect();
        let mut processes = Vec::new();
        for node in 0..3 {
            let home = folder.join(format!("e{node}"));
            std::fs::create_dir_all(&home).map_err(Error::io("create a folder for etcd"))?;
            let (client, peer) = (clients[node], peers[node]);
            let mut command = Command::new(PROGRAM);
            command
                .args(["--name", &format!("e{node}")])
                .arg("--data-dir")
                .arg(home.join("data"))
                .args(["--listen-client-urls", &format!("http://127.0.0.1:{client}")])
                .args(["--advertise-client-urls", &format!("http://127.0.0.1:{client}")])
                .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
                .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{peer}")])
                .args(["--initial-cluster", &members.join(",")])
                .args(["--quota-backend-bytes", "17179869184", "--max-request-bytes", "8388608"])
                .args(["--logger", "zap", "--log-level", "error"]);
            processes.push(Process::start("etcd", command, &home.join("log"))?);
        }
        let mut cluster =
            Self { processes, ports: clients.to_vec(), leader: 0, version: String::new() };
        let wait = Wait::new("a leader of three etcd nodes", 30);
        loop {
            if let Some(found) = leader(&cluster.ports).await {
                (cluster.leader, cluster.version) = found;
                return Ok(cluster);
            }
            wait.pause(&mut cluster.processes).await?;
        }
    }

    /// Process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }
}

/// The node that leads, once all three agree and a write went through.
async fn leader(ports: &[u16]) -> Option<(usize, String)> {
    let mut found = None;
    let mut leaders = Vec::new();
    for (node, port) in ports.iter().enumerate() {
        let status = Client::connect(*port).await.ok()?.status().await.ok()?;
        leaders.push(status.leader);
        if status.leader != 0 && status.header.map(|header| header.member_id) == Some(status.leader)
        {
            found = Some((node, status.version));
        }
    }
    leaders.dedup();
    let (node, version) = found.filter(|_| leaders.len() == 1)?;
    let put = Put { key: bytes::Bytes::from_static(b"ready"), value: bytes::Bytes::new() };
    Client::connect(ports[node]).await.ok()?.put(put).await.ok()?;
    Some((node, version))
}
