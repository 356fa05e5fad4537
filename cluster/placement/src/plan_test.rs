//! Rows of groups, one step at a time.

use super::*;

fn node(byte: u8, draining: bool) -> NodeRow {
    NodeRow { node: vec![byte; 16].into(), draining, ..NodeRow::default() }
}

fn plan(nodes: &[NodeRow], groups: Vec<GroupRow>) -> Plan {
    let nodes = nodes.iter().map(|row| (NodeId::from_slice(&row.node).expect("16"), row.clone()));
    Plan { nodes: nodes.collect(), groups, layout: Layout::default() }
}

fn group(id: u32, nodes: &[u8]) -> GroupRow {
    let replicas = nodes.iter().zip(1..).map(|(&byte, replica)| ReplicaRow {
        replica,
        node: vec![byte; 16].into(),
        confirmed: true,
        ..ReplicaRow::default()
    });
    let next_replica_id = nodes.len() as u64 + 1;
    GroupRow { group: id, replicas: replicas.collect(), next_replica_id }
}

#[test]
fn a_group_grows_one_fresh_replica_at_a_time() {
    let nodes = [node(1, false), node(2, false), node(3, false), node(4, false)];
    let (plan, nobody) = (plan(&nodes, vec![group(1, &[1])]), Answers::default());
    let second = plan.next_row(&plan.groups[0], 3, &nobody).expect("too few");
    assert_eq!((second.replicas.len(), second.next_replica_id), (2, 3));
    let third = plan.next_row(&second, 3, &nobody).expect("too few");
    assert_eq!(third.replicas[2].replica, 3);
    assert_eq!(plan.next_row(&third, 3, &nobody), None);
}

#[test]
fn a_removed_node_is_replaced_under_a_new_id() {
    let nodes = [node(1, false), node(2, false), node(4, false)];
    let (plan, nobody) = (plan(&nodes, vec![group(1, &[1, 2, 3])]), Answers::default());
    let row = plan.next_row(&plan.groups[0], 3, &nobody).expect("one is gone");
    assert!(row.replicas[2].removed);
    assert_eq!((row.replicas[3].replica, row.next_replica_id), (4, 5));
    assert_eq!(plan.next_row(&row, 3, &nobody), None);
}

// A node says that it holds a replica, then that it does not.
#[test]
fn an_id_is_confirmed_once_and_lost_for_good() {
    let nodes = [node(1, false), node(2, false), node(3, false)];
    let mut allocated = group(1, &[1, 2, 3]);
    allocated.replicas[1].confirmed = false;
    let plan = plan(&nodes, vec![allocated]);
    let allocated = &plan.groups[0];
    let id = |byte| NodeId([byte; 16]);
    let said =
        |held: &[(u32, u64)]| Answers::of(&[(id(1), &[(1, 1)]), (id(2), held), (id(3), &[(1, 3)])]);
    assert_eq!(plan.next_row(allocated, 3, &said(&[])), None, "to be created");
    assert_eq!(plan.replicas(allocated).len(), 2, "no member before it is confirmed");
    let confirmed = plan.next_row(allocated, 3, &said(&[(1, 2)])).expect("held");
    assert!(confirmed.replicas[1].confirmed);
    assert_eq!(plan.next_row(&confirmed, 3, &said(&[(1, 2)])), None);
    let lost = plan.next_row(&confirmed, 3, &said(&[(1, 1), (2, 2)])).expect("lost");
    assert!(lost.replicas[1].removed);
    let fresh = &lost.replicas[3];
    assert_eq!((fresh.replica, fresh.confirmed, lost.next_replica_id), (4, false, 5));
    assert_eq!(fresh.node, lost.replicas[1].node, "the same node, under another id");
}

