//! One block of a spool file.
//!
//! ```text
//!  0   4  magic "DTMb"             24  24  nonce
//!  4   4  length of the sealed     48  16  tag
//!  8   8  first sequence           64   4  CRC32C of the sealed bytes
//!  16  4  records                  68   4  CRC32C of bytes 0..68
//!  20  4  bytes of the mark        72   …  sealed: mark, records
//! ```
//! Numbers are little-endian. The seal covers bytes 0..24 and the id of the spool.

use super::Error;
use bytes::Bytes;
use dtm_seal::{BatchCipher, Xaes256Gcm};

pub(crate) const HEAD_BYTES: usize = 72;
pub(crate) const MAGIC: &[u8; 4] = b"DTMb";
const AAD_BYTES: usize = 24;

/// What a block says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHead {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) mark_bytes: u32,
}

/// A head that was read, with what is needed to open the block.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) head: BlockHead,
    pub(crate) sealed_bytes: usize,
    body_crc: u32,
}

/// Seals and opens the blocks of one spool.
pub(crate) struct Sealer {
    cipher: Xaes256Gcm,
    id: [u8; 16],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    pub(crate) fn new(key: &[u8; 32], id: &[u8; 16]) -> Self {
        Self { cipher: Xaes256Gcm::new(key), id: *id }
    }

    fn associated(&self, head: &[u8]) -> [u8; AAD_BYTES + 16] {
        let mut data = [0u8; AAD_BYTES + 16];
        data[..AAD_BYTES].copy_from_slice(&head[..AAD_BYTES]);
        data[AAD_BYTES..].copy_from_slice(&self.id);
        data
    }

    /// The bytes of a block.
    pub(crate) fn seal(
        &self,
        head: BlockHead,
        mark: &[u8],
        records: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let mut nonce = [0u8; 24];
        getrandom::fill(&mut nonce).map_err(|e| Error::Stopped { reason: e.to_string() })?;
        self.seal_under(nonce, head, mark, records)
    }

    fn seal_under(
        &self,
        nonce: [u8; 24],
        head: BlockHead,
        mark: &[u8],
        records: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let sealed_bytes = mark.len() + records.len();
        let too_long = || Error::TooLong { bytes: sealed_bytes as u64 };
        let length = u32::try_from(sealed_bytes).map_err(|_| too_long())?;
        let mut block = Vec::with_capacity(HEAD_BYTES + sealed_bytes);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&head.first.to_le_bytes());
        block.extend_from_slice(&head.count.to_le_bytes());
        block.extend_from_slice(&head.mark_bytes.to_le_bytes());
        block.extend_from_slice(&nonce);
        block.resize(HEAD_BYTES, 0);
        block.extend_from_slice(mark);
        block.extend_from_slice(records);
        let associated = self.associated(&block);
        let tag = self
            .cipher
            .seal_batch(&nonce, &associated, &mut block[HEAD_BYTES..])
            .map_err(|_| too_long())?;
        block[48..64].copy_from_slice(&tag);
        let body_crc = crc32c::crc32c(&block[HEAD_BYTES..]);
        block[64..68].copy_from_slice(&body_crc.to_le_bytes());
        let head_crc = crc32c::crc32c(&block[..68]);
        block[68..72].copy_from_slice(&head_crc.to_le_bytes());
        Ok(block)
    }

    /// Opens a whole block into mark and records; `None` where it is not what was sealed.
    pub(crate) fn open(&self, block: &[u8]) -> Option<(BlockHead, Bytes, Bytes)> {
        let found = read_head(block)?;
        if !found.whole(block) {
            return None;
        }
        let nonce = block[24..48].try_into().ok()?;
        let tag = block[48..64].try_into().ok()?;
        let associated = self.associated(block);
        let mut text = block[HEAD_BYTES..HEAD_BYTES + found.sealed_bytes].to_vec();
        self.cipher.open_batch(&nonce, &associated, &mut text, &tag).ok()?;
        let mut text = Bytes::from(text);
        let mark_bytes = found.head.mark_bytes as usize;
        if mark_bytes > text.len() {
            return None;
        }
        let mark = text.split_to(mark_bytes);
        Some((found.head, mark, text))
    }
}

