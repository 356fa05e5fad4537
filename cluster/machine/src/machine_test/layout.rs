//! The layout: one row, what it may be, and what a replica that stands by keeps.

use dtm_types::command::{
    GroupRow, LayoutKind, LayoutRow, LayoutSeat, NodeRow, RaiseVersion, RemoveNode, ReplicaRow,
};
use dtm_types::format::Leaf;

use crate::keys::{Key, table};

use super::*;

/// Meta of version 2 with a node at each of these sites.
fn raised(sites: &[&str]) -> Group {
    let mut group = meta();
    let raised = group.one(Op::RaiseVersion(RaiseVersion { version: 2 })).result;
    assert!(matches!(raised, Some(Answer::Done(_))), "{raised:?}");
    for (site, byte) in sites.iter().zip(1_u8..) {
        let (node, name) = (vec![byte; 16].into(), format!("n{byte}"));
        let row = NodeRow { node, name, site: (*site).to_owned(), ..NodeRow::default() };
        let put = group.one(admin_op(admin::Op::PutNode(row), None)).result;
        assert!(matches!(put, Some(Answer::Done(_))), "{put:?}");
    }
    group
}

fn row(kind: LayoutKind, sites: [&str; 3]) -> LayoutRow {
    let [primary, other, arbiter] = sites.map(str::to_owned);
    LayoutRow { kind: kind.into(), primary, other, arbiter, ..LayoutRow::default() }
}

