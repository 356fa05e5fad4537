//! Groups over sites while the layout changes: each step as the controller takes it, with learners that
//! catch up at once.

use std::collections::{BTreeMap, BTreeSet};

use dtm_types::command::{GroupRow, LayoutKind, NodeRow};
use dtm_types::{GroupId, NodeId};
use proptest::prelude::*;

use crate::answers::Answers;
use crate::lacks::Lack;
use crate::layout::Layout;
use crate::plan::{Members, Plan};

/// Rounds until nothing changes any more, a group.
const ROUNDS_A_GROUP: usize = 60;

struct World {
    plan: Plan,
    /// Who votes and learns in each group now.
    members: BTreeMap<u32, Members>,
    held: BTreeMap<NodeId, BTreeSet<(u32, u64)>>,
    replicas: usize,
}

impl World {
    /// So many nodes at `a`, `b` and `c`; every group on the first.
    fn new(sizes: [u8; 3], groups: u32, replicas: usize) -> Self {
        let mut nodes = BTreeMap::new();
        // Sites take turns, so that the oldest replicas are not all at one.
        for number in 0..sizes.into_iter().max().unwrap_or(0) {
            for (site, _) in ["a", "b", "c"].into_iter().zip(sizes).filter(|(_, n)| number < *n) {
                let byte = u8::try_from(nodes.len() + 1).expect("few");
                let (node, site) = (NodeId([byte; 16]), site.to_owned());
                nodes.insert(
                    node,
                    NodeRow { node: vec![byte; 16].into(), site, ..NodeRow::default() },
                );
            }
        }
        let rows = (0..=groups).map(|group| GroupRow { group, ..GroupRow::default() });
        let (groups, layout) = (rows.collect(), Layout::default());
        let held = nodes.keys().map(|node| (*node, BTreeSet::new())).collect();
        let plan = Plan { nodes, groups, layout };
        Self { plan, members: BTreeMap::new(), held, replicas }
    }

    fn answers(&self) -> Answers {
        let mut answers = Answers::default();
        self.held.iter().for_each(|(node, held)| answers.enter(*node, held.clone()));
        answers
    }

    fn change(&mut self, kind: LayoutKind) {
        let [primary, other, arbiter] = ["a", "b", "c"].map(str::to_owned);
        let version = self.plan.layout.version + 1;
        self.plan.layout = match kind {
            LayoutKind::Single => Layout { version, ..Layout::default() },
            _ => Layout { kind, primary, other, arbiter, version },
        };
    }

    /// What apply holds: marks are for good, but that of meta's replicas that stand by.
    fn write(&mut self, at: usize, row: GroupRow) {
        let old = &self.plan.groups[at];
        for before in &old.replicas {
            let now = row.replicas.iter().find(|now| now.replica == before.replica);
            let now = now.expect("replicas are not forgotten");
            assert!(now.removed || !before.removed, "{row:?}");
            assert!(now.confirmed || !before.confirmed, "{row:?}");
            assert!(now.leaving || !before.leaving, "{row:?}");
            assert!(now.standby || !before.standby || GroupId(row.group).is_meta(), "{row:?}");
        }
        self.plan.groups[at] = row;
    }

    /// One step of one group; whether there was one.
    fn step(&mut self, at: usize) -> bool {
        let group = self.plan.groups[at].clone();
        if let Some(row) = self.plan.next_row(&group, self.replicas, &self.answers()) {
            self.write(at, row);
            return true;
        }
        let mut row = group.clone();
        for replica in row.replicas.iter_mut().filter(|row| !row.removed && !row.confirmed) {
            let node = NodeId::from_slice(&replica.node).expect("16 bytes");
            self.held.get_mut(&node).expect("known").insert((group.group, replica.replica));
            replica.confirmed = true;
        }
        if row != group {
            self.write(at, row);
            return true;
        }
        let wanted = self.plan.members(&group, self.replicas);
        let now = self.members.entry(group.group).or_default();
        if *now != wanted {
            assert!(wanted.voters.len() >= now.voters.len(), "{now:?} {wanted:?} {group:?}");
            *now = wanted;
            return true;
        }
        match self.plan.left(&group, self.replicas) {
            Some(row) => self.write(at, row),
            None => return false,
        }
        true
    }

    /// Until nothing changes; what holds at every step is asserted.
    fn settle(&mut self) {
        let count = self.plan.groups.len();
        for _ in 0..ROUNDS_A_GROUP * count {
            let mut changed = false;
            for at in 0..count {
                changed |= self.step(at);
                self.check();
            }
            for (group, replica, node) in self.plan.retired(&self.answers()) {
                self.held.get_mut(&node).expect("known").remove(&(group, replica));
            }
            if changed {
                continue;
            }
            let none = BTreeSet::new();
            match self.plan.next_move(self.replicas, &self.answers(), &none, true) {
                Some(row) => {
                    let at = self.plan.groups.iter().position(|known| known.group == row.group);
                    self.write(at.expect("known"), row);
                }
                None => return,
            }
        }
        panic!("it never settles: {:?} {:?}", self.plan.layout, self.plan.groups);
    }

    // holds: ING-1
    fn check(&self) {
        for group in &self.plan.groups {
            let Some(members) = self.members.get(&group.group) else { continue };
            let standby = group.replicas.iter().filter(|row| row.standby).map(|row| row.replica);
            for replica in standby {
                assert!(!members.voters.contains_key(&replica), "{replica} votes: {group:?}");
            }
            let nodes: BTreeSet<&NodeId> =
                members.voters.values().chain(members.learners.values()).collect();
            let count = members.voters.len() + members.learners.len();
            assert_eq!(nodes.len(), count, "one a node: {group:?}");
        }
    }

