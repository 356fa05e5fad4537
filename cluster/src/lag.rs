//! How far replicas at other sites are behind their groups: measured by each group's leader five
//! times a second, for the status of sites, metrics and the alarm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_placement::Course;
use dtm_types::{GroupId, ReplicaId};
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
}

/// What was measured last, of the groups that are led here.
#[derive(Debug, Default)]
pub(crate) struct Lags(Mutex<BTreeMap<GroupId, Vec<ReplicaLag>>>);

impl Lags {
    /// Of a group; nothing where it is led elsewhere or all its replicas are at one site.
    pub(crate) fn of(&self, group: GroupId) -> Vec<ReplicaLag> {
        self.0.lock().get(&group).cloned().unwrap_or_default()
    }
}

/// What a measurement goes on from.
struct Watch {
    began: Instant,
    courses: BTreeMap<GroupId, Course>,
    /// Groups and sites that have gauges, and whether they are told as lagging.
    shown: BTreeMap<(GroupId, String), bool>,
    alarm: Duration,
}

/// Runs until it is dropped.
pub(crate) async fn watch(registry: Arc<Registry>, lags: Arc<Lags>, alarm: Duration) {
    let (began, courses, shown) = (Instant::now(), BTreeMap::new(), BTreeMap::new());
    let mut watch = Watch { began, courses, shown, alarm };
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
        let mut measured = BTreeMap::new();
        for group in led {
            let course = self.courses.entry(group.id).or_default();
            let found = group.lags(course, now, self.alarm);
            if !found.is_empty() {
                measured.insert(group.id, found);
            }
        }
        self.show(&measured);
        *lags.0.lock() = measured;
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
    fn lags(&self, course: &mut Course, now: Duration, alarm: Duration) -> Vec<ReplicaLag> {
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
        let lag = |(replica, peer): (&u64, &crate::type_config::PeerNode)| {
            let (entries, behind) = course.behind(now, matched(replica));
            let (replica, site) = (ReplicaId(*replica), peer.site.clone());
            ReplicaLag { replica, site, entries, behind, is_late: behind > alarm }
        };
        elsewhere.map(lag).collect()
    }
}
