//! Row stores with one bug each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dtm_chaos::sandbox::Seams;
use dtm_cluster::StateProvider;
use dtm_machine::keys::{self, table};
use dtm_machine::seams::{StateBatch, StateError, StateOp, StateRead, StateStore};
use dtm_testkit::{Wrapped, WrappedState, WrappedStates};
use dtm_types::GroupId;
use dtm_types::command::OperatorRow;
use dtm_types::format::Place;
use parking_lot::Mutex;
use prost::Message;

/// The bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowBug {
    /// A flush does nothing and says that it did.
    FlushIsALie,
    /// The frozen view that a snapshot is sent from leaves the cursors out.
    SnapshotWithoutCursors,
    /// The ledger's head is not there after a restart.
    HeadNotPersisted,
    /// One row has another value than was given.
    OtherRow,
    /// A row that nobody asked for is written beside those of a command.
    UnaskedOperator,
    /// The places of two batches of a stream stand one in place of the other.
    PlacesSwapped,
    /// A second place leads to a batch under a stream that nobody sent.
    GhostPlace,
    /// A frozen view is the one of the time before.
    StaleFreeze,
}

/// Puts the bug into every node's rows, or one node's.
pub(crate) struct FaultyRows {
    bug: RowBug,
    only: Option<usize>,
    armed: Arc<AtomicBool>,
}

impl FaultyRows {
    pub(crate) fn on_all(bug: RowBug) -> Arc<Self> {
        Arc::new(Self { bug, only: None, armed: Arc::default() })
    }

    pub(crate) fn on(bug: RowBug, node: usize) -> Arc<Self> {
        Arc::new(Self { bug, only: Some(node), armed: Arc::default() })
    }
}

impl Seams for FaultyRows {
    fn states(&self, node: usize, inner: Arc<dyn StateProvider>) -> Arc<dyn StateProvider> {
        if self.only.is_some_and(|only| only != node) {
            return inner;
        }
        Arc::new(Wrapped(Provider { bug: self.bug, armed: Arc::clone(&self.armed), inner }))
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

struct Provider {
    bug: RowBug,
    armed: Arc<AtomicBool>,
    inner: Arc<dyn StateProvider>,
}

impl WrappedStates for Provider {
    fn inner(&self) -> &dyn StateProvider {
        &*self.inner
    }

    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError> {
        let inner = self.inner.open(group)?;
        if self.bug == RowBug::HeadNotPersisted {
            let mut batch = StateBatch::default();
            batch.delete(keys::head());
            inner.write(&batch)?;
        }
        let (bug, armed) = (self.bug, Arc::clone(&self.armed));
        let (swap, frozen) = (Mutex::default(), Mutex::new(None));
        Ok(Arc::new(Wrapped(Store { bug, armed, swap, frozen, inner })))
    }
}

struct Store {
    bug: RowBug,
    armed: Arc<AtomicBool>,
    swap: Mutex<Swap>,
    frozen: Mutex<Option<Arc<dyn StateRead>>>,
    inner: Arc<dyn StateStore>,
}

/// How far two rows are swapped.
#[derive(Default)]
enum Swap {
    #[default]
    Ahead,
    Held(Vec<u8>, Vec<u8>),
    Done,
}

impl Swap {
    /// Keeps the first row back and writes it with the second, each under the other's key.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, ops: &mut Vec<StateOp>) {
        *self = match std::mem::take(self) {
            Self::Ahead => Self::Held(key, value),
            Self::Held(first, held) => {
                ops.extend([StateOp::Put(first, value), StateOp::Put(key, held)]);
                Self::Done
            }
            Self::Done => {
                ops.push(StateOp::Put(key, value));
                Self::Done
            }
        };
    }
}

/// The same batch under another name, at a place of its own.
fn ghost(row: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut place = Place::decode(row).unwrap();
    place.stream = "ghost".to_owned();
    (keys::place(place.index, place.ordinal + 1_000), place.encode_to_vec())
}

impl Store {
    fn twist(&self, batch: &mut StateBatch) {
        let group = self.inner.group();
        match self.bug {
            RowBug::OtherRow => {
                for op in &mut batch.ops {
                    if let StateOp::Put(key, value) = op
                        && key[0] == table::STREAM_PLACE
                        && let Some(last) = value.last_mut()
                    {
                        *last ^= 1;
                    }
                }
            }
            RowBug::UnaskedOperator if group.is_meta() => {
                let row = OperatorRow {
                    name: "mallory".to_owned(),
                    role: "operator".to_owned(),
                    certificate_digest: vec![9; 32].into(),
                    ..OperatorRow::default()
                };
                batch.put(keys::named(table::OPERATOR, &row.name), row.encode_to_vec());
            }
            RowBug::PlacesSwapped => {
                let mut swap = self.swap.lock();
                for op in std::mem::take(&mut batch.ops) {
                    match op {
                        StateOp::Put(key, value) if key[0] == table::PLACE => {
                            swap.put(key, value, &mut batch.ops);
                        }
                        other => batch.ops.push(other),
                    }
                }
            }
            RowBug::GhostPlace => {
                let ghosts = batch.ops.iter().filter_map(|op| match op {
                    StateOp::Put(key, value) if key[0] == table::PLACE => Some(ghost(value)),
                    _ => None,
                });
                let ghosts: Vec<_> = ghosts.collect();
                ghosts.into_iter().for_each(|(key, row)| batch.put(key, row));
            }
            _ => {}
        }
    }
}

impl WrappedState for Store {
    fn inner(&self) -> &dyn StateStore {
        &*self.inner
    }

    fn write(&self, batch: &StateBatch) -> Result<(), StateError> {
        let mut batch = batch.clone();
        if self.armed.load(Ordering::SeqCst) {
            self.twist(&mut batch);
        }
        self.inner.write(&batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        if self.bug == RowBug::FlushIsALie { Ok(()) } else { self.inner.flush() }
    }

    fn freeze(&self) -> Arc<dyn StateRead> {
        let inner = self.inner.freeze();
        match self.bug {
            RowBug::SnapshotWithoutCursors => Arc::new(WithoutCursors(inner)),
            RowBug::StaleFreeze if self.armed.load(Ordering::SeqCst) => {
                let before = self.frozen.lock().replace(Arc::clone(&inner));
                before.unwrap_or(inner)
            }
            _ => inner,
        }
    }
}

struct WithoutCursors(Arc<dyn StateRead>);

impl StateRead for WithoutCursors {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let mut rows = self.0.scan(from, to, limit)?;
        rows.retain(|(key, _)| key.first() != Some(&table::CURSOR));
        Ok(rows)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        self.0.last(from, to)
    }

    fn group(&self) -> GroupId {
        self.0.group()
    }
}
