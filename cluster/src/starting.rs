//! A node before its groups run. Its peer port answers already, so that nodes that start together
//! can ask each other; it asks what they know of it, and votes only after that.
//!
//! ```text
//!  listen ──▶ vet: hello to every other voter of its groups ──▶ start
//!               a later start of this node is known, or it was removed: refused, nothing written
//!               off for over 10 minutes: waits for the live leader of meta or for all of them
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{ClusterConfig, Deps};
use crate::convert;
use crate::error::Error;
use crate::log_store::{READ_BYTES_MAX, ReplicaLog};
use crate::network::Links;
use crate::rebuild;
use crate::registry::Registry;
use crate::state_machine::read_applied;
use crate::type_config::{Membership, Payload, PeerNode};

/// A node that was off for longer waits for the leader of meta or for all other voters.
pub const TRUSTED_AWAY: Duration = Duration::from_secs(600);
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
/// A node that runs asks again this often.
const VIGIL_INTERVAL: Duration = Duration::from_secs(5);

/// A removed node stays this long: the members of its groups change with its vote.
const REMOVED_GRACE: Duration = Duration::from_secs(60);

/// Asks the other voters what they know of this node.
pub(crate) struct Vetting {
    own: PeerNode,
    boot_counter: u64,
    links: Arc<Links>,
    voters: BTreeMap<NodeId, PeerNode>,
}

impl Vetting {
    /// The other voters of the groups that this disk holds, by their rows; the roster learns what
    /// meta's rows say.
    pub(crate) fn read(
        config: &ClusterConfig,
        deps: &Deps,
        links: &Arc<Links>,
    ) -> Result<Self, Error> {
        let mut voters = BTreeMap::new();
        for (group, replica) in deps.logs.replicas() {
            let rows = deps.states.open(group)?;
            // Rows that are lost or damaged are rebuilt later and must not hold up the other groups:
            // then whoever was known is asked.
            let (applied, stored) = read_applied(&*rows).unwrap_or_default();
            if applied.is_none() {
                let noted = rebuild::decode_peers(&deps.states.noted_peers());
                voters.extend(noted.into_iter().map(|peer| (peer.node, peer)));
            }
            let in_log = |source| Error::Log { group, source };
            let log = deps.logs.open(group, replica).map_err(in_log)?;
            // Rows lag behind the log: a membership may be in its tail only.
            let tail = memberships(&*log, applied.map_or(0, |applied| applied.index + 1));
            for membership in tail.iter().chain([stored.membership()]) {
                let named = membership.voter_ids().filter_map(|id| membership.get_node(&id));
                voters.extend(named.map(|peer| (peer.node, peer.clone())));
            }
            if group.is_meta() {
                match reads::nodes(&*rows) {
                    Ok(nodes) => links.guard().roster().learn(&nodes),
                    Err(error) => tracing::error!(%error, "nodes are not read from the rows"),
                }
            }
        }
        let own = config.node.clone();
        voters.remove(&own.node);
        let (boot_counter, links) = (config.boot_counter, Arc::clone(links));
        Ok(Self { own, boot_counter, links, voters })
    }

