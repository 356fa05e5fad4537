//! Whether the rights that open streams stand on still hold. Each node watches its own copy of meta,
//! whichever node was asked to revoke: what is revoked, suspended or expired is cut within seconds.
//!
//! ```text
//!  each second: meta confirmed by its leader ─▶ confirmed_at ─▶ every credential of an open stream
//!               against its row: gone ─▶ its streams end with CREDENTIAL_REVOKED
//!               (what sends also ends when its source is suspended; what reads goes on)
//!               its agreement is another one: its streams end, to be opened under the new one
//!  meta not confirmed for 60 s while others have it, or too few others answer ─▶ streams drain
//! ```
//! New streams: rows of meta confirmed at most 5 s ago, else the leader is asked (and without one
//! the stream waits outside). Streams that are open outlive a loss of meta's quorum.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dtm_identity::{Caller, Credential, confirm_credential, confirm_operator};
use dtm_machine::reads;
use dtm_machine::seams::{StateError, StateRead};
use dtm_types::command::SourceRow;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId, NodeId, StreamKey};
use parking_lot::Mutex;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::Status;

use super::shared::Shared;
use super::status::{status_with, told};

/// Rows of meta that were confirmed longer ago are not trusted with a new stream.
const STALE_US: i64 = 5_000_000;
/// After so long without meta the node asks whether it alone is cut off.
const CUT_OFF_US: i64 = 60_000_000;
/// A node that had meta confirmed so lately says that meta has a quorum.
const QUORUM_SEEN_MS: u64 = 10_000;
const INTERVAL: Duration = Duration::from_secs(1);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its right is gone.
    Revoked,
    /// What it was opened under was changed: it may be opened anew.
    Changed,
    /// This node cannot know whether rights hold: another one can.
    Drained,
}

impl Cut {
    /// As the session's client sees it.
    pub fn error(self, stream: &StreamKey) -> dtm_actors::Error {
        match self {
            Self::Revoked => dtm_actors::Error::Revoked { stream: stream.clone() },
            Self::Changed => dtm_actors::Error::Changed { stream: stream.clone() },
            Self::Drained => dtm_actors::Error::Draining,
        }
    }

    /// As who reads sees it.
    pub fn status(self) -> Status {
        match self {
            Self::Revoked => told(ErrorCode::CredentialRevoked, &Told::new("refused.read_revoked")),
            Self::Changed => told(ErrorCode::Unavailable, &Told::new("refused.read_changed")),
            Self::Drained => told(ErrorCode::Unavailable, &Told::new("refused.cut_off")),
        }
    }
}

/// What a stream stands on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ground {
    caller: Caller,
    /// What it sends under; else it reads.
    sends: Option<Terms>,
}

/// The agreement that a stream was opened under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    dataset: String,
    digest: Option<[u8; 32]>,
}

impl Terms {
    /// What the source's row agrees on about a data set.
    pub fn of(source: &SourceRow, dataset: &str) -> Self {
        let agreed = source.agreements.iter().find(|agreed| agreed.dataset == dataset);
        let digest = agreed.map(|agreed| Sha256::digest(agreed.encode_to_vec()).into());
        Self { dataset: dataset.to_owned(), digest }
    }

    fn hold(&self, source: &SourceRow) -> bool {
        Self::of(source, &self.dataset) == *self
    }
}

/// An open stream and what it stands on.
struct Grant {
    ground: Ground,
    cut: watch::Sender<Option<Cut>>,
}

impl Grant {
    /// False when it was told to end before.
    fn end(&self, why: Cut) -> bool {
        self.cut.send_if_modified(|cut| {
            let is_open = cut.is_none();
            cut.get_or_insert(why);
            is_open
        })
    }
}

/// The rights of the streams that are open on this node.
#[derive(Default)]
pub struct Rights {
    open: Mutex<HashMap<u64, Grant>>,
    next_id: AtomicU64,
    /// Monotonic microseconds at which the last confirmation of meta was asked for; 0 = never.
    confirmed_us: AtomicI64,
}

/// Held as long as the stream is open.
pub struct Entered {
    rights: Arc<Rights>,
    id: u64,
    cut: watch::Receiver<Option<Cut>>,
}

impl Entered {
    /// Waits until the right is gone. Cancel-safe.
    pub async fn cut(&mut self) -> Cut {
        match self.cut.wait_for(Option::is_some).await.map(|cut| *cut) {
            Ok(Some(cut)) => cut,
            // The watch outlives every stream; without it nobody knows whether the right holds.
            Ok(None) | Err(_) => Cut::Drained,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.rights.open.lock().remove(&self.id);
    }
}

impl Rights {
    /// Enters a stream that sends, opened under the caller's credential and these terms.
    pub fn enter(self: &Arc<Self>, caller: &Caller, terms: Terms) -> Entered {
        self.enter_on(&mut self.open.lock(), Ground { caller: caller.clone(), sends: Some(terms) })
    }

