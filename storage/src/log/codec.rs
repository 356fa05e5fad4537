//! Reading fixed little-endian fields from stored bytes, with a bound on every count.

use bytes::Bytes;

use super::types::LogPosition;

/// A cursor over stored bytes. Every read says `None` at the end instead of panicking.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(part)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|part| part[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|part| u32::from_le_bytes(part.try_into().expect("4 bytes")))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|part| u64::from_le_bytes(part.try_into().expect("8 bytes")))
    }

    pub(super) fn blob(&mut self) -> Option<Bytes> {
        let count = self.u32()? as usize;
        self.take(count).map(Bytes::copy_from_slice)
    }

    pub(super) fn position(&mut self) -> Option<LogPosition> {
        Some(LogPosition { index: self.u64()?, term: self.u64()?, leader: self.u64()? })
    }

    /// An optional value behind one byte, 0 or 1.
    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => Some(Some(read(self)?)),
            _ => None,
        }
    }

    /// A list behind its count; the count cannot promise more than the bytes that are left.
    pub(super) fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()? as usize;
        if count > self.bytes.len() - self.at {
            return None;
        }
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(read(self)?);
        }
        Some(all)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

pub(super) fn put_blob(out: &mut Vec<u8>, blob: &[u8]) {
    let count = u32::try_from(blob.len()).expect("votes and positions are small");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(blob);
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).expect("bounded lists").to_le_bytes());
}

pub(super) fn put_words(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

pub(super) fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    put_words(out, &[position.index, position.term, position.leader]);
}

pub(super) fn put_option<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    put: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put(out, value);
        }
    }
}
