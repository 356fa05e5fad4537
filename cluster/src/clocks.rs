//! Asks the peers for their time each second, weighs it, and acts on it: a node that is astray gives
//! up what it leads and does not stand; it is itself again as soon as its clock is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_clocks::Reading;
use dtm_machine::seams::Clock;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use dtm_clocks::{ClockStatus, Clocks, GuardedClock, Standing};

use crate::group::Group;
use crate::network::Link;
use crate::registry::Registry;
use crate::type_config::PeerNode;

const INTERVAL: Duration = Duration::from_secs(1);
/// Where somebody waits for a verdict.
const SOON: Duration = Duration::from_millis(50);
/// A reading is true to half of this at the worst: half of the default limit.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>) {
    let clocks = Arc::clone(registry.links().clocks());
    let mut giving = Giving::default();
    loop {
        round(&registry, &clocks).await;
        giving.act(&registry);
        tokio::time::sleep(SOON).await;
        tokio::select! {
            () = clocks.is_asked() => {}
            () = tokio::time::sleep(INTERVAL - SOON) => {}
        }
    }
}

/// Asks every peer once. Each answer is weighed as it comes: a silent peer holds nobody up.
async fn round(registry: &Registry, clocks: &Clocks) {
    let own = registry.config().node.node;
    let mut peers = registry.known_peers();
    peers.retain(|peer| peer.node != own);
    let nodes: BTreeSet<NodeId> = peers.iter().map(|peer| peer.node).collect();
    let clock = &registry.deps().clock;
    let ask = |peer: PeerNode| {
        let link = registry.links().to(peer.node, &peer.peer_address);
        async move { Some((peer.node, ask(&link, &**clock).await?)) }
    };
    let mut answers: FuturesUnordered<_> = peers.into_iter().map(ask).collect();
    while let Some(answer) = answers.next().await {
        if let Some((peer, reading)) = answer {
            clocks.hear(peer, reading);
            clocks.weigh(&nodes);
        }
    }
    clocks.weigh(&nodes);
}

async fn ask(link: &Link, clock: &dyn Clock) -> Option<Reading> {
    let mut client = link.control();
    let asked_us = clock.monotonic_us();
    let request = link.guard().stamp(wire::TimeRequest {});
    let answer = tokio::time::timeout(ASK_TIMEOUT, client.time(request)).await.ok()?.ok()?;
    let answered_us = clock.monotonic_us();
    // A process that was stopped finds its answer in time; what it read is a minute old.
    let is_late = answered_us - asked_us > ASK_TIMEOUT.as_micros() as i64;
    (!is_late).then(|| Reading::of(answer.get_ref().time_us, asked_us, answered_us))
}

/// A group that is led by a clock astray which nobody takes it from, or by nobody, goes on under this
/// node after so long: no group is lost to clocks, and the ceiling bounds the stamps all the same.
const PATIENCE: Duration = Duration::from_secs(6);

/// Leaderships on their way to other nodes.
#[derive(Default)]
struct Giving {
    groups: BTreeSet<GroupId>,
    /// Since when a group waits for another node in vain.
    stuck: BTreeMap<GroupId, Instant>,
    tasks: JoinSet<GroupId>,
}

impl Giving {
    fn act(&mut self, registry: &Registry) {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Ok(group) => self.groups.remove(&group),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
        }
        for group in registry.groups() {
            let is_astray = group.clock_standing() == Standing::Astray;
            let is_stuck = is_astray && (group.is_leader() || group.leader().is_none());
            let since = is_stuck.then(|| *self.stuck.entry(group.id).or_insert_with(Instant::now));
            if since.is_none() {
                self.stuck.remove(&group.id);
            }
            group.insist(since.is_some_and(|since| since.elapsed() >= PATIENCE));
            group.let_stand(group.standing() != Standing::Astray);
            if is_astray && group.is_leader() && self.groups.insert(group.id) {
                self.tasks.spawn(give(group, registry.drained()));
            }
        }
    }
}

async fn give(group: Arc<Group>, drained: BTreeSet<NodeId>) -> GroupId {
    match group.give_up_leadership(&drained).await {
        Ok(()) if group.is_leader() => {
            tracing::debug!(group = group.id.0, "clock astray, and nobody else can lead");
        }
        Ok(()) => tracing::warn!(group = group.id.0, "leadership given up: the clock is astray"),
        Err(error) => {
            tracing::warn!(group = group.id.0, %error, "leadership not given up yet: clock astray");
        }
    }
    group.id
}
