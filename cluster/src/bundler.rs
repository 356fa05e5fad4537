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
//! goes back to its place in the queue only when it is certain that it was not written. Where Raft
//! takes nothing for as long as a command waits (the followers do not answer, the log has no room),
//! what was not proposed is given back by its deadline; what was proposed has no outcome yet.
// Hot path: every command passes here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Reply};
use dtm_types::{GroupId, NodeId, ReplicaId, bundle};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::applied::Applied;
use crate::clocks::Standing;
use crate::group::voter_nodes;
use crate::log_store::{LogError, ReplicaLog};
use crate::network::{Link, Links};
use crate::queue::{CommandQueue, Item, QueueConfig, RETRY_PAUSE};
use crate::raft::{GroupRaft, ServerMetrics};
use crate::requests;
use crate::type_config::{BundleBytes, CallbackResponder, LogId, PeerNode, WriteResult};

/// What one bundle takes, unless a single command is larger.
const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// What an entry holds besides its commands, at most.
const ENTRY_BYTES: usize = 4 << 10;
/// Bundles proposed and not yet applied.
const IN_FLIGHT_MAX: usize = 4;
/// With nothing to do but wait for a wake.
const IDLE: Duration = Duration::from_secs(3600);

/// Makes bundles of the commands of one group on one node.
pub(crate) struct Bundler {
    queue: Arc<CommandQueue>,
    /// Bundles proposed and not yet applied. Raised by the one task that proposes.
    in_flight: AtomicUsize,
    replica: ReplicaId,
    node: NodeId,
    raft: GroupRaft,
    log: Arc<dyn ReplicaLog>,
    applied: Arc<Applied>,
    links: Arc<Links>,
    /// The group waits in vain for another leader than this node, whose clock is astray.
    insists: AtomicBool,
}

enum Route {
    Here,
    There(Arc<Link>),
    /// And why.
    Nowhere(&'static str),
}

/// Until the queue is looked at again.
fn pause(is_left: bool) -> Duration {
    if is_left { RETRY_PAUSE } else { IDLE }
}

/// What the clocks said last, and of which verdict and members that holds.
struct Known {
    generation: u64,
    membership: Option<LogId>,
    standing: Standing,
}

/// What a bundler is made of.
pub(crate) struct BundlerParts {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeId,
    pub(crate) config: QueueConfig,
    pub(crate) raft: GroupRaft,
    pub(crate) log: Arc<dyn ReplicaLog>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) links: Arc<Links>,
}

impl Bundler {
    pub(crate) fn start(parts: BundlerParts, stop: CancellationToken) -> Arc<Self> {
        let BundlerParts { group, replica, node, config, raft, log, applied, links } = parts;
        let queue = CommandQueue::new(group, config);
        let in_flight = AtomicUsize::new(0);
        let insists = AtomicBool::new(false);
        let bundler = Self { queue, in_flight, replica, node, raft, log, applied, links, insists };
        let bundler = Arc::new(bundler);
        tokio::spawn(Arc::clone(&bundler).run(stop));
        bundler
    }

    /// A command of this node.
    pub(crate) fn push(&self, command: Bytes, reply: Reply) {
        self.queue.push(command, reply, false);
    }

    /// A command that another node sent here because this one leads.
    pub(crate) fn push_forwarded(&self, command: Bytes, reply: Reply) {
        self.queue.push(command, reply, true);
    }