    /// Enters a stream of answers, opened under the caller's credential: who opens many and reads
    /// none would hold up all others.
    ///
    /// # Errors
    /// `TooManyStreams` where the caller has `reads_open_max` of them.
    pub fn enter_reading(
        self: &Arc<Self>,
        caller: &Caller,
        reads_open_max: u64,
    ) -> Result<Entered, Status> {
        let reads =
            |grant: &&Grant| grant.ground.sends.is_none() && grant.ground.caller.is_same(caller);
        // Counted and entered under one lock: calls that come together are no more than may be.
        let mut open = self.open.lock();
        if open.values().filter(reads).count() as u64 >= reads_open_max {
            let limit = ("limit", "reads_open_max".to_owned());
            let values = [limit, ("value", reads_open_max.to_string())];
            let detail = format!("reads_open_max = {reads_open_max} reads at once on a node");
            return Err(status_with(ErrorCode::TooManyStreams, detail, &values));
        }
        Ok(self.enter_on(&mut open, Ground { caller: caller.clone(), sends: None }))
    }

    fn enter_on(self: &Arc<Self>, open: &mut HashMap<u64, Grant>, ground: Ground) -> Entered {
        let (sender, cut) = watch::channel(None);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        open.insert(id, Grant { ground, cut: sender });
        Entered { rights: Arc::clone(self), id, cut }
    }

    /// Whether rows of meta here were confirmed lately enough for a new stream.
    pub fn is_fresh(&self, monotonic_us: i64) -> bool {
        let confirmed = self.confirmed_us.load(Ordering::Acquire);
        confirmed > 0 && monotonic_us - confirmed <= STALE_US
    }

    /// Meta was confirmed by a call that began then.
    pub fn confirmed(&self, monotonic_us: i64) {
        self.confirmed_us.fetch_max(monotonic_us.max(1), Ordering::AcqRel);
    }

    /// Since the last confirmation, milliseconds; the largest number when there was none.
    pub fn age_ms(&self, monotonic_us: i64) -> u64 {
        match self.confirmed_us.load(Ordering::Acquire) {
            0 => u64::MAX,
            at => u64::try_from((monotonic_us - at) / 1_000).unwrap_or(0),
        }
    }

    /// Cuts every stream whose right is gone, or whose agreement is another one, by these rows; how
    /// many. Rows are read with no lock
    /// held: streams are opened and end meanwhile.
    ///
    /// # Errors
    /// A row that cannot be read: what the others say is carried out all the same.
    fn check(&self, state: &dyn StateRead, now_us: i64) -> Result<usize, StateError> {
        let (mut gone, mut failed) = (HashMap::new(), None);
        for ground in self.grounds() {
            match verdict_on(state, &ground, now_us) {
                Ok(None) => {}
                Ok(Some(cut)) => {
                    gone.insert(ground, cut);
                }
                Err(error) => failed = Some(error),
            }
        }
        let open = self.open.lock();
        let cut = open.values().filter_map(|grant| Some((grant, *gone.get(&grant.ground)?)));
        let count = cut.filter(|(grant, cut)| grant.end(*cut)).count();
        failed.map_or(Ok(count), Err)
    }

    /// What open streams stand on, each once.
    fn grounds(&self) -> HashSet<Ground> {
        let mut grounds = HashSet::new();
        for grant in self.open.lock().values() {
            if !grounds.contains(&grant.ground) {
                grounds.insert(grant.ground.clone());
            }
        }
        grounds
    }

