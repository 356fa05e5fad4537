//! The groups of a restored node: rows, entries, and what begins the next life.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dtm_backup::{Meta, Stand, Then};
use dtm_cluster::{DbStates, LogEntry, LogPosition, NodeLogs, Opening, Restoring};
use dtm_storage::log::{LogConfig, NodeLog};
use dtm_storage::state::{Owner, StateConfig};
use dtm_storage::vfs::RealVfs;
use dtm_types::command::command::Op;
use dtm_types::command::{Actor, ActorKind, Command, Genesis, NodeRow};
use dtm_types::format;
use dtm_types::{GroupId, NodeId};
use prost::Message;
use tokio::runtime::Handle;

use super::{Error, Opened, RestoredGroup};
use crate::runtime::{log_identity, peer_node};

/// Progress: bytes done, all bytes.
type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Fills the data folder of the node of `row`: its groups, meta first.
pub(super) fn fill(
    data: &Path,
    opened: &Opened,
    row: &NodeRow,
    now_us: i64,
    runtime: &Handle,
    progress: Progress<'_>,
) -> Result<Vec<RestoredGroup>, Error> {
    let newest = opened.newest();
    let node = NodeId::from_slice(&row.node).unwrap_or_default();
    let cluster = newest.cluster_id();
    let identity = log_identity(cluster, node);
    let folder = data.join("log");
    let (log, _) = NodeLog::open(Arc::new(RealVfs), &folder, LogConfig::default(), identity)?;
    let logs = NodeLogs::new(Arc::new(log), opened.incarnation);
    let owner = Owner { cluster, node };
    let states = DbStates::open(&data.join("state"), owner, &StateConfig::default())?;
    let mut filling = Filling {
        opened,
        runtime,
        newest: Meta::newest(opened.chain())?,
        meta: None,
        tally: Tally { done: 0, all: bytes_of(opened), progress },
    };
    let mut restored = Vec::new();
    for part in &newest.groups {
        let group = GroupId(part.group);
        let Some(stand) = filling.stand(group)? else { continue };
        let replica = filling.newest.fresh_replica(group)?;
        let last = LogPosition { index: stand.index, term: stand.term, leader: stand.leader };
        let restoring = runtime.block_on(Restoring::begin(&logs, &states, group, replica, last))?;
        let found = filling.take(&restoring, group, &stand)?;
        let commands = filling.commands(&found, row)?;
        restored.push(found);
        let members = BTreeMap::from([(replica.0, peer_node(row, node))]);
        let opening = Opening { members, author: node, stamp_us: now_us, commands };
        runtime.block_on(restoring.finish(&opening))?;
    }
    filling.tally.end();
    Ok(restored)
}

/// What is read, about: entries are read once more where a moment is looked for, and once more where
/// they are applied.
fn bytes_of(opened: &Opened) -> u64 {
    let rows = opened.newest().groups.iter().filter_map(|part| part.rows.as_ref());
    let parts = opened.links.iter().flat_map(|(of, _)| &of.groups);
    let entries: u64 = parts.filter_map(|part| part.entries.as_ref()).map(|file| file.bytes).sum();
    let times = if opened.until_us.is_some() { 2 } else { 1 };
    rows.map(|file| file.bytes).sum::<u64>() + times * entries
}

/// Groups that are being filled.
struct Filling<'a> {
    opened: &'a Opened,
    runtime: &'a Handle,
    /// Meta as of the newest backup: what ids are free.
    newest: Meta,
    /// Meta as it is restored, and what others are held against where a moment is asked for; from the
    /// first group on, which is meta.
    meta: Option<(Meta, Option<Then>)>,
    tally: Tally<'a>,
}

