//! The closed set of error codes; one page each in `docs/errors`.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, grpc $grpc:literal, http $http:literal, retry $retry:literal;)*) => {
        /// Every error that a caller can meet. The name is stable and never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Stable name: `docs/errors/NAME.md`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Number of the gRPC status code.
            pub fn grpc_code(self) -> i32 {
                match self { $(Self::$variant => $grpc,)* }
            }

            /// HTTP status.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// Whether the same call may succeed later without a change by the caller.
            pub fn retryable(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }
        }
    };
}

codes! {
    /// No credential, or one that is not known.
    Unauthenticated = "unauthenticated", grpc 16, http 401, retry false;
    /// The key or certificate was revoked or has expired.
    CredentialRevoked = "credential-revoked", grpc 16, http 401, retry false;
    /// Known, but not allowed to do this.
    PermissionDenied = "permission-denied", grpc 7, http 403, retry false;
    /// No such source.
    UnknownSource = "unknown-source", grpc 5, http 404, retry false;
    /// No such data set.
    UnknownDataset = "unknown-dataset", grpc 5, http 404, retry false;
    /// The data set has no such version.
    UnknownSchemaVersion = "unknown-schema-version", grpc 5, http 404, retry false;
    /// The agreement does not cover data set, mode or form.
    NotAgreed = "not-agreed", grpc 7, http 403, retry false;
    /// A request that makes no sense as it stands.
    InvalidArgument = "invalid-argument", grpc 3, http 400, retry false;
    /// A record breaks its schema (refused alone; quarantined).
    RecordRefused = "record-refused", grpc 3, http 422, retry false;
    /// A record or frame is over its limit.
    TooLarge = "too-large", grpc 3, http 413, retry false;
    /// Too many streams open at once for this source.
    TooManyStreams = "too-many-streams", grpc 8, http 429, retry true;
    /// The source has used up its stream names.
    TooManyStreamNames = "too-many-stream-names", grpc 8, http 429, retry false;
    /// More bytes in flight than the window allows.
    WindowExceeded = "window-exceeded", grpc 8, http 429, retry false;
    /// The node takes no more for now.
    Overloaded = "overloaded", grpc 8, http 503, retry true;
    /// A newer connection of the same stream took over.
    Superseded = "superseded", grpc 10, http 409, retry false;
    /// A gap in the sequence numbers.
    SequenceGap = "sequence-gap", grpc 11, http 409, retry false;
    /// This sequence is held with other content.
    SequenceConflict = "sequence-conflict", grpc 6, http 409, retry false;
    /// Acked once, not held any more: resend or report lost.
    LossDetected = "loss-detected", grpc 15, http 409, retry false;
    /// No quorum, no leader, or the node is leaving.
    Unavailable = "unavailable", grpc 14, http 503, retry true;
    /// Another node leads the group.
    NotLeader = "not-leader", grpc 14, http 503, retry true;
    /// It may have been committed or not: ask for the status, then resend.
    OutcomeUnknown = "outcome-unknown", grpc 14, http 504, retry true;
    /// The disk is full: reading goes on, writing waits.
    DiskFull = "disk-full", grpc 8, http 507, retry true;
    /// The node stopped itself after a failed fsync.
    NodeStopped = "node-stopped", grpc 14, http 503, retry true;
    /// Stored bytes are damaged on this node and are being repaired.
    Damaged = "damaged", grpc 15, http 503, retry true;
    /// A key that is needed is not held.
    KeyMissing = "key-missing", grpc 9, http 503, retry false;
    /// Without this node a group would have no majority that answers.
    QuorumNeeded = "quorum-needed", grpc 9, http 409, retry false;
    /// A second person's approval is needed, or the one that was brought does not hold.
    ApprovalNeeded = "approval-needed", grpc 9, http 409, retry false;
    /// The row was changed meanwhile.
    VersionConflict = "version-conflict", grpc 10, http 409, retry false;
    /// It exists already.
    AlreadyExists = "already-exists", grpc 6, http 409, retry false;
    /// It does not exist.
    NotFound = "not-found", grpc 5, http 404, retry false;
    /// A token, key or link is past its time.
    Expired = "expired", grpc 9, http 410, retry false;
    /// The caller speaks for another life of the cluster.
    WrongIncarnation = "wrong-incarnation", grpc 9, http 409, retry false;
    /// The caller belongs to another cluster.
    WrongCluster = "wrong-cluster", grpc 9, http 409, retry false;
    /// Reserved in the contracts, not offered by this version.
    NotSupported = "not-supported", grpc 12, http 501, retry false;
    /// A fault of the software: report it.
    Internal = "internal", grpc 13, http 500, retry false;
}

impl ErrorCode {
    /// Finds a code by its stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
