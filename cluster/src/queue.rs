//! Commands of one group that wait on this node: for a bundle here, or for the way to the leader.
//!
//! Each command is answered once: with its outcome, with a refusal, or as unknown. What was
//! certainly not written returns to its place, so commands keep their order within their lane.
// Hot path: every command passes here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Reply};
use dtm_types::command::Outcome;
use dtm_types::{GroupId, bundle};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::forward::{Forwarded, Job};
use crate::lane::{Lane, Lanes};
use crate::network::Link;

/// While nobody leads, or the leader does not answer, the queue is looked at this often.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(20);
const OVERLOAD_RETRY_AFTER_MS: u64 = 200;

/// One part in so many of a queue's bytes belongs to each lane alone; all lanes share the rest.
const OWN_PART: usize = 8;

/// Bounds of a group's queue.
///
/// Each lane has an eighth of the bytes for itself and takes of the half that all share, so none
/// fills the room of another. A lane that holds nothing takes one command of any size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueConfig {
    /// Commands waiting or in flight, bytes; beyond it proposals are refused as overload.
    pub(crate) bytes_max: usize,
    /// How long a command waits for a leader, or for one that takes it.
    pub(crate) leader_wait: Duration,
}

impl QueueConfig {
    /// Whether a lane takes so many bytes more, by what each lane holds.
    fn fits(&self, held: &[usize; Lane::COUNT], lane: Lane, bytes: usize) -> bool {
        let own = self.bytes_max / OWN_PART;
        let mut wanted = *held;
        wanted[lane as usize] = wanted[lane as usize].saturating_add(bytes);
        let shared = wanted.iter().map(|bytes| bytes.saturating_sub(own));
        let shared = shared.fold(0, usize::saturating_add);
        held[lane as usize] == 0
            || wanted[lane as usize] <= own
            || shared <= self.bytes_max - Lane::COUNT * own
    }
}

/// One command and who waits for it.
pub(crate) struct Item {
    pub(crate) command: Bytes,
    pub(crate) reply: Reply,
    /// Lowest version of a group that may hold it.
    pub(crate) version: u8,
    lane: Lane,
    deadline: Instant,
    /// Came from another node: never forwarded a second time.
    is_forwarded: bool,
}

impl Item {
    /// Goes before batches on every way to the leader.
    pub(crate) fn is_opening(&self) -> bool {
        self.lane == Lane::Opening
    }
}

#[derive(Default)]
struct State {
    /// By lane and arrival; a command that was certainly not written returns to its number.
    items: Lanes<Item>,
    next: u64,
    /// Of everything not yet answered, by lane.
    bytes: [usize; Lane::COUNT],
    /// Something came back unwritten: nothing is tried before this moment.
    not_before: Option<Instant>,
    closed: Option<String>,
}

/// The queue of one group on one node.
pub(crate) struct CommandQueue {
    group: GroupId,
    config: QueueConfig,
    state: Mutex<State>,
    wake: Notify,
}

impl CommandQueue {
    pub(crate) fn new(group: GroupId, config: QueueConfig) -> Arc<Self> {
        Arc::new(Self { group, config, state: Mutex::default(), wake: Notify::new() })
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// How long a command waits.
    pub(crate) fn patience(&self) -> Duration {
        self.config.leader_wait
    }

    /// Bytes not yet answered.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.state.lock().bytes.iter().sum()
    }

    /// Somebody may have something to do.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Until [`CommandQueue::wake`]. Cancel-safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes a command, or refuses it at once: as overload, as unavailable, as nothing that this
    /// software knows.
    pub(crate) fn push(&self, command: Bytes, reply: Reply, is_forwarded: bool) {
        let group = self.group;
        let Some(version) = dtm_types::version_of(&command) else {
            // In a log it would stop the group on every node of this release.
            let cause = format!(
                "the command for group {group} is empty or newer than the software of the node that \
                 was asked: install the release that the others run"
            );
            return reply(Err(ProposeError::NotSupported { group, cause }));
        };
        // Past this point it would end the group's core on one leader after the other.
        if command.len() > bundle::COMMAND_BYTES_MAX {
            let (bytes, bytes_max) = (command.len(), bundle::COMMAND_BYTES_MAX);
            return reply(Err(ProposeError::TooLarge { group, bytes, bytes_max }));
        }
        let refused = {
            let mut state = self.state.lock();
            let (bytes, lane) = (command.len(), Lane::of(&command));
            if let Some(cause) = &state.closed {
                ProposeError::Unavailable { group, cause: cause.clone() }
            } else if !self.config.fits(&state.bytes, lane, bytes) {
                ProposeError::Overloaded { group, retry_after_ms: OVERLOAD_RETRY_AFTER_MS }
            } else {
                let deadline = Instant::now() + self.config.leader_wait;
                let number = state.next;
                state.next += 1;
                state.bytes[lane as usize] += bytes;
                let item = Item { command, reply, version, lane, deadline, is_forwarded };
                state.items.insert(lane, number, item);
                drop(state);
                self.wake.notify_one();
                return;
            }
        };
        reply(Err(refused));
    }

