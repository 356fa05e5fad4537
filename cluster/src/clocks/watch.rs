//! Asks the peers for their time each second, weighs it, and acts on it: a node that is astray gives
//! up what it leads and does not stand; it is itself again as soon as its clock is right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::Clock;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;

use super::agreement::Reading;
use super::{Clocks, Standing};
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
            () = clocks.asked.notified() => {}
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
    Some(Reading::of(answer.get_ref().time_us, asked_us, clock.monotonic_us()))
}

/// Leaderships on their way to other nodes.
#[derive(Default)]
struct Giving {
    groups: BTreeSet<GroupId>,
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
            let may_lead = group.standing() != Standing::Astray;
            group.let_stand(may_lead);
            if !may_lead && group.is_leader() && self.groups.insert(group.id) {
                self.tasks.spawn(give(group));
            }
        }
    }
}

async fn give(group: Arc<Group>) -> GroupId {
    match group.give_up_leadership().await {
        Ok(()) => tracing::warn!(group = group.id.0, "leadership given up: the clock is astray"),
        Err(error) => {
            tracing::warn!(group = group.id.0, %error, "leadership not given up yet: clock astray");
        }
    }
    group.id
}
