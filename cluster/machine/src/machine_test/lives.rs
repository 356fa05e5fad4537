//! A later life of the cluster, and what the ledger tells of backups and of lines between sites.

use dtm_types::command::{
    EnterBackup, EnterLine, LeftAction, LineChange, RaiseVersion, SettleLeft,
};
use dtm_types::format::Leaf;

use crate::keys::{Key, table};

use super::*;

fn raised() -> Group {
    let mut group = meta();
    let raised = group.one(Op::RaiseVersion(RaiseVersion { version: 2 })).result;
    assert!(matches!(raised, Some(Answer::Done(_))), "{raised:?}");
    group
}

fn leaf(group: &Group, index: u64) -> Leaf {
    let row = group.store.get(&Key::of(table::LEAF).u64(index).done()).expect("rows");
    Leaf::decode(&row.expect("kept")[1..]).expect("a leaf")
}

/// The genesis of the life behind the one that is held, with what that left.
fn next_life(group: &Group) -> format::Genesis {
    let (size, root) = group.machine.ledger_head();
    format::Genesis {
        group: 0,
        cause: "restore".into(),
        incarnation: 2,
        previous_incarnation: 1,
        previous_size: size,
        previous_root: Bytes::copy_from_slice(&root),
        ..format::Genesis::default()
    }
}

fn begin(group: &mut Group, genesis: format::Genesis) -> Outcome {
    group.one(Op::Genesis(Genesis { genesis: Some(genesis) }))
}

// holds: LED-1
#[test]
fn a_later_life_names_exactly_what_the_one_before_left() {
    let mut group = raised();
    let right = next_life(&group);
    let wrong = [
        format::Genesis { incarnation: 1, ..right.clone() },
        format::Genesis { previous_incarnation: 0, ..right.clone() },
        format::Genesis { previous_size: right.previous_size - 1, ..right.clone() },
        format::Genesis { previous_root: vec![7; 32].into(), ..right.clone() },
        format::Genesis { previous_root: Bytes::new(), ..right.clone() },
    ];
    let before = group.machine.ledger_head();
    for genesis in wrong {
        let refused = refusal(begin(&mut group, genesis.clone()));
        assert_eq!(refused.kind(), RefusalKind::Exists, "{genesis:?}");
        assert_eq!(group.machine.ledger_head(), before, "a refusal leaves no leaf");
    }
    let Some(Answer::Done(done)) = begin(&mut group, right.clone()).result else { panic!() };
    assert_eq!(done.leaf_index, right.previous_size, "the ledger goes on");
    assert_eq!(leaf(&group, done.leaf_index).genesis, Some(right.clone()));
    let again = refusal(begin(&mut group, right));
    assert_eq!(again.kind(), RefusalKind::Exists, "a life begins once");
}

#[test]
fn a_group_that_was_never_raised_goes_on_in_a_later_life_too() {
    let mut group = meta();
    let genesis = next_life(&group);
    let Some(Answer::Done(done)) = begin(&mut group, genesis.clone()).result else { panic!() };
    assert_eq!(leaf(&group, done.leaf_index).genesis, Some(genesis));
    let raised = group.one(Op::RaiseVersion(RaiseVersion { version: 2 })).result;
    assert!(matches!(raised, Some(Answer::Done(_))), "it is raised in the new life: {raised:?}");
}

