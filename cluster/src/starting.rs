//! A node before its groups run. Its peer port answers already, so that nodes that start together
//! can ask each other; it asks what they know of it, and votes only after that.
//!
//! ```text
//!  ask_first ──▶ log and rows opened ──▶ listen ──▶ vet: hello to every other voter ──▶ start
//!    hello to the nodes noted beside the rows; nothing is open
//!
//!  a later start is known, a log lacks what was on it, or the node was removed: refused, no vote
//!  off for over 10 minutes: vet waits for the live leader of meta or for all of them, unless every
//!                           replica here is one that only follows
//! ```
//! A replica that follows gives no vote: nothing that it may have forgotten counts. The nodes of a site
//! that stands by hold only such ones, and start when all voters are gone with the other site.
//! Opening mends the end of the log and the rows, and so changes a disk: hence the first question.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_machine::seams::Clock;
use dtm_peers::{OriginGuard, OtherSites, PeerTls, Presence, Way};
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId, ReplicaId};
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clocks::Clocks;
use crate::config::{ClusterConfig, Deps};
use crate::convert;
use crate::error::Error;
use crate::log_store::{READ_BYTES_MAX, ReplicaLog};
use crate::network::Links;
use crate::pace::Pace;
use crate::rebuild;
use crate::registry::Registry;
use crate::state_machine::read_applied;
use crate::states::noted_peers;
use crate::type_config::{Membership, Payload, PeerNode};

/// A node that was off for longer waits for the leader of meta or for all other voters.
pub const TRUSTED_AWAY: Duration = Duration::from_secs(600);
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes that start together do not answer yet at the first question: it holds none of them up.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(500);
/// A node that runs asks again this often.
const VIGIL_INTERVAL: Duration = Duration::from_secs(5);

/// A removed node stays this long after no group names it any more.
const REMOVED_GRACE: Duration = Duration::from_secs(60);

/// Asks the nodes that were noted beside the rows at `rows` what they know of this one, once, with
/// nothing of the disk opened: an old copy that one of them knows for such stays as it is. Who does
/// not answer within a second, or was not noted, is left to [`Starting::vet`](crate::Starting::vet).
///
/// # Errors
/// [`Error::OldCopy`], [`Error::NodeRemoved`]: this node must not start.
pub fn ask_first<'a>(
    config: &'a ClusterConfig,
    tls: &Arc<dyn PeerTls>,
    clock: &Arc<dyn Clock>,
    rows: &Path,
) -> BoxFuture<'a, Result<(), Error>> {
    let noted = rebuild::decode_peers(&noted_peers(rows));
    let (tls, clock) = (Arc::clone(tls), Arc::clone(clock));
    Box::pin(async move {
        let (cluster, own) = (config.cluster, config.node.clone());
        let guard = OriginGuard::new(cluster, own.node, config.incarnation, config.boot_counter);
        let (presence, _) = Presence::new();
        let clocks = Clocks::new(own.node, clock, config.clock_offset_max_ms);
        // Lines are not open yet: what does not answer over TCP is asked again once they are.
        let sites = OtherSites::new(None, own.node, &own.site);
        let links = Links::new(Way { tls, presence, sites }, guard, clocks, Pace::new(0));
        let others = noted.into_iter().filter(|peer| peer.node != own.node);
        let voters = others.map(|peer| (peer.node, peer)).collect();
        let (boot_counter, hello) = (config.boot_counter, wire::HelloRequest::default());
        let vetting = Vetting { own, boot_counter, links, voters, may_vote: true, hello };
        vetting.judge_start(&vetting.ask_all(FIRST_TIMEOUT).await, &mut false)
    })
}

/// Asks the other voters what they know of this node.
pub(crate) struct Vetting {
    own: PeerNode,
    boot_counter: u64,
    links: Arc<Links>,
    voters: BTreeMap<NodeId, PeerNode>,
    /// Of a replica on this disk a vote may count.
    may_vote: bool,
    hello: wire::HelloRequest,
}

