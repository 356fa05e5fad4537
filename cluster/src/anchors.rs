//! Anchors: the leader of meta asks the leaders of the other groups where their ledgers stand and
//! enters that as one leaf of meta: each second if one moved, else each minute.
//!
//! ```text
//!  each second ─▶ leads meta? ─▶ newest applied head of each group, from its leader
//!                                   ├─ one grew, or meta did beside its anchors ─▶ Anchor
//!                                   ├─ nothing moved, the last one is a minute old ─▶ Anchor
//!                                   └─ one went back, or has another root: LED-1, an alarm
//! ```
//! What a leader applied is committed. One that was elected a moment ago may have applied less than
//! the one before told: it stands as it was anchored, until it has caught up. Nothing is kept between
//! two rounds but what was told already, so any leader of meta goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::{anchor, reads};
use dtm_placement::Plan;
use dtm_proto::cluster as wire;
use dtm_types::command::{Anchor, RefusalKind, command, outcome};
use dtm_types::format::{AnchoredGroup, Leaf};
use dtm_types::{GroupId, NodeId};
use tokio::time::Instant;

use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::repeats::Repeats;
use crate::roots::head_from_wire;
use crate::type_config::PeerNode;

const SECOND_US: i64 = 1_000_000;
/// Into each second by the node's clock: leaders of meta that follow each other ask at the same
/// moment, and apply takes one anchor a second.
const OFFSET_US: i64 = 200_000;
/// Between two anchors where nothing moves: a minute, less what two rounds are not quite apart.
const IDLE_US: i64 = 60 * SECOND_US - SECOND_US / 2;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Version of meta from which on there are anchors.
const ANCHORS: u8 = 2;

impl ClusterNode {
    /// Runs until the node stops; acts only while this node leads meta.
    pub(crate) async fn anchor(self: Arc<Self>) {
        let clock = self.clock();
        let (mut failing, mut watch) = (Repeats::default(), Watch::default());
        loop {
            tokio::time::sleep(until_next(clock.now_us())).await;
            match self.anchor_once(clock.now_us(), &mut watch).await {
                Ok(()) => {
                    if let Some(count) = failing.worked() {
                        tracing::warn!(count, "anchors no longer fail");
                    }
                }
                Err(error) => {
                    if let Some(count) = failing.failed(Instant::now()) {
                        tracing::warn!(%error, count, "no anchor");
                    }
                }
            }
        }
    }

    async fn anchor_once(&self, now_us: i64, watch: &mut Watch) -> Result<(), Error> {
        let Some(meta) = self.registry().group(GroupId::META) else { return Ok(()) };
        let rows = meta.store.freeze();
        let last = reads::anchors(&*rows, 1)?.pop();
        if let Some((index, leaf)) = &last {
            let age = watch.age(*index, leaf.group_time_us, now_us, Instant::now());
            metrics::gauge!("dtm_ledger_anchor_age_seconds").set(age.as_secs_f64());
        }
        if !meta.is_leader() || meta.applied.version() < ANCHORS {
            watch.told.clear();
            return Ok(());
        }
        let size = reads::head(&*rows)?.ledger_size;
        let said = self.said_by_leaders(&Plan::read(&*rows)?).await;
        let (groups, faults) = sorted(last.as_ref(), said);
        for (group, why) in faults {
            if watch.told.insert(group) {
                tracing::error!(group, why, "a ledger does not follow what was anchored");
                metrics::counter!("dtm_led1_alarms_total", "group" => group.to_string())
                    .increment(1);
            }
        }
        if !is_due(last.as_ref(), &groups, size, now_us) {
            return Ok(());
        }
        let incarnation = self.config().incarnation.0;
        let op = command::Op::Anchor(Anchor { groups, incarnation });
        let entered = tokio::time::timeout(PROPOSE_TIMEOUT, self.submit(GroupId::META, op)).await;
        let entered = entered.map_err(|_| Error::Timeout("an anchor".to_owned()))??;
        match entered.result {
            // The leader before entered one in this second.
            Some(outcome::Result::Refusal(refusal)) if refusal.kind() == RefusalKind::Exists => {
                Ok(())
            }
            Some(outcome::Result::Refusal(refusal)) => Err(Error::Refused(refusal.detail)),
            _ => {
                metrics::counter!("dtm_ledger_anchors_total").increment(1);
                Ok(())
            }
        }
    }

