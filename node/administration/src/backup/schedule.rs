//! Backups that the node writes by itself, each `backup.every_minutes`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_backup::Folder;
use dtm_doors::Shared;
use dtm_doors::audit::Actor;
use dtm_doors::status::internal;
use dtm_types::{ClusterId, Incarnation};
use tokio::sync::mpsc;
use tonic::Status;

use super::job::Job;

/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What failed is tried again after so long, or after the interval where that is shorter: each try
/// leaves what it wrote, and entries in the ledger.
const AGAIN_AFTER: Duration = Duration::from_secs(3_600);
const MINUTE_US: i64 = 60_000_000;

/// Runs until it is dropped. Where the node is not told to write backups by itself it only waits.
pub async fn keep_backups(shared: Arc<Shared>) {
    let settings = &shared.config.backup;
    if settings.every_minutes == 0 || settings.folder.as_os_str().is_empty() {
        return std::future::pending().await;
    }
    let every_us =
        i64::try_from(settings.every_minutes).unwrap_or(i64::MAX / MINUTE_US) * MINUTE_US;
    let folder = Folder::new(&settings.folder);
    let again_after = AGAIN_AFTER.min(Duration::from_micros(every_us.unsigned_abs()));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let begun = match newest(&folder, shared.cluster_id, shared.incarnation).await {
            Ok(begun) => begun,
            Err(error) => {
                metrics::counter!("dtm_backups_failed_total").increment(1);
                tracing::warn!(message = error.message(), "the folder of backups does not read");
                continue;
            }
        };
        if is_due(begun, shared.clock.now_us(), every_us) && !write(&shared, &folder).await {
            tokio::time::sleep(again_after).await;
        }
    }
}

/// One that was begun `every_us` ago, or in the future by this clock, is followed by another.
fn is_due(begun_us: Option<i64>, now_us: i64, every_us: i64) -> bool {
    begun_us.is_none_or(|begun| now_us < begun || now_us - begun >= every_us)
}

/// When the newest backup of this life of the cluster was begun, whichever node wrote it.
async fn newest(
    folder: &Folder,
    cluster: ClusterId,
    life: Incarnation,
) -> Result<Option<i64>, Status> {
    let folder = folder.clone();
    let listed = tokio::task::spawn_blocking(move || dtm_backup::list(&folder)).await;
    let listed = listed.map_err(internal)?.map_err(internal)?;
    let manifests = listed.into_iter().filter_map(|found| found.manifest.ok());
    let ours = manifests.filter(|(of, _)| of.cluster_id() == cluster && of.incarnation == life.0);
    Ok(ours.map(|(of, _)| of.began_us).max())
}

/// Whether it was written.
async fn write(shared: &Arc<Shared>, folder: &Folder) -> bool {
    let _turn = Arc::clone(&shared.room.backups).lock_owned().await;
    let (answers, mut told) = mpsc::channel(super::ANSWERS_MAX);
    // Nobody waits for them; the channel stays open, which says that the backup is wanted.
    let taken = tokio::spawn(async move { while told.recv().await.is_some() {} });
    let job = Job {
        shared: Arc::clone(shared),
        folder: folder.clone(),
        full: false,
        reason: "backup.every_minutes".to_owned(),
        request_id: Bytes::new(),
        answers,
    };
    let done = Box::pin(job.run(Actor::node(shared))).await;
    taken.abort();
    match &done {
        Ok(done) => tracing::info!(bytes = done.bytes, "a backup was written by schedule"),
        Err(status) => super::failed(status),
    }
    done.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_due_once_the_newest_is_old() {
        let every = 60 * MINUTE_US;
        assert!(is_due(None, 5, every), "there is none");
        assert!(!is_due(Some(5), 5 + every - 1, every));
        assert!(is_due(Some(5), 5 + every, every));
        assert!(is_due(Some(6), 5, every), "a clock that went back does not put it off for long");
    }
}