impl Group {
    /// The version that was written, and its leaf.
    fn lay(&mut self, row: LayoutRow, expected: Option<u64>) -> Result<(u64, u64), Refusal> {
        match self.one(admin_op(admin::Op::PutLayout(row), expected)).result {
            Some(Answer::Done(done)) => Ok((done.version, done.leaf_index)),
            Some(Answer::Refusal(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

// holds: SEC-2
#[test]
fn a_layout_is_one_row_and_one_leaf_in_the_same_entry() {
    let mut group = raised(&["a", "b", "c"]);
    assert_eq!(reads::layout(&group.store).expect("rows"), LayoutRow::default());
    let standby = row(LayoutKind::Standby, ["a", "b", ""]);
    assert_eq!(group.lay(standby.clone(), Some(0)).expect("taken").0, 1);
    let held = reads::layout(&group.store).expect("rows");
    assert_eq!(held, LayoutRow { version: 1, time_us: TIME_US, incarnation: 1, ..standby });
    // The third place is added; the versions go on.
    let third = row(LayoutKind::Standby, ["a", "b", "c"]);
    let (version, leaf) = group.lay(third, Some(1)).expect("taken");
    let bytes = group.store.get(&Key::of(table::LEAF).u64(leaf).done()).expect("rows");
    let told = Leaf::decode(&bytes.expect("kept")[1..]).expect("a leaf");
    assert_eq!(version, 2);
    assert_eq!(told.object_ids, ["layout=2", "kind=standby", "primary=a", "other=b", "arbiter=c"]);
    assert_eq!(group.lay(row(LayoutKind::Single, ["", "", ""]), Some(2)).expect("back").0, 3);
    let swapped = row(LayoutKind::Standby, ["b", "a", ""]);
    assert_eq!(group.lay(swapped, Some(3)).expect("by way of one site").0, 4);
}
/// Meta in its first life with a standby, `b` behind `a`.
fn with_standby(sites: &[&str]) -> Group {
    let mut group = raised(sites);
    group.lay(row(LayoutKind::Standby, ["a", "b", "c"]), Some(0)).expect("taken");
    group
}

impl Group {
    fn begin_life(&mut self, incarnation: u64) {
        let old = reads::cluster(&self.store).expect("rows").expect("a row");
        let next = ClusterRow { incarnation, ..old };
        let put = self.one(admin_op(admin::Op::PutCluster(next), None)).result;
        assert!(matches!(put, Some(Answer::Done(_))), "{put:?}");
    }

    fn remove_nodes(&mut self, first: u8) {
        let node = vec![first; 16].into();
        let remove = RemoveNode { node, ..RemoveNode::default() };
        let removed = self.one(admin_op(admin::Op::RemoveNode(remove), None)).result;
        assert!(matches!(removed, Some(Answer::Done(_))), "{removed:?}");
    }
}

// What opens the life of a promotion says what was decided, whatever the rows said before and whoever is
// left; nothing else may name a life.
#[test]
fn what_opens_a_life_names_the_primary_that_was_decided() {
    let of_life = |incarnation, sites| LayoutRow { incarnation, ..row(LayoutKind::Standby, sites) };
    for sites in [["b", "a", "c"], ["a", "b", "c"]] {
        let mut group = with_standby(&["a", "b", "c"]);
        let early = group.lay(of_life(2, sites), Some(1)).expect_err("its life has not begun");
        assert!(early.detail.contains("only a promotion"), "{early:?}");
        group.begin_life(2);
        let other = group.lay(of_life(2, ["b", "c", "a"]), Some(1)).expect_err("other sites");
        assert!(other.detail.contains("only a promotion"), "{other:?}");
        let single = LayoutRow { incarnation: 2, ..LayoutRow::default() };
        let single = LayoutRow { kind: LayoutKind::Single.into(), ..single };
        assert!(group.lay(single, Some(1)).is_err(), "a promotion keeps the standby");
        let unnamed = group.lay(row(LayoutKind::Standby, ["b", "a", "c"]), Some(1));
        assert!(unnamed.is_err(), "without its life it is an operator's");
        // The third site was removed meanwhile: it has no node any more.
        group.remove_nodes(3);
        assert_eq!(group.lay(of_life(2, sites), Some(1)).expect("taken").0, 2);
        let held = reads::layout(&group.store).expect("rows");
        assert_eq!([&*held.primary, &*held.other, &*held.arbiter], sites);
        assert_eq!(held.incarnation, 2);
        assert!(group.lay(of_life(2, sites), Some(2)).is_err(), "once a life");
    }
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut group = raised(&["a", "b", "c"]);
    group.lay(row(LayoutKind::Standby, ["a", "b", ""]), Some(0)).expect("taken");
    let before = (reads::layout(&group.store).expect("rows"), group.machine.ledger_head());
    let (single, stretched) = (LayoutKind::Single, LayoutKind::Stretched);
    let (standby, none) = (LayoutKind::Standby, LayoutKind::Unspecified);
    let tries = [
        (standby, ["a", "x", ""], RefusalKind::NotFound, "no node"),
        (standby, ["a", "b", "x"], RefusalKind::NotFound, "no node"),
        (standby, ["a", "a", ""], RefusalKind::Malformed, "once"),
        (standby, ["a", "b", "b"], RefusalKind::Malformed, "once"),
        (standby, ["a", "", ""], RefusalKind::Malformed, "standby site"),
        (standby, ["b", "a", ""], RefusalKind::Malformed, "promotion"),
        (stretched, ["b", "a", "c"], RefusalKind::Malformed, "promotion"),
        (stretched, ["a", "b", ""], RefusalKind::Malformed, "three sites"),
        (single, ["a", "", ""], RefusalKind::Malformed, "names no sites"),
        (none, ["", "", ""], RefusalKind::Malformed, "known"),
    ];
    for (kind, sites, refusal, words) in tries {
        let refused = group.lay(row(kind, sites), Some(1)).expect_err("refused");
        assert_eq!(refused.kind(), refusal, "{sites:?}: {refused:?}");
        assert!(refused.detail.contains(words), "{sites:?}: {refused:?}");
    }
    let known = LayoutRow { kind: 9, ..LayoutRow::default() };
    assert_eq!(group.lay(known, Some(1)).expect_err("refused").kind(), RefusalKind::Malformed);
    for stale in [Some(0), Some(2), None] {
        let late = group.lay(row(single, ["", "", ""]), stale).expect_err("refused");
        assert_eq!(late.kind(), RefusalKind::Version);
    }
    assert_eq!((reads::layout(&group.store).expect("rows"), group.machine.ledger_head()), before);
}

// holds: ING-1
#[test]
fn standing_by_is_for_good_but_in_meta() {
    let mut group = raised(&["a"]);
    let replica = |standby| ReplicaRow {
        replica: 1,
        node: vec![1; 16].into(),
        confirmed: true,
        standby,
        ..ReplicaRow::default()
    };
    let row =
        |group, standby| GroupRow { group, replicas: vec![replica(standby)], next_replica_id: 2 };
    for (id, may_change) in [(0, true), (1, false)] {
        group.one(admin_op(admin::Op::PutGroup(row(id, true)), None));
        let changed = group.one(admin_op(admin::Op::PutGroup(row(id, false)), None)).result;
        assert_eq!(matches!(changed, Some(Answer::Done(_))), may_change, "{id}: {changed:?}");
    }
}

// A planned change of sites: the primary acknowledges nothing for a while, and nothing else changes.
#[test]
fn only_a_primary_with_a_register_hands_over_and_not_for_long() {
    let mut group = raised(&["a", "b", "c"]);
    let seat = LayoutSeat {
        place: "a".to_owned(),
        node: vec![1; 16].into(),
        acceptor: vec![2; 16].into(),
    };
    let standby = row(LayoutKind::Standby, ["a", "b", "c"]);
    let held = |until_us| LayoutRow { held_until_us: TIME_US + until_us, ..standby.clone() };
    group.lay(standby.clone(), Some(0)).expect("taken");
    let refused = group.lay(held(1), Some(1)).expect_err("nobody decides who is primary");
    assert!(refused.detail.contains("third site"), "{refused:?}");
    let seated = LayoutRow { seats: vec![seat], ..standby.clone() };
    group.lay(seated, Some(1)).expect("taken");
    let before = reads::layout(&group.store).expect("rows");
    for until_us in [0, -5, 300_000_001] {
        group.lay(held(until_us), Some(2)).expect_err("not for so long");
    }
    let other = LayoutRow { arbiter: String::new(), other: "c".to_owned(), ..held(1_000_000) };
    group.lay(other, Some(2)).expect_err("to another site");
    assert_eq!(reads::layout(&group.store).expect("rows"), before);
    group.lay(held(90_000_000), Some(2)).expect("taken");
    let after = reads::layout(&group.store).expect("rows");
    let held_until_us = TIME_US + 90_000_000;
    assert_eq!(after, LayoutRow { version: 3, held_until_us, ..before });
    // Whatever is put next ends it.
    group.lay(standby, Some(3)).expect("taken");
    assert_eq!(reads::layout(&group.store).expect("rows").held_until_us, 0);
}
