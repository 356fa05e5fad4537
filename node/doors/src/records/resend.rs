//! A refused record is sent again, as it was or corrected.
//!
//! ```text
//!  refused record (its group) ▶ entry in meta ▶ session on `resend.ID` ▶ the usual way of a record
//! ```
//!
//! The stream bears the refused record's id: that is its provenance, and what makes a second call
//! find the first one's record. A correction that is refused again takes its sequence and lies in
//! quarantine itself; the next correction follows it, whichever of the two entries it is asked by.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_actors::{Limits, OpenRequest, SessionHandle, SourcesHandle};
use dtm_identity::Caller;
use dtm_machine::reads;
use dtm_machine::seams::Freshness;
use dtm_proto::ingest::publish_response::Response as Answer;
use dtm_proto::ingest::{Frame, IdPolicy, Open, Record, RefusedRecord};
use dtm_proto::records::{
    Position, QuarantineRequest, QuarantinedRecord, ResendRequest, ResendResponse,
};
use dtm_types::command::admin::Op;
use dtm_types::command::{ResendQuarantined, SourceRow};
use dtm_types::format::Cursor;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId};
use futures::StreamExt;
use prost::Message;
use serde_json::json;
use tonic::Status;

use super::refused_answers;
use super::refused_id::RefusedId;
use crate::audit::{Action, Actor, act};
use crate::shared::Shared;
use crate::status::{internal, of_session, stream_key, told};

/// How long the record's way through its session may take.
const OUTCOME_WITHIN: Duration = Duration::from_secs(40);

/// Sends it again for a caller who may.
pub(crate) async fn resend(
    shared: &Arc<Shared>,
    (caller, address): (Caller, String),
    asked: ResendRequest,
) -> Result<ResendResponse, Status> {
    let id = RefusedId::parse(&asked.id)
        .ok_or_else(|| told(ErrorCode::InvalidArgument, &RefusedId::rule(&asked.id)))?;
    let source = shared.directory.source(shared.view(), &asked.source).await?;
    let refused = find(shared, &caller, GroupId(source.group), (&asked.source, id)).await?;
    let payload = content(&refused, &asked.payload)?;
    // What was refused again goes on where it came from: it is stored once, by whichever entry.
    let origin = id.origin(&refused.stream);
    let name = origin.stream();
    let stream = stream_key(&asked.source, &name)?;
    let group = GroupId(source.group);
    let rows = shared.rows(group, Freshness::Current, reads::cursor_range(&stream)).await?;
    let cursor = reads::cursor(rows.as_ref(), &stream).map_err(internal)?.unwrap_or_default();
    is_still_out(id, origin, &cursor)?;
    let op = ResendQuarantined {
        source: asked.source.clone(),
        group: id.group,
        index: id.index,
        ordinal: id.ordinal,
        record: id.record,
    };
    let detail = json!({"source": asked.source, "refused": asked.id, "stream": name,
                        "corrected": !asked.payload.is_empty()});
    let action = Action {
        op: Op::ResendQuarantined(op),
        expected_version: None,
        reason: asked.reason,
        request_id: asked.request_id,
        detail,
    };
    let done = act(shared, Actor::of(&caller, address), action).await?;
    let record = Record {
        payload,
        message_id: refused.message_id.clone(),
        event_time_us: refused.envelope.as_ref().map_or(0, |envelope| envelope.event_time_us),
        envelope: refused.envelope.clone().map(Box::new),
        security_status: refused.security_status,
        priority: refused.priority,
        ..Record::default()
    };
    let sent = async {
        let (open, _) = shared.open_request(open_of(&source, &name, &refused)).await?;
        send(&shared.sources, open, cursor.through + 1, record).await
    };
    let late = |_| told(ErrorCode::OutcomeUnknown, &Told::new("resend.late").with("stream", &name));
    let (again, is_duplicate) =
        tokio::time::timeout(OUTCOME_WITHIN, sent).await.map_err(late)??;
    let again = again.map(|again| QuarantinedRecord {
        source: asked.source,
        stream: name.clone(),
        sequence: again.sequence,
        dataset: refused.dataset,
        message_id: again.message_id,
        violations: again.violations,
        messages_vi: again.messages_vi,
        messages_en: again.messages_en,
        ..QuarantinedRecord::default()
    });
    Ok(ResendResponse {
        stream: name,
        sequence: cursor.through + 1,
        refused: again,
        is_duplicate,
        leaf_index: done.leaf_index,
    })
}

