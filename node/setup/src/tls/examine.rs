//! Looks at certificate, key and root without taking them into use: everything that is wrong with
//! them at once, for `dtm config check`.

use std::path::Path;
use std::time::Duration;

use dtm_identity::Identity;
use dtm_types::text::Told;
use dtm_types::{ClusterId, NodeId};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::material::{node_certificate, private_key, roots};
use super::{VERSIONS, provider};
use crate::config::Tls;
use crate::pki;

/// What is wrong with a file that a key of the configuration names, and what to do.
pub type Fault = (&'static str, Told, Told);

/// Every fault of the three files. What was refused already under a key is not read again.
pub fn examine(tls: &Tls, now_us: i64, is_refused: impl Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut chain = None;
    if !is_refused("tls.certificate") {
        let read = pki::read_certificates(&tls.certificate).map_err(super::Error::from);
        let read = read.and_then(|chain| node_certificate(&tls.certificate, &chain).map(|_| chain));
        match read {
            Ok(found) => chain = Some(found),
            Err(error) => faults.push(unusable("tls.certificate", &error)),
        }
    }
    let mut root = None;
    if !is_refused("tls.ca") {
        let read = pki::read_certificates(&tls.ca).map_err(super::Error::from);
        match read.and_then(|found| roots(&tls.ca, &found)) {
            Ok(found) => root = Some(found),
            Err(error) => faults.push(unusable("tls.ca", &error)),
        }
    }
    if !is_refused("tls.key") {
        match private_key(&tls.key) {
            Err(error) => faults.push(unusable("tls.key", &error)),
            Ok(key) => {
                let fits = chain.as_ref().is_none_or(|chain| {
                    let config = ServerConfig::builder_with_provider(provider())
                        .with_protocol_versions(VERSIONS)
                        .map(|builder| builder.with_no_client_auth());
                    config.is_ok_and(|c| c.with_single_cert(chain.clone(), key).is_ok())
                });
                if !fits {
                    let what = Told::new("check.key_of_another").with("file", tls.key.display());
                    let what = what.with("certificate", tls.certificate.display());
                    faults.push(("tls.key", what, Told::new("check.remedy.key")));
                }
            }
        }
    }
    if let (Some(chain), Some(root)) = (chain, root) {
        faults.extend(chain_fault(tls, &chain, root, now_us));
    }
    faults
}

/// The cluster and node that a certificate names; nothing where it names none.
pub fn named_node(certificate: &Path) -> Option<(ClusterId, NodeId)> {
    let chain = pki::read_certificates(certificate).ok()?;
    match node_certificate(certificate, &chain).ok()?.identity {
        Identity::Node { cluster, node } => Some((cluster, node)),
        _ => None,
    }
}

fn unusable(key: &'static str, error: &super::Error) -> Fault {
    let remedy = match key {
        "tls.key" => "check.remedy.key",
        "tls.ca" => "check.remedy.ca",
        _ => "check.remedy.certificate",
    };
    (key, Told::new("check.unusable").with("what", error), Told::new(remedy))
}

/// Whether the other nodes would take the certificate: signed by the cluster's root, in its time.
fn chain_fault(
    tls: &Tls,
    chain: &[CertificateDer<'static>],
    root: rustls::RootCertStore,
    now_us: i64,
) -> Option<Fault> {
    let builder = WebPkiClientVerifier::builder_with_provider(root.into(), provider());
    let now = UnixTime::since_unix_epoch(Duration::from_micros(now_us.unsigned_abs()));
    let checked = builder.build().map_err(|error| error.to_string()).map(|verifier| {
        let (own, above) = chain.split_first().expect("a certificate file holds at least one");
        verifier.verify_client_cert(own, above, now)
    });
    let file = |key| Told::new(key).with("file", tls.certificate.display());
    let mut key = "tls.certificate";
    let (what, remedy) = match checked {
        Ok(Ok(_)) => return None,
        Ok(Err(rustls::Error::InvalidCertificate(cause))) => match cause {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                (file("check.expired"), "check.remedy.certificate")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                (file("check.not_yet"), "check.remedy.clock")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                key = "tls.ca";
                (file("check.other_root").with("ca", tls.ca.display()), "check.remedy.ca")
            }
            other => (
                file("check.not_taken").with("what", format!("{other:?}")),
                "check.remedy.certificate",
            ),
        },
        Ok(Err(other)) => (file("check.not_taken").with("what", other), "check.remedy.certificate"),
        Err(cause) => (file("check.not_taken").with("what", cause), "check.remedy.ca"),
    };
    Some((key, what, Told::new(remedy)))
}
