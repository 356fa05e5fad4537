//! Rows of replicas are held against each other all the time (P-20.3): what the ledger does not show,
//! a bit that was flipped before a checksum was made or an edit by hand, is found, told with the row's
//! name, and mended from the original. What is compared and who is right: `dtm_compare`.
//!
//! ```text
//!  leader                                     each replica, the leader's own among them
//!  Freeze(index), further ahead when passed ▶ apply stops behind it, a view is frozen
//!  digest of a range of its own rows ───────▶ of the same range, at a bounded rate
//!  list, where they differ ─────────────────▶ keys and hashes
//!  majority of the voters ──▶ Rebuild ──────▶ taken down, rows from a sound replica's snapshot
//! ```
//! A node compares one of the groups that it leads at a time. Of several voters whose rows are off one
//! is mended at a time; a leader hands over first. Nothing is kept but in memory: a new leader begins
//! anew.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_compare::{Found, Kept, RowsCompared, Way};
use dtm_machine::seams::StateRead;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tonic::Status;
use wire::compare_rows_request::Ask;
use wire::compare_rows_response::Answer;

use crate::group::Group;
use crate::pace::Pace;
use crate::registry::Registry;
use crate::state_machine::read_applied;
use crate::type_config::PeerNode;

/// Between two looks at what is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A new leader begins after this, or after the interval where that is shorter.
const FIRST_AFTER: Duration = Duration::from_secs(30);
/// Where something differed, or nothing could be said, the next comparison is no later than this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a replica has to get to the index.
const FREEZE_WITHIN: Duration = Duration::from_secs(5);
/// For what does not wait for a disk, and for that.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Rows named in a cause.
const NAMED_IN_CAUSE: usize = 3;

/// Lets frozen rows go and shows how old comparisons are, as long as it is not dropped. On every node:
/// others ask.
pub(crate) async fn sweep(registry: Arc<Registry>) {
    let is_on = registry.config().compare_bytes_per_second > 0;
    let mut shown = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let groups = registry.groups();
        for group in &groups {
            let comparison = &group.applied.comparison;
            comparison.sweep();
            let age = comparison.age(group.is_leader());
            if is_on {
                show(group.id, age, &comparison.told().unwrap_or_default());
            }
        }
        // What is led elsewhere now is told there.
        let here: BTreeSet<GroupId> = groups.iter().map(|group| group.id).collect();
        let gone = shown.difference(&here);
        gone.for_each(|group| show(*group, Duration::ZERO, &RowsCompared::default()));
        shown = here;
    }
}

fn show(group: GroupId, age: Duration, told: &RowsCompared) {
    let id = group.to_string();
    metrics::gauge!("dtm_compare_age_seconds", "group" => id.clone()).set(age.as_secs_f64());
    metrics::gauge!("dtm_compare_differing_rows", "group" => id.clone()).set(told.differing as f64);
    metrics::gauge!("dtm_compare_absent_replicas", "group" => id).set(told.absent as f64);
}

/// Compares the groups that are led here in turn, each about `every`, as long as it is not dropped.
pub(crate) async fn run(registry: Arc<Registry>, every: Duration, bytes_per_second: NonZeroU64) {
    let pace = Pace::new(bytes_per_second.get());
    let mut due: BTreeMap<GroupId, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY.min(every)).await;
        let led = registry.groups().into_iter().filter(|group| group.is_leader());
        let led: BTreeMap<GroupId, Arc<Group>> = led.map(|group| (group.id, group)).collect();
        let now = Instant::now();
        due.retain(|id, _| led.contains_key(id));
        led.keys().for_each(|id| {
            due.entry(*id).or_insert(now + FIRST_AFTER.min(every));
        });
        let next = due.iter().min_by_key(|(_, at)| **at).filter(|(_, at)| **at <= now);
        let Some(group) = next.and_then(|(id, _)| led.get(id)) else { continue };
        let is_clean = compare(&registry, group, &pace).await;
        let pause = if is_clean { every } else { every.min(AGAIN_AFTER) };
        due.insert(group.id, now + pause);
    }
}

