//! Ceilings with the same records over the same number of connections: `replicated-echo` (two
//! forward hops, acknowledged by one of two) and `echo` (no hop). Nothing is stored.

use std::process::Command;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic_prost::ProstCodec;

use crate::driver::{Driver, ReadBack, Setup, Source, Window};
use crate::error::Error;
use crate::peers::echo_node::{Ack, Frame, PUBLISH, connect};
use crate::process::{Process, Wait, free_ports};
use crate::verify::Check;

const ARM: &str = "replicated-echo";

/// The echo arms.
#[derive(Debug)]
pub(super) struct Echo {
    replicated: bool,
    processes: Vec<Process>,
    ports: Vec<u16>,
}

impl Echo {
    /// An echo with or without the two forward hops.
    pub(super) fn new(replicated: bool) -> Self {
        Self { replicated, processes: Vec::new(), ports: Vec::new() }
    }
}

#[async_trait]
impl Driver for Echo {
    fn arm(&self) -> String {
        if self.replicated { ARM.to_owned() } else { "echo".to_owned() }
    }

    fn settings(&self) -> Value {
        json!({
            "hops": if self.replicated { 2 } else { 0 }, "tls": false, "disk": false,
            "frames": "half a window",
        })
    }

    async fn setup(&mut self, setup: &Setup) -> Result<(), Error> {
        self.ports = free_ports(3)?;
        let program = std::env::current_exe().map_err(Error::io("find the own program"))?;
        for (node, port) in self.ports.iter().enumerate() {
            let others: Vec<String> =
                self.ports.iter().filter(|other| *other != port).map(u16::to_string).collect();
            let mut command = Command::new(&program);
            command.args(["echo-node", "--listen", &port.to_string()]);
            if self.replicated {
                command.args(["--others", &others.join(",")]);
            }
            let log = setup.folder.join(format!("echo{node}.log"));
            self.processes.push(Process::start("echo-node", command, &log)?);
        }
        let wait = Wait::new("three echo nodes", 20);
        for port in &self.ports {
            while !answers(*port).await {
                wait.pause(&mut self.processes).await?;
            }
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    fn nodes(&self) -> usize {
        1
    }

    fn refill(&self, window: u32) -> u32 {
        window / 2
    }

    async fn connect(&self, source: u32) -> Result<Box<dyn Source>, Error> {
        Ok(Box::new(open(self.ports[source as usize % self.ports.len()]).await?))
    }

    async fn read_back(&self, _node: usize, _check: &mut Check) -> Result<ReadBack, Error> {
        Ok(ReadBack::NotStored)
    }

    async fn stop(&mut self) {
        self.processes.clear();
    }
}

/// Whether a node takes a frame through all its hops.
async fn answers(port: u16) -> bool {
    let Ok(mut source) = open(port).await else {
        return false;
    };
    let frame = Frame { through: 1, records: Bytes::from_static(b"x") };
    if source.frames.send(frame).await.is_err() {
        return false;
    }
    let wait = std::time::Duration::from_secs(5);
    matches!(tokio::time::timeout(wait, source.acked(&mut Vec::new())).await, Ok(Ok(())))
}

async fn open(port: u16) -> Result<EchoSource, Error> {
    let mut grpc = connect(port).await?;
    grpc.ready().await.map_err(|error| Error::protocol(ARM, error.to_string()))?;
    let (frames, receiver) = mpsc::channel(64);
    let path = http::uri::PathAndQuery::from_static(PUBLISH);
    let codec = ProstCodec::<Frame, Ack>::default();
    let request = tonic::Request::new(ReceiverStream::new(receiver));
    let answer = grpc.streaming(request, path, codec).await.map_err(Error::grpc(ARM))?;
    Ok(EchoSource { frames, acks: answer.into_inner(), through: 0 })
}

struct EchoSource {
    frames: mpsc::Sender<Frame>,
    acks: Streaming<Ack>,
    through: u64,
}

#[async_trait]
impl Source for EchoSource {
    async fn send(&mut self, window: Window<'_>) -> Result<(), Error> {
        let count = (window.bytes.len() / window.record_bytes) as u64;
        let records = Bytes::copy_from_slice(window.bytes);
        let frame = Frame { through: window.first + count - 1, records };
        self.frames.send(frame).await.map_err(|_| Error::protocol(ARM, "the stream ended"))
    }

    async fn acked(&mut self, acked: &mut Vec<u64>) -> Result<(), Error> {
        let ack = self.acks.message().await.map_err(Error::grpc(ARM))?;
        let ack = ack.ok_or_else(|| Error::protocol(ARM, "the stream ended"))?;
        acked.extend(self.through + 1..=ack.through);
        self.through = self.through.max(ack.through);
        Ok(())
    }
}
