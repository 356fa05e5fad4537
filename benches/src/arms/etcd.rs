//! etcd: `etcd` puts each record with a call of its own, pipelined over the source's HTTP/2
//! connection; `etcd/txn=N` packs up to N records into one transaction, which is the fastest
//! honest way to write many keys. All sources talk to the leader. Keys are source and sequence,
//! so the order of a source is the order of its keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::driver::{Driver, ReadBack, Setup, Source, Window};
use crate::error::Error;
use crate::peers::etcd_api::{Client, Put, Range};
use crate::peers::etcd_cluster::EtcdCluster;
use crate::verify::Check;

const ARM: &str = "etcd";
const PAGE_BYTES: usize = 8 << 20;
/// etcd refuses requests when 5,000 are committed and not applied: all sources together stay
/// below that, and a refusal (it comes before anything is proposed) is tried again.
const CALLS_IN_FLIGHT: usize = 4500;
/// With more than this on its way etcd's own request timeout (5 s) strikes.
const BYTES_IN_FLIGHT: usize = 16 << 20;
const REFUSED: &str = "too many requests";
const TRIES_MAX: u32 = 1000;

/// The etcd arm.
#[derive(Debug)]
pub(super) struct Etcd {
    txn: usize,
    calls: Arc<Semaphore>,
    calls_max: usize,
    page: i64,
    cluster: Option<EtcdCluster>,
    version: String,
}

impl Etcd {
    /// `txn` records a transaction; 1 = plain puts.
    pub(super) fn new(txn: usize) -> Self {
        assert!((1..=128).contains(&txn), "etcd allows 128 operations a transaction");
        let calls = Arc::new(Semaphore::new(1));
        Self { txn, calls, calls_max: 1, page: 1000, cluster: None, version: String::new() }
    }

    fn cluster(&self) -> Result<&EtcdCluster, Error> {
        self.cluster.as_ref().ok_or_else(|| Error::protocol(ARM, "not started"))
    }
}

#[async_trait]
impl Driver for Etcd {
    fn arm(&self) -> String {
        if self.txn == 1 { ARM.to_owned() } else { format!("{ARM}/txn={}", self.txn) }
    }

    fn settings(&self) -> Value {
        json!({
            "version": self.version,
            "write": if self.txn == 1 { "one put a record, pipelined".to_owned() }
                     else { format!("transactions of up to {} puts", self.txn) },
            "calls_in_flight": self.calls_max,
            "connections": "one HTTP/2 connection a source, to the leader",
            "read_back": "linearizable range on each member",
        })
    }

    async fn setup(&mut self, setup: &Setup) -> Result<(), Error> {
        self.page = i64::try_from(PAGE_BYTES / setup.records.record_bytes()).unwrap_or(500);
        let by_bytes = BYTES_IN_FLIGHT / (self.txn * setup.records.record_bytes());
        self.calls_max = by_bytes.clamp(1, CALLS_IN_FLIGHT);
        self.calls = Arc::new(Semaphore::new(self.calls_max));
        let cluster = EtcdCluster::start(&setup.folder).await?;
        self.version.clone_from(&cluster.version);
        self.cluster = Some(cluster);
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.cluster.as_ref().map(EtcdCluster::pids).unwrap_or_default()
    }

    fn refill(&self, window: u32) -> u32 {
        // A whole transaction must be free, or the frames shrink to single records.
        u32::try_from(self.txn).unwrap_or(1).min(window)
    }

    async fn connect(&self, source: u32) -> Result<Box<dyn Source>, Error> {
        let cluster = self.cluster()?;
        let client = Client::connect(cluster.ports[cluster.leader]).await?;
        Ok(Box::new(EtcdSource {
            client,
            source,
            txn: self.txn,
            calls: Arc::clone(&self.calls),
            open: FuturesUnordered::new(),
        }))
    }

    async fn read_back(&self, node: usize, check: &mut Check) -> Result<ReadBack, Error> {
        let mut client = Client::connect(self.cluster()?.ports[node]).await?;
        let mut key = b"b/".to_vec();
        loop {
            let range = Range { key: key.clone(), end: b"b0".to_vec(), limit: self.page };
            let found = client.range(range).await?;
            for pair in &found.kvs {
                // A key that was written twice is a record that was stored twice.
                for _ in 0..pair.version.clamp(1, 2) {
                    check.see(&pair.value);
                }
            }
            let Some(last) = found.kvs.last().filter(|_| found.more) else {
                return Ok(ReadBack::Done);
            };
            key = [last.key.as_slice(), b"\0"].concat();
        }
    }

    async fn stop(&mut self) {
        self.cluster = None;
    }
}

type Call = BoxFuture<'static, Result<std::ops::Range<u64>, Error>>;

struct EtcdSource {
    client: Client,
    source: u32,
    txn: usize,
    calls: Arc<Semaphore>,
    open: FuturesUnordered<Call>,
}

async fn write(
    mut client: Client,
    calls: Arc<Semaphore>,
    puts: Vec<Put>,
    single: bool,
) -> Result<(), Error> {
    let _permit = calls.acquire().await.map_err(|error| Error::protocol(ARM, error.to_string()))?;
    for _ in 0..TRIES_MAX {
        let done = match puts.as_slice() {
            [put] if single => client.put(put.clone()).await,
            puts => client.txn(puts.to_vec()).await,
        };
        match done {
            Err(Error::Grpc { status, .. }) if status.message().contains(REFUSED) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done => return done,
        }
    }
    Err(Error::protocol(ARM, REFUSED))
}

#[async_trait]
impl Source for EtcdSource {
    async fn send(&mut self, window: Window<'_>) -> Result<(), Error> {
        let puts: Vec<(u64, Put)> = window
            .records()
            .map(|(sequence, record)| {
                let key = Bytes::from(format!("b/{:05}/{sequence:010}", self.source));
                (sequence, Put { key, value: Bytes::copy_from_slice(record) })
            })
            .collect();
        for part in puts.chunks(self.txn) {
            let first = part[0].0;
            let range = first..first + part.len() as u64;
            let puts: Vec<Put> = part.iter().map(|(_, put)| put.clone()).collect();
            let call = write(self.client.clone(), Arc::clone(&self.calls), puts, self.txn == 1);
            self.open.push(Box::pin(async move { call.await.map(|()| range) }));
        }
        Ok(())
    }

    async fn acked(&mut self, acked: &mut Vec<u64>) -> Result<(), Error> {
        use futures::FutureExt as _;
        let Some(first) = self.open.next().await else {
            return std::future::pending().await;
        };
        acked.extend(first?);
        while let Some(Some(more)) = self.open.next().now_or_never() {
            acked.extend(more?);
        }
        Ok(())
    }
}
