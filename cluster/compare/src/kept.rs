//! What a replica keeps for comparisons: its rows frozen at one applied index, and what was found last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dtm_machine::seams::{StateRead, StateStore};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Frozen rows that nobody asked about for so long are let go: as long as they live the store keeps
/// what they show.
const FROZEN_FOR: Duration = Duration::from_secs(60);

/// What the leader of a group found when it compared the rows of its replicas last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsCompared {
    /// At which applied index.
    pub index: u64,
    /// How long ago it began: what came to differ since may not have been seen.
    pub age: Duration,
    /// Rows of the leader.
    pub rows: u64,
    /// Replicas that were compared to the end, the leader's among them.
    pub replicas: usize,
    /// Members that were not: away, or too far behind.
    pub absent: usize,
    /// Rows that were not the same everywhere.
    pub differing: u64,
    /// Of them those of which no value had a majority of the voters: nothing is repaired there.
    pub undecided: u64,
    /// The first of them, in words.
    pub named: Vec<String>,
}

/// One replica's part in comparisons.
#[derive(Default)]
pub struct Comparison {
    /// The index at which rows are to be frozen; 0 = none.
    wanted: AtomicU64,
    frozen: Mutex<Option<Frozen>>,
    last: Mutex<Option<(RowsCompared, Instant)>>,
    /// On the leader: when the last whole comparison began, or since when it leads.
    since: Mutex<Option<Instant>>,
}

struct Frozen {
    index: u64,
    rows: Arc<dyn StateRead>,
    asked: Instant,
}

impl std::fmt::Debug for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparison").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Comparison {
    /// Rows are to be frozen when they are at this index.
    pub fn want(&self, index: u64) {
        self.wanted.store(index, Ordering::Release);
    }

    /// Whether apply must stop for a moment behind this index.
    pub fn wants(&self, index: u64) -> bool {
        index != 0 && self.wanted.load(Ordering::Acquire) == index
    }

    /// The rows are at this index, and nothing writes them now: freezes them where that is wanted.
    pub fn reached(&self, index: u64, store: &dyn StateStore) {
        if self.wants(index) {
            self.keep(index, store.freeze());
        }
    }

    /// Rows that are at this index. Those of another index are let go.
    pub fn keep(&self, index: u64, rows: Arc<dyn StateRead>) {
        *self.frozen.lock() = Some(Frozen { index, rows, asked: Instant::now() });
        // One that is wanted by now stays wanted.
        let _ = self.wanted.compare_exchange(index, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The rows as they were at an index, where they are kept still.
    pub fn at(&self, index: u64) -> Option<Arc<dyn StateRead>> {
        let mut frozen = self.frozen.lock();
        let kept = frozen.as_mut().filter(|kept| kept.index == index)?;
        kept.asked = Instant::now();
        Some(Arc::clone(&kept.rows))
    }

    /// Lets go what nobody asks about any more.
    pub fn sweep(&self) {
        let mut frozen = self.frozen.lock();
        if frozen.as_ref().is_some_and(|kept| kept.asked.elapsed() >= FROZEN_FOR) {
            *frozen = None;
        }
    }

    /// Takes over what a comparison found that has come to its end.
    pub fn tell(&self, found: RowsCompared, began: Instant) {
        *self.since.lock() = Some(began);
        *self.last.lock() = Some((found, began));
    }

    /// What was found last, by the leader that this replica is; `None` before.
    pub fn told(&self) -> Option<RowsCompared> {
        let last = self.last.lock();
        last.as_ref().map(|(found, began)| RowsCompared { age: began.elapsed(), ..found.clone() })
    }

    /// How old what a comparison may have overlooked can be, as far as this replica knows, which leads
    /// the group or not. Who leads no more forgets what was found: the next leader looks itself.
    pub fn age(&self, is_leader: bool) -> Duration {
        let mut since = self.since.lock();
        if !is_leader {
            *since = None;
            *self.last.lock() = None;
            return Duration::ZERO;
        }
        since.get_or_insert_with(Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::{MemoryStateStore, StateBatch};
    use dtm_types::GroupId;

    use super::*;

    fn put(store: &MemoryStateStore, value: u64) {
        let mut batch = StateBatch::default();
        batch.put([0x17], value.to_be_bytes());
        store.write(&batch).expect("memory");
    }

    #[tokio::test(start_paused = true)]
    async fn rows_are_kept_as_they_were_at_the_wanted_index_and_not_for_ever() {
        let (comparison, store) = (Comparison::default(), MemoryStateStore::new(GroupId(1)));
        comparison.want(7);
        for index in 5..=9 {
            put(&store, index);
            comparison.reached(index, &store);
        }
        let held = |index| {
            let rows = comparison.at(index)?;
            rows.get(&[0x17]).expect("memory").map(|value| value.to_vec())
        };
        assert_eq!(held(7), Some(7_u64.to_be_bytes().to_vec()), "what came later is not in it");
        assert_eq!((held(8), comparison.wants(7)), (None, false));
        tokio::time::advance(FROZEN_FOR / 2).await;
        assert!(held(7).is_some());
        tokio::time::advance(FROZEN_FOR / 2).await;
        comparison.sweep();
        assert!(held(7).is_some(), "asked about a moment ago");
        tokio::time::advance(FROZEN_FOR).await;
        comparison.sweep();
        assert!(held(7).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_leader_has_something_to_tell() {
        let comparison = Comparison::default();
        let hour = Duration::from_secs(3_600);
        assert_eq!(comparison.age(true), Duration::ZERO);
        tokio::time::advance(hour).await;
        assert_eq!(comparison.age(true), hour, "never compared here");
        comparison.tell(RowsCompared { index: 9, ..RowsCompared::default() }, Instant::now());
        tokio::time::advance(hour).await;
        assert_eq!(
            (comparison.age(true), comparison.told().map(|told| told.age)),
            (hour, Some(hour))
        );
        assert_eq!((comparison.age(false), comparison.told()), (Duration::ZERO, None));
    }
}
