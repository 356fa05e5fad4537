//! The caller of one request.

use std::fmt;

use dtm_types::{ClusterId, NodeId, SourceId};

use crate::{Certificate, Error, Identity};

/// What an operator's certificate allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs the cluster.
    Operator,
    /// Agrees to what needs two people.
    Approver,
    /// Reads states, logs and digests; changes nothing.
    Auditor,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Approver, Self::Auditor];

    /// `operator`, `approver` or `auditor`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == text)
    }

    /// The word in certificates and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a source showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A certificate of the cluster's CA; its SHA-256, to hold against its row.
    Certificate([u8; 32]),
    /// A source key; its 8-byte id.
    Key([u8; crate::KEY_ID_BYTES]),
}

/// Who calls. Made from a checked credential, never from what a request says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Another node of this cluster.
    Node {
        /// Which.
        node: NodeId,
    },
    /// A person or script.
    Operator {
        /// Their name.
        name: String,
        /// What they may do.
        role: Role,
        /// SHA-256 of their certificate (DER), to hold against their row.
        certificate_digest: [u8; 32],
    },
    /// A sending system.
    Source {
        /// Its code.
        source: SourceId,
        /// How it showed that.
        credential: Credential,
    },
    /// Nobody that we know.
    Anonymous,
}

impl Caller {
    /// The same source, operator or node, by whatever credential.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Source { source: a, .. }, Self::Source { source: b, .. }) => a == b,
            (Self::Operator { name: a, .. }, Self::Operator { name: b, .. }) => a == b,
            _ => self == other,
        }
    }

    /// The owner of a certificate whose chain the TLS layer has checked.
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::WrongCluster`].
    pub fn from_certificate(der: &[u8], cluster: ClusterId) -> Result<Self, Error> {
        let certificate = Certificate::parse(der)?;
        let found = certificate.identity.cluster();
        if found != cluster {
            return Err(Error::WrongCluster { found, expected: cluster });
        }
        Ok(match certificate.identity {
            Identity::Node { node, .. } => Self::Node { node },
            Identity::Operator { name, role, .. } => {
                Self::Operator { name, role, certificate_digest: certificate.digest }
            }
            Identity::Source { source, .. } => {
                let credential = Credential::Certificate(certificate.digest);
                Self::Source { source, credential }
            }
        })
    }

    /// The source this caller is, if it is one.
    pub fn source(&self) -> Option<&SourceId> {
        match self {
            Self::Source { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node } => write!(f, "node {node}"),
            Self::Operator { name, role, .. } => write!(f, "{role} {name}"),
            Self::Source { source, .. } => write!(f, "source {source}"),
            Self::Anonymous => f.write_str("an unknown caller"),
        }
    }
}
