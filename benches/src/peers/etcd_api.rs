//! The messages of etcd's v3 API that the arm uses, kept by hand (field numbers are etcd's), and
//! calls over a raw tonic client: no generated code for five messages.

use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::error::Error;

const ARM: &str = "etcd";
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
pub struct Header {
    /// The member that answered.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Put {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: bytes::Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: bytes::Bytes,
}

/// An answer of which only the arrival matters.
#[derive(Clone, PartialEq, Message)]
pub struct Done {}

/// `etcdserverpb.RequestOp` with a put.
#[derive(Clone, PartialEq, Message)]
pub struct PutOp {
    /// The put.
    #[prost(message, optional, tag = "2")]
    pub put: Option<Put>,
}

/// `etcdserverpb.TxnRequest` without comparisons.
#[derive(Clone, PartialEq, Message)]
pub struct Txn {
    /// What is done, all of it or nothing.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<PutOp>,
}

/// `etcdserverpb.TxnResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct TxnDone {
    /// Whether it was done.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
}

/// `etcdserverpb.RangeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Range {
    /// First key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// First key behind the range.
    #[prost(bytes = "vec", tag = "2")]
    pub end: Vec<u8>,
    /// Most keys of an answer.
    #[prost(int64, tag = "3")]
    pub limit: i64,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// How often the key was written.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// Value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: bytes::Bytes,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Found {
    /// Keys in order.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut it.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Who answers.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Member that leads, 0 without one.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// A client connection (one HTTP/2 connection); clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    /// Connects to a loopback port.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(port: u16) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
            .map_err(|error| Error::protocol(ARM, error.to_string()))?
            .tcp_nodelay(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let channel =
            endpoint.connect().await.map_err(|error| Error::protocol(ARM, error.to_string()))?;
        Ok(Self { grpc: Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX) })
    }

    async fn call<Q, A>(&mut self, request: Q, path: &'static str) -> Result<A, Error>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.map_err(|error| Error::protocol(ARM, error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.grpc.unary(tonic::Request::new(request), path, codec).await;
        Ok(answer.map_err(Error::grpc(ARM))?.into_inner())
    }

    /// Stores one key.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn put(&mut self, put: Put) -> Result<(), Error> {
        self.call::<Put, Done>(put, "/etcdserverpb.KV/Put").await.map(|_| ())
    }

    /// Stores several keys at once.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn txn(&mut self, puts: Vec<Put>) -> Result<(), Error> {
        let success = puts.into_iter().map(|put| PutOp { put: Some(put) }).collect();
        let done: TxnDone = self.call(Txn { success }, "/etcdserverpb.KV/Txn").await?;
        if done.succeeded { Ok(()) } else { Err(Error::protocol(ARM, "transaction refused")) }
    }

    /// Reads keys in order, linearizably: the member first waits until it holds all that was
    /// committed, then reads its own store.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn range(&mut self, range: Range) -> Result<Found, Error> {
        self.call(range, "/etcdserverpb.KV/Range").await
    }

    /// State of the member.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.call(Done {}, "/etcdserverpb.Maintenance/Status").await
    }
}