impl Vetting {
    /// The other voters of the groups that this disk holds, by their rows; the roster learns what
    /// meta's rows say.
    pub(crate) fn read(
        config: &ClusterConfig,
        deps: &Deps,
        links: &Arc<Links>,
    ) -> Result<Self, Error> {
        let (mut voters, mut positions, mut may_vote) = (BTreeMap::new(), Vec::new(), false);
        // Of several replicas of a group the newest is started.
        let newest: BTreeMap<GroupId, ReplicaId> = deps.logs.replicas().into_iter().collect();
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
            positions.extend(position(group, replica, &*log));
            // Rows lag behind the log: a membership may be in its tail only.
            let tail = memberships(&*log, applied.map_or(0, |applied| applied.index + 1));
            let only_follows = applied.is_some()
                && tail.is_whole
                && follows(replica, tail.found.last().unwrap_or(stored.membership()));
            may_vote |= newest.get(&group) == Some(&replica) && !only_follows;
            for membership in tail.found.iter().chain([stored.membership()]) {
                let named = membership.voter_ids().filter_map(|id| membership.get_node(&id));
                voters.extend(named.map(|peer| (peer.node, peer.clone())));
            }
            if group.is_meta() {
                match reads::nodes(&*rows) {
                    Ok(nodes) => links.learn(&nodes),
                    Err(error) => tracing::error!(%error, "nodes are not read from the rows"),
                }
            }
        }
        let own = config.node.clone();
        voters.remove(&own.node);
        let (boot_counter, links) = (config.boot_counter, Arc::clone(links));
        let hello = wire::HelloRequest { replicas: positions, running: false };
        Ok(Self { own, boot_counter, links, voters, may_vote, hello })
    }

    /// Returns when this node may vote. Waits without a bound where the disk was off for longer than
    /// [`TRUSTED_AWAY`] (`None`: nobody knows), a vote from here may count, and too few answer: the
    /// caller may drop it.
    pub(crate) async fn finish(mut self, away: Option<Duration>) -> Result<(), Error> {
        let is_trusted = !self.may_vote || away.is_some_and(|away| away <= TRUSTED_AWAY);
        let (mut is_said, mut is_needed) = (false, false);
        loop {
            let answers = self.ask_all(HELLO_TIMEOUT).await;
            self.judge_start(&answers, &mut is_needed)?;
            let is_led = answers.values().any(|answer| answer.leads_meta);
            self.voters.retain(|node, _| !answers.contains_key(node));
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
        let mut grace = Grace::default();
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
                may_vote: true,
                hello: wire::HelloRequest { replicas: Vec::new(), running: true },
            };
            let answers = vetting.ask_all(HELLO_TIMEOUT).await;
            let is_member = answers.values().any(|answer| answer.still_member);
            for (node, answer) in answers {
                // Its own start is what they know by now.
                let judged = vetting.judge(node, &answer, config.boot_counter + 1);
                let Err(error) = judged else { continue };
                let is_removed = matches!(error, Error::NodeRemoved { .. });
                if !is_removed || grace.is_over(is_member, Instant::now()) {
                    return error;
                }
            }
        }
    }

    /// The answers of those that answer in time.
    async fn ask_all(&self, within: Duration) -> BTreeMap<NodeId, wire::HelloResponse> {
        let asked = self.voters.values().map(|peer| self.hello(peer, within));
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn hello(
        &self,
        peer: &PeerNode,
        within: Duration,
    ) -> Option<(NodeId, wire::HelloResponse)> {
        let link = self.links.to(peer.node, &peer.peer_address);
        let request = link.guard().stamp(self.hello.clone());
        let mut client = link.control();
        let answer = tokio::time::timeout(within, client.hello(request)).await.ok()?.ok()?;
        Some((peer.node, answer.into_inner()))
    }

    /// A removed node starts while a group names it: the group may need its log and its vote. It ends
    /// by the vigil.
    fn judge_start(
        &self,
        answers: &BTreeMap<NodeId, wire::HelloResponse>,
        is_needed: &mut bool,
    ) -> Result<(), Error> {
        *is_needed |= answers.values().any(|answer| answer.still_member);
        for (node, answer) in answers {
            match self.judge(*node, answer, self.boot_counter) {
                Err(Error::NodeRemoved { .. }) if *is_needed => {}
                judged => judged?,
            }
        }
        Ok(())
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
        if let Some(wire::WentBack { target: Some(target), through }) = answer.went_back {
            let group = GroupId(target.group);
            tracing::error!(node = %self.own.node, %group, through, %by, "a log of this node went back");
            return Err(Error::WentBack { by, group, through });
        }
        Ok(())
    }
}

/// How long a removed node goes on: as long as a group names it, whose members change with its
/// vote, and then [`REMOVED_GRACE`].
#[derive(Debug, Default)]
struct Grace {
    unnamed_since: Option<Instant>,
}

impl Grace {
    fn is_over(&mut self, is_member: bool, now: Instant) -> bool {
        if is_member {
            self.unnamed_since = None;
            return false;
        }
        now.duration_since(*self.unnamed_since.get_or_insert(now)) >= REMOVED_GRACE
    }
}

/// Where a log stands, for whoever knows what its replica held. A damaged log may have lost its end
/// and says nothing: it is repaired before it votes.
fn position(
    group: GroupId,
    replica: ReplicaId,
    log: &dyn ReplicaLog,
) -> Option<wire::ReplicaPosition> {
    let marks = log.marks();
    if marks.recovering.is_some() {
        return None;
    }
    // Entries that were fetched may be of a later term than the vote.
    let voted = marks.vote.and_then(|vote| convert::vote_from_bytes(&vote).ok());
    let voted = voted.map_or(0, |vote| vote.leader_id.term);
    let last = marks.last.unwrap_or_default();
    Some(wire::ReplicaPosition {
        target: Some(wire::Target { group: group.0, replica: replica.0 }),
        term: voted.max(last.term),
        last: last.index,
    })
}

