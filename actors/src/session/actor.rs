//! The session actor: messages, state, what each message does.

use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::ProposeError;
use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::command::command::Op;
use dtm_types::command::{CloseSession, DeclareLost, Outcome};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::OwnedSemaphorePermit;

use super::flow::{Flow, FlowArgs, Step};
use crate::admission::Permit;
use crate::batch::BatchKeys;
use crate::error::Error;
use crate::opener;
use crate::outbox::Outbox;
use crate::sources::SessionGuard;

/// How long a client may stay after it was asked to reconnect.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);
/// How long where its limits were changed: they hold everywhere within seconds.
const REOPEN_WITHIN: Duration = Duration::from_millis(2_500);

/// How long a client that leaves may wait for the acks of what it sent, milliseconds.
const DRAIN_WITHIN_MS: u64 = 2_000;

/// Why a client is asked to connect elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The node stops taking sessions: who does not leave is cut off.
    Draining,
    /// Another node leads the group: advice only, the session is served here as well.
    LeaderMoved,
    /// What it was opened within was changed: it is to be opened again, here or elsewhere, and is
    /// cut off where it is not.
    LimitsChanged,
    /// It may have more than it was opened with: advice only.
    LimitsRaised,
}

impl Leave {
    fn reason(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::LeaderMoved => "leader-moved",
            Self::LimitsChanged => "limits-changed",
            Self::LimitsRaised => "limits-raised",
        }
    }
}

/// One actor a connection.
pub(crate) struct Session;

/// What a session starts with.
pub(crate) struct SessionArgs {
    pub(crate) flow: FlowArgs,
    pub(crate) guard: SessionGuard,
}

impl std::fmt::Debug for SessionArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionArgs").field("stream", &self.flow.stream).finish_non_exhaustive()
    }
}

tokio::task_local! {
    static IN_SESSION: ();
}

/// Whether this code runs for one session: its panic is caught, counted, and ends that session only.
pub fn in_session() -> bool {
    IN_SESSION.try_with(|()| ()).is_ok()
}

/// Messages of a session.
pub(crate) enum SessionMessage {
    /// Records, with the room they take.
    Frame { frame: ingest::Frame, permit: Permit },
    /// A batch got its outcome, or none.
    Outcome { batch: u64, result: Result<Outcome, ProposeError> },
    /// Propose again what got no outcome.
    Retry,
    /// Time to look whether held frames may go on.
    Held,
    /// Time to look how long the oldest batch waits.
    Overdue,
    /// Time to look how far the other site is.
    Site,
    /// Keys of a new month.
    Keys(Result<Arc<BatchKeys>, Error>),
    /// The client lost these records; the next declaration waits for the permit.
    Lost(ingest::Lost, OwnedSemaphorePermit),
    /// The group answered a declaration of loss.
    LostDeclared(Result<Outcome, Error>, u64, OwnedSemaphorePermit),
    /// Nothing more comes.
    Close { finished: bool, asked: bool },
    /// The group closed the stream.
    Finished(Result<Outcome, Error>),
    /// Please connect elsewhere.
    Reconnect { address: String, why: Leave },
    /// The time to leave is up.
    LeaveNow,
    /// End with an error.
    Fail(Error),
}

impl std::fmt::Debug for SessionMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionMessage")
    }
}

/// How a session that nothing more comes for is to end.
#[derive(Clone, Copy)]
struct Closing {
    /// Never again on this stream: the group closes it.
    finished: bool,
    /// The client asked and is told; else its side of the connection just ended.
    asked: bool,
}

/// Everything that changes.
pub(crate) struct State {
    flow: Flow,
    outbox: Outbox,
    closing: Option<Closing>,
    #[allow(dead_code, reason = "held for its Drop: counts the session down")]
    guard: SessionGuard,
}

impl State {
    fn new(flow: Flow, outbox: Outbox, guard: SessionGuard) -> Self {
        metrics::gauge!("dtm_sessions_open").increment(1.0);
        Self { flow, outbox, closing: None, guard }
    }
}

/// Not in `post_stop`, which ractor leaves out after a panic: a session that crashed would leave its
/// client waiting for ever.
impl Drop for State {
    fn drop(&mut self) {
        metrics::gauge!("dtm_sessions_open").decrement(1.0);
        self.outbox.end(Err(Error::Gone));
    }
}

impl Actor for Session {
    type Msg = SessionMessage;
    type State = State;
    type Arguments = SessionArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        SessionArgs { flow: args, guard }: SessionArgs,
    ) -> Result<State, ActorProcessingErr> {
        tracing::debug!(stream = %args.stream, session = args.session, "session opened");
        let outbox = args.outbox.clone();
        let mut flow = Flow::new(args, myself);
        flow.watch_site();
        Ok(State::new(flow, outbox, guard))
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match IN_SESSION.scope((), step(&myself, message, state)).await {
            Ok(()) => {
                if let Some((lost, turn)) = state.flow.settled_loss() {
                    declare_lost(&myself, lost, turn, state);
                }
                finish_when_drained(&myself, state);
            }
            Err(error) => {
                tracing::debug!(stream = %state.flow.stream(), %error, "session ends");
                metrics::counter!("dtm_sessions_failed_total", "code" => error.code().name())
                    .increment(1);
                state.outbox.end(Err(error));
                myself.stop(None);
            }
        }
        Ok(())
    }
}

