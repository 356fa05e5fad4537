//! The log of a node: opening, groups, segments, closing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::error::{Error, StopReason};
use super::group::{GroupLog, GroupLogState};
use super::image::given;
use super::memory::{Group, Shared};
use super::metrics::LogMetrics;
use super::prepare::Preparer;
use super::queue::{Op, Request};
use super::read::ScrubReport;
use super::recover::{self, Opened, Recovery};
use super::segment::{self, Files};
use super::slots::Slots;
use super::state::ReplicaState;
use super::types::{Callback, LogConfig, LogIdentity, ReplicaKey};
use super::writer::Writer;
use crate::vfs::Vfs;

/// Replicas of one node at most, meta's among them; checkpoints name them all.
const REPLICAS_MAX: usize = dtm_types::INGEST_GROUPS_MAX as usize + 1;

/// A group's log, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Whose log it is.
    pub key: ReplicaKey,
    /// What it holds.
    pub state: GroupLogState,
}

/// A sealed segment, as listed for retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; rises with time.
    pub number: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Lowest and highest index of each replica in it.
    pub ranges: BTreeMap<ReplicaKey, (u64, u64)>,
    /// Replicas whose log above the purge mark needs it.
    pub pinned_by: Vec<ReplicaKey>,
}

/// The node-wide log. Dropping it closes it: everything queued is written first.
pub struct NodeLog {
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    vfs: Arc<dyn Vfs>,
    threads: Vec<JoinHandle<()>>,
    _lock: Box<dyn Send + Sync>,
}

