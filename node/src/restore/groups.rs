//! The groups of a restored node: rows, entries, and what begins the next life.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dtm_backup::{GroupPart, Manifest, StateDigest};
use dtm_cluster::{DbStates, LogEntry, LogPosition, NodeLogs, Opening, Restoring};
use dtm_ledger::Frontier;
use dtm_machine::keys::{Key, table};
use dtm_machine::reads;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use dtm_storage::log::{LogConfig, NodeLog};
use dtm_storage::state::{Owner, StateConfig};
use dtm_storage::vfs::RealVfs;
use dtm_types::command::admin::Op as Action;
use dtm_types::command::command::Op;
use dtm_types::command::{
    Actor, ActorKind, Admin, ClusterRow, Command, Genesis, GroupRow, LayoutKind, LayoutRow,
    NodeRow, RemoveNode, ReplicaRow,
};
use dtm_types::format;
use dtm_types::{GroupId, NodeId, ReplicaId};
use prost::Message;
use tokio::runtime::Handle;

use super::{Error, Opened};
use crate::runtime::{log_identity, peer_node};

/// Rows looked at in one step.
const ROWS_A_SCAN: usize = 4_096;

/// Progress: bytes done, all bytes.
type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Fills the data folder of the node of `row`; how many records its groups hold.
pub(super) fn fill(
    data: &Path,
    opened: &Opened,
    row: &NodeRow,
    now_us: i64,
    runtime: &Handle,
    progress: Progress<'_>,
) -> Result<u64, Error> {
    let newest = opened.newest();
    let node = NodeId::from_slice(&row.node).unwrap_or_default();
    let cluster = newest.cluster_id();
    let identity = log_identity(cluster, node);
    let folder = data.join("log");
    let (log, _) = NodeLog::open(Arc::new(RealVfs), &folder, LogConfig::default(), identity)?;
    let logs = NodeLogs::new(Arc::new(log), opened.incarnation);
    let owner = Owner { cluster, node };
    let states = DbStates::open(&data.join("state"), owner, &StateConfig::default())?;
    let meta = Meta::read(opened)?;
    let rows: u64 = newest.groups.iter().filter_map(|part| Some(part.rows.as_ref()?.bytes)).sum();
    let entries = opened.chain.iter().flat_map(|(of, _)| &of.groups);
    let entries: u64 = entries.filter_map(|part| Some(part.entries.as_ref()?.bytes)).sum();
    let mut tally = Tally { done: 0, all: rows + entries, progress };
    let mut records = 0;
    for part in &newest.groups {
        let group = GroupId(part.group);
        let replica = meta.fresh_replica(group)?;
        let last =
            LogPosition { index: part.last_index, term: part.last_term, leader: part.last_leader };
        let restoring = runtime.block_on(Restoring::begin(&logs, &states, group, replica, last))?;
        take_rows(opened, &restoring, part, &mut tally)?;
        take_entries(opened, &restoring, group, runtime, &mut tally)?;
        check(restoring.store(), part, newest)?;
        records += reads::head(restoring.store())?.records;
        let mut commands = vec![genesis(opened, part)];
        if group.is_meta() {
            commands.extend(meta.commands(opened, row)?);
        }
        let actor = Actor { kind: ActorKind::Node.into(), id: row.node.clone() };
        let commands = commands
            .into_iter()
            .map(|op| {
                let request_id = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
                let (actor, op) = (Some(actor.clone()), Some(op));
                Bytes::from(Command { request_id, actor, op }.encode_to_vec())
            })
            .collect();
        let members = BTreeMap::from([(replica.0, peer_node(row, node))]);
        let opening = Opening { members, author: node, stamp_us: now_us, commands };
        runtime.block_on(restoring.finish(&opening))?;
    }
    Ok(records)
}

struct Tally<'a> {
    done: u64,
    all: u64,
    progress: Progress<'a>,
}

impl Tally<'_> {
    fn add(&mut self, bytes: usize) {
        self.done = (self.done + bytes as u64).min(self.all);
        (self.progress)(self.done, self.all);
    }
}

fn take_rows(
    opened: &Opened,
    restoring: &Restoring,
    part: &GroupPart,
    tally: &mut Tally<'_>,
) -> Result<(), Error> {
    let (newest, key) = opened.chain.last().expect("a chain has an end");
    let taken =
        dtm_backup::read_rows(&opened.target, newest, GroupId(part.group), key, &mut |rows| {
            tally.add(rows.iter().map(|row| row.key.len() + row.value.len()).sum());
            let rows = rows.into_iter().map(|row| (row.key, row.value));
            restoring.put_rows(rows).map_err(|error| dtm_backup::Error::Taker(Box::new(error)))
        });
    Ok(taken?)
}

