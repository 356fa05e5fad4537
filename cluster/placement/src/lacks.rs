//! What keeps a layout from being fulfilled.

use std::collections::BTreeMap;

use dtm_types::GroupId;
use dtm_types::command::{GroupRow, LayoutKind};

use crate::plan::{Members, Plan};

/// One thing that the layout waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A site that it names has no node.
    NoNode {
        /// The site.
        site: String,
    },
    /// A site has too few nodes for the voters that it is to have.
    FewNodes {
        /// The site.
        site: String,
        /// Its nodes.
        nodes: usize,
        /// How many it takes.
        wanted: usize,
    },
    /// A group has too few voters at a site.
    Voters {
        /// The group.
        group: u32,
        /// The site; empty = anywhere.
        site: String,
        /// Voters there.
        voters: usize,
        /// How many it is to have.
        wanted: usize,
    },
    /// A group has too few replicas at a site that stand by.
    Learners {
        /// The group.
        group: u32,
        /// The site.
        site: String,
        /// Learners there.
        learners: usize,
        /// How many it is to have.
        wanted: usize,
    },
    /// Replicas of a group come or go.
    Moving {
        /// The group.
        group: u32,
        /// How many.
        replicas: usize,
    },
}

impl Plan {
    /// What the layout waits for; empty where it is fulfilled. `in_force` has the members of each
    /// group as its leader knows them; of a group that is not in it, what the rows say counts.
    pub fn lacks(&self, voters_max: usize, in_force: &BTreeMap<u32, Members>) -> Vec<Lack> {
        let mut lacks = self.lacks_of_sites(voters_max);
        for group in &self.groups {
            let planned = self.members(group, voters_max);
            let members = in_force.get(&group.group).unwrap_or(&planned);
            self.lacks_of_group(group, members, voters_max, &mut lacks);
            let has_mark = |row: &&dtm_types::command::ReplicaRow| row.leaving || !row.confirmed;
            let on_the_way = self.live(group).filter(|(row, _)| has_mark(row)).count();
            let others = |now: &BTreeMap<u64, _>, then: &BTreeMap<u64, _>| {
                now.keys().filter(|replica| !then.contains_key(replica)).count()
            };
            let differ = others(&members.voters, &planned.voters)
                .max(others(&planned.voters, &members.voters));
            let replicas = on_the_way.max(differ);
            if replicas > 0 {
                lacks.push(Lack::Moving { group: group.group, replicas });
            }
        }
        lacks
    }

    fn lacks_of_sites(&self, voters_max: usize) -> Vec<Lack> {
        let votes = self.layout.votes(voters_max);
        let lack = |site: &str| {
            let (nodes, wanted) = (self.nodes_at(site), votes.get(site).copied().unwrap_or(0));
            let site = site.to_owned();
            match nodes {
                0 => Some(Lack::NoNode { site }),
                _ if nodes < wanted => Some(Lack::FewNodes { site, nodes, wanted }),
                _ => None,
            }
        };
        self.layout.sites().filter_map(lack).collect()
    }

    fn lacks_of_group(
        &self,
        row: &GroupRow,
        members: &Members,
        voters_max: usize,
        lacks: &mut Vec<Lack>,
    ) {
        let group = row.group;
        let at = |members: &BTreeMap<u64, _>, site: &str| {
            members.values().filter(|node| self.site(**node) == site).count()
        };
        for (site, wanted) in self.layout.votes(voters_max) {
            let (voters, wanted) = (at(&members.voters, site), wanted.min(self.nodes_at(site)));
            if voters < wanted {
                lacks.push(Lack::Voters { group, site: site.to_owned(), voters, wanted });
            }
        }
        let (voters, wanted) = (members.voters.len(), voters_max.min(self.nodes.len()));
        if self.layout.kind == LayoutKind::Single && voters < wanted {
            lacks.push(Lack::Voters { group, site: String::new(), voters, wanted });
        }
        if self.layout.is_standby() {
            let site = &self.layout.other;
            let nodes = self.nodes_at(site);
            let wanted = if GroupId(group).is_meta() { nodes } else { voters_max.min(nodes) };
            // A voter there is to stand by once the primary has its own.
            let wanted = wanted.saturating_sub(at(&members.voters, site));
            let learners = at(&members.learners, site);
            if learners < wanted {
                lacks.push(Lack::Learners { group, site: site.clone(), learners, wanted });
            }
        }
    }
}
