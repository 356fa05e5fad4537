//! `dtm.records.v1`: reading back. Each answer says whether it is current; positions are opaque.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dtm_identity::{Caller, Operation};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ReadView};
use dtm_proto::records::records_service_server::RecordsService;
use dtm_proto::records::{
    GroupPosition, LookupRequest, LookupResponse, Position, QuarantineRequest, QuarantineResponse,
    ReadRequest, ReadResponse, StoredRecord,
};
use dtm_types::format::{KeyPurpose, Place};
use dtm_types::{ErrorCode, GroupId, Month, StreamKey};
use futures::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::read::BatchReader;
use super::shared::Shared;
use super::status::{internal, status};

/// Batches read from rows at a time.
const PLACES_A_STEP: usize = 64;
/// An answer is sent when it holds this many bytes.
const ANSWER_BYTES: usize = 1 << 20;
/// How often a tail looks for more.
const TAIL_EVERY: Duration = Duration::from_millis(50);
/// Months that a lookup by message id goes back.
const LOOKUP_MONTHS: usize = 13;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(crate) struct RecordsDoor(pub(crate) Arc<Shared>);

/// What one call reads.
struct Plan {
    shared: Arc<Shared>,
    request: ReadRequest,
    groups: Vec<GroupId>,
    stream: Option<StreamKey>,
    position: Position,
    digests_only: bool,
}

