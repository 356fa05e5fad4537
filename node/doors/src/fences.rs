//! Sessions that were superseded through another node: apply fences what they send, and here they are
//! told although they send nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_types::{GroupId, StreamKey};

use super::shared::Shared;

/// How long an older session may not know of a newer one at another node.
const INTERVAL: Duration = Duration::from_secs(3);
/// Rows read before other tasks get their turn.
const READS_A_TURN: usize = 256;

/// Runs until it is dropped.
pub async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let mut groups: HashMap<GroupId, Vec<(StreamKey, u64)>> = HashMap::new();
        for (group, stream, session) in shared.sources.open_streams() {
            groups.entry(group).or_default().push((stream, session));
        }
        for (group, streams) in groups {
            fence(&shared, group, streams).await;
        }
    }
}

/// Of a group that has no replica here the rows are elsewhere: its leader fences.
async fn fence(shared: &Shared, group: GroupId, streams: Vec<(StreamKey, u64)>) {
    let Ok(view) = shared.cluster.view(group, Freshness::Local).await else { return };
    for (n, (stream, session)) in streams.into_iter().enumerate() {
        if n % READS_A_TURN == READS_A_TURN - 1 {
            tokio::task::yield_now().await;
        }
        match reads::cursor(view.state.as_ref(), &stream) {
            Ok(Some(cursor)) if cursor.session > session => {
                shared.sources.superseded(&stream, cursor.session);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, %stream, "whether a session was superseded is not known")
            }
        }
    }
}
