use std::ops::Range;

use bytes::Bytes;
use dtm_machine::seams::MemoryStateStore;
use dtm_types::command::ClusterRow;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tonic::Status;

use super::*;
use crate::log_store::{Flushed, LogDamage, LogEntry, LogError, LogMarks, MemoryLog};
use crate::network::entries;

const GROUP: GroupId = GroupId(1);

fn entries(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
    let payload = convert::payload_to_bytes(&Payload::Blank);
    range.map(|index| LogEntry { index, term, leader: 1, payload: payload.clone() }).collect()
}

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { index, term, leader: 1 }
}

async fn log(entries: Vec<LogEntry>) -> MemoryLog {
    let log = MemoryLog::new();
    wait_flushed(|done| log.append(entries, done)).await.expect("memory");
    log
}

fn survivor(log: Arc<dyn ReplicaLog>, applied: LogPosition) -> Survivor {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(GROUP));
    let mut batch = StateBatch::default();
    let row = applied_row(Some(convert::log_id_of(applied)), &StoredMembership::default());
    batch.put(APPLIED_KEY, row);
    store.write(&batch).expect("memory");
    let settled = tokio::sync::OnceCell::new();
    Survivor { group: GROUP, replica: ReplicaId(7), version_max: 2, log, store, settled }
}

/// Another replica's log, asked as over the network.
struct Source(Arc<dyn ReplicaLog>);

impl EntrySource for Source {
    fn name(&self) -> String {
        "the source".to_owned()
    }

    fn ask(&self, request: wire::EntriesRequest) -> BoxFuture<'_, Result<entries::Answer, Status>> {
        Box::pin(async move {
            let answer = entries::answer(&*self.0, 0, &request);
            let wire::EntriesResponse { entries, through, last, holds_next, .. } = answer;
            let entries =
                entries.into_iter().map(entries::entry_from_wire).collect::<Result<_, _>>()?;
            Ok(entries::Answer { entries, through, last, holds_next })
        })
    }
}

/// A log in which an entry cannot be read until it is written again.
struct Damaged {
    inner: MemoryLog,
    missing: Mutex<Vec<u64>>,
}

impl ReplicaLog for Damaged {
    fn marks(&self) -> LogMarks {
        let missing = self.missing.lock().clone();
        let missing: Vec<_> =
            missing.into_iter().map(|index| IndexRange { from: index, to: index }).collect();
        let damage = LogDamage { missing, ..LogDamage::default() };
        let recovering = (!damage.missing.is_empty()).then_some(damage);
        LogMarks { recovering, ..self.inner.marks() }
    }

    fn payload_bytes_max(&self) -> usize {
        self.inner.payload_bytes_max()
    }

    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.ready(bytes)
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.inner.append(entries, flushed)
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        self.inner.save_vote(vote, flushed)
    }

    fn save_committed(&self, committed: Bytes) {
        self.inner.save_committed(committed);
    }

    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError> {
        self.inner.truncate_after(last, flushed)
    }

    fn purge_to(&self, position: LogPosition) -> Result<(), LogError> {
        self.missing.lock().retain(|index| *index > position.index);
        self.inner.purge_to(position)
    }

    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError> {
        self.inner.reset(position, visible_through, flushed)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        match self.missing.lock().iter().find(|index| range.contains(index)) {
            Some(index) => Err(LogError::Damaged(*index)),
            None => self.inner.read(range, bytes_max),
        }
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        match self.missing.lock().contains(&index) {
            true => Err(LogError::Damaged(index)),
            false => self.inner.read_record(index),
        }
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        let held: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
        self.missing.lock().retain(|index| !held.contains(index));
        self.inner.store_records(entries, flushed)
    }

    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError> {
        self.inner.lacking(through)
    }

    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError> {
        self.inner.declare_whole(flushed)
    }

    fn release(&self, through: u64) {
        self.inner.release(through);
    }
}

async fn damaged(entries: Vec<LogEntry>, missing: &[u64]) -> Arc<Damaged> {
    Arc::new(Damaged { inner: log(entries).await, missing: Mutex::new(missing.to_vec()) })
}

