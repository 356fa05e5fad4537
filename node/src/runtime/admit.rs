//! Counting a start: only of a node that its peers let start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{ClusterNode, Starting};
use dtm_machine::seams::Clock;
use dtm_types::Incarnation;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::boot::{self, Boot};
use super::run::Error;

/// Between two looks at whether the cluster lives in a later life.
const LATER_LIFE_PAUSE: Duration = Duration::from_secs(2);

/// The last start of this disk.
pub(super) fn last_start(data: &Path) -> Result<Boot, Error> {
    Boot::read(data).map_err(|source| Error::File { path: data.join("boot"), source })
}

/// Founding is complete. Durable when it returns.
pub(super) fn founded(data: &Path) -> Result<(), Error> {
    boot::mark_founded(data).map_err(|source| Error::File { path: data.join("founded"), source })
}

/// A node whose groups run, and the task that says so each minute.
pub(super) struct Started {
    pub(super) cluster: Arc<ClusterNode>,
    pub(super) stamping: AbortOnDropHandle<()>,
}

/// What became of a start.
pub(super) enum Start {
    /// The groups run.
    Runs(Started),
    /// The cluster lives in a later life, which counts on this node.
    Over(Starting, Incarnation),
    /// The node was told to stop before.
    Stopped,
}

/// Starts the groups once this start is admitted. A node whose life is over may wait for ever for
/// voters of that life: meanwhile it asks whether it is.
pub(super) async fn start(
    starting: Starting,
    last: Boot,
    data: &Path,
    clock: &Arc<dyn Clock>,
    shutdown: &CancellationToken,
) -> Result<Start, Error> {
    let admitted = shutdown.run_until_cancelled(async {
        tokio::select! {
            biased;
            life = later_life(&starting) => Err(life),
            admitted = admit(&starting, last, data, clock) => Ok(admitted),
        }
    });
    match admitted.await {
        None => Ok(Start::Stopped),
        Some(Err(life)) => Ok(Start::Over(starting, life)),
        Some(Ok(stamping)) => {
            let stamping = stamping?;
            Ok(Start::Runs(Started { cluster: starting.start().await?, stamping }))
        }
    }
}

/// Returns when the cluster lives in a later life.
async fn later_life(starting: &Starting) -> Incarnation {
    loop {
        if let Some(life) = starting.later_life().await {
            return life;
        }
        tokio::time::sleep(LATER_LIFE_PAUSE).await;
    }
}

/// Counts this start. Durable when it returns.
pub(super) fn counted(last: Boot, data: &Path, clock: &Arc<dyn Clock>) -> Result<Boot, Error> {
    let boot = Boot { counter: last.counter + 1, stamp_us: clock.now_us() };
    boot.write(data).map_err(|source| Error::File { path: data.join("boot"), source })?;
    Ok(boot)
}

/// Asks the peers what they know of this node; then, where this disk is the newest of its copies,
/// counts this start. Nothing is written before.
async fn admit(
    starting: &Starting,
    last: Boot,
    data: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<AbortOnDropHandle<()>, Error> {
    starting.vet(last.away(clock.now_us(), starting.holds_replicas())).await?;
    Ok(stamping(counted(last, data, clock)?, data, clock))
}

/// Says each minute that this node runs, as long as the handle is kept.
pub(super) fn stamping(boot: Boot, data: &Path, clock: &Arc<dyn Clock>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(stamp(boot, data.to_owned(), Arc::clone(clock))))
}

/// Says each minute that this node runs. A file that cannot be written makes the next start wait for
/// its peers, no more.
async fn stamp(boot: Boot, data: std::path::PathBuf, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(boot::STAMP_INTERVAL).await;
        let (boot, data) = (Boot { stamp_us: clock.now_us(), ..boot }, data.clone());
        let written = tokio::task::spawn_blocking(move || boot.write(&data)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the stamp of this node was not written");
        }
    }
}
