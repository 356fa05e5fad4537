//! One replica without a node, for simulation: openraft over this crate's log adapter, state
//! machine, snapshots and messages, on a log, rows, a network and a clock that the simulation gives.
//!
//! All of it runs on one thread. After [`seed`] what happens depends on the seed alone.

mod chunks;
mod letter;
mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{GroupView, RecordError, RecordStore, StateStore};
use dtm_proto::cluster as wire;
use dtm_types::command::Outcome;
use dtm_types::{GroupId, NodeId, bundle};
use futures::StreamExt;
use futures::future::BoxFuture;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use prost::Message;

use crate::applied::Applied;
use crate::config::ClusterConfig;
use crate::convert;
use crate::log_store::{LogEntry, LogStore, ReplicaLog, wait_flushed};
use crate::maintain::purge_behind_flush;
use crate::missing::Missing;
use crate::network::{
    answer_to_wire, answer_transfer, answer_vote, append_request_from_wire, entries_answer,
    entry_from_wire,
};
use crate::raft::GroupRaft;
use crate::runtime;
use crate::snapshot::{StateProvider, is_needless};
use crate::state_machine::StateMachine;
use crate::type_config::{BundleBytes, PeerNode};
use letter::{KINDS, Letter};

/// Carries what one replica asks another.
pub trait Post: Send + Sync + 'static {
    /// Brings a letter to a replica ([`Replica::receive`]) and its answer back. `None`: refused or
    /// lost, and the asker is told; a future that never ends: it is not.
    fn carry(&self, from: u64, to: u64, letter: Bytes) -> BoxFuture<'static, Option<Bytes>>;
}

/// What kind of letter it is.
pub fn kind_of(letter: &[u8]) -> &'static str {
    letter.first().and_then(|kind| KINDS.get(usize::from(*kind))).unwrap_or(&"?")
}

/// From now on this thread is simulated: everything random follows from the seed, blocking work is
/// done in place. `None` ends that.
pub fn seed(seed: Option<u64>) {
    runtime::seed(seed);
}

/// What a replica stands on.
pub struct Ground {
    /// The group.
    pub group: GroupId,
    /// The replica; a number is used once.
    pub replica: u64,
    /// Its log.
    pub log: Arc<dyn ReplicaLog>,
    /// Its rows.
    pub states: Arc<dyn StateProvider>,
    /// To the others.
    pub post: Arc<dyn Post>,
}

/// A running replica.
pub struct Replica {
    group: GroupId,
    id: u64,
    raft: GroupRaft,
    log: Arc<dyn ReplicaLog>,
    store: Arc<dyn StateStore>,
    states: Arc<dyn StateProvider>,
    applied: Arc<Applied>,
    missing: Arc<Missing>,
    post: Arc<dyn Post>,
}

impl Replica {
    /// Starts on what log and rows hold.
    ///
    /// # Errors
    /// In words: what is damaged, or does not fit together.
    pub async fn start(ground: Ground, config: &ClusterConfig) -> Result<Self, String> {
        let Ground { group, replica, log, states, post } = ground;
        let marks = log.marks();
        let store = states.open(group).map_err(|error| error.to_string())?;
        let applied = Arc::new(Applied::new());
        let missing = Missing::load(group, Arc::clone(&store), Arc::clone(&applied))
            .map_err(|error| error.to_string())?;
        let machine = StateMachine::load(
            group,
            config.version_max,
            Arc::clone(&store),
            Arc::clone(&log),
            Arc::clone(&applied),
            Arc::clone(&missing),
        )
        .map_err(|error| error.to_string())?;
        let (purged, end) = (marks.purged.map_or(0, |at| at.index), applied.head().index);
        if purged > end {
            return Err(format!("rows end at {end}, the log begins above {purged}"));
        }
        let synced = wait_flushed(|done| log.append(Vec::new(), done)).await;
        synced.map_err(|error| error.to_string())?;
        let log_store = LogStore::new(Arc::clone(&log), Arc::clone(&applied), Arc::clone(&missing));
        let net = net::Net { group, from: replica, post: Arc::clone(&post) };
        let raft = config.raft().map_err(|error| error.to_string())?;
        let raft = GroupRaft::new(replica, raft, net, log_store, machine).await;
        let raft = raft.map_err(|error| error.to_string())?;
        Ok(Self { group, id: replica, raft, log, store, states, applied, missing, post })
    }

