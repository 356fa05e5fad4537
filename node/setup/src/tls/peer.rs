//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use dtm_identity::{Caller, Error};
use dtm_types::ClusterId;
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;

/// Put into the extensions of every request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The client certificate, where one was shown; its chain was checked in the handshake.
    pub certificate: Option<Arc<CertificateDer<'static>>>,
    /// Places for requests of this connection that are left unread while they wait for room: what
    /// they hold of its window is never all of it, so that its other requests go on.
    pub unread: Arc<Semaphore>,
}

impl PeerInfo {
    /// Of a new connection.
    pub fn new(address: SocketAddr, certificate: Option<Arc<CertificateDer<'static>>>) -> Self {
        Self { address, certificate, unread: Arc::new(Semaphore::new(super::serve::UNREAD_MAX)) }
    }

    /// The caller by certificate; without one [`Caller::Anonymous`]. The rows behind it are yet to
    /// be asked.
    ///
    /// # Errors
    /// As [`Caller::from_certificate`].
    pub fn caller(&self, cluster: ClusterId) -> Result<Caller, Error> {
        match &self.certificate {
            Some(certificate) => Caller::from_certificate(certificate, cluster),
            None => Ok(Caller::Anonymous),
        }
    }
}
