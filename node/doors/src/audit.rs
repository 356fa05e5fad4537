//! Administrative actions: one command of meta each, with its leaf in the same entry and the
//! detail (who, from where, why, old and new values) sealed beside it.

use std::time::Duration;

use bytes::Bytes;
use dtm_identity::Caller;
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_seal::{BatchCipher, DataKey};
use dtm_types::command::admin::Op;
use dtm_types::command::command::Op as Command;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Actor as Who, ActorKind, Admin, Done, Outcome, PutKey, RefusalKind};
use dtm_types::format::{KeyPurpose, WrappedKey};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId, Month, RequestId};
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::depended;
use super::shared::Shared;
use super::status::{applied, at_most, internal, status, told};

/// How often an action is proposed while there is no leader.
const TRIES: u32 = 20;
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(250);
/// How long all the tries of one action may take.
const PROPOSE_WITHIN: Duration = Duration::from_secs(30);

/// Version of a sealed detail.
const DETAIL_VERSION: u8 = 1;

/// Who acts.
#[derive(Clone)]
pub struct Actor {
    /// A node, an operator, a source.
    pub kind: ActorKind,
    /// 16 bytes.
    pub id: Bytes,
    /// As the ledger's leaf names it.
    pub name: String,
    /// Where the call came from.
    pub address: String,
}

impl Actor {
    /// A caller of a door.
    pub fn of(caller: &Caller, address: String) -> Self {
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
    pub fn node(shared: &Shared) -> Self {
        Self {
            kind: ActorKind::Node,
            id: Bytes::copy_from_slice(&shared.node.0),
            name: format!("node {}", shared.row.name),
            address: shared.row.peer_address.clone(),
        }
    }
}

/// What is done, and why.
pub struct Action {
    /// What of meta's rows changes.
    pub op: Op,
    /// The version that the row must have; else it is refused.
    pub expected_version: Option<u64>,
    /// Sealed beside the leaf; at most [`REASON_BYTES_MAX`].
    pub reason: String,
    /// 16 bytes; empty = a fresh one.
    pub request_id: Bytes,
    /// New values in clear, for the sealed detail: never a secret.
    pub detail: serde_json::Value,
}

/// Largest reason, bytes: it stands sealed beside the leaf of its action.
const REASON_BYTES_MAX: usize = 4_096;

/// A request id of another length would not make a repeated call one action.
fn check(action: &Action) -> Result<(), Status> {
    if !matches!(action.request_id.len(), 0 | 16) {
        let what = Told::new("refused.request_id").with("found", action.request_id.len());
        return Err(told(ErrorCode::InvalidArgument, &what));
    }
    at_most("reason", &action.reason, REASON_BYTES_MAX)
}

/// Carries out one action: committed in meta, with its leaf, or refused. What another site may go on
/// without, a life later, is neither begun nor told as done; the layout that says so is. What others go by
/// is told as done once the standby has it too.
///
/// # Errors
/// The status that the caller sees; `OUTCOME_UNKNOWN` where it may have been committed.
pub async fn act(shared: &Shared, actor: Actor, action: Action) -> Result<Done, Status> {
    check(&action)?;
    let is_operator = actor.kind == ActorKind::Operator;
    let is_held_back = is_operator && !matches!(action.op, Op::PutLayout(_));
    let left = || shared.primacy.leaves_behind().filter(|_| is_held_back);
    if let Some(why) = left() {
        return Err(told(ErrorCode::Unavailable, &why));
    }
    let is_depended_on = is_operator && depended::is_depended_on(shared, &action.op).await?;
    if is_depended_on {
        depended::may_begin(shared).await?;
    }
    let hands_out = depended::hands_out(&action.op);
    if is_depended_on && hands_out {
        depended::keeps_up(shared).await?;
    }
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
            if is_depended_on {
                let is_there = depended::is_at_standby(shared, done.offset).await;
                // What is handed out would be lost to its owner: the standby was level when it began.
                is_there.or_else(|late| if hands_out { Ok(()) } else { Err(late) })?;
            }
            if let Some(why) = left() {
                return Err(told(ErrorCode::OutcomeUnknown, &why));
            }
            tracing::info!(request_id = %request_id, actor = %actor.name, leaf = done.leaf_index, "administrative action");
            Ok(done)
        }
        Some(Answer::Refusal(refusal)) => Err(applied(code_of(refusal.kind()), &refusal.detail)),
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
        RefusalKind::Approval => ErrorCode::ApprovalNeeded,
        _ => ErrorCode::Internal,
    }
}

/// Proposes one command until it has an outcome; the request id makes the tries one action.
pub async fn propose(
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
    let outcome = propose_within(shared.cluster.as_ref(), group, command, PROPOSE_WITHIN).await;
    outcome.map_err(|error| status(error.code(), &error))
}