    /// Ends it; what is on its way to the disk is the log's matter.
    pub async fn stop(&self) {
        self.applied.close();
        // It may have stopped by itself: its log failed.
        let _ = self.raft.shutdown().await;
    }

    /// Founds the group with these voters; to one replica, once.
    ///
    /// # Errors
    /// In words.
    pub async fn found(&self, voters: &BTreeMap<u64, PeerNode>) -> Result<(), String> {
        self.raft.initialize(voters.clone()).await.map_err(|error| error.to_string())
    }

    /// Makes these the voters, from one configuration to the next by a joint one; who is new learns
    /// first. Returns when it is committed.
    ///
    /// # Errors
    /// In words; then it may be half done.
    pub async fn vote_by(&self, voters: &BTreeMap<u64, PeerNode>) -> Result<(), String> {
        let known: BTreeSet<u64> = self.members();
        for (id, peer) in voters.iter().filter(|(id, _)| !known.contains(id)) {
            let added = self.raft.add_learner(*id, peer.clone(), true).await;
            added.map_err(|error| error.to_string())?;
        }
        let ids: BTreeSet<u64> = voters.keys().copied().collect();
        let changed = self.raft.change_membership(ids, false).await;
        changed.map(|_| ()).map_err(|error| error.to_string())
    }

