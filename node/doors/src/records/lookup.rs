//! One record, by sequence or by message id.

use dtm_catalog::ENVELOPE_TEXT_BYTES_MAX;
use dtm_machine::reads;
use dtm_machine::seams::GroupView;
use dtm_proto::records::{LookupRequest, LookupResponse};
use dtm_types::format::{KeyPurpose, Place};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, Month, StreamKey};
use std::sync::Arc;
use tonic::Status;

use super::open::BatchReader;
use super::pages::{Batches, Wanted};
use crate::shared::Shared;
use crate::status::{at_most, internal, status, told};

/// Months that a lookup by message id goes back.
const LOOKUP_MONTHS: usize = 13;

/// Looks in the view of the source's group. Blocking.
///
/// # Errors
/// Not found; damaged; a key that is not here.
pub(crate) fn lookup(
    shared: &Shared,
    view: GroupView,
    asked: &LookupRequest,
) -> Result<LookupResponse, Status> {
    let current = view.current;
    let (place, at) = match find(shared, &view, asked)? {
        Some(found) => found,
        None => return Err(told(ErrorCode::NotFound, &wanted_record(asked))),
    };
    let sequence = place.first_sequence + at;
    let wanted = Wanted { from: sequence, records_max: 1 };
    let mut reader = BatchReader::new(view, Arc::clone(&shared.vault));
    let record = reader.stored(&place, wanted, false)?.into_iter().find(|r| r.sequence == sequence);
    let refused = match record {
        Some(_) => None,
        None => reader.refused(&place, wanted, true)?.into_iter().find(|r| r.sequence == sequence),
    };
    if record.is_none() && refused.is_none() {
        return Err(told(ErrorCode::NotFound, &Told::new("refused.double")));
    }
    Ok(LookupResponse { record, refused, current })
}

/// The record that is asked for, in words.
fn wanted_record(asked: &LookupRequest) -> Told {
    let LookupRequest { source, stream, dataset, sequence, message_id, .. } = asked;
    if message_id.is_empty() {
        let what = Told::new("refused.no_record").with("source", source);
        what.with("stream", stream).with("sequence", sequence)
    } else {
        let what = Told::new("refused.no_message_id").with("source", source);
        what.with("dataset", dataset).with("id", format!("{message_id:?}"))
    }
}

fn find(
    shared: &Shared,
    view: &GroupView,
    asked: &LookupRequest,
) -> Result<Option<(Place, u64)>, Status> {
    let state = view.state.as_ref();
    if asked.message_id.is_empty() {
        let stream = StreamKey::parse(&asked.source, &asked.stream)
            .ok_or_else(|| told(ErrorCode::InvalidArgument, &Told::new("refused.lookup_what")))?;
        let places = reads::stream_places(state, &stream, asked.sequence, 1).map_err(internal)?;
        let place = places.into_iter().next().filter(|p| p.first_sequence <= asked.sequence);
        return Ok(place.map(|place| {
            let at = asked.sequence - place.first_sequence;
            (place, at)
        }));
    }
    if asked.dataset.is_empty() {
        return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.lookup_dataset")));
    }
    at_most("message_id", &asked.message_id, ENVELOPE_TEXT_BYTES_MAX)?;
    let row = reads::key_of(state, KeyPurpose::Source, &asked.source, 0).map_err(internal)?;
    let Some(row) = row else { return Ok(None) };
    let key = shared
        .vault
        .open_source_key(view.group, &row)
        .map_err(|e| status(ErrorCode::KeyMissing, e))?;
    let fingerprint = key.fingerprint_key().fingerprint(&asked.dataset, &asked.message_id);
    // Group time is ahead of this node's clock where one of them was wrong.
    let group_us = reads::head(state).map_err(internal)?.group_time_us;
    let mut month = Month::of_micros(shared.clock.now_us().max(group_us));
    for _ in 0..LOOKUP_MONTHS {
        if let Some((index, ordinal, record)) =
            reads::by_fingerprint(state, month, &fingerprint).map_err(internal)?
        {
            let place = reads::place(state, index, ordinal).map_err(internal)?;
            return Ok(place.map(|p| (p, u64::from(record))));
        }
        month = month.previous();
    }
    Ok(None)
}
