//! A replica of a life that ends, with nothing running on it: what it holds, how it is brought to
//! where its group ends, and how it ends.

use std::io;
use std::sync::Arc;

use dtm_machine::keys::{Key, table};
use dtm_machine::seams::{StateBatch, StateError, StateStore};
use dtm_machine::{Committed, Machine, reads};
use dtm_proto::cluster as wire;
use dtm_types::format::Leaf;
use dtm_types::{GroupId, ReplicaId, chain};
use prost::Message;

use crate::adoption::{Adoption, EntrySource};
use crate::applied::{Applied, Head};
use crate::convert;
use crate::error::Error;
use crate::log_store::{
    IndexRange, LogPosition, LogProvider, READ_BYTES_MAX, ReplicaLog, wait_flushed,
};
use crate::missing::Missing;
use crate::ranges::Ranges;
use crate::rebuild;
use crate::repair;
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
    /// The log was brought behind the rows.
    settled: tokio::sync::OnceCell<()>,
}

impl Survivor {
    pub(super) fn open(
        logs: &dyn LogProvider,
        states: &dyn StateProvider,
        (group, replica): (GroupId, ReplicaId),
        version_max: u8,
    ) -> Result<Self, Error> {
        let log = logs.open(group, replica).map_err(|source| Error::Log { group, source })?;
        let (store, settled) = (states.open(group)?, tokio::sync::OnceCell::new());
        Ok(Self { group, replica, version_max, log, store, settled })
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

    /// Brings the log behind the rows, as a start of the group does, once: rows that a snapshot switched
    /// may end beyond a log that was not restarted, and what that holds contradicts them or lies before
    /// a hole. What is damaged at or below the rows is left to them. `own` is the life of the log.
    ///
    /// # Errors
    /// Also [`Error::Refused`] where the rows are of a later life: a plan that was followed half-way and
    /// lost has to come back, and the log stays as it is until then.
    pub(super) async fn settle(&self, own: u64) -> Result<(), Error> {
        self.settled.get_or_try_init(|| self.follow_rows(own)).await.copied()
    }

    /// The life that the last leaf opened, or that meta's rows tell; 0 where neither says anything.
    fn life(&self) -> Result<u64, StateError> {
        let size = reads::head(&*self.store)?.ledger_size;
        let last = Key::of(table::LEAF).u64(size.saturating_sub(1)).done();
        let leaf = self.store.get(&last)?.and_then(|row| Leaf::decode(row.get(1..)?).ok());
        let opened = leaf.and_then(|leaf| leaf.genesis).map_or(0, |genesis| genesis.incarnation);
        let told = reads::cluster(&*self.store)?.map_or(0, |cluster| cluster.incarnation);
        Ok(opened.max(told))
    }

    async fn follow_rows(&self, own: u64) -> Result<(), Error> {
        let life = self.life().map_err(|error| self.failed(error))?;
        if life > own {
            return Err(self.failed(format!("its rows are of life {life}, its log is of {own}")));
        }
        let followed = rebuild::follow_rows(self.group, &self.log, &self.store).await;
        followed.map_err(|error| self.failed(chain(&error)))?;
        let (applied, _) = read_applied(&*self.store).map_err(|error| self.failed(error))?;
        // openraft would restart a log that is empty; here nothing of it runs.
        if let Some(applied) = applied.filter(|_| self.log.marks().last.is_none()) {
            let position = convert::position(&applied);
            let note = self.note().map_err(|error| self.failed(error))?;
            let shown = note.restart_log(position.index, 0).await;
            let shown = shown.map_err(|error| self.failed(error))?;
            let restarted = wait_flushed(|done| self.log.reset(position, Some(shown), done)).await;
            restarted.map_err(|error| self.failed(error))?;
        }
        let left = repair::leave_to_rows(self.group, &self.log, &self.store).await;
        left.map_err(|error| self.failed(error))
    }

    fn note(&self) -> io::Result<Arc<Missing>> {
        Missing::load(self.group, Arc::clone(&self.store), Arc::new(Applied::new()))
    }

    /// What cannot be read above the rows.
    fn gaps(&self) -> Vec<IndexRange> {
        self.log.marks().recovering.map(|damage| damage.missing).unwrap_or_default()
    }

    /// What it holds, and whether that is enough to go over with.
    pub(super) fn stand(&self) -> wire::ReplicaStand {
        let marks = self.log.marks();
        let last = marks.last.unwrap_or_default();
        let mut unfit = String::new();
        let (applied, lacking) = match (self.applied(), self.note()) {
            (Ok(applied), Ok(note)) => (applied, note.ranges()),
            (Err(error), _) => unfit_by(&mut unfit, &error),
            (_, Err(error)) => unfit_by(&mut unfit, &error),
        };
        // A log that is damaged above what is applied is mended from another one; one that lost its vote
        // has nothing to lose by it here: the next life votes anew.
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
            lacking: lacking.count(),
            unfit,
            absent: lacking.to_wire(),
            damaged: !self.gaps().is_empty(),
        }
    }

