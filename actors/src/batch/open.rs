//! Opens a sealed batch again: for reading back, and only there.

use bytes::Bytes;
use dtm_seal::BatchCipher;
use dtm_types::format::{EntryBody, HeaderA, HeaderB, SealedBody, SealedRecord, Suite};
use prost::Message;

/// Largest plaintext that opening will make room for, bytes: twice the largest batch.
const PLAIN_BYTES_MAX: u64 = 64 << 20;

/// A batch in clear.
pub struct OpenedBatch {
    /// Part A of its header.
    pub header: HeaderA,
    /// The records, in sequence order.
    pub records: Vec<SealedRecord>,
}

/// Checks the tag, which covers part A and the ciphertext, then decrypts and decompresses. The
/// ciphertext digest of part B is for those without the key; it is not computed again here.
///
/// # Errors
/// In words: what does not fit. Nothing of the content is returned then.
pub fn open_batch(body: &EntryBody, cipher: &dyn BatchCipher) -> Result<OpenedBatch, String> {
    let header = HeaderA::decode(body.header_a.clone())
        .map_err(|e| format!("part A does not decode: {e}"))?;
    let part_b = HeaderB::decode(body.header_b.clone())
        .map_err(|e| format!("part B does not decode: {e}"))?;
    let nonce =
        header.nonce.as_ref().try_into().map_err(|_| "nonce is not 24 bytes long".to_owned())?;
    let tag = part_b.tag.as_ref().try_into().map_err(|_| "tag is not 16 bytes long".to_owned())?;
    if header.plain_bytes > PLAIN_BYTES_MAX {
        return Err(format!("plain size {} is beyond {PLAIN_BYTES_MAX}", header.plain_bytes));
    }
    let mut text = body.sealed.to_vec();
    cipher.open_batch(&nonce, &body.header_a, &mut text, &tag).map_err(|e| e.to_string())?;
    let plain = match header.suite() {
        Suite::Xaes256gcm => text,
        Suite::Xaes256gcmLz4 => {
            let bytes = usize::try_from(header.plain_bytes).map_err(|e| e.to_string())?;
            lz4_flex::block::decompress(&text, bytes)
                .map_err(|e| format!("does not decompress: {e}"))?
        }
        Suite::Unspecified => return Err("unknown suite".to_owned()),
    };
    let opened = SealedBody::decode(Bytes::from(plain))
        .map_err(|e| format!("records do not decode: {e}"))?;
    if opened.records.len() != header.count as usize {
        return Err(format!(
            "{} records where the header says {}",
            opened.records.len(),
            header.count
        ));
    }
    Ok(OpenedBatch { header, records: opened.records })
}
