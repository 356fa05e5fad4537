//! Commands of one group become bundles.
//!
//! ```text
//!  propose ──> queue ──┬── this node leads: bundle (≤ 1 MiB, ≤ IN_FLIGHT_MAX not yet applied) ─> raft
//!                      ├── another leads:   forward over its link, joins the bundles there
//!                      └── nobody leads:    wait, bounded, then `Unavailable`
//! ```
//!
//! While bundles are in flight commands gather; an idle group proposes at once. A bundle counts as
//! in flight until it is applied, so what is committed and not yet applied is bounded too. A command
//! goes back to its place in the queue only when it is certain that it was not written.
// Hot path: every command passes here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{Clock, ProposeError, Reply};
use dtm_types::{GroupId, NodeId, ReplicaId, bundle};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarded;
use crate::log_store::{LogError, ReplicaLog};
use crate::network::{Link, Links};
use crate::raft::{GroupRaft, ServerMetrics};
use crate::type_config::{BundleBytes, CallbackResponder, PeerNode, WriteResult};

/// What one bundle takes, unless a single command is larger.
const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// Bundles proposed and not yet applied.
const IN_FLIGHT_MAX: usize = 4;
/// While nobody leads, or the leader does not answer, the queue is looked at this often.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const OVERLOAD_RETRY_AFTER_MS: u64 = 200;

/// Bounds of a group's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BundlerConfig {
    /// Commands waiting or in flight, bytes; beyond it proposals are refused as overload.
    pub(crate) queue_bytes_max: usize,
    /// How long a command waits for a leader.
    pub(crate) leader_wait: Duration,
}

struct Item {
    command: Bytes,
    reply: Reply,
    deadline: Instant,
    /// Came from another node: never forwarded a second time.
    is_forwarded: bool,
}

#[derive(Default)]
struct Queue {
    /// By arrival; a command that was certainly not written returns to its number.
    items: BTreeMap<u64, Item>,
    next: u64,
    /// Of everything not yet answered.
    bytes: usize,
    in_flight: usize,
    /// Something came back unwritten: nothing is tried before this moment.
    not_before: Option<Instant>,
    closed: Option<String>,
}

/// The queue of one group on one node.
pub(crate) struct Bundler {
    group: GroupId,
    replica: ReplicaId,
    node: NodeId,
    config: BundlerConfig,
    raft: GroupRaft,
    log: Arc<dyn ReplicaLog>,
    links: Arc<Links>,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    wake: Notify,
}

enum Route {
    Here,
    There(Arc<Link>),
    Nowhere,
}

