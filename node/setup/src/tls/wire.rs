//! The seam where an accepted TCP connection becomes a protected one. The product has one
//! implementation, [`TlsWire`]; the load generator brings another to measure what TLS costs.

use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Bytes in both directions.
pub trait WireIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> WireIo for T {}

/// A connection after its handshake.
pub struct Wired {
    /// What is sent and read.
    pub io: Box<dyn WireIo>,
    /// The client's certificate where it showed one; its chain was checked.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Shakes hands.
pub trait Wire: Send + Sync + 'static {
    /// Answers a client with the certificates of `config`. Cancelling it drops the connection.
    ///
    /// # Errors
    /// Whatever ended the handshake.
    fn accept(
        &self,
        tcp: TcpStream,
        config: Arc<ServerConfig>,
    ) -> BoxFuture<'static, io::Result<Wired>>;
}

/// TLS, always.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsWire;

impl Wire for TlsWire {
    fn accept(
        &self,
        tcp: TcpStream,
        config: Arc<ServerConfig>,
    ) -> BoxFuture<'static, io::Result<Wired>> {
        async move {
            let stream = TlsAcceptor::from(config).accept(tcp).await?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = certificate.map(|first| first.clone().into_owned());
            Ok(Wired { io: Box::new(stream), certificate })
        }
        .boxed()
    }
}
