//! `dtm.records.v1`: reading back. Each answer says whether it is current; positions are opaque.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dtm_identity::{Caller, Operation};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ReadError, ReadView};
use dtm_proto::admin::node_service_client::NodeServiceClient;
use dtm_proto::admin::{LookupInGroupRequest, QuarantineOfGroupRequest};
use dtm_proto::records::records_service_server::RecordsService;
use dtm_proto::records::{
    LookupRequest, LookupResponse, Position, QuarantineRequest, QuarantineResponse, ReadRequest,
    ReadResponse, ResendRequest, ResendResponse,
};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, GroupId, StreamKey};
use futures::Stream;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use self::driven::{Giver, driven};
use self::guarded::guarded;
use self::open::BatchReader;
use super::ahead::Reading;
use super::elsewhere::{another_may_answer, freshness};
use super::rights::Entered;
use super::shared::Shared;
use super::status::{internal, status, stream_key, told};
use crate::telemetry::{contained, contained_blocking};

mod driven;
mod guarded;
mod lookup;
mod open;
mod pages;
#[cfg(test)]
mod pages_test;
mod position;
mod refused_id;
mod relay;
mod resend;

/// How often a tail looks for more.
const TAIL_EVERY: Duration = Duration::from_millis(50);
/// The same where other nodes have to be asked.
const TAIL_ELSEWHERE_EVERY: Duration = Duration::from_millis(250);

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct RecordsDoor(pub Arc<Shared>);

/// What one call reads.
struct Plan {
    shared: Arc<Shared>,
    request: ReadRequest,
    groups: Vec<GroupId>,
    stream: Option<StreamKey>,
    position: Position,
    reading: Arc<Reading>,
    digests_only: bool,
    /// For another node: it looks for another holder itself.
    is_relayed: bool,
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
        let (plan, right) = self.plan(&request).await?;
        let reading = Arc::clone(&plan.reading);
        Ok(counted(reading, Box::pin(guarded(run(plan, false), right))))
    }

    async fn tail(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let (plan, right) = self.plan(&request).await?;
        let reading = Arc::clone(&plan.reading);
        Ok(counted(reading, Box::pin(guarded(run(plan, true), right))))
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupResponse>, Status> {
        let asked = request.get_ref().clone();
        self.0.allow(&request, Operation::ReadPayloads, Some(&asked.source)).await?;
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let group = GroupId(row.group);
        if self.0.cluster.is_here(group) {
            return lookup_here(&self.0, group, asked).await.map(Response::new);
        }
        let request = LookupInGroupRequest { group: group.0, lookup: Some(asked) };
        let call = |mut client: NodeServiceClient<Channel>| {
            let request = request.clone();
            async move { client.lookup_in_group(request).await }
        };
        self.0.ask_holders(group, call).await.map(Response::new)
    }

    async fn resend(
        &self,
        request: Request<ResendRequest>,
    ) -> Result<Response<ResendResponse>, Status> {
        let asked = request.get_ref().clone();
        let operation = Operation::ResendQuarantined;
        let caller = self.0.allow(&request, operation, Some(&asked.source)).await?;
        let address = super::auth::address(&request);
        resend::resend(&self.0, (caller, address), asked).await.map(Response::new)
    }

    async fn quarantine(
        &self,
        request: Request<QuarantineRequest>,
    ) -> Result<Response<Self::QuarantineStream>, Status> {
        let asked = request.get_ref().clone();
        let caller = self.0.allow(&request, Operation::ListQuarantine, Some(&asked.source)).await?;
        let right = self.0.enter_reading(&caller)?;
        let with_payload =
            self.0.permit(&caller, Operation::ReadQuarantine, Some(&asked.source)).is_ok();
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let group = GroupId(row.group);
        let reading = self.0.room.ahead.enter(&caller);
        let answers = refused_answers(&self.0, group, asked, with_payload, &reading).await?;
        Ok(counted(reading, Box::pin(guarded(answers, right))))
    }
}

impl RecordsDoor {
    /// Who may read what: a source its own payloads, operators and auditors digests. With the right
    /// that the answers stand on.
    async fn plan(&self, request: &Request<ReadRequest>) -> Result<(Plan, Entered), Status> {
        let asked = request.get_ref().clone();
        if asked.dataset.is_empty() && asked.source.is_empty() {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.read_what")));
        }
        let owner = (!asked.source.is_empty()).then_some(asked.source.as_str());
        let caller: Caller = self.0.caller(request).await?;
        let right = self.0.enter_reading(&caller)?;
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
        if !asked.dataset.is_empty() {
            self.0.directory.definition(self.0.view(), &asked.dataset, 0).await?;
        }
        let stream = stream_of(&asked)?;
        let position = position::decode(asked.position.clone(), self.0.incarnation)?;
        let plan = Plan {
            shared: Arc::clone(&self.0),
            reading: self.0.room.ahead.enter(&caller),
            request: asked,
            groups,
            stream,
            position,
            digests_only,
            is_relayed: false,
        };
        Ok((plan, right))
    }
}

