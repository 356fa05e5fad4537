//! Reads the requests of a `Publish` stream. Hot path.
//!
//! What a request takes in memory goes by how many things it holds, not by its bytes: an empty
//! record is two bytes on the wire and over a hundred in memory. So what is listed is counted before
//! any of it is built.

use std::sync::Arc;

use bytes::Buf;
use dtm_proto::ingest::publish_request::Request as Asked;
use dtm_proto::ingest::{PublishRequest, PublishResponse};
use dtm_types::ErrorCode;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use crate::status::{status, status_with};

/// What prost does for this stream where nothing is said otherwise.
type Answers = ProstCodec<PublishResponse, PublishRequest>;

/// A request as it came.
pub(crate) struct Inbound {
    /// What is asked; none = something that this version does not know.
    pub asked: Option<Asked>,
    /// Bytes of the request: what its client counts for a frame.
    pub bytes: usize,
}

/// A frame holds more than `limits.frame_records_max`: the source of the status that says so.
#[derive(Debug, thiserror::Error)]
#[error("frame_records_max = {max} exceeded by {found}")]
pub(crate) struct HoldsTooMuch {
    max: u64,
    /// How many were counted; nobody counted the rest.
    pub found: u64,
}

/// Answers as prost writes them, requests by [`PublishDecoder`].
#[derive(Clone, Copy)]
pub(crate) struct PublishCodec {
    pub frame_records_max: u64,
}

/// Refuses what holds too much before it is built.
pub(crate) struct PublishDecoder {
    frame_records_max: u64,
}

impl Codec for PublishCodec {
    type Encode = PublishResponse;
    type Decode = Inbound;
    type Encoder = <Answers as Codec>::Encoder;
    type Decoder = PublishDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        Answers::default().encoder()
    }

    fn decoder(&mut self) -> PublishDecoder {
        PublishDecoder { frame_records_max: self.frame_records_max }
    }
}

impl Decoder for PublishDecoder {
    type Item = Inbound;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Inbound>, Status> {
        let bytes = from.remaining();
        let whole = from.chunk();
        assert_eq!(whole.len(), bytes, "tonic hands over one piece");
        count(whole, self.frame_records_max).map_err(refusal)?;
        let request = PublishRequest::decode(from)
            .map_err(|e| status(ErrorCode::InvalidArgument, format!("a request, unread: {e}")))?;
        Ok(Some(Inbound { asked: request.request, bytes }))
    }
}

fn refusal(error: HoldsTooMuch) -> Status {
    let values = [("limit", "frame_records_max".to_owned()), ("value", error.max.to_string())];
    let mut status = status_with(ErrorCode::TooLarge, &error, &values);
    status.set_source(Arc::new(error));
    status
}

/// Counts records, and entries of the lists in them; each is at least a key and a length, so that
/// most requests are too short to be looked through.
fn count(request: &[u8], max: u64) -> Result<(), HoldsTooMuch> {
    if request.len() as u64 / 2 <= max {
        return Ok(());
    }
    let mut count = Count { records: 0, entries: 0, max };
    // Whatever is broken ends the decoder at the same place: it builds no more than was counted.
    let _ = count.walk(request, Level::Request);
    let found = count.records.max(count.entries);
    if found > max { Err(HoldsTooMuch { max, found }) } else { Ok(()) }
}

/// A message that lists something, or holds one that does.
#[derive(Clone, Copy)]
enum Level {
    Request,
    Frame,
    Record,
    Envelope,
}

struct Count {
    records: u64,
    entries: u64,
    max: u64,
}

impl Count {
    fn walk(&mut self, mut rest: &[u8], level: Level) -> Result<(), DecodeError> {
        while !rest.is_empty() && self.records <= self.max && self.entries <= self.max {
            let (field, wire_type) = decode_key(&mut rest)?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, field, &mut rest, DecodeContext::default())?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
            let Some((inner, after)) = rest.split_at_checked(length) else { return Ok(()) };
            rest = after;
            match (level, field) {
                (Level::Request, 2) => self.walk(inner, Level::Frame)?,
                (Level::Frame, 2) => {
                    self.records += 1;
                    self.walk(inner, Level::Record)?;
                }
                (Level::Record, 6) => self.walk(inner, Level::Envelope)?,
                // Blobs; masked pointers, warnings and hops; hops of the frame.
                (Level::Record, 8) | (Level::Envelope, 16 | 17 | 21) | (Level::Frame, 14) => {
                    self.entries += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