impl NodeLog {
    /// Whether the segments in `dir` are of this cluster and node, as [`NodeLog::open`] will ask.
    /// Reads their headers only and writes nothing; a folder that is not there is of nobody.
    ///
    /// # Errors
    /// `Foreign`, `Version`, `Io`.
    pub fn check_owner(vfs: &dyn Vfs, dir: &Path, id: LogIdentity) -> Result<(), Error> {
        let names = match vfs.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed.map_err(|error| Error::io("list", dir, error))?,
        };
        for name in names {
            let Some(number) = segment::parse_name(&name) else { continue };
            let path = dir.join(&name);
            let failed = |error: io::Error| Error::io("read", &path, error);
            let mut header = [0; segment::SEGMENT_HEADER_BYTES as usize];
            let file = vfs.open(&path).map_err(failed)?;
            let held = given(file.read_at(0, &mut header)).map_err(failed)?.unwrap_or(0);
            segment::check_header(&header[..held], number, id, &path)?;
        }
        Ok(())
    }

    /// Opens the log in `dir`, making it when there is none. Cuts a torn tail, finds damage,
    /// starts the writer. A full disk does not prevent opening: appends are refused until there is
    /// room. Blocks for the time it takes to read one segment and the footers of the others.
    ///
    /// # Errors
    /// `Foreign`, `Version`, `Locked` (nothing is written then), `Io`.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        cfg: LogConfig,
        id: LogIdentity,
    ) -> Result<(Self, Recovery), Error> {
        cfg.check();
        vfs.create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        let lock_path = dir.join("LOCK");
        let lock = vfs.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Locked { path: lock_path },
            _ => Error::io("lock", lock_path, error),
        })?;
        let Opened { replicas, segments, next_lsn, next_segment, report } =
            recover::open(vfs.as_ref(), dir, id)?;
        let files = Files::new(Arc::clone(&vfs), dir.into(), id.cluster, cfg.open_files_max);
        let shared = Arc::new(Shared::new(cfg, id, files));
        *shared.sealed.write() = segments;
        let mut states = BTreeMap::new();
        for (key, (state, slots)) in replicas {
            states.insert(key, state.clone());
            shared.groups.write().insert(key, Arc::new(Group::new(state, slots)));
        }
        let preparer = Arc::new(Preparer::new(
            Arc::clone(&vfs),
            dir.into(),
            Arc::clone(&shared),
            next_segment,
        ));
        preparer.prepare().map_err(|error| Error::io("make a segment in", dir, error))?;
        let writer = Writer::new(Arc::clone(&shared), Arc::clone(&preparer), states, next_lsn);
        let for_thread = Arc::clone(&preparer);
        let threads = vec![
            spawn("dtm-log-writer", move || writer.run())?,
            spawn("dtm-log-space", move || for_thread.run())?,
        ];
        Ok((Self { shared, preparer, vfs, threads, _lock: lock }, report))
    }

    /// The log of one replica, made when there is none. Blocks of other replicas of the group stay
    /// invisible to it.
    ///
    /// # Errors
    /// `Stopped`, and `TooManyReplicas` where another one would be made: nothing was.
    pub fn group(&self, group: u32, replica: u64, incarnation: u64) -> Result<GroupLog, Error> {
        if let Some(reason) = self.stopped() {
            return Err(Error::Stopped { reason });
        }
        let key = ReplicaKey { group, incarnation, replica };
        let mut groups = self.shared.groups.write();
        if groups.len() >= REPLICAS_MAX && !groups.contains_key(&key) {
            return Err(Error::TooManyReplicas { replicas_max: REPLICAS_MAX });
        }
        let group = groups
            .entry(key)
            .or_insert_with(|| Arc::new(Group::new(ReplicaState::new(key), Slots::starting_at(0))));
        let handle = GroupLog { shared: Arc::clone(&self.shared), group: Arc::clone(group) };
        Ok(handle)
    }

    /// Forgets a replica for ever, its records included. `done` is called when that is durable.
    pub fn drop_replica(&self, key: ReplicaKey, done: Callback) -> Result<(), Error> {
        let group = self.shared.groups.read().get(&key).cloned();
        let Some(group) = group else {
            return Err(Error::Dropped { group: key.group, replica: key.replica });
        };
        let mut memory = group.memory.lock();
        self.shared.queue.push(Request::new(key, Op::Drop, Some(done)))?;
        memory.is_dropped = true;
        memory.uncache_range(0, u64::MAX, &self.shared.counters);
        memory.slots.restart(0);
        drop(memory);
        self.shared.committed.lock().remove(&key);
        self.shared.groups.write().remove(&key);
        Ok(())
    }

    /// All replicas of this log.
    pub fn groups(&self) -> Vec<GroupState> {
        let groups: Vec<Arc<Group>> = self.shared.groups.read().values().cloned().collect();
        groups
            .into_iter()
            .map(|group| {
                let handle = GroupLog { shared: Arc::clone(&self.shared), group };
                GroupState { key: handle.key(), state: handle.state() }
            })
            .collect()
    }

    /// Why the log stopped, if it did. The first reason, for the life of the process.
    pub fn stopped(&self) -> Option<StopReason> {
        self.shared.queue.stopped()
    }

    /// Counters since opening.
    pub fn metrics(&self) -> LogMetrics {
        self.shared.counters.snapshot()
    }

    /// Sealed segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let oldest = self.oldest_segments();
        let sealed = self.shared.sealed.read();
        let info = |(number, summary): (&u64, &recover::Summary)| SegmentInfo {
            number: *number,
            bytes: summary.bytes,
            ranges: summary.ranges.clone(),
            pinned_by: oldest
                .iter()
                .filter(|(_, oldest)| oldest <= number)
                .map(|(key, _)| *key)
                .filter(|key| summary.ranges.contains_key(key))
                .collect(),
        };
        sealed.iter().map(info).collect()
    }

    fn oldest_segments(&self) -> Vec<(ReplicaKey, u64)> {
        let groups: Vec<Arc<Group>> = self.shared.groups.read().values().cloned().collect();
        let oldest = |group: &Arc<Group>| {
            let memory = group.memory.lock();
            memory.slots.oldest_segment().map(|segment| (group.key, segment))
        };
        groups.iter().filter_map(oldest).collect()
    }

    /// Removes a sealed segment and its records for ever. False when a replica's log still needs
    /// it, or it is not there.
    pub fn retire(&self, number: u64) -> Result<bool, Error> {
        let known = self.segments().into_iter().find(|segment| segment.number == number);
        if known.is_none_or(|segment| !segment.pinned_by.is_empty()) {
            return Ok(false);
        }
        self.shared.sealed.write().remove(&number);
        self.shared.indexes.lock().retain(|(other, _)| *other != number);
        self.shared.files.forget(number);
        let path = self.shared.files.path(number);
        let dir = path.parent().expect("segments lie in a folder");
        self.vfs
            .remove(&path)
            .and_then(|()| self.vfs.sync_dir(dir))
            .map_err(|error| Error::io("remove", &path, error))?;
        Ok(true)
    }

    /// Reads and checks every record of one sealed segment. Damage in a replica's log makes it
    /// recovering. Blocks; meant for a background thread.
    pub fn scrub(&self, number: u64) -> Result<ScrubReport, Error> {
        self.shared.scrub(number)
    }
}

impl Drop for NodeLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.preparer.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| Error::io("start thread", name, error))
}
