//! SEC-2: no effect without a committed command of somebody who may, and its ledger entry.
//!
//! The commands of meta are applied once more, from the first entry, to rows of our own. What the
//! node's rows hold beyond that has no command; what an entry changes without a leaf has no entry
//! in the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::keys::table;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use dtm_machine::{ApplyError, Committed, Machine, reads};
use dtm_types::command::{ActorKind, Command};
use dtm_types::format::{Leaf, LeafKind};
use dtm_types::{GroupId, NodeId};
use prost::Message;

use super::breach::Breach;
use super::image::{Image, hex};

/// Tables of meta that say who may do what, and where.
const ADMIN: std::ops::RangeInclusive<u8> = table::SOURCE..=table::LOAD;
const ROWS_MAX: usize = 1 << 20;

type Rows = BTreeMap<Bytes, Bytes>;

/// Judges an image of meta that holds every bundle since the first.
///
/// # Errors
/// A committed bundle cannot be applied at all.
pub fn explain(image: &Image) -> Result<Vec<Breach>, ApplyError> {
    let mut replay = Replay::new()?;
    let mut breaches = Vec::new();
    for index in 1..=image.applied {
        let bundle = image.bundles.get(&index).cloned();
        let commands = image.bundle(index).map(|bundle| bundle.commands).unwrap_or_default();
        let before = replay.store.freeze();
        breaches.extend(replay.step(index, bundle, &commands, &*before)?);
    }
    let explained = admin_rows(&*replay.store)?;
    let found: Rows = image
        .rows
        .iter()
        .filter(|(key, _)| ADMIN.contains(&key[0]))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let keys = explained.keys().chain(found.keys().filter(|key| !explained.contains_key(*key)));
    for key in keys.filter(|key| explained.get(*key) != found.get(*key)) {
        breaches.push(Breach::Unexplained { key: hex(key), node: image.node.clone() });
    }
    Ok(breaches)
}

struct Replay {
    store: Arc<MemoryStateStore>,
    machine: Machine,
}

impl Replay {
    fn new() -> Result<Self, ApplyError> {
        let store = Arc::new(MemoryStateStore::new(GroupId::META));
        let machine = Machine::load(GroupId::META, &*store)?;
        Ok(Self { store, machine })
    }

    fn step(
        &mut self,
        index: u64,
        bundle: Option<Bytes>,
        commands: &[Command],
        before: &dyn StateRead,
    ) -> Result<Vec<Breach>, ApplyError> {
        let mut batch = StateBatch::default();
        let rows_before = admin_rows(before)?;
        let size_before = self.machine.ledger_head().0;
        self.machine.apply(&*self.store, &[Committed { index, bundle }], &mut batch)?;
        self.store.write(&batch)?;
        let rows_after = admin_rows(&*self.store)?;
        let keys = rows_before.keys().chain(rows_after.keys());
        let changed: std::collections::BTreeSet<&Bytes> =
            keys.filter(|key| rows_before.get(*key) != rows_after.get(*key)).collect();
        let leaves = admin_leaves(&*self.store, size_before, self.machine.ledger_head().0)?;
        let mut breaches = Vec::new();
        if !changed.is_empty() && leaves.is_empty() {
            breaches.push(Breach::LeafAmiss { index, rows: changed.len(), leaves: 0 });
        }
        for leaf in &leaves {
            let command = commands.iter().find(|command| command.request_id == leaf.request_id);
            if !command.is_some_and(|command| may_act(before, command, leaf)) {
                let actor = command.and_then(|command| command.actor.as_ref());
                let actor = actor.map_or("nobody".to_owned(), |actor| {
                    format!("{:?} {}", actor.kind(), hex(&actor.id))
                });
                breaches.push(Breach::Unauthorised { index, actor });
            }
        }
        Ok(breaches)
    }
}

/// Whether the rows before the entry know the actor as one that may change meta.
fn may_act(before: &dyn StateRead, command: &Command, leaf: &Leaf) -> bool {
    let Some(actor) = command.actor.as_ref().filter(|actor| actor.id == leaf.actor_id) else {
        return false;
    };
    match actor.kind() {
        ActorKind::Node => {
            let Some(id) = NodeId::from_slice(&actor.id) else {
                return false;
            };
            let nodes = reads::nodes(before).unwrap_or_default();
            // Before the first node's row there is only the founding node itself.
            nodes.is_empty() || nodes.iter().any(|row| row.node == id.0[..] && !row.removed)
        }
        ActorKind::Operator => {
            let operators = reads::operators(before).unwrap_or_default();
            operators.iter().any(|row| {
                let is_known =
                    row.certificate_digest.get(..16) == Some(&actor.id[..]) || row.id == actor.id;
                is_known && !row.revoked && row.role != "auditor"
            })
        }
        ActorKind::Source | ActorKind::Unspecified => false,
    }
}

fn admin_rows(state: &(impl StateRead + ?Sized)) -> Result<Rows, ApplyError> {
    let rows = state.scan(&[*ADMIN.start()], &[*ADMIN.end() + 1], ROWS_MAX)?;
    Ok(rows.into_iter().collect())
}

/// Leaves of administrative actions in `from..to`.
fn admin_leaves(state: &dyn StateRead, from: u64, to: u64) -> Result<Vec<Leaf>, ApplyError> {
    let rows =
        state.scan(&dtm_machine::keys::leaf(from), &dtm_machine::keys::leaf(to), ROWS_MAX)?;
    let leaves = rows.into_iter().filter_map(|(_, row)| Leaf::decode(row.get(1..)?).ok());
    Ok(leaves.filter(|leaf| leaf.kind() == LeafKind::Admin).collect())
}