/// Every node that the groups on this disk name, by their logs and by their rows, which lag behind and
/// may not be there at all. Blocking. What cannot be read names nobody.
pub(crate) fn members_on_disk(deps: &Deps) -> Vec<PeerNode> {
    let mut named = Vec::new();
    for (group, replica) in deps.logs.replicas() {
        let rows = deps.states.open(group).ok();
        let (applied, stored) = rows.and_then(|rows| read_applied(&*rows).ok()).unwrap_or_default();
        let nodes_of = |membership: &Membership| -> Vec<PeerNode> {
            membership.nodes().map(|(_, peer)| peer.clone()).collect()
        };
        named.extend(nodes_of(stored.membership()));
        if let Ok(log) = deps.logs.open(group, replica) {
            let tail = memberships(&*log, applied.map_or(0, |applied| applied.index + 1));
            named.extend(tail.found.iter().flat_map(nodes_of));
        }
    }
    named
}

/// Whether a replica is a member that gives no vote.
fn follows(replica: ReplicaId, membership: &Membership) -> bool {
    let is_voter = membership.voter_ids().any(|voter| voter == replica.0);
    membership.get_node(&replica.0).is_some() && !is_voter
}

/// Memberships of a log.
struct Tail {
    found: Vec<Membership>,
    /// Everything was read.
    is_whole: bool,
}

/// Memberships in a log from an index on. What cannot be read is left to repair.
fn memberships(log: &dyn ReplicaLog, from: u64) -> Tail {
    let marks = log.marks();
    let mut next = marks.purged.map_or(from, |purged| from.max(purged.index + 1));
    let end = marks.last.map_or(0, |last| last.index + 1);
    let mut tail = Tail { found: Vec::new(), is_whole: marks.recovering.is_none() };
    while next < end {
        let entries = log.read(next..end, READ_BYTES_MAX).unwrap_or_default();
        let Some(last) = entries.last() else {
            tail.is_whole = false;
            break;
        };
        next = last.index + 1;
        for payload in entries.into_iter().map(|entry| convert::payload_from_bytes(entry.payload)) {
            match payload {
                Ok(Payload::Membership(membership)) => tail.found.push(membership),
                Ok(_) => {}
                Err(_) => tail.is_whole = false,
            }
        }
    }
    tail
}

/// Keeps the roster at what meta says, as applied here. Runs until it is dropped.
pub(crate) async fn watch_roster(registry: Arc<Registry>) {
    const PAUSE: Duration = Duration::from_millis(100);
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    loop {
        let roster = registry.links().guard().roster();
        let known = registry.known_peers().into_iter();
        roster.note_members(known.map(|peer| peer.node).collect());
        let meta = registry.group(GroupId::META).filter(|meta| meta.applied.failure().is_none());
        let Some(meta) = meta else {
            roster.unload();
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        let seen = meta.applied.head().index;
        match reads::nodes(&*meta.store.freeze()) {
            Ok(rows) => registry.links().learn(&rows),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::log_store::{LogEntry, MemoryLog};

    // The last membership counts, and one that cannot be read may be any.
    #[test]
    fn a_replica_follows_where_its_last_membership_says_so() {
        let membership = |voters: &[u64]| {
            let nodes: BTreeMap<u64, PeerNode> =
                [1, 2, 3].map(|id| (id, PeerNode::default())).into();
            let voters: BTreeSet<u64> = voters.iter().copied().collect();
            Membership::new(vec![voters], nodes).expect("nodes are known")
        };
        let (standing_by, voting) = (membership(&[1]), membership(&[1, 2]));
        assert!(follows(ReplicaId(2), &standing_by) && !follows(ReplicaId(2), &voting));
        assert!(!follows(ReplicaId(4), &standing_by), "no member at all");

        let log = MemoryLog::new();
        let of = |index, payload: &Payload| LogEntry {
            index,
            term: 1,
            leader: 1,
            payload: convert::payload_to_bytes(payload),
        };
        let entries = vec![
            of(1, &Payload::Membership(voting)),
            of(2, &Payload::Membership(standing_by)),
            of(3, &Payload::Blank),
        ];
        log.append(entries, Box::new(|_| {})).expect("memory");
        let tail = memberships(&log, 1);
        assert!(tail.is_whole && follows(ReplicaId(2), tail.found.last().expect("two")));
        let first = memberships(&log, 4);
        assert!(first.is_whole && first.found.is_empty());

        let garbage =
            LogEntry { payload: Bytes::from_static(&[0xff; 9]), ..of(4, &Payload::Blank) };
        log.append(vec![garbage], Box::new(|_| {})).expect("memory");
        assert!(!memberships(&log, 1).is_whole);
    }

    // holds: LIVE-1
    #[test]
    fn a_removed_node_goes_on_while_a_group_names_it_and_then_a_little() {
        let (mut grace, start) = (Grace::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!grace.is_over(true, after(0)));
        assert!(!grace.is_over(true, after(500)));
        assert!(!grace.is_over(false, after(505)));
        assert!(!grace.is_over(true, after(510)), "named again");
        assert!(!grace.is_over(false, after(515)));
        assert!(!grace.is_over(false, after(574)));
        assert!(grace.is_over(false, after(575)));
    }
}
