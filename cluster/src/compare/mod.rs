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

mod answer;
mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_compare::{Aim, Cut, Kept, KeyRange, Page, Question, RangeDigest, Replicas, Report};
use dtm_machine::seams::{StateError, StateRead};
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;
use wire::compare_rows_request::Ask;
use wire::compare_rows_response::Answer;

use crate::group::Group;
use crate::pace::Pace;
use crate::registry::Registry;
use crate::type_config::PeerNode;

pub(crate) use answer::answer;
pub(crate) use kept::Comparison;
pub use kept::RowsCompared;

/// Rows of one range, bytes.
const RANGE_BYTES: usize = 1 << 20;
/// Between two looks at what is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A new leader begins after this, or after the interval where that is shorter.
const FIRST_AFTER: Duration = Duration::from_secs(30);
/// Where something differed, or nothing could be said, the next comparison is no later than this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Indexes that are tried at which all replicas are to freeze their rows.
const AIMS_MAX: u32 = 16;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Rows named in a cause.
const NAMED_IN_CAUSE: usize = 3;

/// Why a group was not compared this time.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("its voters change")]
    Changing,
    #[error("nothing is applied yet")]
    Empty,
    #[error("at no index all replicas that answer could freeze their rows")]
    NoIndex,
    #[error(transparent)]
    Pass(#[from] dtm_compare::Error),
}

/// Lets frozen rows go and shows how old comparisons are, as long as it is not dropped. On every node:
/// others ask.
pub(crate) async fn sweep(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for group in registry.groups() {
            let comparison = &group.applied.comparison;
            comparison.sweep();
            let age = comparison.age(group.is_leader());
            if registry.config().compare_bytes_per_second == 0 {
                continue;
            }
            let id = group.id.to_string();
            metrics::gauge!("dtm_compare_age_seconds", "group" => id.clone())
                .set(age.as_secs_f64());
            let told = comparison.told().unwrap_or_default();
            metrics::gauge!("dtm_compare_differing_rows", "group" => id.clone())
                .set(told.differing as f64);
            metrics::gauge!("dtm_compare_absent_replicas", "group" => id).set(told.absent as f64);
        }
    }
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
        let is_clean = match compare(&registry, group, &pace).await {
            Ok(report) => report.differing == 0,
            Err(error) => {
                tracing::info!(group = group.id.0, %error, "rows are not compared now");
                false
            }
        };
        let pause = if is_clean { every } else { every.min(AGAIN_AFTER) };
        due.insert(group.id, now + pause);
    }
}

/// One comparison of a group that is led here, and what follows from it.
async fn compare(
    registry: &Arc<Registry>,
    group: &Arc<Group>,
    pace: &Pace,
) -> Result<Report, Error> {
    let (members, configs) = group.members();
    let [voters] = &configs[..] else { return Err(Error::Changing) };
    let voters = voters.clone();
    let began = Instant::now();
    let mut asking = Asking { group, members, pace, index: 0, rows: None };
    let replicas = asking.freeze().await?;
    let question = Question { own: group.replica.0, voters, replicas };
    let report = dtm_compare::pass(&asking, &question).await?;
    metrics::counter!("dtm_compare_bytes_total").increment(report.bytes);
    let named = asking.named(&report);
    asking.tell(&report, &named, began);
    asking.repair(registry, &question.voters, &report, &named).await;
    Ok(report)
}

/// The replicas of a group, asked for what they hold at one index.
struct Asking<'a> {
    group: &'a Arc<Group>,
    members: BTreeMap<u64, PeerNode>,
    pace: &'a Pace,
    index: u64,
    /// Own rows at that index, once they are frozen.
    rows: Option<Arc<dyn StateRead>>,
}

