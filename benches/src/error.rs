//! What can go wrong on an arm of a comparison. A run that meets one of these counts as
//! throughput 0; nothing here is retried behind the reader's back.

/// A failure of a driver, a cluster or a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something; `what` names it.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The reason of the system.
        source: std::io::Error,
    },
    /// A peer said something that its protocol does not allow, or refused a record.
    #[error("{arm}: {what}")]
    Protocol {
        /// The arm it happened on.
        arm: &'static str,
        /// What was said.
        what: String,
    },
    /// A bounded wait ended.
    #[error("no answer within {seconds} s: {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The bound.
        seconds: u64,
    },
    /// A program that an arm needs is not installed.
    #[error("{program} is not installed: run benches/peers/install.sh")]
    Missing {
        /// Path of the program.
        program: String,
    },
    /// A gRPC call failed.
    #[error("{arm}: {status}")]
    Grpc {
        /// The arm it happened on.
        arm: &'static str,
        /// The status of the call.
        status: Box<tonic::Status>,
    },
    /// The arm cannot do what the workload asks for.
    #[error("{arm} does not offer {what}")]
    Unsupported {
        /// The arm.
        arm: String,
        /// What was asked.
        what: &'static str,
    },
}

impl Error {
    /// Wraps an IO error with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Wraps the status of a gRPC call.
    pub fn grpc(arm: &'static str) -> impl FnOnce(tonic::Status) -> Self {
        move |status| Self::Grpc { arm, status: Box::new(status) }
    }

    /// A protocol failure of an arm.
    pub fn protocol(arm: &'static str, what: impl Into<String>) -> Self {
        Self::Protocol { arm, what: what.into() }
    }
}
