//! RAFT-1, LED-1 and SEC-2: nothing is said of a true group, and each kind of damage is named.

use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::keys::{self, table};
use dtm_machine::seams::{Freshness, ManualClock, Proposer, ReadView};
use dtm_machine::{MemoryGroups, reads};
use dtm_types::command::command::Op;
use dtm_types::command::{Actor, ActorKind, Admin, Command, NodeRow, OperatorRow, admin};
use dtm_types::format::GroupHead;
use dtm_types::{GroupId, StreamKey, bundle};
use prost::Message;

use super::{Breach, Image, Origins, Promises, Property, compare, explain};
use crate::sandbox::commands;

const GROUP: GroupId = GroupId(1);

fn groups() -> MemoryGroups {
    MemoryGroups::new(1, Arc::new(ManualClock::at(commands::TIME_US))).unwrap()
}

fn propose(groups: &MemoryGroups, group: GroupId, command: Bytes) {
    groups.propose(group, command, Box::new(|outcome| drop(outcome.unwrap())));
}

/// Three batches of two records in one stream.
fn written() -> MemoryGroups {
    let groups = groups();
    let stream = StreamKey::parse("a", "s").unwrap();
    propose(&groups, GROUP, commands::put_key(&stream));
    propose(&groups, GROUP, commands::open(&stream, 1));
    for first in [1, 3, 5] {
        propose(&groups, GROUP, commands::batch(&stream, 1, first, 2));
    }
    groups
}

async fn image(groups: &MemoryGroups, group: GroupId, node: &str) -> Image {
    Image::read(node, &groups.view(group, Freshness::Current).await.unwrap()).unwrap()
}

fn judged(image: &Image) -> Vec<Breach> {
    let mut origins = Origins::default();
    origins.ledger(image);
    origins.breaches().to_vec()
}

