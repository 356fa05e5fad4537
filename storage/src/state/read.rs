//! Scans, the same over the live rows and over a frozen view.

use bytes::Bytes;
use dtm_types::GroupId;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use super::engine::Engine;
use super::error::Error;
use super::keys;

/// Rows of one generation of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) group: GroupId,
    pub(super) generation: u32,
}

type Rows = Vec<(Bytes, Bytes)>;
type RawIterator<'a> = DBRawIteratorWithThreadMode<'a, DB>;

impl Place {
    /// The engine key of a row.
    pub(super) fn key(self, key: &[u8]) -> Vec<u8> {
        keys::row(self.group, self.generation, key)
    }

    /// Rows with `from <= key < to`, ascending, at most `limit`, of keys and values at most
    /// `bytes_max` unless the first row alone is larger.
    pub(super) fn scan<'a>(
        self,
        engine: &Engine,
        iterator: impl FnOnce(ReadOptions) -> RawIterator<'a>,
        range: (&[u8], &[u8]),
        (limit, bytes_max): (usize, usize),
    ) -> Result<Rows, Error> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        if range.0 >= range.1 {
            return Ok(rows);
        }
        let mut cursor = iterator(engine.scan_options(self.key(range.0), self.key(range.1)));
        cursor.seek_to_first();
        while rows.len() < limit {
            let Some(row) = cursor.item() else { break };
            bytes += row.0.len().saturating_sub(keys::PREFIX_BYTES) + row.1.len();
            if bytes > bytes_max && !rows.is_empty() {
                break;
            }
            rows.push(strip(row));
            cursor.next();
        }
        cursor.status().map_err(|e| Error::engine(&e))?;
        Ok(rows)
    }

    /// Whether the generation has no row at all.
    pub(super) fn is_empty(self, engine: &Engine) -> Result<bool, Error> {
        let behind = keys::behind(self.group, self.generation);
        let mut cursor = engine.db.raw_iterator_opt(engine.scan_options(self.key(&[]), behind));
        cursor.seek_to_first();
        cursor.status().map_err(|e| Error::engine(&e))?;
        Ok(!cursor.valid())
    }

    /// The last row with `from <= key < to`.
    pub(super) fn last<'a>(
        self,
        engine: &Engine,
        iterator: impl FnOnce(ReadOptions) -> RawIterator<'a>,
        range: (&[u8], &[u8]),
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        if range.0 >= range.1 {
            return Ok(None);
        }
        let mut cursor = iterator(engine.scan_options(self.key(range.0), self.key(range.1)));
        cursor.seek_to_last();
        let row = cursor.item().map(strip);
        cursor.status().map_err(|e| Error::engine(&e))?;
        Ok(row)
    }
}

fn strip((key, value): (&[u8], &[u8])) -> (Bytes, Bytes) {
    assert!(key.len() >= keys::PREFIX_BYTES, "the scan's bounds carry the prefix");
    (Bytes::copy_from_slice(&key[keys::PREFIX_BYTES..]), Bytes::copy_from_slice(value))
}
