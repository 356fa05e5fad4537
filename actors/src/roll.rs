//! The sessions that are open on this node, by id and by stream.

use std::collections::HashMap;

use dtm_types::{GroupId, StreamKey};
use ractor::ActorRef;

use crate::error::Error;
use crate::session::SessionMessage;

/// A session, as the supervisor's side knows it.
pub(crate) struct Entry {
    pub(crate) actor: ActorRef<SessionMessage>,
    pub(crate) group: GroupId,
    pub(crate) stream: StreamKey,
    /// By the group's count.
    pub(crate) session: u64,
    /// The leader's address that its client was told last.
    pub(crate) told: Option<String>,
}

impl Entry {
    /// Ends it where the group knows a newer session of its stream. Apply fences it as well, but only
    /// when it sends.
    fn fence(&self, newest: u64) -> bool {
        let is_older = self.session < newest;
        if is_older {
            let (stream, session) = (self.stream.clone(), newest);
            let _ = self.actor.cast(SessionMessage::Fail(Error::Superseded { stream, session }));
        }
        is_older
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Roll {
    entries: HashMap<u64, Entry>,
    /// The newest session of each stream.
    newest: HashMap<StreamKey, u64>,
}

impl Roll {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a session; the one that held its stream here before ends, or it itself where it is the
    /// older one.
    pub(crate) fn enter(&mut self, id: u64, entry: Entry) {
        match self.newest.get(&entry.stream).and_then(|id| self.entries.get(id)) {
            Some(held) if entry.fence(held.session) => {}
            held => {
                if let Some(held) = held {
                    held.fence(entry.session);
                }
                self.newest.insert(entry.stream.clone(), id);
            }
        }
        self.entries.insert(id, entry);
    }

    pub(crate) fn leave(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        if self.newest.get(&entry.stream) == Some(&id) {
            self.newest.remove(&entry.stream);
        }
    }

    /// The group says which session holds a stream. Whether one here ends for it.
    pub(crate) fn supersede(&self, stream: &StreamKey, session: u64) -> bool {
        let newest = self.newest.get(stream).and_then(|id| self.entries.get(id));
        newest.is_some_and(|entry| entry.fence(session))
    }

    /// Each stream that is open here once, with its group and newest session.
    pub(crate) fn streams(&self) -> Vec<(GroupId, StreamKey, u64)> {
        let newest = self.newest.values().filter_map(|id| self.entries.get(id));
        newest.map(|e| (e.group, e.stream.clone(), e.session)).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }
}
