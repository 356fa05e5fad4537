//! Why there is no stream to a node of another site.

use std::io;

use dtm_types::NodeId;

/// A line that is not there, or settings that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is outside of what works.
    #[error("setting {0}")]
    Setting(String),
    /// A channel's socket does not open.
    #[error("channel {channel} does not listen")]
    Bind {
        /// Its name.
        channel: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A second path that is not independent of the first.
    #[error("path {index} is not independent of path {other}: both have {shared}")]
    Shared {
        /// Position of the path.
        index: usize,
        /// Position of the one before it.
        other: usize,
        /// What both have.
        shared: String,
    },
    /// A path names a channel that this node does not have.
    #[error("path through channel {0}, which this node does not have")]
    NoChannel(usize),
    /// No path to this node was given.
    #[error("no path to {0} is known")]
    Unknown(NodeId),
    /// Nothing works at the moment.
    #[error("the line to {0} is cut")]
    Cut(NodeId),
    /// The address does not resolve, or not to one that the channel reaches.
    #[error("no address for {0}")]
    Address(String),
    /// The certificate does not name the node that was called.
    #[error("the certificate of {called} names {named:?}")]
    Certificate {
        /// Who was called.
        called: NodeId,
        /// Who answered, where it is a node at all.
        named: Option<NodeId>,
    },
    /// TLS settings that QUIC cannot use.
    #[error("TLS settings without TLS 1.3 and AES-128-GCM")]
    Tls,
    /// No answer in time.
    #[error("no answer in time")]
    Late,
    /// The call could not be begun.
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    /// The connection ended or never came to be.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The socket or the stream.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Setting(_) | Self::Shared { .. } | Self::NoChannel(_) | Self::Tls)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Cut(_) | Error::Connection(_) => io::ErrorKind::NotConnected,
            Error::Late => io::ErrorKind::TimedOut,
            Error::Certificate { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
