//! The slow work of a node: rows are flushed, snapshots taken, the log purged behind what is
//! flushed (ING-1), memory given back.

use std::sync::Arc;
use std::time::Duration;

use dtm_types::GroupId;
use openraft::async_runtime::watch::WatchReceiver;

use crate::applied::Applied;
use crate::error::Error;
use crate::group::Group;
use crate::missing::Missing;
use crate::raft::GroupRaft;
use crate::rebuild;
use crate::registry::Registry;
use crate::runtime::off_thread;
use crate::type_config::TypeConfig;

const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, flush_interval: Duration, entries_kept: u64) {
    let mut since_flush = Duration::ZERO;
    let mut noted = Vec::new();
    let tick = Duration::from_secs(1).min(flush_interval);
    loop {
        tokio::time::sleep(tick).await;
        since_flush += tick;
        let groups = registry.groups();
        groups.iter().for_each(|group| group.release_memory());
        note_peers(&registry, &mut noted).await;
        if since_flush < flush_interval {
            continue;
        }
        since_flush = Duration::ZERO;
        for group in groups {
            if let Err(error) = group.maintain(entries_kept).await {
                let cause = dtm_types::chain(&error);
                tracing::warn!(group = group.id.0, cause, "flush and purge put off");
            }
        }
    }
}

/// Who the other nodes are, for a replica that loses its rows.
async fn note_peers(registry: &Registry, noted: &mut Vec<u8>) {
    let note = rebuild::encode_peers(&registry.known_peers());
    if note == *noted {
        return;
    }
    let states = Arc::clone(registry.states());
    let kept = tokio::task::spawn_blocking(move || states.note_peers(&note).map(|()| note)).await;
    match kept.map_err(std::io::Error::other).flatten() {
        Ok(note) => *noted = note,
        Err(error) => tracing::warn!(%error, "the other nodes could not be noted"),
    }
}

/// How the other nodes are reached: the note, and meta's rows as they are now. Durable when it returns.
pub(crate) async fn keep_way(registry: &Registry) -> std::io::Result<()> {
    note_peers(registry, &mut Vec::new()).await;
    let Some(meta) = registry.group(GroupId::META) else { return Ok(()) };
    let store = Arc::clone(&meta.store);
    off_thread(move || store.flush()).await?.map_err(std::io::Error::other)
}

impl Group {
    /// The log's memory is needed for what is not applied here or not replicated from here.
    fn release_memory(&self) {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let applied = self.applied.head().index;
        let replicated = metrics.replication.iter().flat_map(|all| all.values());
        let slowest = replicated.map(|matched| matched.map_or(0, |matched| matched.index)).min();
        self.log.release(slowest.map_or(applied, |slowest| slowest.min(applied)));
    }

    /// As [`purge_behind_flush`], of this replica.
    pub(crate) async fn maintain(&self, entries_kept: u64) -> Result<(), Error> {
        let (raft, missing) = (&self.raft, &self.backfill.missing);
        let purged = purge_behind_flush(raft, &self.applied, missing, entries_kept).await;
        purged.map_err(|error| self.failed(error))
    }
}

/// Flushes rows, takes a manifest, purges behind it. Nothing to do when nothing was applied.
///
/// # Errors
/// In words.
pub(crate) async fn purge_behind_flush(
    raft: &GroupRaft,
    applied: &Applied,
    missing: &Missing,
    entries_kept: u64,
) -> Result<(), String> {
    let through = applied.head().index;
    if through == applied.flushed() || applied.failure().is_some() {
        return Ok(());
    }
    let trigger = raft.trigger();
    trigger.snapshot().await.map_err(|error| error.to_string())?;
    // The builder flushes before the snapshot counts, and raises the flushed mark.
    let wait = raft.wait(Some(SNAPSHOT_TIMEOUT));
    let taken = |metrics: &openraft::RaftMetrics<TypeConfig>| {
        metrics.snapshot.is_some_and(|snapshot| snapshot.index >= through)
    };
    wait.metrics(taken, "snapshot taken").await.map_err(|error| error.to_string())?;
    // openraft builds none where a start found one: entries that were applied again then are in it,
    // and their rows on no disk yet.
    if applied.flushed() < through {
        missing.flush().await.map_err(|error| error.to_string())?;
        applied.set_flushed(through);
    }
    let purged = through.saturating_sub(entries_kept);
    if purged > 0 {
        trigger.purge_log(purged).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