    /// Where the ingest groups stand, ascending; who does not answer is not in it.
    async fn said_by_leaders(&self, plan: &Plan) -> Vec<AnchoredGroup> {
        let mut groups = Vec::new();
        let mut questions: BTreeMap<NodeId, (PeerNode, Vec<wire::Target>)> = BTreeMap::new();
        for row in plan.groups().iter().filter(|row| !GroupId(row.group).is_meta()) {
            let Some(leader) = self.elsewhere().leader_of(GroupId(row.group)) else { continue };
            if leader.node == self.config().node.node {
                let here = self.registry().group(GroupId(row.group));
                groups.extend(here.map(|group| self.anchored(row.group, &group.applied.head())));
                continue;
            }
            let replicas = plan.replicas(row);
            let of_leader = replicas.iter().find(|(_, node)| **node == leader.node);
            let Some((&replica, _)) = of_leader else { continue };
            let question = questions.entry(leader.node).or_insert_with(|| (leader, Vec::new()));
            question.1.push(wire::Target { group: row.group, replica });
        }
        let asked = questions.into_values().map(|(peer, targets)| self.ask_heads(peer, targets));
        groups.extend(futures::future::join_all(asked).await.into_iter().flatten());
        groups.sort_unstable_by_key(|group| group.group);
        groups
    }

    async fn ask_heads(&self, peer: PeerNode, targets: Vec<wire::Target>) -> Vec<AnchoredGroup> {
        let link = self.registry().links().to(peer.node, &peer.peer_address);
        let request = link.guard().stamp(wire::HeadsRequest { targets, newest_only: true });
        let mut client = link.control();
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.heads(request)).await;
        let Ok(Ok(answer)) = answer else { return Vec::new() };
        let anchored = |answer: wire::GroupHeads| {
            let head = head_from_wire(answer.heads.last()?)?;
            Some(self.anchored(answer.target?.group, &head))
        };
        answer.into_inner().groups.into_iter().filter_map(anchored).collect()
    }

    fn anchored(&self, group: u32, head: &crate::applied::Head) -> AnchoredGroup {
        AnchoredGroup {
            group,
            incarnation: self.config().incarnation.0,
            ledger_size: head.ledger_size,
            ledger_root: Bytes::copy_from_slice(&head.ledger_root),
            applied_index: head.index,
            group_time_us: head.group_time_us,
        }
    }
}

/// What one round remembers for the next.
#[derive(Default)]
struct Watch {
    /// Groups of which an alarm was raised and stays.
    told: BTreeSet<u32>,
    /// The newest anchor, and when it was seen first.
    newest: Option<(u64, Instant)>,
}

impl Watch {
    /// Since the newest anchor: by its time, and not less than since it was seen. Where group time is
    /// ahead of every clock no anchor follows until they have caught up, which is to show.
    fn age(&mut self, index: u64, time_us: i64, now_us: i64, now: Instant) -> Duration {
        let (known, seen) = *self.newest.get_or_insert((index, now));
        if known != index {
            self.newest = Some((index, now));
        }
        let since = if known == index { now.duration_since(seen) } else { Duration::ZERO };
        let by_time = now_us.saturating_sub(time_us).max(0).unsigned_abs();
        since.max(Duration::from_micros(by_time))
    }
}

/// Until the moment of the next second at which leaders of meta ask.
fn until_next(now_us: i64) -> Duration {
    let into = (now_us - OFFSET_US).rem_euclid(SECOND_US);
    Duration::from_micros((SECOND_US - into).unsigned_abs())
}

