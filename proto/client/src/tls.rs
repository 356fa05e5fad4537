//! TLS 1.3 under the cluster's own CA.

use crate::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the certificates lie, all PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// CA certificates that servers are checked against.
    pub ca: PathBuf,
    /// The client's own certificate chain, where it signs in by certificate.
    pub certificate: Option<PathBuf>,
    /// Key of that certificate.
    pub key: Option<PathBuf>,
}

/// Reads the files into a configuration that speaks TLS 1.3 and HTTP/2 only.
pub(crate) fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, Error> {
    check_issuer(files)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|e| refused(&files.ca, e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| refused(&files.ca, e))?
        .with_root_certificates(roots);
    let mut config = match (&files.certificate, &files.key) {
        (Some(chain), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| refused(key, e))?;
            builder
                .with_client_auth_cert(certificates(chain)?, key_der)
                .map_err(|e| refused(chain, e))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(one), None) | (None, Some(one)) => {
            return Err(refused(one, "certificate and key belong together"));
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Refuses a certificate that was not issued under the CA: the server would end such a connection
/// without a word that names the cause.
fn check_issuer(files: &TlsFiles) -> Result<(), Error> {
    let Some(file) = &files.certificate else { return Ok(()) };
    let (chain, mut roots) = (certificates(file)?, RootCertStore::empty());
    roots.add_parsable_certificates(certificates(&files.ca)?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    // What else may be wrong with it, such as its age, is for the server to judge.
    let Ok(verifier) = verifier else { return Ok(()) };
    match verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Err(Error::OtherCluster {
            file: file.display().to_string(),
            ca: files.ca.display().to_string(),
        }),
        _ => Ok(()),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|e| refused(file, e))?;
    if certificates.is_empty() {
        return Err(refused(file, "it holds no certificate"));
    }
    Ok(certificates)
}

fn refused(file: &Path, reason: impl Display) -> Error {
    Error::Certificate { file: file.display().to_string(), reason: reason.to_string() }
}
