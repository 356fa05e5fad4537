//! The node's shared log (`dtm_storage::log`) behind this crate's seam.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dtm_storage::log as node_log;
use dtm_types::{GroupId, Incarnation, ReplicaId};
use futures::future::BoxFuture;

use crate::lineage::{Forebear, Forebears, Lineage};
use crate::{
    Flushed, IndexRange, LogDamage, LogEntry, LogError, LogMarks, LogPosition, LogProvider,
    ReplicaLog, Scrubbed,
};

/// All replicas of a node in one log, with one fsync a round.
pub struct NodeLogs {
    log: Arc<node_log::NodeLog>,
    incarnation: Incarnation,
    lineage: Lineage,
}

impl NodeLogs {
    /// Serves the replicas of one incarnation.
    pub fn new(log: Arc<node_log::NodeLog>, incarnation: Incarnation) -> Self {
        Self { log, incarnation, lineage: Lineage::default() }
    }

    /// The same, where replicas of earlier lives on this node hold the beginning of the groups.
    pub fn with_lineage(self, lineage: Lineage) -> Self {
        Self { lineage, ..self }
    }

    /// What of the lineage of a group is on this node.
    fn forebears(&self, group: GroupId) -> Result<Forebears, LogError> {
        let here: BTreeSet<_> = self.log.groups().into_iter().map(|state| state.key).collect();
        let mut found = Vec::new();
        for of in self.lineage.of(group).filter(|of| of.incarnation < self.incarnation) {
            let Forebear { incarnation, replica, through, .. } = of;
            let key = key_of(group, incarnation, replica);
            if here.contains(&key) {
                found.push((self.log.group(group.0, replica.0, incarnation.0)?, through));
            }
        }
        Ok(Forebears(found))
    }

    /// The replica of this life that stands for a damaged record's.
    fn heir(&self, key: node_log::ReplicaKey) -> Option<ReplicaId> {
        let is_ours = key.incarnation == self.incarnation.0;
        let mut of_lineage = self.lineage.of(GroupId(key.group));
        if is_ours {
            return Some(ReplicaId(key.replica));
        }
        of_lineage.find(|of| key_of(of.group, of.incarnation, of.replica) == key)?;
        let mut replicas = self.replicas().into_iter().rev();
        replicas.find(|(group, _)| group.0 == key.group).map(|(_, replica)| replica)
    }
}

fn key_of(group: GroupId, incarnation: Incarnation, replica: ReplicaId) -> node_log::ReplicaKey {
    let (group, incarnation) = (group.0, incarnation.0);
    node_log::ReplicaKey { group, incarnation, replica: replica.0 }
}

impl LogProvider for NodeLogs {
    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        let log = self.log.group(group.0, replica.0, self.incarnation.0)?;
        Ok(Arc::new(Replica { log, forebears: self.forebears(group)? }))
    }

    fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        let all = self.log.groups().into_iter();
        let ours = all.filter(|state| state.key.incarnation == self.incarnation.0);
        let mut keys: Vec<_> =
            ours.map(|state| (GroupId(state.key.group), ReplicaId(state.key.replica))).collect();
        keys.sort_unstable();
        keys
    }

    fn drop_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), LogError> {
        for (forebear, _) in self.forebears(group)?.0 {
            self.log.drop_replica(forebear.key(), Box::new(|_| {}))?;
        }
        Ok(self.log.drop_replica(key_of(group, self.incarnation, replica), Box::new(|_| {}))?)
    }

    fn segments(&self) -> Vec<u64> {
        self.log.segments().into_iter().map(|segment| segment.number).collect()
    }

    fn scrub(&self, segment: u64) -> Result<Scrubbed, LogError> {
        let report = self.log.scrub(segment)?;
        let name = |(key, index): (node_log::ReplicaKey, u64)| {
            Some((GroupId(key.group), self.heir(key)?, index))
        };
        let damaged = report.damaged.into_iter().filter_map(name).collect();
        Ok(Scrubbed { bytes: report.bytes, damaged })
    }

    fn stopped(&self) -> Option<String> {
        self.log.stopped().map(|reason| reason.to_string())
    }
}

