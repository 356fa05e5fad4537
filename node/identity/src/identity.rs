//! The name in a certificate: a URI in its subject alternative names.
//!
//! ```text
//!  dtm://cluster/CLUSTER-UUID/node/NODE-UUID
//!  dtm://cluster/CLUSTER-UUID/operator/NAME?role=ROLE
//!  dtm://cluster/CLUSTER-UUID/source/CODE
//! ```

use std::fmt;

use dtm_types::{ClusterId, NodeId, SourceId};

use crate::Role;

/// What a certificate says its owner is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A node of a cluster.
    Node {
        /// Its cluster.
        cluster: ClusterId,
        /// Itself.
        node: NodeId,
    },
    /// A person or script that administers a cluster.
    Operator {
        /// Their cluster.
        cluster: ClusterId,
        /// Unique in the cluster.
        name: String,
        /// What they may do.
        role: Role,
    },
    /// A sending system.
    Source {
        /// The cluster it sends to.
        cluster: ClusterId,
        /// Its code.
        source: SourceId,
    },
}

/// Longest name of an operator, bytes.
pub const OPERATOR_NAME_BYTES_MAX: usize = 64;

/// True for 1 to 64 of `a-z 0-9 . - _`, first a letter or digit: nothing that a URI escapes.
pub fn operator_name_is_valid(name: &str) -> bool {
    name.len() <= OPERATOR_NAME_BYTES_MAX && SourceId::parse(name).is_some()
}

impl Identity {
    /// Reads the URI; `None` where it is not exactly one of the three forms.
    pub fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix("dtm://cluster/")?;
        let mut parts = rest.splitn(3, '/');
        let cluster: ClusterId = parts.next()?.parse().ok()?;
        let kind = parts.next()?;
        let tail = parts.next()?;
        let identity = match kind {
            "node" => Self::Node { cluster, node: tail.parse().ok()? },
            "source" => Self::Source { cluster, source: SourceId::parse(tail)? },
            "operator" => {
                let (name, role) = tail.split_once("?role=")?;
                let role = Role::parse(role)?;
                operator_name_is_valid(name).then(|| Self::Operator {
                    cluster,
                    name: name.into(),
                    role,
                })?
            }
            _ => return None,
        };
        // One spelling only: what does not print back as it was read (upper-case or braced uuids)
        // is another name for the same thing, and refused.
        (identity.to_string() == uri).then_some(identity)
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> ClusterId {
        match self {
            Self::Node { cluster, .. }
            | Self::Operator { cluster, .. }
            | Self::Source { cluster, .. } => *cluster,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dtm://cluster/{}/", self.cluster())?;
        match self {
            Self::Node { node, .. } => write!(f, "node/{node}"),
            Self::Operator { name, role, .. } => write!(f, "operator/{name}?role={role}"),
            Self::Source { source, .. } => write!(f, "source/{source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "0190c6a4-4c2b-7a10-8000-00000000000a";

    #[test]
    fn the_three_forms_are_read_and_printed_back() {
        for tail in [
            "node/0190c6a4-4c2b-7a10-8000-00000000000b",
            "operator/nguyen-van-a?role=operator",
            "operator/x?role=auditor",
            "source/tinh-01.mot-cua",
        ] {
            let uri = format!("dtm://cluster/{CLUSTER}/{tail}");
            assert_eq!(Identity::parse(&uri).map(|i| i.to_string()), Some(uri));
        }
    }

    #[test]
    fn anything_else_is_no_name() {
        for uri in [
            String::new(),
            format!("http://cluster/{CLUSTER}/source/a"),
            format!("dtm://cluster/{CLUSTER}/source/"),
            format!("dtm://cluster/{CLUSTER}/source/A"),
            format!("dtm://cluster/{CLUSTER}/source/a/b"),
            format!("dtm://cluster/{CLUSTER}/node/a"),
            format!("dtm://cluster/{CLUSTER}/operator/a"),
            format!("dtm://cluster/{CLUSTER}/operator/a?role=root"),
            format!("dtm://cluster/{CLUSTER}/operator/a?role=operator&x=1"),
            format!("dtm://cluster/{CLUSTER}/operator/a b?role=operator"),
            format!("dtm://cluster/{}/source/a", CLUSTER.to_uppercase()),
            format!("dtm://cluster/{{{CLUSTER}}}/source/a"),
            "dtm://cluster/x/source/a".into(),
        ] {
            assert_eq!(Identity::parse(&uri), None, "{uri}");
        }
    }
}
