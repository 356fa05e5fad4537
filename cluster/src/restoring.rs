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
//!
//! The replicas of a standby that go over to the next life ([`crate::promotion`]) begin it in the same
//! way, on the rows and behind the entries that they hold: there each member of the group writes the
//! same P + 1 and P + 2, so what is written is on all of them before any of them votes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_types::command::outcome;
use dtm_types::{GroupId, NodeId, ReplicaId, bundle, chain};

use crate::applied::{Applied, Head};
use crate::convert;
use crate::error::Error;
use crate::log_store::{LogEntry, LogPosition, LogProvider, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::ranges::Ranges;
use crate::snapshot::StateProvider;
use crate::state_machine::{APPLIED_KEY, applied_row};
use crate::type_config::{Membership, Payload, PeerNode, StoredMembership, Vote};

/// What opens the next life of a group; the same on each of its members.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its voters.
    pub members: BTreeMap<u64, PeerNode>,
    /// The node in whose name it is written.
    pub author: NodeId,
    /// Unix microseconds.
    pub stamp_us: i64,
    /// Encoded, in order.
    pub commands: Vec<Bytes>,
}

/// A group that is being restored.
pub struct Restoring {
    group: GroupId,
    replica: ReplicaId,
    /// Who leads the term of what opens the life: of the name of its entries.
    leader: ReplicaId,
    last: LogPosition,
    /// Some of its entries may be lacking here: they are noted, and fetched later.
    may_lack: bool,
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
        let restoring = Self { group, replica, leader: replica, last, may_lack: false, log, store };
        restoring.open_log().await?;
        Ok(restoring)
    }

    /// Begins where a replica of the life before holds rows and entries through `last`: `logs` are
    /// those of the new life, with the lineage that names it. May be called again after a crash.
    /// `leader` is the same on each member.
    ///
    /// # Errors
    /// Of the log and the rows.
    pub async fn go_on(
        logs: &dyn LogProvider,
        states: &dyn StateProvider,
        group: GroupId,
        (replica, leader): (ReplicaId, ReplicaId),
        last: LogPosition,
    ) -> Result<Self, Error> {
        let store = states.open(group)?;
        let log = logs.open(group, replica).map_err(|source| Error::Log { group, source })?;
        let restoring = Self { group, replica, leader, last, may_lack: true, log, store };
        let end = restoring.position(restoring.end());
        if restoring.log.marks().purged != Some(end) {
            restoring.open_log().await?;
        }
        Ok(restoring)
    }

    /// A vote comes first, as of every new replica, and of a term that none of before can reach.
    async fn open_log(&self) -> Result<(), Error> {
        let vote = convert::vote_to_bytes(&Vote::new(self.term() + 1, self.replica.0));
        self.on_disk(|log, done| log.save_vote(vote, done)).await?;
        let end = self.position(self.end());
        self.on_disk(|log, done| log.reset(end, None, done)).await
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
        LogPosition { index, term: self.term(), leader: self.leader.0 }
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

    /// Ends the restore of the group with what opens its next life, entered as one bundle.
    /// Everything is on stable storage when it returns; where it was before, nothing is done.
    ///
    /// # Errors
    /// [`Error::Refused`] where the rows do not end where they should, entries are lacking, or apply
    /// refuses one of the commands.
    pub async fn finish(self, opening: &Opening) -> Result<Head, Error> {
        let refused = |what: String| Error::Refused(format!("group {}: {what}", self.group));
        let mut machine =
            Machine::load(self.group, &*self.store).map_err(|error| refused(error.to_string()))?;
        let end = self.end();
        if self.may_lack && machine.applied_index() == end {
            return Ok(self.head(&machine));
        }
        if machine.applied_index() > self.last.index {
            return Err(refused(format!("its rows are beyond entry {}", self.last.index)));
        }
        let Entered { membership, bundle, mut batch } =
            enter(self.group, &mut machine, &*self.store, end, opening)?;
        let payload = convert::payload_to_bytes(&Payload::Membership(membership.clone()));
        let entry = |index, payload| {
            let LogPosition { term, leader, .. } = self.position(index);
            LogEntry { index, term, leader, payload }
        };
        self.put_entries(vec![entry(end - 1, payload), entry(end, bundle)]).await?;
        self.note_lacking().await?;
        let log_id = |index| Some(convert::log_id_of(self.position(index)));
        let membership = StoredMembership::new(log_id(end - 1), membership);
        batch.put(APPLIED_KEY, applied_row(log_id(end), &membership));
        self.store.write(&batch)?;
        self.store.flush()?;
        Ok(self.head(&machine))
    }

    fn head(&self, machine: &Machine) -> Head {
        let (ledger_size, ledger_root) = machine.ledger_head();
        let group_time_us = machine.group_time_us();
        Head { index: self.end(), ledger_size, ledger_root, group_time_us }
    }

    /// What the record store does not hold is an error, or is noted and fetched from another member.
    async fn note_lacking(&self) -> Result<(), Error> {
        let lacking = self.log.lacking(self.end()).map_err(|error| self.failed(error))?;
        let Some(first) = lacking.first() else { return Ok(()) };
        if !self.may_lack {
            let what = format!("entries {} to {} are lacking", first.from, first.to);
            return Err(Error::Refused(format!("group {}: {what}", self.group)));
        }
        let applied = Arc::new(Applied::new());
        let note = Missing::load(self.group, Arc::clone(&self.store), applied);
        let note = note.map_err(|error| self.failed(error))?;
        let added = note.add_durably(&lacking.into_iter().collect::<Ranges>()).await;
        added.map_err(|error| self.failed(error))
    }
}

