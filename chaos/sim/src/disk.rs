//! The log of a simulated node: what was written is there at once, on disk later, and a power cut
//! takes what was not on disk yet, or only its end.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::{
    Flushed, IndexRange, LogEntry, LogError, LogMarks, LogPosition, MemoryLog, ReplicaLog,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::world::World;

/// What was asked of the log and is not on disk yet.
enum Write {
    Append(Vec<LogEntry>),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(Option<u64>),
    Purge(LogPosition),
    Reset(LogPosition, Option<u64>),
    Store(Vec<LogEntry>),
    Whole,
}

impl Write {
    /// Does it to a log that answers at once.
    fn to(self, log: &MemoryLog) -> Result<(), LogError> {
        let done: Flushed = Box::new(drop);
        match self {
            Self::Append(entries) => log.append(entries, done),
            Self::Vote(vote) => log.save_vote(vote, done),
            Self::Committed(at) => {
                log.save_committed(at);
                Ok(())
            }
            Self::Truncate(last) => log.truncate_after(last, done),
            Self::Purge(at) => log.purge_to(at),
            Self::Reset(at, visible) => log.reset(at, visible, done),
            Self::Store(entries) => log.store_records(entries, done),
            Self::Whole => log.declare_whole(done),
        }
    }
}

/// What the disk itself does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBug {
    /// It says that something is on disk which is not.
    SyncsNothing,
    /// The same, for votes alone.
    SyncsNoVotes,
}

struct State {
    /// What the replica reads.
    shown: Arc<MemoryLog>,
    /// What a power cut leaves.
    kept: MemoryLog,
    waiting: VecDeque<(Write, Option<Flushed>)>,
    is_flushing: bool,
    /// Rises with each power cut: what was on its way then is gone.
    life: u64,
    slow: Duration,
}

/// The disk of one replica.
pub(crate) struct Disk {
    replica: u64,
    world: Weak<World>,
    bug: Option<DiskBug>,
    state: Mutex<State>,
    own: Weak<Self>,
}

impl Disk {
    pub(crate) fn new(replica: u64, world: &Arc<World>, bug: Option<DiskBug>) -> Arc<Self> {
        let state = State {
            shown: Arc::default(),
            kept: MemoryLog::new(),
            waiting: VecDeque::new(),
            is_flushing: false,
            life: 0,
            slow: Duration::ZERO,
        };
        let world = Arc::downgrade(world);
        Arc::new_cyclic(|own| Self {
            replica,
            world,
            bug,
            state: Mutex::new(state),
            own: own.clone(),
        })
    }

    /// Each sync takes so much longer from now on.
    pub(crate) fn slow_down(&self, by: Duration) {
        self.state.lock().slow = by;
    }

    /// The power is cut: of what was not on disk the first `kept_of` per mille reach it, nobody hears
    /// of it, and the replica that had it open can do nothing more with it.
    pub(crate) fn cut(&self, kept_of: u64) {
        let mut state = self.state.lock();
        let left = state.waiting.len() as u64 * kept_of / 1_000;
        for _ in 0..left {
            let (write, _) = state.waiting.pop_front().expect("counted");
            if !self.is_forgotten(&write) {
                write.to(&state.kept).expect("memory takes it");
            }
        }
        state.waiting.clear();
        state.shown.stop("the power was cut");
        state.shown = Arc::new(state.kept.copy());
        state.life += 1;
        state.is_flushing = false;
    }

    fn is_forgotten(&self, write: &Write) -> bool {
        match self.bug {
            Some(DiskBug::SyncsNothing) => true,
            Some(DiskBug::SyncsNoVotes) => matches!(write, Write::Vote(_)),
            None => false,
        }
    }

    /// As it is until the next power cut.
    pub(crate) fn open(self: &Arc<Self>) -> Arc<dyn ReplicaLog> {
        let state = self.state.lock();
        Arc::new(Opened {
            shown: Arc::clone(&state.shown),
            life: state.life,
            disk: Arc::clone(self),
        })
    }

