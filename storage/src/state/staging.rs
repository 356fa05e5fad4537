//! A group's next generation while it is being received.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateError, StateRead};
use dtm_types::GroupId;
use rocksdb::WriteBatch;

use super::error::Error;
use super::group::{Shared, append, engine_batch};
use super::keys;
use super::read::Place;

/// Rows that will replace a group's rows, all at once.
///
/// Invisible to the group until [`Staging::commit`]. Dropped without it, or cut off by a crash, it
/// leaves nothing behind. Reads through it see what was staged so far.
pub struct Staging {
    shared: Arc<Shared>,
    place: Place,
}

impl Staging {
    /// Begins. Rows that an earlier attempt left under this generation are removed first.
    pub(super) fn begin(shared: Arc<Shared>) -> Result<Self, Error> {
        if shared.staging.swap(true, Ordering::AcqRel) {
            return Err(Error::StagingInProgress(shared.group));
        }
        let generation = *shared.generation.read();
        let next =
            generation.checked_add(1).expect("4 billion snapshots of one group are not received");
        let place = Place { group: shared.group, generation: next };
        let staging = Self { shared, place };
        staging.clear()?;
        Ok(staging)
    }

    /// Adds rows. Not durable before the commit.
    pub fn write(&self, batch: &StateBatch) -> Result<(), Error> {
        self.shared.engine.write(engine_batch(self.place, batch))
    }

    /// Adds the last rows and switches the group to what was staged, in one write: a reader, or a
    /// crash, sees the old rows or the new ones. Durable with the next flush, which is the caller's:
    /// a full disk then is no half-done switch. Frozen views of the old rows stay good. On an error
    /// the group has its old rows.
    pub fn commit(self, extra: &StateBatch) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        append(&mut batch, self.place, extra);
        batch.put(keys::generation(self.place.group), self.place.generation.to_be_bytes());
        {
            let mut current = self.shared.generation.write();
            let old = *current;
            batch.delete_range(
                keys::row(self.place.group, old, &[]),
                keys::behind(self.place.group, old),
            );
            self.shared.engine.write(batch)?;
            *current = self.place.generation;
        }
        self.shared.reopen();
        Ok(())
    }

    fn clear(&self) -> Result<(), Error> {
        let engine = &*self.shared.engine;
        if !self.place.is_empty(engine)? {
            let mut batch = WriteBatch::default();
            let Place { group, generation } = self.place;
            batch.delete_range(keys::row(group, generation, &[]), keys::behind(group, generation));
            engine.write(batch)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let committed = *self.shared.generation.read() == self.place.generation;
        if !committed && let Err(error) = self.clear() {
            // They are removed by the next staging or when the folder is opened.
            tracing::warn!(group = %self.place.group, %error, "staged rows stay for now");
        }
        self.shared.staging.store(false, Ordering::Release);
    }
}

impl StateRead for Staging {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.shared.checked(self.shared.engine.get(&self.place.key(key)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let engine = &*self.shared.engine;
        let open = |options| engine.db.raw_iterator_opt(options);
        self.shared.checked(self.place.scan(engine, open, (from, to), (limit, usize::MAX)))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        let engine = &*self.shared.engine;
        let open = |options| engine.db.raw_iterator_opt(options);
        self.shared.checked(self.place.last(engine, open, (from, to)))
    }

    fn group(&self) -> GroupId {
        self.shared.group
    }
}
