//! `dtm serve`: the shell with its services.

use std::sync::Arc;

use async_trait::async_trait;
use dtm_machine::seams::{Clock, Entropy};
use dtm_types::command::OperatorRow;

use crate::config::{Config, EXIT_CONFIG};
use crate::http::{self, LinkKey, LiveStatus, Overview, Pages, Readiness};
use crate::shell::{self, Shell};
use crate::system::{OsEntropy, SystemClock};
use crate::{keyring, tls};

/// Why a node did not run to its planned end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be set up.
    #[error(transparent)]
    Shell(#[from] shell::Error),
    /// The keyring cannot be opened.
    #[error(transparent)]
    Keyring(#[from] dtm_storage::keys::Error),
}

impl Error {
    /// The process's exit code: what an operator must mend in files is 78.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Keyring(_)
            | Self::Shell(shell::Error::Tls(tls::Error::File(_) | tls::Error::Unusable { .. }))
            | Self::Shell(shell::Error::Telemetry(_)) => EXIT_CONFIG,
            Self::Shell(_) => 1,
        }
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// [`Error`]; nothing was written where its exit code is 78.
pub async fn run(config: Config) -> Result<(), Error> {
    let _keyring = keyring::open(&config)?;
    let shell = Shell::start(config).await?;
    let (cluster, node) = shell.material.node();
    let clock = Arc::new(SystemClock::start());
    let mut key = [0; 32];
    OsEntropy.fill(&mut key);
    let pages = http::router(Pages {
        status: Arc::new(Alone { node: shell.config.node.name.clone() }),
        metrics: Arc::clone(&shell.metrics),
        link: Arc::new(LinkKey::new(key, node)),
        cluster,
        now_us: Arc::new(move || clock.now_us()),
    });
    tls::serve_https(pages, shell.https.run(shell.shutdown.clone()), shell.shutdown.clone()).await;
    Ok(())
}

/// A node before its groups run: alive, not ready.
struct Alone {
    node: String,
}

#[async_trait]
impl LiveStatus for Alone {
    async fn readiness(&self) -> Readiness {
        Readiness::NotReady { reason: "the groups of this node do not run".into() }
    }

    async fn overview(&self) -> Overview {
        Overview { node: self.node.clone(), ..Overview::default() }
    }

    async fn operator(&self, _: &str) -> Option<OperatorRow> {
        None
    }
}
