//! How far the standby has each group: for acks. The leader of a group looks at its copies, nodes
//! whose sessions want to know ask the leader.
//!
//! ```text
//!  leader   matches of the copies, fifty times a second ─▶ known ─▶ acks of its own sessions
//!           which bundles each copy lacks ──────────────────▲ └─▶ moved: who asks is answered
//!  another  asks the leaders of the groups that its sessions want, one call a node at a time
//!           ─▶ known ─▶ acks
//! ```
//! What is known is held by [`SiteBoard`]. Without a standby one flag is read and nothing else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dtm_machine::seams::SiteCopies;
use dtm_placement::{Copies, CopyHolders, CopyQuestion, Plan, Sight, SiteBoard, SitePosition};
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::elsewhere::Elsewhere;
use crate::group::Group;
use crate::lifecycle::ClusterNode;
use crate::network::answered;
use crate::registry::Registry;
use crate::type_config::PeerNode;

/// Between two looks at the copies of the groups that are led here.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two looks for a standby where there is none.
const IDLE: Duration = Duration::from_millis(500);
/// Between two rounds of questions which bundles are lacking.
const ASK_PAUSE: Duration = Duration::from_millis(100);
const COPY_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Between two questions to one leader, at least.
const LISTEN_PAUSE: Duration = Duration::from_millis(20);
/// A leader that has nothing new says so after this.
const ANSWER_AFTER: Duration = Duration::from_millis(250);
const LEADER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// A group is asked about for so long after a session here wanted to know.
const WANTED_FOR: Duration = Duration::from_secs(3);
/// Looks between two writes of the gauges.
const LOOKS_A_GAUGE: u32 = 50;

/// What is known of the standby on this node.
pub(crate) struct Standby {
    voters_max: usize,
    board: SiteBoard,
    /// Through which index of meta the rows were read.
    read_at: AtomicU64,
    /// Copies of the groups that are led here.
    led: Mutex<BTreeMap<GroupId, Copies>>,
    began: Instant,
    /// Told when a group that is led here is elsewhere than before.
    moved: watch::Sender<()>,
}

impl Standby {
    pub(crate) fn new(voters_max: usize) -> Self {
        Self {
            voters_max,
            board: SiteBoard::default(),
            read_at: AtomicU64::new(u64::MAX),
            led: Mutex::default(),
            began: Instant::now(),
            moved: watch::Sender::new(()),
        }
    }

    /// Takes over what meta, as applied here, says of layout and replicas. Where meta does not run
    /// here what it said before stays.
    pub(crate) fn read(&self, registry: &Registry) {
        let Some(meta) = registry.group(GroupId::META) else { return };
        let applied = meta.applied.head().index;
        if self.read_at.load(Ordering::Acquire) == applied {
            return;
        }
        match Plan::read(&*meta.store.freeze()) {
            Ok(plan) => {
                self.board.take(&plan, self.voters_max, applied);
                self.read_at.store(applied, Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "what the standby is to hold is not read"),
        }
    }

    /// The site that stands by, as meta said last.
    pub(crate) fn site(&self) -> Option<String> {
        self.board.standby_site()
    }

    /// Looks at the copies of the groups that are led here.
    fn look(&self, registry: &Registry) {
        let meta = self.board.position(GroupId::META).map_or(0, |position| position.index);
        if self.board.settle(meta) {
            // Who leads meta is asked until the standby has what changed.
            self.board.through(GroupId::META);
        }
        let (mut led, mut has_moved) = (self.led.lock(), false);
        let held = self.board.holders();
        led.retain(|id, _| held.iter().any(|(group, _)| group == id));
        for (id, holders) in held {
            let group = registry.group(id);
            let seen = group.and_then(|group| group.look_at(led.entry(id).or_default(), &holders));
            match seen {
                Some(position) => has_moved |= self.board.learn(position),
                None => drop(led.remove(&id)),
            }
        }
        if has_moved {
            self.moved.send_replace(());
        }
    }

    fn show(&self) {
        for &group in self.led.lock().keys() {
            let index = self.board.position(group).map_or(0, |position| position.index);
            metrics::gauge!("dtm_sites_through_index", "group" => group.to_string())
                .set(index as f64);
        }
    }

    /// What copies of groups that are led here are to be asked.
    fn to_ask(&self) -> Vec<(GroupId, CopyQuestion)> {
        let now = self.began.elapsed();
        let led = self.led.lock();
        let of = |(group, copies): (&GroupId, &Copies)| {
            let group = *group;
            copies.to_ask(now).into_iter().map(move |question| (group, question))
        };
        led.iter().flat_map(of).collect()
    }

    fn told(&self, group: GroupId, question: CopyQuestion, lacks: Option<u64>, asked: Duration) {
        if let Some(copies) = self.led.lock().get_mut(&group) {
            copies.told(question, lacks, asked);
        }
    }
}

impl Group {
    /// On the leader: through which index a majority of its copies has everything.
    fn look_at(&self, copies: &mut Copies, holders: &[Arc<CopyHolders>]) -> Option<SitePosition> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let replication = metrics.replication.as_ref()?;
        let index = |last: &Option<crate::type_config::LogId>| last.map_or(0, |last| last.index);
        let sight = Sight {
            term: metrics.current_term,
            committed: index(&metrics.local_committed),
            purged: index(&metrics.purged),
        };
        let matched = |replica| Some(replication.get(&replica)?.as_ref()?.index);
        copies.see(&sight, &CopyHolders::of_all(holders), matched);
        let index = copies.through_all(sight.committed, holders);
        Some(SitePosition { group: self.id, term: sight.term, index })
    }