    /// Voters and learners of a group at each site.
    fn counts(&self, group: u32) -> BTreeMap<&str, (usize, usize)> {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let Some(members) = self.members.get(&group) else { return counts };
        members.voters.values().for_each(|n| counts.entry(self.plan.site(*n)).or_default().0 += 1);
        members
            .learners
            .values()
            .for_each(|n| counts.entry(self.plan.site(*n)).or_default().1 += 1);
        counts
    }

    fn lacks(&self) -> Vec<Lack> {
        self.plan.lacks(self.replicas, &self.members)
    }
}

#[test]
fn voters_are_at_the_primary_and_copies_at_the_standby() {
    let mut world = World::new([3, 3, 1], 4, 3);
    world.settle();
    world.change(LayoutKind::Standby);
    assert!(!world.lacks().is_empty());
    world.settle();
    assert_eq!(world.lacks(), []);
    for group in 1..=4 {
        assert_eq!(world.counts(group), BTreeMap::from([("a", (3, 0)), ("b", (0, 3))]));
    }
    let of_meta = BTreeMap::from([("a", (3, 0)), ("b", (0, 3)), ("c", (0, 1))]);
    assert_eq!(world.counts(0), of_meta, "every node reads meta");
    let homes = world.plan.homes(3);
    assert!(homes.values().all(|node| world.plan.site(*node) == "a"), "{homes:?}");
    world.change(LayoutKind::Single);
    world.settle();
    assert_eq!(world.lacks(), []);
    for group in 1..=4 {
        let counts = world.counts(group);
        assert_eq!(counts.values().map(|(voters, _)| voters).sum::<usize>(), 3, "{counts:?}");
        assert!(counts.values().all(|(_, learners)| *learners == 0), "{counts:?}");
    }
}

#[test]
fn a_stretched_group_has_two_two_and_one_and_is_led_at_the_primary() {
    let mut world = World::new([3, 3, 1], 3, 5);
    world.settle();
    world.change(LayoutKind::Stretched);
    world.settle();
    assert_eq!(world.lacks(), []);
    for group in 1..=3 {
        let counts = world.counts(group);
        assert_eq!(counts, BTreeMap::from([("a", (2, 0)), ("b", (2, 0)), ("c", (1, 0))]));
        let row = &world.plan.groups[group as usize];
        let at = |site: &str| {
            let voters = &world.members[&group].voters;
            *voters.values().find(|node| world.plan.site(**node) == site).expect("a voter")
        };
        let prefers = |leader, gone: &str| {
            let cannot = |node| world.plan.site(node) == gone;
            let home = world.plan.homes(5).get(&group).copied();
            let to = world.plan.preferred_leader(row, leader, 5, home, cannot)?;
            Some(world.plan.site(world.members[&group].voters[&to]).to_owned())
        };
        assert_eq!(prefers(at("b"), ""), Some("a".to_owned()));
        assert_eq!(prefers(at("c"), ""), Some("a".to_owned()));
        assert_eq!(prefers(at("c"), "a"), Some("b".to_owned()), "the arbiter gives it up");
        assert_eq!(prefers(at("b"), "a"), None, "it stays where it can be");
    }
}

#[test]
fn a_site_without_nodes_is_told_and_nothing_is_lost() {
    let mut world = World::new([2, 1, 0], 2, 3);
    world.settle();
    let before = world.members[&1].clone();
    world.change(LayoutKind::Standby);
    world.settle();
    let few = Lack::FewNodes { site: "a".to_owned(), nodes: 2, wanted: 3 };
    let none = Lack::NoNode { site: "c".to_owned() };
    let lacks = world.lacks();
    assert!(lacks.contains(&few) && lacks.contains(&none), "{lacks:?}");
    assert_eq!(world.members[&1], before, "the voter at b stays until a has its three");
}

#[test]
fn a_node_that_is_lost_at_the_primary_makes_no_voter_of_a_copy() {
    let mut world = World::new([3, 2, 0], 1, 3);
    world.change(LayoutKind::Standby);
    world.settle();
    let gone = *world.plan.nodes.iter().find(|(_, row)| row.site == "a").expect("one").0;
    world.plan.nodes.remove(&gone);
    world.held.remove(&gone);
    let row = world.plan.next_row(&world.plan.groups[1], 3, &world.answers()).expect("gone");
    let members = world.plan.members(&row, 3);
    assert!(members.voters.values().all(|node| world.plan.site(*node) == "a"), "{members:?}");
    assert_eq!((members.voters.len(), members.learners.len()), (2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    // holds: ING-1, LIVE-1
    #[test]
    fn every_change_ends_and_takes_no_vote_away(
        sizes in (1_u8..5, 0_u8..4, 0_u8..3),
        groups in 1_u32..4,
        replicas in prop::sample::select(vec![1_usize, 3, 5]),
        changes in prop::collection::vec((0_u8..3, 0_usize..6), 1..6),
    ) {
        let mut world = World::new([sizes.0, sizes.1, sizes.2], groups, replicas);
        world.settle();
        for (kind, hurried) in changes {
            let kinds = [LayoutKind::Single, LayoutKind::Standby, LayoutKind::Stretched];
            world.change(kinds[usize::from(kind)]);
            if hurried > 0 {
                // The next change comes while this one is on its way.
                (0..hurried).for_each(|at| {
                    world.step(at % (groups as usize + 1));
                    world.check();
                });
                continue;
            }
            world.settle();
        }
        world.settle();
        let fits = world.lacks().iter().all(|lack| {
            matches!(lack, Lack::NoNode { .. } | Lack::FewNodes { .. })
        });
        prop_assert!(fits, "{:?}", world.lacks());
        world.change(LayoutKind::Single);
        world.settle();
        prop_assert_eq!(world.lacks(), vec![]);
    }
}