    fn write(&self, write: Write, flushed: Option<Flushed>) {
        let mut state = self.state.lock();
        state.waiting.push_back((write, flushed));
        if !state.is_flushing {
            state.is_flushing = true;
            let disk = self.own.upgrade().expect("whoever writes holds it");
            let life = state.life;
            tokio::spawn(async move { disk.flush(life).await });
        }
    }

    /// One sync after the other, each of all that waits when it begins.
    async fn flush(self: Arc<Self>, life: u64) {
        while let Some(world) = self.world.upgrade() {
            let (count, slow) = {
                let mut state = self.state.lock();
                if state.life == life && state.waiting.is_empty() {
                    state.is_flushing = false;
                    return;
                }
                (state.waiting.len(), state.slow)
            };
            tokio::time::sleep(world.sync_takes() + slow).await;
            world.step("sync", self.replica, self.replica, count as u64);
            let told = {
                let mut state = self.state.lock();
                if state.life != life {
                    return;
                }
                let mut told = Vec::new();
                for _ in 0..count {
                    let (write, flushed) = state.waiting.pop_front().expect("only this takes");
                    if !self.is_forgotten(&write) {
                        write.to(&state.kept).expect("memory takes it");
                    }
                    told.extend(flushed);
                }
                told
            };
            told.into_iter().for_each(|flushed| flushed(Ok(())));
        }
    }
}

/// A log as one life of a replica holds it.
struct Opened {
    shown: Arc<MemoryLog>,
    life: u64,
    disk: Arc<Disk>,
}

impl Opened {
    /// Shows it at once and lets it reach the disk.
    fn write(
        &self,
        write: Write,
        flushed: Option<Flushed>,
        show: impl FnOnce(&MemoryLog) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        show(&self.shown)?;
        debug_assert_eq!(
            self.life,
            self.disk.state.lock().life,
            "a log that was cut takes nothing"
        );
        self.disk.write(write, flushed);
        Ok(())
    }
}

impl ReplicaLog for Opened {
    fn marks(&self) -> LogMarks {
        self.shown.marks()
    }

    fn payload_bytes_max(&self) -> usize {
        self.shown.payload_bytes_max()
    }

    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        self.shown.ready(bytes)
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        let write = Write::Append(entries.clone());
        self.write(write, Some(flushed), |log| log.append(entries, Box::new(drop)))
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        let write = Write::Vote(vote.clone());
        self.write(write, Some(flushed), |log| log.save_vote(vote, Box::new(drop)))
    }

    fn save_committed(&self, committed: Bytes) {
        let show = |log: &MemoryLog| {
            log.save_committed(committed.clone());
            Ok(())
        };
        if self.life == self.disk.state.lock().life {
            // Nobody waits for it.
            let _ = self.write(Write::Committed(committed.clone()), None, show);
        }
    }

    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError> {
        let write = Write::Truncate(last);
        self.write(write, Some(flushed), |log| log.truncate_after(last, Box::new(drop)))
    }

    fn purge_to(&self, position: LogPosition) -> Result<(), LogError> {
        self.write(Write::Purge(position), None, |log| log.purge_to(position))
    }

    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError> {
        let write = Write::Reset(position, visible_through);
        self.write(write, Some(flushed), |log| log.reset(position, visible_through, Box::new(drop)))
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        self.shown.read(range, bytes_max)
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        self.shown.read_record(index)
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        let write = Write::Store(entries.clone());
        self.write(write, Some(flushed), |log| log.store_records(entries, Box::new(drop)))
    }

    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError> {
        self.shown.lacking(through)
    }

    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError> {
        self.write(Write::Whole, Some(flushed), |log| log.declare_whole(Box::new(drop)))
    }

    fn release(&self, _through: u64) {}
}