/// The answers of a read, whose body counts them.
pub(crate) fn counted<T>(reading: Arc<Reading>, answers: T) -> Response<T> {
    let mut response = Response::new(answers);
    response.extensions_mut().insert(reading);
    response
}

fn run(plan: Plan, tail: bool) -> Answers<ReadResponse> {
    Box::pin(driven(move |giver| contained(stream_out(plan, tail, giver))))
}

async fn stream_out(mut plan: Plan, tail: bool, giver: Giver<ReadResponse>) -> Result<(), Status> {
    let mut progress = Progress {
        limit: if plan.request.records_max == 0 { u64::MAX } else { plan.request.records_max },
        given: 0,
        current: true,
    };
    let mut groups_lacking = Vec::new();
    loop {
        for group in plan.groups.clone() {
            let read = read_one(plan, group, tail, &mut progress, &giver).await?;
            plan = match read {
                (plan, Ok(())) => plan,
                // What can be read is; the answer says what it lacks.
                (plan, Err(error))
                    if !tail && !plan.request.current && another_may_answer(&error) =>
                {
                    progress.current = false;
                    groups_lacking.push(group.0);
                    plan
                }
                (_, Err(error)) => return Err(error),
            };
            if progress.given >= progress.limit {
                return Ok(());
            }
        }
        if !tail {
            let position = plan.position.encode_to_vec().into();
            let current = progress.current;
            let last = ReadResponse { records: Vec::new(), position, current, groups_lacking };
            giver.give(Ok(last)).await;
            return Ok(());
        }
        let is_all_here = plan.groups.iter().all(|group| plan.shared.cluster.is_here(*group));
        tokio::time::sleep(if is_all_here { TAIL_EVERY } else { TAIL_ELSEWHERE_EVERY }).await;
    }
}

/// How far a call has come.
struct Progress {
    limit: u64,
    given: u64,
    /// Of everything read so far.
    current: bool,
}

/// Reads one group: here where there is a replica of it, else through a node that holds one. Gives
/// the plan back with what became of it.
async fn read_one(
    mut plan: Plan,
    group: GroupId,
    tail: bool,
    progress: &mut Progress,
    giver: &Giver<ReadResponse>,
) -> Result<(Plan, Result<(), Status>), Status> {
    let is_current = plan.request.current && !tail;
    let view = match plan.shared.cluster.view(group, freshness(is_current)).await {
        Ok(view) => view,
        Err(ReadError::NotHere(_)) if !plan.is_relayed => {
            let relayed = relay::read(&mut plan, group, is_current, progress, giver).await;
            return Ok((plan, relayed));
        }
        Err(error) => return Ok((plan, Err(status(error.code(), &error)))),
    };
    progress.current &= view.current;
    loop {
        let view = view.clone();
        let (current, room) = (progress.current, progress.limit - progress.given);
        plan.reading.room().await;
        let place = reader_place(&plan.shared).await?;
        let step = reading(place, move || {
            let mut page = None;
            let given = read_group(&mut plan, view, room, current, &mut page);
            plan.reading.holds(page.as_ref().map_or(0, Message::encoded_len) as u64);
            (plan, given, page)
        });
        let (after, given, page) = step.await.map_err(internal)?;
        plan = after;
        match given {
            Ok(given) => progress.given += given,
            Err(error) => return Ok((plan, Err(error))),
        }
        let Some(page) = page else { return Ok((plan, Ok(()))) };
        // No place is held while the caller takes its time.
        giver.give(Ok(page)).await;
        if progress.given >= progress.limit {
            return Ok((plan, Ok(())));
        }
    }
}

/// One of the node's places for readers; waits until one is free.
async fn reader_place(shared: &Shared) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(&shared.room.reads).acquire_owned().await.map_err(internal)
}

/// Blocking work of one call, which gives its place back when it ends.
fn reading<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(|| {
        contained_blocking(|| {
            let _place = place;
            work()
        })
    })
}

/// For another node: one group from this node's replica.
pub(crate) fn read_here(
    shared: &Arc<Shared>,
    group: GroupId,
    request: ReadRequest,
    caller: &Caller,
) -> Result<Response<Answers<ReadResponse>>, Status> {
    let reading = shared.room.ahead.enter(caller);
    let plan = Plan {
        shared: Arc::clone(shared),
        reading: Arc::clone(&reading),
        groups: vec![group],
        stream: stream_of(&request)?,
        position: position::decode(request.position.clone(), shared.incarnation)?,
        digests_only: request.digests_only,
        is_relayed: true,
        request,
    };
    Ok(counted(reading, run(plan, false)))
}

