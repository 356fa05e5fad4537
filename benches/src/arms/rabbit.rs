//! RabbitMQ quorum queues of three members with publisher confirms; the queues' leaders are
//! spread over the nodes and each source talks to the leader of its queue.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::driver::{Driver, ReadBack, Setup, Source, Window};
use crate::error::Error;
use crate::peers::amqp::{Amqp, Event};
use crate::peers::rabbit_cluster::RabbitCluster;
use crate::process::Wait;
use crate::verify::Check;

const ARM: &str = "rabbitmq";
/// Queues read back at once: what their waits take is spent once, and a few of them are in memory.
const QUEUES_AT_ONCE: usize = 4;

/// The RabbitMQ arm.
#[derive(Debug)]
pub(super) struct Rabbit {
    queues: u32,
    cluster: Option<RabbitCluster>,
}

impl Rabbit {
    /// An arm with `queues` quorum queues, over which the sources are spread.
    pub(super) fn new(queues: u32) -> Self {
        assert!(queues > 0, "at least one queue");
        Self { queues, cluster: None }
    }

    fn port(&self, node: usize) -> Result<u16, Error> {
        let cluster = self.cluster.as_ref().ok_or_else(|| Error::protocol(ARM, "not started"))?;
        Ok(cluster.ports[node])
    }
}

/// All messages of a queue, from the member of the node with this port.
async fn read(port: u16, queue: String) -> Result<Vec<Bytes>, Error> {
    let mut amqp = Amqp::open(port).await?;
    // What the node before gave out comes back when its connection is gone: wait until the
    // number of ready messages stands still.
    let wait = Wait::new(&format!("ready messages of {queue}"), 60);
    let (mut ready, mut same) = (0, 0);
    while same < 3 {
        let now = amqp.declare(&queue, true).await?;
        same = if now == ready { same + 1 } else { 0 };
        ready = now;
        wait.pause(&mut []).await?;
    }
    let mut payloads = Vec::with_capacity(ready as usize);
    if ready == 0 {
        return Ok(payloads);
    }
    amqp.consume(&queue, ready / u32::from(u16::MAX) + 1).await?;
    for read in 0..ready {
        let next = tokio::time::timeout(Duration::from_secs(30), amqp.next()).await;
        let what = format!("record {read} of {ready} of {queue}");
        match next.map_err(|_| Error::Timeout { what, seconds: 30 })?? {
            Event::Delivery(payload) => payloads.push(payload),
            Event::Ack { .. } => return Err(Error::protocol(ARM, "a confirm to a reader")),
        }
    }
    Ok(payloads)
}

fn name(queue: u32) -> String {
    format!("q{queue}")
}

#[async_trait]
impl Driver for Rabbit {
    fn arm(&self) -> String {
        format!("{ARM}/queues={}", self.queues)
    }

    fn settings(&self) -> Value {
        json!({
            "version": self.cluster.as_ref().map(|cluster| cluster.version.clone()),
            "queues": self.queues, "kind": "quorum, three members", "confirms": true,
            "connections": "one a source, to the leader of its queue",
            "read_back": "consumer on each node, delivered from that node's member",
        })
    }

    async fn setup(&mut self, setup: &Setup) -> Result<(), Error> {
        self.cluster = Some(RabbitCluster::start(&setup.folder).await?);
        for queue in 0..self.queues {
            let mut amqp = Amqp::open(self.port(queue as usize % 3)?).await?;
            amqp.declare(&name(queue), false).await?;
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.cluster.as_ref().map(RabbitCluster::pids).unwrap_or_default()
    }

    async fn connect(&self, source: u32) -> Result<Box<dyn Source>, Error> {
        let queue = source % self.queues;
        let mut amqp = Amqp::open(self.port(queue as usize % 3)?).await?;
        amqp.confirm().await?;
        let (open, out) = (BTreeSet::new(), BytesMut::new());
        Ok(Box::new(RabbitSource { amqp, queue: name(queue), offset: None, open, out }))
    }

    /// What one node gave out is given to the next only when it is back in its queue.
    fn reads_side_by_side(&self) -> bool {
        false
    }

    async fn read_back(&self, node: usize, check: &mut Check) -> Result<ReadBack, Error> {
        let port = self.port(node)?;
        let reading = futures::stream::iter(0..self.queues).map(|queue| read(port, name(queue)));
        let mut reading = reading.buffer_unordered(QUEUES_AT_ONCE);
        while let Some(payloads) = reading.next().await {
            payloads?.iter().for_each(|payload| check.see(payload));
        }
        Ok(ReadBack::Done)
    }

    async fn stop(&mut self) {
        self.cluster = None;
    }
}

struct RabbitSource {
    amqp: Amqp,
    queue: String,
    /// Sequence of the message with delivery tag 0 on this connection.
    offset: Option<u64>,
    open: BTreeSet<u64>,
    out: BytesMut,
}

#[async_trait]
impl Source for RabbitSource {
    async fn send(&mut self, window: Window<'_>) -> Result<(), Error> {
        self.out.clear();
        for (sequence, record) in window.records() {
            self.offset.get_or_insert(sequence - 1);
            self.open.insert(sequence);
            Amqp::put_publish(&self.queue, record, &mut self.out);
        }
        self.amqp.write(&self.out).await
    }

    async fn acked(&mut self, acked: &mut Vec<u64>) -> Result<(), Error> {
        let mut next = Some(self.amqp.next().await?);
        while let Some(event) = next {
            let Event::Ack { tag, multiple } = event else {
                return Err(Error::protocol(ARM, "a delivery to a publisher"));
            };
            let sequence = tag + self.offset.unwrap_or(0);
            if multiple {
                let above = self.open.split_off(&(sequence + 1));
                acked.extend(std::mem::replace(&mut self.open, above));
            } else {
                self.open.remove(&sequence);
                acked.push(sequence);
            }
            next = self.amqp.buffered()?;
        }
        Ok(())
    }
}
