//! The spool after crashes at any byte.

use bytes::Bytes;
use dtm_client::spool::Error;
use dtm_client::{Record, Spool, SpoolConfig};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const CANARY: &str = "CANARY-6f1d";

fn record(number: u64) -> Record {
    Record {
        payload: format!("{{\"{CANARY}\":{number}}}").into_bytes().into(),
        ..Record::default()
    }
}

fn open(folder: &Path) -> Result<Spool, Error> {
    let mut config = SpoolConfig::new(folder);
    config.segment_bytes = 600;
    Spool::open(config)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "blocks"))
        .collect();
    files.sort_unstable();
    files
}

/// Fills a folder and says what was taken: `(last sequence, mark)` after each block, and where
/// the last file ended then.
fn fill(folder: &Path, blocks: &[u8]) -> Vec<(u64, Bytes, PathBuf, u64)> {
    let mut spool = open(folder).unwrap();
    let mut taken = Vec::new();
    for (at, count) in blocks.iter().enumerate() {
        let first = spool.next_sequence();
        let records: Vec<_> = (first..first + u64::from(*count)).map(record).collect();
        let mark = Bytes::from(format!("mark {at}"));
        let last = spool.append(&records, mark.clone()).unwrap();
        let file = files(folder).pop().unwrap();
        let bytes = fs::metadata(&file).unwrap().len();
        taken.push((last, mark, file, bytes));
    }
    taken
}

#[test]
fn what_was_taken_is_there_after_a_restart_and_nothing_is_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let taken = fill(folder.path(), &[3, 1, 5, 2, 9, 4]);
    let id = {
        let spool = open(folder.path()).unwrap();
        assert_eq!(spool.next_sequence(), 25);
        assert_eq!(spool.mark(), &taken[5].1);
        assert!(matches!(open(folder.path()), Err(Error::Locked { .. })));
        spool.id()
    };
    assert_eq!(open(folder.path()).unwrap().id(), id);
    assert!(files(folder.path()).len() > 1, "it rolls");
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{path:?}");
    }
    let mode = fs::metadata(folder.path().join("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_full_spool_takes_nothing_and_says_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = SpoolConfig::new(folder.path());
    config.spool_bytes_max = 400;
    let mut spool = Spool::open(config).unwrap();
    let mut taken = 0;
    let error = loop {
        match spool.append(&[record(1)], Bytes::new()) {
            Ok(last) => taken = last,
            Err(error) => break error,
        }
        assert!(taken < 100, "it has a bound");
    };
    assert!(error.to_string().contains("spool_bytes_max = 400"), "{error}");
    assert!(error.retryable());
    assert_eq!(spool.next_sequence(), taken + 1);
}

#[test]
fn another_key_is_damage_and_not_an_empty_spool() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &[3]);
    fs::write(folder.path().join("key"), [1u8; 32]).unwrap();
    assert!(matches!(open(folder.path()), Err(Error::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A crash cuts the last file at any byte, and may leave rubbish behind it: every block that
    /// was whole before is there, the next sequence follows it, and the mark is the one taken
    /// with it.
    // holds: ING-1
    #[test]
    fn a_torn_tail_is_cut_and_nothing_before_it(
        blocks in prop::collection::vec(1u8..6, 1..8),
        cut in any::<prop::sample::Index>(),
        rubbish in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let taken = fill(folder.path(), &blocks);
        let last = files(folder.path()).pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        let end = cut.index(bytes.len() + 1);
        let mut torn = bytes[..end].to_vec();
        if end < bytes.len() {
            // What was never synced may be anything, but not the bytes that were to come.
            torn.extend(rubbish.iter().map(|b| b & 0x3f));
        }
        fs::write(&last, &torn).unwrap();
        let whole = |t: &&(u64, Bytes, PathBuf, u64)| t.2 != last || t.3 <= end as u64;
        let expected = taken.iter().rfind(whole);
        let mut spool = open(folder.path()).unwrap();
        prop_assert_eq!(spool.next_sequence() - 1, expected.map_or(0, |t| t.0));
        prop_assert_eq!(spool.mark(), &expected.map_or(Bytes::new(), |t| t.1.clone()));
        // It goes on from there, and reads again.
        let next = spool.next_sequence();
        spool.append(&[record(next)], Bytes::from_static(b"on")).unwrap();
        drop(spool);
        prop_assert_eq!(open(folder.path()).unwrap().next_sequence(), next + 1);
    }

    /// A flipped bit anywhere but in the last block is damage: never cut, never passed over.
    #[test]
    fn a_damaged_middle_is_never_taken_for_a_tail(
        blocks in prop::collection::vec(1u8..6, 3..8),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let taken = fill(folder.path(), &blocks);
        let all = files(folder.path());
        let before_last = taken[taken.len() - 2].clone();
        let mut places = Vec::new();
        for file in &all {
            let mut bytes = fs::metadata(file).unwrap().len();
            if *file == before_last.2 && file == all.last().unwrap() {
                bytes = before_last.3;
            } else if file == all.last().unwrap() {
                // The last block is alone behind the first of its file: that one is not the tail.
                bytes = 72;
            }
            places.extend((0..bytes).map(|at| (file.clone(), at)));
        }
        let (file, at) = place.get(&places);
        let mut bytes = fs::read(file).unwrap();
        bytes[*at as usize] ^= 1 << bit;
        fs::write(file, bytes).unwrap();
        let result = open(folder.path());
        prop_assert!(matches!(result, Err(Error::Damaged { .. })), "{:?}", result.map(|s| s.next_sequence()));
    }
}
