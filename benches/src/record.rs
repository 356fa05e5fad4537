//! The records that every arm carries: JSON of one data set, the same bytes for the same
//! (seed, source, sequence, size) on every arm and in every run.
//!
//! Shape (`bench_progress`, a cut of `dossier_progress` that fits into 256 bytes; canonical,
//! members sorted):
//!
//! ```text
//! {"dossier_code":"H57.YYY.ZZ-260125-22NNNNNNN","dossier_state":"03","note":"…",
//!  "processed_at":"2026-01-25T08:MM:SS+07:00","processing_content":"<random base64>"}
//! ```
//!
//! `YYYZZ` is the source, `NNNNNNN` is 1,000,000 + the sequence, so a record read back from a
//! node says by itself which one it is. Half of the bytes are random base64; `note` fills the
//! rest and is absent where 256 bytes leave no room for it.

use base64::Engine as _;
use rand::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

const POOL_BYTES: usize = 4 << 20;
const SEQUENCE_BASE: u64 = 1_000_000;
const HEAD: &[u8] = b"{\"dossier_code\":\"H57.";
const STATE: &[u8] = b"\",\"dossier_state\":\"03\",";
const NOTE_OPEN: &[u8] = b"\"note\":\"";
const NOTE_CLOSE: &[u8] = b"\",";
const WHEN: &[u8] = b"\"processed_at\":\"2026-01-25T08:";
const CONTENT: &[u8] = b"+07:00\",\"processing_content\":\"";
const TAIL: &[u8] = b"\"}";
const FILLER: &[u8] = b"chuyen ho so den bo phan tham dinh theo quy trinh, cho y kien lanh dao; ";
const CODE_BYTES: usize = "YYY.ZZ-260125-22NNNNNNN".len();
const CLOCK_BYTES: usize = "MM:SS".len();

/// Most sources that the dossier code has room for.
pub const SOURCES_MAX: u32 = 100_000;
/// Highest sequence that fits the fixed width of the dossier code.
pub const SEQUENCE_MAX: u64 = 8_999_999;
/// Smallest record: the members without filler and with a little random content.
pub const RECORD_BYTES_MIN: usize = 192;

/// Writes records of one size. Shared by all sources of a run; never changes.
#[derive(Debug)]
pub struct Records {
    record_bytes: usize,
    random_bytes: usize,
    note: Vec<u8>,
    pool: Vec<u8>,
}

