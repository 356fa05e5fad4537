//! What meta says of the cluster that is restored, and the commands that begin its next life.

use std::collections::{BTreeMap, BTreeSet};

use dtm_machine::keys::table;
use dtm_machine::reads;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateError, StateRead, StateStore};
use dtm_types::command::admin::Op as Action;
use dtm_types::command::command::Op;
use dtm_types::command::{
    Admin, ClusterRow, GroupRow, LayoutKind, LayoutRow, NodeRow, RemoveNode, ReplicaRow,
};
use dtm_types::format::AnchoredGroup;
use dtm_types::{GroupId, ReplicaId};

use crate::Error;
use crate::moment::OpenChain;
use crate::read::read_rows;

/// Sources read in one step.
const SOURCES_A_STEP: usize = 1_024;

/// What meta says of cluster, sites, nodes and groups.
pub struct Meta {
    cluster: ClusterRow,
    layout: LayoutRow,
    nodes: Vec<NodeRow>,
    groups: BTreeMap<u32, GroupRow>,
}

impl Meta {
    /// As of the newest backup of a chain.
    ///
    /// # Errors
    /// [`Error::Differs`], and those of [`read_rows`].
    pub fn newest(chain: OpenChain<'_>) -> Result<Self, Error> {
        let (newest, key) = chain.links.last().expect("a chain has an end");
        let store = MemoryStateStore::new(GroupId::META);
        let wanted = [table::CLUSTER, table::LAYOUT, table::NODE, table::GROUP];
        read_rows(chain.target, newest, GroupId::META, key, &mut |rows| {
            let mut batch = StateBatch::default();
            let rows = rows
                .into_iter()
                .filter(|row| row.key.first().is_some_and(|table| wanted.contains(table)));
            rows.for_each(|row| batch.put(row.key, row.value));
            store.write(&batch).map_err(taker)
        })?;
        Self::of(&store)
    }

    /// As these rows have it.
    ///
    /// # Errors
    /// [`Error::Differs`] where they are not those of a cluster, [`Error::Taker`] of the rows.
    pub fn of(state: &dyn StateRead) -> Result<Self, Error> {
        let what = "meta has no row of the cluster".to_owned();
        let cluster = reads::cluster(state).map_err(taker)?;
        let cluster = cluster.ok_or(Error::Differs { group: GroupId::META, what })?;
        let groups = reads::groups(state).map_err(taker)?;
        let groups = groups.into_iter().map(|row| (row.group, row)).collect();
        let layout = reads::layout(state).map_err(taker)?;
        let nodes = reads::nodes(state).map_err(taker)?;
        Ok(Self { cluster, layout, nodes, groups })
    }

    /// The life that these rows are of.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.cluster.incarnation
    }

    /// Whether the group was there.
    #[must_use]
    pub fn knows(&self, group: GroupId) -> bool {
        self.groups.contains_key(&group.0)
    }

    /// An id that no replica of the group ever had.
    ///
    /// # Errors
    /// [`Error::Differs`] where meta does not know the group.
    pub fn fresh_replica(&self, group: GroupId) -> Result<ReplicaId, Error> {
        let what = || "meta does not know it".to_owned();
        let row = self.groups.get(&group.0);
        let row = row.ok_or_else(|| Error::Differs { group, what: what() })?;
        Ok(ReplicaId(row.next_replica_id))
    }

    /// Whether the cluster had a standby: a promotion begins a life without a word to whoever makes
    /// backups.
    #[must_use]
    pub fn has_standby(&self) -> bool {
        self.layout.kind() == LayoutKind::Standby
    }

    /// One node is left, at one site: what the backup says of sites is over, and with it the register
    /// that its layout named.
    fn one_site(&self) -> Option<Admin> {
        let is_single = matches!(self.layout.kind(), LayoutKind::Unspecified | LayoutKind::Single);
        let single = LayoutRow { kind: LayoutKind::Single.into(), ..LayoutRow::default() };
        let (op, expected_version) = (Some(Action::PutLayout(single)), Some(self.layout.version));
        (!is_single).then(|| Admin { op, expected_version, ..Admin::default() })
    }

    /// The next life of the cluster: its nodes are gone for good, `node` holds a replica of each group,
    /// under the id that `newest` has free.
    ///
    /// # Errors
    /// As [`Meta::fresh_replica`].
    pub fn commands(
        &self,
        incarnation: u64,
        node: &NodeRow,
        newest: &Self,
    ) -> Result<Vec<Op>, Error> {
        let cluster = ClusterRow { incarnation, ..self.cluster.clone() };
        let mut actions = vec![Action::PutCluster(cluster)];
        for row in self.nodes.iter().filter(|row| !row.removed) {
            actions.push(Action::RemoveNode(RemoveNode {
                node: row.node.clone(),
                ..RemoveNode::default()
            }));
        }
        actions.push(Action::PutNode(node.clone()));
        for row in self.groups.values() {
            let fresh = newest.fresh_replica(GroupId(row.group))?;
            let mut row = row.clone();
            row.replicas.iter_mut().for_each(|replica| replica.removed = true);
            row.replicas.push(ReplicaRow {
                replica: fresh.0,
                node: node.node.clone(),
                confirmed: true,
                ..ReplicaRow::default()
            });
            row.next_replica_id = fresh.0 + 1;
            actions.push(Action::PutGroup(row));
        }
        let of = |op| Admin { op: Some(op), ..Admin::default() };
        let admins = actions.into_iter().map(of).chain(self.one_site());
        Ok(admins.map(Op::Admin).collect())
    }
}

fn taker(error: StateError) -> Error {
    Error::Taker(Box::new(error))
}

/// What the other groups are held against, where a moment is asked for: meta as it was then.
pub struct Then {
    /// What its newest anchor says of each group.
    anchored: Vec<AnchoredGroup>,
    /// Codes of the sources that it knows.
    sources: BTreeSet<String>,
}

impl Then {
    /// As these rows of meta have it.
    ///
    /// # Errors
    /// [`Error::Taker`] of the rows.
    pub fn of(state: &dyn StateRead) -> Result<Self, Error> {
        let anchor =
            reads::anchors(state, 1).map_err(taker)?.pop().and_then(|(_, leaf)| leaf.anchor);
        let mut sources = BTreeSet::new();
        loop {
            let after = sources.last().map(String::as_str);
            let step = reads::sources(state, after, SOURCES_A_STEP).map_err(taker)?;
            if step.is_empty() {
                break;
            }
            sources.extend(step.into_iter().map(|row| row.source));
        }
        Ok(Self { anchored: anchor.unwrap_or_default().groups, sources })
    }

    /// What its newest anchor says of a group.
    #[must_use]
    pub fn anchored(&self, group: GroupId) -> Option<&AnchoredGroup> {
        self.anchored.iter().find(|of| of.group == group.0)
    }

    pub(crate) fn knows_source(&self, source: &str) -> bool {
        self.sources.contains(source)
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
        assert!(meta(LayoutKind::Standby).has_standby());
        for kind in [LayoutKind::Standby, LayoutKind::Stretched] {
            let put = meta(kind).one_site().expect("it is put");
            let Some(Action::PutLayout(row)) = put.op else { panic!("{put:?}") };
            assert_eq!((row.kind(), put.expected_version), (LayoutKind::Single, Some(4)));
            assert!(row.primary.is_empty() && row.seats.is_empty());
        }
        for kind in [LayoutKind::Unspecified, LayoutKind::Single, LayoutKind::Stretched] {
            assert!(!meta(kind).has_standby());
        }
        assert!(meta(LayoutKind::Single).one_site().is_none());
    }
}
