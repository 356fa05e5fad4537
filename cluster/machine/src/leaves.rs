//! Ledger leaves: what each command leaves behind, in the same write as its effect.

use bytes::Bytes;
use dtm_ledger::leaf_hash;
use dtm_types::format::{EntryBody, Leaf, LeafKind};
use prost::Message;

use crate::commands::Context;
use crate::keys;

/// Version of the leaves that this software writes.
const LEAF_VERSION: u32 = 1;
/// Row of a leaf that is stored whole.
pub(crate) const INLINE: u8 = 0;
/// Row of a leaf that is rebuilt from its batch.
pub(crate) const POINTER: u8 = 1;

/// Appends a leaf that is stored whole; returns its index.
pub(crate) fn append(
    ctx: &mut Context<'_, '_>,
    kind: LeafKind,
    object_ids: Vec<String>,
    detail_digest: Bytes,
) -> u64 {
    let leaf = Leaf { object_ids, detail_digest, ..blank(ctx, kind) };
    append_whole(ctx, &leaf)
}

/// Appends a prepared leaf that is stored whole.
pub(crate) fn append_whole(ctx: &mut Context<'_, '_>, leaf: &Leaf) -> u64 {
    let bytes = leaf.encode_to_vec();
    let index = append_hash(ctx, &bytes);
    let mut row = Vec::with_capacity(bytes.len() + 1);
    row.push(INLINE);
    row.extend_from_slice(&bytes);
    ctx.rows.put(keys::leaf(index), row);
    index
}

/// The leaf in a row, where it is stored whole.
pub(crate) fn inline(row: &[u8]) -> Option<&[u8]> {
    row.split_first().filter(|(how, _)| **how == INLINE).map(|(_, leaf)| leaf)
}

/// Appends the leaf of a batch; its row points to the batch.
pub(crate) fn append_batch(
    ctx: &mut Context<'_, '_>,
    body: &EntryBody,
    duplicate_bitmap: Bytes,
) -> u64 {
    let leaf = of_batch(blank(ctx, LeafKind::Batch), body, duplicate_bitmap);
    let index = append_hash(ctx, &leaf.encode_to_vec());
    let mut row = Vec::with_capacity(13);
    row.push(POINTER);
    row.extend_from_slice(&ctx.index.to_be_bytes());
    row.extend_from_slice(&ctx.ordinal.to_be_bytes());
    ctx.rows.put(keys::leaf(index), row);
    index
}

/// The leaf covers part A and B of the header and what apply found.
pub(crate) fn of_batch(mut leaf: Leaf, body: &EntryBody, duplicate_bitmap: Bytes) -> Leaf {
    leaf.header_a = body.header_a.clone();
    leaf.header_b = body.header_b.clone();
    leaf.duplicate_bitmap = duplicate_bitmap;
    leaf
}

/// A leaf with what every kind has.
pub(crate) fn blank(ctx: &Context<'_, '_>, kind: LeafKind) -> Leaf {
    Leaf {
        version: LEAF_VERSION,
        kind: kind.into(),
        group_time_us: ctx.group_time_us,
        actor_id: ctx.actor_id.clone(),
        request_id: ctx.request_id.clone(),
        ..Leaf::default()
    }
}

fn append_hash(ctx: &mut Context<'_, '_>, leaf: &[u8]) -> u64 {
    let rows = &mut ctx.rows;
    ctx.mirror.frontier.append_with(leaf_hash(leaf), |node| {
        rows.put(keys::tile(node.tile_level, node.index), node.hash.to_vec());
    })
}
