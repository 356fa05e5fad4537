//! Digests of rows by range, over a frozen view. Blocking: each call reads the disk.

use bytes::Bytes;
use dtm_machine::keys::table;
use dtm_machine::seams::{StateError, StateRead};
use sha2::{Digest, Sha256};

/// First key that is compared: all above the rows that each replica writes for itself.
pub const ROWS_FROM: &[u8] = &[table::RAFT + 1];
/// Above every key.
pub const ROWS_TO: &[u8] = &[0xff; 64];

/// Rows of one range, bytes.
pub(crate) const RANGE_BYTES: usize = 1 << 20;
/// Rows read in one scan.
const SCAN_ROWS: usize = 16_384;
/// Bytes read in one scan, unless a single row is larger.
const SCAN_BYTES: usize = 1 << 20;

/// Keys with `from <= key < to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first.
    pub from: Bytes,
    /// Above the last.
    pub to: Bytes,
}

/// Rows of a range. Two that are equal stand for the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeDigest {
    /// How many.
    pub rows: u64,
    /// SHA-256 over lengths, keys and values in order, and whether the range was read to its end.
    pub hash: [u8; 32],
}

/// The next range of a replica's own rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// It holds the rows that were read and nothing else here.
    pub range: KeyRange,
    /// Of them.
    pub digest: RangeDigest,
    /// Keys and values, bytes.
    pub bytes: u64,
    /// Nothing is above: the range ends with the rows.
    pub is_last: bool,
}

/// A row of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowHash {
    /// Its key.
    pub key: Bytes,
    /// SHA-256 of its value.
    pub hash: [u8; 32],
}

/// The first rows of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Ascending.
    pub rows: Vec<RowHash>,
    /// The range holds no more.
    pub is_whole: bool,
}

/// The next rows from a key on, about `bytes_max` bytes of them.
///
/// # Errors
/// Of the rows.
pub fn cut(state: &dyn StateRead, from: &[u8], bytes_max: usize) -> Result<Cut, StateError> {
    let rows = state.scan_within(from, ROWS_TO, SCAN_ROWS, bytes_max)?;
    let mut hashed = Hashed::default();
    rows.iter().for_each(|(key, value)| hashed.add(key, value));
    let to = rows.last().map_or_else(|| Bytes::from_static(ROWS_TO), |(last, _)| behind(last));
    let range = KeyRange { from: Bytes::copy_from_slice(from), to };
    let (bytes, is_last) = (hashed.bytes, rows.is_empty());
    Ok(Cut { range, digest: hashed.finish(true), bytes, is_last })
}

/// Of all rows of a range, read until they take more than `bytes_max`: a replica that holds far more
/// there than the one that cut the range differs whatever follows.
///
/// # Errors
/// Of the rows.
pub fn digest(
    state: &dyn StateRead,
    range: &KeyRange,
    bytes_max: u64,
) -> Result<RangeDigest, StateError> {
    let (mut hashed, mut from) = (Hashed::default(), range.from.clone());
    loop {
        let rows = state.scan_within(&from, &range.to, SCAN_ROWS, SCAN_BYTES)?;
        let Some((last, _)) = rows.last() else { return Ok(hashed.finish(true)) };
        from = behind(last);
        rows.iter().for_each(|(key, value)| hashed.add(key, value));
        if hashed.bytes > bytes_max {
            return Ok(hashed.finish(false));
        }
    }
}

/// The first rows of a range, at most `rows_max`.
///
/// # Errors
/// Of the rows.
pub fn list(state: &dyn StateRead, range: &KeyRange, rows_max: usize) -> Result<Page, StateError> {
    let rows = state.scan_within(&range.from, &range.to, rows_max.min(SCAN_ROWS), SCAN_BYTES)?;
    let Some((last, _)) = rows.last() else {
        return Ok(Page { is_whole: true, ..Page::default() });
    };
    let is_whole = state.scan(&behind(last), &range.to, 1)?.is_empty();
    let hashed =
        |(key, value): (Bytes, Bytes)| RowHash { key, hash: Sha256::digest(&value).into() };
    Ok(Page { rows: rows.into_iter().map(hashed).collect(), is_whole })
}

