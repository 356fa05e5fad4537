//! The called end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};

use dtm_types::NodeId;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::call::named;
use super::session::Session;
use super::{HELLO_BYTES, Hello, Io, PROTOCOL, Purpose, SessionId};
use crate::accept::{self, HANDSHAKES_MAX, count_refused};
use crate::error::Error;
use crate::line::Live;
use crate::lines::Shared;
use crate::tls::SiteTls;
use crate::wire::Wire;

/// Pause after a connection that could not be accepted, as where no file is free.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Sessions of a channel that peers called.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Weak<Session>>>);

impl Sessions {
    /// False where there is one of that id, which is drawn by its caller.
    fn enter(&self, id: SessionId, session: &Arc<Session>) -> bool {
        let mut sessions = self.0.lock();
        sessions.retain(|_, known| known.upgrade().is_some_and(|known| known.is_open()));
        match sessions.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Arc::downgrade(session));
                true
            }
        }
    }

    /// The open session of that id, where it is of that node.
    fn of(&self, id: SessionId, node: NodeId) -> Option<Arc<Session>> {
        let session = self.0.lock().get(&id)?.upgrade()?;
        (session.node() == node && session.is_open()).then_some(session)
    }
}

/// Accepts connections on a channel, until it is dropped.
pub(crate) async fn connections(
    shared: Arc<Shared>,
    (at, listener): (usize, TcpListener),
    sessions: Arc<Sessions>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "connection of another site not accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            count_refused("handshakes");
            continue;
        };
        let (called, sessions) = (Arc::clone(&shared), Arc::clone(&sessions));
        shared.spawn(async move {
            let shaking = shake(&called, at, tcp);
            let shaken = timeout(called.settings.handshake, shaking).await;
            drop(place);
            let taken = match shaken {
                Ok(Ok((node, hello, stream))) => {
                    take(&called, at, (node, hello, stream), &sessions).await;
                    return;
                }
                Ok(Err(error)) => error,
                Err(_) => Error::Late,
            };
            count_refused(match taken {
                Error::Certificate { .. } => "certificate",
                _ => "handshake",
            });
            tracing::warn!(error = %taken, "connection of another site refused");
        });
    }
}

async fn shake(shared: &Shared, at: usize, tcp: TcpStream) -> Result<(NodeId, Hello, Io), Error> {
    tcp.set_nodelay(true)?;
    let tls: &dyn SiteTls = &*shared.channels[at].channel.tls;
    let mut config = (*tls.server()).clone();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    let stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
    let mut stream = TlsStream::Server(stream);
    let named = named(tls, &stream)?;
    let Some(node) = named.filter(|node| *node != shared.node) else {
        return Err(Error::Certificate { called: shared.node, named });
    };
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "no hello");
    let hello = Hello::from_bytes(&hello).ok_or_else(invalid)?;
    Ok((node, hello, stream))
}

/// Serves a session to its end; hands a lane to its session.
async fn take(
    shared: &Arc<Shared>,
    at: usize,
    (node, hello, stream): (NodeId, Hello, Io),
    sessions: &Sessions,
) {
    let Hello { purpose, session: id } = hello;
    if matches!(purpose, Purpose::Lane | Purpose::Wanted(_)) {
        match sessions.of(id, node) {
            Some(session) => session.arrive(purpose, stream),
            None => count_refused("lane"),
        }
        return;
    }
    let (session, to_send) = Session::new((id, node), None, &shared.settings, &shared.stop);
    if purpose == Purpose::Line && !sessions.enter(id, &session) {
        return count_refused("lane");
    }
    let running = Arc::clone(&session).run(stream, to_send, shared.settings.clone());
    if purpose == Purpose::Probe {
        return running.await;
    }
    shared.spawn(running);
    let line = shared.line(node);
    let wire = Wire::Tcp(session);
    if line.install(shared, Live::new(wire.clone(), line.path_of(at), None)) {
        accept::lanes(Arc::clone(shared), line, wire).await;
    }
}