type Faults = Vec<(u32, &'static str)>;

/// Those that follow what was anchored, and those that cannot: a ledger that went back (LED-1). One
/// that has not applied as far as was anchored is neither.
fn sorted(last: Option<&(u64, Leaf)>, said: Vec<AnchoredGroup>) -> (Vec<AnchoredGroup>, Faults) {
    let (mut fine, mut faults) = (Vec::new(), Vec::new());
    for group in said {
        match held(last, group.group) {
            Some(held) if group.applied_index < held.applied_index => {}
            Some(held) => match anchor::follows(held, &group) {
                Ok(()) => fine.push(group),
                Err(why) => faults.push((group.group, why)),
            },
            None => fine.push(group),
        }
    }
    (fine, faults)
}

fn held(last: Option<&(u64, Leaf)>, group: u32) -> Option<&AnchoredGroup> {
    let anchor = last?.1.anchor.as_ref()?;
    anchor.groups.iter().find(|held| held.group == group)
}

/// Whether an anchor is to be entered; `meta_size` is that of meta's own ledger.
fn is_due(
    last: Option<&(u64, Leaf)>,
    groups: &[AnchoredGroup],
    meta_size: u64,
    now_us: i64,
) -> bool {
    let Some((index, leaf)) = last else { return true };
    let has_moved = |group: &AnchoredGroup| {
        held(last, group.group).is_none_or(|held| {
            (held.incarnation, held.ledger_size) != (group.incarnation, group.ledger_size)
        })
    };
    // The anchor itself is a leaf of meta.
    meta_size > index + 1
        || groups.iter().any(has_moved)
        || now_us.saturating_sub(leaf.group_time_us) >= IDLE_US
}

#[cfg(test)]
mod tests {
    use dtm_types::format::LedgerAnchor;

    use super::*;

    fn group(group: u32, size: u64, root: u8, index: u64) -> AnchoredGroup {
        AnchoredGroup {
            group,
            incarnation: 1,
            ledger_size: size,
            ledger_root: vec![root; 32].into(),
            applied_index: index,
            group_time_us: 0,
        }
    }

    /// At leaf 9 of meta, at second 100.
    fn last(groups: Vec<AnchoredGroup>) -> (u64, Leaf) {
        let anchor = Some(LedgerAnchor { groups, previous_leaf: None });
        (9, Leaf { group_time_us: 100 * SECOND_US, anchor, ..Leaf::default() })
    }

    #[test]
    fn an_anchor_is_due_when_something_moved_or_a_minute_passed() {
        let before = last(vec![group(1, 5, 1, 50), group(2, 6, 2, 60)]);
        let same = [group(1, 5, 1, 51), group(2, 6, 2, 60)];
        let at = |groups: &[AnchoredGroup], size, second| {
            is_due(Some(&before), groups, size, second * SECOND_US)
        };
        assert!(is_due(None, &[], 1, 0), "the first one");
        assert!(!at(&same, 10, 159), "nothing moved: the anchor itself is leaf 9");
        assert!(at(&same, 10, 160), "a minute");
        assert!(at(&same, 11, 101), "an action of meta");
        assert!(at(&[group(1, 7, 9, 70)], 10, 101), "a ledger grew");
        assert!(at(&[group(3, 0, 9, 0)], 10, 101), "a new group");
        assert!(!at(&[], 10, 101), "who does not answer does not move");
    }

    #[test]
    fn the_age_of_an_anchor_shows_where_time_stands() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let mut age = |index, second: i64, after| {
            let later = start + Duration::from_secs(after);
            watch.age(index, second * SECOND_US, 3 * SECOND_US, later).as_secs()
        };
        assert_eq!(age(9, 1, 0), 2, "by its time");
        assert_eq!(age(9, 50, 7), 7, "ahead of the clock");
        assert_eq!(age(10, 50, 8), 0, "a new one");
        assert_eq!(age(10, 50, 9), 1);
    }

    // holds: LED-1
    #[test]
    fn a_ledger_that_went_back_is_told_from_one_that_lags() {
        let before = last(vec![group(1, 5, 1, 50)]);
        let judge = |said: AnchoredGroup| {
            let (fine, faults) = sorted(Some(&before), vec![said]);
            (fine.len(), faults.len())
        };
        assert_eq!(judge(group(1, 5, 1, 50)), (1, 0));
        assert_eq!(judge(group(1, 6, 2, 51)), (1, 0));
        assert_eq!(judge(group(1, 4, 7, 40)), (0, 0), "it has not applied as far");
        assert_eq!(judge(group(1, 5, 2, 50)), (0, 1), "another root");
        assert_eq!(judge(group(1, 4, 7, 51)), (0, 1), "fewer leaves at a later index");
        assert_eq!(judge(group(2, 0, 7, 0)), (1, 0), "never anchored");
    }

    #[test]
    fn leaders_of_meta_ask_at_the_same_moment_of_a_second() {
        for (now, wait) in [(0, 200_000), (200_000, 1_000_000), (199_999, 1), (900_000, 300_000)] {
            let after = until_next(77 * SECOND_US + now);
            assert_eq!(after, Duration::from_micros(wait), "{now}");
        }
    }
}
