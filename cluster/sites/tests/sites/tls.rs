//! Certificates of nodes, from a CA of the test.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_sites::SiteTls;
use dtm_types::NodeId;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

pub(crate) struct Ca {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    nodes: Arc<Mutex<HashMap<Vec<u8>, NodeId>>>,
}

/// What a node shows; it may be replaced.
pub(crate) struct NodeTls {
    configs: Mutex<(Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>)>,
    nodes: Arc<Mutex<HashMap<Vec<u8>, NodeId>>>,
}

fn name_of(node: NodeId) -> String {
    format!("{node}.node.dtm")
}

impl Ca {
    pub(crate) fn new() -> Self {
        // Refused where another test was first: the same provider is installed then.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut params =
            rcgen::CertificateParams::new(Vec::new()).expect("a certificate for a test");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a certificate for a test");
        let issuer =
            rcgen::CertifiedIssuer::self_signed(params, key).expect("a certificate for a test");
        Self { issuer, nodes: Arc::default() }
    }

    pub(crate) fn node(&self, node: NodeId) -> Arc<NodeTls> {
        self.issue(node, Some(node))
    }

    /// A certificate with the DNS name of one node that says to be of another, or of none.
    pub(crate) fn issue(&self, dns: NodeId, says: Option<NodeId>) -> Arc<NodeTls> {
        let key = rcgen::KeyPair::generate().expect("a certificate for a test");
        let params =
            rcgen::CertificateParams::new(vec![name_of(dns)]).expect("a certificate for a test");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate for a test");
        let chain = vec![certificate.der().clone()];
        if let Some(node) = says {
            self.nodes.lock().insert(certificate.der().to_vec(), node);
        }
        let private =
            || PrivateKeyDer::try_from(key.serialize_der()).expect("a certificate for a test");
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from(self.issuer.der().to_vec()))
            .expect("a certificate for a test");
        let roots = Arc::new(roots);
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::clone(&roots)).build();
        let server = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier.expect("a certificate for a test"))
            .with_single_cert(chain.clone(), private())
            .expect("a certificate for a test");
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private())
            .expect("a certificate for a test");
        let configs = Mutex::new((Arc::new(server), Arc::new(client)));
        Arc::new(NodeTls { configs, nodes: Arc::clone(&self.nodes) })
    }
}

impl NodeTls {
    /// Shows what the other one shows from now on.
    pub(crate) fn replace(&self, other: &Self) {
        let configs = other.configs.lock().clone();
        *self.configs.lock() = configs;
    }
}

impl SiteTls for NodeTls {
    fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.configs.lock().0)
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.configs.lock().1)
    }

    fn server_name(&self, node: NodeId) -> ServerName<'static> {
        ServerName::try_from(name_of(node)).expect("a certificate for a test")
    }

    fn node_of(&self, certificate: &[u8]) -> Option<NodeId> {
        self.nodes.lock().get(certificate).copied()
    }
}