    /// The first bundle that a replica says it lacks, of what it applied.
    async fn first_lacking(&self, replica: u64) -> Option<Option<u64>> {
        let peer = self.members().0.remove(&replica)?;
        let link = self.links.to(peer.node, &peer.peer_address);
        let target = Some(wire::Target { group: self.id.0, replica });
        let request = link.guard().stamp(wire::HeldRequest { target, through: 0 });
        let (mut client, what) = (link.control(), || format!("what replica {replica} lacks"));
        let held = answered(COPY_ANSWERS_WITHIN, what, client.held(request)).await.ok()?;
        Some(held.lacking.iter().map(|range| range.from).min())
    }
}

/// Looks at the copies as long as it is not dropped.
pub(crate) async fn watch(registry: Arc<Registry>) {
    let (standby, mut looks) = (registry.standby(), 0_u32);
    loop {
        standby.read(&registry);
        if !standby.board.has_standby() {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        standby.look(&registry);
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_A_GAUGE) {
            standby.show();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Asks copies which bundles they lack, as long as it is not dropped.
pub(crate) async fn ask_copies(registry: Arc<Registry>) {
    let standby = registry.standby();
    loop {
        tokio::time::sleep(if standby.board.has_standby() { ASK_PAUSE } else { IDLE }).await;
        let asked = standby.began.elapsed();
        let answers = standby.to_ask().into_iter().map(async |(id, question)| {
            let Some(group) = registry.group(id) else { return };
            // Who does not answer is asked again.
            if let Some(lacks) = group.first_lacking(question.replica).await {
                standby.told(id, question, lacks, asked);
            }
        });
        futures::future::join_all(answers).await;
    }
}

/// Asks the leaders of groups that are led elsewhere, as long as it is not dropped.
pub(crate) async fn listen(registry: Arc<Registry>, elsewhere: Arc<Elsewhere>) {
    let (standby, own) = (registry.standby(), registry.config().node.node);
    let mut wanted: BTreeMap<GroupId, Instant> = BTreeMap::new();
    let (mut asked, mut answers) = (BTreeSet::<NodeId>::new(), FuturesUnordered::new());
    let mut tick = tokio::time::interval(LISTEN_PAUSE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(node) = answers.next() => {
                asked.remove(&node);
                continue;
            }
            _ = tick.tick() => {}
        }
        if !standby.board.has_standby() && answers.is_empty() {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        let now = Instant::now();
        wanted.extend(standby.board.wanted().into_iter().map(|group| (group, now)));
        wanted.retain(|_, since| since.elapsed() < WANTED_FOR);
        let mut questions: BTreeMap<NodeId, (PeerNode, Vec<wire::SitePosition>)> = BTreeMap::new();
        for &group in wanted.keys() {
            let leader = elsewhere.leader_of(group).filter(|leader| leader.node != own);
            let Some((leader, known)) = leader.zip(standby.board.position(group)) else { continue };
            if !asked.contains(&leader.node) {
                questions.entry(leader.node).or_insert((leader, Vec::new())).1.push(to_wire(known));
            }
        }
        for (node, (leader, known)) in questions {
            asked.insert(node);
            answers.push(ask(&registry, leader, known));
        }
    }
}

async fn ask(registry: &Registry, leader: PeerNode, known: Vec<wire::SitePosition>) -> NodeId {
    let link = registry.links().to(leader.node, &leader.peer_address);
    let request = link.guard().stamp(wire::SiteThroughRequest { known });
    let (mut client, what) = (link.control(), || format!("the standby, of {}", leader.node));
    let answer = answered(LEADER_ANSWERS_WITHIN, what, client.site_through(request)).await;
    for told in answer.map(|answer| answer.groups).unwrap_or_default() {
        registry.standby().board.learn(from_wire(told));
    }
    leader.node
}

/// What this node, where it leads them, knows of the groups that are asked about.
pub(crate) async fn answer(
    registry: &Registry,
    request: &wire::SiteThroughRequest,
) -> wire::SiteThroughResponse {
    let (standby, deadline) = (registry.standby(), Instant::now() + ANSWER_AFTER);
    let mut moved = standby.moved.subscribe();
    let is_led = |id: GroupId| registry.group(id).is_some_and(|group| group.is_leader());
    loop {
        let asked = request.known.iter().map(|known| GroupId(known.group));
        let led = asked.filter(|id| is_led(*id)).filter_map(|id| standby.board.position(id));
        let groups: Vec<wire::SitePosition> = led.map(to_wire).collect();
        let is_news = groups.iter().any(|position| !request.known.contains(position));
        // Whoever asks the wrong node waits too, so that it does not ask all the time.
        let waited = tokio::time::timeout_at(deadline, moved.changed());
        if is_news || !matches!(waited.await, Ok(Ok(()))) {
            return wire::SiteThroughResponse { groups };
        }
    }
}

fn to_wire(known: SitePosition) -> wire::SitePosition {
    wire::SitePosition { group: known.group.0, term: known.term, index: known.index }
}

fn from_wire(told: wire::SitePosition) -> SitePosition {
    SitePosition { group: GroupId(told.group), term: told.term, index: told.index }
}

impl SiteCopies for ClusterNode {
    fn has_standby(&self) -> bool {
        self.registry().standby().board.has_standby()
    }

    fn through(&self, group: GroupId) -> Option<u64> {
        self.registry().standby().board.through(group)
    }
}
