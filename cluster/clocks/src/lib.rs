//! The guard of group time: what this node's clock is worth among those of its peers, and what it
//! may stamp.
//!
//! ```text
//!  each second: ask every peer what it shows ──▶ agreement ──▶ astray: neither leads nor stamps
//!                                                    └──────▶ course ──▶ ceiling of every stamp
//!  stamp = min(own clock, lower median + limit, course + limit)
//! ```
//! Group time only rises, and what a clock that ran ahead once wrote into it stays. So a stamp never
//! runs ahead of what the clocks agree on, and what they agree on is followed, while this node runs,
//! by one second a second at most. A clock that is behind does no harm: group time stands still.
//!
//! Who leads a group of several voters stamps only after it has heard a majority of them, itself
//! counted, once since its start. Where no voter of a group that is heard is sound, or none that is
//! can lead, the one that leads goes on, under the ceiling: no group is lost to clocks.

mod agreement;

#[cfg(test)]
mod agreement_test;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dtm_machine::seams::Clock;
use dtm_types::NodeId;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use agreement::{Agreement, Course, Peer};

pub use agreement::Reading;

/// The time of this node's doors: what they stamp never runs ahead of what the clocks agree on.
pub struct GuardedClock(pub Arc<Clocks>);

impl Clock for GuardedClock {
    fn now_us(&self) -> i64 {
        self.0.stamp_us()
    }

    fn monotonic_us(&self) -> i64 {
        self.0.clock.monotonic_us()
    }
}

/// Until something was weighed stamps have no ceiling: a node alone has nothing to hold against.
const NO_CEILING: i64 = i64::MAX;

/// What a node's clock is worth to one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The node may lead and stamp.
    Sound,
    /// Its clock is too far from the median, and another voter's is not.
    Astray,
    /// Too few voters were heard since the start to say. It may lead, and stamps in a moment.
    Unheard,
}

/// A node's clock among those that it hears, for an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockStatus {
    /// This node's clock less the median, microseconds.
    pub offset_us: i64,
    /// From the slowest to the fastest clock, microseconds.
    pub spread_us: i64,
    /// Beyond the limit: this node neither leads nor stamps where another can.
    pub is_astray: bool,
}

/// The clocks of the cluster, as this node knows them.
pub struct Clocks {
    node: NodeId,
    clock: Arc<dyn Clock>,
    limit_us: i64,
    state: Mutex<State>,
    verdict: RwLock<Verdict>,
    /// Rises with each new verdict.
    generation: AtomicU64,
    /// Highest base that may be stamped. Read for every bundle, so beside the locks.
    ceiling_us: AtomicI64,
    /// Somebody waits for a verdict.
    asked: Notify,
}

#[derive(Default)]
struct State {
    peers: BTreeMap<NodeId, Peer>,
    course: Option<Course>,
    status: ClockStatus,
}

#[derive(Default, PartialEq, Eq)]
struct Verdict {
    sound: BTreeSet<NodeId>,
    astray: BTreeSet<NodeId>,
    /// Every peer that was heard since this node started.
    heard: BTreeSet<NodeId>,
}

impl Clocks {
    /// Of this node, which stands astray beyond `limit_ms`, milliseconds.
    pub fn new(node: NodeId, clock: Arc<dyn Clock>, limit_ms: u64) -> Arc<Self> {
        let limit_us = i64::try_from(limit_ms.saturating_mul(1_000)).unwrap_or(i64::MAX / 4);
        Arc::new(Self {
            node,
            clock,
            limit_us,
            state: Mutex::default(),
            verdict: RwLock::default(),
            generation: AtomicU64::new(0),
            ceiling_us: AtomicI64::new(NO_CEILING),
            asked: Notify::new(),
        })
    }

