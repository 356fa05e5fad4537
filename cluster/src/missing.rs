//! The note of bundles at or below the applied index that this replica does not hold.
//!
//! A snapshot leaves it, damage of a stored bundle adds to it, fetching from a peer empties it. It
//! lies among the group's rows, so that it is as durable as the applied index that it speaks of.
//! While it is not empty the replica is no voter-to-be, and reads of what it names go to a peer.
//!
//! Between the switch of rows to a snapshot's and the restart of the log behind them the log may
//! still hold entries that were never committed where the snapshot has others: it is in doubt there,
//! and neither believed nor added to.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateError, StateStore};
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use parking_lot::Mutex;
use prost::Message;

use crate::applied::Applied;
use crate::convert;
use crate::log_store::{ReplicaLog, wait_for_disk};
use crate::ranges::Ranges;
use crate::runtime::off_thread;

/// Key of the note.
const MISSING_KEY: &[u8] = &[0x00, 0x02];

/// The note of one replica. `writing` is held over each write of the row, so that what is remembered
/// and what is stored never part for whoever changes it; `note` only to look at it or to exchange it,
/// since a switch of rows takes as long as the disk does. `switch` shows the new note before it
/// writes, so whoever reads the new rows finds the doubt; `change` shows it after.
pub(crate) struct Missing {
    group: GroupId,
    store: Arc<dyn StateStore>,
    writing: Mutex<()>,
    note: Mutex<Note>,
    applied: Arc<Applied>,
}

#[derive(Clone, Default)]
struct Note {
    ranges: Ranges,
    doubt: Option<Doubt>,
}

/// The log is in doubt above `proved` until it is purged through `through`. Not stored: a start
/// brings the log behind the rows before anything reads it.
#[derive(Clone, Copy)]
struct Doubt {
    proved: u64,
    through: u64,
}

impl Missing {
    /// Reads what was noted.
    pub(crate) fn load(
        group: GroupId,
        store: Arc<dyn StateStore>,
        applied: Arc<Applied>,
    ) -> io::Result<Arc<Self>> {
        let row = store.get(MISSING_KEY).map_err(io::Error::other)?;
        let ranges = row.map(|row| parse(&row)).transpose().map_err(io::Error::other)?;
        let note = Mutex::new(Note { ranges: ranges.unwrap_or_default(), doubt: None });
        let missing = Self { group, store, writing: Mutex::default(), note, applied };
        missing.show(&missing.note.lock().ranges);
        Ok(Arc::new(missing))
    }

    /// An empty note for rows that are about to be replaced: what lies there is not read.
    pub(crate) fn unread(group: GroupId, store: Arc<dyn StateStore>) -> Self {
        let applied = Arc::new(Applied::new());
        Self { group, store, writing: Mutex::default(), note: Mutex::default(), applied }
    }

    pub(crate) fn ranges(&self) -> Ranges {
        self.note.lock().ranges.clone()
    }

    pub(crate) fn count(&self) -> u64 {
        self.note.lock().ranges.count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.note.lock().ranges.is_empty()
    }

    /// Notes more.
    pub(crate) fn add(&self, more: &Ranges) -> Result<(), StateError> {
        self.change(|ranges| ranges.extend(more.iter()))
    }

    /// Notes more and returns when that, and all other rows, are on disk.
    pub(crate) async fn add_durably(&self, more: &Ranges) -> io::Result<()> {
        self.add(more).map_err(io::Error::other)?;
        self.flush().await
    }