/// What an opening comes to: the two entries, and what they make of the rows.
struct Entered {
    membership: Membership,
    bundle: Bytes,
    batch: StateBatch,
}

/// Applies an opening as entry `end`; nothing is written.
fn enter(
    group: GroupId,
    machine: &mut Machine,
    store: &dyn StateStore,
    end: u64,
    opening: &Opening,
) -> Result<Entered, Error> {
    let refused = |what: String| Error::Refused(format!("group {group}: {what}"));
    let voters = vec![opening.members.keys().copied().collect::<BTreeSet<u64>>()];
    let membership = Membership::new(voters, opening.members.clone());
    let membership = membership.map_err(|error| refused(error.to_string()))?;
    let bundle = bundle_of(machine, opening);
    let (mut batch, entry) = (StateBatch::default(), Some(bundle.clone()));
    let outcomes = machine.apply(store, &[Committed { index: end, bundle: entry }], &mut batch);
    let outcomes = outcomes.map_err(|error| refused(chain(&error)))?.into_iter().flatten();
    for (at, outcome) in (1..).zip(outcomes) {
        if let Some(outcome::Result::Refusal(refusal)) = outcome.result {
            let what = format!("command {at} of what opens the life is refused");
            return Err(refused(format!("{what}: {}", refusal.detail)));
        }
    }
    Ok(Entered { membership, bundle, batch })
}

/// Whether [`Restoring::finish`] would end with this opening on rows that end at entry `last`. Nothing
/// is written.
///
/// # Errors
/// [`Error::Refused`] with what would stand against it.
pub(crate) fn try_out(
    log: &dyn ReplicaLog,
    store: &dyn StateStore,
    last: u64,
    opening: &Opening,
) -> Result<(), Error> {
    let group = store.group();
    let refused = |what: String| Error::Refused(format!("group {group}: {what}"));
    let mut machine = Machine::load(group, store).map_err(|error| refused(chain(&error)))?;
    let applied = machine.applied_index();
    if applied > last {
        return Err(refused(format!("its rows are at {applied}, beyond entry {last}")));
    }
    let entered = enter(group, &mut machine, store, last + 2, opening)?;
    let (bytes, bytes_max) = (entered.bundle.len(), log.payload_bytes_max());
    if bytes > bytes_max {
        let what = format!("what opens the life has {bytes} bytes, the log takes {bytes_max}");
        return Err(refused(what));
    }
    Ok(())
}

fn bundle_of(machine: &Machine, opening: &Opening) -> Bytes {
    let version = machine.version();
    let author = &opening.author.0;
    let mut builder = bundle::Builder::of_version(version, opening.stamp_us, author, 0);
    opening.commands.iter().for_each(|command| builder.push(command));
    builder.finish()
}

#[cfg(test)]
#[path = "restoring_test.rs"]
mod tests;
