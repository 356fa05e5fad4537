//! `dtm.records.v1`: reading back. Each answer says whether it is current; positions are opaque.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dtm_identity::{Caller, Operation};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ReadView};
use dtm_proto::records::records_service_server::RecordsService;
use dtm_proto::records::{
    LookupRequest, LookupResponse, Position, QuarantineRequest, QuarantineResponse, ReadRequest,
    ReadResponse,
};
use dtm_types::{ErrorCode, GroupId, StreamKey};
use futures::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::open::BatchReader;
use super::shared::Shared;
use super::status::{internal, status};

mod lookup;
mod open;
mod pages;
#[cfg(test)]
mod pages_test;
mod position;

/// How often a tail looks for more.
const TAIL_EVERY: Duration = Duration::from_millis(50);

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
        let found = tokio::task::spawn_blocking(move || lookup::lookup(&shared, view, &asked))
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
        let position = position::decode(asked.position.clone(), self.0.incarnation)?;
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
    let mut given = 0;
    let mut current = true;
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
            current &= view.current;
            let place = Arc::clone(&plan.shared.reads).acquire_owned().await.map_err(internal)?;
            let out = sender.clone();
            let step = tokio::task::spawn_blocking(move || {
                let result = read_group(&mut plan, view, limit - given, current, &out);
                drop(place);
                (plan, result)
            });
            let (back, result) = step.await.map_err(internal)?;
            plan = back;
            given += result?;
            if given >= limit || sender.is_closed() {
                return Ok(());
            }
        }
        if !tail {
            let position = plan.position.encode_to_vec().into();
            let last = ReadResponse { position, current, ..ReadResponse::default() };
            let _ = sender.send(Ok(last)).await;
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