/// One comparison of a group that is led here, and what follows from it; whether all agree.
async fn compare(registry: &Arc<Registry>, group: &Arc<Group>, pace: &Pace) -> bool {
    let began = Instant::now();
    let (members, configs) = group.members();
    // While voters change it is not clear whose majority counts.
    let [voters] = &configs[..] else { return false };
    let asking = Asking { group, members: &members, pace };
    let found =
        match dtm_compare::compare(&asking, &members.keys().copied().collect(), voters).await {
            Ok(found) => found,
            Err(error) => {
                tracing::info!(group = group.id.0, %error, "rows are not compared now");
                return false;
            }
        };
    metrics::counter!("dtm_compare_bytes_total").increment(found.report.bytes);
    group.applied.comparison.tell(found.told(members.len()), began);
    asking.log(&found);
    asking.repair(registry, voters, &found).await;
    found.report.differing == 0
}

/// The way from the leader of a group to its replicas.
struct Asking<'a> {
    group: &'a Arc<Group>,
    members: &'a BTreeMap<u64, PeerNode>,
    pace: &'a Pace,
}

impl Asking<'_> {
    async fn ask_peer(&self, replica: u64, index: u64, ask: Ask) -> Option<Answer> {
        let (peer, group) = (self.members.get(&replica)?, self.group.id.0);
        let link = self.group.links.to(peer.node, &peer.peer_address);
        let target = Some(wire::Target { group, replica });
        // Orders and indexes are urgent, rows are not.
        let is_urgent = matches!(ask, Ask::Freeze(_) | Ask::Rebuild(_));
        let (mut client, within) = match is_urgent {
            true => (link.control(), ANSWER_WITHIN),
            false => (link.copies(group), READ_WITHIN),
        };
        let request = wire::CompareRowsRequest { target, index, ask: Some(ask) };
        let asked = client.compare_rows(link.guard().stamp(request));
        match tokio::time::timeout(within, asked).await {
            Ok(Ok(answer)) => answer.into_inner().answer,
            Ok(Err(status)) => {
                let cause = status.message();
                tracing::info!(group, replica, cause, "replica does not compare its rows");
                None
            }
            Err(_) => None,
        }
    }

    fn seat(&self, replica: u64) -> String {
        let node = self.members.get(&replica).map(|peer| peer.node).unwrap_or_default();
        format!("replica {replica} on node {node}")
    }

    fn nodes(&self, replicas: &BTreeSet<u64>) -> BTreeSet<NodeId> {
        replicas.iter().filter_map(|id| self.members.get(id)).map(|peer| peer.node).collect()
    }

    fn log(&self, found: &Found) {
        let (group, index) = (self.group.id.0, found.index);
        for (difference, name) in found.report.named.iter().zip(&found.named) {
            let table = dtm_compare::table_name(&difference.key);
            metrics::counter!("dtm_compare_rows_differ_total", "group" => group.to_string(),
                "table" => table)
            .increment(1);
            let odd: Vec<String> = difference.odd.iter().map(|id| self.seat(*id)).collect();
            tracing::error!(group, index, row = name, ?odd, "rows of replicas differ");
        }
    }

    /// Has the rows rebuilt that are off: of one replica, a voter first.
    async fn repair(&self, registry: &Arc<Registry>, voters: &BTreeSet<u64>, found: &Found) {
        let (group, report) = (self.group.id.0, &found.report);
        let sources = self.nodes(&report.sound());
        if report.odd.is_empty() {
            return;
        }
        if sources.is_empty() {
            tracing::error!(group, "no replica is sound: none is mended from another");
            return;
        }
        let first: Vec<&str> = found.named.iter().take(NAMED_IN_CAUSE).map(|s| &**s).collect();
        let cause = format!(
            "{} rows are not those of a majority of the voters at index {}: {}",
            report.differing,
            found.index,
            first.join("; ")
        );
        // It took a while: what was found counts for the members that it was found among only.
        let (_, now) = self.group.members();
        if !self.group.is_leader() || now[..] != [voters.clone()] {
            tracing::info!(
                group,
                "voters or leader changed meanwhile: compared again before a repair"
            );
            return;
        }
        let (odd_voters, learners): (BTreeSet<u64>, BTreeSet<u64>) =
            report.odd.keys().partition(|replica| voters.contains(replica));
        // One at a time: the next comparison finds the others, among the members of then.
        let next = odd_voters.first().or(learners.first()).copied();
        let Some(replica) = next else { return };
        tracing::error!(group, replica = self.seat(replica), cause, "rows are to be rebuilt");
        metrics::counter!("dtm_compare_repairs_total", "group" => group.to_string()).increment(1);
        if replica == self.group.replica.0 {
            let avoided = &registry.drained() | &self.nodes(&odd_voters);
            let given_up = self.group.give_up_leadership(&avoided).await;
            if voters.len() > 1 && (given_up.is_err() || self.group.is_leader()) {
                tracing::warn!(group, ?given_up, "a leader whose rows are off could not hand over");
                return;
            }
            registry.rebuild_rows(self.group, sources, cause).await;
            return;
        }
        let to_wire = |node: &NodeId| Bytes::copy_from_slice(&node.0);
        let sources = sources.iter().map(to_wire).collect();
        let order = wire::RebuildRows { sources, cause };
        if self.ask_peer(replica, found.index, Ask::Rebuild(order)).await.is_none() {
            tracing::warn!(group, replica, "the order to rebuild its rows was not taken");
        }
    }
}

