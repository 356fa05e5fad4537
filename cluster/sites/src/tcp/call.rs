//! The calling end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dtm_types::NodeId;
use rustls::ProtocolVersion;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::{Hello, Io, PROTOCOL, Purpose};
use crate::accept::count_refused;
use crate::error::Error;
use crate::settings::Settings;
use crate::tls::{SiteTls, Use};

/// How connections of a session are made.
#[derive(Clone)]
pub(crate) struct Call {
    /// The channel's own address: connections leave through it.
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) node: NodeId,
    pub(crate) tls: Arc<dyn SiteTls>,
}

impl Call {
    /// Calls, and says what for. Takes as long as the network does.
    pub(super) async fn connect(&self, hello: Hello) -> Result<Io, Error> {
        let socket = if self.remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(self.local, 0))?;
        let tcp = socket.connect(self.remote).await?;
        tcp.set_nodelay(true)?;
        let mut config = (*self.tls.client()).clone();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A ticket would outlive the certificate that it was given for.
        config.resumption = rustls::client::Resumption::disabled();
        let name = self.tls.server_name(self.node);
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let mut stream = TlsStream::Client(stream);
        let named = named(&*self.tls, &stream)?;
        if named != Some(self.node) {
            count_refused("certificate");
            let error = Error::Certificate { called: self.node, named };
            tracing::warn!(%error, remote = %self.remote, "line refused");
            return Err(error);
        }
        stream.write_all(&hello.to_bytes()).await?;
        stream.flush().await?;
        Ok(stream)
    }
}

/// Who is at the other end, by certificate.
pub(super) fn named(tls: &dyn SiteTls, stream: &Io) -> Result<Option<NodeId>, Error> {
    let (_, shaken) = stream.get_ref();
    let is_ours = shaken.alpn_protocol() == Some(PROTOCOL)
        && shaken.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    if !is_ours {
        return Err(Error::Tls);
    }
    let first = shaken.peer_certificates().and_then(|chain| chain.first());
    Ok(first.and_then(|certificate| tls.node_of(certificate.as_ref())))
}

/// A session with a node, within the time of a handshake.
pub(crate) async fn call(
    call: Call,
    purpose: Use,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<Arc<Session>, Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| std::io::Error::other(error.to_string()))?;
    let purpose = match purpose {
        Use::Line => Purpose::Line,
        Use::Probe => Purpose::Probe,
    };
    let connecting = call.connect(Hello { purpose, session: id });
    let stream = timeout(settings.handshake, connecting).await.map_err(|_| Error::Late)??;
    let node = call.node;
    let (session, to_send) = Session::new((id, node), Some(call), settings, stop);
    // Ends with the session, and that with `stop`.
    tokio::spawn(Arc::clone(&session).run(stream, to_send, settings.clone()));
    Ok(session)
}