impl Filling<'_> {
    /// Where a group is to end; `None` where it did not exist at that moment.
    fn stand(&mut self, group: GroupId) -> Result<Option<Stand>, Error> {
        let chain = self.opened.chain();
        let Some(until_us) = self.opened.until_us else { return Ok(Some(chain.end(group))) };
        if self.meta.as_ref().is_some_and(|(meta, _)| !meta.knows(group)) {
            return Ok(None);
        }
        let then = self.meta.as_ref().and_then(|(_, then)| then.as_ref());
        let anchored = then.and_then(|then| then.anchored(group));
        let at_least = anchored.map_or(0, |anchored| anchored.applied_index);
        let tally = &mut self.tally;
        Ok(Some(chain.at(group, until_us, at_least, &mut |bytes| tally.add(bytes))?))
    }

    /// Rows and entries of a group, checked.
    fn take(
        &mut self,
        restoring: &Restoring,
        group: GroupId,
        stand: &Stand,
    ) -> Result<RestoredGroup, Error> {
        let Self { opened, runtime, tally, .. } = self;
        let chain = opened.chain();
        chain.rows(group, stand, restoring.store(), &mut |bytes| tally.add(bytes))?;
        chain.entries(group, stand, &mut |entries| {
            tally.add(entries.iter().map(|entry| entry.payload.len()).sum());
            let entries = entries.into_iter().map(|entry| {
                let dtm_backup::Entry { index, term, leader, payload } = entry;
                LogEntry { index, term, leader, payload }
            });
            let stored = runtime.block_on(restoring.put_entries(entries.collect()));
            stored.map_err(|error| dtm_backup::Error::Taker(Box::new(error)))
        })?;
        if group.is_meta() {
            let store = restoring.store();
            let then = opened.until_us.map(|_| Then::of(store)).transpose()?;
            self.meta = Some((Meta::of(store)?, then));
        }
        let then = self.meta.as_ref().and_then(|(_, then)| then.as_ref());
        let found = chain.check(group, stand, restoring.store(), then)?;
        Ok(RestoredGroup { group, index: stand.index, beyond: stand.beyond, found })
    }

    /// What begins the next life of a group, encoded.
    fn commands(&self, of: &RestoredGroup, node: &NodeRow) -> Result<Vec<Bytes>, Error> {
        let (meta, _) = self.meta.as_ref().expect("meta is the first group");
        // A moment may lie in a life before that of the backup.
        let is_then = self.opened.until_us.is_some();
        let life = if is_then { meta.incarnation() } else { self.opened.newest().incarnation };
        let mut commands = vec![genesis(self.opened, of, life)];
        if of.group.is_meta() {
            commands.extend(meta.commands(self.opened.incarnation.0, node, &self.newest)?);
        }
        let actor = Actor { kind: ActorKind::Node.into(), id: node.node.clone() };
        let encoded = commands.into_iter().map(|op| {
            let request_id = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
            let (actor, op) = (Some(actor.clone()), Some(op));
            Bytes::from(Command { request_id, actor, op }.encode_to_vec())
        });
        Ok(encoded.collect())
    }
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

    fn end(&mut self) {
        (self.progress)(self.all, self.all);
    }
}

/// The leaf that opens the next life of a group's ledger, and names where the one before ended.
fn genesis(opened: &Opened, of: &RestoredGroup, life: u64) -> Op {
    let newest = opened.newest();
    let mut cause = format!("restore of backup {} at anchor {}", newest.id(), newest.anchor_leaf);
    if let (Some(until_us), Some(part)) = (opened.until_us, newest.group(of.group)) {
        // What was left out is named for ever.
        cause += &format!(
            " as of {} ({until_us} us); {} entries behind it are not taken, they led to {} leaves with \
             root {}",
            dtm_ctl::time(until_us),
            of.beyond,
            part.ledger_size,
            hex::encode(&part.ledger_root),
        );
    }
    let genesis = format::Genesis {
        cluster_id: newest.cluster.clone(),
        group: of.group.0,
        incarnation: opened.incarnation.0,
        cause,
        previous_incarnation: life,
        previous_size: of.found.ledger_size,
        previous_root: Bytes::copy_from_slice(&of.found.ledger_root),
    };
    Op::Genesis(Genesis { genesis: Some(genesis) })
}