async fn step(
    myself: &ActorRef<SessionMessage>,
    message: SessionMessage,
    state: &mut State,
) -> Result<(), Error> {
    match message {
        SessionMessage::Frame { frame, permit } => state.flow.frame(frame, permit).await,
        SessionMessage::Outcome { batch, result } => match state.flow.outcome(batch, result)? {
            Step::Go => Ok(()),
            Step::RetryAfter(pause) => {
                myself.send_after(pause, || SessionMessage::Retry);
                Ok(())
            }
        },
        SessionMessage::Retry => {
            state.flow.retry();
            Ok(())
        }
        SessionMessage::Held => state.flow.go_on().await,
        SessionMessage::Overdue => state.flow.overdue(),
        SessionMessage::Site => state.flow.look_at_site(),
        SessionMessage::Keys(keys) => state.flow.rekeyed(keys?).await,
        SessionMessage::Lost(lost, turn) => {
            state.flow.lost(lost, turn);
            Ok(())
        }
        SessionMessage::LostDeclared(outcome, through, _turn) => {
            state.flow.lost_declared(outcome?, through).await
        }
        SessionMessage::Close { finished, asked } => {
            state.closing.get_or_insert(Closing { finished, asked });
            Ok(())
        }
        SessionMessage::Finished(outcome) => {
            outcome?;
            end(myself, state);
            Ok(())
        }
        SessionMessage::Reconnect { address, why } => {
            let reason = why.reason().to_owned();
            let advice = ingest::Reconnect { address, after_ms: DRAIN_WITHIN_MS, reason };
            state.flow.push(Response::Reconnect(advice))?;
            match why {
                Leave::LeaderMoved | Leave::LimitsRaised => {}
                Leave::Draining => {
                    myself.send_after(LEAVE_WITHIN, || SessionMessage::LeaveNow);
                }
                Leave::LimitsChanged => {
                    let stream = state.flow.stream().clone();
                    let ended = move || SessionMessage::Fail(Error::Changed { stream });
                    myself.send_after(REOPEN_WITHIN, ended);
                }
            }
            Ok(())
        }
        SessionMessage::LeaveNow => Err(Error::Draining),
        SessionMessage::Fail(error) => Err(error),
    }
}

fn declare_lost(
    myself: &ActorRef<SessionMessage>,
    lost: ingest::Lost,
    turn: OwnedSemaphorePermit,
    state: &State,
) {
    let flow = &state.flow;
    let op = Op::DeclareLost(DeclareLost {
        source: flow.stream().source.as_str().to_owned(),
        stream: flow.stream().stream.to_string(),
        session: flow.session(),
        from_sequence: lost.from_sequence,
        to_sequence: lost.to_sequence,
    });
    let through = lost.to_sequence;
    ask(myself, flow, op, move |outcome| SessionMessage::LostDeclared(outcome, through, turn));
}

/// Once everything taken is committed, a closing session says so and ends.
fn finish_when_drained(myself: &ActorRef<SessionMessage>, state: &mut State) {
    let Some(Closing { finished, asked }) = state.closing else {
        return;
    };
    if !state.flow.is_drained() {
        return;
    }
    if !finished {
        if asked {
            end(myself, state);
        } else {
            state.outbox.end(Ok(()));
            myself.stop(None);
        }
        return;
    }
    // The close itself is proposed once; its answer ends the session.
    state.closing = None;
    let flow = &state.flow;
    let op = Op::CloseSession(CloseSession {
        source: flow.stream().source.as_str().to_owned(),
        stream: flow.stream().stream.to_string(),
        session: flow.session(),
        finished: true,
    });
    ask(myself, flow, op, SessionMessage::Finished);
}

fn end(myself: &ActorRef<SessionMessage>, state: &State) {
    let closed = ingest::Closed { acked_through: state.flow.acked_through() };
    // A client that let its answers pile up has no use for this one either.
    let _ = state.outbox.push(Response::Closed(closed));
    state.outbox.end(Ok(()));
    myself.stop(None);
}

/// Proposes aside and messages the answer to self: a handler never waits for the network.
fn ask(
    myself: &ActorRef<SessionMessage>,
    flow: &Flow,
    op: Op,
    then: impl FnOnce(Result<Outcome, Error>) -> SessionMessage + Send + 'static,
) {
    let (deps, stream, group, actor_id) = flow.parts();
    let myself = myself.clone();
    ractor::concurrency::spawn(async move {
        let outcome = opener::propose_until(&deps, &stream, group, op, &actor_id).await;
        let _ = myself.cast(then(outcome));
    });
}

#[cfg(test)]
#[path = "crash_test.rs"]
mod crashes;
