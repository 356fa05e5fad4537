//! Opens an entry page over HTTPS, as a browser without a certificate does.

use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

const HTTPS_PORT: u16 = 443;
/// More of a page is not read: it has opened.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// A page to open.
#[derive(Clone, Debug)]
pub(super) struct Page {
    uri: Uri,
    host: String,
    name: ServerName<'static>,
}

impl Page {
    /// From `https://HOST[:PORT]/PATH`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::usage("cli.availability.page", &[("found", text)]);
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        Ok(Self { uri, host, name })
    }

    /// How the account calls it.
    pub(super) fn address(&self) -> String {
        self.uri.authority().map(ToString::to_string).unwrap_or_default()
    }

    /// Opens it, to its end.
    ///
    /// # Errors
    /// Why it did not open, in words.
    pub(super) async fn open(&self, tls: Arc<ClientConfig>) -> Result<(), String> {
        let port = self.uri.port_u16().unwrap_or(HTTPS_PORT);
        let told = |what: &str, why: &dyn std::fmt::Display| format!("{what}: {why}");
        let tcp = TcpStream::connect((self.host.as_str(), port)).await;
        let tcp = tcp.map_err(|e| told("connect", &e))?;
        let stream = TlsConnector::from(tls).connect(self.name.clone(), tcp).await;
        let stream = TokioIo::new(stream.map_err(|e| told("TLS", &e))?);
        let (mut sender, connection) =
            http1::handshake(stream).await.map_err(|e| told("HTTP", &e))?;
        let asked = Request::get(self.uri.path_and_query().map_or("/", |path| path.as_str()))
            .header("Host", self.address())
            .header("Accept", "text/html")
            .body(Empty::<Bytes>::new())
            .map_err(|e| told("request", &e))?;
        let answer = async {
            let response = sender.send_request(asked).await.map_err(|e| told("HTTP", &e))?;
            let status = response.status();
            // What asks who one is has opened: the page of sign-in comes with 401, or by a
            // redirection.
            let asks = status.is_redirection() || status == StatusCode::UNAUTHORIZED;
            if !status.is_success() && !asks {
                return Err(told("status", &status));
            }
            let body = Limited::new(response.into_body(), PAGE_BYTES_MAX);
            body.collect().await.map(drop).map_err(|e| told("body", &e))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answered = &mut answer => answered,
            ended = connection => match ended {
                // Its end and the last of the answer come together.
                Ok(()) => answer.await,
                Err(error) => Err(told("HTTP", &error)),
            },
        }
    }
}

/// Trusts what this file of certificates names.
pub(super) fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let failed =
        |why: String| Failure::file(ca)(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(ca).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_https_with_a_host() {
        let page = Page::parse("https://n1.example.vn:8443/").expect("a page");
        assert_eq!(page.address(), "n1.example.vn:8443");
        assert_eq!(Page::parse("https://[::1]:8443/x").expect("a page").host, "::1");
        for wrong in ["http://n1:8443/", "n1:8443", "https://", "/", ""] {
            assert!(Page::parse(wrong).is_err(), "{wrong}");
        }
    }
}
