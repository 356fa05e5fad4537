//! The cluster of the demo: three nodes, made and joined with the same commands as any other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dtm_client::admin::Admin;
use dtm_client::{Endpoint, TlsFiles};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::node::{Listen, Node};
use crate::ports;
use crate::say::Say;
use crate::scratch::Scratch;

/// Nodes.
pub(crate) const NODES: usize = 3;
/// Longest time for one command.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Operator of the demo.
const OPERATOR: &str = "admin";

/// Three nodes and how to talk to them.
#[derive(Debug)]
pub(crate) struct Cluster {
    dtm: PathBuf,
    scratch: Scratch,
    say: Say,
    /// The nodes, n1 first.
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Chooses addresses; nothing is started.
    ///
    /// # Errors
    /// Where no ports are free.
    pub(crate) fn plan(dtm: PathBuf, scratch: Scratch, say: Say) -> Result<Self> {
        let addresses = ports::free(NODES * 3).context("ports")?;
        let nodes = addresses.chunks_exact(3).enumerate().map(|(at, ports)| {
            let name = format!("n{}", at + 1);
            let listen = Listen { https: ports[0], grpc: ports[1], peers: ports[2] };
            Node::new(
                name.clone(),
                listen,
                scratch.path(&name),
                scratch.path(&format!("{name}.log")),
            )
        });
        Ok(Self { nodes: nodes.collect(), dtm, scratch, say })
    }

    /// `dtm cluster init` and the first process.
    ///
    /// # Errors
    /// What the command or the process said.
    pub(crate) async fn found(&mut self) -> Result<()> {
        let mut arguments = vec!["cluster".to_owned(), "init".to_owned()];
        arguments.extend(self.node_arguments(0));
        let rest = ["--name", "demo", "--operator", OPERATOR];
        arguments.extend(rest.map(str::to_owned));
        self.dtm(&arguments).await?;
        self.start(0)
    }

    /// `dtm cluster token`, `dtm cluster join` and the process of a further node.
    ///
    /// # Errors
    /// What the commands or the process said.
    pub(crate) async fn join(&mut self, at: usize) -> Result<()> {
        let made = Zeroizing::new(self.dtm(&["-o", "json", "cluster", "token"]).await?);
        let token = serde_json::from_str::<serde_json::Value>(&made).context("cluster token")?;
        let token = Zeroizing::new(token["token"].as_str().unwrap_or_default().to_owned());
        let file = self.scratch.path("join.token");
        write_secret(&file, &token)?;
        let mut arguments = vec!["cluster".to_owned(), "join".to_owned()];
        arguments.extend(self.node_arguments(at));
        let address = self.nodes[0].listen.grpc.to_string();
        let path = file.display().to_string();
        arguments.extend(["--address".to_owned(), address, "--token-file".to_owned(), path]);
        let joined = self.dtm(&arguments).await;
        std::fs::remove_file(&file).context("join.token")?;
        joined?;
        self.start(at)
    }

    fn node_arguments(&self, at: usize) -> Vec<String> {
        let node = &self.nodes[at];
        let Listen { https, grpc, peers } = node.listen;
        let pairs = [
            ("--folder", node.folder.display().to_string()),
            ("--node", node.name.clone()),
            ("--advertise", "127.0.0.1".to_owned()),
            ("--https", https.to_string()),
            ("--grpc", grpc.to_string()),
            ("--peers", peers.to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn start(&mut self, at: usize) -> Result<()> {
        let pid = self.nodes[at].start(&self.dtm, self.say)?;
        self.scratch.note_pid(pid)
    }

    /// An error with the end of its log when a node ended by itself.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn check(&mut self) -> Result<()> {
        let say = self.say;
        self.nodes.iter_mut().try_for_each(|node| node.check(say))
    }

    /// Stops every node that runs, all at once.
    pub(crate) async fn stop(&mut self) {
        let mut nodes = self.nodes.iter_mut();
        if let [Some(a), Some(b), Some(c)] = [nodes.next(), nodes.next(), nodes.next()] {
            tokio::join!(a.stop(), b.stop(), c.stop());
        }
    }

    /// Runs a command of `dtm` with the contexts of the demo; its standard output.
    ///
    /// # Errors
    /// What it said, or that it took too long.
    pub(crate) async fn dtm<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = Command::new(&self.dtm);
        command
            .args(arguments)
            .env("DTM_CONTEXTS", self.contexts())
            .env("DTM_LANG", self.say.pick("vi", "en"))
            .env_remove("DTM_CONTEXT")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let words = arguments.iter().take(3).map(|a| a.as_ref().to_string_lossy().into_owned());
        let shown = format!("dtm {}", words.collect::<Vec<_>>().join(" "));
        let done = tokio::time::timeout(COMMAND_WITHIN, command.output()).await;
        let output = done.with_context(|| self.say.text("too_long", &[("what", &shown)]))?;
        let output = output.with_context(|| self.dtm.display().to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("{shown}: {}: {said}", output.status);
        }
        String::from_utf8(output.stdout).context("dtm writes UTF-8")
    }

    /// gRPC addresses of all nodes.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.listen.grpc.to_string()).collect()
    }

    /// What is needed to speak as the operator.
    pub(crate) fn operator_files(&self) -> TlsFiles {
        let operator = self.nodes[0].folder.join("operator");
        TlsFiles {
            certificate: Some(operator.join(format!("{OPERATOR}.pem"))),
            key: Some(operator.join(format!("{OPERATOR}.key"))),
            ..self.source_files()
        }
    }

    /// What a source needs beside its key.
    pub(crate) fn source_files(&self) -> TlsFiles {
        TlsFiles { ca: self.nodes[0].folder.join("tls/ca.pem"), certificate: None, key: None }
    }

    /// Administration, through whatever running node answers.
    ///
    /// # Errors
    /// Certificate files that cannot be used.
    pub(crate) fn admin(&self) -> Result<Admin> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        let addresses: Vec<_> = running.map(|node| node.listen.grpc.to_string()).collect();
        let endpoint = Endpoint::new(addresses, &self.operator_files())?;
        Ok(Admin::new(endpoint.with_connect_timeout(Duration::from_secs(2))))
    }

    /// The contexts file of the demo.
    pub(crate) fn contexts(&self) -> PathBuf {
        self.scratch.path("contexts.toml")
    }

    /// A path in the scratch folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// The binary.
    pub(crate) fn binary(&self) -> &Path {
        &self.dtm
    }
}

/// A new file of mode 0600.
///
/// # Errors
/// What the operating system said.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let shown = || path.display().to_string();
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| writeln!(file, "{text}")).with_context(shown)
}