    /// What this node's clock shows, for a peer that asks.
    pub fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// The time of a bundle: this node's clock, and never ahead of what the clocks agree on.
    pub fn stamp_us(&self) -> i64 {
        let ceiling_us = self.ceiling_us.load(Ordering::Acquire);
        self.clock.now_us().min(ceiling_us.saturating_add(self.clock.monotonic_us()))
    }

    /// Rises whenever [`Clocks::standing`] may answer anew.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What this node is worth to a group with these voters.
    pub fn standing(&self, voters: &BTreeSet<NodeId>) -> Standing {
        let verdict = self.verdict.read();
        let others = || voters.iter().filter(|voter| **voter != self.node);
        if others().next().is_none() {
            return Standing::Sound;
        }
        if verdict.astray.contains(&self.node) && others().any(|peer| verdict.sound.contains(peer))
        {
            return Standing::Astray;
        }
        let heard = 1 + others().filter(|peer| verdict.heard.contains(peer)).count();
        if 2 * heard > voters.len() { Standing::Sound } else { Standing::Unheard }
    }

    /// A node that was heard a moment ago and whose clock is too far from the median.
    pub fn is_astray(&self, node: NodeId) -> bool {
        self.verdict.read().astray.contains(&node)
    }

    /// As an operator sees it.
    pub fn status(&self) -> ClockStatus {
        self.state.lock().status
    }

    /// What [`Clocks::standing`] is taken for has changed.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// A verdict is wanted before the next second.
    pub fn ask_soon(&self) {
        self.asked.notify_one();
    }

    /// Returns when somebody waits for a verdict. Cancel-safe.
    pub async fn is_asked(&self) {
        self.asked.notified().await;
    }

    /// What a peer showed.
    pub fn hear(&self, peer: NodeId, reading: Reading) {
        self.state.lock().peers.entry(peer).or_default().hear(reading);
    }

    /// Weighs what was heard of these peers; those that are no peers any more are forgotten.
    pub fn weigh(&self, peers: &BTreeSet<NodeId>) {
        let (wall_us, now_us) = (self.clock.now_us(), self.clock.monotonic_us());
        let own_us = wall_us.saturating_sub(now_us);
        let mut state = self.state.lock();
        state.peers.retain(|peer, _| peers.contains(peer));
        let heard: Vec<(NodeId, i64)> = state
            .peers
            .iter()
            .filter_map(|(peer, heard)| Some((*peer, heard.base_us(now_us)?)))
            .collect();
        let clocks: Vec<_> = heard.iter().copied().chain([(self.node, own_us)]).collect();
        let agreed = {
            let verdict = self.verdict.read();
            Agreement::of(&clocks, peers.len() + 1, self.limit_us, &verdict.astray)
        };
        state.course = if agreed.is_firm {
            Some(Course::towards(state.course, agreed.low_us, now_us))
        } else {
            state.course.map(|course| course.held(now_us))
        };
        let course_us = state.course.map_or(agreed.low_us, |course| course.base_us);
        let ceiling_us = agreed.low_us.min(course_us).saturating_add(self.limit_us);
        self.ceiling_us.store(ceiling_us, Ordering::Release);
        let before = state.status;
        state.status = ClockStatus {
            offset_us: agreed.offset_us(own_us),
            spread_us: agreed.spread_us,
            is_astray: agreed.astray.contains(&self.node),
        };
        let status = state.status;
        drop(state);
        self.tell(before, status, &heard, own_us);
        let held_back_us = own_us.saturating_sub(ceiling_us).max(0);
        metrics::gauge!("dtm_clock_held_back_seconds").set(held_back_us as f64 / 1e6);
        let heard = heard.into_iter().map(|(peer, _)| peer);
        self.publish(agreed, heard);
    }

