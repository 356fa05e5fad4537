//! `dtm.ingest.v1`: the door of the sources.
//!
//! One reading task a connection: it takes frames off the wire only when there is room for them, so
//! that a source that is too loud is slowed by its own connection and nobody else's.

mod codec;
mod server;

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;

use dtm_actors::{Bound, BoundOf, ContractRequest, OpenRequest, SessionHandle};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView, SiteCopies};
use dtm_proto::ingest::publish_request::Request as Asked;
use dtm_proto::ingest::{Open, PublishResponse, StatusRequest, StatusResponse};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId, SourceId, StreamKey};
use futures::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt;

use self::codec::{HoldsTooMuch, Inbound};
pub use self::server::IngestServer;
use super::arrivals::{Inlet, NotRead};
use super::rights::{Entered, Terms};
use super::shared::Shared;
use super::status::{
    LEADER_ADDRESS, internal, of_session, of_session_at, status, status_with, stream_key, told,
    told_with,
};
use crate::telemetry::contained;

/// How long a client may wait before its first request.
const OPEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The service.
struct IngestDoor(Arc<Shared>);

type Answers = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

impl IngestDoor {
    async fn publish(
        &self,
        request: Request<Streaming<Inbound>>,
        inlet: Arc<Inlet>,
    ) -> Result<Response<Answers>, Status> {
        let opened = self.opened(request, inlet).await;
        opened.inspect_err(|refused| {
            let info = refused.get_details_error_info();
            let code = info.map_or_else(|| format!("{:?}", refused.code()), |info| info.reason);
            metrics::counter!("dtm_opens_refused_total", "code" => code).increment(1);
        })
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let asked = request.get_ref();
        self.0.allow(&request, Operation::StreamStatus, Some(&asked.source)).await?;
        let stream = stream_key(&asked.source, &asked.stream)?;
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let group = GroupId(row.group);
        let rows = self.0.rows(group, Freshness::Current, reads::cursor_range(&stream)).await?;
        let cursor = reads::cursor(rows.as_ref(), &stream).map_err(internal)?.unwrap_or_default();
        let held = self.0.cluster.through(group);
        let is_there = held.is_some_and(|held| held >= cursor.offset);
        Ok(Response::new(StatusResponse {
            acked_through: cursor.through,
            site_through: if is_there { cursor.through } else { 0 },
            session: cursor.session,
            incarnation: self.0.incarnation.0,
            group: group.0,
            leader_address: self.0.cluster.leader(group).map(|l| l.address).unwrap_or_default(),
            dataset: cursor.dataset,
            records: cursor.records,
            refused: cursor.refused,
            duplicates: cursor.duplicates,
            finished: cursor.closed,
            site_copies: held.is_some(),
        }))
    }
}

impl IngestDoor {
    /// Opens a stream by the first request of a call.
    async fn opened(
        &self,
        request: Request<Streaming<Inbound>>,
        inlet: Arc<Inlet>,
    ) -> Result<Response<Answers>, Status> {
        let caller = self.0.caller(&request).await?;
        // Who may not even publish as itself is not listened to: nothing is decoded for it.
        self.0.permit(&caller, Operation::Publish, caller.source().map(SourceId::as_str))?;
        let share = self.0.room.arrivals.share(caller.to_string());
        inlet.enter(Arc::clone(&share));
        let mut requests = request.into_inner();
        let first = async {
            let _place = share.opening().await;
            requests.message().await
        };
        let first = tokio::time::timeout(OPEN_WITHIN, first).await;
        let first = first
            .map_err(|_| status(ErrorCode::InvalidArgument, "no open request within 10 s"))?
            .map_err(|unread| self.unread(unread))?;
        let Some(Inbound { asked: Some(Asked::Open(open)), .. }) = first else {
            return Err(status(
                ErrorCode::InvalidArgument,
                "the first request of a stream is Open",
            ));
        };
        drop(inlet.taken());
        self.0.permit(&caller, Operation::Publish, Some(&open.source))?;
        let (request, terms) = self.0.open_request(open).await?;
        // Entered before the session is opened: no revocation falls between.
        let right = self.0.rights.enter(&caller, terms);
        let stream = request.stream.clone();
        let (shared, group) = (Arc::clone(&self.0), request.group);
        let ended = move |error| of_session_at(&error, || shared.view().instead(group));
        let (session, outbox) = self.0.sources.open(request).await.map_err(&ended)?;
        tokio::spawn(contained(read((requests, inlet), session, stream, right)));
        let answers = outbox.map(move |answer| answer.map_err(&ended));
        Ok(Response::new(Box::pin(answers)))
    }

    /// Why the first request was not read, with its limit where tonic says it in words.
    fn unread(&self, refused: Status) -> Status {
        if refused.code() != Code::OutOfRange {
            return refused;
        }
        let max = self.0.limits().frame_bytes_max;
        let values = [("limit", "frame_bytes_max".to_owned()), ("value", max.to_string())];
        let detail = format!("frame_bytes_max = {max}: {}", refused.message());
        status_with(ErrorCode::TooLarge, detail, &values)
    }
}

