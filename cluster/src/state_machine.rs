//! openraft's state machine over a group's rows and `dtm_machine::Machine`.
//!
//! Owner of the machine's rows and the applied row; the note of missing bundles (`missing`) is the
//! one other writer. Each write holds the machine's rows (keys from 0x10) and the applied row (0x00
//! 0x01) for the same applied position. Outcomes leave only after the write.
// Hot path: every committed entry passes `apply_chunk`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use prost::Message;

use crate::applied::{Applied, Head};
use crate::convert;
use crate::log_store::{READ_BYTES_MAX, ReplicaLog, wait_for_disk};
use crate::missing::Missing;
use crate::ranges::Ranges;
use crate::requests;
use crate::runtime::off_thread;
use crate::snapshot::{Snapshot, SnapshotBuilder, SnapshotData};
use crate::type_config::{
    Entry, LogId, Outcomes, Payload, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Key of the applied position and membership.
pub(crate) const APPLIED_KEY: &[u8] = &[0x00, 0x01];
/// Version byte before the row's protobuf.
const ROW_VERSION: u8 = 1;

/// One group's applied state on this node.
pub(crate) struct StateMachine {
    group: GroupId,
    version_max: u8,
    store: Arc<dyn StateStore>,
    log: Arc<dyn ReplicaLog>,
    machine: Machine,
    last: Option<LogId>,
    membership: StoredMembership,
    applied: Arc<Applied>,
    missing: Arc<Missing>,
}

impl StateMachine {
    /// Loads what the store holds.
    pub(crate) fn load(
        group: GroupId,
        version_max: u8,
        store: Arc<dyn StateStore>,
        log: Arc<dyn ReplicaLog>,
        applied: Arc<Applied>,
        missing: Arc<Missing>,
    ) -> Result<Self, io::Error> {
        let machine = Machine::load_up_to(version_max, group, &*store).map_err(io::Error::other)?;
        let (last, membership) = read_applied(&*store)?;
        let loaded =
            Self { group, version_max, store, log, machine, last, membership, applied, missing };
        loaded.publish();
        // What was read back is what the disk holds.
        loaded.applied.set_flushed(loaded.last_index());
        Ok(loaded)
    }

    fn last_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index)
    }

    fn publish(&self) {
        let (ledger_size, ledger_root) = self.machine.ledger_head();
        self.applied.set_version(self.machine.version());
        let group_time_us = self.machine.group_time_us();
        let index = self.last_index();
        // Before the index is seen: whoever waits for it finds the rows.
        self.applied.comparison.reached(index, &*self.store);
        self.applied.publish(Head { index, ledger_size, ledger_root, group_time_us });
    }

    async fn apply_chunk(
        &mut self,
        chunk: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>,
    ) -> io::Result<()> {
        let mut committed = Vec::with_capacity(chunk.len());
        let mut responders = Vec::with_capacity(chunk.len());
        for (entry, responder) in chunk {
            let index = entry.log_id.index;
            let next = self.last.map_or(0, |last| last.index + 1);
            assert_eq!(index, next, "entries are applied without a hole (group {})", self.group);
            self.last = Some(entry.log_id);
            let bundle = match entry.payload {
                Payload::Normal(bundle) => Some(bundle.0),
                Payload::Blank => None,
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
            };
            if index == 0 {
                // The first membership of a group; the machine counts from 1 and 0 means none.
                assert!(bundle.is_none(), "the first entry of a group is its membership");
                if let Some(responder) = responder {
                    responder.send(Outcomes::default());
                }
                continue;
            }
            committed.push(Committed { index, bundle });
            responders.push(responder);
        }
        let mut batch = StateBatch::default();
        let outcomes =
            self.machine.apply(&*self.store, &committed, &mut batch).map_err(io::Error::other)?;
        batch.put(APPLIED_KEY, applied_row(self.last, &self.membership));
        self.write(&batch).await?;
        self.publish();
        if requests::are_logged() {
            requests::applied(self.group, &committed, &outcomes);
        }
        for (responder, outcomes) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(Outcomes(outcomes));
            }
        }
        Ok(())
    }

    /// Writes the batch. A full disk holds the group up, its rows stay as they are and readable; it
    /// goes on by itself when there is room.
    async fn write(&self, batch: &StateBatch) -> io::Result<()> {
        loop {
            let written = self.applied.while_open(|| self.store.write(batch));
            match written.ok_or_else(|| io::Error::other("this replica was stopped"))? {
                Ok(()) => return Ok(()),
                Err(error) if error.is_disk_full => wait_for_disk("rows").await,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    fn snapshot_now(&self) -> Snapshot {
        let meta =
            SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() };
        let ledger = self.machine.ledger_head();
        let data = SnapshotData::view(self.store.freeze(), Arc::clone(&self.log), ledger);
        Snapshot { meta, snapshot: data }
    }

    /// Switches the rows; on an error they are the old ones. The log follows when openraft purges it
    /// behind the snapshot; the bundles that are noted as missing here come after that.
    async fn install(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let stage = data.into_staged().map_err(io::Error::other)?;
        let last = meta.last_log_id.ok_or_else(|| io::Error::other("snapshot of nothing"))?;
        let before = self.last_index();
        let log = Arc::clone(&self.log);
        let lacking = off_thread(move || log.lacking(before)).await;
        let lacking = lacking?.map_err(io::Error::other)?;
        let mut missing: Ranges = lacking.into_iter().collect();
        missing.insert(before + 1, last.index);
        let applied = applied_row(meta.last_log_id, &meta.last_membership);
        let (noted, through) = (Arc::clone(&self.missing), last.index);
        let switched = off_thread(move || {
            noted.switch(&missing, before, through, |mut more| {
                more.put(APPLIED_KEY, applied);
                stage.switch(more)
            })
        });
        switched.await?.map_err(io::Error::other)?;
        // The log is purged behind these rows next.
        self.missing.flush().await?;
        let machine = Machine::load_up_to(self.version_max, self.group, &*self.store);
        self.machine = machine.map_err(io::Error::other)?;
        (self.last, self.membership) = read_applied(&*self.store)?;
        assert_eq!(self.last, meta.last_log_id, "the switched rows are those of the snapshot");
        self.applied.set_flushed(self.last_index());
        self.publish();
        Ok(())
    }

    /// Keeps the reason visible; the group stops on this node.
    fn failed(&self, error: io::Error) -> io::Error {
        if self.applied.is_closed() {
            return error;
        }
        let cause = dtm_types::chain(&error);
        tracing::error!(group = self.group.0, cause, "state machine failed, group stops here");
        metrics::counter!("dtm_cluster_group_failures_total", "group" => self.group.to_string())
            .increment(1);
        self.applied.fail(cause);
        error
    }
}

pub(crate) fn applied_row(last: Option<LogId>, membership: &StoredMembership) -> Vec<u8> {
    let row = wire::AppliedRow {
        applied: last.as_ref().map(convert::log_id_to_wire),
        membership: Some(convert::stored_membership_to_wire(membership)),
    };
    let mut out = vec![ROW_VERSION];
    row.encode(&mut out).expect("a vector grows");
    out
}

/// The applied position and the membership in force there.
pub(crate) fn read_applied(
    store: &(impl dtm_machine::seams::StateRead + ?Sized),
) -> io::Result<(Option<LogId>, StoredMembership)> {
    let Some(row) = store.get(APPLIED_KEY).map_err(io::Error::other)? else {
        return Ok((None, StoredMembership::default()));
    };
    parse_applied(&row).map_err(io::Error::other)
}

/// Reads the rows that a start needs, of whatever version (rows of newer software are not damaged);
/// the applied index. What lies beyond is found when it is read.
pub(crate) fn check_rows(group: GroupId, store: &dyn StateStore) -> io::Result<u64> {
    Machine::load_up_to(u8::MAX, group, store).map_err(io::Error::other)?;
    let (applied, _) = read_applied(store)?;
    Ok(applied.map_or(0, |applied| applied.index))
}

fn parse_applied(row: &Bytes) -> Result<(Option<LogId>, StoredMembership), convert::Error> {
    match row.first() {
        Some(&ROW_VERSION) => {}
        other => {
            return Err(convert::Error::malformed("applied row", format!("version {other:?}")));
        }
    }
    let row = wire::AppliedRow::decode(row.slice(1..))
        .map_err(|e| convert::Error::malformed("applied row", e))?;
    let membership = convert::stored_membership_from_wire(row.membership)?;
    Ok((row.applied.map(convert::log_id_from_wire), membership))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(item) = next.take() {
                let (entry, responder) = item.map_err(|error| self.failed(error))?;
                bytes += convert::payload_bytes(&entry.payload);
                let index = entry.log_id.index;
                let is_head = Applied::is_kept_head(index) || self.applied.comparison.wants(index);
                chunk.push((entry, responder));
                // Heads are kept at fixed indexes, rows frozen where a comparison wants them, so that
                // replicas are held against each other at the same point.
                if is_head || bytes >= READ_BYTES_MAX {
                    break;
                }
                next = entries.next().now_or_never().flatten();
            }
            self.apply_chunk(chunk).await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(
            Some(self.snapshot_now()),
            Arc::clone(&self.store),
            Arc::clone(&self.applied),
        )
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.install(meta, snapshot).await.map_err(|error| self.failed(error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.last.map(|_| self.snapshot_now()))
    }
}