impl Asking<'_> {
    /// Finds an index at which they all freeze their rows; those that did. Who does not answer or is
    /// too far behind is left out.
    async fn freeze(&mut self) -> Result<BTreeSet<u64>, Error> {
        let (own, mut aim) = (self.group.replica.0, Aim::default());
        for _ in 0..AIMS_MAX {
            self.index = aim.index(self.group.applied.head().index);
            if self.index == 0 {
                return Err(Error::Empty);
            }
            let (asking, asked) = (&*self, self.members.keys());
            let answers = asked.map(async |&id| Some((id, asking.freeze_at(id).await?)));
            let answers: BTreeMap<u64, Kept> =
                join_all(answers).await.into_iter().flatten().collect();
            let others: Vec<Kept> =
                answers.iter().filter(|(id, _)| **id != own).map(|(_, kept)| *kept).collect();
            let is_kept = answers.get(&own).copied().unwrap_or(Kept::Behind);
            if !aim.told(is_kept, &others) {
                continue;
            }
            self.rows = self.group.applied.comparison.at(self.index);
            let kept = answers.into_iter().filter(|(_, kept)| *kept == Kept::Kept);
            return Ok(kept.map(|(id, _)| id).collect());
        }
        Err(Error::NoIndex)
    }

    async fn freeze_at(&self, replica: u64) -> Option<Kept> {
        if replica == self.group.replica.0 {
            return Some(answer::freeze(self.group, self.index).await);
        }
        match self.ask(replica, Ask::Freeze(wire::FreezeRows {})).await? {
            Answer::Frozen(frozen) => answer::kept_from_wire(frozen.state()),
            _ => None,
        }
    }

    async fn ask(&self, replica: u64, ask: Ask) -> Option<Answer> {
        let (peer, group) = (self.members.get(&replica)?, self.group.id.0);
        let link = self.group.links.to(peer.node, &peer.peer_address);
        let target = Some(wire::Target { group, replica });
        // Orders and indexes are urgent, rows are not.
        let is_urgent = matches!(ask, Ask::Freeze(_) | Ask::Rebuild(_));
        let mut client = if is_urgent { link.control() } else { link.copies(group) };
        let request = wire::CompareRowsRequest { target, index: self.index, ask: Some(ask) };
        let asked = client.compare_rows(link.guard().stamp(request));
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(answer)) => answer.into_inner().answer,
            Ok(Err(status)) => {
                let cause = status.message();
                tracing::info!(group, replica, cause, "replica does not compare its rows");
                None
            }
            Err(_) => None,
        }
    }

    fn own_rows(&self) -> Result<Arc<dyn StateRead>, StateError> {
        let gone = || StateError::new(self.group.id, "own rows of a comparison are gone");
        self.rows.clone().ok_or_else(gone)
    }

    /// The first rows that differ, in words.
    fn named(&self, report: &Report) -> Vec<String> {
        let own = self.own_rows().ok();
        let value = |key: &[u8]| own.as_ref().and_then(|rows| rows.get(key).ok().flatten());
        let name = |key: &Bytes| dtm_compare::name(key, value(key).as_deref());
        report.named.iter().map(|found| name(&found.key)).collect()
    }

    fn tell(&self, report: &Report, named: &[String], began: Instant) {
        let (group, index) = (self.group.id.0, self.index);
        for (found, name) in report.named.iter().zip(named) {
            let table = dtm_compare::table_name(&found.key);
            metrics::counter!("dtm_compare_rows_differ_total", "group" => group.to_string(),
                "table" => table)
            .increment(1);
            let odd: Vec<String> = found.odd.iter().map(|replica| self.seat(*replica)).collect();
            tracing::error!(group, index, row = name, ?odd, "rows of replicas differ");
        }
        let absent = self.members.len().saturating_sub(report.compared.len());
        let found = RowsCompared {
            index,
            age: Duration::ZERO,
            rows: report.rows,
            replicas: report.compared.len(),
            absent,
            differing: report.differing,
            undecided: report.undecided,
            named: named.to_vec(),
        };
        self.group.applied.comparison.tell(found, began);
    }

    fn seat(&self, replica: u64) -> String {
        let node = self.members.get(&replica).map(|peer| peer.node).unwrap_or_default();
        format!("replica {replica} on node {node}")
    }

    /// Has the rows rebuilt that are off: of every learner, of one voter at a time.
    async fn repair(
        &self,
        registry: &Arc<Registry>,
        voters: &BTreeSet<u64>,
        report: &Report,
        named: &[String],
    ) {
        let nodes = |replicas: BTreeSet<u64>| -> BTreeSet<NodeId> {
            replicas.iter().filter_map(|id| self.members.get(id)).map(|peer| peer.node).collect()
        };
        let (group, sources) = (self.group.id.0, nodes(report.sound()));
        if report.odd.is_empty() {
            return;
        }
        if sources.is_empty() {
            tracing::error!(group, "no replica is sound: none is mended from another");
            return;
        }
        let more = report.differing.saturating_sub(NAMED_IN_CAUSE as u64);
        let cause = format!(
            "rows are not those of a majority of the voters at index {}: {} (and {more} more)",
            self.index,
            named.iter().take(NAMED_IN_CAUSE).cloned().collect::<Vec<_>>().join("; "),
        );
        let (odd_voters, learners): (Vec<u64>, Vec<u64>) =
            report.odd.keys().partition(|replica| voters.contains(replica));
        for replica in learners.into_iter().chain(odd_voters.first().copied()) {
            tracing::error!(group, replica = self.seat(replica), cause, "rows are to be rebuilt");
            metrics::counter!("dtm_compare_repairs_total", "group" => group.to_string())
                .increment(1);
            if replica == self.group.replica.0 {
                let avoided: BTreeSet<NodeId> =
                    &registry.drained() | &nodes(odd_voters.iter().copied().collect());
                if let Err(error) = self.group.give_up_leadership(&avoided).await {
                    tracing::warn!(group, %error, "a leader whose rows are off could not hand over");
                }
                registry.rebuild_rows(self.group, sources.clone(), cause.clone()).await;
                continue;
            }
            let to_wire = |node: &NodeId| Bytes::copy_from_slice(&node.0);
            let sources = sources.iter().map(to_wire).collect();
            let order = wire::RebuildRows { sources, cause: cause.clone() };
            if self.ask(replica, Ask::Rebuild(order)).await.is_none() {
                tracing::warn!(group, replica, "the order to rebuild its rows was not taken");
            }
        }
    }
}

