//! The root supervisor of a node's sessions: opens them, counts them, drains them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{Clock, Entropy, Proposer, SiteCopies};
use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::command::{OpenSession, SourceLimits};
use dtm_types::{GroupId, Incarnation, Month, StreamKey};
use parking_lot::{Mutex, RwLock};
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};

use crate::ack_times::AckTimes;
use crate::admission::{Admission, InFlight, ShareOf};
use crate::batch::BatchKeys;
use crate::bounds::Bounds;
use crate::contract::Contract;
use crate::error::Error;
use crate::limits::Limits;
use crate::opener;
use crate::outbox::Outbox;
use crate::roll::{Entry, Roll};
use crate::session::{FlowArgs, Leave, Session, SessionArgs, SessionHandle, SessionMessage};
use crate::slots::{Slot, Slots};
use crate::treatment::Treatment;
use crate::vault::KeyVault;

/// Sessions that may have more than before are told so over this long: nothing waits for them.
const RAISED_OVER: Duration = Duration::from_secs(30);

/// What every session of a node shares.
pub struct Deps {
    /// The way into the groups.
    pub proposer: Arc<dyn Proposer>,
    /// What another site holds of the groups.
    pub copies: Arc<dyn SiteCopies>,
    /// The node's keys.
    pub vault: Arc<dyn KeyVault>,
    /// Check and digests.
    pub treatment: Arc<dyn Treatment>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds, as the node starts; what the cluster may set of them is followed by
    /// [`SourcesHandle::set_limits`].
    pub limits: Limits,
    /// How long acknowledgements take.
    pub ack_times: Arc<AckTimes>,
    /// Which life of the cluster.
    pub incarnation: Incarnation,
    /// This node's name, for clients and operators.
    pub node_name: String,
}

/// A checked request to open a stream: the caller is who it says and the agreement covers it.
pub struct OpenRequest {
    /// The stream.
    pub stream: StreamKey,
    /// The group that holds it.
    pub group: GroupId,
    /// What it may send.
    pub contract: Contract,
    /// The source's own limits.
    pub limits: SourceLimits,
    /// The client's own words.
    pub open: ingest::Open,
    /// 16 bytes: the source's id.
    pub actor_id: Bytes,
    /// gRPC address of the group's leader where it is another node.
    pub leader_address: Option<String>,
}

/// Messages of the supervisor.
#[derive(Debug)]
pub(crate) enum SourcesMessage {
    /// A session asks to be supervised.
    Adopt(Box<SessionArgs>, tokio::sync::oneshot::Sender<Option<Adopted>>),
}

/// A new session on its way to whoever asked for it; stopped when it does not arrive.
pub(crate) struct Adopted(Option<ActorRef<SessionMessage>>);

impl std::fmt::Debug for Adopted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adopted")
    }
}

impl Adopted {
    fn take(mut self) -> Option<ActorRef<SessionMessage>> {
        self.0.take()
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if let Some(actor) = &self.0 {
            actor.stop(Some("nobody took the session".to_owned()));
        }
    }
}

/// The supervisor actor: holds no state that a restart would miss.
struct Supervisor;

/// What callers hold.
#[derive(Clone)]
pub struct SourcesHandle(Arc<Sources>);

/// Shared state of the handle.
pub struct Sources {
    deps: Arc<Deps>,
    /// In force for streams that are opened now.
    limits: RwLock<Arc<Limits>>,
    admission: Admission,
    supervisor: ActorRef<SourcesMessage>,
    slots: Slots,
    sessions: Mutex<Roll>,
    next_id: std::sync::atomic::AtomicU64,
    draining: AtomicBool,
}

impl SourcesHandle {
    /// Starts the supervisor.
    ///
    /// # Errors
    /// [`Error::Gone`] where the actor runtime refuses to start it.
    pub async fn start(deps: Deps) -> Result<Self, Error> {
        let admission = Admission::new(deps.limits.node_in_flight_bytes_max);
        let slots = Slots::new(&deps.limits);
        let (supervisor, _) = Actor::spawn(None, Supervisor, ()).await.map_err(|_| Error::Gone)?;
        Ok(Self(Arc::new(Sources {
            limits: RwLock::new(Arc::new(deps.limits.clone())),
            deps: Arc::new(deps),
            admission,
            supervisor,
            slots,
            sessions: Mutex::default(),
            next_id: std::sync::atomic::AtomicU64::new(1),
            draining: AtomicBool::new(false),
        })))
    }