/// What a bundler is made of.
pub(crate) struct BundlerParts {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeId,
    pub(crate) config: BundlerConfig,
    pub(crate) raft: GroupRaft,
    pub(crate) log: Arc<dyn ReplicaLog>,
    pub(crate) links: Arc<Links>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Bundler {
    pub(crate) fn start(parts: BundlerParts, stop: CancellationToken) -> Arc<Self> {
        let BundlerParts { group, replica, node, config, raft, log, links, clock } = parts;
        let queue = Mutex::new(Queue::default());
        let wake = Notify::new();
        let bundler =
            Arc::new(Self { group, replica, node, config, raft, log, links, clock, queue, wake });
        tokio::spawn(Arc::clone(&bundler).run(stop));
        bundler
    }

    /// A command of this node.
    pub(crate) fn push(&self, command: Bytes, reply: Reply) {
        self.enqueue(command, reply, false);
    }

    /// A command that another node sent here because this one leads.
    pub(crate) fn push_forwarded(&self, command: Bytes, reply: Reply) {
        self.enqueue(command, reply, true);
    }

    /// Bytes not yet answered.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    fn enqueue(&self, command: Bytes, reply: Reply, is_forwarded: bool) {
        let group = self.group;
        let refused = {
            let mut queue = self.queue.lock();
            let bytes = command.len();
            if let Some(cause) = &queue.closed {
                ProposeError::Unavailable { group, cause: cause.clone() }
            } else if queue.bytes > 0 && queue.bytes + bytes > self.config.queue_bytes_max {
                ProposeError::Overloaded { group, retry_after_ms: OVERLOAD_RETRY_AFTER_MS }
            } else {
                let deadline = Instant::now() + self.config.leader_wait;
                let number = queue.next;
                queue.next += 1;
                queue.bytes += bytes;
                queue.items.insert(number, Item { command, reply, deadline, is_forwarded });
                drop(queue);
                self.wake.notify_one();
                return;
            }
        };
        reply(Err(refused));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let route = self.route(&metrics.borrow_watched());
            let must_retry = match route {
                _ if self.is_backing_off() => self.expire("no leader takes it"),
                Route::Here => self.propose_ready().await,
                Route::There(link) => self.forward_ready(&link),
                Route::Nowhere => self.expire("no leader"),
            };
            let pause = if must_retry { RETRY_PAUSE } else { Duration::from_secs(3600) };
            tokio::select! {
                () = self.wake.notified() => {}
                changed = metrics.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        self.close("this replica has stopped");
    }

    fn route(&self, metrics: &ServerMetrics) -> Route {
        match metrics.current_leader {
            Some(leader) if leader == self.replica.0 => Route::Here,
            Some(leader) => match metrics.membership_config.get_node(&leader) {
                Some(PeerNode { node, peer_address, .. }) => {
                    Route::There(self.links.to(*node, peer_address))
                }
                None => Route::Nowhere,
            },
            None => Route::Nowhere,
        }
    }

    /// Answers what waited too long; true when something is left.
    fn expire(&self, cause: &str) -> bool {
        let now = Instant::now();
        let mut late = Vec::new();
        let is_left = {
            let mut queue = self.queue.lock();
            while let Some(entry) = queue.items.first_entry() {
                if entry.get().deadline > now {
                    break;
                }
                late.push(entry.remove());
            }
            !queue.items.is_empty()
        };
        let group = self.group;
        for item in late {
            let cause = cause.to_owned();
            self.answer(
                item.command.len(),
                item.reply,
                Err(ProposeError::Unavailable { group, cause }),
            );
        }
        is_left
    }

    fn answer(
        &self,
        bytes: usize,
        reply: Reply,
        result: Result<dtm_types::command::Outcome, ProposeError>,
    ) {
        self.queue.lock().bytes -= bytes;
        reply(result);
    }

    /// Proposes bundles while there is room in flight; true when it should be tried again soon.
    async fn propose_ready(self: &Arc<Self>) -> bool {
        while let Some(taken) = self.take_bundle() {
            let bytes = taken.bytes();
            match self.log.ready(bytes).await {
                Ok(()) => {}
                Err(error) => {
                    taken.refuse(&self.to_propose_error(error));
                    continue;
                }
            }
            let mut builder = bundle::Builder::new(
                self.clock.now_us(),
                &self.node.0,
                bytes + 8 * taken.items.len(),
            );
            taken.items.iter().for_each(|(_, item)| builder.push(&item.command));
            let data = BundleBytes(builder.finish());
            let responder = CallbackResponder::new(move |result| taken.finish(result));
            if self.raft.client_write_ff(data, Some(responder)).await.is_err() {
                return true;
            }
        }
        false
    }

    fn to_propose_error(&self, error: LogError) -> ProposeError {
        let group = self.group;
        match error {
            LogError::DiskFull => ProposeError::DiskFull { group },
            LogError::Stopped(reason) => ProposeError::Stopped { reason },
            other => ProposeError::Unavailable { group, cause: other.to_string() },
        }
    }

    fn take_bundle(self: &Arc<Self>) -> Option<Taken> {
        let mut queue = self.queue.lock();
        if queue.in_flight >= IN_FLIGHT_MAX || queue.items.is_empty() {
            return None;
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = queue.items.first_entry() {
            let more = entry.get().command.len();
            if !items.is_empty() && bytes + more > BUNDLE_BYTES_MAX {
                break;
            }
            bytes += more;
            items.push(entry.remove_entry());
        }
        queue.in_flight += 1;
        Some(Taken { bundler: Arc::clone(self), items })
    }

    /// Forwards what the link takes; true when something is left.
    fn forward_ready(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        let forwarder = link.forwarder();
        loop {
            let Some((number, item)) = self.queue.lock().items.pop_first() else {
                return false;
            };
            if item.is_forwarded {
                // The sender looks for the leader itself.
                let error = ProposeError::NotLeader { group: self.group, leader: None };
                self.answer(item.command.len(), item.reply, Err(error));
                continue;
            }
            if item.deadline <= Instant::now() {
                let cause = "the leader does not answer".to_owned();
                let error = ProposeError::Unavailable { group: self.group, cause };
                self.answer(item.command.len(), item.reply, Err(error));
                continue;
            }
            let command = item.command.clone();
            // Shared, because a full link gives the closure back uncalled.
            let slot = Arc::new(Mutex::new(Some(item)));
            let (for_answer, bundler) = (Arc::clone(&slot), Arc::downgrade(self));
            let answer = Box::new(move |forwarded| {
                if let (Some(bundler), Some(item)) =
                    (Weak::upgrade(&bundler), for_answer.lock().take())
                {
                    bundler.forwarded(number, item, forwarded);
                }
            });
            if forwarder.send(self.group, command, answer).is_err() {
                if let Some(item) = slot.lock().take() {
                    self.queue.lock().items.insert(number, item);
                }
                return true;
            }
        }
    }

    fn forwarded(&self, number: u64, item: Item, forwarded: Forwarded) {
        let bytes = item.command.len();
        match forwarded {
            Forwarded::Outcome(outcome) => self.answer(bytes, item.reply, Ok(*outcome)),
            Forwarded::Failed(error) => self.answer(bytes, item.reply, Err(error)),
            Forwarded::NotTaken => self.put_back([(number, item)]),
        }
    }

    /// Nothing of these was written.
    fn put_back(&self, items: impl IntoIterator<Item = (u64, Item)>) {
        let closed = {
            let mut queue = self.queue.lock();
            if queue.closed.is_none() {
                queue.items.extend(items);
                queue.not_before = Some(Instant::now() + RETRY_PAUSE);
                None
            } else {
                Some(items.into_iter().collect::<Vec<_>>())
            }
        };
        let group = self.group;
        for (_, item) in closed.into_iter().flatten() {
            let cause = "this replica has stopped".to_owned();
            self.answer(
                item.command.len(),
                item.reply,
                Err(ProposeError::Unavailable { group, cause }),
            );
        }
        self.wake.notify_one();
    }

    /// Keeps nodes that disagree on who leads from sending commands around at full speed.
    fn is_backing_off(&self) -> bool {
        let mut queue = self.queue.lock();
        let is_waiting = queue.not_before.is_some_and(|moment| moment > Instant::now());
        if !is_waiting {
            queue.not_before = None;
        }
        is_waiting && !queue.items.is_empty()
    }

    /// Refuses everything from now on.
    fn close(&self, cause: &str) {
        let items = {
            let mut queue = self.queue.lock();
            queue.closed.get_or_insert_with(|| cause.to_owned());
            std::mem::take(&mut queue.items)
        };
        let group = self.group;
        for (_, item) in items {
            let cause = cause.to_owned();
            self.answer(
                item.command.len(),
                item.reply,
                Err(ProposeError::Unavailable { group, cause }),
            );
        }
    }
}

/// A bundle on its way through Raft. Dropped without a result its outcome is unknown.
struct Taken {
    bundler: Arc<Bundler>,
    items: Vec<(u64, Item)>,
}

impl Taken {
    fn bytes(&self) -> usize {
        self.items.iter().map(|(_, item)| item.command.len()).sum()
    }

    fn refuse(mut self, error: &ProposeError) {
        for (_, item) in self.items.drain(..) {
            self.bundler.answer(item.command.len(), item.reply, Err(error.clone()));
        }
    }

    fn unknown(&mut self, cause: &str) {
        let group = self.bundler.group;
        for (_, item) in self.items.drain(..) {
            let error = ProposeError::OutcomeUnknown { group, cause: cause.to_owned() };
            self.bundler.answer(item.command.len(), item.reply, Err(error));
        }
    }

    fn finish(mut self, result: WriteResult) {
        match result {
            Ok(response) => {
                let outcomes = response.data.0;
                let commands = self.items.len();
                assert_eq!(outcomes.len(), commands, "one outcome a command");
                for ((_, item), outcome) in self.items.drain(..).zip(outcomes) {
                    self.bundler.answer(item.command.len(), item.reply, Ok(outcome));
                }
            }
            Err(ClientWriteError::ForwardToLeader(_)) => {
                // Refused before it was written.
                let items = std::mem::take(&mut self.items);
                self.bundler.put_back(items);
            }
            Err(error) => self.unknown(&error.to_string()),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.unknown("the replica stopped before it knew");
        self.bundler.queue.lock().in_flight -= 1;
        self.bundler.wake.notify_one();
    }
}
