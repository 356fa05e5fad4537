//! What of the lines belongs into the ledger, in the order in which it happened, until it is there: the
//! ledger may be out of reach just then. Owner of the state; lost with the process.
//!
//! An incident is entered when it begins (a first path that is cut for long, or another path that is
//! taken), at the two hours, and when the first path is in use again. A cut that ends before that, as
//! the restart of a node, is none.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::Clock;
use dtm_types::NodeId;
use dtm_types::command::{EnterLine, LineChange};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::events::Event;

/// Entries that wait; beyond it the oldest is given up, which is counted.
const ENTRIES_MAX: usize = 1_024;

/// The entries of a node. One task takes them.
pub struct Journal {
    /// Tells the times of day that entries name.
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<EnterLine>,
    /// Peers whose incident was noted and is not over.
    open: BTreeSet<NodeId>,
}

impl Journal {
    /// An empty one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), news: Notify::new() }
    }

    /// Takes an event over, where it belongs into the ledger. Does not block.
    pub fn note(&self, event: &Event) {
        let now_us = self.clock.now_us();
        let mut state = self.state.lock();
        let Some(entry) = state.entry(event, now_us) else { return };
        if state.waiting.len() >= ENTRIES_MAX {
            state.waiting.pop_front();
            metrics::counter!("dtm_sites_entries_lost_total").increment(1);
            tracing::error!("an entry about a line to another site is lost: the ledger takes none");
        }
        state.waiting.push_back(entry);
        drop(state);
        self.news.notify_one();
    }

    /// The oldest entry, when there is one; it is taken out. Cancel-safe.
    pub async fn next(&self) -> EnterLine {
        loop {
            if let Some(entry) = self.state.lock().waiting.pop_front() {
                return entry;
            }
            self.news.notified().await;
        }
    }
}

impl State {
    fn entry(&mut self, event: &Event, now_us: i64) -> Option<EnterLine> {
        let node = event.node();
        let (change, from, to, cut_for) = match *event {
            Event::Interrupted { cut_for, .. } => {
                // Where another path was taken that is entered already.
                self.open.insert(node).then_some((LineChange::Interrupted, 0, 0, cut_for))?
            }
            Event::Switched { from, to, cut_for, .. } => {
                self.open.insert(node);
                (LineChange::Switched, from, to, cut_for)
            }
            Event::StandbyOrdered { cut_for, confirmed, .. } => {
                let change = if confirmed { LineChange::Confirmed } else { LineChange::Ordered };
                (change, 0, 1, cut_for)
            }
            Event::Mended { from, after, .. } => {
                self.open.remove(&node).then_some((LineChange::Returned, from, 0, after))?
            }
            Event::Up { .. }
            | Event::Cut { .. }
            | Event::Returned { .. }
            | Event::ConfirmationAwaited { .. } => return None,
        };
        let at = |path: usize| u32::try_from(path).unwrap_or(u32::MAX);
        Some(EnterLine {
            peer: node.0.to_vec().into(),
            change: change.into(),
            from: at(from),
            to: at(to),
            since_us: now_us.saturating_sub(micros(cut_for)),
            cut_for_ms: u64::try_from(cut_for.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::ManualClock;

    use super::*;

    const PEER: NodeId = NodeId([2; 16]);
    const DAY_US: i64 = 86_400_000_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What waits: change, from, to, since, how long.
    fn waiting(journal: &Journal) -> Vec<(LineChange, u32, u32, i64, u64)> {
        let state = journal.state.lock();
        let told = state.waiting.iter();
        told.map(|e| (e.change(), e.from, e.to, e.since_us, e.cut_for_ms)).collect()
    }

    #[tokio::test]
    async fn an_incident_is_entered_once_from_its_last_good_message_to_its_end() {
        let clock = Arc::new(ManualClock::at(DAY_US));
        let journal = Journal::new(Arc::clone(&clock) as _);
        let node = PEER;
        journal.note(&Event::Switched { node, from: 0, to: 1, cut_for: seconds(8) });
        clock.advance_us(22_000_000);
        journal.note(&Event::Interrupted { node, cut_for: seconds(30) });
        let cut_for = seconds(7_200);
        clock.advance_us(7_170_000_000);
        journal.note(&Event::StandbyOrdered { node, cut_for, confirmed: false });
        journal.note(&Event::Mended { node, from: 1, after: seconds(7_300) });
        journal.note(&Event::Returned { node, from: 1, after: seconds(7_300) });
        let since = DAY_US - 8_000_000;
        assert_eq!(
            waiting(&journal),
            [
                (LineChange::Switched, 0, 1, since, 8_000),
                (LineChange::Ordered, 0, 1, since, 7_200_000),
                (LineChange::Returned, 1, 0, since - 100_000_000, 7_300_000),
            ]
        );
        assert_eq!(journal.next().await.change(), LineChange::Switched);
        assert_eq!(journal.next().await.change(), LineChange::Ordered);
        assert_eq!(waiting(&journal).len(), 1);
    }

    #[test]
    fn a_line_without_a_second_path_has_its_incident_too_and_a_short_cut_none() {
        let clock = Arc::new(ManualClock::at(DAY_US));
        let journal = Journal::new(clock);
        let node = PEER;
        journal.note(&Event::Cut { node, path: 0 });
        journal.note(&Event::Up { node, path: 0, cut_for: seconds(4) });
        assert_eq!(waiting(&journal), []);
        journal.note(&Event::Interrupted { node, cut_for: seconds(30) });
        journal.note(&Event::Mended { node, from: 0, after: seconds(90) });
        journal.note(&Event::Mended { node, from: 0, after: seconds(90) });
        let changes: Vec<_> = waiting(&journal).iter().map(|told| told.0).collect();
        assert_eq!(changes, [LineChange::Interrupted, LineChange::Returned]);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_newest_stays() {
        let journal = Arc::new(Journal::new(Arc::new(ManualClock::at(DAY_US))));
        let next = tokio::spawn({
            let journal = Arc::clone(&journal);
            async move { journal.next().await }
        });
        tokio::task::yield_now().await;
        let node = PEER;
        journal.note(&Event::Switched { node, from: 0, to: 1, cut_for: seconds(1) });
        assert_eq!(next.await.expect("taken").change(), LineChange::Switched);
        for to in 1..=ENTRIES_MAX + 1 {
            journal.note(&Event::Switched { node, from: 0, to, cut_for: seconds(1) });
        }
        let waits = waiting(&journal);
        assert_eq!(waits.len(), ENTRIES_MAX);
        assert_eq!(waits.first().map(|told| told.2), Some(2));
    }
}