    /// Opens a stream: commits `OpenSession`, prepares its keys, starts its actor. The first answer
    /// in the outbox is `Opened`. Cancel-safe: a session that was opened and not used is superseded
    /// by the next one.
    pub async fn open(&self, request: OpenRequest) -> Result<(SessionHandle, Outbox), Error> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        let (deps, limits) = (&self.0.deps, Arc::clone(&self.0.limits.read()));
        let acks_at_site = request.contract.acks_at_site;
        if acks_at_site && !deps.copies.has_standby() {
            return Err(Error::NoStandby { stream: request.stream });
        }
        let bounds = Bounds::new(&limits, &request.limits);
        let bytes = bounds.share_bytes;
        let share = ShareOf { bytes, refused_per_second_max: limits.refused_per_second_max };
        let slot = self.0.slots.take(&request.stream, bounds.streams_open, share)?;
        let month = Month::of_micros(deps.clock.now_us());
        let open = open_command(&request, &bounds, month);
        let place = (&request.stream, request.group);
        let opened =
            opener::open_session(deps, place, open, bounds.stream_names, &request.actor_id).await?;
        if acks_at_site {
            // What the open tells as stored passes for acked.
            opener::wait_for_site(deps, place, opened.offset).await?;
        }
        let most = (bounds.quarantine_records.value, bounds.quarantine_bytes.value);
        slot.quarantine().set(opened.quarantine_records_left, opened.quarantine_bytes_left);
        let held = (opened.data_key.clone(), opened.source_key.clone());
        let keys =
            opener::keys(deps, &request.stream, request.group, month, held, &request.actor_id)
                .await?;
        if opened.loss_from > 0 {
            self.tell_loss(&request, &opened, &keys);
        }
        let outbox = Outbox::new(deps.limits.outbox_bytes_max);
        let site_told = site_of(deps.copies.through(request.group), &opened);
        let answer = self.opened(&request, &opened, &bounds, site_told);
        assert!(outbox.push(Response::Opened(answer)), "a new outbox has room");
        let in_flight = InFlight::within(slot.share().clone());
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let flow = FlowArgs {
            deps: Arc::clone(deps),
            stream: request.stream.clone(),
            group: request.group,
            session: opened.session,
            next_sequence: opened.next_sequence,
            opened_at: opened.offset,
            site_told,
            contract: request.contract,
            keys,
            quota: slot.quarantine().of(most.0, most.1),
            actor_id: request.actor_id,
            outbox: outbox.clone(),
        };
        let guard = SessionGuard { sources: Arc::clone(&self.0), id, slot };
        let actor = self.adopt(SessionArgs { flow, guard }).await?;
        let entry = Entry {
            actor: actor.clone(),
            group: request.group,
            stream: request.stream.clone(),
            session: opened.session,
            told: request.leader_address,
        };
        self.enter(id, entry);
        let handle =
            SessionHandle::new(actor, request.stream, self.0.admission.clone(), in_flight, bounds);
        Ok((handle, outbox))
    }

    fn enter(&self, id: u64, entry: Entry) {
        let actor = entry.actor.clone();
        self.0.sessions.lock().enter(id, entry);
        if actor.get_status() >= ActorStatus::Stopping {
            // It ended before it was entered: nothing else would take it off the roll.
            self.0.sessions.lock().leave(id);
        }
    }

    /// The group says that this session holds the stream: an older one here ends, also where it
    /// sends nothing that apply could refuse. Whether one did.
    pub fn superseded(&self, stream: &StreamKey, session: u64) -> bool {
        self.0.sessions.lock().supersede(stream, session)
    }

    /// The streams that are open here, with their group and newest session.
    pub fn open_streams(&self) -> Vec<(GroupId, StreamKey, u64)> {
        self.0.sessions.lock().streams()
    }

    /// Streams open on this node.
    pub fn sessions(&self) -> usize {
        self.0.sessions.lock().len()
    }

    /// Asks every session to move to the leader of its group (anywhere, where `leader` knows none),
    /// spread over `spread`, and takes no new ones until [`SourcesHandle::resume`]. Returns how many
    /// are told.
    pub fn drain(&self, leader: impl Fn(GroupId) -> Option<String>, spread: Duration) -> usize {
        self.0.draining.store(true, Ordering::Release);
        let sessions = self.0.sessions.lock();
        let all = sessions
            .all()
            .map(|entry| (entry.actor.clone(), leader(entry.group).unwrap_or_default()));
        advise(all.collect(), Leave::Draining, spread)
    }

    /// Opens streams within these limits from now on. A session keeps the bounds with which it was
    /// opened, so every open stream is asked to open again: where one is lower than before within
    /// `spread`, and ended seconds later where it does not; where they are only higher over half
    /// a minute, and left where it does not. Returns how many are asked. The node's budget of bytes
    /// in flight stays what it was at its start.
    pub fn set_limits(&self, limits: Limits, spread: Duration) -> usize {
        let before = std::mem::replace(&mut *self.0.limits.write(), Arc::new(limits.clone()));
        if *before == limits {
            return 0;
        }
        let (why, spread) = if limits.lower(&before) {
            (Leave::LimitsChanged, spread)
        } else {
            (Leave::LimitsRaised, RAISED_OVER)
        };
        let sessions = self.0.sessions.lock();
        let all = sessions.all().map(|entry| (entry.actor.clone(), String::new()));
        advise(all.collect(), why, spread)
    }

    /// Another node leads the group now: asks its sessions here to move there, each once a leader,
    /// spread over `spread`. Returns how many are told.
    pub fn follow(&self, group: GroupId, leader: &str, spread: Duration) -> usize {
        let mut sessions = self.0.sessions.lock();
        let behind = sessions
            .all_mut()
            .filter(|entry| entry.group == group && entry.told.as_deref() != Some(leader));
        let told = behind.map(|entry| {
            entry.told = Some(leader.to_owned());
            (entry.actor.clone(), leader.to_owned())
        });
        advise(told.collect(), Leave::LeaderMoved, spread)
    }

    /// This node leads the group: the next move is news to its sessions.
    pub fn stay(&self, group: GroupId) {
        let mut sessions = self.0.sessions.lock();
        sessions.all_mut().filter(|entry| entry.group == group).for_each(|entry| {
            entry.told = None;
        });
    }

    /// Whether it takes no sessions: [`SourcesHandle::drain`].
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Takes sessions again.
    pub fn resume(&self) {
        self.0.draining.store(false, Ordering::Release);
    }

    /// A client was acked more than is held (ING-1): an alarm where it shows the ack's token and
    /// means this life of the cluster, else only counted.
    fn tell_loss(
        &self,
        request: &OpenRequest,
        opened: &dtm_types::command::SessionOpened,
        keys: &BatchKeys,
    ) {
        let open = &request.open;
        let stream = &request.stream;
        let (from, to) = (opened.loss_from, opened.loss_to);
        let is_proven = open.incarnation == self.0.deps.incarnation.0
            && keys.proves(stream, open.incarnation, open.acked_through, &open.ack_token);
        if is_proven {
            metrics::counter!("dtm_ing1_alarms_total").increment(1);
            tracing::error!(%stream, from, to, "ING-1: records that were acknowledged are not held");
        } else {
            metrics::counter!("dtm_ing1_unproven_total").increment(1);
            tracing::warn!(%stream, from, to, "a client says more was acknowledged than is held, without proof");
        }
    }

    /// Bytes taken in on this node and not yet committed.
    pub fn in_flight_bytes(&self) -> u64 {
        self.0.admission.in_flight_bytes()
    }

    async fn adopt(&self, args: SessionArgs) -> Result<ActorRef<SessionMessage>, Error> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let adopt = SourcesMessage::Adopt(Box::new(args), sender);
        self.0.supervisor.cast(adopt).map_err(|_| Error::Gone)?;
        receiver.await.ok().flatten().and_then(Adopted::take).ok_or(Error::Gone)
    }

    fn opened(
        &self,
        request: &OpenRequest,
        opened: &dtm_types::command::SessionOpened,
        bounds: &Bounds,
        (site_copies, site_through): (bool, u64),
    ) -> ingest::Opened {
        ingest::Opened {
            session: opened.session,
            next_sequence: opened.next_sequence,
            window: Some(ingest::Window {
                record_bytes_max: bounds.record_bytes.value,
                frame_bytes_max: bounds.frame_bytes.value,
                in_flight_bytes_max: bounds.in_flight_bytes.value,
                frame_records_max: bounds.frame_records.value,
            }),
            incarnation: self.0.deps.incarnation.0,
            group: request.group.0,
            leader_address: request.leader_address.clone().unwrap_or_default(),
            loss_from: opened.loss_from,
            loss_to: opened.loss_to,
            node: self.0.deps.node_name.clone(),
            schema_version: request.contract.schema_version,
            site_copies,
            site_through,
        }
    }
}

