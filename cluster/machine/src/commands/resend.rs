//! Resends: telling "the same content again" from "other content" by tags, within the window.

use dtm_types::StreamKey;

use super::Context;
use crate::keys::{self, RESEND_WINDOW, SLOT_SEQUENCES, SLOTS};
use crate::machine::ApplyError;
use crate::mirror::{Slot, StreamMirror, TAG_BYTES};

/// What became of a batch wholly at or below the cursor.
pub(super) enum Resend {
    /// The same content, as far as it can still be compared.
    Same {
        /// Sequences below the window, not compared.
        unverified: u64,
    },
    /// These sequences, ascending, are held with other content, or were declared lost and are held
    /// not at all.
    Conflict(Vec<u64>),
}

/// Compares the tags of a resent batch with those held.
pub(super) fn compare(
    ctx: &Context<'_, '_>,
    stream: &StreamKey,
    mirror: &StreamMirror,
    first: u64,
    tags: &[u8],
) -> Result<Resend, ApplyError> {
    let (mut unverified, mut conflicts) = (0, Vec::new());
    let mut slot: Option<Slot> = None;
    let lost = &mirror.cursor.lost_ranges;
    for (sequence, tag) in (first..).zip(tags.chunks_exact(TAG_BYTES)) {
        // An ack would let the source drop what was never stored (ING-1).
        if lost.iter().any(|range| (range.from..=range.to).contains(&sequence)) {
            conflicts.push(sequence);
            continue;
        }
        if sequence + RESEND_WINDOW <= mirror.cursor.through {
            unverified += 1;
            continue;
        }
        if slot.as_ref().is_none_or(|s| s.base != Slot::base_of(sequence)) {
            slot = load(ctx, stream, sequence)?;
        }
        match &slot {
            // A sequence without a tag was lost: within the window all that are held have one.
            Some(slot) if slot.tag(sequence) != tag => conflicts.push(sequence),
            Some(_) => {}
            None => conflicts.push(sequence),
        }
    }
    Ok(if conflicts.is_empty() { Resend::Same { unverified } } else { Resend::Conflict(conflicts) })
}

/// Keeps the tags of an accepted batch; the ring forgets what falls out of the window.
pub(super) fn remember(
    ctx: &mut Context<'_, '_>,
    stream: &StreamKey,
    mirror: &mut StreamMirror,
    first: u64,
    tags: &[u8],
) -> Result<(), ApplyError> {
    let last = first + (tags.len() / TAG_BYTES) as u64 - 1;
    // Older slots of a batch longer than the ring would be overwritten at once.
    let oldest = Slot::base_of(last).saturating_sub((SLOTS - 1) * SLOT_SEQUENCES);
    let mut slot = match mirror.slot.take() {
        Some(slot) if slot.base == Slot::base_of(first) => slot,
        _ => load(ctx, stream, first)?.unwrap_or_else(|| Slot::empty(Slot::base_of(first))),
    };
    for (sequence, tag) in (first..).zip(tags.chunks_exact(TAG_BYTES)) {
        if sequence < oldest {
            continue;
        }
        if Slot::base_of(sequence) != slot.base {
            if slot.base >= oldest {
                ctx.rows.put(keys::tags(stream, slot.base), slot.encode());
            }
            slot = Slot::empty(Slot::base_of(sequence));
        }
        slot.set(sequence, tag);
    }
    ctx.rows.put(keys::tags(stream, slot.base), slot.encode());
    mirror.slot = Some(slot);
    Ok(())
}

/// The slot that holds a sequence, if it has not been overwritten.
fn load(
    ctx: &Context<'_, '_>,
    stream: &StreamKey,
    sequence: u64,
) -> Result<Option<Slot>, ApplyError> {
    let bytes = ctx.rows.get(&keys::tags(stream, sequence))?;
    let slot = bytes.as_deref().and_then(Slot::decode);
    Ok(slot.filter(|slot| slot.base == Slot::base_of(sequence)))
}