struct Replica {
    log: node_log::GroupLog,
    forebears: Forebears,
}

impl From<node_log::Error> for LogError {
    fn from(error: node_log::Error) -> Self {
        match error {
            node_log::Error::Stopped { reason } => Self::Stopped(reason.to_string()),
            node_log::Error::DiskFull { .. } => Self::DiskFull,
            node_log::Error::Damaged { index, .. } => Self::Damaged(index),
            node_log::Error::NotFound { index, .. } => Self::NotFound(index),
            other => Self::Engine(dtm_types::chain(&other)),
        }
    }
}

fn callback(flushed: Flushed) -> node_log::Callback {
    Box::new(move |done| flushed(done.map_err(LogError::from)))
}

fn to_position(position: node_log::LogPosition) -> LogPosition {
    LogPosition { index: position.index, term: position.term, leader: position.leader }
}

fn from_position(position: LogPosition) -> node_log::LogPosition {
    node_log::LogPosition { index: position.index, term: position.term, leader: position.leader }
}

pub(crate) fn to_range(range: node_log::IndexRange) -> IndexRange {
    IndexRange { from: range.from, to: range.to }
}

pub(crate) fn to_entry(entry: node_log::LogEntry) -> LogEntry {
    let node_log::LogEntry { index, term, leader, payload } = entry;
    LogEntry { index, term, leader, payload }
}

fn from_entries(entries: Vec<LogEntry>) -> Vec<node_log::LogEntry> {
    let convert = |LogEntry { index, term, leader, payload }| node_log::LogEntry {
        index,
        term,
        leader,
        payload,
    };
    entries.into_iter().map(convert).collect()
}

impl ReplicaLog for Replica {
    fn marks(&self) -> LogMarks {
        let state = self.log.state();
        let recovering = match state.health {
            node_log::Health::Healthy => None,
            node_log::Health::Recovering { missing, tail_unknown, vote_lost } => {
                let missing = missing.into_iter().map(to_range).collect();
                Some(LogDamage { missing, tail_unknown, vote_lost })
            }
        };
        LogMarks {
            vote: state.vote,
            committed: state.committed,
            purged: state.last_purged.map(to_position),
            last: state.last.map(to_position),
            recovering,
        }
    }

    fn payload_bytes_max(&self) -> usize {
        self.log.payload_bytes_max()
    }

    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { Ok(self.log.ready(bytes).await?) })
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        Ok(self.log.append(from_entries(entries), callback(flushed))?)
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        Ok(self.log.save_vote(vote, callback(flushed))?)
    }

    fn save_committed(&self, committed: Bytes) {
        self.log.save_committed(committed);
    }

    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError> {
        Ok(self.log.truncate_after(last, callback(flushed))?)
    }

    fn purge_to(&self, position: LogPosition) -> Result<(), LogError> {
        Ok(self.log.purge_to(from_position(position), Box::new(|_| {}))?)
    }

    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError> {
        Ok(self.log.reset(from_position(position), visible_through, callback(flushed))?)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        Ok(self.log.read(range, bytes_max)?.into_iter().map(to_entry).collect())
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        match self.log.read_record(index).map_err(LogError::from) {
            Ok(entry) => Ok(to_entry(entry)),
            Err(error @ (LogError::NotFound(_) | LogError::Damaged(_))) => {
                self.forebears.read(index, error)
            }
            Err(error) => Err(error),
        }
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        Ok(self.log.store_records(from_entries(entries), callback(flushed))?)
    }

    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError> {
        self.forebears.lacking(self.log.lacking(through)?.into_iter().map(to_range).collect())
    }

    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError> {
        Ok(self.log.declare_whole(callback(flushed))?)
    }

    fn release(&self, through: u64) {
        self.log.release(through);
    }
}
