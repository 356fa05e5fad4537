//! NATS JetStream, three replicas on files: `nats-always` (each write synced before its ack) and
//! `nats-default` (synced by the server every two minutes, so not durable at the ack). Publishing
//! is asynchronous within the window; each source talks to the node that leads its stream.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::driver::{Driver, ReadBack, Setup, Source, Window};
use crate::error::Error;
use crate::peers::nats_cluster::{NatsCluster, leader_of, version};
use crate::peers::nats_wire::Connection;
use crate::verify::Check;

const ARM: &str = "nats";
const PULL: usize = 2000;
/// A consumer's place is random; after this many tries a node is given up.
const PLACES_TRIED_MAX: usize = 60;

/// The NATS arm.
#[derive(Debug)]
pub(super) struct Nats {
    always: bool,
    streams: u32,
    cluster: Option<tokio::sync::Mutex<NatsCluster>>,
    ports: Vec<u16>,
    leaders: Vec<usize>,
    version: String,
}

impl Nats {
    /// An arm with `streams` streams, over which the sources are spread.
    pub(super) fn new(always: bool, streams: u32) -> Self {
        assert!(streams > 0, "at least one stream");
        Self {
            always,
            streams,
            cluster: None,
            ports: Vec::new(),
            leaders: Vec::new(),
            version: version(),
        }
    }

    fn stream(source: u32, streams: u32) -> u32 {
        source % streams
    }

    /// Creates a consumer whose own (single) copy lies on `node`, so that it reads that node's
    /// store. JetStream chooses the place; wrong ones are deleted.
    async fn consumer_on(
        &self,
        connection: &mut Connection,
        stream: &str,
        node: usize,
    ) -> Result<String, Error> {
        let create = json!({"stream_name": stream, "config": {
            "ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant",
            "num_replicas": 1, "mem_storage": true, "inactive_threshold": 60_000_000_000_u64,
        }});
        for _ in 0..PLACES_TRIED_MAX {
            let subject = format!("$JS.API.CONSUMER.CREATE.{stream}");
            let info = connection.request(&subject, &create).await?;
            let name = info["name"].as_str().unwrap_or_default().to_owned();
            if leader_of(&info) == Some(node) {
                return Ok(name);
            }
            let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
            connection.request(&subject, &json!({})).await?;
        }
        Err(Error::protocol(ARM, format!("no consumer on node {node}")))
    }
}

#[async_trait]
impl Driver for Nats {
    fn arm(&self) -> String {
        let sync = if self.always { "nats-always" } else { "nats-default" };
        if self.streams == 1 { sync.to_owned() } else { format!("{sync}/streams={}", self.streams) }
    }

    fn settings(&self) -> Value {
        json!({
            "version": self.version, "replicas": 3, "storage": "file", "streams": self.streams,
            "sync_interval": if self.always { "always" } else { "default (2m)" },
            "publish": "asynchronous, window a source, to the leader of the stream",
            "read_back": "single-copy consumers, one on each node",
        })
    }

    async fn setup(&mut self, setup: &Setup) -> Result<(), Error> {
        let mut cluster = NatsCluster::start(&setup.folder, self.always).await?;
        self.ports = (0..3).map(|node| cluster.port(node)).collect();
        self.leaders.clear();
        for stream in 0..self.streams {
            self.leaders.push(cluster.create_stream(&format!("B{stream}")).await?);
        }
        self.cluster = Some(tokio::sync::Mutex::new(cluster));
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        let cluster = self.cluster.as_ref().and_then(|cluster| cluster.try_lock().ok());
        cluster.map(|cluster| cluster.pids()).unwrap_or_default()
    }

    async fn connect(&self, source: u32) -> Result<Box<dyn Source>, Error> {
        let stream = Self::stream(source, self.streams);
        let port = self.ports[self.leaders[stream as usize]];
        let connection = Connection::open(port, &format!("_I.{source}")).await?;
        let subject = format!("B{stream}.{source}");
        Ok(Box::new(NatsSource { connection, subject, out: Vec::new() }))
    }

    async fn read_back(&self, node: usize, check: &mut Check) -> Result<ReadBack, Error> {
        let cluster = self.cluster.as_ref().ok_or_else(|| Error::protocol(ARM, "not started"))?;
        for stream in 0..self.streams {
            let stream = format!("B{stream}");
            let info = cluster.lock().await.settled(&stream).await?;
            let total = info["state"]["messages"].as_u64().unwrap_or(0);
            let inbox = format!("_I.read{node}");
            let mut connection = Connection::open(self.ports[node], &inbox).await?;
            if total == 0 {
                continue;
            }
            let consumer = self.consumer_on(&mut connection, &stream, node).await?;
            let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
            pull_all(&mut connection, &subject, total, check).await?;
        }
        Ok(ReadBack::Done)
    }

    async fn stop(&mut self) {
        self.cluster = None;
    }
}

/// Pulls exactly `total` messages.
async fn pull_all(
    connection: &mut Connection,
    subject: &str,
    total: u64,
    check: &mut Check,
) -> Result<(), Error> {
    let mut left = total;
    while left > 0 {
        let batch = left.min(PULL as u64);
        let mut out = Vec::new();
        let body = json!({"batch": batch, "expires": 20_000_000_000_u64}).to_string();
        connection.put_publish(subject, 0, body.as_bytes(), &mut out);
        connection.write(&out).await?;
        for _ in 0..batch {
            let wait = std::time::Duration::from_secs(25);
            let message = tokio::time::timeout(wait, connection.next()).await.map_err(|_| {
                Error::Timeout { what: format!("{left} of {total} records"), seconds: 25 }
            })??;
            if let Some(status) = message.status {
                return Err(Error::protocol(
                    ARM,
                    format!("{subject}: status {status}, {left} left"),
                ));
            }
            check.see(&message.payload);
        }
        left -= batch;
    }
    Ok(())
}

struct NatsSource {
    connection: Connection,
    subject: String,
    out: Vec<u8>,
}

#[async_trait]
impl Source for NatsSource {
    async fn send(&mut self, window: Window<'_>) -> Result<(), Error> {
        self.out.clear();
        for (sequence, record) in window.records() {
            self.connection.put_publish(&self.subject, sequence, record, &mut self.out);
        }
        self.connection.write(&self.out).await
    }

    async fn acked(&mut self, acked: &mut Vec<u64>) -> Result<(), Error> {
        let mut next = Some(self.connection.next().await?);
        while let Some(message) = next {
            let good = message.status.is_none()
                && message.payload.starts_with(b"{\"stream\"")
                && !message.payload.windows(7).any(|part| part == b"\"error\"");
            let sequence = Connection::token(&message).filter(|_| good);
            acked.push(sequence.ok_or_else(|| {
                let text = String::from_utf8_lossy(&message.payload);
                Error::protocol(ARM, format!("status {:?}: {text}", message.status))
            })?);
            next = self.connection.buffered().await?;
        }
        Ok(())
    }
}
