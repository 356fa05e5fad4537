//! Keeps a line to a peer: calls where there is none, falls back, goes back.
//!
//! ```text
//!  cut ── paths in order ──▶ up on 0
//!   ▲  └───────────────────▶ up on n ── 0 answers for `return_after` ──▶ up on 0
//!   └───────── the connection ended ──────────┘
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, VarInt};
use tokio::time::{sleep, timeout};

use crate::accept;
use crate::error::Error;
use crate::line::{Line, Live};
use crate::lines::{Shared, Socket};
use crate::path::Path;
use crate::tcp::{self, Call};
use crate::tls::{self, SiteTls, Use};
use crate::wire::Wire;

/// The certificate at the other end names somebody else.
const WRONG_NODE: VarInt = VarInt::from_u32(2);
/// A probe showed what it had to.
const PROBED: VarInt = VarInt::from_u32(3);

/// Pauses that double up to a bound, drawn from their upper half.
struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    fn reset(&mut self) {
        self.next = self.shortest;
    }

    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        // Without randomness all nodes of a site would call at once.
        let drawn = getrandom::u32().unwrap_or_default();
        pause / 2 + pause.mul_f64(f64::from(drawn) / f64::from(u32::MAX) / 2.0)
    }
}

/// Runs until it is dropped.
pub(crate) async fn keep(shared: Arc<Shared>, line: Arc<Line>) {
    let mut changes = line.changes();
    let mut backoff = Backoff::new(shared.settings.backoff);
    let calls_first = shared.node < line.node;
    loop {
        changes.mark_unchanged();
        let Some(live) = line.current() else {
            if !calls_first && timeout(shared.settings.patience, changes.changed()).await.is_ok() {
                continue;
            }
            if !call(&shared, &line).await {
                tokio::select! {
                    _ = changes.changed() => {}
                    () = sleep(backoff.pause()) => {}
                }
            }
            continue;
        };
        backoff.reset();
        let is_fallback = live.called.is_some() && live.path > 0;
        tokio::select! {
            _ = changes.changed() => {}
            () = go_back(&shared, &line), if is_fallback => {}
        }
    }
}

/// Tries the paths in order, those behind the first where the rule lets them be used.
async fn call(shared: &Arc<Shared>, line: &Arc<Line>) -> bool {
    for (at, path) in line.paths().into_iter().enumerate() {
        if at > 0 && !line.may_use_standby() {
            return false;
        }
        match dial(shared, line, &path, Use::Line).await {
            Ok(wire) => {
                take(shared, line, wire, at, path);
                return true;
            }
            Err(error) => {
                tracing::debug!(node = %line.node, path = at, %error, "path does not answer");
            }
        }
    }
    false
}

fn take(shared: &Arc<Shared>, line: &Arc<Line>, wire: Wire, at: usize, path: Path) {
    if line.install(shared, Live::new(wire.clone(), at, Some(path))) {
        let serving = accept::lanes(Arc::clone(shared), Arc::clone(line), wire);
        shared.spawn(serving);
    }
}

/// Returns when the first path is in use again.
async fn go_back(shared: &Arc<Shared>, line: &Arc<Line>) {
    let mut backoff = Backoff::new(shared.settings.backoff);
    loop {
        if let Some(path) = line.paths().into_iter().next()
            && let Ok(probe) = dial(shared, line, &path, Use::Probe).await
        {
            let answered = timeout(shared.settings.return_after, probe.closed()).await.is_err();
            probe.close(PROBED, b"it works");
            if answered && let Ok(wire) = dial(shared, line, &path, Use::Line).await {
                return take(shared, line, wire, 0, path);
            }
        }
        sleep(backoff.pause()).await;
    }
}

async fn dial(shared: &Shared, line: &Line, path: &Path, purpose: Use) -> Result<Wire, Error> {
    let open = shared.channels.get(path.channel).ok_or(Error::NoChannel(path.channel))?;
    let resolving = timeout(shared.settings.handshake, resolve(&path.remote, open.address));
    let remote = resolving.await.map_err(|_| Error::Late)??;
    let tls = &open.channel.tls;
    let Socket::Quic { endpoint } = &open.socket else {
        let call = Call { local: open.address.ip(), remote, node: line.node, tls: Arc::clone(tls) };
        let called = tcp::call(call, purpose, &shared.settings, &shared.stop).await;
        return called.map(Wire::Tcp);
    };
    let calling = connect(shared, line, endpoint, (remote, &**tls, purpose));
    let called = timeout(shared.settings.handshake, calling).await.map_err(|_| Error::Late)?;
    let connection = called?;
    let named = tls::named(&**tls, &connection);
    if named != Some(line.node) {
        connection.close(WRONG_NODE, b"certificate");
        accept::count_refused("certificate");
        let error = Error::Certificate { called: line.node, named };
        tracing::warn!(%error, remote = path.remote, "line refused");
        return Err(error);
    }
    Ok(Wire::Quic(connection))
}

async fn connect(
    shared: &Shared,
    line: &Line,
    endpoint: &Endpoint,
    (remote, tls, purpose): (SocketAddr, &dyn SiteTls, Use),
) -> Result<Connection, Error> {
    let config = tls::client(tls, purpose, &shared.transport)?;
    let name = tls.server_name(line.node);
    Ok(endpoint.connect_with(config, remote, &name.to_str())?.await?)
}

/// The first address of the family that the channel speaks.
async fn resolve(remote: &str, local: SocketAddr) -> Result<SocketAddr, Error> {
    let mut found = tokio::net::lookup_host(remote).await?;
    let reached = |address: &SocketAddr| local.is_ipv6() || address.is_ipv4();
    found.find(reached).ok_or_else(|| Error::Address(remote.to_owned()))
}