/// One record from this node's replica.
pub(crate) async fn lookup_here(
    shared: &Arc<Shared>,
    group: GroupId,
    asked: LookupRequest,
) -> Result<LookupResponse, Status> {
    let view = shared.here(group, freshness(asked.current)).await?;
    let place = reader_place(shared).await?;
    let shared = Arc::clone(shared);
    let found = reading(place, move || lookup::lookup(&shared, view, &asked));
    found.await.map_err(internal)?
}

/// Refused records, from this node's replica or through a node that holds one.
async fn refused_answers(
    shared: &Arc<Shared>,
    group: GroupId,
    asked: QuarantineRequest,
    with_payload: bool,
    reading: &Arc<Reading>,
) -> Result<Answers<QuarantineResponse>, Status> {
    if shared.cluster.is_here(group) {
        return quarantine_here(shared, group, asked, with_payload, reading).await;
    }
    let quarantine = Some(asked);
    let request = QuarantineOfGroupRequest { group: group.0, quarantine, with_payload };
    let call = |mut client: NodeServiceClient<Channel>| {
        let request = request.clone();
        async move { client.quarantine_of_group(request).await }
    };
    Ok(Box::pin(shared.ask_holders(group, call).await?))
}

/// Refused records from this node's replica.
pub(crate) async fn quarantine_here(
    shared: &Arc<Shared>,
    group: GroupId,
    asked: QuarantineRequest,
    with_payload: bool,
    reading: &Arc<Reading>,
) -> Result<Answers<QuarantineResponse>, Status> {
    let view = shared.here(group, Freshness::Current).await?;
    let position = position::decode(asked.position.clone(), shared.incarnation)?;
    let (shared, reading) = (Arc::clone(shared), Arc::clone(reading));
    let listing = Listing { shared, view, asked, with_payload, position, reading };
    Ok(Box::pin(driven(move |giver| contained(refused_out(listing, giver)))))
}

async fn refused_out(mut listing: Listing, giver: Giver<QuarantineResponse>) -> Result<(), Status> {
    let max = listing.asked.records_max;
    let mut room = if max == 0 { u64::MAX } else { max };
    loop {
        listing.reading.room().await;
        let place = reader_place(&listing.shared).await?;
        let step = reading(place, move || {
            let mut page = None;
            let given = listing.read(room, &mut page);
            listing.reading.holds(page.as_ref().map_or(0, Message::encoded_len) as u64);
            (listing, given, page)
        });
        let (after, given, page) = step.await.map_err(internal)?;
        listing = after;
        room -= given?;
        let Some(page) = page else { return Ok(()) };
        giver.give(Ok(page)).await;
        if room == 0 {
            return Ok(());
        }
    }
}

fn stream_of(asked: &ReadRequest) -> Result<Option<StreamKey>, Status> {
    if asked.stream.is_empty() {
        return Ok(None);
    }
    if asked.source.is_empty() {
        return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.stream_alone")));
    }
    stream_key(&asked.source, &asked.stream).map(Some)
}

/// Reads the next page of one group; none at the end of its view. Returns how many records it has.
fn read_group(
    plan: &mut Plan,
    view: GroupView,
    limit: u64,
    current: bool,
    page: &mut Option<ReadResponse>,
) -> Result<u64, Status> {
    let (group, state) = (view.group, Arc::clone(&view.state));
    let mut selection = pages::Stored {
        dataset: &plan.request.dataset,
        source: &plan.request.source,
        stream: plan.stream.as_ref(),
        digests_only: plan.digests_only,
        batches: BatchReader::new(view, Arc::clone(&plan.shared.vault)),
    };
    let mut answer = |records, position: &Position| {
        let position = position.encode_to_vec().into();
        *page = Some(ReadResponse { records, position, current, ..ReadResponse::default() });
        false
    };
    pages::read(&mut selection, (group, &*state), &mut plan.position, limit, &mut answer)
}

/// A list of refused records, as far as it was given.
struct Listing {
    shared: Arc<Shared>,
    view: GroupView,
    asked: QuarantineRequest,
    with_payload: bool,
    position: Position,
    reading: Arc<Reading>,
}

impl Listing {
    /// Reads the next page; none at the end of the view. Returns how many records it has.
    fn read(&mut self, limit: u64, page: &mut Option<QuarantineResponse>) -> Result<u64, Status> {
        let (group, state) = (self.view.group, Arc::clone(&self.view.state));
        let beyond_quota = reads::quota(&*state, &self.asked.source).map_err(internal)?.beyond;
        let mut selection = pages::Refused {
            source: &self.asked.source,
            stream: &self.asked.stream,
            from_sequence: self.asked.from_sequence,
            with_payload: self.with_payload,
            batches: BatchReader::new(self.view.clone(), Arc::clone(&self.shared.vault)),
        };
        let mut answer = |records, position: &Position| {
            let position = position.encode_to_vec().into();
            *page = Some(QuarantineResponse { records, position, beyond_quota });
            false
        };
        pages::read(&mut selection, (group, &*state), &mut self.position, limit, &mut answer)
    }
}
