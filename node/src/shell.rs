//! What every run of a node starts and ends with, whatever services it carries.
//!
//! ```text
//!  start: logs ▶ metrics ▶ certificates ▶ three open ports (nothing accepted)
//!  run:   services on the doors, certificates watched
//!  stop:  SIGTERM or SIGINT ▶ `shutdown` cancelled ▶ doors drain
//! ```
//! Owner of the state: the [`Shell`] of the process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtm_doors::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::tls::{self, Door, ListenOptions, Listener, Material};

/// Renders `/metrics`.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Logs or metrics.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// Certificates or ports.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for: {0}")]
    Signal(std::io::Error),
}

/// A process that is set up, with its ports open and nothing accepted yet.
pub struct Shell {
    /// The configuration in force, and what it was made from.
    pub loaded: Loaded,
    /// Certificates in use.
    pub material: Arc<Material>,
    /// Renders `/metrics`.
    pub metrics: RenderMetrics,
    /// Cancelled when the node is to stop.
    pub shutdown: CancellationToken,
    /// The HTTPS port.
    pub https: Listener,
    /// The clients' port.
    pub grpc: Listener,
    /// The peers' port.
    pub peers: Listener,
}

impl Shell {
    /// Sets the process up. Call once, inside a runtime, after core files were
    /// forbidden.
    ///
    /// # Errors
    /// [`Error`]; the message names the file or port.
    pub async fn start(loaded: Loaded) -> Result<Self, Error> {
        let config = &loaded.config;
        telemetry::start_logs(&config.telemetry.log)?;
        telemetry::abort_on_panic(telemetry::is_contained);
        let metrics = telemetry::start_metrics()?;
        let material = Material::load(&config.tls)?;
        let shutdown = CancellationToken::new();
        let options = ListenOptions::from(&config.tls);
        let bind = |address: SocketAddr, door| {
            Listener::bind(address, door, Arc::clone(&material), options)
        };
        let https = bind(config.node.https, Door::Https).await?;
        let grpc = bind(config.node.grpc, Door::Grpc).await?;
        let peers = bind(config.node.peers, Door::Peers).await?;
        let interval = Duration::from_millis(config.tls.reload_interval_ms);
        tokio::spawn(tls::watch(Arc::clone(&material), interval, shutdown.clone()));
        let signals = Signals::open().map_err(Error::Signal)?;
        tokio::spawn(signals.cancel(shutdown.clone()));
        let (cluster, node) = material.node();
        tracing::info!(%cluster, %node, name = config.node.name, version = env!("CARGO_PKG_VERSION"), "node starts");
        Ok(Self { loaded, material, metrics, shutdown, https, grpc, peers })
    }
}

/// SIGTERM and SIGINT: a planned stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn open() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn cancel(mut self, shutdown: CancellationToken) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("told to stop (SIGTERM)"),
            _ = self.interrupt.recv() => tracing::info!("told to stop (SIGINT)"),
            () = shutdown.cancelled() => {}
        }
        shutdown.cancel();
    }
}