// holds: SEC-2
#[test]
fn a_backup_is_entered_when_it_is_begun_and_when_it_was_written() {
    let mut group = raised();
    let begun = EnterBackup { backup: vec![1; 16].into(), ..EnterBackup::default() };
    let written = EnterBackup {
        parent: vec![2; 16].into(),
        manifest_digest: vec![0xab; 32].into(),
        anchor_leaf: 9,
        ..begun.clone()
    };
    let mut enter = |backup: EnterBackup| {
        let outcome = group.one(admin_op(admin::Op::EnterBackup(backup), None));
        match outcome.result {
            Some(Answer::Done(done)) => Ok(leaf(&group, done.leaf_index).object_ids),
            Some(Answer::Refusal(refusal)) => Err(refusal.kind()),
            other => panic!("{other:?}"),
        }
    };
    let id = "01010101-0101-0101-0101-010101010101";
    assert_eq!(enter(begun.clone()), Ok(vec![format!("backup={id}"), "begun".to_owned()]));
    let ids = enter(written.clone()).expect("entered");
    let parent = "parent=02020202-0202-0202-0202-020202020202";
    let manifest = format!("manifest={}", "ab".repeat(32));
    assert_eq!(ids, [&format!("backup={id}"), parent, &manifest, "anchor=9"]);
    let malformed = [
        EnterBackup { backup: vec![1; 15].into(), ..begun.clone() },
        EnterBackup { backup: Bytes::new(), ..begun },
        EnterBackup { parent: vec![1; 17].into(), ..written.clone() },
        EnterBackup { manifest_digest: vec![1; 31].into(), ..written },
    ];
    for backup in malformed {
        assert_eq!(enter(backup), Err(RefusalKind::Malformed));
    }
}

// holds: SEC-2
#[test]
fn what_was_left_behind_is_settled_with_a_leaf() {
    let mut group = raised();
    let right = SettleLeft {
        node: vec![1; 16].into(),
        incarnation: 1,
        action: LeftAction::Resent.into(),
        entries: 7,
        records: 60,
        present: 60,
        digest: vec![0xcd; 32].into(),
    };
    let mut settle = |settled: SettleLeft| {
        let outcome = group.one(admin_op(admin::Op::SettleLeft(settled), None));
        match outcome.result {
            Some(Answer::Done(done)) => Ok(leaf(&group, done.leaf_index).object_ids),
            Some(Answer::Refusal(refusal)) => Err(refusal.kind()),
            other => panic!("{other:?}"),
        }
    };
    let ids = settle(right.clone()).expect("entered");
    let node = "node=01010101-0101-0101-0101-010101010101";
    let digest = format!("digest={}", "cd".repeat(32));
    let counts = ["left=resent", "entries=7", "records=60", "present=60"];
    assert_eq!(ids, [&[node, "life=1"], &counts[..], &[&digest]].concat());
    let malformed = [
        SettleLeft { node: vec![1; 15].into(), ..right.clone() },
        SettleLeft { incarnation: 0, ..right.clone() },
        SettleLeft { action: 0, ..right.clone() },
        SettleLeft { action: 9, ..right.clone() },
        SettleLeft { present: 61, ..right.clone() },
        SettleLeft { digest: vec![1; 31].into(), ..right },
    ];
    for settled in malformed {
        assert_eq!(settle(settled), Err(RefusalKind::Malformed));
    }
}

// holds: SEC-2
#[test]
fn what_happens_to_a_line_is_entered() {
    let mut group = raised();
    let switched = EnterLine {
        peer: vec![1; 16].into(),
        change: LineChange::Switched.into(),
        from: 0,
        to: 1,
        since_us: 1_700_000_000_000_000,
        cut_for_ms: 8_100,
    };
    let mut enter = |entered: EnterLine| {
        let outcome = group.one(admin_op(admin::Op::EnterLine(entered), None));
        match outcome.result {
            Some(Answer::Done(done)) => Ok(leaf(&group, done.leaf_index).object_ids),
            Some(Answer::Refusal(refusal)) => Err(refusal.kind()),
            other => panic!("{other:?}"),
        }
    };
    let peer = "peer=01010101-0101-0101-0101-010101010101";
    let of = ["from=0", "to=1", "since_us=1700000000000000", "cut_for_ms=8100"];
    let ids = enter(switched.clone()).expect("entered");
    assert_eq!(ids, [&["line=switched", peer], &of[..]].concat());
    let all = EnterLine { change: LineChange::Confirmed.into(), ..EnterLine::default() };
    assert_eq!(enter(all), Ok(vec!["line=confirmed".to_owned()]));
    let malformed = [
        EnterLine { peer: vec![1; 15].into(), ..switched.clone() },
        EnterLine { peer: Bytes::new(), ..switched.clone() },
        EnterLine { change: 0, ..switched.clone() },
        EnterLine { change: 9, ..switched },
    ];
    for entered in malformed {
        assert_eq!(enter(entered), Err(RefusalKind::Malformed));
    }
}
