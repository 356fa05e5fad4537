//! Requests that are begun and never completed, over HTTP/2 by hand: a client of gRPC sends whole
//! messages only.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use dtm_client::Endpoint;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Channel;

use crate::bad_frames::{next, send};
use crate::bad_records::open_stream;
use crate::cluster::Cluster;
use crate::hostile;
use crate::sources::Source;

/// Streams of one source.
const STREAMS: usize = 64;
const CONNECTIONS: usize = 4;
/// What each stream says that it will send, and sends but for the end.
const MESSAGE_BYTES: usize = 9 << 20;
const PIECE_BYTES: usize = 64 << 10;
/// How long they are given to fill the node.
const SENT_WITHIN: Duration = Duration::from_secs(8);
/// What a node may hold of it at its peak: the source's share of what arrives (64 MiB), what four
/// connections may send unread (4 MiB each), and what else goes on.
const GROWTH_MAX_KIB: u64 = 144 << 10;
/// How long all are given to open before.
const OPENED_WITHIN: Duration = Duration::from_secs(2);
/// Another source is served meanwhile.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
const REQUEST_WITHIN: Duration = Duration::from_secs(12);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const RESOURCE_EXHAUSTED: &str = "8";
const INVALID_ARGUMENT: &str = "3";

type Settings = [(&'static str, u64); 1];

// holds: LIVE-1
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_begun_and_not_completed_take_no_memory() -> Result<()> {
    let within_ms = u64::try_from(REQUEST_WITHIN.as_millis())?;
    let settings: Settings = [("DTM__LIMITS__REQUEST_WITHIN_MS", within_ms)];
    let cluster = Cluster::beside_with(&settings).await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let neighbour = cluster.add_source("src-2", &["notes"]).await?;
    cluster.spread().await?;
    let at = cluster.leader(source.group).await?;
    // No more wait than leave those with room their connection's window; what has room and does not
    // come is late.
    let not_opened = [RESOURCE_EXHAUSTED, INVALID_ARGUMENT];
    let cases = [("opened", true, &not_opened[..1]), ("not opened", false, &not_opened[..])];
    for (what, is_opened, codes) in cases {
        let before = cluster.nodes[at].peak_resident_kib()?;
        let mut calls = begin(&cluster, &source, at, is_opened).await.context(what)?;
        tokio::time::sleep(SENT_WITHIN).await;
        let grown = cluster.nodes[at].peak_resident_kib()?.saturating_sub(before);
        ensure!(grown < GROWTH_MAX_KIB, "LIVE-1: {what}: the peak grew by {grown} KiB");
        let served = tokio::time::timeout(SERVED_WITHIN, publish(&cluster, &neighbour, what, at));
        served.await.context("the neighbour is held up")??;
        let ended = tokio::time::timeout(ENDS_WITHIN, ends(&mut calls, codes)).await;
        ended.context("calls do not end")?.context(what)?;
        // What is left of them is not the last caller's.
        calls.shutdown().await;
    }
    publish(&cluster, &source, "after", at).await.context("the node goes on")?;
    cluster.passed();
    Ok(())
}

async fn publish(cluster: &Cluster, source: &Source, stream: &str, at: usize) -> Result<()> {
    let stream = stream.replace(' ', "-");
    let mut session = open_stream(cluster, source, &stream, "notes", at).await?;
    send(&session, 1, &[100]).await?;
    next(&mut session).await?;
    Ok(())
}

/// Waits until calls have ended with each of these statuses, and with no other.
async fn ends(calls: &mut JoinSet<Result<HeaderMap>>, codes: &[&str]) -> Result<()> {
    let mut missing: BTreeSet<&str> = codes.iter().copied().collect();
    while !missing.is_empty() {
        let ended = calls.join_next().await.context("all calls ended")???;
        let status = ended.get("grpc-status").context("a status")?.to_str()?;
        ensure!(codes.contains(&status), "{ended:?}");
        missing.remove(status);
    }
    Ok(())
}

/// Calls that never complete a request, each with the trailers that it ends with.
async fn begin(
    cluster: &Cluster,
    source: &Source,
    at: usize,
    is_opened: bool,
) -> Result<JoinSet<Result<HeaderMap>>> {
    let address = cluster.nodes[at].grpc.to_string();
    let endpoint = Endpoint::new([address.clone()], &cluster.source_files())?;
    let mut calls = JoinSet::new();
    // Nobody pours before all have opened: a connection that is full takes no request to open.
    let opened = Arc::new(Barrier::new(STREAMS));
    for connection in 0..CONNECTIONS {
        let channel = endpoint.channel(&address).await?;
        for n in 0..STREAMS / CONNECTIONS {
            let first = is_opened.then(|| {
                let open = hostile::open(source, &format!("s-{connection}-{n}"));
                [header(open.len()).to_vec(), open].concat()
            });
            let uri = format!("https://{address}/dtm.ingest.v1.IngestService/Publish");
            let request = http::Request::post(uri)
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("authorization", format!("Bearer {}", source.key));
            calls.spawn(unfinished(channel.clone(), request, first, Arc::clone(&opened)));
        }
    }
    Ok(calls)
}

fn header(bytes: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(bytes).expect("short").to_be_bytes();
    [0, a, b, c, d]
}

async fn unfinished(
    mut channel: Channel,
    request: http::request::Builder,
    first: Option<Vec<u8>>,
    opened: Arc<Barrier>,
) -> Result<HeaderMap> {
    let (wire, mut pieces) = mpsc::channel::<Bytes>(1);
    let frames = futures::stream::poll_fn(move |context| {
        pieces.poll_recv(context).map(|piece| piece.map(|p| Ok::<_, Infallible>(Frame::data(p))))
    });
    let request = request.body(Body::new(StreamBody::new(frames)))?;
    let pour = async move {
        if let Some(first) = first {
            wire.send(first.into()).await?;
        }
        opened.wait().await;
        tokio::time::sleep(OPENED_WITHIN).await;
        wire.send(header(MESSAGE_BYTES).to_vec().into()).await?;
        let piece = Bytes::from(vec![0; PIECE_BYTES]);
        for _ in 1..MESSAGE_BYTES / PIECE_BYTES {
            wire.send(piece.clone()).await?;
        }
        // The end does not come.
        std::future::pending::<()>().await;
        drop(wire);
        Ok::<_, mpsc::error::SendError<Bytes>>(())
    };
    std::future::poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context)).await?;
    let answers = async {
        let response = GrpcService::call(&mut channel, request).await?;
        if response.headers().contains_key("grpc-status") {
            return Ok(response.headers().clone());
        }
        let end = response.into_body().collect().await?;
        end.trailers().cloned().context("no trailers")
    };
    let mut answers = std::pin::pin!(answers);
    tokio::select! {
        ended = &mut answers => ended,
        // Its body is not taken any more: the status says why.
        _ = pour => answers.await,
    }
}
