//! How far replicas at other sites are behind their groups: measured by each group's leader five
//! times a second, for the status of sites, metrics and the alarm. Where the layout has a standby,
//! also how many standby sets each group has: copies there that answer and are not late. One at least
//! is an invariant, and its breach an alarm (P-20.1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_placement::Course;
use dtm_types::{GroupId, ReplicaId};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::group::Group;
use crate::registry::Registry;

/// Between two measurements.
const EVERY: Duration = Duration::from_millis(200);

/// A replica at another site than its leader's, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaLag {
    /// The replica.
    pub replica: ReplicaId,
    /// Where it is.
    pub site: String,
    /// Committed entries that it does not hold.
    pub entries: u64,
    /// Age of the oldest of them, as far back as this leader has led; zero where it holds all.
    pub behind: Duration,
    /// That is more than is right.
    pub is_late: bool,
    /// It answered its leader as lately as it may be behind.
    pub answers: bool,
}

/// What was measured last, of the groups that are led here.
#[derive(Debug, Default)]
pub(crate) struct Lags(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    lags: BTreeMap<GroupId, Vec<ReplicaLag>>,
    /// Where the layout has a standby.
    sets: BTreeMap<GroupId, usize>,
}

impl Lags {
    /// Of a group; nothing where it is led elsewhere or all its replicas are at one site.
    pub(crate) fn of(&self, group: GroupId) -> Vec<ReplicaLag> {
        self.0.lock().lags.get(&group).cloned().unwrap_or_default()
    }

    /// Standby sets of a group; `None` where it is led elsewhere or the layout has no standby.
    pub(crate) fn standby_sets(&self, group: GroupId) -> Option<usize> {
        self.0.lock().sets.get(&group).copied()
    }
}

/// What a measurement goes on from.
struct Watch {
    began: Instant,
    /// Of each group that is led here, since when.
    courses: BTreeMap<GroupId, (Duration, Course)>,
    /// Groups and sites that have gauges, and whether they are told as lagging.
    shown: BTreeMap<(GroupId, String), bool>,
    /// Groups that have gauges of standby sets, and whether they have none.
    sets_shown: BTreeMap<GroupId, bool>,
    alarm: Duration,
}

/// Runs until it is dropped.
pub(crate) async fn watch(registry: Arc<Registry>, lags: Arc<Lags>, alarm: Duration) {
    let (began, courses, shown) = (Instant::now(), BTreeMap::new(), BTreeMap::new());
    let mut watch = Watch { began, courses, shown, sets_shown: BTreeMap::new(), alarm };
    loop {
        tokio::time::sleep(EVERY).await;
        watch.measure(&registry, &lags);
    }
}

impl Watch {
    fn measure(&mut self, registry: &Registry, lags: &Lags) {
        let now = self.began.elapsed();
        let led: Vec<_> = registry.groups().into_iter().filter(|group| group.is_leader()).collect();
        let ids: BTreeSet<GroupId> = led.iter().map(|group| group.id).collect();
        self.courses.retain(|group, _| ids.contains(group));
        let mut measured = Measured::default();
        let standby = registry.standby().site();
        for group in led {
            let began = || (now, Course::default());
            let (since, course) = self.courses.entry(group.id).or_insert_with(began);
            let led_for = now.saturating_sub(*since);
            let found = group.lags(course, now, led_for, self.alarm);
            if let Some(site) = &standby {
                measured.sets.insert(group.id, standby_sets(&found, site));
            }
            if !found.is_empty() {
                measured.lags.insert(group.id, found);
            }
        }
        self.show(&measured.lags);
        self.show_sets(&measured.sets);
        *lags.0.lock() = measured;
    }

    fn show_sets(&mut self, sets: &BTreeMap<GroupId, usize>) {
        // What is led elsewhere now is told there.
        for group in self.sets_shown.keys().filter(|group| !sets.contains_key(group)) {
            set_gauges(*group, 0, false);
        }
        self.sets_shown.retain(|group, _| sets.contains_key(group));
        for (&group, &count) in sets {
            let has_none = count == 0;
            set_gauges(group, count, has_none);
            let had_none = self.sets_shown.insert(group, has_none).unwrap_or(false);
            match (had_none, has_none) {
                (false, true) => tracing::error!(%group, "no standby set is in time"),
                (true, false) => tracing::warn!(%group, count, "standby sets are in time again"),
                _ => {}
            }
        }
    }