// holds: ING-1
#[test]
fn nothing_is_given_up_while_no_majority_holds_the_group() {
    let nodes = [node(1, false), node(2, false), node(3, false)];
    let plan = plan(&nodes, vec![group(1, &[1, 2, 3])]);
    let id = |byte| NodeId([byte; 16]);
    let two_lost = Answers::of(&[(id(1), &[(1, 1)]), (id(2), &[]), (id(3), &[])]);
    assert_eq!(plan.next_row(&plan.groups[0], 3, &two_lost), None);
    let one_silent = Answers::of(&[(id(1), &[(1, 1)]), (id(2), &[])]);
    assert_eq!(plan.next_row(&plan.groups[0], 3, &one_silent), None);
}

#[test]
fn meta_is_on_every_node_and_the_oldest_replicas_vote() {
    let nodes: Vec<NodeRow> = (1..=5).map(|byte| node(byte, false)).collect();
    let mut rest = plan(&nodes, Vec::new());
    let mut row = group(0, &[1, 2, 3]);
    while let Some(mut next) = rest.next_row(&row, 3, &Answers::default()) {
        next.replicas.iter_mut().for_each(|replica| replica.confirmed = true);
        row = next;
    }
    assert_eq!(row.replicas.len(), 5);
    let ids = |members: &BTreeMap<u64, NodeId>| members.keys().copied().collect::<Vec<_>>();
    let Members { voters, learners } = rest.members(&row, 3);
    assert_eq!((ids(&voters), ids(&learners)), (vec![1, 2, 3], vec![4, 5]));
    let moved = rest.preferred_leader(&row, NodeId([5; 16]), 3, None, |_| false);
    assert!(moved.is_some_and(|leader| leader <= 3), "a learner does not lead: {moved:?}");
    rest.nodes.remove(&NodeId([2; 16]));
    let Members { voters, learners } = rest.members(&row, 3);
    assert_eq!((ids(&voters), ids(&learners)), (vec![1, 3, 4], vec![5]));
}

#[test]
fn leaders_go_round_and_leave_draining_nodes_alone() {
    let groups: Vec<GroupRow> = (0..6).map(|id| group(id, &[1, 2, 3])).collect();
    let all = plan(&[node(1, false), node(2, false), node(3, false)], groups.clone());
    let id = |byte| NodeId([byte; 16]);
    let chosen = |plan: &Plan, leader, gone: u8| -> Vec<_> {
        let homes = plan.homes(3);
        let chosen = |g: &GroupRow| {
            let home = homes.get(&g.group).copied();
            plan.preferred_leader(g, id(leader), 3, home, |node| node == id(gone))
        };
        groups.iter().map(chosen).collect()
    };
    assert_eq!(chosen(&all, 1, 0), [None, Some(2), Some(3), None, Some(2), Some(3)]);
    // Whoever took over from a dead node keeps what it has.
    assert_eq!(chosen(&all, 1, 3), [None, Some(2), None, None, Some(2), None]);
    let one_drains = plan(&[node(1, false), node(2, true), node(3, false)], groups.clone());
    let left = chosen(&one_drains, 2, 0);
    assert_eq!(left, [Some(1), Some(1), Some(3), Some(1), Some(3), Some(3)]);
}

/// All of these nodes answer and hold what the rows say, where it is confirmed.
fn all_answer(plan: &Plan) -> Answers {
    let held = |node: &NodeId| -> Vec<(u32, u64)> {
        let of_node = |group: &GroupRow| {
            let mut here = group.replicas.iter().filter(|row| row.node == node.0[..]);
            here.next().map(|row| (group.group, row.replica))
        };
        plan.groups.iter().filter_map(of_node).collect()
    };
    let said: Vec<_> = plan.nodes.keys().map(|node| (*node, held(node))).collect();
    let said: Vec<_> = said.iter().map(|(node, held)| (*node, &held[..])).collect();
    Answers::of(&said)
}