async fn propose_within(
    proposer: &dyn Proposer,
    group: GroupId,
    command: Bytes,
    within: Duration,
) -> Result<Outcome, ProposeError> {
    let deadline = tokio::time::Instant::now() + within;
    let mut last = None;
    for _ in 0..TRIES {
        // A leader that has lost its followers may wait for them for long: the caller does not.
        let tried = dtm_actors::propose(proposer, group, command.clone());
        match tokio::time::timeout_at(deadline, tried).await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) if error.retryable() => last = Some(error),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let cause = "no majority answered in time".to_owned();
                return Err(ProposeError::OutcomeUnknown { group, cause });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last.expect("at least one try"))
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
    let sealed = seal_detail(&key, &key_row.key_id, nonce, request_id, text).map_err(internal)?;
    Ok((sealed.into(), digest))
}

/// version ‖ key id ‖ nonce ‖ tag ‖ salt and detail, sealed for this request.
fn seal_detail(
    key: &DataKey,
    key_id: &[u8],
    nonce: [u8; 24],
    request_id: RequestId,
    mut text: Vec<u8>,
) -> Result<Vec<u8>, dtm_seal::Error> {
    let tag = key.cipher().seal_batch(&nonce, &request_id.0, &mut text)?;
    Ok([&[DETAIL_VERSION][..], key_id, &nonce, &tag, &text].concat())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use dtm_machine::seams::Reply;
    use dtm_seal::Secret;
    use parking_lot::Mutex;

    use super::*;

    /// A leader without followers: takes commands and never answers.
    #[derive(Default)]
    struct Alone(Mutex<Vec<Reply>>);

    impl Proposer for Alone {
        fn propose(&self, _: GroupId, _: Bytes, reply: Reply) {
            self.0.lock().push(reply);
        }
    }

    /// Elects its leader while it is asked.
    #[derive(Default)]
    struct Electing(AtomicU32);

    impl Proposer for Electing {
        fn propose(&self, group: GroupId, _: Bytes, reply: Reply) {
            match self.0.fetch_add(1, Ordering::AcqRel) {
                0 => reply(Err(ProposeError::NotLeader { group, leader: None })),
                1 => drop(reply),
                _ => reply(Ok(Outcome::default())),
            }
        }
    }

    /// As it lies in rows 49 for ever; docs/formats.md, section 4.
    #[test]
    fn a_detail_is_sealed_as_it_always_was() {
        // Tag and ciphertext, from an independent implementation.
        const KEPT: &str = "2d36050b94704adf08d1c8bd2ee2408256a387faf78073599c4726d8718ca04f\
                            7d3eea19996ce9f0df9d2b78970db60ba675";
        let key = DataKey::from_bytes(&mut [1; 32]);
        let text = [&[5; 16][..], b"{\"message\":\"test\"}"].concat();
        let request = RequestId([4; 16]);
        let sealed = seal_detail(&key, &[2; 16], [3; 24], request, text.clone()).expect("short");
        assert_eq!(sealed[..41], [&[1][..], &[2; 16], &[3; 24]].concat());
        assert_eq!(hex::encode(&sealed[41..]), KEPT);
        let (tag, mut opened) = (sealed[41..57].try_into().expect("16"), sealed[57..].to_vec());
        let cipher = key.cipher();
        cipher.open_batch(&[3; 24], &request.0, &mut opened, &tag).expect("opens");
        assert_eq!(opened, text);
    }

    #[test]
    fn a_request_id_has_its_length_and_a_reason_its_bound() {
        let action = |id: usize, reason: usize| Action {
            op: Op::RevokeOperator(dtm_types::command::RevokeOperator::default()),
            expected_version: None,
            reason: "x".repeat(reason),
            request_id: vec![1; id].into(),
            detail: serde_json::Value::Null,
        };
        for (id, reason) in [(0, 0), (16, REASON_BYTES_MAX)] {
            check(&action(id, reason)).expect("taken");
        }
        for id in [1, 5, 15, 17, 1_000] {
            let refused = check(&action(id, 0)).expect_err("refused");
            assert!(refused.message().contains("16 bytes"), "{refused}");
        }
        let refused = check(&action(0, REASON_BYTES_MAX + 1)).expect_err("refused");
        assert!(refused.message().contains("4096"), "{refused}");
    }

    #[tokio::test]
    async fn an_action_without_an_answer_ends_as_unknown() {
        let within = Duration::from_millis(50);
        let alone = Alone::default();
        let asked = propose_within(&alone, GroupId::META, Bytes::new(), within);
        let ended = tokio::time::timeout(Duration::from_secs(20), asked).await;
        let error = ended.expect("it ends by itself").expect_err("nobody answered");
        assert_eq!(error.code(), ErrorCode::OutcomeUnknown);
        assert_eq!(alone.0.lock().len(), 1, "the first try may still commit");
    }

    #[tokio::test]
    async fn an_action_is_proposed_until_there_is_a_leader() {
        let electing = Electing::default();
        let within = Duration::from_secs(20);
        let outcome = propose_within(&electing, GroupId::META, Bytes::new(), within).await;
        assert_eq!(outcome, Ok(Outcome::default()));
        assert_eq!(electing.0.load(Ordering::Acquire), 3);
    }
}
