//! Rows of the cluster layer and the digest of a snapshot, as `tests/golden/v1` keeps them.

use bytes::Bytes;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use prost::Message;

use super::RowsDigest;
use crate::state_machine::{APPLIED_KEY, applied_row, read_applied};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/v1");

/// The bytes that a file of goldens holds under a name.
fn kept(file: &str, name: &str) -> Bytes {
    let file = std::fs::read_to_string(format!("{GOLDEN}/{file}.txt")).expect("it is committed");
    let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.expect("the golden is committed").as_bytes().chunks(2);
    let byte = |two| u8::from_str_radix(str::from_utf8(two).expect("ASCII"), 16).expect("hex");
    digits.map(byte).collect()
}

#[test]
fn the_applied_row_is_a_version_and_the_message() {
    let row = [&[1][..], &kept("cluster", "AppliedRow")].concat();
    let store = MemoryStateStore::new(GroupId(1));
    let mut batch = StateBatch::default();
    batch.put([0x00, 0x01], row.clone());
    store.write(&batch).expect("memory");
    assert_eq!(APPLIED_KEY, [0x00, 0x01]);
    let (last, membership) = read_applied(&store).expect("reads");
    assert_eq!(last.map(|last| last.index), Some(3_000));
    assert_eq!(applied_row(last, &membership), row, "written as it was read");
}

#[test]
fn the_digest_of_a_snapshot_covers_lengths_keys_and_values() {
    let rows = wire::Rows::decode(kept("snapshot", "Rows")).expect("decodes");
    let mut digest = RowsDigest::default();
    rows.rows.iter().for_each(|row| digest.add(&row.key, &row.value));
    let end = wire::SnapshotEnd::decode(kept("snapshot", "SnapshotEnd")).expect("decodes");
    let (count, made) = digest.finish();
    assert_eq!((count, &made[..]), (end.rows, &*end.rows_digest));
}
