//! Hot path: records are encoded once, when they are taken, and lie ready for the wire.
//!
//! A frame is the encoded `records` field of `dtm.ingest.v1.Frame`: what is kept for a resend is
//! what is sent, so that a resend costs nothing and is the same bytes.
//!
//! ```text
//!  0x12 len record  0x12 len record  …      (field 2, length-delimited, repeated)
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dtm_proto::ingest::Record;
use prost::Message;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

/// Key of `Frame.records` and of `PublishRequest.frame`: field 2, length-delimited.
const FIELD_2: u8 = 0x12;
/// Key of `Frame.first_sequence`: field 1, varint.
const FIELD_1: u8 = 0x08;

/// How much of a frame goes out at once; at least one record does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartMax {
    /// Bytes of the encoded records.
    pub(crate) bytes: usize,
    /// Records.
    pub(crate) records: u64,
}

/// Records with consecutive sequences, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    first: u64,
    count: u32,
    bytes: Bytes,
}

impl EncodedFrame {
    /// First sequence.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first
    }

    /// Last sequence.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    /// Number of records, at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the records as they are sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The same records under other sequences: for load generators that send one frame again.
    #[must_use]
    pub fn renumbered(&self, first: u64) -> Self {
        Self { first, ..self.clone() }
    }

    /// The records, decoded.
    ///
    /// # Errors
    /// A frame that came from a damaged place.
    pub fn records(&self) -> Result<Vec<Record>, prost::DecodeError> {
        let mut rest = self.bytes.clone();
        let mut records = Vec::with_capacity(self.count as usize);
        while rest.has_remaining() {
            records.push(Record::decode(cut_record(&mut rest)?)?);
        }
        Ok(records)
    }

    /// Takes raw bytes back, for instance from a spool; `None` where they are no frame.
    pub(crate) fn from_parts(first: u64, count: u32, bytes: Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        let mut found = 0u32;
        while rest.has_remaining() {
            cut_record(&mut rest).ok()?;
            found += 1;
        }
        (found == count && count > 0 && first > 0).then_some(Self { first, count, bytes })
    }

    pub(crate) fn raw(&self) -> &Bytes {
        &self.bytes
    }

    /// The part from `sequence` on, of at most `max` but at least one record; `None` where the frame
    /// does not hold the sequence.
    pub(crate) fn part(&self, sequence: u64, max: PartMax) -> Option<Self> {
        if sequence < self.first || sequence > self.last_sequence() {
            return None;
        }
        let is_within = self.bytes.len() <= max.bytes && u64::from(self.count) <= max.records;
        if sequence == self.first && is_within {
            return Some(self.clone());
        }
        let mut rest = self.bytes.clone();
        for _ in self.first..sequence {
            cut_record(&mut rest).expect("the frame was made or checked by this module");
        }
        let part = rest.clone();
        let (mut count, mut end) = (0u32, 0usize);
        while rest.has_remaining() {
            cut_record(&mut rest).expect("the frame was made or checked by this module");
            let after = part.len() - rest.len();
            if count > 0 && (after > max.bytes || u64::from(count) >= max.records) {
                break;
            }
            (count, end) = (count + 1, after);
        }
        Some(Self { first: sequence, count, bytes: part.slice(..end) })
    }

    /// Bytes of the whole `PublishRequest`.
    pub(crate) fn wire_bytes(&self) -> usize {
        let frame = self.frame_bytes();
        1 + encoded_len_varint(frame as u64) + frame
    }

    fn frame_bytes(&self) -> usize {
        1 + encoded_len_varint(self.first) + self.bytes.len()
    }

    /// Writes the `PublishRequest` that carries this frame.
    pub(crate) fn encode_request(&self, out: &mut impl BufMut) {
        out.put_u8(FIELD_2);
        encode_varint(self.frame_bytes() as u64, out);
        out.put_u8(FIELD_1);
        encode_varint(self.first, out);
        out.put_slice(&self.bytes);
    }
}

/// Cuts one record off the front.
fn cut_record(rest: &mut Bytes) -> Result<Bytes, prost::DecodeError> {
    // `decode_varint` reports every other damage; the key is checked through it too.
    let key = decode_varint(rest)?;
    let length = decode_varint(rest)?;
    if key != u64::from(FIELD_2) || length > rest.remaining() as u64 {
        // The only public way to make a DecodeError: fail to decode one.
        return decode_varint(&mut Bytes::new()).map(|_| Bytes::new());
    }
    Ok(rest.split_to(length as usize))
}