/// The lowest key above this one.
pub(crate) fn behind(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[derive(Default)]
struct Hashed {
    hash: Sha256,
    rows: u64,
    bytes: u64,
}

impl Hashed {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            let len = u32::try_from(part.len()).expect("rows are far below 4 GiB");
            self.hash.update(len.to_le_bytes());
            self.hash.update(part);
            self.bytes += u64::from(len);
        }
        self.rows += 1;
    }

    fn finish(mut self, is_whole: bool) -> RangeDigest {
        self.hash.update([u8::from(is_whole)]);
        RangeDigest { rows: self.rows, hash: self.hash.finalize().into() }
    }
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
    use dtm_types::GroupId;

    use super::*;

    fn store(rows: impl IntoIterator<Item = (u8, u8)>) -> MemoryStateStore {
        let store = MemoryStateStore::new(GroupId(1));
        let mut batch = StateBatch::default();
        rows.into_iter().for_each(|(key, value)| batch.put([0x10, key], vec![value; 10]));
        // What each replica writes for itself.
        batch.put([0x00, 0x02], b"a note".to_vec());
        store.write(&batch).expect("memory");
        store
    }

    #[test]
    fn ranges_cover_every_key_once_and_hold_the_same_on_equal_replicas() {
        let (one, other) = (store((0..100).map(|at| (at, at))), store((0..100).map(|at| (at, at))));
        let (mut from, mut rows, mut ends) = (Bytes::from_static(ROWS_FROM), 0, vec![]);
        loop {
            let cut = cut(&one, &from, 120).expect("memory");
            assert_eq!(cut.range.from, from, "no hole");
            assert_eq!(digest(&other, &cut.range, 1 << 20).expect("memory"), cut.digest);
            rows += cut.digest.rows;
            ends.push(cut.range.to.clone());
            from = cut.range.to;
            if cut.is_last {
                break;
            }
        }
        assert_eq!((rows, from), (100, Bytes::from_static(ROWS_TO)), "the note is not among them");
        assert!(ends.len() > 9 && ends.is_sorted());
    }

    #[test]
    fn a_digest_tells_values_keys_and_what_is_only_elsewhere() {
        let base = store([(1, 1), (2, 2)]);
        let all = KeyRange { from: ROWS_FROM.into(), to: ROWS_TO.into() };
        let of = |store: &MemoryStateStore| digest(store, &all, 1 << 20).expect("memory");
        assert_eq!(of(&store([(1, 1), (2, 2)])), of(&base));
        for rows in [vec![(1, 1), (2, 3)], vec![(1, 1), (3, 2)], vec![(1, 1)]] {
            assert_ne!(of(&store(rows.clone())), of(&base), "{rows:?}");
        }
        // Far more than there should be is not read to the end, and is another digest.
        let many = store((0..200).map(|at| (at, at)));
        let cut_off = digest(&many, &all, 100).expect("memory");
        assert_ne!(cut_off, of(&many));
        let nothing = digest(&store([]), &all, 0).expect("memory");
        assert_eq!(nothing.rows, 0);
    }

    #[test]
    fn a_page_says_whether_it_is_all() {
        let store = store((0..10).map(|at| (at, at)));
        let of = |from: u8, max| {
            let range = KeyRange { from: vec![0x10, from].into(), to: ROWS_TO.into() };
            let page = list(&store, &range, max).expect("memory");
            (page.rows.len(), page.is_whole)
        };
        assert_eq!([of(0, 4), of(4, 6), of(6, 9)], [(4, false), (6, true), (4, true)]);
        assert_eq!(of(10, 9), (0, true));
    }
}
