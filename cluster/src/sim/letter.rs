//! What replicas of a simulation send each other, in the messages of `dtm.cluster.v1`.

use bytes::{BufMut, Bytes, BytesMut};
use dtm_proto::cluster as wire;
use prost::Message;

/// A request.
pub(super) enum Letter {
    Append(wire::AppendRequest),
    Vote(wire::VoteRequest),
    Transfer(wire::TransferLeaderRequest),
    /// Manifest, rows, then all bundles through it.
    Snapshot(Vec<wire::SnapshotChunk>),
    /// Bundles that the asker lacks.
    Lacking(wire::EntriesRequest),
}

/// Kinds, for whoever carries them.
pub(super) const KINDS: [&str; 5] = ["append", "vote", "transfer", "snapshot", "lacking"];

impl Letter {
    pub(super) fn seal(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Append(message) => put(&mut out, 0, message),
            Self::Vote(message) => put(&mut out, 1, message),
            Self::Transfer(message) => put(&mut out, 2, message),
            Self::Snapshot(chunks) => {
                out.put_u8(3);
                for chunk in chunks {
                    chunk.encode_length_delimited(&mut out).expect("a buffer grows");
                }
            }
            Self::Lacking(message) => put(&mut out, 4, message),
        }
        out.freeze()
    }

    pub(super) fn open(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.split_to(1)[0];
        Some(match kind {
            0 => Self::Append(wire::AppendRequest::decode(bytes).ok()?),
            1 => Self::Vote(wire::VoteRequest::decode(bytes).ok()?),
            2 => Self::Transfer(wire::TransferLeaderRequest::decode(bytes).ok()?),
            3 => {
                let mut chunks = Vec::new();
                while !bytes.is_empty() {
                    chunks.push(wire::SnapshotChunk::decode_length_delimited(&mut bytes).ok()?);
                }
                Self::Snapshot(chunks)
            }
            4 => Self::Lacking(wire::EntriesRequest::decode(bytes).ok()?),
            _ => return None,
        })
    }
}

fn put(out: &mut BytesMut, kind: u8, message: &impl Message) {
    out.put_u8(kind);
    message.encode(out).expect("a buffer grows");
}