impl Shared {
    /// Holds a request to open a stream against source, agreement and data set. With the terms that
    /// it is opened under.
    pub async fn open_request(&self, open: Open) -> Result<(OpenRequest, Terms), Status> {
        if open.acked_through > StreamKey::SEQUENCE_MAX {
            let detail = format!("a stream counts to {}", StreamKey::SEQUENCE_MAX);
            return Err(status(ErrorCode::InvalidArgument, detail));
        }
        let stream = stream_key(&open.source, &open.stream)?;
        let source = self.directory.source(self.view(), &open.source).await?;
        if source.suspended {
            let what = Told::new("refused.suspended").with("source", &open.source);
            return Err(told(ErrorCode::PermissionDenied, &what));
        }
        if open.incarnation > self.incarnation.0 {
            let what = Told::new("refused.incarnation").with("client", open.incarnation);
            let what = what.with("node", self.incarnation);
            return Err(told(ErrorCode::WrongIncarnation, &what));
        }
        let definition =
            self.directory.definition(self.view(), &open.dataset, open.schema_version).await?;
        let request = ContractRequest {
            open: &open,
            source: &source,
            definition: &definition,
            mask_key: self.vault.mask_key(),
        };
        let contract = self.contracts.contract(&stream, request).map_err(|e| of_session(&e))?;
        let group = GroupId(source.group);
        let Some(leader) = self.leader_soon(group).await else {
            let what = Told::new("refused.electing").with("group", group);
            let instead = self.view().instead(group).map(|address| (LEADER_ADDRESS, address));
            return Err(told_with(ErrorCode::Unavailable, &what, instead.as_slice()));
        };
        let leader_address = (!leader.is_self).then_some(leader.address);
        if let Some(site) = self.primacy.primary_elsewhere() {
            // Nothing is acknowledged here: a client that were let in would only wait.
            let what = Told::new("refused.primary_elsewhere").with("site", site);
            let instead = leader_address.map(|address| (LEADER_ADDRESS, address));
            return Err(told_with(ErrorCode::Unavailable, &what, instead.as_slice()));
        }
        if let (true, Some(leader)) = (open.may_redirect, &leader_address) {
            let values = [(LEADER_ADDRESS, leader.clone())];
            return Err(status_with(ErrorCode::NotLeader, format!("group {group}"), &values));
        }
        let terms = Terms::of(&source, &open.dataset);
        let actor_id = source.id.clone();
        let limits = source.limits.unwrap_or_default();
        let request =
            OpenRequest { stream, group, contract, limits, actor_id, open, leader_address };
        Ok((request, terms))
    }
}

/// Size of a message that tonic refused unread: over the frame limit and its slack. Tonic says it in
/// words only.
fn message_bytes(refused: &Status) -> Option<u64> {
    refused.message().split_whitespace().find_map(|word| word.parse().ok())
}

/// What a request held that was refused before it was built.
fn held_too_much(refused: &Status) -> Option<u64> {
    Some(refused.source()?.downcast_ref::<HoldsTooMuch>()?.found)
}

/// Why a request of an open stream was not read; none = its connection broke.
fn unread(
    broken: &Status,
    session: &SessionHandle,
    stream: &StreamKey,
) -> Option<dtm_actors::Error> {
    if let Some(why) = not_read(broken, stream) {
        return Some(why);
    }
    if let Some(found) = held_too_much(broken) {
        return Some(session.frame_holds_too_much(found));
    }
    match broken.code() {
        Code::OutOfRange => Some(session.frame_too_large(message_bytes(broken))),
        // What cannot be read, not a connection that broke.
        Code::InvalidArgument => Some(session.protocol("a request is no PublishRequest")),
        _ => None,
    }
}

/// A request that was begun and not completed in time, or had no room to wait in.
fn not_read(refused: &Status, stream: &StreamKey) -> Option<dtm_actors::Error> {
    let (name, value) = refused.source()?.downcast_ref::<NotRead>()?.limit();
    let bound = Bound { name, value, of: BoundOf::Node };
    let (stream, found) = (stream.clone(), value.saturating_add(1));
    Some(dtm_actors::Error::Limit { stream, code: ErrorCode::Overloaded, bound, found })
}

/// Reads a connection to its end, or until its right is gone.
async fn read(
    (mut requests, inlet): (Streaming<Inbound>, Arc<Inlet>),
    session: SessionHandle,
    stream: StreamKey,
    mut right: Entered,
) {
    loop {
        let next = async {
            session.slowed().await?;
            Ok(requests.message().await)
        };
        let next = tokio::select! {
            biased;
            cut = right.cut() => return session.fail(cut.error(&stream)),
            next = next => next,
        };
        let asked = match next {
            Ok(asked) => asked,
            Err(gone) => return session.fail(gone),
        };
        // Until the request has room among those in flight.
        let _taken = inlet.taken();
        let (asked, bytes) = match asked {
            Ok(Some(Inbound { asked: Some(asked), bytes })) => (asked, bytes),
            Ok(Some(_)) => {
                return session.fail(session.protocol("a request that this version does not know"));
            }
            Ok(None) => return session.half_closed(),
            Err(broken) => match unread(&broken, &session, &stream) {
                Some(why) => return session.fail(why),
                None => return session.disconnected(),
            },
        };
        let taken = async {
            match asked {
                Asked::Frame(frame) => session.frame_of(frame, bytes).await,
                Asked::Lost(lost) => session.lost(lost).await,
                Asked::Close(close) => session.close(close.finished),
                Asked::Open(_) => Err(session.protocol("a stream is opened once")),
            }
        };
        // Room may be long in coming: a right that is gone is heard meanwhile.
        let taken = tokio::select! {
            biased;
            cut = right.cut() => return session.fail(cut.error(&stream)),
            taken = taken => taken,
        };
        if let Err(error) = taken {
            return session.fail(error);
        }
    }
}