    /// Holds and applies everything through `end`, as `source` has it; none is named where this is the
    /// replica that has it, which is mended from `others` where it is damaged. May be repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] where another log ends, or apply stops.
    pub(super) async fn level(
        &self,
        (source, others): (Option<&dyn EntrySource>, &[&dyn EntrySource]),
        end: LogPosition,
        own: u64,
    ) -> Result<Head, Error> {
        self.settle(own).await?;
        let applied = self.applied()?;
        let begin = self.log.marks().purged.map_or(0, |purged| purged.index);
        if begin > applied {
            let told = format!("rows end at {applied}, the log begins above {begin}");
            return Err(self.failed(told));
        }
        if applied > end.index {
            let told =
                format!("entry {applied} is applied here, the group is to end at {}", end.index);
            return Err(self.failed(told));
        }
        let adoption = Adoption { group: self.group, log: &self.log };
        match source {
            Some(source) => {
                let adopted = adoption.run(source, Some(applied)).await;
                adopted.map_err(|error| self.failed(chain(&error)))?;
            }
            None => {
                // From the end: what follows a gap says whose log goes on in the same way.
                for gap in self.gaps().into_iter().rev() {
                    let filled = adoption.fill(others, gap).await;
                    filled.map_err(|error| self.failed(chain(&error)))?;
                }
            }
        }
        let last = self.log.marks().last;
        // Of a last entry that cannot be read the leader is not known.
        let is_there = last.is_some_and(|last| {
            (last.index, last.term) == (end.index, end.term)
                && (last.leader == end.leader || end.leader == 0)
        });
        if !is_there {
            return Err(self.failed(format!("its log ends at {last:?}, the group at {end:?}")));
        }
        if let Some(gap) = self.gaps().first() {
            let IndexRange { from, to } = gap;
            return Err(self.failed(format!(
                "entries {from} to {to} cannot be read here, and no node that answers gives them: let \
                 another one that holds the group answer, or stop this one"
            )));
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
        match self.log.marks().purged {
            Some(purged) if purged == last => return Ok(()),
            Some(purged) if purged.index > last.index => {
                let told = format!("its log begins at {purged:?}, beyond {last:?}");
                return Err(self.failed(told));
            }
            _ => {}
        }
        let cut = wait_flushed(|done| self.log.truncate_after(Some(last.index), done)).await;
        cut.map_err(|error| self.failed(error))?;
        self.log.purge_to(last).map_err(|source| Error::Log { group: self.group, source })?;
        let synced = wait_flushed(|done| self.log.append(Vec::new(), done)).await;
        synced.map_err(|error| self.failed(error))
    }
}

fn unfit_by(unfit: &mut String, error: &dyn std::error::Error) -> (u64, Ranges) {
    *unfit = chain(error);
    (0, Ranges::default())
}

#[cfg(test)]
#[path = "survivor_test.rs"]
mod tests;
