//! How far the standby has each group: for acks. The leader of a group looks at its copies, nodes
//! whose sessions want to know ask the leader.
//!
//! ```text
//!  leader   matches of the copies, fifty times a second ─▶ known ─▶ acks of its own sessions
//!           which bundles each copy lacks ──────────────────▲ └─▶ moved: who asks is answered
//!  another  asks the leaders of the groups that its sessions want, one call a node at a time
//!           ─▶ known ─▶ acks
//! ```
//! Owner of what is known. In a cluster without a standby one flag is read and nothing else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dtm_machine::seams::SiteCopies;
use dtm_placement::{Copies, CopyHolders, CopyQuestion, Plan, Sight};
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::{Mutex, RwLock};
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
    /// The layout has one.
    has_standby: AtomicBool,
    /// Through which index of meta the rows were read.
    read_at: AtomicU64,
    /// Of the groups that it holds copies of.
    groups: RwLock<BTreeMap<GroupId, Known>>,
    /// Of those that are led here.
    led: Mutex<BTreeMap<GroupId, Copies>>,
    began: Instant,
    /// Told when a group that is led here is elsewhere than before.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    holders: CopyHolders,
    /// Of the leader that told last.
    term: Mutex<u64>,
    index: AtomicU64,
    /// Somebody looked since it was asked about.
    is_wanted: AtomicBool,
}

impl Known {
    /// A leader says so; whether it is news. Leaders of earlier terms are not heard.
    fn learn(&self, term: u64, index: u64) -> bool {
        let mut known = self.term.lock();
        if term < *known {
            return false;
        }
        let is_other = std::mem::replace(&mut *known, term) != term;
        self.index.swap(index, Ordering::AcqRel) != index || is_other
    }

    fn position(&self, group: GroupId) -> wire::SitePosition {
        let term = self.term.lock();
        let index = self.index.load(Ordering::Acquire);
        wire::SitePosition { group: group.0, term: *term, index }
    }
}

impl Standby {
    pub(crate) fn new(voters_max: usize) -> Self {
        Self {
            voters_max,
            has_standby: AtomicBool::new(false),
            read_at: AtomicU64::new(u64::MAX),
            groups: RwLock::default(),
            led: Mutex::default(),
            began: Instant::now(),
            moved: watch::Sender::new(()),
        }
    }

    fn has_standby(&self) -> bool {
        self.has_standby.load(Ordering::Acquire)
    }

