//! Opening a session: `OpenSession` through the group, keys created where the month has none yet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{
    Actor, ActorKind, Command, OpenSession, Outcome, PutKey, RefusalKind, SessionOpened,
};
use dtm_types::format::WrappedKey;
use dtm_types::{ErrorCode, GroupId, Month, REQUEST_LOG, RequestId, StreamKey, operation};
use prost::Message;
use tokio::sync::oneshot;

use crate::batch::BatchKeys;
use crate::bounds::Bound;
use crate::error::Error;
use crate::sources::Deps;

/// First pause between two tries.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Between two looks at the other site.
const SITE_PAUSE: Duration = Duration::from_millis(10);
/// Longest that an open is held for the other site. Clients give an open up after a few times this long
/// and turn to another node: what they wait for is an answer, not silence.
const OPEN_WAITS_MAX: Duration = Duration::from_secs(1);

/// Proposes one command and waits for its outcome, which may take for ever: a leader that has lost
/// its followers waits for them. Cancel-safe: the outcome is then lost, its effect is not.
///
/// # Errors
/// What the group says; an answer that was dropped is [`ProposeError::OutcomeUnknown`].
pub async fn propose(
    proposer: &dyn Proposer,
    group: GroupId,
    command: Bytes,
) -> Result<Outcome, ProposeError> {
    let (sender, receiver) = oneshot::channel();
    proposer.propose(group, command, Box::new(move |result| drop(sender.send(result))));
    receiver.await.unwrap_or(Err(ProposeError::OutcomeUnknown {
        group,
        cause: "the answer was dropped".into(),
    }))
}

