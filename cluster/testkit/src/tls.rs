//! Certificates for nodes of one process, from a CA of their own.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_cluster::PeerTls;
use dtm_types::NodeId;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Issues the certificates of the nodes of one cluster.
pub struct Ca {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    names: Arc<Mutex<HashMap<Vec<u8>, NodeId>>>,
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

impl Ca {
    /// A CA of its own; installs the process's TLS provider.
    pub fn new() -> Self {
        // Refused where another CA was first: the same provider is installed then.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names to refuse");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("the system gives randomness");
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA signs itself");
        Self { issuer, names: Arc::default() }
    }

    /// A certificate for a node, and trust in the others of this CA.
    pub fn node(&self, node: NodeId) -> Arc<dyn PeerTls> {
        let key = rcgen::KeyPair::generate().expect("the system gives randomness");
        let params = rcgen::CertificateParams::new(vec![name_of(node)]).expect("a DNS name");
        let certificate = params.signed_by(&key, &self.issuer).expect("the CA can sign");
        let chain = vec![certificate.der().clone()];
        self.names.lock().insert(certificate.der().to_vec(), node);
        let private = || PrivateKeyDer::try_from(key.serialize_der()).expect("a key of rcgen");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec())).expect("a CA of rcgen");
        let roots = Arc::new(roots);
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::clone(&roots)).build();
        let server = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier.expect("the roots hold one CA"))
            .with_single_cert(chain.clone(), private())
            .expect("the key is the certificate's");
        let client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private())
            .expect("the key is the certificate's");
        Arc::new(NodeTls {
            server: Arc::new(server),
            client: Arc::new(client),
            names: Arc::clone(&self.names),
        })
    }
}

fn name_of(node: NodeId) -> String {
    format!("{node}.node.dtm")
}

struct NodeTls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    names: Arc<Mutex<HashMap<Vec<u8>, NodeId>>>,
}

impl PeerTls for NodeTls {
    fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server)
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.client)
    }

    fn server_name(&self, node: NodeId) -> ServerName<'static> {
        ServerName::try_from(name_of(node)).expect("a DNS name")
    }

    fn node_of(&self, certificate: &[u8]) -> Option<NodeId> {
        self.names.lock().get(certificate).copied()
    }
}
