//! Bundles that this replica lacks, fetched from any peer that holds them: in the background until
//! the note is empty, and one at once for a reader.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dtm_proto::cluster as wire;
use dtm_types::{GroupId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;

use crate::applied::Applied;
use crate::log_store::{LogEntry, LogError, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::network::{Links, entries};
use crate::raft::GroupRaft;
use crate::ranges::Ranges;
use crate::registry::Registry;
use crate::type_config::PeerNode;

/// Indexes looked at in one step.
const STEP_INDEXES: u64 = 512;
const INTERVAL: Duration = Duration::from_secs(1);
/// A reader waits at most this long for a bundle of a peer.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// What fetching needs of a replica.
pub(crate) struct Backfill {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: GroupRaft,
    pub(crate) log: Arc<dyn ReplicaLog>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) missing: Arc<Missing>,
    pub(crate) links: Arc<Links>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// Runs until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        for group in registry.groups() {
            if group.backfill.missing.is_empty() {
                continue;
            }
            if let Err(error) = group.backfill.round().await {
                tracing::warn!(group = group.id.0, %error, "missing bundles put off");
            }
        }
    }
}

/// What these bundles take.
pub(crate) fn payload_bytes(entries: &[LogEntry]) -> usize {
    entries.iter().map(|entry| entry.payload.len()).sum()
}

impl Backfill {
    /// Goes over the note once.
    async fn round(&self) -> io::Result<()> {
        let ranges = self.missing.ranges();
        // Looked at behind the note: what a snapshot noted is in doubt from the same moment.
        if self.missing.is_in_doubt(&*self.log) {
            return Ok(());
        }
        for range in ranges.iter() {
            let mut from = range.from;
            while from <= range.to {
                let to = range.to.min(from + STEP_INDEXES - 1);
                self.step(from, to).await?;
                from = to + 1;
            }
        }
        Ok(())
    }

    async fn step(&self, from: u64, to: u64) -> io::Result<()> {
        let log = Arc::clone(&self.log);
        let unreadable = move || -> BTreeSet<u64> {
            (from..=to).filter(|&index| log.read_record(index).is_err()).collect()
        };
        let mut lacking =
            tokio::task::spawn_blocking(unreadable).await.map_err(io::Error::other)?;
        let here = (from..=to).filter(|index| !lacking.contains(index));
        self.missing.remove(here).map_err(io::Error::other)?;
        for (replica, peer) in self.peers() {
            let Some((&first, &last)) = lacking.first().zip(lacking.last()) else {
                return Ok(());
            };
            let mut next = first;
            while next <= last {
                let (entries, through) = match self.ask(replica, &peer, next, last).await {
                    Ok(answer) => (answer.entries, answer.through),
                    Err(status) => {
                        tracing::info!(group = self.group.0, replica, %status, "peer gives no bundles");
                        break;
                    }
                };
                let wanted: Vec<LogEntry> =
                    entries.into_iter().filter(|entry| lacking.remove(&entry.index)).collect();
                self.links.copies().take(payload_bytes(&wanted)).await;
                self.keep(wanted).await?;
                if through < next {
                    break;
                }
                next = through + 1;
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        replica: u64,
        peer: &PeerNode,
        from: u64,
        to: u64,
    ) -> Result<entries::Answer, tonic::Status> {
        let target = Some(wire::Target { group: self.group.0, replica });
        let request = wire::EntriesRequest { target, from, to, committed: true, next: None };
        entries::ask(&self.links.to(peer.node, &peer.peer_address), request).await
    }

    /// Stores bundles that a peer gave and takes them off the note. Durable when it returns. Refused
    /// while the log is in doubt: its restart would hide them.
    pub(crate) async fn keep(&self, entries: Vec<LogEntry>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.missing.is_in_doubt(&*self.log) {
            return Err(io::Error::other("the log has not followed the rows of a snapshot yet"));
        }
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
        metrics::counter!("dtm_cluster_bundles_fetched_total").increment(indexes.len() as u64);
        self.log.ready(payload_bytes(&entries)).await.map_err(io::Error::other)?;
        wait_flushed(|flushed| self.log.store_records(entries, flushed)).await?;
        self.missing.remove(indexes).map_err(io::Error::other)
    }

    /// A bundle that is held here: an entry of the log only where it is certainly the committed one.
    /// Blocking.
    pub(crate) fn held(&self, index: u64) -> Result<LogEntry, LogError> {
        if index > self.missing.believed(&*self.log, u64::MAX) {
            return Err(LogError::NotFound(index));
        }
        self.log.read_record(index)
    }

    /// One bundle for a reader, from a peer; `None` when no peer gave it in time. Blocks the thread.
    pub(crate) fn one(self: &Arc<Self>, index: u64) -> Option<LogEntry> {
        let mut note = Ranges::default();
        note.insert(index, index);
        if let Err(error) = self.missing.add(&note) {
            tracing::warn!(group = self.group.0, index, %error, "missing bundle is not noted");
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let backfill = Arc::clone(self);
        self.runtime.spawn(async move {
            // The reader may have given up.
            let _ = sender.send(backfill.fetch_one(index).await);
        });
        receiver.recv_timeout(READ_TIMEOUT).ok().flatten()
    }

    async fn fetch_one(&self, index: u64) -> Option<LogEntry> {
        for (replica, peer) in self.peers() {
            let Ok(answer) = self.ask(replica, &peer, index, index).await else { continue };
            if let Some(entry) = answer.entries.into_iter().find(|entry| entry.index == index) {
                if let Err(error) = self.keep(vec![entry.clone()]).await {
                    tracing::warn!(group = self.group.0, index, %error, "bundle is not kept");
                }
                return Some(entry);
            }
        }
        None
    }

    /// Whether a bundle at this index must be here: the rows name it.
    pub(crate) fn is_due(&self, index: u64) -> bool {
        let applied = self.applied.head().index;
        (1..=self.missing.due(&*self.log, applied)).contains(&index)
    }

    /// The other members, the leader first.
    fn peers(&self) -> Vec<(u64, PeerNode)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership().nodes();
        let others = members.filter(|(replica, _)| **replica != self.replica.0);
        let mut peers: Vec<(u64, PeerNode)> =
            others.map(|(id, peer)| (*id, peer.clone())).collect();
        peers.sort_by_key(|(replica, _)| Some(*replica) != metrics.current_leader);
        peers
    }
}
