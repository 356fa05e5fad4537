//! Three RabbitMQ nodes with an epmd of their own, so that nothing of the Debian service is
//! touched.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::peers::amqp::Amqp;
use crate::process::{Process, Wait, free_ports, write_file};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const EPMD: &str = "/usr/bin/epmd";

/// A running cluster.
#[derive(Debug)]
pub struct RabbitCluster {
    processes: Vec<Process>,
    /// AMQP port of each node.
    pub ports: Vec<u16>,
    /// Version that the nodes tell.
    pub version: String,
}

impl RabbitCluster {
    /// Starts the nodes below `folder`, the first one alone, so that the others find it.
    ///
    /// # Errors
    /// When a program is missing or the cluster is not complete in time.
    pub async fn start(folder: &Path) -> Result<Self, Error> {
        let ports = free_ports(7)?;
        let epmd = ports[6];
        let cookie = folder.join(".erlang.cookie");
        write_file(&cookie, "BENCHBENCHBENCHBENCH")?;
        std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400))
            .map_err(Error::io("protect the cookie"))?;
        let mut command = Command::new(EPMD);
        command.args(["-port", &epmd.to_string(), "-address", "127.0.0.1"]);
        let log = folder.join("epmd.log");
        let mut cluster = Self {
            processes: vec![Process::start("epmd", command, &log)?],
            ports: ports[..3].to_vec(),
            version: String::new(),
        };
        for node in 0..3 {
            let command = server(folder, node, ports[node], ports[3 + node], epmd)?;
            let log = folder.join(format!("rb{node}.log"));
            cluster.processes.push(Process::start("rabbitmq-server", command, &log)?);
            if node == 0 {
                cluster.wait(&ports[..1]).await?;
            }
        }
        cluster.wait(&ports[..3]).await?;
        cluster.check_members(folder, epmd).await?;
        Ok(cluster)
    }

    async fn wait(&mut self, ports: &[u16]) -> Result<(), Error> {
        let wait = Wait::new("RabbitMQ nodes", 120);
        for port in ports {
            while Amqp::open(*port).await.is_err() {
                wait.pause(&mut self.processes).await?;
            }
        }
        Ok(())
    }

    async fn check_members(&mut self, folder: &Path, epmd: u16) -> Result<(), Error> {
        let wait = Wait::new("three RabbitMQ nodes in one cluster", 60);
        loop {
            let mut command = tokio::process::Command::new(CTL);
            command
                .args(["-q", "-n", "rb0@localhost", "cluster_status", "--formatter", "json"])
                .env("HOME", folder)
                .env("ERL_EPMD_PORT", epmd.to_string())
                .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
            let output = command.output().await.map_err(Error::io(CTL))?;
            let status = serde_json::from_slice::<serde_json::Value>(&output.stdout);
            let status = status.unwrap_or_default();
            if status["running_nodes"].as_array().is_some_and(|nodes| nodes.len() == 3) {
                let said = status["versions"]["rb0@localhost"]["rabbitmq_version"].as_str();
                self.version = said.unwrap_or_default().to_owned();
                return Ok(());
            }
            wait.pause(&mut self.processes).await?;
        }
    }

    /// Process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }
}

fn server(folder: &Path, node: usize, port: u16, dist: u16, epmd: u16) -> Result<Command, Error> {
    let home = folder.join(format!("rb{node}"));
    let config = home.join("rabbitmq.conf");
    let text = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\n\
         cluster_formation.peer_discovery_backend = classic_config\n\
         cluster_formation.classic_config.nodes.1 = rb0@localhost\n\
         cluster_formation.classic_config.nodes.2 = rb1@localhost\n\
         cluster_formation.classic_config.nodes.3 = rb2@localhost\n\
         cluster_formation.randomized_startup_delay_range.min = 0\n\
         cluster_formation.randomized_startup_delay_range.max = 1\n\
         vm_memory_high_watermark.relative = 0.6\ndisk_free_limit.absolute = 1GB\n\
         log.console = false\nlog.file.level = error\n"
    );
    write_file(&config, &text)?;
    write_file(&home.join("plugins"), "[].\n")?;
    write_file(&home.join("log/.keep"), "")?;
    let mut command = Command::new(SERVER);
    command
        .env("HOME", folder)
        .env("RABBITMQ_NODENAME", format!("rb{node}@localhost"))
        .env("RABBITMQ_DIST_PORT", dist.to_string())
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILE", &config)
        .env("RABBITMQ_MNESIA_BASE", home.join("data"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
        .env("RABBITMQ_PID_FILE", home.join("pid"))
        // Schedulers that spin while they wait would only take the cores from the others.
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
        );
    Ok(command)
}
