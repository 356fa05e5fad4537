//! Counting a start: only of a node that its peers let start.

use std::path::Path;
use std::sync::Arc;

use dtm_cluster::{ClusterNode, Starting};
use dtm_machine::seams::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::boot::{self, Boot};
use super::run::Error;

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

/// Starts the groups once this start is admitted; `None` when the node is told to stop before.
pub(super) async fn start(
    starting: Starting,
    last: Boot,
    data: &Path,
    clock: &Arc<dyn Clock>,
    shutdown: &CancellationToken,
) -> Result<Option<Started>, Error> {
    let admitted = shutdown.run_until_cancelled(admit(&starting, last, data, clock)).await;
    let Some(stamping) = admitted.transpose()? else { return Ok(None) };
    Ok(Some(Started { cluster: starting.start().await?, stamping }))
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
    let boot = counted(last, data, clock)?;
    let stamping = tokio::spawn(stamp(boot, data.to_owned(), Arc::clone(clock)));
    Ok(AbortOnDropHandle::new(stamping))
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