impl Records {
    /// Records of exactly `record_bytes` bytes each, from `seed`.
    ///
    /// # Panics
    /// When `record_bytes` is below [`RECORD_BYTES_MIN`] or above 1 MiB.
    pub fn new(record_bytes: usize, seed: u64) -> Self {
        assert!((RECORD_BYTES_MIN..=1 << 20).contains(&record_bytes), "record size {record_bytes}");
        let mut raw = vec![0_u8; POOL_BYTES / 4 * 3];
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut raw);
        let pool = base64::engine::general_purpose::STANDARD_NO_PAD.encode(raw).into_bytes();
        let fixed = HEAD.len()
            + CODE_BYTES
            + STATE.len()
            + WHEN.len()
            + CLOCK_BYTES
            + CONTENT.len()
            + TAIL.len();
        let free = record_bytes - fixed;
        let frame = NOTE_OPEN.len() + NOTE_CLOSE.len();
        let half = record_bytes / 2;
        let (random_bytes, note) = if free > half + frame {
            let text = free - half - frame;
            let mut note = NOTE_OPEN.to_vec();
            note.extend(FILLER.iter().cycle().take(text));
            note.extend_from_slice(NOTE_CLOSE);
            (half, note)
        } else {
            (free, Vec::new())
        };
        Self { record_bytes, random_bytes, note, pool }
    }

    /// Bytes of each record.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Appends the record `sequence` (from 1) of `source` to `out`.
    ///
    /// # Panics
    /// When the source or the sequence does not fit the dossier code.
    pub fn write(&self, source: u32, sequence: u64, out: &mut Vec<u8>) {
        assert!(source < SOURCES_MAX, "source {source}");
        assert!((1..=SEQUENCE_MAX).contains(&sequence), "sequence {sequence}");
        let before = out.len();
        out.extend_from_slice(HEAD);
        digits(out, u64::from(source / 100), 3);
        out.push(b'.');
        digits(out, u64::from(source % 100), 2);
        out.extend_from_slice(b"-260125-22");
        digits(out, SEQUENCE_BASE + sequence, 7);
        out.extend_from_slice(STATE);
        out.extend_from_slice(&self.note);
        out.extend_from_slice(WHEN);
        digits(out, sequence / 60 % 60, 2);
        out.push(b':');
        digits(out, sequence % 60, 2);
        out.extend_from_slice(CONTENT);
        out.extend_from_slice(self.random(source, sequence));
        out.extend_from_slice(TAIL);
        assert_eq!(out.len() - before, self.record_bytes, "a record has the agreed size");
    }

    /// Which record these bytes are: `(source, sequence)`, or `None` when they are not, byte for
    /// byte, one that [`Records::write`] makes.
    pub fn identify(&self, payload: &[u8]) -> Option<(u32, u64)> {
        if payload.len() != self.record_bytes || !payload.starts_with(HEAD) {
            return None;
        }
        let code = &payload[HEAD.len()..HEAD.len() + CODE_BYTES];
        let source = number(&code[0..3])? * 100 + number(&code[4..6])?;
        let sequence = number(&code[16..23])?.checked_sub(SEQUENCE_BASE)?;
        if !(1..=SEQUENCE_MAX).contains(&sequence) {
            return None;
        }
        let source = u32::try_from(source).ok()?;
        let random_at = self.record_bytes - TAIL.len() - self.random_bytes;
        let same = payload[random_at..].starts_with(self.random(source, sequence));
        same.then_some((source, sequence))
    }

    /// Whether `digest` is the SHA-256 of the record that [`Records::write`] makes; `text` is room
    /// for that record. False for a source or a sequence that no record has.
    pub fn has_digest(
        &self,
        source: u32,
        sequence: u64,
        digest: &[u8],
        text: &mut Vec<u8>,
    ) -> bool {
        if source >= SOURCES_MAX || !(1..=SEQUENCE_MAX).contains(&sequence) {
            return false;
        }
        text.clear();
        self.write(source, sequence, text);
        Sha256::digest(text)[..] == *digest
    }

    fn random(&self, source: u32, sequence: u64) -> &[u8] {
        let places = (self.pool.len() - self.random_bytes) as u64;
        let at = (u64::from(source) * 104_729 + sequence * self.random_bytes as u64) % places;
        let at = usize::try_from(at).expect("below the pool's length");
        &self.pool[at..at + self.random_bytes]
    }
}

fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let at = out.len();
    out.resize(at + width, b'0');
    for place in (at..at + width).rev() {
        out[place] = b'0' + u8::try_from(value % 10).expect("a digit");
        value /= 10;
    }
}

fn number(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_their_size_and_say_who_they_are() {
        for size in [256, 1024, 16 * 1024] {
            let records = Records::new(size, 7);
            for (source, sequence) in [(0, 1), (499, 77), (99_999, SEQUENCE_MAX)] {
                let mut bytes = Vec::new();
                records.write(source, sequence, &mut bytes);
                assert_eq!(bytes.len(), size);
                let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
                assert_eq!(serde_json::to_vec(&value).expect("JSON"), bytes, "canonical");
                assert_eq!(records.identify(&bytes), Some((source, sequence)));
                let last = bytes.len() - 3;
                bytes[last] ^= 1;
                assert_eq!(records.identify(&bytes), None, "a changed byte is noticed");
            }
        }
    }

    #[test]
    fn half_of_a_record_is_random() {
        for (size, at_least) in [(256, 110), (1024, 512), (16 * 1024, 8192)] {
            assert!(Records::new(size, 1).random_bytes >= at_least);
        }
    }
}