    fn publish(&self, agreed: Agreement, fresh: impl Iterator<Item = NodeId>) {
        let mut verdict = self.verdict.write();
        let heard = verdict.heard.iter().copied().chain(fresh).collect();
        let next = Verdict { sound: agreed.sound, astray: agreed.astray, heard };
        if *verdict != next {
            *verdict = next;
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Metrics, and a line in the log when something changes.
    fn tell(&self, before: ClockStatus, now: ClockStatus, heard: &[(NodeId, i64)], own_us: i64) {
        for (peer, base_us) in heard {
            metrics::gauge!("dtm_clock_offset_seconds", "peer" => peer.to_string())
                .set(base_us.saturating_sub(own_us) as f64 / 1e6);
        }
        metrics::gauge!("dtm_clock_spread_seconds").set(now.spread_us as f64 / 1e6);
        metrics::gauge!("dtm_clock_astray").set(if now.is_astray { 1.0 } else { 0.0 });
        let limit_ms = self.limit_us / 1_000;
        let (offset_ms, spread_ms) = (now.offset_us / 1_000, now.spread_us / 1_000);
        match (before.is_astray, now.is_astray) {
            (false, true) => tracing::error!(
                offset_ms,
                limit_ms,
                "the clock of this node is astray: it neither leads nor stamps until it is right"
            ),
            (true, false) => tracing::warn!(offset_ms, "the clock of this node is right again"),
            _ => {}
        }
        let is_wide = |status: ClockStatus| status.spread_us > self.limit_us;
        if is_wide(now) && !is_wide(before) {
            tracing::error!(spread_ms, limit_ms, "the clocks of the nodes differ");
        }
    }
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::ManualClock;

    use super::agreement::HEARD_US;
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;
    const START_US: i64 = 1_000 * HOUR_US;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 16])
    }

    fn nodes(bytes: &[u8]) -> BTreeSet<NodeId> {
        bytes.iter().map(|byte| node(*byte)).collect()
    }

    /// Wall and monotonic time apart from each other.
    #[derive(Default)]
    struct Split {
        monotonic: ManualClock,
        offset_us: AtomicI64,
    }

    impl Clock for Split {
        fn now_us(&self) -> i64 {
            self.monotonic.now_us() + self.offset_us.load(Ordering::SeqCst)
        }

        fn monotonic_us(&self) -> i64 {
            self.monotonic.now_us()
        }
    }

    struct Bench {
        clock: Arc<Split>,
        clocks: Arc<Clocks>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(Split::default());
            clock.offset_us.store(START_US, Ordering::SeqCst);
            let clocks = Clocks::new(node(1), Arc::clone(&clock) as _, 500);
            Self { clock, clocks }
        }

        /// A second passes; each peer shows the true time and what it is off.
        fn second(&self, peers: &[(u8, i64)], known: &[u8]) {
            self.clock.monotonic.advance_us(1_000_000);
            let now_us = self.clock.monotonic_us();
            for (peer, off_us) in peers {
                let time_us = START_US + now_us + off_us;
                self.clocks.hear(node(*peer), Reading::of(time_us, now_us, now_us));
            }
            self.clocks.weigh(&nodes(known));
        }

        fn set(&self, off_us: i64) {
            self.clock.offset_us.store(START_US + off_us, Ordering::SeqCst);
        }

        /// The stamp less the true time.
        fn stamp_off_us(&self) -> i64 {
            self.clocks.stamp_us() - START_US - self.clock.monotonic_us()
        }
    }

    #[test]
    fn alone_a_node_follows_its_own_clock() {
        let bench = Bench::new();
        assert_eq!(bench.stamp_off_us(), 0, "before anything was weighed");
        assert_eq!(bench.clocks.standing(&nodes(&[1])), Standing::Sound);
        bench.second(&[], &[]);
        assert_eq!(bench.stamp_off_us(), 0);
        bench.set(HOUR_US);
        for second in 1..=20 {
            bench.second(&[], &[]);
            assert_eq!(bench.stamp_off_us(), second * 1_000_000 + 500_000, "a second a second");
        }
        assert_eq!(bench.clocks.standing(&nodes(&[1])), Standing::Sound);
        bench.set(-HOUR_US);
        assert_eq!(bench.stamp_off_us(), -HOUR_US, "what is behind does no harm");
    }

    #[test]
    fn who_is_off_neither_leads_nor_runs_ahead_and_comes_back() {
        let (bench, voters) = (Bench::new(), nodes(&[1, 2, 3]));
        assert_eq!(bench.clocks.standing(&voters), Standing::Unheard);
        bench.second(&[(2, 0)], &[2, 3]);
        assert_eq!(bench.clocks.standing(&voters), Standing::Sound, "two of three are enough");
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        let generation = bench.clocks.generation();
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        assert_eq!(bench.clocks.generation(), generation, "nothing new");
        bench.set(HOUR_US);
        assert_eq!(bench.stamp_off_us(), 500_000, "at once, before anything is weighed");
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        assert_eq!(bench.clocks.standing(&voters), Standing::Astray);
        assert!(bench.clocks.generation() > generation && bench.clocks.is_astray(node(1)));
        let status = bench.clocks.status();
        assert_eq!((status.is_astray, status.offset_us), (true, HOUR_US));
        assert_eq!(bench.clocks.standing(&nodes(&[1])), Standing::Sound, "a group of its own");
        bench.set(0);
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        assert_eq!(bench.clocks.standing(&voters), Standing::Sound);
    }

    #[test]
    fn of_two_clocks_the_slower_one_bounds_the_stamps() {
        let (bench, voters) = (Bench::new(), nodes(&[1, 2, 3]));
        // The third is lost, this one was an hour ahead when it started.
        bench.set(HOUR_US);
        bench.second(&[(2, 0)], &[2, 3]);
        assert_eq!(bench.clocks.standing(&voters), Standing::Sound, "nobody can say");
        assert_eq!(bench.stamp_off_us(), 500_000);
        assert_eq!(bench.clocks.status().spread_us, HOUR_US, "and it is told");
        assert!(!bench.clocks.status().is_astray);
    }

    #[test]
    fn a_group_without_a_sound_voter_goes_on() {
        let bench = Bench::new();
        bench.set(HOUR_US);
        bench.second(&[(2, HOUR_US), (3, 0), (4, 0), (5, 0)], &[2, 3, 4, 5]);
        assert!(bench.clocks.is_astray(node(1)) && bench.clocks.is_astray(node(2)));
        assert_eq!(bench.clocks.standing(&nodes(&[1, 2])), Standing::Sound);
        assert_eq!(bench.clocks.standing(&nodes(&[1, 2, 3])), Standing::Astray);
        assert_eq!(bench.stamp_off_us(), 500_000, "under the ceiling");
    }

    #[test]
    fn what_all_clocks_do_together_is_followed_slowly() {
        let bench = Bench::new();
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        let month_us = 30 * 24 * HOUR_US;
        bench.set(month_us);
        for second in 1..=10 {
            bench.second(&[(2, month_us), (3, month_us)], &[2, 3]);
            assert_eq!(bench.stamp_off_us(), second * 1_000_000 + 500_000);
        }
        bench.set(0);
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        assert_eq!(bench.stamp_off_us(), 0);
        assert_eq!(bench.clocks.standing(&nodes(&[1, 2, 3])), Standing::Sound);
    }

    #[test]
    fn who_falls_silent_was_heard_but_is_weighed_no_more() {
        let (bench, voters) = (Bench::new(), nodes(&[1, 2, 3]));
        bench.second(&[(2, 0), (3, 0)], &[2, 3]);
        bench.set(HOUR_US);
        for _ in 0..=HEARD_US / 1_000_000 {
            bench.second(&[], &[2, 3]);
        }
        assert_eq!(bench.clocks.standing(&voters), Standing::Sound, "nobody to compare with");
        assert_eq!(bench.stamp_off_us(), 500_000, "the course is kept");
        bench.second(&[], &[2]);
        assert!(!bench.clocks.is_astray(node(3)), "no peer any more");
    }
}