/// As [`propose`], and tries the same command again while that may help. The request id makes the
/// tries one action.
pub(crate) async fn propose_until(
    deps: &Deps,
    stream: &StreamKey,
    group: GroupId,
    op: Op,
    actor_id: &Bytes,
) -> Result<Outcome, Error> {
    let request_id = RequestId(deps.entropy.id16());
    tracing::debug!(
        target: REQUEST_LOG,
        %request_id,
        operation = operation(Some(&op)),
        source = stream.source.as_str(),
        stream = &*stream.stream,
        group = group.0,
        "request proposed"
    );
    let command = Command {
        request_id: Bytes::copy_from_slice(&request_id.0),
        actor: Some(Actor { kind: ActorKind::Source.into(), id: actor_id.clone() }),
        op: Some(op),
    };
    let command = Bytes::from(command.encode_to_vec());
    let deadline = tokio::time::Instant::now() + deps.limits.open_within;
    let mut pause = BACKOFF_FIRST;
    loop {
        // A leader that has lost its followers may wait for them for long: the caller does not.
        let tried = propose(deps.proposer.as_ref(), group, command.clone());
        let error = match tokio::time::timeout_at(deadline, tried).await {
            Ok(Ok(outcome)) => {
                tell_answered(request_id, &outcome);
                return Ok(outcome);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let cause = "no majority answered in time".to_owned();
                ProposeError::OutcomeUnknown { group, cause }
            }
        };
        if !error.retryable() || tokio::time::Instant::now() + pause >= deadline {
            tracing::debug!(target: REQUEST_LOG, %request_id, %error, "request failed");
            return Err(Error::Propose { stream: stream.clone(), source: error });
        }
        tracing::debug!(target: REQUEST_LOG, %request_id, %error, "request tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

fn tell_answered(request_id: RequestId, outcome: &Outcome) {
    let (mut session, mut next, mut refusal) = (None, None, None);
    match &outcome.result {
        Some(Answer::SessionOpened(opened)) => {
            (session, next) = (Some(opened.session), Some(opened.next_sequence));
        }
        Some(Answer::Refusal(refused)) => refusal = Some(refused.kind().as_str_name()),
        _ => {}
    }
    tracing::debug!(target: REQUEST_LOG, %request_id, session, next, refusal, "request answered");
}

/// Opens the session in the group.
pub(crate) async fn open_session(
    deps: &Deps,
    (stream, group): (&StreamKey, GroupId),
    open: OpenSession,
    stream_names: Bound,
    actor_id: &Bytes,
) -> Result<SessionOpened, Error> {
    let outcome = propose_until(deps, stream, group, Op::OpenSession(open), actor_id).await?;
    match outcome.result {
        Some(Answer::SessionOpened(opened)) => Ok(opened),
        Some(Answer::Refusal(refusal)) if refusal.kind() == RefusalKind::Limit => {
            let found = stream_names.value.saturating_add(1);
            Err(stream_names.exceeded(found, stream, ErrorCode::TooManyStreamNames))
        }
        other => Err(unexpected(stream, &other)),
    }
}

/// Waits until the other site has the group through this index, for [`OPEN_WAITS_MAX`] at most.
///
/// # Errors
/// [`Error::SiteBehind`] where it has not in time.
pub(crate) async fn wait_for_site(
    deps: &Deps,
    (stream, group): (&StreamKey, GroupId),
    index: u64,
) -> Result<(), Error> {
    let within = deps.limits.site_ack_within.min(OPEN_WAITS_MAX);
    let deadline = tokio::time::Instant::now() + within;
    while deps.copies.through(group).is_none_or(|held| held < index) {
        if tokio::time::Instant::now() >= deadline {
            metrics::counter!("dtm_site_acks_late_total").increment(1);
            return Err(Error::SiteBehind { stream: stream.clone(), within });
        }
        tokio::time::sleep(SITE_PAUSE).await;
    }
    Ok(())
}

/// Expands the keys of a session; proposes the ones that the group does not hold yet.
pub(crate) async fn keys(
    deps: &Deps,
    stream: &StreamKey,
    group: GroupId,
    month: Month,
    held: (Option<WrappedKey>, Option<WrappedKey>),
    actor_id: &Bytes,
) -> Result<Arc<BatchKeys>, Error> {
    let source = match held.1 {
        Some(key) => key,
        None => {
            put_key(deps, stream, group, deps.vault.new_source_key(group, &stream.source), actor_id)
                .await?
        }
    };
    let data = match held.0 {
        Some(key) => key,
        None => {
            put_key(
                deps,
                stream,
                group,
                deps.vault.new_data_key(group, &stream.source, month),
                actor_id,
            )
            .await?
        }
    };
    let vault = |source| Error::Vault { stream: stream.clone(), source };
    let data_key = deps.vault.open_data_key(group, &data).map_err(vault)?;
    let source_key = deps.vault.open_source_key(group, &source).map_err(vault)?;
    let cipher = deps.vault.batch_cipher(&data_key);
    Ok(Arc::new(BatchKeys::new(stream, data.key_id, month, (&data_key, cipher), &source_key)))
}

/// The key that holds, which is another node's where that one was first.
async fn put_key(
    deps: &Deps,
    stream: &StreamKey,
    group: GroupId,
    key: WrappedKey,
    actor_id: &Bytes,
) -> Result<WrappedKey, Error> {
    let outcome =
        propose_until(deps, stream, group, Op::PutKey(PutKey { key: Some(key) }), actor_id).await?;
    match outcome.result {
        Some(Answer::KeyHeld(held)) => held.key.ok_or_else(|| unexpected(stream, &None)),
        other => Err(unexpected(stream, &other)),
    }
}

/// An answer that does not belong to what was asked; a refusal in its own words.
pub(crate) fn unexpected(stream: &StreamKey, answer: &Option<Answer>) -> Error {
    let cause = match answer {
        Some(Answer::Refusal(refusal)) if !refusal.detail.is_empty() => refusal.detail.clone(),
        Some(Answer::Refusal(refusal)) => {
            format!("the group refused it ({})", refusal.kind().as_str_name())
        }
        _ => "the group gave an answer of another kind".to_owned(),
    };
    Error::Protocol { stream: stream.clone(), cause }
}
