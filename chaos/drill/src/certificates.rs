//! Certificates of nodes: renewed one node after the other, and looked at from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_identity::Certificate;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::{Cluster, EVERY};
use crate::hands::Drilled;

/// Longest wait for a handshake.
const SHAKEN_WITHIN: Duration = Duration::from_secs(5);

impl Drilled {
    /// Renews the certificate of every node, one after the other. Each of its ports has to show the
    /// new one, which has to be another than the one that the port showed before.
    ///
    /// # Errors
    /// What the command said; a port that shows another certificate at the end of the time.
    pub(crate) fn rotate_certificates(&mut self, within: Duration) -> Result<String> {
        let end = Instant::now() + within;
        let mut told = Vec::new();
        for at in self.cluster.present() {
            let before = self.runtime.block_on(self.cluster.shown(at))?;
            let name = self.cluster.nodes[at].name.clone();
            let words = ["-o", "json", "cluster", "renew", &name, "--reason", "drill"];
            let said: serde_json::Value =
                serde_json::from_str(&self.command(&words)?).context("cluster renew")?;
            let serial = said["renewed"][0]["serial"].as_str().context("cluster renew")?;
            let former = said["renewed"][0]["former_serial"].as_str().context("cluster renew")?;
            for (door, shown) in &before {
                ensure!(shown == former, "{name} {door} showed {shown}, not {former}");
                ensure!(shown != serial, "{name} {door} showed {serial} before");
            }
            self.runtime.block_on(self.cluster.shows(at, serial, end))?;
            let doors = before.iter().map(|(door, _)| *door).collect::<Vec<_>>().join(", ");
            told.push(format!("{name} {doors}: {former} → {serial}"));
        }
        ensure!(!told.is_empty(), "no node is left");
        Ok(told.join("; "))
    }
}

impl Cluster {
    /// Waits until every port of a node shows the certificate of this serial number.
    async fn shows(&self, at: usize, serial: &str, end: Instant) -> Result<()> {
        loop {
            let shown = self.shown(at).await?;
            let Some((door, other)) = shown.iter().find(|(_, shown)| shown != serial) else {
                return Ok(());
            };
            let name = &self.nodes[at].name;
            ensure!(Instant::now() < end, "{name} {door} shows {other}, not {serial}");
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The serial number (hexadecimal) that each port of a node shows to a new connection.
    async fn shown(&self, at: usize) -> Result<Vec<(&'static str, String)>> {
        let listen = self.nodes[at].listen;
        let doors = [("https", listen.https), ("grpc", listen.grpc), ("peers", listen.peers)];
        let mut shown = Vec::with_capacity(doors.len());
        for (door, address) in doors {
            let serial = tokio::time::timeout(SHAKEN_WITHIN, self.serial(address)).await;
            let serial = serial.context("no handshake in time").and_then(|serial| serial);
            let name = &self.nodes[at].name;
            shown.push((door, serial.with_context(|| format!("{name} {door}"))?));
        }
        Ok(shown)
    }

    /// Under the cluster's root, and for the address that is called. Nobody is let in by this: the
    /// peers' port shows itself before it asks who calls.
    async fn serial(&self, address: SocketAddr) -> Result<String> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(self.source_files().ca)? {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let own = Certificate::parse(shown.context("no certificate is shown")?)?;
        Ok(hex::encode(own.serial))
    }
}
