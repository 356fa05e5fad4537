//! Why a session cannot open or go on.

use std::time::Duration;

use dtm_machine::seams::ProposeError;
use dtm_types::text::Told;
use dtm_types::{ErrorCode, StreamKey};

use crate::bounds::{Bound, BoundOf};
use crate::vault::VaultError;

/// Ends a session; the client sees the code and the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The group refused or could not be reached.
    #[error("stream {stream} cannot reach its group")]
    Propose {
        /// The stream.
        stream: StreamKey,
        /// Why.
        source: ProposeError,
    },
    /// Another connection holds the stream.
    #[error("stream {stream} was taken over by session {session}")]
    Superseded {
        /// The stream.
        stream: StreamKey,
        /// The newer session.
        session: u64,
    },
    /// A limit was hit; its name and value, and whose it is.
    #[error(
        "stream {stream}: {} = {} of the {} exceeded by {found}",
        bound.name, bound.value, bound.of.name()
    )]
    Limit {
        /// The stream.
        stream: StreamKey,
        /// What the caller sees.
        code: ErrorCode,
        /// The limit.
        bound: Bound,
        /// What was found.
        found: u64,
    },
    /// The client broke the protocol.
    #[error("stream {stream}: {cause}")]
    Protocol {
        /// The stream.
        stream: StreamKey,
        /// In words.
        cause: String,
    },
    /// A key is missing: fail closed.
    #[error("stream {stream} has no usable key")]
    Vault {
        /// The stream.
        stream: StreamKey,
        /// Why.
        source: VaultError,
    },
    /// Something that the contracts reserve and this version does not offer.
    #[error("stream {stream}: {what} is not supported by this version")]
    NotSupported {
        /// The stream.
        stream: StreamKey,
        /// What.
        what: &'static str,
    },
    /// The agreement does not cover it.
    #[error("stream {stream}: {cause}")]
    NotAgreed {
        /// The stream.
        stream: StreamKey,
        /// What the caller sees.
        code: ErrorCode,
        /// In words.
        cause: Told,
    },
    /// Its acks wait until the standby has the records too, and it did not have them in time: they may
    /// be kept or not. Never told as a failure.
    #[error(
        "stream {stream}: the standby did not have the records within {within:?} \
         (limits.site_ack_within_ms): outcome unknown"
    )]
    SiteBehind {
        /// The stream.
        stream: StreamKey,
        /// How long was waited.
        within: Duration,
    },
    /// Its acks are to wait for a standby, and there is none.
    #[error("stream {stream}: acks at level site need a layout with a standby")]
    NoStandby {
        /// The stream.
        stream: StreamKey,
    },
    /// The source's right was revoked.
    #[error("the right to write stream {stream} was revoked")]
    Revoked {
        /// The stream.
        stream: StreamKey,
    },
    /// The source's agreement, or the limits, are others than the stream was opened under; open it
    /// again.
    #[error(
        "what stream {stream} was opened under was changed (agreement or limits): open it again"
    )]
    Changed {
        /// The stream.
        stream: StreamKey,
    },
    /// The node is leaving; connect elsewhere.
    #[error("the node is draining")]
    Draining,
    /// The data set or the masks do not compile.
    #[error("data set of stream {stream} cannot be used: {cause}")]
    Contract {
        /// The stream.
        stream: StreamKey,
        /// In words.
        cause: String,
    },
    /// The session's actor is gone.
    #[error("the session ended")]
    Gone,
}

impl Error {
    /// The code the client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Propose { source, .. } => source.code(),
            Self::Superseded { .. } => ErrorCode::Superseded,
            Self::Limit { code, .. } | Self::NotAgreed { code, .. } => *code,
            Self::Protocol { .. } => ErrorCode::InvalidArgument,
            Self::Revoked { .. } => ErrorCode::CredentialRevoked,
            Self::Vault { .. } => ErrorCode::KeyMissing,
            Self::NotSupported { .. } => ErrorCode::NotSupported,
            Self::SiteBehind { .. } => ErrorCode::OutcomeUnknown,
            Self::NoStandby { .. } => ErrorCode::NotAgreed,
            Self::Changed { .. } | Self::Draining | Self::Gone => ErrorCode::Unavailable,
            Self::Contract { .. } => ErrorCode::Internal,
        }
    }

    /// What the client is told in its language; nothing where only the log's words are known.
    pub fn told(&self) -> Option<Told> {
        Some(match self {
            Self::NotAgreed { stream, cause, .. } => Told::new("session.not_agreed")
                .with("stream", stream)
                .with_told("cause", cause.clone()),
            Self::Limit { stream, bound, found, .. } => {
                let is_own = bound.of == BoundOf::Source;
                Told::new(if is_own { "session.limit_own" } else { "session.limit" })
                    .with("stream", stream)
                    .with("name", bound.name)
                    .with("value", bound.value)
                    .with("found", found)
            }
            Self::Superseded { stream, session } => {
                Told::new("session.superseded").with("stream", stream).with("session", session)
            }
            Self::NotSupported { stream, what } => {
                Told::new("session.not_supported").with("stream", stream).with("what", what)
            }
            Self::SiteBehind { stream, within } => Told::new("session.site_behind")
                .with("stream", stream)
                .with("ms", within.as_millis()),
            Self::NoStandby { stream } => Told::new("session.no_standby")
                .with("stream", stream)
                .with("source", &stream.source),
            Self::Revoked { stream } => Told::new("session.revoked").with("stream", stream),
            Self::Changed { stream } => Told::new("session.changed").with("stream", stream),
            Self::Draining => Told::new("session.draining"),
            Self::Gone => Told::new("session.gone"),
            Self::Propose { .. }
            | Self::Protocol { .. }
            | Self::Vault { .. }
            | Self::Contract { .. } => return None,
        })
    }

    /// Whether connecting again may help.
    pub fn retryable(&self) -> bool {
        self.code().retryable()
    }
}