    /// Of several replicas of a site the one that is furthest behind.
    fn show(&mut self, measured: &BTreeMap<GroupId, Vec<ReplicaLag>>) {
        let mut worst: BTreeMap<(GroupId, String), (u64, Duration)> = BTreeMap::new();
        for (group, lag) in
            measured.iter().flat_map(|(group, lags)| lags.iter().map(|l| (*group, l)))
        {
            let (entries, behind) = worst.entry((group, lag.site.clone())).or_default();
            (*entries, *behind) = ((*entries).max(lag.entries), (*behind).max(lag.behind));
        }
        // What is led elsewhere now is told there.
        for (group, site) in self.shown.keys().filter(|place| !worst.contains_key(*place)) {
            gauges(*group, site, 0, Duration::ZERO, false);
        }
        self.shown.retain(|place, _| worst.contains_key(place));
        for ((group, site), (entries, behind)) in worst {
            let is_late = behind > self.alarm;
            gauges(group, &site, entries, behind, is_late);
            let was_late = self.shown.insert((group, site.clone()), is_late).unwrap_or(false);
            let behind_ms = behind.as_millis();
            match (was_late, is_late) {
                (false, true) => {
                    tracing::warn!(%group, site, entries, behind_ms, "replicas at another site lag");
                }
                (true, false) => {
                    tracing::warn!(%group, site, entries, behind_ms, "they no longer lag");
                }
                _ => {}
            }
        }
    }
}

/// Copies at the site that stands by that answer and are not late.
fn standby_sets(lags: &[ReplicaLag], site: &str) -> usize {
    lags.iter().filter(|lag| lag.site == site && lag.answers && !lag.is_late).count()
}

fn set_gauges(group: GroupId, count: usize, has_none: bool) {
    let group = group.to_string();
    metrics::gauge!("dtm_sites_standby_sets", "group" => group.clone()).set(count as f64);
    metrics::gauge!("dtm_sites_without_standby", "group" => group)
        .set(f64::from(u8::from(has_none)));
}

fn gauges(group: GroupId, site: &str, entries: u64, behind: Duration, is_late: bool) {
    let (group, site, late) = (group.to_string(), site.to_owned(), f64::from(u8::from(is_late)));
    metrics::gauge!("dtm_sites_lag_entries", "group" => group.clone(), "site" => site.clone())
        .set(entries as f64);
    metrics::gauge!("dtm_sites_lag_seconds", "group" => group.clone(), "site" => site.clone())
        .set(behind.as_secs_f64());
    metrics::gauge!("dtm_sites_lagging", "group" => group, "site" => site).set(late);
}

impl Group {
    /// On the leader: notes how far the group has committed, and how far others are behind that.
    fn lags(
        &self,
        course: &mut Course,
        now: Duration,
        led_for: Duration,
        alarm: Duration,
    ) -> Vec<ReplicaLag> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(committed) = &metrics.local_committed else { return Vec::new() };
        course.note(now, committed.index);
        let membership = metrics.membership_config.membership();
        let own = membership.get_node(&self.replica.0).map(|peer| peer.site.as_str());
        let elsewhere =
            membership.nodes().filter(|(_, peer)| own.is_some_and(|own| own != peer.site));
        let replication = metrics.replication.as_ref();
        let matched = |replica: &u64| {
            replication.and_then(|all| all.get(replica).copied().flatten()).map_or(0, |id| id.index)
        };
        // A leader that began a moment ago has not heard of all yet.
        let heard = |replica: &u64| {
            let heard =
                metrics.heartbeat.as_ref().and_then(|all| all.get(replica).copied().flatten());
            heard.map_or(led_for, |at| at.elapsed().min(led_for))
        };
        let lag = |(replica, peer): (&u64, &crate::type_config::PeerNode)| {
            let (entries, behind) = course.behind(now, matched(replica));
            let answers = heard(replica) <= alarm;
            let (replica, site) = (ReplicaId(*replica), peer.site.clone());
            ReplicaLag { replica, site, entries, behind, is_late: behind > alarm, answers }
        };
        elsewhere.map(lag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_set_is_at_the_standby_answers_and_is_in_time() {
        let lag = |site: &str, is_late, answers| {
            let (replica, site, behind) = (ReplicaId(1), site.to_owned(), Duration::ZERO);
            ReplicaLag { replica, site, entries: 0, behind, is_late, answers }
        };
        let sets = |lags: &[ReplicaLag]| standby_sets(lags, "b");
        let (good, late, silent) =
            (lag("b", false, true), lag("b", true, true), lag("b", false, false));
        assert_eq!(sets(&[good.clone(), late.clone(), silent.clone(), good]), 2);
        assert_eq!(sets(&[late, silent, lag("c", false, true)]), 0, "a third site is none");
    }
}