    fn members(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, _)| *id).collect()
    }

    /// The voters, as this replica knows them.
    pub fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// True when it leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raft.server_metrics().borrow_watched().state == ServerState::Leader
    }

    /// Term of its vote.
    pub fn term(&self) -> u64 {
        self.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// Index of the last entry applied, leaves and root of the ledger.
    pub fn head(&self) -> crate::Head {
        self.applied.head()
    }

    /// Where it stands, for whoever looks at a failed run.
    pub fn status(&self) -> String {
        let metrics = self.raft.metrics();
        let (status, running) = {
            let metrics = metrics.borrow_watched();
            (metrics.to_string(), format!("{:?}", metrics.running_state))
        };
        let marks = self.log.marks();
        let (failure, lacks) = (self.applied.failure(), self.missing.count());
        format!(
            "{status} {running} failure {failure:?} lacks {lacks} last {:?} purged {:?}",
            marks.last, marks.purged
        )
    }

    /// Why it stopped applying, if it did.
    pub fn failure(&self) -> Option<String> {
        self.applied.failure()
    }

    /// Proposes a command alone in its bundle; what became of it.
    ///
    /// # Errors
    /// In words; the command may be committed all the same.
    pub async fn propose(
        &self,
        command: &[u8],
        time_us: i64,
        within: Duration,
    ) -> Result<Outcome, String> {
        let version = self.applied.version();
        let mut builder = bundle::Builder::of_version(version, time_us, &[1; 16], command.len());
        builder.push(command);
        let written = self.raft.client_write(BundleBytes(builder.finish()));
        let written =
            tokio::time::timeout(within, written).await.map_err(|_| "no answer in time")?;
        let mut outcomes = written.map_err(|error| error.to_string())?.data.0;
        outcomes.pop().ok_or_else(|| "an answer without an outcome".to_owned())
    }

    /// Everything committed before the call, confirmed by a majority.
    ///
    /// # Errors
    /// In words.
    pub async fn view(&self, within: Duration) -> Result<GroupView, String> {
        let policy = openraft::ReadPolicy::ReadIndex;
        let confirmed = tokio::time::timeout(within, self.raft.get_read_linearizer(policy)).await;
        let confirmed = confirmed.map_err(|_| "no answer in time")?.map_err(|e| e.to_string())?;
        let index = confirmed.read_log_id().index();
        if !self.applied.wait_for(index, within).await {
            return Err(format!("{index} is not applied in time"));
        }
        Ok(GroupView { current: true, ..self.view_here() })
    }

    /// What it has applied.
    pub fn view_here(&self) -> GroupView {
        GroupView {
            group: self.group,
            state: self.store.freeze(),
            records: Arc::new(Held(Arc::clone(&self.log))),
            current: false,
        }
    }

    /// Flushes rows, takes a manifest and purges the log behind it, but for so many entries.
    ///
    /// # Errors
    /// In words.
    pub async fn maintain(&self, entries_kept: u64) -> Result<(), String> {
        purge_behind_flush(&self.raft, &self.applied, &self.missing, entries_kept).await
    }

    /// Hands leadership to another replica.
    ///
    /// # Errors
    /// In words.
    pub async fn hand_over(&self, to: u64) -> Result<(), String> {
        self.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())
    }

    /// Whether bundles of a snapshot are not here yet.
    pub fn lacks(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Fetches from another replica what it lacks.
    pub async fn fill_from(&self, other: u64, within: Duration) {
        let Some(range) = self.missing.ranges().iter().next() else { return };
        let target = Some(wire::Target { group: self.group.0, replica: other });
        let (from, to) = (range.from, range.to);
        let letter = wire::EntriesRequest { target, from, to, committed: true, next: None };
        let asked = self.post.carry(self.id, other, Letter::Lacking(letter).seal());
        let Ok(Some(answer)) = tokio::time::timeout(within, asked).await else { return };
        let Ok(answer) = wire::EntriesResponse::decode(answer) else { return };
        let entries = answer.entries.into_iter().map(entry_from_wire);
        if let Ok(entries) = entries.collect::<Result<Vec<_>, _>>() {
            self.keep(entries).await;
        }
    }

    async fn keep(&self, entries: Vec<LogEntry>) -> Option<()> {
        let held: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
        if self.missing.is_in_doubt(&*self.log) {
            return None;
        }
        wait_flushed(|done| self.log.store_records(entries, done)).await.ok()?;
        self.missing.remove(held).ok()
    }

    /// Answers a letter of another replica. `None`: refused.
    pub async fn receive(&self, letter: Bytes) -> Option<Bytes> {
        let answer = match Letter::open(letter)? {
            Letter::Append(request) => {
                let request = append_request_from_wire(request).ok()?;
                let input = futures::stream::once(std::future::ready(request)).boxed();
                let answer = self.raft.stream_append(input).boxed().next().await?.ok()?;
                answer_to_wire(answer).encode_to_vec()
            }
            Letter::Vote(request) => answer_vote(&self.raft, request).await.ok()?.encode_to_vec(),
            Letter::Transfer(request) => {
                answer_transfer(&self.raft, request).await.ok()?.encode_to_vec()
            }
            Letter::Snapshot(parts) => {
                let stage = self.states.stage(self.group).ok()?;
                let arrived = chunks::arrived(parts, stage)?;
                let (vote, last) = (arrived.vote, arrived.snapshot.meta.last_log_id);
                let in_force = self.raft.server_metrics().borrow_watched().vote;
                if is_needless(&*self.log, &in_force, &vote, last.as_ref()).await {
                    let vote = Some(convert::vote_to_wire(&vote));
                    return Some(wire::SnapshotResponse { vote }.encode_to_vec().into());
                }
                let last = last.map_or(0, |last| last.index);
                let installed =
                    self.raft.install_full_snapshot(vote, arrived.snapshot).await.ok()?;
                if self.applied.head().index >= last {
                    let lacking = self.missing.ranges();
                    let lacks = |index: u64| lacking.around(index).is_some();
                    let bundles = arrived.bundles.into_iter().filter(|entry| lacks(entry.index));
                    self.keep(bundles.collect()).await;
                }
                let vote = Some(convert::vote_to_wire(&installed.vote));
                wire::SnapshotResponse { vote }.encode_to_vec()
            }
            Letter::Lacking(request) => {
                entries_answer(&*self.log, self.applied.head().index, &request).encode_to_vec()
            }
        };
        Some(answer.into())
    }
}

/// A node of the simulation that holds a replica.
pub fn peer(number: u8) -> PeerNode {
    PeerNode { node: NodeId([number; 16]), ..PeerNode::default() }
}

/// The log's bundles; nothing is fetched.
struct Held(Arc<dyn ReplicaLog>);

impl RecordStore for Held {
    fn bundle(&self, index: u64) -> Result<Bytes, RecordError> {
        let entry = self.0.read_record(index).map_err(|_| RecordError::NotHeld(index))?;
        match convert::is_bundle(&entry.payload) {
            true => Ok(entry.payload),
            false => Err(RecordError::NotHeld(index)),
        }
    }
}
