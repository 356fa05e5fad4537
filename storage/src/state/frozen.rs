//! A view of one group's rows that no later write changes.

use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateError, StateRead};
use dtm_types::GroupId;
use rocksdb::{ReadOptions, Snapshot};

use super::error::Error;
use super::group::Shared;
use super::read::Place;

/// An engine snapshot and the database it belongs to.
///
/// While it lives the engine keeps every row it can see, so a view held for hours costs disk.
pub(super) struct Frozen {
    // Declared before `shared`: fields drop in this order, and the snapshot must be released while
    // the database is open.
    snapshot: Snapshot<'static>,
    place: Place,
    shared: Arc<Shared>,
}

impl Frozen {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let generation = shared.generation.read();
        let place = Place { group: shared.group, generation: *generation };
        let snapshot = forget_lifetime(shared.engine.db.snapshot());
        drop(generation);
        Self { snapshot, place, shared }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(self.shared.engine.verify_checksums);
        options
    }
}

/// Lets a snapshot be kept beside the `Arc` that keeps its database open.
#[allow(unsafe_code)]
fn forget_lifetime(snapshot: Snapshot<'_>) -> Snapshot<'static> {
    // SAFETY: only the lifetime changes. The snapshot holds a reference to the `DB` inside
    // `Arc<Engine>` (reached through `Arc<Shared>`): a heap place that does not move and lives as
    // long as `Frozen::shared`, which `Frozen` never gives away and drops after the snapshot.
    unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) }
}

impl StateRead for Frozen {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let value = self.snapshot.get_pinned_opt(self.place.key(key), self.options());
        let value = value.map(|v| v.map(|v| Bytes::copy_from_slice(&v)));
        self.shared.checked(value.map_err(|e| Error::engine(&e)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        self.scan_within(from, to, limit, usize::MAX)
    }

    fn scan_within(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        // Whoever bounds the bytes reads all rows in turn (a snapshot, a backup, a comparison): what
        // apply has in the cache stays there.
        let open = |mut options: ReadOptions| {
            options.fill_cache(bytes_max == usize::MAX);
            self.snapshot.raw_iterator_opt(options)
        };
        let rows = self.place.scan(&self.shared.engine, open, (from, to), (limit, bytes_max));
        self.shared.checked(rows)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        let open = |options| self.snapshot.raw_iterator_opt(options);
        self.shared.checked(self.place.last(&self.shared.engine, open, (from, to)))
    }

    fn group(&self) -> GroupId {
        self.shared.group
    }
}
