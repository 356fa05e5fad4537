use dtm_types::command::ReplicaRow;

use super::*;

fn id(byte: u8) -> NodeId {
    NodeId([byte; 16])
}

fn peer(byte: u8) -> PeerNode {
    PeerNode { node: id(byte), peer_address: format!("n{byte}:9444"), ..PeerNode::default() }
}

fn nodes(count: u8) -> Vec<PeerNode> {
    (1..=count).map(peer).collect()
}

/// Replicas of a group on these nodes; the id of each is that of its node.
fn row(group: u32, on: &[u8]) -> GroupRow {
    let replica = |&byte: &u8| ReplicaRow {
        replica: u64::from(byte),
        node: vec![byte; 16].into(),
        confirmed: true,
        ..ReplicaRow::default()
    };
    GroupRow { group, replicas: on.iter().map(replica).collect(), next_replica_id: 20 }
}

fn stand(group: u32, replica: u64, last: u64) -> wire::ReplicaStand {
    wire::ReplicaStand {
        target: Some(wire::Target { group, replica }),
        last: Some(wire::LogId { term: 2, leader: 9, index: last }),
        applied: 5,
        ..wire::ReplicaStand::default()
    }
}

fn stands(of: &[(u8, &[wire::ReplicaStand])]) -> Stands {
    of.iter().map(|(byte, stands)| (id(*byte), (peer(*byte), stands.to_vec()))).collect()
}

fn levelled(group: u32, on: &[u8]) -> Levelled {
    let mut levelled = Levelled::default();
    for &byte in on {
        let target = Some(wire::Target { group, replica: u64::from(byte) });
        let heads = vec![wire::Head { index: 9, ..wire::Head::default() }];
        let of = wire::GroupHeads { target, heads, ..wire::GroupHeads::default() };
        levelled.take(&peer(byte), vec![of]).expect("the same ledger");
    }
    levelled
}

fn told(result: Result<(), Error>) -> String {
    result.expect_err("refused").to_string()
}

// holds: ING-1
#[test]
fn a_group_needs_a_majority_of_its_own_replicas_not_of_the_nodes() {
    // Five nodes; the group is on three of them, of which one is here: it may know less than both others.
    let due = Due::read("b", &[row(1, &[3, 4, 5])], &nodes(5)).expect("is here");
    let few = stands(&[(1, &[]), (2, &[]), (3, &[stand(1, 3, 9)])]);
    assert!(told(due.are_here(&few)).contains("group 1: 1 of 3 replicas"));
    let enough = stands(&[(1, &[]), (3, &[stand(1, 3, 9)]), (4, &[stand(1, 4, 9)])]);
    due.are_here(&enough).expect("two of three");
    assert!(told(due.are_whole(&enough, &levelled(1, &[3]))).contains("1 of 3"));
    due.are_whole(&enough, &levelled(1, &[3, 4])).expect("two of three");

    // A replica that the rows do not know stands for none of them.
    let other = stands(&[(3, &[stand(1, 3, 9)]), (4, &[stand(1, 14, 90)])]);
    assert!(told(due.are_here(&other)).contains("does not show replica 4"));
    let end = ends(&other, |node, target| due.knows(node, target));
    let last = end[&GroupId(1)].last.map(|last| last.index);
    assert_eq!(last, Some(9), "nor is it followed");
}

#[test]
fn a_group_that_the_site_was_never_given_is_named() {
    let rows = [row(0, &[1, 7]), row(3, &[7, 8]), row(4, &[9])];
    let refused = Due::read("b", &rows, &nodes(2)).expect_err("two groups are elsewhere");
    assert!(refused.to_string().contains("site b was never given a replica of groups 3, 4"));
}

#[test]
fn a_replica_that_comes_or_goes_is_not_waited_for() {
    let mut row = row(1, &[1, 2, 3, 4]);
    row.replicas[2].confirmed = false;
    row.replicas[3].leaving = true;
    let due = Due::read("b", &[row], &nodes(4)).expect("is here");
    let here = stands(&[(1, &[stand(1, 1, 9)]), (2, &[stand(1, 2, 9)])]);
    due.are_here(&here).expect("both that stay");
    // One that leaves may still hold the most.
    assert!(due.knows(id(4), &wire::Target { group: 1, replica: 4 }));
}

