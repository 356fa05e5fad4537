//! A repeated request is one action: the outcomes of the last 4,096 requests are kept.

use dtm_types::command::Outcome;
use prost::Message;

use crate::commands::Context;
use crate::keys::{self, Key, table};
use crate::machine::ApplyError;

/// Requests that are remembered.
const REQUESTS_MAX: u64 = 4_096;

pub(super) fn held(ctx: &Context<'_, '_>) -> Result<Option<Outcome>, ApplyError> {
    if ctx.request_id.is_empty() {
        return Ok(None);
    }
    ctx.rows.row(&keys::by_id(table::REQUEST, &ctx.request_id))
}

pub(super) fn keep(ctx: &mut Context<'_, '_>, outcome: &Outcome) -> Result<(), ApplyError> {
    if ctx.request_id.is_empty() {
        return Ok(());
    }
    let next_key = Key::of(table::REQUEST_NEXT).done();
    let next = ctx.rows.number(&next_key)?;
    let slot = u16::try_from(next % REQUESTS_MAX).expect("4,096 slots fit 16 bits");
    let slot_key = Key::of(table::REQUEST_SLOT).u16(slot).done();
    if let Some(old) = ctx.rows.get(&slot_key)? {
        ctx.rows.delete(keys::by_id(table::REQUEST, &old));
    }
    ctx.rows.put(slot_key, ctx.request_id.clone());
    ctx.rows.put_number(next_key, next + 1);
    ctx.rows.put(keys::by_id(table::REQUEST, &ctx.request_id), outcome.encode_to_vec());
    Ok(())
}