// Rows that a snapshot switched, behind which the log was not started anew before the power went.
//
// holds: RAFT-1, ING-1
#[tokio::test]
async fn rows_beyond_the_log_are_followed_before_anything_is_added() {
    let source: Arc<dyn ReplicaLog> = Arc::new(log(entries(3, 1..=35)).await);
    for held in [20, 0] {
        let own: Arc<dyn ReplicaLog> = Arc::new(log(entries(2, 1..=held)).await);
        let survivor = survivor(Arc::clone(&own), at(3, 30));
        survivor.settle(1).await.expect("the log follows");
        let stand = survivor.stand();
        let last = stand.last.map(|last| (last.term, last.index));
        assert_eq!((last, stand.applied, &*stand.unfit), (Some((3, 30)), 30, ""));
        assert_eq!(stand.absent, [wire::IndexRange { from: held + 1, to: 30 }]);
        let levelled =
            survivor.level((Some(&Source(Arc::clone(&source))), &[]), at(3, 35), 1).await;
        assert_eq!(levelled.expect("no hole").index, 35);
        assert_eq!(own.marks().last, Some(at(3, 35)));
    }
}

// A plan that was followed half-way, and lost.
//
// holds: RAFT-1
#[tokio::test]
async fn a_log_is_not_touched_where_the_rows_are_of_a_later_life() {
    let own: Arc<dyn ReplicaLog> = Arc::new(log(entries(2, 1..=20)).await);
    let survivor = survivor(Arc::clone(&own), at(3, 22));
    let row = ClusterRow { incarnation: 2, ..ClusterRow::default() };
    let mut batch = StateBatch::default();
    batch.put(vec![table::CLUSTER], row.encode_to_vec());
    survivor.store.write(&batch).expect("memory");
    let refused = survivor.settle(1).await.expect_err("the plan has to come back");
    assert!(refused.to_string().contains("its rows are of life 2"), "{refused}");
    assert_eq!((own.marks().last, own.marks().purged), (Some(at(2, 20)), None));
    survivor.end(at(2, 20)).await.expect("as the plan says");
    let beyond = survivor.end(at(2, 19)).await.expect_err("an entry that was applied is not cut");
    assert!(beyond.to_string().contains("its log begins at"), "{beyond}");
}

// holds: RAFT-1
#[tokio::test]
async fn entries_behind_a_hole_are_refused_and_not_added() {
    let source: Arc<dyn ReplicaLog> = Arc::new(log(entries(3, 1..=35)).await);
    let own: Arc<dyn ReplicaLog> = Arc::new(log(entries(2, 1..=20)).await);
    let adoption = Adoption { group: GROUP, log: &own };
    let refused = adoption.run(&Source(source), Some(30)).await.expect_err("there is a hole");
    assert!(refused.to_string().contains("our log ends at 20"), "{refused}");
    assert_eq!(own.marks().last, Some(at(2, 20)));
}

// holds: ING-1
#[tokio::test]
async fn the_one_that_holds_the_most_is_mended_from_the_others() {
    let own = damaged(entries(2, 1..=20), &[13, 14]).await;
    let survivor = survivor(Arc::clone(&own) as _, at(2, 10));
    assert!(survivor.stand().damaged);
    let short: Arc<dyn ReplicaLog> = Arc::new(log(entries(2, 1..=14)).await);
    let other: Arc<dyn ReplicaLog> = Arc::new(log(entries(2, 1..=18)).await);
    let (short, other) = (Source(short), Source(other));

    // One that does not hold what follows the gap may have gone on otherwise.
    let refused =
        survivor.level((None, &[&short]), at(2, 20), 1).await.expect_err("nobody gives them");
    assert!(refused.to_string().contains("entries 13 to 13 cannot be read here"), "{refused}");
    assert_eq!(survivor.applied().expect("reads"), 10, "nothing was applied");
    let levelled = survivor.level((None, &[&short, &other]), at(2, 20), 1).await.expect("mended");
    assert_eq!(levelled.index, 20);
    assert!(!survivor.stand().damaged);
}

// holds: ING-1
#[tokio::test]
async fn damage_below_the_rows_is_lacking_and_holds_up_nothing() {
    let own = damaged(entries(2, 1..=20), &[4]).await;
    let survivor = survivor(Arc::clone(&own) as _, at(2, 10));
    survivor.settle(1).await.expect("it is left to the rows");
    let stand = survivor.stand();
    assert_eq!((stand.damaged, stand.lacking), (false, 1));
    assert_eq!(stand.absent, [wire::IndexRange { from: 4, to: 4 }]);
    let end = survivor.level((None, &[]), at(2, 20), 1).await.expect("whole above");
    assert_eq!(end.index, 20);
}
