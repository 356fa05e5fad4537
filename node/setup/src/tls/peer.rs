//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use dtm_identity::{Caller, Error};
use dtm_types::ClusterId;
use rustls_pki_types::CertificateDer;

/// Put into the extensions of every request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The client certificate, where one was shown; its chain was checked in the handshake.
    pub certificate: Option<Arc<CertificateDer<'static>>>,
}

impl PeerInfo {
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
