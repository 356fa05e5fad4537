//! What comes in: connections of peers, and the lanes that they open.

use std::sync::Arc;
use std::time::Duration;

use dtm_types::NodeId;
use quinn::{Connection, Endpoint, Incoming, ServerConfig, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::Error;
use crate::lane::{Lane, LaneIo, NAME_BYTES};
use crate::line::{Line, Live};
use crate::lines::{Arrived, Shared};
use crate::tls::{self, Use};
use crate::wire::{Wire, WireIo};

/// Handshakes under way on a channel. Beyond half of it callers show first that they are where they
/// say they are; beyond it they are not heard.
pub(crate) const HANDSHAKES_MAX: usize = 64;
/// A lane that does not say what it is for by then is ended.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);
const REFUSED: VarInt = VarInt::from_u32(4);

pub(crate) fn count_refused(cause: &'static str) {
    metrics::counter!("dtm_sites_refused_total", "cause" => cause).increment(1);
}

/// Accepts connections on a channel that speaks QUIC, until it is dropped or the socket is gone. `base` is
/// what each connection begins with, but for its certificates.
pub(crate) async fn connections(
    shared: Arc<Shared>,
    channel: usize,
    (endpoint, base): (Endpoint, ServerConfig),
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let is_crowded = places.available_permits() < HANDSHAKES_MAX / 2;
        if is_crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // Refused only where it may not be asked to: that was looked at.
            incoming.retry().ok();
            continue;
        }
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let shaking = shake(Arc::clone(&shared), (channel, base.clone()), incoming, place);
                shared.spawn(async move {
                    if let Err(error) = shaking.await {
                        tracing::warn!(%error, "connection of another site refused");
                    }
                });
            }
            Err(_) => {
                count_refused("handshakes");
                incoming.ignore();
            }
        }
    }
}

async fn shake(
    shared: Arc<Shared>,
    (at, base): (usize, ServerConfig),
    incoming: Incoming,
    place: OwnedSemaphorePermit,
) -> Result<(), Error> {
    let channel = &shared.channels[at];
    let config = tls::server(&*channel.channel.tls, &base)?;
    let shaking = async { Ok(incoming.accept_with(Arc::new(config))?.await?) };
    let shaken: Result<Connection, Error> =
        timeout(shared.settings.handshake, shaking).await.map_err(|_| Error::Late)?;
    let connection = shaken.inspect_err(|_| count_refused("handshake"))?;
    drop(place);
    let named = tls::named(&*channel.channel.tls, &connection);
    let Some(node) = named.filter(|node| *node != shared.node) else {
        connection.close(REFUSED, b"certificate");
        count_refused("certificate");
        return Err(Error::Certificate { called: shared.node, named });
    };
    match tls::purpose(&connection) {
        Some(Use::Line) => {
            let line = shared.line(node);
            let wire = Wire::Quic(connection);
            if line.install(&shared, Live::new(wire.clone(), line.path_of(at), None)) {
                lanes(Arc::clone(&shared), line, wire).await;
            }
        }
        Some(Use::Probe) => {
            connection.closed().await;
        }
        None => connection.close(REFUSED, b"protocol"),
    }
    Ok(())
}

/// Hands over the lanes that the peer opens, until the connection ends.
pub(crate) async fn lanes(shared: Arc<Shared>, line: Arc<Line>, wire: Wire) {
    // At most `lanes_max` are open at a time: each ends with the stream it reads.
    while let Some(io) = wire.accept().await {
        let (shared, node) = (Arc::clone(&shared), line.node);
        let naming = async move {
            if let Err(error) = name(&shared, node, io).await {
                count_refused("lane");
                tracing::warn!(%node, %error, "lane refused");
            }
        };
        tokio::spawn(naming);
    }
    line.settle(&shared);
}

async fn name(shared: &Shared, node: NodeId, mut io: WireIo) -> Result<(), Error> {
    let mut name = [0; NAME_BYTES];
    let reading = timeout(NAME_TIMEOUT, io.read_exact(&mut name)).await;
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "lane without a name");
    reading.map_err(|_| Error::Late)?.map_err(|_| invalid())?;
    let lane = Lane::from_bytes(name).ok_or_else(invalid)?;
    let io = LaneIo::new(lane, io, shared.copies.as_ref());
    // Nobody takes lanes any more where the node stops.
    shared.arrivals.send(Arrived { node, lane, io }).await.ok();
    Ok(())
}
