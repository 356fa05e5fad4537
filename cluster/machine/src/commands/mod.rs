//! One file a replicated command. Each is total: whatever the command holds, it yields an outcome,
//! and a refused command changes nothing.

mod admin;
mod anchor;
mod append_batch;
mod close_session;
mod count_refusals;
mod declare_lost;
mod genesis;
mod open_session;
mod put_key;
mod raise_version;
mod resend;
mod rewrap_keys;

use bytes::Bytes;
use dtm_types::GroupId;
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Done, Outcome, Refusal, RefusalKind};

use crate::machine::ApplyError;
use crate::mirror::Mirror;
use crate::overlay::Overlay;

/// What a command sees of the entry it is in.
pub(crate) struct Context<'m, 's> {
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) ordinal: u32,
    pub(crate) group_time_us: i64,
    /// Highest version that this software knows: no outcome may depend on it but stopping.
    pub(crate) version_max: u32,
    pub(crate) actor_id: Bytes,
    pub(crate) request_id: Bytes,
    pub(crate) rows: &'m mut Overlay<'s>,
    pub(crate) mirror: &'m mut Mirror,
}

/// Applies one command.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, op: Option<Op>) -> Result<Outcome, ApplyError> {
    match op {
        Some(Op::Genesis(genesis)) => genesis::apply(ctx, genesis),
        Some(Op::CountRefusals(counts)) => count_refusals::apply(ctx, counts),
        Some(Op::PutKey(put)) => put_key::apply(ctx, put),
        Some(Op::RewrapKeys(rewrap)) => rewrap_keys::apply(ctx, rewrap),
        Some(Op::RaiseVersion(raise)) => raise_version::apply(ctx, raise),
        Some(Op::Admin(admin)) if ctx.group.is_meta() => admin::apply(ctx, admin),
        Some(Op::Anchor(anchor)) if ctx.group.is_meta() => anchor::apply(ctx, anchor),
        Some(Op::OpenSession(open)) if !ctx.group.is_meta() => open_session::apply(ctx, open),
        Some(Op::AppendBatch(append)) if !ctx.group.is_meta() => append_batch::apply(ctx, append),
        Some(Op::CloseSession(close)) if !ctx.group.is_meta() => close_session::apply(ctx, close),
        Some(Op::DeclareLost(lost)) if !ctx.group.is_meta() => declare_lost::apply(ctx, lost),
        Some(_) => Ok(refused(RefusalKind::WrongGroup, "the command belongs to another group")),
        None => Err(unknown(ctx)),
    }
}

/// Stops the group here.
pub(crate) fn unknown(ctx: &Context<'_, '_>) -> ApplyError {
    ApplyError::UnknownOperation { group: ctx.group, index: ctx.index, ordinal: ctx.ordinal }
}

pub(crate) fn answer(result: Answer) -> Outcome {
    Outcome { result: Some(result) }
}

pub(crate) fn done(ctx: &Context<'_, '_>, leaf_index: u64) -> Outcome {
    answer(Answer::Done(Done { offset: ctx.index, leaf_index, ..Done::default() }))
}

pub(crate) fn refused(kind: RefusalKind, detail: &str) -> Outcome {
    answer(Answer::Refusal(Refusal {
        kind: kind.into(),
        detail: detail.to_owned(),
        ..Refusal::default()
    }))
}

pub(crate) fn refused_at(kind: RefusalKind, sequence: u64, session: u64) -> Outcome {
    answer(Answer::Refusal(Refusal { kind: kind.into(), sequence, session, ..Refusal::default() }))
}