/// Whether another site holds copies of the group, and through which sequence of the stream, as far as
/// an open tells: all that the stream held was entered before it.
fn site_of(held: Option<u64>, opened: &dtm_types::command::SessionOpened) -> (bool, u64) {
    let is_there = held.is_some_and(|held| held >= opened.offset);
    (held.is_some(), if is_there { opened.next_sequence - 1 } else { 0 })
}

fn open_command(request: &OpenRequest, bounds: &Bounds, month: Month) -> OpenSession {
    OpenSession {
        source: request.stream.source.as_str().to_owned(),
        stream: request.stream.stream.to_string(),
        dataset: request.contract.dataset.to_string(),
        schema_version: request.contract.schema_version,
        mode: request.contract.mode.into(),
        form: request.contract.form.into(),
        ids_by_sequence: request.contract.ids_by_sequence,
        acked_through: request.open.acked_through,
        incarnation: request.open.incarnation,
        month: month.0,
        stream_names_max: u32::try_from(bounds.stream_names.value).unwrap_or(u32::MAX),
        quarantine_records_max: bounds.quarantine_records.value,
        quarantine_bytes_max: bounds.quarantine_bytes.value,
    }
}

/// Sends the advice to each in its turn.
fn advise(
    sessions: Vec<(ActorRef<SessionMessage>, String)>,
    why: Leave,
    spread: Duration,
) -> usize {
    let count = sessions.len();
    for (n, (actor, address)) in (0..).zip(sessions) {
        let turn = spread * n / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        actor.send_after(turn, move || SessionMessage::Reconnect { address, why });
    }
    count
}

/// Lives in the session's state: forgets the session when the actor ends.
#[derive(Debug)]
pub(crate) struct SessionGuard {
    sources: Arc<Sources>,
    id: u64,
    #[allow(dead_code, reason = "held for its Drop")]
    slot: Slot,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.sources.sessions.lock().leave(self.id);
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("sessions", &self.sessions.lock().len())
            .finish_non_exhaustive()
    }
}

impl Actor for Supervisor {
    type Msg = SourcesMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let SourcesMessage::Adopt(args, reply) = message;
        let outbox = args.flow.outbox.clone();
        let spawned = Actor::spawn_linked(None, Session, *args, myself.get_cell()).await;
        if spawned.is_err() {
            outbox.end(Err(Error::Gone));
        }
        // Whoever asked may be gone (a cancelled call): then nobody would ever stop the session.
        let _ = reply.send(spawned.ok().map(|(actor, _)| Adopted(Some(actor))));
        Ok(())
    }

    /// A session's end is never the supervisor's: the default would stop it and every neighbour.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            metrics::counter!("dtm_sessions_crashed_total").increment(1);
            tracing::error!(actor = %cell.get_id(), %error, "session crashed; its client reconnects and resumes");
        }
        Ok(())
    }
}
