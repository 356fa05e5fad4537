//! Reads `/metrics` of a node with the operator's certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_client::TlsFiles;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::Error;

const ARM: &str = "ours";
const SECONDS: u64 = 10;
/// Far above what a node shows.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The figures without labels that the node at `address` shows, by name.
///
/// # Errors
/// Files, connection, or an answer that is none within 10 s.
pub async fn scrape(address: &str, files: &TlsFiles) -> Result<BTreeMap<String, f64>, Error> {
    let late = |_| Error::Timeout { what: "metrics".to_owned(), seconds: SECONDS };
    let text = tokio::time::timeout(Duration::from_secs(SECONDS), get(address, files))
        .await
        .map_err(late)?;
    let text = text?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if !head.starts_with("HTTP/1.1 200") {
        let first = head.lines().next().unwrap_or_default();
        return Err(Error::protocol(ARM, format!("metrics: {first}")));
    }
    let figures = body.lines().filter_map(|line| line.split_once(' '));
    Ok(figures.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

async fn get(address: &str, files: &TlsFiles) -> Result<String, Error> {
    let what = || Error::io(format!("metrics of {address}"));
    let tcp = TcpStream::connect(address).await.map_err(what())?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let name = ServerName::try_from(host.clone())
        .map_err(|error| Error::protocol(ARM, error.to_string()))?;
    let mut stream = TlsConnector::from(config(files)?).connect(name, tcp).await.map_err(what())?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(what())?;
    let mut text = String::new();
    let read = (&mut stream).take(ANSWER_BYTES_MAX).read_to_string(&mut text).await;
    match read {
        // Everything was read: the server just did not take leave.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(text),
        read => read.map(|_| text).map_err(what()),
    }
}

fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::protocol(ARM, format!("metrics: {error}"));
    let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else {
        return Err(wrong(&"no operator certificate"));
    };
    let read = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| wrong(&e))
    };
    let mut roots = RootCertStore::empty();
    for root in read(&files.ca)? {
        roots.add(root).map_err(|e| wrong(&e))?;
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| wrong(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(read(certificate)?, key)
        .map_err(|e| wrong(&e))?;
    Ok(Arc::new(config))
}