impl Way for Asking<'_> {
    fn own(&self) -> u64 {
        self.group.replica.0
    }

    fn applied(&self) -> u64 {
        self.group.applied.head().index
    }

    fn freeze(&self, index: u64) -> BoxFuture<'_, Kept> {
        freeze(self.group, index).boxed()
    }

    fn rows(&self, index: u64) -> Option<Arc<dyn StateRead>> {
        self.group.applied.comparison.at(index)
    }

    fn ask(&self, replica: u64, index: u64, ask: Ask) -> BoxFuture<'_, Option<Answer>> {
        self.ask_peer(replica, index, ask).boxed()
    }

    fn pace(&self, bytes: u64) -> BoxFuture<'_, ()> {
        self.pace.take(usize::try_from(bytes).unwrap_or(usize::MAX)).boxed()
    }
}

/// Freezes the rows of a replica at an applied index, once it is there.
async fn freeze(group: &Group, index: u64) -> Kept {
    let comparison = &group.applied.comparison;
    comparison.want(index);
    // Anew where that is still possible: of a group that is idle rows may be kept from a comparison before.
    let rows = group.store.freeze();
    let applied = read_applied(&*rows).ok().and_then(|(applied, _)| applied);
    match applied.map_or(0, |applied| applied.index).cmp(&index) {
        Ordering::Equal => comparison.keep(index, rows),
        Ordering::Less => {
            drop(rows);
            group.applied.wait_for(index, FREEZE_WITHIN).await;
        }
        Ordering::Greater => {}
    }
    // Apply may have come by in the meantime, whatever was seen above.
    match comparison.at(index) {
        Some(_) => Kept::Kept,
        None if group.applied.head().index < index => Kept::Behind,
        None => Kept::Passed,
    }
}

/// Answers a leader that is a peer.
pub(crate) async fn answer(
    registry: &Arc<Registry>,
    group: Arc<Group>,
    caller: NodeId,
    request: wire::CompareRowsRequest,
) -> Result<wire::CompareRowsResponse, Status> {
    let index = request.index;
    let gone = || Status::failed_precondition(format!("no rows of index {index} are kept"));
    let frozen = || group.applied.comparison.at(index).ok_or_else(gone);
    let answer = match request.ask.ok_or_else(|| Status::invalid_argument("no question"))? {
        Ask::Freeze(_) => Some(dtm_compare::answer_kept(freeze(&group, index).await)),
        Ask::Digest(range) => dtm_compare::answer_digest(frozen()?, range).await,
        Ask::List(range) => dtm_compare::answer_list(frozen()?, range).await,
        Ask::Rebuild(order) => {
            if group.leader().is_none_or(|(_, leader)| leader.node != caller) {
                return Err(Status::failed_precondition("only the leader of the group may say so"));
            }
            let sources = order.sources.iter().filter_map(|node| NodeId::from_slice(node));
            let (sources, registry) = (sources.collect(), Arc::clone(registry));
            // Goes on when the caller is gone: half-way the replica would be down for nothing.
            let begun = tokio::spawn(async move {
                registry.rebuild_rows(&group, sources, order.cause).await;
            });
            begun.await.map_err(|error| Status::internal(error.to_string()))?;
            Some(Answer::Rebuild(wire::RebuildRowsResponse {}))
        }
    };
    let answer = answer.ok_or_else(|| Status::internal("rows could not be read"))?;
    Ok(wire::CompareRowsResponse { answer: Some(answer) })
}

impl Registry {
    /// Takes a replica down whose rows are not those of the others; they are rebuilt from one of
    /// these nodes, or from its own log where that was never purged.
    async fn rebuild_rows(&self, group: &Arc<Group>, sources: BTreeSet<NodeId>, cause: String) {
        // Before it is down: whoever mends it finds that its rows are not to be believed.
        self.distrust(group.id, sources);
        if !self.take_down(group, cause).await {
            self.trust(group.id);
        }
    }
}
