//! The replicas of a run over all their lives, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::sim::{Ground, Replica, peer};
use dtm_cluster::{ClusterConfig, MemoryStates, PeerNode, StateProvider};
use dtm_types::{ClusterId, GroupId};

use crate::disk::{Disk, DiskBug};
use crate::world::{Weather, Wires, World};

pub(crate) const GROUP: GroupId = GroupId(1);
const VOTERS: u64 = 3;
/// Replicas that ever were, at most: a node's number is a byte.
const HOSTS_MAX: u64 = 200;
const CHANGE_WITHIN: Duration = Duration::from_secs(8);
const MAINTAIN_WITHIN: Duration = Duration::from_secs(2);

struct Host {
    disk: Arc<Disk>,
    states: Arc<MemoryStates>,
    /// Its disk is gone for good.
    lost: bool,
}

pub(crate) struct Hosts {
    world: Arc<World>,
    config: ClusterConfig,
    bug: Option<DiskBug>,
    hosts: BTreeMap<u64, Host>,
    /// Starts that failed, and why.
    pub(crate) refused: Vec<String>,
}

fn peers(ids: impl IntoIterator<Item = u64>) -> BTreeMap<u64, PeerNode> {
    ids.into_iter().map(|id| (id, peer(u8::try_from(id).expect("below the most")))).collect()
}

impl Hosts {
    /// Three voters that have found a leader.
    pub(crate) async fn found(world: &Arc<World>, bug: Option<DiskBug>) -> Self {
        let config = ClusterConfig::new(ClusterId([7; 16]), peer(1));
        let (hosts, refused) = (BTreeMap::new(), Vec::new());
        let mut all = Self { world: Arc::clone(world), config, bug, hosts, refused };
        for id in 1..=VOTERS {
            all.add(id).await;
        }
        let first = world.replica(1).expect("it was started");
        first.found(&peers(1..=VOTERS)).await.expect("a new group is founded");
        all
    }

    async fn add(&mut self, id: u64) {
        let disk = Disk::new(id, &self.world, self.bug);
        self.hosts.insert(id, Host { disk, states: Arc::default(), lost: false });
        self.start(id).await;
    }

    /// Those whose disks are there.
    pub(crate) fn all(&self) -> Vec<u64> {
        self.hosts.iter().filter(|(_, host)| !host.lost).map(|(id, _)| *id).collect()
    }

    pub(crate) fn down(&self) -> Vec<u64> {
        self.all().into_iter().filter(|id| self.world.replica(*id).is_none()).collect()
    }

    pub(crate) async fn start(&mut self, id: u64) {
        let host = &self.hosts[&id];
        let ground = Ground {
            group: GROUP,
            replica: id,
            log: host.disk.open(),
            states: Arc::clone(&host.states) as Arc<dyn StateProvider>,
            post: Arc::new(Wires(Arc::clone(&self.world))),
        };
        self.world.step("start", id, id, 0);
        match Replica::start(ground, &self.config).await {
            Ok(replica) => self.world.set_up(id, Arc::new(replica)),
            Err(error) => self.refused.push(format!("replica {id}: {error}")),
        }
    }

    /// The power of these is cut at one moment.
    pub(crate) async fn cut_power(&mut self, ids: &[u64]) {
        let mut ended = Vec::new();
        for id in ids {
            let kept = self.world.below(1_001);
            let host = &self.hosts[id];
            host.disk.cut(kept);
            self.world.step("power", *id, *id, kept);
            ended.extend(self.world.take_down(*id));
        }
        for replica in ended {
            replica.stop().await;
        }
        ids.iter().for_each(|id| self.hosts[id].states.crash());
    }

    pub(crate) async fn start_all(&mut self) {
        for id in self.down() {
            self.start(id).await;
        }
    }

    /// Everything that is not broken for good is whole again.
    pub(crate) async fn heal(&mut self) {
        self.world.join();
        self.world.set_weather(Weather::FAIR);
        self.world.set_clocks_right();
        self.hosts.values().for_each(|host| host.disk.slow_down(Duration::ZERO));
        self.start_all().await;
    }

    pub(crate) fn slow_down(&self, id: u64, by: Duration) {
        self.world.step("slow", id, id, by.as_millis() as u64);
        self.hosts[&id].disk.slow_down(by);
    }

    /// Whoever says that it leads, of the highest term.
    pub(crate) fn leader(&self) -> Option<(u64, Arc<Replica>)> {
        let running = self.world.running().into_iter();
        running.filter(|(_, replica)| replica.is_leader()).max_by_key(|(_, r)| r.term())
    }

    /// Leadership goes to another voter.
    pub(crate) async fn hand_over(&self) {
        let Some((from, leader)) = self.leader() else { return };
        let others: Vec<u64> = leader.voters().into_iter().filter(|id| *id != from).collect();
        if others.is_empty() {
            return;
        }
        let to = others[self.world.below(others.len() as u64) as usize];
        self.world.step("hand over", from, to, 0);
        // It may be no leader any more.
        let _ = tokio::time::timeout(CHANGE_WITHIN, leader.hand_over(to)).await;
    }

    /// A new replica takes the place of a voter, whose disk is gone for good when that is committed.
    pub(crate) async fn replace(&mut self) {
        let Some((from, leader)) = self.leader() else { return };
        let voters: Vec<u64> = leader.voters().into_iter().collect();
        let new = self.hosts.keys().last().copied().unwrap_or_default() + 1;
        if voters.len() != VOTERS as usize || new > HOSTS_MAX {
            return;
        }
        let old = voters[self.world.below(VOTERS) as usize];
        self.world.step("replace", old, new, from);
        self.add(new).await;
        let next: BTreeSet<u64> = voters.into_iter().filter(|id| *id != old).chain([new]).collect();
        let changed = tokio::time::timeout(CHANGE_WITHIN, leader.vote_by(&peers(next))).await;
        if matches!(changed, Ok(Ok(()))) {
            self.cut_power(&[old]).await;
            self.hosts.get_mut(&old).expect("a voter").lost = true;
            self.world.step("replaced", old, new, from);
        }
    }

    /// Rows are flushed and the log purged behind them.
    pub(crate) async fn maintain(&self, id: u64, kept: u64) {
        if let Some(replica) = self.world.replica(id) {
            let done = tokio::time::timeout(MAINTAIN_WITHIN, replica.maintain(kept)).await;
            self.world.step("maintain", id, u64::from(matches!(done, Ok(Ok(())))), kept);
        }
    }

    /// Who lacks bundles asks somebody for them.
    pub(crate) async fn fill(&self) {
        let running = self.world.running();
        for (id, replica) in running.iter().filter(|(_, replica)| replica.lacks()) {
            let other = running[self.world.below(running.len() as u64) as usize].0;
            if other != *id {
                replica.fill_from(other, MAINTAIN_WITHIN).await;
            }
        }
    }
}