impl Replicas for Asking<'_> {
    fn cut(&self, from: Bytes) -> BoxFuture<'_, Result<Cut, StateError>> {
        let cutting = async move {
            let (group, rows) = (self.group.id, self.own_rows()?);
            let cut = move || dtm_compare::cut(&*rows, &from, RANGE_BYTES);
            let ended = |error| StateError::new(group, format!("reading rows panicked: {error}"));
            tokio::task::spawn_blocking(cut).await.map_err(ended)?
        };
        cutting.boxed()
    }

    fn digest(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<RangeDigest>> {
        let asking = async move {
            if replica == self.group.replica.0 {
                return answer::digest(self.own_rows().ok()?, range).await;
            }
            match self.ask(replica, Ask::Digest(answer::range_to_wire(range))).await? {
                Answer::Digest(digest) => answer::digest_from_wire(&digest),
                _ => None,
            }
        };
        asking.boxed()
    }

    fn list(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<Page>> {
        let asking = async move {
            if replica == self.group.replica.0 {
                return answer::list(self.own_rows().ok()?, range).await;
            }
            match self.ask(replica, Ask::List(answer::range_to_wire(range))).await? {
                Answer::List(page) => answer::page_from_wire(page),
                _ => None,
            }
        };
        asking.boxed()
    }

    fn pace(&self, bytes: u64) -> BoxFuture<'_, ()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.pace.take(bytes).boxed()
    }
}