/// Collects records into a frame.
#[derive(Debug)]
pub struct FrameBuilder {
    first: u64,
    count: u32,
    bytes: BytesMut,
}

impl FrameBuilder {
    /// A frame that will start at `first`.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { first, count: 0, bytes: BytesMut::new() }
    }

    /// Adds a record and says its sequence.
    pub fn push(&mut self, record: &Record) -> u64 {
        let length = record.encoded_len();
        self.bytes.reserve(1 + encoded_len_varint(length as u64) + length);
        self.bytes.put_u8(FIELD_2);
        encode_varint(length as u64, &mut self.bytes);
        record.encode_raw(&mut self.bytes);
        self.count += 1;
        self.first + u64::from(self.count) - 1
    }

    /// Number of records so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The frame, if it holds a record; the builder goes on after it.
    pub fn finish(&mut self) -> Option<EncodedFrame> {
        if self.count == 0 {
            return None;
        }
        let frame = EncodedFrame {
            first: self.first,
            count: self.count,
            bytes: self.bytes.split().freeze(),
        };
        self.first += u64::from(self.count);
        self.count = 0;
        Some(frame)
    }
}

/// Bytes that a record takes in a frame.
pub(crate) fn record_bytes(record: &Record) -> usize {
    let length = record.encoded_len();
    1 + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtm_proto::ingest::{PublishRequest, publish_request::Request};
    use proptest::prelude::*;

    fn record(size: usize) -> Record {
        Record {
            payload: vec![b'x'; size].into(),
            message_id: size.to_string(),
            ..Record::default()
        }
    }

    proptest! {
        /// What we write by hand is what prost reads.
        #[test]
        fn a_frame_is_the_request_that_prost_knows(
            first in 1u64..u64::MAX / 2,
            sizes in prop::collection::vec(0usize..400, 1..30),
        ) {
            let mut builder = FrameBuilder::new(first);
            for size in &sizes {
                builder.push(&record(*size));
            }
            let frame = builder.finish().expect("records");
            let mut wire = BytesMut::new();
            frame.encode_request(&mut wire);
            prop_assert_eq!(wire.len(), frame.wire_bytes());
            let Some(Request::Frame(read)) = PublishRequest::decode(wire.freeze())?.request else {
                panic!("no frame");
            };
            prop_assert_eq!(read.first_sequence, first);
            prop_assert_eq!(&read.records, &frame.records()?);
            prop_assert_eq!(read.records, sizes.iter().map(|s| record(*s)).collect::<Vec<_>>());
        }

        /// Parts hold the same records under the same sequences, whatever the limit.
        #[test]
        fn parts_renumber_nothing(
            sizes in prop::collection::vec(0usize..400, 1..30),
            bytes in 1usize..2000,
            records in 1u64..40,
        ) {
            let mut builder = FrameBuilder::new(5);
            for size in &sizes {
                builder.push(&record(*size));
            }
            let frame = builder.finish().expect("records");
            let all = frame.records()?;
            let mut next = 5;
            while let Some(part) = frame.part(next, PartMax { bytes, records }) {
                prop_assert!(part.bytes() <= bytes || part.count() == 1);
                prop_assert!(u64::from(part.count()) <= records);
                prop_assert_eq!(part.first_sequence(), next);
                let from = (next - 5) as usize;
                prop_assert_eq!(part.records()?, all[from..from + part.count() as usize].to_vec());
                next = part.last_sequence() + 1;
            }
            prop_assert_eq!(next, frame.last_sequence() + 1);
        }
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused() {
        let mut builder = FrameBuilder::new(1);
        builder.push(&record(10));
        let frame = builder.finish().expect("a record");
        let raw = frame.raw().clone();
        assert_eq!(EncodedFrame::from_parts(1, 1, raw.clone()), Some(frame));
        assert!(EncodedFrame::from_parts(1, 2, raw.clone()).is_none());
        for end in 0..raw.len() {
            assert!(EncodedFrame::from_parts(1, 1, raw.slice(..end)).is_none());
        }
    }
}
