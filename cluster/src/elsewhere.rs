//! Groups of which this node holds no replica: who leads them, and the way for their commands.
//!
//! ```text
//!  meta's rows: which nodes hold a replica ──> asked each second, and when a command was not taken
//!                                                  └─> who leads ──> forward over the leader's link
//! ```
//!
//! Meta itself has a replica on every node, so its rows are always at hand. A command waits here as
//! long as it would in a bundler, and is forwarded once at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{ProposeError, Reply, StateError, StateRead};
use dtm_placement::Plan;
use dtm_proto::cluster as wire;
use dtm_types::command::{GroupRow, ReplicaRow};
use dtm_types::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::convert;
use crate::group::Group;
use crate::queue::{CommandQueue, QueueConfig, RETRY_PAUSE};
use crate::registry::Registry;
use crate::type_config::{PeerNode, peer_of};

const ASK_EVERY: Duration = Duration::from_secs(1);
/// Between two rounds of questions, however many commands ask for one.
const ASK_PAUSE: Duration = Duration::from_millis(50);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Leaders of groups that are elsewhere, and the queues of commands for them.
pub(crate) struct Elsewhere {
    node: NodeId,
    config: QueueConfig,
    registry: Arc<Registry>,
    leaders: Mutex<BTreeMap<GroupId, PeerNode>>,
    queues: Mutex<BTreeMap<GroupId, Arc<CommandQueue>>>,
    ask: Notify,
    stop: CancellationToken,
}

impl Elsewhere {
    pub(crate) fn new(
        node: NodeId,
        config: QueueConfig,
        registry: Arc<Registry>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (leaders, queues) = (Mutex::default(), Mutex::default());
        Arc::new(Self { node, config, registry, leaders, queues, ask: Notify::new(), stop })
    }

    /// Who leads a group that is elsewhere, as far as was heard.
    pub(crate) fn leader(&self, group: GroupId) -> Option<PeerNode> {
        self.leaders.lock().get(&group).cloned()
    }

    /// Other nodes that hold a replica of a group, its leader first.
    pub(crate) fn holders(&self, group: GroupId) -> Vec<PeerNode> {
        let rows = self.registry.group(GroupId::META).map(|meta| meta.store.freeze());
        let holders = rows.and_then(|rows| holders(&*rows, group).ok());
        let mut holders = holders.unwrap_or_default();
        holders.retain(|peer| peer.node != self.node);
        let leader = self.leader_of(group).map(|peer| peer.node);
        holders.sort_by_key(|peer| Some(peer.node) != leader);
        holders
    }