    fn through(&self, group: GroupId) -> Option<u64> {
        if !self.has_standby() {
            return None;
        }
        let groups = self.groups.read();
        let known = groups.get(&group)?;
        known.is_wanted.store(true, Ordering::Release);
        Some(known.index.load(Ordering::Acquire))
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
                self.take(&plan);
                self.read_at.store(applied, Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "what the standby is to hold is not read"),
        }
    }

    fn take(&self, plan: &Plan) {
        let ingest = plan.groups().iter().filter(|row| !GroupId(row.group).is_meta());
        let held = ingest
            .filter_map(|row| Some((GroupId(row.group), plan.copy_holders(row, self.voters_max)?)));
        let held: BTreeMap<GroupId, CopyHolders> = held.collect();
        let mut groups = self.groups.write();
        groups.retain(|group, _| held.contains_key(group));
        for (group, holders) in held {
            groups.entry(group).or_default().holders = holders;
        }
        drop(groups);
        self.has_standby.store(plan.layout().is_standby(), Ordering::Release);
    }

    /// Looks at the copies of the groups that are led here.
    fn look(&self, registry: &Registry) {
        let (groups, mut led, mut has_moved) = (self.groups.read(), self.led.lock(), false);
        led.retain(|group, _| groups.contains_key(group));
        for (&id, known) in groups.iter() {
            let group = registry.group(id);
            let seen = group.and_then(|group| {
                let copies = led.entry(id).or_default();
                group.look_at(copies, &known.holders)
            });
            match seen {
                Some((term, through)) => has_moved |= known.learn(term, through),
                None => drop(led.remove(&id)),
            }
        }
        if has_moved {
            self.moved.send_replace(());
        }
    }

    fn show(&self) {
        let groups = self.groups.read();
        for group in self.led.lock().keys() {
            let Some(known) = groups.get(group) else { continue };
            let index = known.index.load(Ordering::Acquire);
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

    /// The groups that sessions here wanted to know about since this was asked last.
    fn wanted(&self) -> Vec<GroupId> {
        let groups = self.groups.read();
        let wanted = groups.iter().filter(|(_, of)| of.is_wanted.swap(false, Ordering::AcqRel));
        wanted.map(|(group, _)| *group).collect()
    }

    fn position(&self, group: GroupId) -> Option<wire::SitePosition> {
        Some(self.groups.read().get(&group)?.position(group))
    }

    fn learn(&self, told: &wire::SitePosition) {
        if let Some(known) = self.groups.read().get(&GroupId(told.group)) {
            known.learn(told.term, told.index);
        }
    }
}

impl Group {
    /// On the leader: how far its copies are. The term it leads in, and through which index a
    /// majority of them has everything.
    fn look_at(&self, copies: &mut Copies, holders: &CopyHolders) -> Option<(u64, u64)> {
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
        copies.see(&sight, holders, matched);
        Some((sight.term, copies.through(sight.committed, holders)))
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
        if !standby.has_standby() {
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
        tokio::time::sleep(if standby.has_standby() { ASK_PAUSE } else { IDLE }).await;
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
            Some((node, told)) = answers.next() => {
                asked.remove(&node);
                let told: Vec<wire::SitePosition> = told;
                told.iter().for_each(|position| standby.learn(position));
                continue;
            }
            _ = tick.tick() => {}
        }
        if !standby.has_standby() && answers.is_empty() {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        let now = Instant::now();
        wanted.extend(standby.wanted().into_iter().map(|group| (group, now)));
        wanted.retain(|_, since| since.elapsed() < WANTED_FOR);
        let mut questions: BTreeMap<NodeId, (PeerNode, Vec<wire::SitePosition>)> = BTreeMap::new();
        for &group in wanted.keys() {
            let leader = elsewhere.leader_of(group).filter(|leader| leader.node != own);
            let Some((leader, known)) = leader.zip(standby.position(group)) else { continue };
            if !asked.contains(&leader.node) {
                questions.entry(leader.node).or_insert((leader, Vec::new())).1.push(known);
            }
        }
        for (node, (leader, known)) in questions {
            asked.insert(node);
            answers.push(ask(&registry, leader, known));
        }
    }
}

async fn ask(
    registry: &Registry,
    leader: PeerNode,
    known: Vec<wire::SitePosition>,
) -> (NodeId, Vec<wire::SitePosition>) {
    let link = registry.links().to(leader.node, &leader.peer_address);
    let request = link.guard().stamp(wire::SiteThroughRequest { known });
    let (mut client, what) = (link.control(), || format!("the standby, of {}", leader.node));
    let answer = answered(LEADER_ANSWERS_WITHIN, what, client.site_through(request)).await;
    (leader.node, answer.map(|answer| answer.groups).unwrap_or_default())
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
        let led = asked.filter(|id| is_led(*id)).filter_map(|id| standby.position(id));
        let groups: Vec<wire::SitePosition> = led.collect();
        let is_news = groups.iter().any(|position| !request.known.contains(position));
        // Whoever asks the wrong node waits too, so that it does not ask all the time.
        let waited = tokio::time::timeout_at(deadline, moved.changed());
        if is_news || !matches!(waited.await, Ok(Ok(()))) {
            return wire::SiteThroughResponse { groups };
        }
    }
}

impl SiteCopies for ClusterNode {
    fn has_standby(&self) -> bool {
        self.registry().standby().has_standby()
    }

    fn through(&self, group: GroupId) -> Option<u64> {
        self.registry().standby().through(group)
    }
}
