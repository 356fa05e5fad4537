//! Ids as newtypes, so that one kind is never taken for another.

use std::fmt;
use std::sync::Arc;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the 16 bytes that a message carried; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(*uuid::Uuid::parse_str(text)?.as_bytes()))
            }
        }
    };
}

number_id! {
    /// A Raft group. 0 is `meta`; ingest groups count from 1.
    GroupId(u32)
}
number_id! {
    /// One replica of one group. Allocated by the group, never used again.
    ReplicaId(u64)
}
number_id! {
    /// Which life of the cluster: rises at a forced promotion or a restore.
    Incarnation(u64)
}
number_id! {
    /// One connection's right to write a stream; a higher one fences a lower one.
    SessionId(u64)
}

impl Incarnation {
    /// Replica ids of a life begin here, so that none is one of another life: a site that is cut off goes
    /// on giving out ids that the life after it does not know of.
    #[must_use]
    pub fn first_replica_id(self) -> u64 {
        self.0.saturating_mul(1 << 32)
    }
}

impl GroupId {
    /// The group that holds sources, data sets, operators, nodes and placement.
    pub const META: Self = Self(0);

    /// True for the group that holds no batches.
    pub fn is_meta(self) -> bool {
        self == Self::META
    }
}

uuid_id! {
    /// A cluster.
    ClusterId
}
uuid_id! {
    /// A node.
    NodeId
}
uuid_id! {
    /// One request, from the caller's door to its ledger leaf.
    RequestId
}
uuid_id! {
    /// A data key or a cluster key.
    KeyId
}
uuid_id! {
    /// A request for a second person's word.
    ApprovalId
}
uuid_id! {
    /// A backup.
    BackupId
}

/// A registered sending system's code: 1 to 64 of `a-z 0-9 . - _`, first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(Arc<str>);

impl SourceId {
    /// Longest code, bytes.
    pub const BYTES_MAX: usize = 64;

    /// Checks a code; `None` where a character or the length is not allowed.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        let bytes = text.as_bytes();
        let first = *bytes.first()?;
        let fine = bytes.len() <= Self::BYTES_MAX
            && (first.is_ascii_lowercase() || first.is_ascii_digit())
            && bytes.iter().all(|&b| allowed(b));
        fine.then(|| Self(text.into()))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stream of a source. Names: 1 to 128 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The source.
    pub source: SourceId,
    /// The stream's name.
    pub stream: Arc<str>,
}

impl StreamKey {
    /// Longest stream name, bytes.
    pub const STREAM_BYTES_MAX: usize = 128;
    /// Highest sequence of a stream: what every JSON reader keeps exactly (2^53 - 1). A command that
    /// names a higher one is refused, so that what follows a sequence can always be counted.
    pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;

    /// Checks both names; `None` where one is not allowed.
    pub fn parse(source: &str, stream: &str) -> Option<Self> {
        let source = SourceId::parse(source)?;
        let fine = (1..=Self::STREAM_BYTES_MAX).contains(&stream.len())
            && !stream.chars().any(char::is_control);
        fine.then(|| Self { source, stream: stream.into() })
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_codes_are_checked() {
        assert!(SourceId::parse("tinh-01.he-thong_2").is_some());
        for bad in ["", "-a", "A", "a b", "đ", "a/b", &"x".repeat(65)] {
            assert!(SourceId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn stream_names_are_checked() {
        assert!(StreamKey::parse("a", "hồ sơ/2026").is_some());
        for bad in ["", "a\nb", "a\0", &"x".repeat(129)] {
            assert!(StreamKey::parse("a", bad).is_none(), "{bad:?}");
        }
    }
}
