//! Reading back through a node that goes: each record once, in order, and no gap.

use crate::fake::World;
use bytes::Bytes;
use dtm_client::{Endpoint, Reader};
use dtm_proto::records::records_service_server::{RecordsService, RecordsServiceServer};
use dtm_proto::records::{
    LookupRequest, LookupResponse, QuarantineRequest, QuarantineResponse, QuarantinedRecord,
    ReadRequest, ReadResponse, ResendRequest, ResendResponse, StoredRecord,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

type Answers<T> = ReceiverStream<Result<T, Status>>;

/// How a call of a door ends after its pages.
#[derive(Clone, Copy, Debug)]
enum End {
    /// As a node that is killed: the connection breaks.
    Broken,
    /// As a node that is told to stop.
    Draining,
    /// Without a word.
    Silent,
}

/// A door to records 1 to `stored`; pages of three, then an end of its script; with none left, what
/// is stored comes to its end and a tail waits.
#[derive(Clone)]
pub(crate) struct Records {
    stored: u64,
    /// Where the quarantine is.
    world: Arc<Mutex<World>>,
    script: Arc<Mutex<Vec<(u64, End)>>>,
    calls: Arc<Mutex<Vec<Bytes>>>,
}

impl Records {
    fn new(stored: u64) -> Self {
        Self { stored, ..Self::over(Arc::default()) }
    }

    /// The quarantine of a fake cluster, and nothing else of it.
    pub(crate) fn over(world: Arc<Mutex<World>>) -> Self {
        Self { stored: 0, world, script: Arc::default(), calls: Arc::default() }
    }

    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = RecordsServiceServer::new(self.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );
        address
    }

    fn pages(&self, request: ReadRequest, waits: bool) -> Answers<ReadResponse> {
        self.calls.lock().push(request.position.clone());
        let after = match request.position.len() {
            0 => 0,
            _ => u64::from_be_bytes(request.position.as_ref().try_into().unwrap()),
        };
        let script = self.script.lock().pop();
        let (to, stored) = (script.map_or(self.stored, |(to, _)| to), self.stored);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut next = after + 1;
            while next <= to.min(stored) {
                let last = (next + 2).min(to).min(stored);
                let record = |sequence| StoredRecord { sequence, ..StoredRecord::default() };
                let page = ReadResponse {
                    records: (next..=last).map(record).collect(),
                    position: last.to_be_bytes().to_vec().into(),
                    ..ReadResponse::default()
                };
                if sender.send(Ok(page)).await.is_err() {
                    return;
                }
                next = last + 1;
            }
            let status = match script {
                Some((_, End::Broken)) => Status::unknown("h2 protocol error"),
                Some((_, End::Draining)) => Status::unavailable("draining"),
                Some((_, End::Silent)) => return,
                None if waits => return sender.closed().await,
                None => return,
            };
            sender.send(Err(status)).await.ok();
        });
        ReceiverStream::new(receiver)
    }
}

#[tonic::async_trait]
impl RecordsService for Records {
    type ReadStream = Answers<ReadResponse>;
    type TailStream = Answers<ReadResponse>;
    type QuarantineStream = Answers<QuarantineResponse>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        Ok(Response::new(self.pages(request.into_inner(), false)))
    }

    async fn tail(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        Ok(Response::new(self.pages(request.into_inner(), true)))
    }

    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn resend(&self, _: Request<ResendRequest>) -> Result<Response<ResendResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn quarantine(
        &self,
        request: Request<QuarantineRequest>,
    ) -> Result<Response<Self::QuarantineStream>, Status> {
        let asked = request.into_inner();
        let held = self.world.lock().streams.get(&asked.stream).map(|held| held.refused.clone());
        let refused = held.unwrap_or_default();
        let (sender, receiver) = mpsc::channel(refused.len().max(1));
        for sequence in refused.into_iter().filter(|sequence| *sequence >= asked.from_sequence) {
            let words = vec!["kept".to_owned()];
            let record =
                QuarantinedRecord { sequence, messages_en: words, ..QuarantinedRecord::default() };
            let page =
                QuarantineResponse { records: vec![record], ..QuarantineResponse::default() };
            sender.try_send(Ok(page)).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Two doors of which each call of the first ends early, and an address where nobody is.
async fn doors(stored: u64, script: Vec<(u64, End)>) -> (Endpoint, Records, Records) {
    let (first, second) = (Records::new(stored), Records::new(stored));
    *first.script.lock() = script;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let seeds = [first.serve().await, gone, second.serve().await];
    (Endpoint::plaintext(seeds).unwrap(), first, second)
}

#[tokio::test]
async fn a_tail_goes_on_at_another_node_from_its_position() {
    for end in [End::Broken, End::Draining, End::Silent] {
        let (endpoint, first, second) = doors(20, vec![(7, end)]).await;
        let mut tail = Reader::new(endpoint).tail(ReadRequest::default());
        let mut got = Vec::new();
        while got.len() < 20 {
            let page = tokio::time::timeout(Duration::from_secs(20), tail.next()).await;
            let page = page.expect("in time").expect("goes on").expect("a tail has no end");
            got.extend(page.records.iter().map(|record| record.sequence));
        }
        assert_eq!(got, (1..=20).collect::<Vec<_>>(), "{end:?}");
        assert_eq!(*first.calls.lock(), [Bytes::new()]);
        assert_eq!(*second.calls.lock(), [Bytes::copy_from_slice(&7_u64.to_be_bytes())]);
        assert_eq!(tail.request().position, 20_u64.to_be_bytes().to_vec());
    }
}

#[tokio::test]
async fn a_read_with_a_limit_takes_no_record_twice_over_many_breaks() {
    // The script is taken from its end.
    let script = vec![(11, End::Broken), (2, End::Broken)];
    let (endpoint, _, second) = doors(20, script).await;
    *second.script.lock() = vec![(8, End::Draining)];
    let request = ReadRequest { records_max: 20, ..ReadRequest::default() };
    let mut read = Reader::new(endpoint).read(request);
    let mut got = Vec::new();
    while let Some(page) = read.next().await.expect("goes on") {
        got.extend(page.records.iter().map(|record| record.sequence));
    }
    assert_eq!(got, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hasty_reader_gives_up_where_nobody_answers_and_goes_on_once_it_has_read() {
    let (endpoint, ..) = doors(4, vec![(1, End::Broken)]).await;
    let seeds = endpoint.seeds().to_vec();
    let mut read = Reader::new(endpoint).read(ReadRequest::default()).hasty();
    let mut got = 0;
    while let Some(page) = read.next().await.expect("goes on") {
        got += page.records.len();
    }
    assert_eq!(got, 4);
    let nobody = Endpoint::plaintext([seeds[1].clone()]).unwrap();
    let mut tail = Reader::new(nobody).tail(ReadRequest::default()).hasty();
    let ended = tokio::time::timeout(Duration::from_secs(2), tail.next()).await;
    assert!(ended.expect("at once").is_err());
}