    /// The commands whose turn it is, together at most so many bytes; at least one where there is
    /// one.
    pub(crate) fn take(&self, bytes_max: usize) -> Vec<(u64, Item)> {
        let mut bytes = 0;
        self.state.lock().items.take_while(|item| {
            let is_first = bytes == 0;
            bytes += item.command.len();
            is_first || bytes <= bytes_max
        })
    }

    /// [`CommandQueue::take`] for a bundle of this version: what needs a higher one is refused. Nodes
    /// of the release before may be members until the group is raised; they would stop at such a
    /// command, or drop what they do not know of it and part from the others.
    pub(crate) fn take_for(&self, version: u8, bytes_max: usize) -> Vec<(u64, Item)> {
        loop {
            let mut items = self.take(bytes_max);
            let is_end = items.is_empty();
            let newer = items.extract_if(.., |(_, item)| item.version > version);
            newer.for_each(|(_, item)| self.refuse_newer(item, version));
            if is_end || !items.is_empty() {
                return items;
            }
        }
    }

    fn refuse_newer(&self, item: Item, version: u8) {
        let (group, needed) = (self.group, item.version);
        let cause = format!(
            "group {group} is at version {version}, this needs version {needed}: upgrade every node, \
             then run `dtm cluster upgrade`"
        );
        self.answer(item, Err(ProposeError::NotSupported { group, cause }));
    }

    /// Answers a command that was taken.
    pub(crate) fn answer(&self, item: Item, result: Result<Outcome, ProposeError>) {
        self.state.lock().bytes[item.lane as usize] -= item.command.len();
        (item.reply)(result);
    }

    fn unavailable(&self, item: Item, cause: &str) {
        let error = ProposeError::Unavailable { group: self.group, cause: cause.to_owned() };
        self.answer(item, Err(error));
    }

    /// Answers what waited too long; true when something is left.
    pub(crate) fn expire(&self, cause: &str) -> bool {
        let now = Instant::now();
        let (late, is_left) = {
            let mut state = self.state.lock();
            (state.items.drop_while(|item| item.deadline <= now), !state.items.is_empty())
        };
        late.into_iter().for_each(|item| self.unavailable(item, cause));
        is_left
    }

    /// Forwards what the link takes; true when something is left.
    pub(crate) fn forward(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        let forwarder = link.forwarder();
        loop {
            let Some((number, item)) = self.state.lock().items.pop() else {
                return false;
            };
            if item.is_forwarded {
                // The sender looks for the leader itself.
                let error = ProposeError::NotLeader { group: self.group, leader: None };
                self.answer(item, Err(error));
                continue;
            }
            if item.deadline <= Instant::now() {
                self.unavailable(item, "the leader does not answer");
                continue;
            }
            let job = Job { queue: Arc::downgrade(self), group: self.group, number, item };
            if let Err(full) = forwarder.send(job) {
                self.state.lock().items.insert(full.item.lane, full.number, full.item);
                // Those behind it are not reached.
                return self.expire("the leader does not answer");
            }
        }
    }

    /// What became of a command that was forwarded.
    pub(crate) fn forwarded(&self, number: u64, item: Item, forwarded: Forwarded) {
        match forwarded {
            Forwarded::Outcome(outcome) => self.answer(item, Ok(*outcome)),
            Forwarded::Failed(error) => self.answer(item, Err(error)),
            Forwarded::NotTaken => self.put_back([(number, item)]),
        }
    }

    /// Nothing of these was written: they return to their places.
    pub(crate) fn put_back(&self, items: impl IntoIterator<Item = (u64, Item)>) {
        let refused = {
            let mut state = self.state.lock();
            match state.closed.clone() {
                None => {
                    items.into_iter().for_each(|(number, item)| {
                        state.items.insert(item.lane, number, item);
                    });
                    state.not_before = Some(Instant::now() + RETRY_PAUSE);
                    None
                }
                Some(cause) => Some((cause, items.into_iter().collect::<Vec<_>>())),
            }
        };
        if let Some((cause, items)) = refused {
            items.into_iter().for_each(|(_, item)| self.unavailable(item, &cause));
        }
        self.wake.notify_one();
    }

    /// Keeps nodes that disagree on who leads from sending commands around at full speed.
    pub(crate) fn is_backing_off(&self) -> bool {
        let mut state = self.state.lock();
        let is_waiting = state.not_before.is_some_and(|moment| moment > Instant::now());
        if !is_waiting {
            state.not_before = None;
        }
        is_waiting && !state.items.is_empty()
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&self, cause: &str) {
        let items = {
            let mut state = self.state.lock();
            state.closed.get_or_insert_with(|| cause.to_owned());
            std::mem::take(&mut state.items)
        };
        items.into_values().for_each(|item| self.unavailable(item, cause));
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;

#[cfg(test)]
#[path = "queue_version_test.rs"]
mod version_tests;
