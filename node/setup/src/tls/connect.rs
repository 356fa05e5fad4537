//! Connections to other nodes' gRPC ports.

use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;
use tower::Service;

/// Connects to an address under the name that stands in the server's certificate. TLS is ours, so
/// tonic sees a plain connection: its endpoint is `http://address`. The configuration is asked for
/// at each connection, since certificates are exchanged while a node runs.
pub fn connector(
    address: &str,
    name: ServerName<'static>,
    config: impl Fn() -> Arc<ClientConfig> + Clone + Send + 'static,
) -> impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future: Send>
+ Clone
+ Send
+ 'static {
    let address: Arc<str> = address.into();
    tower::service_fn(move |_: Uri| {
        let tls = TlsConnector::from(config());
        let (address, name) = (Arc::clone(&address), name.clone());
        async move {
            let tcp = TcpStream::connect(&*address).await?;
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, tcp).await?))
        }
    })
}
