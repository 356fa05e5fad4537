//! Moves end, spread and even out; homes differ by at most one where they can.

use dtm_types::command::LayoutKind;

use super::*;

const SINGLE: &Layout = &Layout {
    kind: LayoutKind::Single,
    primary: String::new(),
    other: String::new(),
    arbiter: String::new(),
    version: 0,
};

fn id(byte: u8) -> NodeId {
    NodeId([byte; 16])
}

/// Nodes 1, 2, … in these places: site and zone, one letter each.
fn nodes(places: &[&str]) -> BTreeMap<NodeId, NodeRow> {
    let row = |(place, byte): (&&str, u8)| {
        let (site, zone) = (place[..1].to_owned(), place[1..].to_owned());
        (id(byte), NodeRow { node: vec![byte; 16].into(), site, zone, ..NodeRow::default() })
    };
    places.iter().zip(1..).map(row).collect()
}

fn group(id: u32, nodes: &[u8]) -> GroupRow {
    let replica = |(&byte, replica)| ReplicaRow {
        replica,
        node: vec![byte; 16].into(),
        confirmed: true,
        ..ReplicaRow::default()
    };
    let replicas = nodes.iter().zip(1..).map(replica).collect();
    GroupRow { group: id, replicas, next_replica_id: nodes.len() as u64 + 1 }
}

fn spread<'a>(nodes: &'a BTreeMap<NodeId, NodeRow>, groups: &[GroupRow]) -> Spread<'a> {
    let mut load = BTreeMap::new();
    groups.iter().flat_map(kept).for_each(|node| *load.entry(node).or_default() += 1);
    let able = nodes.keys().copied().collect();
    Spread { nodes, able, load, layout: SINGLE, replicas: 3 }
}

/// Does what is proposed until nothing is; how many moves that were.
fn settle(nodes: &BTreeMap<NodeId, NodeRow>, groups: &mut [GroupRow]) -> usize {
    for count in 0..1_000 {
        let spread = spread(nodes, groups);
        let Some((group, from)) = next_move(groups, &spread, true) else { return count };
        let row = groups.iter_mut().find(|row| row.group == group).expect("known");
        let held = kept(row);
        let rest: BTreeSet<_> = held.iter().copied().filter(|node| *node != from).collect();
        let to = spread.place(&rest, &held).expect("a place");
        let at = row.replicas.iter_mut().find(|replica| replica.node == from.0[..]).expect("held");
        at.node = to.0.to_vec().into();
    }
    panic!("moves never end");
}

fn loads(groups: &[GroupRow]) -> Vec<usize> {
    let mut load = BTreeMap::new();
    groups.iter().flat_map(kept).for_each(|node| *load.entry(node).or_default() += 1);
    load.into_values().collect()
}

#[test]
fn a_node_that_joins_gets_its_share_and_no_more() {
    let nodes = nodes(&["az", "az", "az", "az"]);
    let mut groups: Vec<_> = (1..=12).map(|id| group(id, &[1, 2, 3])).collect();
    assert_eq!(settle(&nodes, &mut groups), 9, "none moves twice");
    assert_eq!(loads(&groups), [9, 9, 9, 9]);
}

#[test]
fn nothing_moves_where_all_is_even() {
    let nodes = nodes(&["az", "az", "az"]);
    let mut groups: Vec<_> = (1..=5).map(|id| group(id, &[1, 2, 3])).collect();
    assert_eq!(settle(&nodes, &mut groups), 0);
}

#[test]
fn replicas_spread_over_zones_before_loads_even_out() {
    let nodes = nodes(&["ax", "ax", "ax", "ay", "az"]);
    let mut groups: Vec<_> = (1..=4).map(|id| group(id, &[1, 2, 3])).collect();
    settle(&nodes, &mut groups);
    for group in &groups {
        assert_eq!(spread(&nodes, &groups).crowd(&kept(group)), (0, 2, 0), "{group:?}");
    }
    assert_eq!(loads(&groups)[3..], [4, 4], "one zone each, and there is one node in two of them");
}

#[test]
fn a_node_that_cannot_take_replicas_gets_none_and_gives_none() {
    let nodes = nodes(&["az", "az", "az", "az"]);
    let groups: Vec<_> = (1..=12).map(|id| group(id, &[1, 2, 3])).collect();
    let mut spread = spread(&nodes, &groups);
    spread.able.remove(&id(4));
    assert_eq!(next_move(&groups, &spread, true), None);
    let held = kept(&groups[0]);
    assert_eq!(spread.place(&held, &held), Some(id(4)), "where there is no other");
}

#[test]
fn homes_even_out_by_way_of_others() {
    // The first node is home to two groups; the third holds none of them, but one of the second's.
    let voters: BTreeMap<u32, Vec<NodeId>> =
        [(0, [id(1), id(2)]), (2, [id(1), id(2)]), (4, [id(2), id(3)])]
            .map(|(group, nodes)| (group, nodes.to_vec()))
            .into();
    let homes = homes(&voters);
    let count = |byte| homes.values().filter(|home| **home == id(byte)).count();
    assert_eq!([count(1), count(2), count(3)], [1; 3], "{homes:?}");
}

#[test]
fn no_node_leads_far_more_than_its_share() {
    for (size, count) in (3_u8..=9).flat_map(|size| (8_u32..40).map(move |count| (size, count))) {
        let nodes = nodes(&vec!["az"; usize::from(size)]);
        let mut groups: Vec<_> = (1..=count).map(|id| group(id, &[1, 2, 3])).collect();
        settle(&nodes, &mut groups);
        let (least, most) = (loads(&groups).into_iter().min(), loads(&groups).into_iter().max());
        assert!(most <= least.map(|least| least + 1), "{:?}", loads(&groups));
        let voters: BTreeMap<u32, Vec<NodeId>> =
            groups.iter().map(|row| (row.group, kept(row).into_iter().collect())).collect();
        let homes = homes(&voters);
        assert_eq!(homes.len(), groups.len());
        let led = |node: &NodeId| homes.values().filter(|home| *home == node).count();
        let most = nodes.keys().map(led).max().unwrap_or(0);
        assert_eq!(most, (count as usize).div_ceil(usize::from(size)), "{count} on {size}");
    }
}