impl Found {
    /// Bytes of the whole block.
    pub(crate) fn block_bytes(&self) -> usize {
        HEAD_BYTES + self.sealed_bytes
    }

    /// Whether `block` holds all of the block, undamaged.
    pub(crate) fn whole(&self, block: &[u8]) -> bool {
        block
            .get(HEAD_BYTES..self.block_bytes())
            .is_some_and(|body| crc32c::crc32c(body) == self.body_crc)
    }
}

/// The head at the start of `bytes`; `None` where there is no undamaged one.
pub(crate) fn read_head(bytes: &[u8]) -> Option<Found> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    if &head[..4] != MAGIC || crc32c::crc32c(&head[..68]) != word(68) {
        return None;
    }
    Some(Found {
        head: BlockHead {
            first: u64::from_le_bytes(head[8..16].try_into().expect("8 bytes")),
            count: word(16),
            mark_bytes: word(20),
        },
        sealed_bytes: word(4) as usize,
        body_crc: word(64),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dtm_proto::ingest::{Ack, Record};
    use dtm_types::format::Envelope;
    use prost::Message;

    use super::*;
    use crate::FrameBuilder;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/v1");
    const MARK: &[u8] = b"[]";

    /// What the file of this name holds; written from `made` where that is asked for, after which
    /// the test calls [`nothing_was_written`].
    fn golden(name: &str, made: &[u8]) -> Vec<u8> {
        let path = Path::new(GOLDEN).join(name);
        if std::env::var_os("DTM_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, made).expect("written");
        }
        std::fs::read(path).expect("the golden file is committed")
    }

    /// What was only written proves nothing.
    fn nothing_was_written() {
        let asked = std::env::var_os("DTM_WRITE_GOLDEN");
        assert!(asked.is_none(), "written: run again without DTM_WRITE_GOLDEN");
    }

    fn records() -> Vec<Record> {
        let envelope = Envelope { channel: "b".into(), ..Envelope::default() };
        let first = Record {
            payload: Bytes::from_static(b"{\"n\":1}"),
            message_id: "M-1".into(),
            event_time_us: 3,
            security_status: 2,
            priority: 1,
            envelope: Some(Box::new(envelope)),
            salt: Bytes::from_static(&[7; 16]),
            blobs: vec![Bytes::from_static(&[8; 32])],
        };
        let second = Record { payload: Bytes::from_static(b"{}"), ..Record::default() };
        vec![first, second]
    }

    #[test]
    fn a_block_of_version_1_is_written_the_same_and_opens_for_ever() {
        let mut builder = FrameBuilder::new(258);
        for record in &records() {
            builder.push(record);
        }
        let frame = builder.finish().expect("two records");
        let sealer = Sealer::new(&[1; 32], &[2; 16]);
        let head = BlockHead { first: 258, count: 2, mark_bytes: MARK.len() as u32 };
        let made = sealer.seal_under([3; 24], head, MARK, frame.raw()).expect("short");
        let kept = golden("spool-block.bin", &made);
        assert!(made == kept, "the format changed: that needs a new version");
        let (found, mark, kept_records) = sealer.open(&kept).expect("opens");
        assert_eq!((found, &*mark), (head, MARK));
        let read = crate::EncodedFrame::from_parts(258, 2, kept_records).expect("a frame");
        assert_eq!(read.records().expect("records"), records());
        nothing_was_written();
    }

    #[test]
    fn what_is_noted_of_an_ack_reads_for_ever() {
        let ack = Ack {
            acked_through: 100,
            site_through: 2,
            group: 3,
            offset: 400,
            leaf_index: 50,
            incarnation: 6,
            token: Bytes::from_static(&[7; 16]),
            tree_head: Bytes::from_static(&[8; 9]),
            duplicates: 9,
            unverified: 10,
            // Not noted.
            site_copies: false,
            only_site: false,
        };
        let made = ack.encode_to_vec();
        let kept = golden("spool-acked.bin", &made);
        assert!(made == kept, "the format changed: that needs a new version");
        assert_eq!(Ack::decode(&*kept), Ok(ack));
        nothing_was_written();
    }
}