#[tonic::async_trait]
impl RecordsService for RecordsDoor {
    type ReadStream = Answers<ReadResponse>;
    type TailStream = Answers<ReadResponse>;
    type QuarantineStream = Answers<QuarantineResponse>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let plan = self.plan(&request).await?;
        Ok(Response::new(run(plan, false)))
    }

    async fn tail(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let plan = self.plan(&request).await?;
        Ok(Response::new(run(plan, true)))
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupResponse>, Status> {
        let asked = request.get_ref().clone();
        self.0.allow(&request, Operation::ReadPayloads, Some(&asked.source)).await?;
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let freshness = if asked.current { Freshness::Current } else { Freshness::Local };
        let view = self
            .0
            .cluster
            .view(GroupId(row.group), freshness)
            .await
            .map_err(|e| status(e.code(), &e))?;
        let shared = Arc::clone(&self.0);
        let found = tokio::task::spawn_blocking(move || lookup(&shared, view, &asked))
            .await
            .map_err(internal)??;
        Ok(Response::new(found))
    }

    async fn quarantine(
        &self,
        request: Request<QuarantineRequest>,
    ) -> Result<Response<Self::QuarantineStream>, Status> {
        let asked = request.get_ref().clone();
        let caller = self.0.allow(&request, Operation::ListQuarantine, Some(&asked.source)).await?;
        let with_payload =
            self.0.permit(&caller, Operation::ReadQuarantine, Some(&asked.source)).is_ok();
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let view = self
            .0
            .cluster
            .view(GroupId(row.group), Freshness::Current)
            .await
            .map_err(|e| status(e.code(), &e))?;
        let (sender, receiver) = mpsc::channel(4);
        let shared = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = quarantine(&shared, view, &asked, with_payload, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl RecordsDoor {
    /// Who may read what: a source its own payloads, operators and auditors digests.
    async fn plan(&self, request: &Request<ReadRequest>) -> Result<Plan, Status> {
        let asked = request.get_ref().clone();
        if asked.dataset.is_empty() && asked.source.is_empty() {
            return Err(status(ErrorCode::InvalidArgument, "a data set or a source is needed"));
        }
        let owner = (!asked.source.is_empty()).then_some(asked.source.as_str());
        let caller: Caller = self.0.caller(request).await?;
        let payloads = self.0.permit(&caller, Operation::ReadPayloads, owner);
        let digests_only = asked.digests_only || payloads.is_err();
        if digests_only && self.0.permit(&caller, Operation::ReadDigests, owner).is_err() {
            payloads?;
        }
        let groups = match owner {
            Some(source) => {
                vec![GroupId(self.0.directory.source(self.0.view(), source).await?.group)]
            }
            None => self.0.cluster.ingest_groups(),
        };
        let stream =
            if asked.stream.is_empty() {
                None
            } else {
                let stream = StreamKey::parse(&asked.source, &asked.stream);
                Some(stream.ok_or_else(|| {
                    status(ErrorCode::InvalidArgument, "a stream needs its source")
                })?)
            };
        let position = Position::decode(asked.position.clone())
            .map_err(|_| status(ErrorCode::InvalidArgument, "the position is not one of ours"))?;
        if position.incarnation > self.0.incarnation.0 {
            return Err(status(
                ErrorCode::WrongIncarnation,
                "the position is of a later life of the cluster",
            ));
        }
        Ok(Plan {
            shared: Arc::clone(&self.0),
            request: asked,
            groups,
            stream,
            position,
            digests_only,
        })
    }
}

fn run(plan: Plan, tail: bool) -> Answers<ReadResponse> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = stream_out(plan, tail, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn stream_out(
    mut plan: Plan,
    tail: bool,
    sender: &mpsc::Sender<Result<ReadResponse, Status>>,
) -> Result<(), Status> {
    let limit = match plan.request.records_max {
        0 => u64::MAX,
        limit => limit,
    };
    let mut sent = 0;
    loop {
        for group in plan.groups.clone() {
            let freshness =
                if plan.request.current && !tail { Freshness::Current } else { Freshness::Local };
            let view = plan
                .shared
                .cluster
                .view(group, freshness)
                .await
                .map_err(|e| status(e.code(), &e))?;
            let place = Arc::clone(&plan.shared.reads).acquire_owned().await.map_err(internal)?;
            let out = sender.clone();
            let step = tokio::task::spawn_blocking(move || {
                let result = read_group(&mut plan, view, limit - sent, &out);
                drop(place);
                (plan, result)
            });
            let (back, result) = step.await.map_err(internal)?;
            plan = back;
            sent += result?;
            if sent >= limit || sender.is_closed() {
                return Ok(());
            }
        }
        if !tail {
            return Ok(());
        }
        tokio::time::sleep(TAIL_EVERY).await;
    }
}

/// Reads one group to the end of its view. Returns how many records were sent.
fn read_group(
    plan: &mut Plan,
    view: GroupView,
    limit: u64,
    sender: &mpsc::Sender<Result<ReadResponse, Status>>,
) -> Result<u64, Status> {
    let group = view.group;
    let current = view.current;
    let mut reader = BatchReader::new(view, Arc::clone(&plan.shared.vault));
    let mut answer: Vec<StoredRecord> = Vec::new();
    let (mut bytes, mut sent) = (0, 0);
    loop {
        let places = next_places(plan, reader.view(), group)?;
        if places.is_empty() {
            break;
        }
        for place in places {
            if wanted(plan, &place) {
                let records = reader.stored(&place, plan.digests_only)?;
                sent += records.len() as u64;
                bytes += records.iter().map(|r| r.payload.len() + 200).sum::<usize>();
                answer.extend(records);
            }
            advance(plan, group, &place);
            if sent >= limit {
                let excess = usize::try_from(sent - limit).unwrap_or(0);
                answer.truncate(answer.len() - excess);
                send(plan, &mut answer, current, sender);
                return Ok(limit);
            }
            if bytes >= ANSWER_BYTES {
                bytes = 0;
                if !send(plan, &mut answer, current, sender) {
                    return Ok(sent);
                }
            }
        }
    }
    if !answer.is_empty() || current {
        send(plan, &mut answer, current, sender);
    }
    Ok(sent)
}

fn send(
    plan: &Plan,
    answer: &mut Vec<StoredRecord>,
    current: bool,
    sender: &mpsc::Sender<Result<ReadResponse, Status>>,
) -> bool {
    let response = ReadResponse {
        records: std::mem::take(answer),
        position: plan.position.encode_to_vec().into(),
        current,
    };
    sender.blocking_send(Ok(response)).is_ok()
}

fn next_places(plan: &Plan, view: &GroupView, group: GroupId) -> Result<Vec<Place>, Status> {
    let state = view.state.as_ref();
    let found = match &plan.stream {
        Some(stream) => {
            reads::stream_places(state, stream, plan.position.sequence + 1, PLACES_A_STEP)
        }
        None => {
            let after = plan
                .position
                .groups
                .iter()
                .find(|g| g.group == group.0)
                .map(|g| (g.index, g.ordinal));
            reads::places_after(state, after, PLACES_A_STEP)
        }
    };
    found.map_err(internal)
}

fn wanted(plan: &Plan, place: &Place) -> bool {
    let asked = &plan.request;
    (asked.dataset.is_empty() || asked.dataset == place.dataset)
        && (asked.source.is_empty() || asked.source == place.source)
}

fn advance(plan: &mut Plan, group: GroupId, place: &Place) {
    plan.position.incarnation = plan.shared.incarnation.0;
    if plan.stream.is_some() {
        plan.position.sequence = place.last_sequence;
        return;
    }
    let at = GroupPosition { group: group.0, index: place.index, ordinal: place.ordinal };
    match plan.position.groups.iter_mut().find(|g| g.group == group.0) {
        Some(found) => *found = at,
        None => plan.position.groups.push(at),
    }
}

fn lookup(
    shared: &Shared,
    view: GroupView,
    asked: &LookupRequest,
) -> Result<LookupResponse, Status> {
    let current = view.current;
    let (place, at) = match find(shared, &view, asked)? {
        Some(found) => found,
        None => return Err(status(ErrorCode::NotFound, "no such record")),
    };
    let sequence = place.first_sequence + at;
    let mut reader = BatchReader::new(view, Arc::clone(&shared.vault));
    let record = reader.stored(&place, false)?.into_iter().find(|r| r.sequence == sequence);
    let refused = match record {
        Some(_) => None,
        None => reader.refused(&place, true)?.into_iter().find(|r| r.sequence == sequence),
    };
    if record.is_none() && refused.is_none() {
        return Err(status(
            ErrorCode::NotFound,
            "the record is a double of one that was stored before",
        ));
    }
    Ok(LookupResponse { record, refused, current })
}

fn find(
    shared: &Shared,
    view: &GroupView,
    asked: &LookupRequest,
) -> Result<Option<(Place, u64)>, Status> {
    let state = view.state.as_ref();
    if asked.message_id.is_empty() {
        let stream = StreamKey::parse(&asked.source, &asked.stream).ok_or_else(|| {
            status(ErrorCode::InvalidArgument, "source, stream and sequence, or a message id")
        })?;
        let places = reads::stream_places(state, &stream, asked.sequence, 1).map_err(internal)?;
        let place = places.into_iter().next().filter(|p| p.first_sequence <= asked.sequence);
        return Ok(place.map(|p| (asked.sequence - p.first_sequence, p)).map(|(at, p)| (p, at)));
    }
    let row = reads::key_of(state, KeyPurpose::Source, &asked.source, 0).map_err(internal)?;
    let Some(row) = row else { return Ok(None) };
    let key = shared
        .vault
        .open_source_key(view.group, &row)
        .map_err(|e| status(ErrorCode::KeyMissing, e))?;
    let fingerprint = key.fingerprint_key().fingerprint(&asked.dataset, &asked.message_id);
    let mut month = Month::of_micros(shared.clock.now_us());
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

fn quarantine(
    shared: &Shared,
    view: GroupView,
    asked: &QuarantineRequest,
    with_payload: bool,
    sender: &mpsc::Sender<Result<QuarantineResponse, Status>>,
) -> Result<(), Status> {
    let position = Position::decode(asked.position.clone())
        .map_err(|_| status(ErrorCode::InvalidArgument, "the position is not one of ours"))?;
    let mut after = position.groups.first().map(|g| (g.index, g.ordinal));
    let group = view.group;
    let beyond = reads::quota(view.state.as_ref(), &asked.source).map_err(internal)?.beyond;
    let limit = if asked.records_max == 0 { u64::MAX } else { asked.records_max };
    let mut reader = BatchReader::new(view, Arc::clone(&shared.vault));
    let mut sent = 0;
    loop {
        let rows =
            reads::quarantined(reader.view().state.as_ref(), &asked.source, after, PLACES_A_STEP);
        let rows = rows.map_err(internal)?;
        if rows.is_empty() || sent >= limit {
            return Ok(());
        }
        for (index, ordinal, _) in rows {
            after = Some((index, ordinal));
            let place =
                reads::place(reader.view().state.as_ref(), index, ordinal).map_err(internal)?;
            let Some(place) = place else { continue };
            let mut records = reader.refused(&place, with_payload)?;
            records.truncate(usize::try_from(limit - sent).unwrap_or(usize::MAX));
            sent += records.len() as u64;
            let at = GroupPosition { group: group.0, index, ordinal };
            let position =
                Position { incarnation: shared.incarnation.0, groups: vec![at], sequence: 0 };
            let response = QuarantineResponse {
                records,
                position: position.encode_to_vec().into(),
                beyond_quota: beyond,
            };
            if sender.blocking_send(Ok(response)).is_err() || sent >= limit {
                return Ok(());
            }
        }
    }
}