    /// Bytes not yet answered.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut metrics = self.raft.server_metrics();
        let (mut known, mut stalled_since) = (None, None);
        loop {
            let route = self.route(&metrics.borrow_watched(), &mut known);
            let pause = match route {
                _ if self.queue.is_backing_off() => pause(self.queue.expire("no leader takes it")),
                Route::Here => self.propose_ready(&mut stalled_since).await,
                Route::There(link) => pause(self.queue.forward(&link)),
                Route::Nowhere(why) => pause(self.queue.expire(why)),
            };
            tokio::select! {
                () = self.queue.woken() => {}
                changed = metrics.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
        self.queue.close("this replica has stopped");
    }

    fn route(&self, metrics: &ServerMetrics, known: &mut Option<Known>) -> Route {
        match metrics.current_leader {
            Some(leader) if leader == self.replica.0 => match self.standing(metrics, known) {
                Standing::Sound => Route::Here,
                Standing::Astray => Route::Nowhere("the clock of the leader's node is astray"),
                Standing::Unheard => {
                    self.links.clocks().ask_soon();
                    Route::Nowhere("the leader's node has not compared its clock yet")
                }
            },
            Some(leader) => match metrics.membership_config.get_node(&leader) {
                Some(PeerNode { node, .. }) if self.links.presence().is_gone(*node) => {
                    Route::Nowhere("no leader")
                }
                Some(PeerNode { node, peer_address, .. }) => {
                    Route::There(self.links.to(*node, peer_address))
                }
                None => Route::Nowhere("no leader"),
            },
            None => Route::Nowhere("no leader"),
        }
    }

    /// See [`Group::insist`](crate::group::Group::insist).
    pub(crate) fn insist(&self, insists: bool) {
        if self.insists.swap(insists, Ordering::AcqRel) != insists {
            self.links.clocks().changed();
        }
    }

    pub(crate) fn insists(&self) -> bool {
        self.insists.load(Ordering::Acquire)
    }

    /// Whether this node's clock may stamp; asked anew only when something changed.
    fn standing(&self, metrics: &ServerMetrics, known: &mut Option<Known>) -> Standing {
        let clocks = self.links.clocks();
        let (generation, members) = (clocks.generation(), &metrics.membership_config);
        let membership = *members.log_id();
        let is_known =
            |known: &&Known| known.generation == generation && known.membership == membership;
        if let Some(known) = known.as_ref().filter(is_known) {
            return known.standing;
        }
        let standing = match clocks.standing(&voter_nodes(members)) {
            Standing::Astray if self.insists() => Standing::Sound,
            standing => standing,
        };
        *known = Some(Known { generation, membership, standing });
        standing
    }

    /// Proposes bundles while there is room in flight; how long to wait for a wake then.
    /// `stalled_since` is when Raft first did not take what waits, and nothing while it does.
    async fn propose_ready(self: &Arc<Self>, stalled_since: &mut Option<Instant>) -> Duration {
        while self.in_flight.load(Ordering::Acquire) < IN_FLIGHT_MAX {
            let Some(taken) = self.take_bundle() else {
                *stalled_since = None;
                return IDLE;
            };
            let bytes = taken.bytes();
            // The log would refuse it inside Raft, which ends the group on this node.
            let bytes_max = self.log.payload_bytes_max().saturating_sub(ENTRY_BYTES);
            if bytes > bytes_max {
                let group = self.queue.group();
                taken.refuse(&ProposeError::TooLarge { group, bytes, bytes_max });
                continue;
            }
            let now = Instant::now();
            let until = *stalled_since.get_or_insert(now) + self.queue.patience();
            let ready = self.log.ready(bytes);
            match tokio::time::timeout_at(until.max(now + RETRY_PAUSE), ready).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    taken.refuse(&self.to_propose_error(error));
                    continue;
                }
                Err(_) => {
                    taken.put_back();
                    return RETRY_PAUSE;
                }
            }
            metrics::counter!("dtm_bundles_total").increment(1);
            metrics::counter!("dtm_commands_total").increment(taken.items.len() as u64);
            let data = BundleBytes(self.bundle(&taken, bytes));
            let responder = CallbackResponder::new(move |result| taken.finish(result));
            if self.raft.client_write_ff(data, Some(responder)).await.is_err() {
                return RETRY_PAUSE;
            }
            *stalled_since = None;
        }
        let since = *stalled_since.get_or_insert_with(Instant::now);
        let left = self.queue.patience().saturating_sub(since.elapsed());
        if left.is_zero() {
            pause(self.queue.expire("no majority answers the leader"))
        } else {
            left
        }
    }

    fn bundle(&self, taken: &Taken, bytes: usize) -> Bytes {
        let (group, commands) = (self.queue.group(), taken.items.len());
        if requests::are_logged() {
            let told = taken.items.iter().map(|(_, item)| &item.command);
            told.for_each(|command| requests::bundled(group, command, commands, bytes));
        }
        let mut builder = bundle::Builder::of_version(
            taken.version,
            self.links.clocks().stamp_us(),
            &self.node.0,
            bytes + 8 * commands,
        );
        taken.items.iter().for_each(|(_, item)| builder.push(&item.command));
        builder.finish()
    }

    fn to_propose_error(&self, error: LogError) -> ProposeError {
        let group = self.queue.group();
        match error {
            LogError::DiskFull => ProposeError::DiskFull { group },
            LogError::Stopped(reason) => ProposeError::Stopped { reason },
            other => ProposeError::Unavailable { group, cause: other.to_string() },
        }
    }

    fn take_bundle(self: &Arc<Self>) -> Option<Taken> {
        let version = self.applied.version();
        let items = self.queue.take_for(version, BUNDLE_BYTES_MAX);
        if items.is_empty() {
            return None;
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(Taken { bundler: Arc::clone(self), version, items })
    }
}

/// A bundle on its way through Raft. Dropped without a result its outcome is unknown.
struct Taken {
    bundler: Arc<Bundler>,
    /// The one that the group is at, and no item is above.
    version: u8,
    items: Vec<(u64, Item)>,
}

impl Taken {
    fn bytes(&self) -> usize {
        self.items.iter().map(|(_, item)| item.command.len()).sum()
    }

    fn refuse(mut self, error: &ProposeError) {
        for (_, item) in self.items.drain(..) {
            self.bundler.queue.answer(item, Err(error.clone()));
        }
    }

    /// Certainly not written.
    fn put_back(mut self) {
        self.bundler.queue.put_back(std::mem::take(&mut self.items));
    }

    fn unknown(&mut self, cause: &str) {
        let group = self.bundler.queue.group();
        for (_, item) in self.items.drain(..) {
            let error = ProposeError::OutcomeUnknown { group, cause: cause.to_owned() };
            self.bundler.queue.answer(item, Err(error));
        }
    }

    fn finish(mut self, result: WriteResult) {
        match result {
            Ok(response) => {
                let outcomes = response.data.0;
                let commands = self.items.len();
                assert_eq!(outcomes.len(), commands, "one outcome a command");
                for ((_, item), outcome) in self.items.drain(..).zip(outcomes) {
                    self.bundler.queue.answer(item, Ok(outcome));
                }
            }
            Err(ClientWriteError::ForwardToLeader(_)) => {
                // Refused before it was written.
                self.put_back();
            }
            // openraft's words name every member with its addresses.
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                self.unknown("another replica took over the group before it was committed");
            }
            Err(error) => {
                tracing::warn!(group = self.bundler.queue.group().0, %error, "bundle not written");
                self.unknown("the bundle was not written as it should");
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.unknown("the replica stopped before it knew");
        self.bundler.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.bundler.queue.wake();
    }
}
