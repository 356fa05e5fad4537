//! Anchors: what follows what, once a second, with the leaf of the one before.

use dtm_types::command::{Anchor, GroupRow, RaiseVersion};
use dtm_types::format::AnchoredGroup;

use super::*;

const SECOND_US: i64 = 1_000_000;

fn anchored(group: u32, size: u64, root: u8) -> AnchoredGroup {
    AnchoredGroup {
        group,
        incarnation: 1,
        ledger_size: size,
        ledger_root: vec![root; 32].into(),
        applied_index: 10 * size,
        group_time_us: TIME_US,
    }
}

impl Group {
    fn anchor_at(&mut self, second: i64, incarnation: u64, groups: Vec<AnchoredGroup>) -> Outcome {
        self.index += 1;
        let mut builder = bundle::Builder::new(TIME_US + second * SECOND_US, &[7; 16], 1_024);
        let op = Op::Anchor(Anchor { groups, incarnation });
        builder.push(&command(op).encode_to_vec());
        let entry = Committed { index: self.index, bundle: Some(builder.finish()) };
        let mut batch = StateBatch::default();
        let outcomes = self.machine.apply(&self.store, &[entry], &mut batch).expect("total");
        self.store.write(&batch).expect("memory");
        outcomes[0][0].clone()
    }

    fn refused_at(&mut self, second: i64, groups: Vec<AnchoredGroup>) -> Refusal {
        let before = self.machine.ledger_head();
        let refused = refusal(self.anchor_at(second, 1, groups));
        assert_eq!(self.machine.ledger_head(), before, "a refusal leaves no leaf");
        refused
    }
}

/// Meta at version 2 with two ingest groups.
fn raised() -> Group {
    let mut meta = Group::new(GroupId::META);
    for group in [1, 2] {
        let row = GroupRow { group, ..GroupRow::default() };
        let op = Some(admin::Op::PutGroup(row));
        meta.one(Op::Admin(Admin { op, ..Admin::default() }));
    }
    meta.one(Op::RaiseVersion(RaiseVersion { version: 2 }));
    meta
}

// holds: LED-1
#[test]
fn an_anchor_names_every_group_and_none_goes_back() {
    let mut meta = raised();
    let (own_size, own_root) = meta.machine.ledger_head();
    let first = meta.anchor_at(1, 1, vec![anchored(1, 5, 1), anchored(2, 6, 2)]);
    let Some(Answer::Done(first)) = first.result else { panic!("{first:?}") };
    assert_eq!(first.leaf_index, own_size);

    let other_root = meta.refused_at(2, vec![anchored(1, 5, 9)]);
    assert_eq!(other_root.kind(), RefusalKind::Conflict);
    assert!(other_root.detail.starts_with("LED-1"), "{other_root:?}");
    let fewer = meta.refused_at(2, vec![anchored(1, 4, 1)]);
    assert!(fewer.detail.starts_with("LED-1"), "{fewer:?}");
    let earlier = AnchoredGroup { applied_index: 1, ..anchored(1, 5, 1) };
    assert!(meta.refused_at(2, vec![earlier]).detail.starts_with("LED-1"));

    // One that is left out stands as before.
    let second = meta.anchor_at(3, 1, vec![anchored(2, 8, 3)]);
    let Some(Answer::Done(second)) = second.result else { panic!("{second:?}") };
    let found = reads::anchors(&meta.store, 9).expect("memory");
    let indexes: Vec<u64> = found.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [second.leaf_index, first.leaf_index], "newest first");
    let groups = |at: usize| found[at].1.anchor.clone().expect("an anchor").groups;
    assert_eq!(groups(1)[1..], [anchored(1, 5, 1), anchored(2, 6, 2)]);
    assert_eq!(groups(0)[1..], [anchored(1, 5, 1), anchored(2, 8, 3)]);
    let own = &groups(1)[0];
    assert_eq!((own.group, own.ledger_size), (0, own_size), "meta before the leaf");
    assert_eq!(own.ledger_root, own_root[..]);
    assert_eq!(reads::anchors(&meta.store, 1).expect("memory").len(), 1);
}

#[test]
fn a_second_has_one_anchor_and_a_later_life_begins_anew() {
    let mut meta = raised();
    assert!(matches!(meta.anchor_at(1, 1, vec![anchored(1, 5, 1)]).result, Some(Answer::Done(_))));
    assert_eq!(meta.refused_at(1, vec![anchored(1, 6, 1)]).kind(), RefusalKind::Exists);
    // Group time does not go back.
    assert_eq!(meta.refused_at(0, vec![anchored(1, 6, 1)]).kind(), RefusalKind::Exists);
    let later = AnchoredGroup { incarnation: 2, ..anchored(1, 1, 7) };
    let begun = meta.anchor_at(2, 2, vec![later]);
    assert!(matches!(begun.result, Some(Answer::Done(_))), "{begun:?}");
    assert_eq!(
        meta.refused_at(3, vec![anchored(1, 9, 1)]).detail,
        "an anchor of a life of the cluster before"
    );
    assert_eq!(meta.refused_at(3, Vec::new()).kind(), RefusalKind::Version, "meta's own");
}

#[test]
fn an_anchor_is_whole_or_refused() {
    let mut meta = raised();
    let mut short = anchored(1, 5, 1);
    short.ledger_root = vec![1; 31].into();
    for groups in [
        vec![short],
        vec![anchored(0, 5, 1)],
        vec![anchored(256, 5, 1)],
        vec![anchored(2, 5, 1), anchored(1, 5, 1)],
        vec![anchored(1, 5, 1), anchored(1, 5, 1)],
    ] {
        assert_eq!(meta.refused_at(1, groups).kind(), RefusalKind::Malformed);
    }
    assert_eq!(meta.refused_at(1, vec![anchored(3, 5, 1)]).kind(), RefusalKind::NotFound);
    let elsewhere = Group::new(INGEST).anchor_at(1, 1, Vec::new());
    assert_eq!(refusal(elsewhere).kind(), RefusalKind::WrongGroup);
    let early = Group::new(GroupId::META).anchor_at(1, 1, Vec::new());
    assert_eq!(refusal(early).kind(), RefusalKind::Version);
}