    /// Ends every stream; how many.
    fn drain(&self) -> usize {
        self.open.lock().values().filter(|grant| grant.end(Cut::Drained)).count()
    }
}

/// Why a stream may not go on, if so: the credential that it was opened with must be in force, and
/// who sends not suspended and under the terms that it was opened under.
fn verdict_on(
    state: &dyn StateRead,
    ground: &Ground,
    now_us: i64,
) -> Result<Option<Cut>, StateError> {
    let caller = &ground.caller;
    let holds = match caller {
        Caller::Source { source, .. } => {
            let Some(row) = reads::source(state, source.as_str())? else {
                return Ok(Some(Cut::Revoked));
            };
            let is_shut = ground.sends.is_some() && row.suspended;
            match held(state, caller, now_us)? {
                // It was opened under this key: the clock of this node went back.
                Err(error) if error.retryable() => return Ok(Some(Cut::Drained)),
                Err(_) => return Ok(Some(Cut::Revoked)),
                Ok(()) if is_shut => return Ok(Some(Cut::Revoked)),
                Ok(()) => {}
            }
            return Ok(ground.sends.as_ref().filter(|t| !t.hold(&row)).map(|_| Cut::Changed));
        }
        Caller::Operator { name, .. } => {
            let row = reads::operator(state, name)?;
            confirm_operator(caller, row.as_ref(), now_us).is_ok()
        }
        // Nothing is streamed to them.
        Caller::Node { .. } | Caller::Anonymous => false,
    };
    Ok((!holds).then_some(Cut::Revoked))
}

/// The credential of a source against its row.
pub fn held(
    state: &dyn StateRead,
    caller: &Caller,
    now_us: i64,
) -> Result<Result<(), dtm_identity::Error>, StateError> {
    let Caller::Source { source, credential } = caller else {
        return Ok(confirm_credential(caller, None, None, now_us));
    };
    let (key, certificate) = match credential {
        Credential::Key(id) => (reads::source_key(state, source.as_str(), id)?, None),
        Credential::Certificate(digest) => {
            (None, reads::source_certificate(state, source.as_str(), digest)?)
        }
    };
    Ok(confirm_credential(caller, key.as_ref(), certificate.as_ref(), now_us))
}

/// Runs until it is dropped.
pub async fn watch(shared: Arc<Shared>) {
    let started_us = shared.clock.monotonic_us();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let asked_us = shared.clock.monotonic_us();
        let now = tokio::time::timeout(CONFIRM_TIMEOUT, shared.directory.meta_now(shared.view()));
        let meta = match now.await {
            Ok(Ok(meta)) => {
                shared.rights.confirmed(asked_us);
                Some(meta)
            }
            // What is applied here is still worth a look.
            _ => shared.directory.meta(shared.view()).await.ok(),
        };
        if let Some(meta) = meta {
            match shared.rights.check(meta.state.as_ref(), shared.clock.now_us()) {
                Ok(0) => {}
                Ok(count) => {
                    metrics::counter!("dtm_streams_cut_total", "cause" => "revoked")
                        .increment(count as u64);
                    tracing::info!(count, "streams whose right is gone or was changed are cut");
                }
                Err(error) => tracing::warn!(%error, "rights of open streams cannot be read"),
            }
        }
        let age_ms = shared
            .rights
            .age_ms(asked_us)
            .min(u64::try_from((asked_us - started_us) / 1_000).unwrap_or(0));
        if age_ms >= CUT_OFF_US.unsigned_abs() / 1_000 && is_cut_off(&shared).await {
            let count = shared.rights.drain();
            if count > 0 {
                metrics::counter!("dtm_streams_cut_total", "cause" => "cut-off")
                    .increment(count as u64);
                tracing::warn!(count, "cut off from meta for 60 s: streams go to other nodes");
            }
        }
    }
}

/// Meta is out of reach here: because it has no quorum (then streams go on), or because this node
/// is cut off from it? Who reaches no majority of meta's voters cannot tell, and counts as cut off.
async fn is_cut_off(shared: &Arc<Shared>) -> bool {
    let Ok(meta) = shared.directory.meta(shared.view()).await else { return true };
    let state = meta.state.as_ref();
    let (Ok(Some(group)), Ok(nodes)) = (reads::group(state, GroupId::META.0), reads::nodes(state))
    else {
        return true;
    };
    let in_force = group.replicas.iter().filter(|replica| !replica.removed);
    let voters: BTreeSet<NodeId> =
        in_force.filter_map(|replica| NodeId::from_slice(&replica.node)).collect();
    let others = nodes.iter().filter(|row| !row.removed && row.node != shared.node.0[..]);
    let asked = others.map(|row| async move {
        let age_ms = shared.peers.local_status(row).await?.node?.meta_age_ms;
        Some((NodeId::from_slice(&row.node)?, age_ms))
    });
    let answers: Vec<_> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    verdict(&voters, shared.node, &answers)
}

/// `answers`: other nodes with the age of meta's last confirmation there, milliseconds.
fn verdict(voters: &BTreeSet<NodeId>, own: NodeId, answers: &[(NodeId, u64)]) -> bool {
    if answers.iter().any(|(_, age_ms)| *age_ms <= QUORUM_SEEN_MS) {
        return true;
    }
    let answered = answers.iter().filter(|(node, _)| voters.contains(node)).count();
    let reached = answered + usize::from(voters.contains(&own));
    reached * 2 <= voters.len()
}

#[cfg(test)]
#[path = "rights_test.rs"]
mod tests;
