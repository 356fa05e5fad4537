//! Requests that are small on the wire and large in memory, of who has no credential and of who has
//! one.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_client::{Endpoint, Form, Mode};
use dtm_proto::ingest;
use prost::Message;
use prost::encoding::encode_varint;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::bad_records::open_stream;
use crate::cluster::Cluster;
use crate::matrix::Raw;
use crate::sources::Source;

/// Empty records of one frame: two bytes each.
const RECORDS: usize = 4_700_000;
/// Calls at once.
const CALLS: usize = 4;
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// What a node may hold at its peak above what it held before: the bytes of the calls, some of them
/// twice while they are put together.
const GROWTH_MAX_KIB: u64 = 192 << 10;

fn frame_of_nothing() -> Vec<u8> {
    let mut frame = vec![0x08, 0x01];
    frame.extend([0x12, 0x00].repeat(RECORDS));
    nested(2, &frame)
}

/// One record whose envelope lists nothing many times.
fn envelope_of_nothing() -> Vec<u8> {
    let envelope = [0x8a, 0x01, 0x00].repeat(RECORDS / 2);
    let mut frame = vec![0x08, 0x01];
    frame.extend(nested(2, &nested(6, &envelope)));
    nested(2, &frame)
}

/// A message as a field of another.
fn nested(field: u8, message: &[u8]) -> Vec<u8> {
    let mut outer = vec![(field << 3) | 2];
    encode_varint(message.len() as u64, &mut outer);
    outer.extend_from_slice(message);
    outer
}

pub(crate) fn open(source: &Source, stream: &str) -> Vec<u8> {
    let open = ingest::Open {
        source: source.code.clone(),
        stream: stream.to_owned(),
        dataset: "notes".to_owned(),
        mode: Mode::Realtime.into(),
        form: Form::Raw.into(),
        ..ingest::Open::default()
    };
    let request = Some(ingest::publish_request::Request::Open(open));
    ingest::PublishRequest { request }.encode_to_vec()
}

/// What a stream of requests ends with.
async fn publish(channel: &Channel, key: Option<&str>, requests: Vec<Vec<u8>>) -> Result<Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let mut request = tonic::Request::new(tokio_stream::iter(requests));
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse()?);
    }
    let path = PathAndQuery::from_static("/dtm.ingest.v1.IngestService/Publish");
    let mut answers = match client.streaming(request, path, Raw).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Ok(status),
    };
    loop {
        match answers.message().await {
            Ok(Some(())) => {}
            Ok(None) => bail!("it ended without a word"),
            Err(status) => return Ok(status),
        }
    }
}

// holds: LIVE-1, SEC-2
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_millions_of_records_takes_no_memory() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let at = cluster.leader(source.group).await?;
    let address = cluster.nodes[at].grpc.to_string();
    let endpoint = Endpoint::new([address.clone()], &cluster.source_files())?;
    let channel = endpoint.channel(&address).await?;
    let key = Some(source.key.as_str());
    let cases = [
        ("without a credential", None, None, frame_of_nothing()),
        ("a first request", key, None, frame_of_nothing()),
        ("a frame", key, Some("frame"), frame_of_nothing()),
        ("an envelope", key, Some("envelope"), envelope_of_nothing()),
    ];
    for (what, key, stream, hostile) in cases {
        let before = cluster.nodes[at].peak_resident_kib()?;
        let calls = (0..CALLS).map(|n| {
            let opens = stream.map(|stream| open(&source, &format!("{stream}-{n}")));
            publish(&channel, key, opens.into_iter().chain([hostile.clone()]).collect())
        });
        let calls = futures::future::try_join_all(calls);
        let ends = tokio::time::timeout(ENDS_WITHIN, calls).await.context(what)?.context(what)?;
        let grown = cluster.nodes[at].peak_resident_kib()?.saturating_sub(before);
        for end in ends {
            let is_told = match key {
                None => end.code() == Code::Unauthenticated,
                Some(_) => {
                    let message = end.message();
                    end.code() == Code::InvalidArgument
                        && message.contains("frame_records_max")
                        && message.contains("65536")
                }
            };
            ensure!(is_told, "{what}: {end:?}");
        }
        ensure!(grown < GROWTH_MAX_KIB, "LIVE-1: {what}: the peak grew by {grown} KiB");
    }
    open_stream(&cluster, &source, "after", "notes", at).await.context("the node goes on")?;
    cluster.passed();
    Ok(())
}
