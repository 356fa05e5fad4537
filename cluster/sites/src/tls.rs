//! Who is at the other end: TLS 1.3 in both directions, and a certificate that names the node.

use std::sync::Arc;

use dtm_types::NodeId;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, ServerConfig, TransportConfig};
use rustls::pki_types::{CertificateDer, ServerName};

use crate::error::Error;

/// What a line speaks.
const LINE: &[u8] = b"dtm-sites/1";
/// A connection that only shows that a path works.
const PROBE: &[u8] = b"dtm-sites-probe/1";

/// Certificates of this node and what those of others say. Asked at each connection, so that they
/// reload without a restart.
pub trait SiteTls: Send + Sync + 'static {
    /// For accepting: must demand a client certificate of the cluster's CA.
    fn server(&self) -> Arc<rustls::ServerConfig>;

    /// For calling: carries this node's certificate, trusts the cluster's CA only.
    fn client(&self) -> Arc<rustls::ClientConfig>;

    /// The name under which a node's certificate was issued.
    fn server_name(&self, node: NodeId) -> ServerName<'static>;

    /// The node that a verified end-entity certificate (DER) names; `None` for anything that is not
    /// a node's certificate.
    fn node_of(&self, certificate: &[u8]) -> Option<NodeId>;
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Line,
    Probe,
}

impl Use {
    fn protocol(self) -> Vec<u8> {
        match self {
            Self::Line => LINE.to_vec(),
            Self::Probe => PROBE.to_vec(),
        }
    }
}

/// For one call.
pub(crate) fn client(
    tls: &dyn SiteTls,
    purpose: Use,
    transport: &Arc<TransportConfig>,
) -> Result<ClientConfig, Error> {
    let mut config = (*tls.client()).clone();
    config.alpn_protocols = vec![purpose.protocol()];
    // A ticket would outlive the certificate that it was given for.
    config.resumption = rustls::client::Resumption::disabled();
    let crypto = QuicClientConfig::try_from(config).map_err(|_| Error::Tls)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::clone(transport));
    Ok(config)
}

/// What a channel accepts with until its certificates are asked for.
pub(crate) fn base(
    tls: &dyn SiteTls,
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::with_crypto(crypto(tls)?);
    config.transport_config(Arc::clone(transport)).migration(false);
    Ok(config)
}

/// For one answer.
pub(crate) fn server(tls: &dyn SiteTls, base: &ServerConfig) -> Result<ServerConfig, Error> {
    let mut config = base.clone();
    config.crypto = crypto(tls)?;
    Ok(config)
}

fn crypto(tls: &dyn SiteTls) -> Result<Arc<QuicServerConfig>, Error> {
    let mut config = (*tls.server()).clone();
    config.alpn_protocols = vec![Use::Line.protocol(), Use::Probe.protocol()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(|_| Error::Tls)?))
}

/// The node at the other end, by its certificate.
pub(crate) fn named(tls: &dyn SiteTls, connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls.node_of(chain.first()?.as_ref())
}

/// What the caller wants it for.
pub(crate) fn purpose(connection: &Connection) -> Option<Use> {
    let shaken = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    match shaken.protocol.as_deref() {
        Some(LINE) => Some(Use::Line),
        Some(PROBE) => Some(Use::Probe),
        _ => None,
    }
}