    /// Returns when all rows are on disk; a full disk is waited for.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        loop {
            let store = Arc::clone(&self.store);
            let flushed = off_thread(move || store.flush()).await;
            match flushed? {
                Ok(()) => return Ok(()),
                Err(error) if error.is_disk_full && !self.applied.is_closed() => {
                    wait_for_disk("flush").await;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Before the log restarts behind rows that end at `applied`: through which index what it held
    /// stays shown. Behind a snapshot that is what was applied before, or after a start all below the
    /// range of the note around `applied`; else what it `proved`, and the rest is noted. Rows and note
    /// are on disk when it returns.
    pub(crate) async fn restart_log(&self, applied: u64, proved: u64) -> io::Result<u64> {
        let doubt = self.note.lock().doubt.filter(|doubt| doubt.through == applied);
        let around = self.ranges().around(applied).map(|range| range.from.saturating_sub(1));
        if let Some(shown) = doubt.map(|doubt| doubt.proved).or(around) {
            self.flush().await?;
            return Ok(shown);
        }
        let mut lost = Ranges::default();
        lost.insert(proved + 1, applied);
        self.add_durably(&lost).await?;
        Ok(proved)
    }

    /// These are held now.
    pub(crate) fn remove(&self, held: impl IntoIterator<Item = u64>) -> Result<(), StateError> {
        self.change(|ranges| held.into_iter().for_each(|index| ranges.remove(index, index)))
    }

    fn change(&self, change: impl FnOnce(&mut Ranges)) -> Result<(), StateError> {
        let _one_write = self.writing.lock();
        let before = self.ranges();
        let mut next = before.clone();
        change(&mut next);
        if next == before {
            return Ok(());
        }
        let mut batch = StateBatch::default();
        put(&mut batch, &next);
        self.applied.while_open(|| self.store.write(&batch)).ok_or_else(|| self.stopped())??;
        self.show(&next);
        self.note.lock().ranges = next;
        Ok(())
    }

    /// Notes more in the same write as the switch of the rows to those of a snapshot: `write` is
    /// given the batch with the note. From then on the log is in doubt above `proved`, until it is
    /// purged through `through`, the end of the snapshot.
    pub(crate) fn switch(
        &self,
        more: &Ranges,
        proved: u64,
        through: u64,
        write: impl FnOnce(StateBatch) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let _one_write = self.writing.lock();
        let before = self.note.lock().clone();
        let mut next = before.ranges.clone();
        next.extend(more.iter());
        let mut batch = StateBatch::default();
        put(&mut batch, &next);
        // Before the write: whoever reads the new rows finds the doubt.
        self.show(&next);
        *self.note.lock() = Note { ranges: next, doubt: Some(Doubt { proved, through }) };
        let written = self.applied.while_open(|| write(batch)).ok_or_else(|| self.stopped());
        written.flatten().inspect_err(|_| {
            self.show(&before.ranges);
            *self.note.lock() = before;
        })
    }

    /// Through which index the log, where it holds entries, holds the committed ones: `applied`,
    /// unless it is in doubt.
    pub(crate) fn believed(&self, log: &dyn ReplicaLog, applied: u64) -> u64 {
        self.doubt(log).map_or(applied, |doubt| doubt.proved.min(applied))
    }

    /// Through which index the rows name bundles: they may be ahead of `applied` for a moment.
    pub(crate) fn due(&self, log: &dyn ReplicaLog, applied: u64) -> u64 {
        self.doubt(log).map_or(applied, |doubt| doubt.through.max(applied))
    }

    /// Whether the log has not followed the rows yet.
    pub(crate) fn is_in_doubt(&self, log: &dyn ReplicaLog) -> bool {
        self.doubt(log).is_some()
    }

    fn doubt(&self, log: &dyn ReplicaLog) -> Option<Doubt> {
        let mut note = self.note.lock();
        let doubt = note.doubt?;
        if log.marks().purged.is_some_and(|purged| purged.index >= doubt.through) {
            note.doubt = None;
        }
        note.doubt
    }

    fn stopped(&self) -> StateError {
        StateError::new(self.group, "this replica was stopped")
    }

    fn show(&self, ranges: &Ranges) {
        metrics::gauge!("dtm_cluster_missing_bundles", "group" => self.group.to_string())
            .set(ranges.count() as f64);
    }
}

fn put(batch: &mut StateBatch, ranges: &Ranges) {
    if ranges.is_empty() {
        batch.delete(MISSING_KEY);
    } else {
        let row = wire::MissingBundles { ranges: ranges.to_wire() };
        batch.put(MISSING_KEY, row.encode_to_vec());
    }
}

fn parse(row: &Bytes) -> Result<Ranges, convert::Error> {
    let row = wire::MissingBundles::decode(row.clone())
        .map_err(|error| convert::Error::malformed("note of missing bundles", error))?;
    Ok(Ranges::from_wire(&row.ranges))
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::MemoryStateStore;

    use super::*;

    fn ranges(list: &[(u64, u64)]) -> Ranges {
        let mut set = Ranges::default();
        list.iter().for_each(|&(from, to)| set.insert(from, to));
        set
    }

    // holds: ING-1
    #[test]
    fn the_note_is_united_and_survives_a_restart() {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(GroupId(1)));
        let load = || {
            Missing::load(GroupId(1), Arc::clone(&store), Arc::new(Applied::new())).expect("reads")
        };
        let missing = load();
        assert!(missing.is_empty());
        missing.add(&ranges(&[(5, 9)])).expect("written");
        let written = missing.switch(&ranges(&[(20, 30)]), 19, 30, |batch| store.write(&batch));
        written.expect("written");
        assert_eq!(load().ranges(), ranges(&[(5, 9), (20, 30)]));
        missing.remove([5, 6, 7, 25]).expect("written");
        assert_eq!(load().ranges(), ranges(&[(8, 9), (20, 24), (26, 30)]));
        assert_eq!(load().count(), 12);
        missing.remove(1..=30).expect("written");
        assert!(load().is_empty() && store.get(MISSING_KEY).expect("reads").is_none());
    }

    // What others ask meanwhile is answered at once, with the note of the rows to come.
    #[test]
    fn a_switch_of_rows_holds_up_nobody_who_looks() {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(GroupId(1)));
        let applied = Arc::new(Applied::new());
        let missing = Missing::load(GroupId(1), Arc::clone(&store), applied).expect("reads");
        let log = crate::log_store::MemoryLog::default();
        let (looks, told) = std::sync::mpsc::sync_channel(1);
        let looker = Arc::clone(&missing);
        let switched = missing.switch(&ranges(&[(20, 30)]), 19, 30, |batch| {
            std::thread::spawn(move || {
                let seen = (looker.ranges(), looker.is_in_doubt(&log), looker.believed(&log, 25));
                looks.send(seen).expect("awaited");
            });
            let seen = told.recv_timeout(std::time::Duration::from_secs(10)).expect("not held up");
            assert_eq!(seen, (ranges(&[(20, 30)]), true, 19));
            store.write(&batch)
        });
        switched.expect("written");
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(GroupId(1)));
        let missing = Missing::load(GroupId(1), store, Arc::new(Applied::new())).expect("reads");
        let failed = |_| Err(StateError::new(GroupId(1), "no"));
        assert!(missing.switch(&ranges(&[(1, 2)]), 0, 2, failed).is_err());
        assert!(missing.is_empty());
    }
}
