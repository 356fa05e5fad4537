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
        Ok(Arc::new(Wrapped(Store { bug: self.bug, armed: Arc::clone(&self.armed), inner })))
    }
}

struct Store {
    bug: RowBug,
    armed: Arc<AtomicBool>,
    inner: Arc<dyn StateStore>,
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
