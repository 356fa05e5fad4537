//! A replica of a life that ends, with nothing running on it: what it holds, how it is brought to
//! where its group ends, and how it ends.

use std::sync::Arc;

use dtm_machine::seams::{StateBatch, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, ReplicaId, chain};

use crate::adoption::{Adoption, EntrySource};
use crate::applied::{Applied, Head};
use crate::convert;
use crate::error::Error;
use crate::log_store::{LogPosition, LogProvider, READ_BYTES_MAX, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::snapshot::StateProvider;
use crate::state_machine::{APPLIED_KEY, applied_row, read_applied};
use crate::type_config::{Payload, StoredMembership};

/// One of them.
pub(super) struct Survivor {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    version_max: u8,
    log: Arc<dyn ReplicaLog>,
    store: Arc<dyn StateStore>,
}

impl Survivor {
    pub(super) fn open(
        logs: &dyn LogProvider,
        states: &dyn StateProvider,
        (group, replica): (GroupId, ReplicaId),
        version_max: u8,
    ) -> Result<Self, Error> {
        let log = logs.open(group, replica).map_err(|source| Error::Log { group, source })?;
        Ok(Self { group, replica, version_max, log, store: states.open(group)? })
    }

    pub(super) fn log(&self) -> &Arc<dyn ReplicaLog> {
        &self.log
    }

    pub(super) fn store(&self) -> &dyn StateStore {
        &*self.store
    }

    fn failed(&self, error: impl std::fmt::Display) -> Error {
        Error::Refused(format!("group {}: {error}", self.group))
    }

    /// Through which index its rows reach.
    pub(super) fn applied(&self) -> Result<u64, Error> {
        let (applied, _) = read_applied(&*self.store).map_err(|error| self.failed(error))?;
        Ok(applied.map_or(0, |applied| applied.index))
    }

    /// What it holds, and whether that is enough to go over with.
    pub(super) fn stand(&self) -> wire::ReplicaStand {
        let marks = self.log.marks();
        let last = marks.last.unwrap_or_default();
        let noted = Missing::load(self.group, Arc::clone(&self.store), Arc::new(Applied::new()));
        let mut unfit = String::new();
        let (applied, lacking) = match (self.applied(), noted) {
            (Ok(applied), Ok(note)) => (applied, note.count()),
            (Err(error), _) => (0, unfit_by(&mut unfit, &error)),
            (_, Err(error)) => (0, unfit_by(&mut unfit, &error)),
        };
        // A log that is damaged above what is applied is mended from another one when it is levelled;
        // one that lost its vote has nothing to lose by it here: the next life votes anew.
        if unfit.is_empty() && applied == 0 {
            "nothing of the group was applied here".clone_into(&mut unfit);
        }
        let begin = marks.purged.map_or(0, |purged| purged.index);
        if unfit.is_empty() && begin > applied {
            unfit = format!("rows end at {applied}, the log begins above {begin}");
        }
        wire::ReplicaStand {
            target: Some(wire::Target { group: self.group.0, replica: self.replica.0 }),
            last: Some(convert::log_id_to_wire(&convert::log_id_of(last))),
            applied,
            lacking,
            unfit,
        }
    }

    /// Holds and applies everything through `end`, as `source` has it. May be repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] where another log ends, or apply stops.
    pub(super) async fn level(
        &self,
        source: Option<&dyn EntrySource>,
        end: LogPosition,
    ) -> Result<Head, Error> {
        let applied = self.applied()?;
        if applied > end.index {
            let told =
                format!("entry {applied} is applied here, the group is to end at {}", end.index);
            return Err(self.failed(told));
        }
        if let Some(source) = source {
            let adoption = Adoption { group: self.group, log: &self.log };
            let adopted = adoption.run(source, Some(applied)).await;
            adopted.map_err(|error| self.failed(chain(&error)))?;
        }
        let marks = self.log.marks();
        if marks.last != Some(end) {
            let told = format!("its log ends at {:?}, the group at {end:?}", marks.last);
            return Err(self.failed(told));
        }
        if let Some(damage) = marks.recovering.filter(|damage| !damage.missing.is_empty()) {
            return Err(self.failed(format!("its log is not whole: {damage}")));
        }
        self.apply_through(end.index)
    }

    /// Applies what the log holds. Of the memberships in it none counts any more; the last one is kept
    /// beside the rows as ever.
    fn apply_through(&self, end: u64) -> Result<Head, Error> {
        let failed = |error: &dyn std::fmt::Display| self.failed(error);
        let mut machine = Machine::load_up_to(self.version_max, self.group, &*self.store)
            .map_err(|error| failed(&error))?;
        let (mut last, mut membership) =
            read_applied(&*self.store).map_err(|error| failed(&error))?;
        let mut next = last.map_or(0, |last| last.index + 1);
        while next <= end {
            let page = self.log.read(next..end + 1, READ_BYTES_MAX);
            let page = page.map_err(|source| Error::Log { group: self.group, source })?;
            let mut committed = Vec::with_capacity(page.len());
            for entry in page {
                if entry.index != next {
                    return Err(failed(&format!("entry {next} is not in its log")));
                }
                next += 1;
                let entry = convert::entry_from_log(entry).map_err(|error| failed(&error))?;
                last = Some(entry.log_id);
                let bundle = match entry.payload {
                    Payload::Normal(bundle) => Some(bundle.0),
                    Payload::Blank => None,
                    Payload::Membership(changed) => {
                        membership = StoredMembership::new(last, changed);
                        None
                    }
                };
                committed.push(Committed { index: entry.log_id.index, bundle });
            }
            if committed.is_empty() {
                return Err(failed(&format!("entry {next} is not in its log")));
            }
            let mut batch = StateBatch::default();
            let applied = machine.apply(&*self.store, &committed, &mut batch);
            applied.map_err(|error| failed(&error))?;
            batch.put(APPLIED_KEY, applied_row(last, &membership));
            self.store.write(&batch)?;
        }
        // What follows purges the log behind these rows.
        self.store.flush()?;
        let (ledger_size, ledger_root) = machine.ledger_head();
        Ok(Head { index: end, ledger_size, ledger_root, group_time_us: machine.group_time_us() })
    }

    /// The log is at its end: entries through `last` are records from now on, and there are no others.
    /// May be repeated. On stable storage when it returns.
    ///
    /// # Errors
    /// [`Error::Refused`] where it was not levelled.
    pub(super) async fn end(&self, last: LogPosition) -> Result<(), Error> {
        let here = self.applied()?;
        if here < last.index {
            let told = format!("entry {here} is the last that is applied, not {}", last.index);
            return Err(self.failed(told));
        }
        if self.log.marks().purged == Some(last) {
            return Ok(());
        }
        let cut = wait_flushed(|done| self.log.truncate_after(Some(last.index), done)).await;
        cut.map_err(|error| self.failed(error))?;
        self.log.purge_to(last).map_err(|source| Error::Log { group: self.group, source })?;
        let synced = wait_flushed(|done| self.log.append(Vec::new(), done)).await;
        synced.map_err(|error| self.failed(error))
    }
}

fn unfit_by(unfit: &mut String, error: &dyn std::error::Error) -> u64 {
    *unfit = chain(error);
    0
}