    /// Returns when this node may vote. Waits without a bound where the disk was off for longer than
    /// [`TRUSTED_AWAY`] (`None`: nobody knows) and too few answer: the caller may drop it.
    pub(crate) async fn finish(mut self, away: Option<Duration>) -> Result<(), Error> {
        let is_trusted = away.is_some_and(|away| away <= TRUSTED_AWAY);
        let mut is_said = false;
        loop {
            let asked = self.voters.values().map(|peer| self.hello(peer));
            let answers = futures::future::join_all(asked).await;
            let mut is_led = false;
            for (node, answer) in answers.into_iter().flatten() {
                self.judge(node, &answer, self.boot_counter)?;
                is_led |= answer.leads_meta;
                self.voters.remove(&node);
            }
            if is_trusted || is_led || self.voters.is_empty() {
                return Ok(());
            }
            if !is_said {
                let missing: Vec<String> = self.voters.keys().map(ToString::to_string).collect();
                tracing::warn!(
                    away_s = away.map_or(0, |away| away.as_secs()),
                    missing = missing.join(", "),
                    "this disk was off for over 10 minutes: it votes when the leader of meta or \
                     all other voters have answered"
                );
                is_said = true;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Runs beside the groups; returns when this start must not go on.
    pub(crate) async fn vigil(registry: Arc<Registry>, config: ClusterConfig) -> Error {
        let mut removed_since = None;
        loop {
            tokio::time::sleep(VIGIL_INTERVAL).await;
            let mut voters = BTreeMap::new();
            for group in registry.groups() {
                voters.extend(group.members().0.into_values().map(|peer| (peer.node, peer)));
            }
            voters.remove(&config.node.node);
            let vetting = Self {
                own: config.node.clone(),
                boot_counter: config.boot_counter,
                links: Arc::clone(registry.links()),
                voters,
            };
            let asked = vetting.voters.values().map(|peer| vetting.hello(peer));
            let answers = futures::future::join_all(asked).await;
            for (node, answer) in answers.into_iter().flatten() {
                // Its own start is what they know by now.
                let judged = vetting.judge(node, &answer, config.boot_counter + 1);
                let Err(error) = judged else { continue };
                // Its groups may need its vote to go on without it.
                let is_within_grace = matches!(error, Error::NodeRemoved { .. })
                    && removed_since.get_or_insert_with(Instant::now).elapsed() < REMOVED_GRACE;
                if !is_within_grace {
                    return error;
                }
            }
        }
    }

    async fn hello(&self, peer: &PeerNode) -> Option<(NodeId, wire::HelloResponse)> {
        let link = self.links.to(peer.node, &peer.peer_address);
        let request = link.guard().stamp(wire::HelloRequest {});
        let mut client = link.control();
        let answer = tokio::time::timeout(HELLO_TIMEOUT, client.hello(request)).await.ok()?.ok()?;
        Some((peer.node, answer.into_inner()))
    }

    /// Starts below `next` may be known.
    fn judge(&self, by: NodeId, answer: &wire::HelloResponse, next: u64) -> Result<(), Error> {
        if answer.removed {
            return Err(Error::NodeRemoved { by });
        }
        if answer.boot_counter >= next {
            let (known, own) = (answer.boot_counter, self.boot_counter);
            tracing::error!(node = %self.own.node, known, own, %by, "an old copy of this node's disk");
            return Err(Error::OldCopy { by, known, own });
        }
        Ok(())
    }
}

/// Memberships in a log from an index on. What cannot be read is left to repair.
fn memberships(log: &dyn ReplicaLog, from: u64) -> Vec<Membership> {
    let marks = log.marks();
    let mut next = marks.purged.map_or(from, |purged| from.max(purged.index + 1));
    let end = marks.last.map_or(0, |last| last.index + 1);
    let mut found = Vec::new();
    while next < end {
        let entries = log.read(next..end, READ_BYTES_MAX).unwrap_or_default();
        let Some(last) = entries.last() else { break };
        next = last.index + 1;
        let payloads = entries.into_iter().map(|entry| convert::payload_from_bytes(entry.payload));
        found.extend(payloads.filter_map(|payload| match payload {
            Ok(Payload::Membership(membership)) => Some(membership),
            _ => None,
        }));
    }
    found
}

/// Keeps the roster at what meta says, as applied here. Runs until it is dropped.
pub(crate) async fn watch_roster(registry: Arc<Registry>) {
    const PAUSE: Duration = Duration::from_millis(100);
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    loop {
        let meta = registry.group(GroupId::META).filter(|meta| meta.applied.failure().is_none());
        let Some(meta) = meta else {
            registry.links().guard().roster().unload();
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        let seen = meta.applied.head().index;
        match reads::nodes(&*meta.store.freeze()) {
            Ok(rows) => registry.links().guard().roster().learn(&rows),
            Err(error) => tracing::warn!(%error, "nodes of meta cannot be read"),
        }
        tokio::time::sleep(PAUSE).await;
        meta.applied.wait_for(seen + 1, LOOK_AGAIN).await;
    }
}

/// Why a node must not go on, for whoever waits to hear it; it is given once.
pub(crate) struct Condemned {
    reason: parking_lot::Mutex<Option<Error>>,
    said: CancellationToken,
}

impl Condemned {
    pub(crate) fn new() -> Self {
        Self { reason: parking_lot::Mutex::new(None), said: CancellationToken::new() }
    }

    pub(crate) fn say(&self, error: Error) {
        self.reason.lock().get_or_insert(error);
        self.said.cancel();
    }

    /// Waits until it is said; the reason is given to the first who asks.
    pub(crate) async fn heard(&self) -> Option<Error> {
        self.said.cancelled().await;
        self.reason.lock().take()
    }
}