    /// Who leads a group, here or elsewhere, as far as is known. A replica here that leaves its group
    /// is not believed where others were heard: once it is no member any more, nobody tells it of a
    /// new leader.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<PeerNode> {
        let here = || self.registry.group(group)?.leader().map(|(_, peer)| peer);
        self.leader(group).or_else(here)
    }

    /// Whether others are to be asked for the group's leader.
    fn is_elsewhere(&self, row: &GroupRow) -> bool {
        let stays = |replica: &ReplicaRow| {
            replica.node == self.node.0[..] && !replica.removed && !replica.leaving
        };
        // One that was just made knows no leader before it is a member.
        let here = self.registry.group(GroupId(row.group)).and_then(|group| group.leader());
        here.is_none() || !row.replicas.iter().any(stays)
    }

    /// Every group that meta knows, meta included.
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        let meta = self.registry.group(GroupId::META);
        let rows = meta.and_then(|meta| reads::groups(&*meta.store.freeze()).ok());
        rows.unwrap_or_default().iter().map(|row| GroupId(row.group)).collect()
    }

    fn plan(&self) -> Option<Plan> {
        let meta = self.registry.group(GroupId::META)?;
        Plan::read(&*meta.store.freeze()).ok()
    }

    /// A command for a group without a replica here.
    pub(crate) fn push(self: &Arc<Self>, group: GroupId, command: Bytes, reply: Reply) {
        match self.queue(group) {
            Some(queue) => queue.push(command, reply, false),
            None => {
                let cause = "this node does not know the group".to_owned();
                reply(Err(ProposeError::Unavailable { group, cause }));
            }
        }
    }

    fn queue(self: &Arc<Self>, group: GroupId) -> Option<Arc<CommandQueue>> {
        if let Some(queue) = self.queues.lock().get(&group) {
            return Some(Arc::clone(queue));
        }
        if !self.groups().contains(&group) {
            return None;
        }
        let mut queues = self.queues.lock();
        let queue = queues.entry(group).or_insert_with(|| {
            let queue = CommandQueue::new(group, self.config);
            tokio::spawn(Arc::clone(self).carry(Arc::clone(&queue)));
            queue
        });
        Some(Arc::clone(queue))
    }

    /// Brings the commands of one group on their way, until the node stops.
    async fn carry(self: Arc<Self>, queue: Arc<CommandQueue>) {
        loop {
            let pause = if self.carry_ready(&queue) { RETRY_PAUSE } else { ASK_EVERY };
            tokio::select! {
                () = queue.woken() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
        }
        queue.close("this node stops");
    }

    /// True when something is left.
    fn carry_ready(&self, queue: &Arc<CommandQueue>) -> bool {
        if let Some(here) = self.registry.group(queue.group()) {
            // The group has got a replica here meanwhile: its bundler knows the way.
            for (_, item) in queue.take(usize::MAX) {
                let (command, passed) = (item.command.clone(), Arc::clone(queue));
                let reply = Box::new(move |result| passed.answer(item, result));
                here.bundler.push(command, reply);
            }
            return false;
        }
        if queue.is_backing_off() {
            // Who was asked does not lead, or cannot be reached.
            self.ask.notify_one();
            return queue.expire("no leader takes it");
        }
        match self.leader(queue.group()) {
            Some(peer) => queue.forward(&self.registry.links().to(peer.node, &peer.peer_address)),
            None => {
                let is_left = queue.expire("no leader");
                if is_left {
                    self.ask.notify_one();
                }
                is_left
            }
        }
    }

    /// Runs until it is dropped.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            let heard = self.ask_holders().await;
            *self.leaders.lock() = heard;
            self.queues.lock().values().for_each(|queue| queue.wake());
            tokio::time::sleep(ASK_PAUSE).await;
            tokio::select! {
                () = self.ask.notified() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
        }
    }

    /// Asks every node that holds a replica of a group whose leader is not known here for sure.
    async fn ask_holders(&self) -> BTreeMap<GroupId, PeerNode> {
        let Some(plan) = self.plan() else {
            return BTreeMap::new();
        };
        let rows = || plan.groups().iter().filter(|row| self.is_elsewhere(row));
        let wanted: BTreeSet<u32> = rows().map(|row| row.group).collect();
        let holders: BTreeMap<NodeId, PeerNode> = rows()
            .flat_map(|row| plan.replicas(row).into_values())
            .filter_map(|node| plan.nodes().get(&node).and_then(peer_of))
            .filter(|peer| peer.node != self.node)
            .map(|peer| (peer.node, peer))
            .collect();
        let asked = holders.into_values().map(|peer| self.ask(peer));
        let mut newest: BTreeMap<GroupId, (u64, PeerNode)> = BTreeMap::new();
        for heard in futures::future::join_all(asked).await.into_iter().flatten() {
            let group = GroupId(heard.group);
            let Some(Ok(leader)) = heard.leader.map(convert::node_from_wire) else {
                continue;
            };
            let is_newer = newest.get(&group).is_none_or(|(term, _)| *term < heard.term);
            if is_newer && wanted.contains(&group.0) {
                newest.insert(group, (heard.term, leader));
            }
        }
        newest.into_iter().map(|(group, (_, leader))| (group, leader)).collect()
    }

    async fn ask(&self, peer: PeerNode) -> Vec<wire::GroupLeader> {
        let link = self.registry.links().to(peer.node, &peer.peer_address);
        let request = link.guard().stamp(wire::LeadersRequest {});
        let mut client = link.control();
        match tokio::time::timeout(ANSWER_TIMEOUT, client.leaders(request)).await {
            Ok(Ok(answer)) => answer.into_inner().groups,
            _ => Vec::new(),
        }
    }
}

/// Nodes that hold a confirmed replica of a group, as meta's rows say.
fn holders(rows: &dyn StateRead, group: GroupId) -> Result<Vec<PeerNode>, StateError> {
    let row = reads::group(rows, group.0)?.unwrap_or_default();
    let confirmed = row.replicas.iter().filter(|replica| replica.confirmed && !replica.removed);
    let ids = confirmed.filter_map(|replica| NodeId::from_slice(&replica.node));
    let nodes: Vec<_> = ids.map(|id| reads::node(rows, id)).collect::<Result<_, _>>()?;
    Ok(nodes.iter().flatten().filter(|row| !row.removed).filter_map(peer_of).collect())
}

/// Who leads the groups that have a replica here.
pub(crate) fn leaders(registry: &Registry) -> wire::LeadersResponse {
    let groups = registry.groups();
    let leader = |group: &Arc<Group>| {
        let (term, _, peer) = group.leader_of_term()?;
        Some(wire::GroupLeader {
            group: group.id.0,
            term,
            leader: Some(convert::node_to_wire(&peer)),
        })
    };
    wire::LeadersResponse { groups: groups.iter().filter_map(leader).collect() }
}