// holds: ING-1
#[test]
fn a_replica_that_leaves_votes_until_another_is_there() {
    let nodes = [1, 2, 3, 4].map(|byte| node(byte, false));
    let mut plan = plan(&nodes, (1..=4).map(|id| group(id, &[1, 2, 3])).collect());
    let ids = |members: &BTreeMap<u64, NodeId>| members.keys().copied().collect::<Vec<_>>();
    let survey = all_answer(&plan);
    let none = BTreeSet::new();
    assert_eq!(plan.next_move(3, &survey, &none, false), None, "rebalancing is off");
    let moving = plan.next_move(3, &survey, &none, true).expect("the fourth node is empty");
    assert_eq!(moving.group, 1);
    let leaves = moving.replicas.iter().position(|row| row.leaving).expect("one leaves");
    let leaves = moving.replicas[leaves].replica;
    assert_eq!(ids(&plan.members(&moving, 3).voters), [1, 2, 3], "nothing is there yet");
    let mut allocated = plan.next_row(&moving, 3, &survey).expect("too few that stay");
    assert_eq!(allocated.replicas[3].node, nodes[3].node, "where there is room");
    assert_eq!(ids(&plan.members(&allocated, 3).voters), [1, 2, 3], "it is not created yet");
    assert_eq!(plan.left(&allocated, 3), None);
    plan.groups[0] = allocated.clone();
    assert_eq!(plan.next_move(3, &survey, &none, true), None, "one at a time");
    allocated.replicas[3].confirmed = true;
    let Members { voters, learners } = plan.members(&allocated, 3);
    let staying: Vec<u64> = (1..=4).filter(|id| *id != leaves).collect();
    assert_eq!((ids(&voters), ids(&learners)), (staying, vec![]), "its place is taken");
    let leader = |byte| NodeId([byte; 16]);
    let old = leader(u8::try_from(leaves).expect("small"));
    let heir = plan.preferred_leader(&allocated, old, 3, None, |_| false);
    assert!(heir.is_some_and(|heir| heir != leaves), "it is to lead no more");
    let left = plan.left(&allocated, 3).expect("it has left");
    assert!(left.replicas.iter().all(|row| row.leaving == row.removed), "{left:?}");
    plan.groups[0] = left;
    let mut said = all_answer(&plan);
    assert_eq!(plan.retired(&said), [(1, leaves, old)], "it is still on its node");
    said = Answers::of(&[(old, &[])]);
    assert_eq!(plan.retired(&said), [], "it is not");
}

// fault: F2
#[test]
fn what_a_dead_node_held_is_made_anew_where_there_is_another() {
    let nodes = [1, 2, 3, 4].map(|byte| node(byte, false));
    let of_four = |id: u32| group(id, if id.is_multiple_of(2) { &[1, 2, 4] } else { &[1, 3, 4] });
    let plan = plan(&nodes, (1..=4).map(of_four).collect());
    let held: [(u32, u64); 4] = [(1, 1), (2, 1), (3, 1), (4, 1)];
    let second: [(u32, u64); 2] = [(2, 2), (4, 2)];
    let third: [(u32, u64); 2] = [(1, 2), (3, 2)];
    let id = |byte| NodeId([byte; 16]);
    let survey = Answers::of(&[(id(1), &held), (id(2), &second), (id(3), &third)]);
    let dead = BTreeSet::from([id(4)]);
    let row = plan.next_move(3, &survey, &dead, false).expect("node 4 is given up");
    assert!(row.replicas[2].leaving, "{row:?}");
    let next = plan.next_row(&row, 3, &survey).expect("too few that stay");
    assert_eq!(next.replicas[3].node, vec![2; 16], "the only other that answers");
    let small = Plan {
        nodes: plan.nodes.clone(),
        groups: vec![group(1, &[1, 2, 4])],
        layout: Layout::default(),
    };
    let survey = Answers::of(&[(id(1), &[(1, 1)]), (id(2), &[(1, 2)])]);
    assert_eq!(small.next_move(3, &survey, &dead, false), None, "nobody else answers");
}