// holds: RAFT-1, LED-1
#[tokio::test]
async fn a_true_group_is_read_back_whole_and_nothing_is_said() {
    let groups = written();
    let one = image(&groups, GROUP, "one").await;
    assert_eq!((one.applied, one.bundles.len(), one.head().ledger_size), (5, 5, 5));
    let sequences: Vec<u64> = one.records().iter().map(|record| record.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
    assert_eq!(judged(&one), []);
    let other = image(&written(), GROUP, "other").await;
    assert_eq!(compare(&[one, other]), []);
}

// holds: RAFT-1
#[tokio::test]
async fn replicas_that_differ_are_named() {
    let groups = written();
    let one = image(&groups, GROUP, "one").await;
    let mut other = Image { node: "other".to_owned(), ..one.clone() };
    let swapped = other.bundles[&3].clone();
    other.bundles.insert(4, swapped);
    other.rows.insert(keys::tile(0, 2).into(), vec![9; 32].into());
    let found = compare(&[one, other]);
    assert!(matches!(found[0], Breach::EntryDiffers { index: 4, .. }), "{found:?}");
    assert!(matches!(found[1], Breach::LeafDiffers { leaf: 2, .. }), "{found:?}");
    assert!(matches!(found[2], Breach::RowDiffers { applied: 5, .. }), "{found:?}");
    assert_eq!(found.len(), 3);
}

// holds: RAFT-1
#[test]
fn a_vote_taken_back_is_named() {
    let vote = |n: u8| Bytes::copy_from_slice(&[n]);
    let mut promises = Promises::default();
    promises.found("r", None);
    promises.asked("r", &vote(1));
    promises.given("r", &vote(1));
    promises.asked("r", &vote(2));
    promises.found("r", Some(&vote(2)));
    promises.asked("r", &vote(3));
    promises.found("r", Some(&vote(2)));
    assert_eq!(promises.breaches(), [], "what was not said to be kept may be there or not");
    promises.found("r", Some(&vote(1)));
    assert!(matches!(promises.breaches(), [Breach::VoteTakenBack { .. }]));
}

// holds: LED-1
#[tokio::test]
async fn a_changed_ledger_is_named() {
    let groups = written();
    let whole = image(&groups, GROUP, "one").await;
    let changed = |change: &dyn Fn(&mut Image)| {
        let mut image = whole.clone();
        change(&mut image);
        let found = judged(&image);
        assert!(found.iter().all(|breach| breach.property() == Property::Led1));
        found.len()
    };
    let place = Bytes::from(keys::place(4, 0));
    assert!(changed(&|image| drop(image.rows.remove(&keys::leaf(3)[..]))) > 0, "a leaf is gone");
    assert!(changed(&|image| drop(image.rows.remove(&place))) > 0, "a batch is gone");
    assert!(changed(&|image| drop(image.bundles.remove(&4))) > 0, "its bytes are gone");
    assert!(changed(&|image| drop(image.rows.remove(&keys::head()[..]))) > 0, "no head");
    let forged = |image: &mut Image| {
        let mut bundle = image.bundle(4).unwrap();
        bundle.time_us += 1;
        let Some(Op::AppendBatch(append)) = &mut bundle.commands[0].op else { panic!("a batch") };
        let body = append.body.as_mut().unwrap();
        body.sealed = vec![0; body.sealed.len()].into();
        let mut builder = bundle::Builder::new(bundle.time_us, &[1; 16], 0);
        builder.push(&bundle.commands[0].encode_to_vec());
        image.bundles.insert(4, builder.finish());
    };
    assert!(changed(&forged) > 0, "other bytes under the same header");
    let doubled = |image: &mut Image| {
        let first = image.rows[&keys::leaf(2)[..]].clone();
        image.rows.insert(keys::leaf(3).into(), first);
    };
    assert!(changed(&doubled) > 0, "one batch with two leaves");
}

// holds: LED-1
#[tokio::test]
async fn heads_that_cannot_both_be_true_are_named() {
    let groups = written();
    let mut origins = Origins::default();
    origins.ledger(&image(&groups, GROUP, "early").await);
    let stream = StreamKey::parse("a", "s").unwrap();
    propose(&groups, GROUP, commands::batch(&stream, 1, 7, 2));
    let later = image(&groups, GROUP, "later").await;
    origins.ledger(&later);
    assert_eq!(origins.breaches(), [], "it only grew");
    let mut behind = image(&written(), GROUP, "behind").await;
    behind.is_current = false;
    origins.ledger(&behind);
    assert_eq!(origins.breaches(), [], "a replica may be behind");
    behind.is_current = true;
    origins.ledger(&behind);
    assert!(matches!(origins.breaches(), [Breach::Forked { size: 6, .. }]), "a current one not");
    let other = StreamKey::parse("b", "s").unwrap();
    let fork = self::groups();
    propose(&fork, GROUP, commands::put_key(&other));
    origins.ledger(&image(&fork, GROUP, "fork").await);
    assert!(origins.breaches().len() > 1);
    let mut shown = Origins::default();
    shown.head(GROUP, "a page", 5, [1; 32]);
    shown.ledger(&later);
    assert!(matches!(shown.breaches(), [Breach::Forked { size: 5, .. }]));
}

fn act(kind: ActorKind, id: [u8; 16], request: u8, op: admin::Op) -> Bytes {
    let actor = Some(Actor { kind: kind.into(), id: id.to_vec().into() });
    let admin = Admin { op: Some(op), ..Admin::default() };
    let request_id = vec![request; 16].into();
    Command { request_id, actor, op: Some(Op::Admin(admin)) }.encode_to_vec().into()
}

fn operator(name: &str, role: &str) -> OperatorRow {
    let (name, role) = (name.to_owned(), role.to_owned());
    let certificate_digest = Bytes::copy_from_slice(&[name.len() as u8; 32]);
    OperatorRow { name, role, certificate_digest, ..OperatorRow::default() }
}

/// A node founds, lets an operator and an auditor in.
fn administered() -> MemoryGroups {
    let groups = groups();
    let node = NodeRow { node: vec![1; 16].into(), ..NodeRow::default() };
    let ops = [
        admin::Op::PutNode(node),
        admin::Op::PutOperator(operator("lan", "operator")),
        admin::Op::PutOperator(operator("auditor", "auditor")),
    ];
    for (request, op) in (1..).zip(ops) {
        propose(&groups, GroupId::META, act(ActorKind::Node, [1; 16], request, op));
    }
    groups
}

// holds: SEC-2
#[tokio::test]
async fn effects_of_those_who_may_are_explained_and_others_named() {
    let groups = administered();
    let put = |name: &str| admin::Op::PutOperator(operator(name, "approver"));
    propose(&groups, GroupId::META, act(ActorKind::Operator, [3; 16], 9, put("approver")));
    let image = image(&groups, GroupId::META, "one").await;
    assert_eq!(explain(&image).unwrap(), []);
    assert_eq!(
        reads::operators(&*groups.view(GroupId::META, Freshness::Local).await.unwrap().state)
            .unwrap()
            .len(),
        3
    );
    for (kind, id) in [
        (ActorKind::Operator, [7; 16]),
        (ActorKind::Operator, [99; 16]),
        (ActorKind::Source, [3; 16]),
        (ActorKind::Node, [2; 16]),
        (ActorKind::Unspecified, [1; 16]),
    ] {
        let groups = administered();
        propose(&groups, GroupId::META, act(kind, id, 9, put("approver")));
        let found = explain(&self::image(&groups, GroupId::META, "one").await).unwrap();
        assert!(matches!(found[..], [Breach::Unauthorised { index: 4, .. }]), "{kind:?} {found:?}");
    }
}

// holds: SEC-2
#[tokio::test]
async fn a_row_without_its_command_is_named() {
    let groups = administered();
    let whole = image(&groups, GroupId::META, "one").await;
    let mut more = whole.clone();
    let key = keys::named(table::OPERATOR, "mallory");
    more.rows.insert(key.into(), operator("mallory", "operator").encode_to_vec().into());
    assert!(matches!(explain(&more).unwrap()[..], [Breach::Unexplained { .. }]));
    let mut less = whole.clone();
    less.rows.remove(&keys::named(table::OPERATOR, "lan")[..]);
    assert!(matches!(explain(&less).unwrap()[..], [Breach::Unexplained { .. }]));
}

#[test]
fn an_empty_image_has_a_blank_head() {
    let image = Image::of_rows("none", GROUP, Default::default());
    assert_eq!(image.head(), GroupHead::default());
    assert_eq!(judged(&image), []);
}