// holds: ING-1
#[test]
fn what_all_members_lack_is_waited_for() {
    let absent = |replica: u64, ranges: &[(u64, u64)]| {
        let ranges = ranges.iter().map(|&(from, to)| wire::IndexRange { from, to });
        wire::ReplicaStand { absent: ranges.collect(), ..stand(1, replica, 9) }
    };
    let due = Due::read("b", &[row(1, &[1, 2])], &nodes(2)).expect("is here");
    let apart = stands(&[(1, &[absent(1, &[(1, 3), (7, 7)])]), (2, &[absent(2, &[(4, 6)])])]);
    due.are_whole(&apart, &levelled(1, &[1, 2])).expect("each lacks what the other holds");
    let same = stands(&[(1, &[absent(1, &[(1, 3), (7, 7)])]), (2, &[absent(2, &[(3, 6)])])]);
    let refused = told(due.are_whole(&same, &levelled(1, &[1, 2])));
    assert!(refused.contains("entries 3 to 3 are on no node of the site"), "{refused}");
}

#[test]
fn of_those_that_hold_the_most_a_whole_one_is_the_source() {
    let damaged = wire::ReplicaStand { damaged: true, ..stand(1, 1, 9) };
    let all = |_: NodeId, _: &wire::Target| true;
    let found = stands(&[
        (1, std::slice::from_ref(&damaged)),
        (2, &[stand(1, 2, 9)]),
        (3, &[stand(1, 3, 8)]),
    ]);
    let ends_of = |stands: &Stands| ends(stands, all).remove(&GroupId(1)).expect("an end");
    let end = ends_of(&found);
    assert_eq!(end.source.as_ref().map(|source| source.replica), Some(2));
    assert!(!is_damaged(&found, &end));
    // Where it alone holds the end it is mended first, from the others.
    let found = stands(&[(1, &[damaged]), (3, &[stand(1, 3, 8)])]);
    let end = ends_of(&found);
    assert_eq!(end.source.as_ref().map(|source| source.replica), Some(1));
    assert_eq!(end.others.iter().map(|other| other.replica).collect::<Vec<_>>(), [3]);
    assert!(is_damaged(&found, &end));
}

// holds: RAFT-1
#[test]
fn one_bad_group_leaves_the_others_of_a_node_and_another_ledger_ends_it() {
    let heads = |group, index, cause: &str| wire::GroupHeads {
        target: Some(wire::Target { group, replica: 1 }),
        heads: (index > 0)
            .then(|| wire::Head { index, ..Default::default() })
            .into_iter()
            .collect(),
        cause: cause.to_owned(),
    };
    let mut levelled = Levelled::default();
    let groups = vec![heads(1, 0, "entry 4 is damaged"), heads(2, 9, "")];
    levelled.take(&peer(1), groups).expect("no alarm");
    assert_eq!((levelled.members(GroupId(1)).len(), levelled.members(GroupId(2)).len()), (0, 1));
    assert!(levelled.causes(GroupId(1)).contains("entry 4 is damaged"));
    let other = levelled.take(&peer(2), vec![heads(2, 8, "")]);
    assert!(told(other).contains("RAFT-1"));
}

#[test]
fn who_lives_in_another_life_is_left_out() {
    let answer = |byte: u8, life| {
        let replicas = vec![stand(1, u64::from(byte), 9)];
        (peer(byte), wire::StandResponse { life, replicas, ..wire::StandResponse::default() })
    };
    let (ours, strangers) = of_life(vec![answer(1, 3), answer(2, 2), answer(3, 4)], 3);
    assert_eq!(ours.keys().copied().collect::<Vec<_>>(), [id(1)]);
    assert_eq!(strangers, [(id(2), 2), (id(3), 4)]);
}
