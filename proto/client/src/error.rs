//! What can go wrong between a source and the cluster.

use dtm_types::ErrorCode;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Failures of the SDK. Cheap to clone, so that every waiter of a publisher learns the same cause.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key file cannot be used.
    #[error("cannot use {file}: {reason}")]
    Certificate {
        /// Path of the file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client's certificate is of another cluster than the CA that servers are checked against:
    /// no server of that CA takes it.
    #[error(
        "the certificate {file} was not issued under {ca}: they are of different clusters \
         (docs/errors/wrong-cluster.md)"
    )]
    OtherCluster {
        /// File of the certificate.
        file: String,
        /// File of the CA.
        ca: String,
    },
    /// A source key is not of the form `dtm_SOURCE_KEYID_SECRET`.
    #[error("the source key is not of the form dtm_SOURCE_KEYID_SECRET")]
    Credential,
    /// An address is not `host:port`.
    #[error("address {address} is not of the form host:port")]
    Address {
        /// The address as it was given.
        address: String,
    },
    /// No connection to this address.
    #[error("no connection to {address}: {reason}")]
    Connect {
        /// The address tried.
        address: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{address} answered {code}: {message}", code = code_name(*code, *grpc))]
    Rejected {
        /// Who answered.
        address: String,
        /// The closed code, where the answer carried one.
        code: Option<ErrorCode>,
        /// gRPC status code.
        grpc: tonic::Code,
        /// The server's words.
        message: String,
        /// When to come back, where the server said so.
        retry_after: Option<Duration>,
        /// Where to go instead, where the server said so: who leads the group, or another node that
        /// holds it.
        leader: Option<String>,
        /// What the answer says beside its words: the values of its sentence and the same in
        /// Vietnamese.
        values: Arc<HashMap<String, String>>,
    },
    /// A newer connection took the stream over: final for this one.
    #[error("a newer connection took over stream {stream}")]
    Superseded {
        /// The stream.
        stream: String,
    },
    /// A record is over a limit and was not taken.
    #[error("{bytes} bytes are over {limit} = {bytes_max}")]
    TooLarge {
        /// Name of the limit.
        limit: &'static str,
        /// Size of what was given.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The server holds sequences that this client never gave out: somebody else wrote the stream.
    #[error("stream {stream} holds sequences up to {held}, this client gave out {given}")]
    StreamAhead {
        /// The stream.
        stream: String,
        /// Highest sequence held.
        held: u64,
        /// Highest sequence given out here.
        given: u64,
    },
    /// The peer broke the contract.
    #[error("{address} broke the contract: {what}")]
    Protocol {
        /// Who.
        address: String,
        /// How.
        what: &'static str,
    },
    /// No answer in time; what was sent may be committed or not.
    #[error("no answer from {address} within {waited:?}: outcome unknown")]
    OutcomeUnknown {
        /// Who was asked.
        address: String,
        /// For how long.
        waited: Duration,
    },
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
    /// A publisher over a spool takes records through the spool only.
    #[error("records of this publisher go through its spool")]
    Spooled,
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] crate::spool::Error),
}

fn code_name(code: Option<ErrorCode>, grpc: tonic::Code) -> String {
    code.map_or_else(|| format!("{grpc:?}"), |code| code.name().to_owned())
}

impl Error {
    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::OutcomeUnknown { .. } => true,
            Self::Rejected { code: Some(code), .. } => code.retryable(),
            Self::Rejected { grpc, .. } => matches!(
                grpc,
                tonic::Code::Unavailable
                    | tonic::Code::DeadlineExceeded
                    | tonic::Code::ResourceExhausted
                    | tonic::Code::Cancelled
                    | tonic::Code::Unknown
                    | tonic::Code::Internal
            ),
            Self::Protocol { .. } => true,
            Self::Spool(error) => error.retryable(),
            _ => false,
        }
    }

    /// The closed code, where the server gave one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected { code, .. } => *code,
            Self::Superseded { .. } => Some(ErrorCode::Superseded),
            Self::TooLarge { .. } => Some(ErrorCode::TooLarge),
            Self::OutcomeUnknown { .. } => Some(ErrorCode::OutcomeUnknown),
            Self::OtherCluster { .. } => Some(ErrorCode::WrongCluster),
            _ => None,
        }
    }
}
