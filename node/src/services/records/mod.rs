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
use dtm_types::{ErrorCode, GroupId, StreamKey};
use futures::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use self::open::BatchReader;
use super::elsewhere::another_may_answer;
use super::shared::Shared;
use super::status::{internal, status};
use crate::telemetry::{contained, contained_blocking};

mod lookup;
mod open;
mod pages;
#[cfg(test)]
mod pages_test;
mod position;
mod relay;
mod resend;

/// How often a tail looks for more.
const TAIL_EVERY: Duration = Duration::from_millis(50);
/// The same where other nodes have to be asked.
const TAIL_ELSEWHERE_EVERY: Duration = Duration::from_millis(250);

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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
        let with_payload =
            self.0.permit(&caller, Operation::ReadQuarantine, Some(&asked.source)).is_ok();
        let row = self.0.directory.source(self.0.view(), &asked.source).await?;
        let group = GroupId(row.group);
        refused_answers(&self.0, group, asked, with_payload).await.map(Response::new)
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
        let stream = stream_of(&asked)?;
        let position = position::decode(asked.position.clone(), self.0.incarnation)?;
        Ok(Plan {
            shared: Arc::clone(&self.0),
            request: asked,
            groups,
            stream,
            position,
            digests_only,
            is_relayed: false,
        })
    }
}

fn run(plan: Plan, tail: bool) -> Answers<ReadResponse> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(contained(async move {
        if let Err(error) = stream_out(plan, tail, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    }));
    Box::pin(ReceiverStream::new(receiver))
}

async fn stream_out(
    mut plan: Plan,
    tail: bool,
    sender: &mpsc::Sender<Result<ReadResponse, Status>>,
) -> Result<(), Status> {
    let mut progress = Progress {
        limit: if plan.request.records_max == 0 { u64::MAX } else { plan.request.records_max },
        given: 0,
        current: true,
    };
    let mut groups_lacking = Vec::new();
    loop {
        for group in plan.groups.clone() {
            let read = read_one(plan, group, tail, &mut progress, sender).await?;
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
            if progress.given >= progress.limit || sender.is_closed() {
                return Ok(());
            }
        }
        if !tail {
            let position = plan.position.encode_to_vec().into();
            let current = progress.current;
            let last = ReadResponse { records: Vec::new(), position, current, groups_lacking };
            let _ = sender.send(Ok(last)).await;
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
    sender: &mpsc::Sender<Result<ReadResponse, Status>>,
) -> Result<(Plan, Result<(), Status>), Status> {
    let is_current = plan.request.current && !tail;
    let freshness = if is_current { Freshness::Current } else { Freshness::Local };
    let view = match plan.shared.cluster.view(group, freshness).await {
        Ok(view) => view,
        Err(ReadError::NotHere(_)) if !plan.is_relayed => {
            let relayed = relay::read(&mut plan, group, is_current, progress, sender).await;
            return Ok((plan, relayed));
        }
        Err(error) => return Ok((plan, Err(status(error.code(), &error)))),
    };
    progress.current &= view.current;
    let place = Arc::clone(&plan.shared.reads).acquire_owned().await.map_err(internal)?;
    let (out, current, room) = (sender.clone(), progress.current, progress.limit - progress.given);
    let step = tokio::task::spawn_blocking(move || {
        contained_blocking(|| {
            let result = read_group(&mut plan, view, room, current, &out);
            drop(place);
            (plan, result)
        })
    });
    match step.await {
        Ok((plan, given)) => Ok((plan, given.map(|given| progress.given += given))),
        Err(error) => Err(internal(error)),
    }
}

/// For another node: one group from this node's replica.
pub(super) fn read_here(
    shared: &Arc<Shared>,
    group: GroupId,
    request: ReadRequest,
) -> Result<Answers<ReadResponse>, Status> {
    let plan = Plan {
        shared: Arc::clone(shared),
        groups: vec![group],
        stream: stream_of(&request)?,
        position: position::decode(request.position.clone(), shared.incarnation)?,
        digests_only: request.digests_only,
        is_relayed: true,
        request,
    };
    Ok(run(plan, false))
}

/// One record from this node's replica.
pub(super) async fn lookup_here(
    shared: &Arc<Shared>,
    group: GroupId,
    asked: LookupRequest,
) -> Result<LookupResponse, Status> {
    let freshness = if asked.current { Freshness::Current } else { Freshness::Local };
    let view = shared.cluster.view(group, freshness).await.map_err(|e| status(e.code(), &e))?;
    let shared = Arc::clone(shared);
    let work = move || contained_blocking(|| lookup::lookup(&shared, view, &asked));
    let found = tokio::task::spawn_blocking(work);
    found.await.map_err(internal)?
}

/// Refused records, from this node's replica or through a node that holds one.
async fn refused_answers(
    shared: &Arc<Shared>,
    group: GroupId,
    asked: QuarantineRequest,
    with_payload: bool,
) -> Result<Answers<QuarantineResponse>, Status> {
    if shared.cluster.is_here(group) {
        return quarantine_here(shared, group, asked, with_payload).await;
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
pub(super) async fn quarantine_here(
    shared: &Arc<Shared>,
    group: GroupId,
    asked: QuarantineRequest,
    with_payload: bool,
) -> Result<Answers<QuarantineResponse>, Status> {
    let view = shared.cluster.view(group, Freshness::Current).await;
    let view = view.map_err(|e| status(e.code(), &e))?;
    let (sender, receiver) = mpsc::channel(4);
    let shared = Arc::clone(shared);
    let work = move || {
        if let Err(error) = quarantine(&shared, view, &asked, with_payload, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    };
    tokio::task::spawn_blocking(|| contained_blocking(work));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn stream_of(asked: &ReadRequest) -> Result<Option<StreamKey>, Status> {
    if asked.stream.is_empty() {
        return Ok(None);
    }
    let stream = StreamKey::parse(&asked.source, &asked.stream);
    let wrong = || status(ErrorCode::InvalidArgument, "a stream needs its source");
    stream.map(Some).ok_or_else(wrong)
}

/// Reads one group to the end of its view. Returns how many records were sent.
fn read_group(
    plan: &mut Plan,
    view: GroupView,
    limit: u64,
    current: bool,
    sender: &mpsc::Sender<Result<ReadResponse, Status>>,
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
        let response = ReadResponse { records, position, current, ..ReadResponse::default() };
        sender.blocking_send(Ok(response)).is_ok()
    };
    pages::read(&mut selection, (group, &*state), &mut plan.position, limit, &mut answer)
}

fn quarantine(
    shared: &Shared,
    view: GroupView,
    asked: &QuarantineRequest,
    with_payload: bool,
    sender: &mpsc::Sender<Result<QuarantineResponse, Status>>,
) -> Result<(), Status> {
    let mut position = position::decode(asked.position.clone(), shared.incarnation)?;
    let (group, state) = (view.group, Arc::clone(&view.state));
    let beyond_quota = reads::quota(&*state, &asked.source).map_err(internal)?.beyond;
    let limit = if asked.records_max == 0 { u64::MAX } else { asked.records_max };
    let mut selection = pages::Refused {
        source: &asked.source,
        stream: &asked.stream,
        from_sequence: asked.from_sequence,
        with_payload,
        batches: BatchReader::new(view, Arc::clone(&shared.vault)),
    };
    let mut answer = |records, position: &Position| {
        let position = position.encode_to_vec().into();
        sender.blocking_send(Ok(QuarantineResponse { records, position, beyond_quota })).is_ok()
    };
    pages::read(&mut selection, (group, &*state), &mut position, limit, &mut answer)?;
    Ok(())
}
