//! Administrative actions: one command of meta each, with its leaf in the same entry and the
//! detail (who, from where, why, old and new values) sealed beside it.

use bytes::Bytes;
use dtm_identity::Caller;
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_seal::BatchCipher;
use dtm_types::command::admin::Op;
use dtm_types::command::command::Op as Command;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Actor as Who, ActorKind, Admin, Done, Outcome, PutKey, RefusalKind};
use dtm_types::format::{KeyPurpose, WrappedKey};
use dtm_types::{ErrorCode, GroupId, Month, RequestId};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tonic::Status;

use super::shared::Shared;
use super::status::{internal, status};

/// How often an action is proposed while there is no leader.
const TRIES: u32 = 20;
/// Pause between tries.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

/// Who acts.
pub(crate) struct Actor {
    pub(crate) kind: ActorKind,
    /// 16 bytes.
    pub(crate) id: Bytes,
    pub(crate) name: String,
    pub(crate) address: String,
}

impl Actor {
    /// A caller of a door.
    pub(crate) fn of(caller: &Caller, address: String) -> Self {
        let (kind, id) = match caller {
            Caller::Node { node } => (ActorKind::Node, Bytes::copy_from_slice(&node.0)),
            Caller::Operator { certificate_digest, .. } => {
                (ActorKind::Operator, Bytes::copy_from_slice(&certificate_digest[..16]))
            }
            Caller::Source { source, .. } => {
                (ActorKind::Source, Bytes::copy_from_slice(&Sha256::digest(source.as_str())[..16]))
            }
            Caller::Anonymous => (ActorKind::Unspecified, Bytes::new()),
        };
        Self { kind, id, name: caller.to_string(), address }
    }

    /// This node itself.
    pub(crate) fn node(shared: &Shared) -> Self {
        Self {
            kind: ActorKind::Node,
            id: Bytes::copy_from_slice(&shared.node.0),
            name: format!("node {}", shared.row.name),
            address: shared.row.peer_address.clone(),
        }
    }
}

/// What is done, and why.
pub(crate) struct Action {
    pub(crate) op: Op,
    pub(crate) expected_version: Option<u64>,
    pub(crate) reason: String,
    /// 16 bytes; empty = a fresh one.
    pub(crate) request_id: Bytes,
    /// New values in clear, for the sealed detail: never a secret.
    pub(crate) detail: serde_json::Value,
}

/// Carries out one action: committed in meta, with its leaf, or refused.
///
/// # Errors
/// The status that the caller sees; `OUTCOME_UNKNOWN` where it may have been committed.
pub(crate) async fn act(shared: &Shared, actor: Actor, action: Action) -> Result<Done, Status> {
    let request_id = match RequestId::from_slice(&action.request_id) {
        Some(id) => id,
        None => RequestId(shared.entropy.id16()),
    };
    let (sealed_detail, detail_digest) = sealed(shared, &actor, &action, request_id).await?;
    let admin = Admin {
        sealed_detail,
        detail_digest,
        expected_version: action.expected_version,
        op: Some(action.op),
    };
    let outcome = propose(shared, GroupId::META, request_id, &actor, Command::Admin(admin)).await?;
    match outcome.result {
        Some(Answer::Done(done)) => {
            tracing::info!(request_id = %request_id, actor = %actor.name, leaf = done.leaf_index, "administrative action");
            Ok(done)
        }
        Some(Answer::Refusal(refusal)) => Err(status(code_of(refusal.kind()), refusal.detail)),
        other => Err(internal(format!("meta answered {other:?}"))),
    }
}

fn code_of(kind: RefusalKind) -> ErrorCode {
    match kind {
        RefusalKind::NotFound => ErrorCode::NotFound,
        RefusalKind::Exists => ErrorCode::AlreadyExists,
        RefusalKind::Version => ErrorCode::VersionConflict,
        RefusalKind::Expired => ErrorCode::Expired,
        RefusalKind::Malformed => ErrorCode::InvalidArgument,
        RefusalKind::Limit => ErrorCode::TooLarge,
        _ => ErrorCode::Internal,
    }
}

/// Proposes one command until it has an outcome; the request id makes the tries one action.
pub(crate) async fn propose(
    shared: &Shared,
    group: GroupId,
    request_id: RequestId,
    actor: &Actor,
    op: Command,
) -> Result<Outcome, Status> {
    let command = dtm_types::command::Command {
        request_id: Bytes::copy_from_slice(&request_id.0),
        actor: Some(Who { kind: actor.kind.into(), id: actor.id.clone() }),
        op: Some(op),
    };
    let command = Bytes::from(command.encode_to_vec());
    let mut last = None;
    for _ in 0..TRIES {
        let (sender, receiver) = oneshot::channel();
        shared.cluster.propose(
            group,
            command.clone(),
            Box::new(move |result| drop(sender.send(result))),
        );
        match receiver.await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) if error.retryable() => last = Some(error),
            Ok(Err(error)) => return Err(status(error.code(), &error)),
            Err(_) => {
                last = Some(ProposeError::OutcomeUnknown {
                    group,
                    cause: "the answer was dropped".into(),
                })
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    let error = last.expect("at least one try");
    Err(status(error.code(), &error))
}

/// The detail, sealed under the audit key of the month, and its salted digest.
async fn sealed(
    shared: &Shared,
    actor: &Actor,
    action: &Action,
    request_id: RequestId,
) -> Result<(Bytes, Bytes), Status> {
    let salt = shared.entropy.id16();
    let detail = serde_json::json!({
        "actor": {"user": {"name": actor.name}},
        "src_endpoint": {"ip": actor.address},
        "message": action.reason,
        "unmapped": action.detail,
        "metadata": {"uid": request_id.to_string()},
    });
    let mut text = salt.to_vec();
    text.extend_from_slice(detail.to_string().as_bytes());
    let digest = Bytes::copy_from_slice(&Sha256::digest(&text));
    let key_row = audit_key(shared, actor).await?;
    let key = shared
        .vault
        .open_data_key(GroupId::META, &key_row)
        .map_err(|e| status(ErrorCode::KeyMissing, e))?;
    let mut nonce = [0_u8; 24];
    shared.entropy.fill(&mut nonce);
    let tag = key.cipher().seal_batch(&nonce, &request_id.0, &mut text).map_err(internal)?;
    // version ‖ key id ‖ nonce ‖ tag ‖ ciphertext
    let mut sealed = Vec::with_capacity(57 + text.len());
    sealed.push(1);
    sealed.extend_from_slice(&key_row.key_id);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&tag);
    sealed.extend_from_slice(&text);
    Ok((sealed.into(), digest))
}

/// The audit key of meta for this month; made when there is none yet.
async fn audit_key(shared: &Shared, actor: &Actor) -> Result<WrappedKey, Status> {
    let month = Month::of_micros(shared.clock.now_us());
    let meta = shared.directory.meta(shared.view()).await?;
    let held = dtm_machine::reads::key_of(meta.state.as_ref(), KeyPurpose::Audit, "", month.0)
        .map_err(internal)?;
    if let Some(held) = held {
        return Ok(held);
    }
    let fresh = shared.vault.new_audit_key(GroupId::META, month);
    let op = Command::PutKey(PutKey { key: Some(fresh) });
    let outcome =
        propose(shared, GroupId::META, RequestId(shared.entropy.id16()), actor, op).await?;
    match outcome.result {
        Some(Answer::KeyHeld(held)) => held.key.ok_or_else(|| internal("no key in the answer")),
        other => Err(internal(format!("meta answered {other:?}"))),
    }
}
