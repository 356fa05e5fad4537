//! A group from a backup: a replica that has never run, made on a disk where nothing runs.
//!
//! ```text
//!  rows of the backup          ─▶ rows, verbatim
//!  its entries 1 ‥ P           ─▶ record store
//!  P + 1  membership: this node alone votes, under a replica id that was never used
//!  P + 2  the bundle of the restore, through apply as any other ─▶ rows; the applied row
//!  log    begins anew behind P + 2, after a vote of a later term
//! ```
//! The new incarnation has one voter, so what it writes is committed; other nodes join it and get
//! rows and records as a snapshot. Nothing is taken back: an interrupted restore is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_types::command::outcome;
use dtm_types::{GroupId, ReplicaId, bundle, chain};

use crate::applied::Head;
use crate::convert;
use crate::error::Error;
use crate::log_store::{LogEntry, LogPosition, LogProvider, ReplicaLog, wait_flushed};
use crate::snapshot::StateProvider;
use crate::state_machine::{APPLIED_KEY, applied_row};
use crate::type_config::{Membership, Payload, PeerNode, StoredMembership, Vote};

/// A group that is being restored.
pub struct Restoring {
    group: GroupId,
    replica: ReplicaId,
    last: LogPosition,
    log: Arc<dyn ReplicaLog>,
    store: Arc<dyn StateStore>,
}

impl Restoring {
    /// Begins, on an empty disk: the log is made, behind what is to come. `last` is where the backup
    /// of the group ends, `replica` above every id that it ever had.
    ///
    /// # Errors
    /// [`Error::Refused`] where the disk holds something of the group.
    pub async fn begin(
        logs: &dyn LogProvider,
        states: &dyn StateProvider,
        group: GroupId,
        replica: ReplicaId,
        last: LogPosition,
    ) -> Result<Self, Error> {
        let store = states.open(group)?;
        let has_log = logs.replicas().iter().any(|(of, _)| *of == group);
        if has_log || !store.scan(&[], crate::snapshot::ROWS_TO, 1)?.is_empty() {
            return Err(Error::Refused(format!("group {group} is here already")));
        }
        let log = logs.open(group, replica).map_err(|source| Error::Log { group, source })?;
        let restoring = Self { group, replica, last, log, store };
        // A vote comes first, as of every new replica, and of a term that none of before can reach.
        let vote = convert::vote_to_bytes(&Vote::new(restoring.term() + 1, replica.0));
        restoring.on_disk(|log, done| log.save_vote(vote, done)).await?;
        let end = restoring.position(restoring.end());
        restoring.on_disk(|log, done| log.reset(end, None, done)).await?;
        Ok(restoring)
    }

    /// The term of what the restore itself writes.
    fn term(&self) -> u64 {
        self.last.term + 1
    }

    /// Where the restored log begins.
    fn end(&self) -> u64 {
        self.last.index + 2
    }

    fn position(&self, index: u64) -> LogPosition {
        LogPosition { index, term: self.term(), leader: self.replica.0 }
    }

    async fn on_disk(
        &self,
        start: impl FnOnce(
            &dyn ReplicaLog,
            crate::log_store::Flushed,
        ) -> Result<(), crate::log_store::LogError>,
    ) -> Result<(), Error> {
        let written = wait_flushed(|done| start(&*self.log, done)).await;
        written.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::error::Error) -> Error {
        Error::Raft { group: self.group, cause: chain(&error) }
    }

    /// Takes rows of the backup. Blocking.
    ///
    /// # Errors
    /// Of the rows.
    pub fn put_rows(&self, rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), Error> {
        let mut batch = StateBatch::default();
        rows.into_iter().for_each(|(key, value)| batch.put(key, value));
        Ok(self.store.write(&batch)?)
    }

    /// Takes entries of the backup, from 1 to where it ends. On stable storage when it returns.
    ///
    /// # Errors
    /// Of the log.
    pub async fn put_entries(&self, entries: Vec<LogEntry>) -> Result<(), Error> {
        let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
        self.log.ready(bytes).await.map_err(|error| self.failed(error))?;
        self.on_disk(|log, done| log.store_records(entries, done)).await
    }

    /// The rows as they are here.
    pub fn store(&self) -> &dyn StateStore {
        &*self.store
    }

    /// Ends the restore of the group, of which `node` is the only member from here on: `commands`
    /// are entered as one bundle. Everything is on stable storage when it returns.
    ///
    /// # Errors
    /// [`Error::Refused`] where the rows do not end where they should, entries are lacking, or apply
    /// refuses one of the commands.
    pub async fn finish(
        self,
        node: PeerNode,
        stamp_us: i64,
        commands: &[Vec<u8>],
    ) -> Result<Head, Error> {
        let refused = |what: String| Error::Refused(format!("group {}: {what}", self.group));
        let mut machine =
            Machine::load(self.group, &*self.store).map_err(|error| refused(error.to_string()))?;
        if machine.applied_index() > self.last.index {
            return Err(refused(format!("its rows are beyond entry {}", self.last.index)));
        }
        let (bundle, id) = (self.bundle(&machine, &node, stamp_us, commands), self.replica.0);
        let voters = vec![BTreeSet::from([id])];
        let membership = Membership::new(voters, BTreeMap::from([(id, node)]));
        let membership = membership.map_err(|error| refused(error.to_string()))?;
        let payload = convert::payload_to_bytes(&Payload::Membership(membership.clone()));
        let entry = |index, payload| {
            let LogPosition { term, leader, .. } = self.position(index);
            LogEntry { index, term, leader, payload }
        };
        let (before, end) = (self.end() - 1, self.end());
        self.put_entries(vec![entry(before, payload), entry(end, bundle.clone())]).await?;
        if let Some(lacking) = self.log.lacking(end).map_err(|e| self.failed(e))?.first() {
            return Err(refused(format!("entries {} to {} are lacking", lacking.from, lacking.to)));
        }
        let mut batch = StateBatch::default();
        let committed = [Committed { index: end, bundle: Some(bundle) }];
        let outcomes = machine.apply(&*self.store, &committed, &mut batch);
        for outcome in outcomes.map_err(|error| refused(error.to_string()))?.into_iter().flatten() {
            if let Some(outcome::Result::Refusal(refusal)) = outcome.result {
                return Err(refused(refusal.detail));
            }
        }
        let log_id = |index| Some(convert::log_id_of(self.position(index)));
        let membership = StoredMembership::new(log_id(before), membership);
        batch.put(APPLIED_KEY, applied_row(log_id(end), &membership));
        self.store.write(&batch)?;
        self.store.flush()?;
        let (ledger_size, ledger_root) = machine.ledger_head();
        let group_time_us = machine.group_time_us();
        Ok(Head { index: end, ledger_size, ledger_root, group_time_us })
    }

    fn bundle(
        &self,
        machine: &Machine,
        node: &PeerNode,
        stamp_us: i64,
        commands: &[Vec<u8>],
    ) -> Bytes {
        let version = machine.version();
        let mut builder = bundle::Builder::of_version(version, stamp_us, &node.node.0, 0);
        commands.iter().for_each(|command| builder.push(command));
        builder.finish()
    }
}

#[cfg(test)]
#[path = "restoring_test.rs"]
mod tests;