/// It is resent until it is stored, or found to be a double, under its first id.
fn is_still_out(id: RefusedId, origin: RefusedId, cursor: &Cursor) -> Result<(), Status> {
    if !cursor.closed && cursor.records + cursor.duplicates == 0 {
        return Ok(());
    }
    let key = if cursor.records > 0 { "resend.stored" } else { "resend.doubled" };
    let what = Told::new(key).with("id", id).with("stream", origin.stream());
    Err(told(ErrorCode::AlreadyExists, &what.with("sequence", cursor.through)))
}

/// The refused record, from whatever node holds its group.
async fn find(
    shared: &Arc<Shared>,
    caller: &Caller,
    group: GroupId,
    (source, id): (&str, RefusedId),
) -> Result<QuarantinedRecord, Status> {
    let what = Told::new("resend.none").with("id", id).with("source", source);
    let none = || told(ErrorCode::NotFound, &what);
    let before = id.before().filter(|_| id.group == group.0).ok_or_else(none)?;
    let position =
        Position { incarnation: shared.incarnation.0, groups: vec![before], ..Position::default() };
    let request = QuarantineRequest {
        source: source.to_owned(),
        position: position.encode_to_vec().into(),
        records_max: 1,
        ..QuarantineRequest::default()
    };
    let reading = shared.room.ahead.enter(caller);
    let mut answers = refused_answers(shared, group, request, true, &reading).await?;
    let first = answers.next().await.transpose()?;
    let record = first.and_then(|answer| answer.records.into_iter().next());
    record.filter(|record| record.id == id.to_string()).ok_or_else(none)
}

/// What is to be sent.
fn content(refused: &QuarantinedRecord, corrected: &Bytes) -> Result<Bytes, Status> {
    if !corrected.is_empty() {
        return Ok(corrected.clone());
    }
    let kept_max = Limits::default().quarantine_record_bytes_max;
    if refused.payload.is_empty() || refused.payload.len() >= kept_max {
        return Err(told(ErrorCode::InvalidArgument, &Told::new("resend.not_kept")));
    }
    Ok(refused.payload.clone())
}

/// As it is agreed now: what was refused may have come under another agreement.
fn open_of(source: &SourceRow, stream: &str, refused: &QuarantinedRecord) -> Open {
    let ids = if refused.message_id.is_empty() { IdPolicy::Sequence } else { IdPolicy::MessageId };
    let agreed = source.agreements.iter().find(|agreement| agreement.dataset == refused.dataset);
    let other_mode =
        |modes: &[i32]| modes.first().filter(|_| !modes.contains(&refused.mode)).copied();
    Open {
        source: source.source.clone(),
        stream: stream.to_owned(),
        dataset: refused.dataset.clone(),
        mode: agreed.and_then(|agreed| other_mode(&agreed.modes)).unwrap_or(refused.mode),
        form: agreed.map_or(refused.form, |agreed| agreed.form),
        ids: ids.into(),
        client: "resend".to_owned(),
        ..Open::default()
    }
}

/// Ends the session when its caller goes away: nobody else would. What is in flight may still
/// commit.
struct Leaving(SessionHandle);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

/// Sends one record through a session of its own, which ends with this call however it ends. Why it
/// was refused again, if it was, and whether it is a double.
async fn send(
    sources: &SourcesHandle,
    request: OpenRequest,
    sequence: u64,
    record: Record,
) -> Result<(Option<RefusedRecord>, bool), Status> {
    let (session, mut answers) = sources.open(request).await.map_err(|e| of_session(&e))?;
    let session = Leaving(session);
    let mut record = Some(record);
    let (mut refused, mut is_duplicate) = (None, false);
    while let Some(answer) = answers.next().await {
        match answer.map_err(|e| of_session(&e))?.response {
            Some(Answer::Opened(opened)) if opened.next_sequence == sequence => {
                let records = record.take().into_iter().collect();
                let frame = Frame { first_sequence: sequence, records, ..Frame::default() };
                session.0.frame(frame).await.map_err(|e| of_session(&e))?;
            }
            Some(Answer::Refused(again)) => refused = again.records.into_iter().next(),
            Some(Answer::Ack(ack)) if ack.acked_through >= sequence => {
                // A stored one is the last of its stream: a second call finds it finished.
                is_duplicate |= ack.duplicates > 0;
                session.0.close(refused.is_none()).map_err(|e| of_session(&e))?;
            }
            Some(Answer::Closed(_)) => return Ok((refused, is_duplicate)),
            Some(Answer::Opened(_) | Answer::Rewind(_)) => {
                return Err(told(ErrorCode::VersionConflict, &Told::new("resend.under_way")));
            }
            _ => {}
        }
    }
    Err(told(ErrorCode::OutcomeUnknown, &Told::new("resend.ended")))
}

#[cfg(test)]
#[path = "resend_test.rs"]
mod sending;