fn take_entries(
    opened: &Opened,
    restoring: &Restoring,
    group: GroupId,
    runtime: &Handle,
    tally: &mut Tally<'_>,
) -> Result<(), Error> {
    for (of, key) in &opened.chain {
        dtm_backup::read_entries(&opened.target, of, group, key, &mut |entries| {
            tally.add(entries.iter().map(|entry| entry.payload.len()).sum());
            let entries = entries.into_iter().map(|entry| {
                let dtm_backup::Entry { index, term, leader, payload } = entry;
                LogEntry { index, term, leader, payload }
            });
            let stored = runtime.block_on(restoring.put_entries(entries.collect()));
            stored.map_err(|error| dtm_backup::Error::Taker(Box::new(error)))
        })?;
    }
    Ok(())
}

/// The rows are those that were backed up, and the ledger in them, made anew from its leaves, is the
/// one of the backup and goes through the anchor.
fn check(store: &dyn StateStore, part: &GroupPart, newest: &Manifest) -> Result<(), Error> {
    let group = GroupId(part.group);
    let differs = |what: &str| Error::Differs { group, what: what.to_owned() };
    let mut digest = StateDigest::default();
    each_row(store, (vec![0x01], vec![0xff; 64]), |key, value| {
        digest.row(key, value);
        Ok(())
    })?;
    if digest.finish()[..] != part.state_digest[..] {
        return Err(differs("its rows are not those that the backup tells of"));
    }
    let anchor = newest.anchor.as_ref().and_then(|leaf| leaf.anchor.as_ref());
    let anchored = anchor.and_then(|a| a.groups.iter().find(|of| of.group == part.group));
    let mut frontier = Frontier::new();
    let mut met = anchored.is_none_or(|anchored| anchored.ledger_size == 0);
    each_row(store, Key::of(table::TILE).u8(0).range(), |_, value| {
        let hash = value.try_into().map_err(|_| differs("a leaf of its ledger has no hash"))?;
        frontier.append(hash);
        if let Some(anchored) = anchored.filter(|of| of.ledger_size == frontier.size()) {
            if frontier.root()[..] != anchored.ledger_root[..] {
                return Err(differs("LED-1: its ledger does not go through the anchor"));
            }
            met = true;
        }
        Ok(())
    })?;
    if !met || frontier.size() != part.ledger_size || frontier.root()[..] != part.ledger_root[..] {
        return Err(differs("LED-1: its ledger is not the one of the backup"));
    }
    Ok(())
}

fn each_row(
    state: &dyn StateRead,
    (mut from, to): (Vec<u8>, Vec<u8>),
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let rows = state.scan(&from, &to, ROWS_A_SCAN)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = [&last[..], &[0]].concat();
        for (key, value) in &rows {
            take(key, value)?;
        }
    }
}

/// The leaf that opens the next life of a group's ledger, and names where the one before ended.
fn genesis(opened: &Opened, part: &GroupPart) -> Op {
    let newest = opened.newest();
    let genesis = format::Genesis {
        cluster_id: newest.cluster.clone(),
        group: part.group,
        incarnation: opened.incarnation.0,
        cause: format!("restore of backup {} at anchor {}", newest.id(), newest.anchor_leaf),
        previous_incarnation: newest.incarnation,
        previous_size: part.ledger_size,
        previous_root: part.ledger_root.clone(),
    };
    Op::Genesis(Genesis { genesis: Some(genesis) })
}

/// Refuses where the life behind that of the backup may have been lived: a promotion begins one without
/// a word to whoever makes backups.
pub(super) fn one_life(opened: &Opened) -> Result<(), Error> {
    Meta::read(opened)?.has_one_life(opened.newest().incarnation)
}

/// What meta of the backup says of cluster, sites, nodes and groups.
struct Meta {
    cluster: ClusterRow,
    layout: LayoutRow,
    nodes: Vec<NodeRow>,
    groups: BTreeMap<u32, GroupRow>,
}

