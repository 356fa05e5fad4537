//! Looking at a sandbox from outside: are its groups writable, how full are its queues, what does a
//! current read see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, Proposer, ReadView};
use dtm_types::{GroupId, StreamKey};

use super::{GROUP, QUEUE_BYTES_MAX, Sandbox, commands};
use crate::checker::{Liveness, Reads};

/// One try of a command: a group that is cut off may never answer.
const TRY_WITHIN: Duration = Duration::from_secs(2);
const TRY_PAUSE: Duration = Duration::from_millis(50);
/// What a flood consists of: more than any queue of a sandbox may hold.
const FLOOD_COMMANDS: u64 = 40;
const FLOOD_RECORDS: u32 = 2_500;

impl Sandbox {
    /// The last fault is healed now: how long each group takes until it applies a command.
    pub async fn healed(&self, liveness: &mut Liveness, within: Duration) {
        let begun = Instant::now();
        let groups = [GroupId::META, GROUP];
        let [meta, ingest] = groups.map(|group| self.writable(group, begun + within));
        let (meta, ingest) = tokio::join!(meta, ingest);
        for (group, at) in groups.into_iter().zip([meta, ingest]) {
            liveness.recovered(group, at.map(|at| at - begun), within);
        }
    }

    /// When a command of the group was applied; none before the deadline.
    async fn writable(&self, group: GroupId, deadline: Instant) -> Option<Instant> {
        while Instant::now() < deadline {
            for at in self.running() {
                let proposed = self.propose(at, group, self.harmless(group));
                if let Ok(Ok(_)) = tokio::time::timeout(TRY_WITHIN, proposed).await {
                    return Some(Instant::now());
                }
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        None
    }

    /// A command that changes nothing the second time.
    fn harmless(&self, group: GroupId) -> Bytes {
        if group.is_meta() {
            return self.action(99, self.boot(0));
        }
        commands::put_key(&StreamKey::parse("probe", "probe").expect("allowed names"))
    }

    /// Sends a node more commands than its queue may hold, waits for no answer, and looks at the
    /// queue. Returns what it holds.
    pub fn flood(&self, at: usize, liveness: &mut Liveness) -> usize {
        let stream = StreamKey::parse("flood", "never-opened").expect("allowed names");
        let batch = commands::batch(&stream, 1, 1, FLOOD_RECORDS);
        for _ in 0..FLOOD_COMMANDS {
            self.node(at).propose(GROUP, batch.clone(), Box::new(drop));
        }
        let status = self.node(at).status();
        let queued = status.iter().find(|status| status.group == GROUP);
        let bytes = queued.map_or(0, |status| status.queued_bytes);
        liveness.queued(GROUP, &format!("node{at}"), bytes, QUEUE_BYTES_MAX);
        assert!(
            batch.len() * usize::try_from(FLOOD_COMMANDS).expect("few") > 2 * QUEUE_BYTES_MAX,
            "it is more than fits"
        );
        bytes
    }

    /// Reads where the stream stands from every running node, as current.
    pub async fn read_all(&self, stream: &StreamKey, reads: &mut Reads) {
        let name = stream.to_string();
        for at in self.running() {
            let asked = reads.begin(&name);
            let Ok(view) = self.node(at).view(GROUP, Freshness::Current).await else { continue };
            let cursor = reads::cursor(&*Arc::clone(&view.state), stream);
            let cursor = cursor.expect("rows of a sandbox can be read").unwrap_or_default();
            reads.answered(asked, &format!("node{at}"), view.current, cursor.through);
        }
    }
}
