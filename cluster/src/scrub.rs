//! Every stored block is read again in turn, at a bounded rate, so that damage is found while another
//! replica still holds what it took. Above the purge mark damage makes the replica recovering
//! (`supervise` mends it); below, the bundle goes on the note of missing ones and is fetched.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::ranges::Ranges;
use crate::registry::Registry;

/// Between two segments at least this long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// When there is nothing to read.
const IDLE: Duration = Duration::from_secs(5);

/// Runs until it is dropped. `bytes_per_second` is the mean rate.
pub(crate) async fn run(registry: Arc<Registry>, bytes_per_second: NonZeroU64) {
    let mut next = 0;
    loop {
        let segments = registry.deps().logs.segments();
        let segment = segments.iter().copied().find(|&segment| segment >= next);
        let Some(segment) = segment else {
            next = 0;
            tokio::time::sleep(IDLE).await;
            continue;
        };
        next = segment + 1;
        let bytes = one(&registry, segment).await;
        let pause = Duration::from_secs_f64(bytes as f64 / bytes_per_second.get() as f64);
        tokio::time::sleep(pause.max(PAUSE_MIN)).await;
    }
}

/// Bytes read.
async fn one(registry: &Arc<Registry>, segment: u64) -> u64 {
    let logs = Arc::clone(&registry.deps().logs);
    let scrubbed = tokio::task::spawn_blocking(move || logs.scrub(segment)).await;
    let scrubbed = match scrubbed {
        Ok(Ok(scrubbed)) => scrubbed,
        Ok(Err(error)) => {
            tracing::warn!(segment, %error, "segment could not be read through");
            return 0;
        }
        Err(error) => {
            tracing::error!(segment, %error, "reading a segment through panicked");
            return 0;
        }
    };
    metrics::counter!("dtm_cluster_scrubbed_bytes_total").increment(scrubbed.bytes);
    for (group, replica, index) in scrubbed.damaged {
        metrics::counter!("dtm_cluster_scrub_damaged_total").increment(1);
        tracing::error!(group = group.0, index, segment, "damaged block found");
        let found = registry.group(group).filter(|found| found.replica == replica);
        // A newer copy may have been fetched already; above the purge mark the log itself knows.
        let Some(found) = found.filter(|found| found.log.read_record(index).is_err()) else {
            continue;
        };
        if found.backfill.is_due(index) {
            let mut lost = Ranges::default();
            lost.insert(index, index);
            if let Err(error) = found.backfill.missing.add(&lost) {
                tracing::warn!(group = group.0, index, %error, "damaged block is not noted");
            }
        }
    }
    scrubbed.bytes
}