impl Meta {
    fn read(opened: &Opened) -> Result<Self, Error> {
        let (newest, key) = opened.chain.last().expect("a chain has an end");
        let store = MemoryStateStore::new(GroupId::META);
        let wanted = [table::CLUSTER, table::LAYOUT, table::NODE, table::GROUP];
        dtm_backup::read_rows(&opened.target, newest, GroupId::META, key, &mut |rows| {
            let mut batch = StateBatch::default();
            let rows = rows
                .into_iter()
                .filter(|row| row.key.first().is_some_and(|table| wanted.contains(table)));
            rows.for_each(|row| batch.put(row.key, row.value));
            store.write(&batch).map_err(|error| dtm_backup::Error::Taker(Box::new(error)))
        })?;
        let what = "meta has no row of the cluster".to_owned();
        let cluster = reads::cluster(&store)?;
        let cluster = cluster.ok_or(Error::Differs { group: GroupId::META, what })?;
        let groups = reads::groups(&store)?.into_iter().map(|row| (row.group, row)).collect();
        let (layout, nodes) = (reads::layout(&store)?, reads::nodes(&store)?);
        Ok(Self { cluster, layout, nodes, groups })
    }

    fn row_of(&self, group: GroupId) -> Result<&GroupRow, Error> {
        let what = || "meta does not know it".to_owned();
        self.groups.get(&group.0).ok_or_else(|| Error::Differs { group, what: what() })
    }

    /// An id that no replica of the group ever had.
    fn fresh_replica(&self, group: GroupId) -> Result<ReplicaId, Error> {
        Ok(ReplicaId(self.row_of(group)?.next_replica_id))
    }

    fn has_one_life(&self, of: u64) -> Result<(), Error> {
        match self.layout.kind() {
            LayoutKind::Standby => Err(Error::LifeUnnamed { of }),
            _ => Ok(()),
        }
    }

    /// One node is left, at one site: what the backup says of sites is over, and with it the register
    /// that its layout named.
    fn one_site(&self) -> Option<Admin> {
        let is_single = matches!(self.layout.kind(), LayoutKind::Unspecified | LayoutKind::Single);
        let single = LayoutRow { kind: LayoutKind::Single.into(), ..LayoutRow::default() };
        let (op, expected_version) = (Some(Action::PutLayout(single)), Some(self.layout.version));
        (!is_single).then(|| Admin { op, expected_version, ..Admin::default() })
    }

    /// The next life of the cluster: its nodes are gone for good, this one holds a replica of each
    /// group.
    fn commands(&self, opened: &Opened, node: &NodeRow) -> Result<Vec<Op>, Error> {
        let newest = opened.newest();
        let cluster = ClusterRow { incarnation: opened.incarnation.0, ..self.cluster.clone() };
        let mut actions = vec![Action::PutCluster(cluster)];
        for row in self.nodes.iter().filter(|row| !row.removed) {
            actions.push(Action::RemoveNode(RemoveNode {
                node: row.node.clone(),
                ..RemoveNode::default()
            }));
        }
        actions.push(Action::PutNode(node.clone()));
        for part in &newest.groups {
            let group = GroupId(part.group);
            let mut row = self.row_of(group)?.clone();
            row.replicas.iter_mut().for_each(|replica| replica.removed = true);
            row.replicas.push(ReplicaRow {
                replica: row.next_replica_id,
                node: node.node.clone(),
                confirmed: true,
                ..ReplicaRow::default()
            });
            row.next_replica_id += 1;
            actions.push(Action::PutGroup(row));
        }
        let of = |op| Admin { op: Some(op), ..Admin::default() };
        let admins = actions.into_iter().map(of).chain(self.one_site());
        Ok(admins.map(Op::Admin).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(kind: LayoutKind) -> Meta {
        let layout = LayoutRow { kind: kind.into(), version: 4, ..LayoutRow::default() };
        let (cluster, nodes) = (ClusterRow::default(), Vec::new());
        Meta { cluster, layout, nodes, groups: BTreeMap::new() }
    }

    #[test]
    fn after_a_standby_the_life_is_named_and_one_site_is_left() {
        let standby = meta(LayoutKind::Standby);
        assert!(matches!(standby.has_one_life(3), Err(Error::LifeUnnamed { of: 3 })));
        for kind in [LayoutKind::Standby, LayoutKind::Stretched] {
            let put = meta(kind).one_site().expect("it is put");
            let Some(Action::PutLayout(row)) = put.op else { panic!("{put:?}") };
            assert_eq!((row.kind(), put.expected_version), (LayoutKind::Single, Some(4)));
            assert!(row.primary.is_empty() && row.seats.is_empty());
        }
        for kind in [LayoutKind::Unspecified, LayoutKind::Single, LayoutKind::Stretched] {
            assert!(meta(kind).has_one_life(3).is_ok());
        }
        assert!(meta(LayoutKind::Single).one_site().is_none());
    }
}
