//! Pages of a node's HTTPS port, with the operator's certificate.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::Cluster;

const WITHIN: Duration = Duration::from_secs(10);
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// The page at `path` of one node.
pub(crate) async fn page(cluster: &Cluster, at: usize, path: &str) -> Result<String> {
    let answer = get(cluster, at, path, Some(config(cluster)?), "");
    let text = tokio::time::timeout(WITHIN, answer).await.context("no page in time")??;
    ensure!(text.starts_with("HTTP/1.1 200"), "{path}: {:?}", text.lines().next());
    Ok(text)
}

/// What a browser without a certificate gets, with this cookie: head and body.
pub(crate) async fn browse(
    cluster: &Cluster,
    at: usize,
    path: &str,
    cookie: &str,
) -> Result<String> {
    let answer = get(cluster, at, path, None, cookie);
    tokio::time::timeout(WITHIN, answer).await.context("no page in time")?
}

/// The sum over all nodes of a metric's series with these labels, as `name{labels}`.
pub(crate) async fn metric(cluster: &Cluster, series: &str) -> Result<f64> {
    let mut sum = 0.0;
    for at in cluster.present() {
        sum += metric_at(cluster, at, series).await?;
    }
    Ok(sum)
}

/// The same of one node.
pub(crate) async fn metric_at(cluster: &Cluster, at: usize, series: &str) -> Result<f64> {
    let text = page(cluster, at, "/metrics").await?;
    let values = text.lines().filter_map(|line| line.strip_prefix(series));
    Ok(values.filter_map(|value| value.trim().parse::<f64>().ok()).sum())
}

async fn get(
    cluster: &Cluster,
    at: usize,
    path: &str,
    operator: Option<Arc<ClientConfig>>,
    cookie: &str,
) -> Result<String> {
    let node = &cluster.nodes[at];
    let tcp = TcpStream::connect((node.host, node.ports[0].port())).await?;
    let name = ServerName::try_from(node.host.to_string())?;
    let config = match operator {
        Some(config) => config,
        None => Arc::new(trusting(cluster)?.with_no_client_auth()),
    };
    let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\nCookie: {cookie}\r\n\
         Connection: close\r\n\r\n",
        node.host
    );
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    match (&mut stream).take(PAGE_BYTES_MAX).read_to_string(&mut text).await {
        // Everything was read: the server just did not take leave.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        read => drop(read?),
    }
    Ok(text)
}

fn config(cluster: &Cluster) -> Result<Arc<ClientConfig>> {
    let operator = cluster.nodes[0].folder.join("operator");
    let chain = CertificateDer::pem_file_iter(operator.join("admin.pem"))?;
    let key = PrivateKeyDer::from_pem_file(operator.join("admin.key"))?;
    let config = trusting(cluster)?;
    Ok(Arc::new(config.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?))
}

/// Trusts the cluster's root.
fn trusting(cluster: &Cluster) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(cluster.source_files().ca)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots))
}
