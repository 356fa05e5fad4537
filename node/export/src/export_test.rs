//! A backup with two data sets is exported, in clear, and nothing is left where that fails.

use std::fs;

use dtm_backup::{Entry, FilePart, GroupPart, Kind, Manifest, MemoryTarget, Writer};
use dtm_machine::keys;
use dtm_machine::seams::SeededEntropy;
use dtm_seal::{BatchCipher, Secret};
use dtm_types::command::command::Op;
use dtm_types::command::{AppendBatch, Command};
use dtm_types::format::{EntryBody, HeaderA, HeaderB, SealedBody, SealedRecord, Suite};
use dtm_types::{BackupId, bundle};
use prost::Message;

use super::*;

const GROUP: GroupId = GroupId(1);

fn key(byte: u8) -> DataKey {
    DataKey::from_bytes(&mut [byte; 32])
}

/// A batch of three records: the second is doubled, the third refused.
fn batch(at: &Place, contents: [&str; 3]) -> Command {
    let records = contents.map(|content| SealedRecord {
        payload: Bytes::copy_from_slice(content.as_bytes()),
        ..SealedRecord::default()
    });
    let mut text =
        SealedBody { records: records.to_vec(), ..SealedBody::default() }.encode_to_vec();
    let header = HeaderA {
        version: 1,
        source: at.source.clone(),
        stream: at.stream.clone(),
        dataset: at.dataset.clone(),
        count: 3,
        suite: Suite::Xaes256gcm.into(),
        plain_bytes: text.len() as u64,
        nonce: vec![4; 24].into(),
        ..HeaderA::default()
    };
    let header_a = header.encode_to_vec();
    let tag = key(1).cipher().seal_batch(&[4; 24], &header_a, &mut text).expect("seals");
    let part_b = HeaderB { tag: tag.to_vec().into(), ..HeaderB::default() };
    let body = EntryBody {
        header_a: header_a.into(),
        header_b: part_b.encode_to_vec().into(),
        record_hashes: vec![8; 96].into(),
        sealed: text.into(),
        ..EntryBody::default()
    };
    let append = AppendBatch { body: Some(body), ..AppendBatch::default() };
    Command { op: Some(Op::AppendBatch(append)), ..Command::default() }
}

fn place(index: u64, ordinal: u32, source: &str, dataset: &str) -> Place {
    Place {
        index,
        ordinal,
        source: source.into(),
        stream: "s".into(),
        first_sequence: index * 10,
        last_sequence: index * 10 + 2,
        dataset: dataset.into(),
        group_time_us: i64::try_from(index).expect("small") * 1_000_000,
        duplicate_bitmap: vec![2].into(),
        refusal_bitmap: vec![4].into(),
        key_id: vec![1; 16].into(),
        ..Place::default()
    }
}

fn backup(target: &MemoryTarget) -> Vec<(Manifest, DataKey)> {
    let places = [
        (place(1, 0, "tinh-01", "notes"), ["{\"n\":1}", "x", "y"]),
        (place(1, 1, "tinh-02", "notes"), ["{\"n\":2}", "x", "y"]),
        (place(2, 0, "tinh-01", "cases"), ["{\"n\":3}", "x", "y"]),
        (place(3, 0, "tinh-01", "notes"), ["two\nlines", "x", "y"]),
    ];
    let entropy = SeededEntropy::new(1);
    let writer = Writer::new(target, &entropy, BackupId([9; 16]), &key(9));
    let mut rows = writer.file(GROUP, Kind::Rows).expect("begins");
    for (place, _) in &places {
        rows.row(&keys::place(place.index, place.ordinal), &place.encode_to_vec()).expect("writes");
    }
    let wrapped = WrappedKey { key_id: vec![1; 16].into(), ..WrappedKey::default() };
    rows.row(&keys::key(dtm_types::KeyId([1; 16])), &wrapped.encode_to_vec()).expect("writes");
    let (rows, _) = rows.finish().expect("ends");
    let mut entries = writer.file(GROUP, Kind::Entries).expect("begins");
    for index in 1..=3 {
        let mut builder = bundle::Builder::new(1, &[7; 16], 0);
        for (place, contents) in places.iter().filter(|(place, _)| place.index == index) {
            builder.push(&batch(place, *contents).encode_to_vec());
        }
        let entry = Entry { index, term: 1, leader: 1, payload: builder.finish() };
        entries.entry(&entry).expect("writes");
    }
    let (entries, _): (FilePart, _) = entries.finish().expect("ends");
    let part = GroupPart {
        group: GROUP.0,
        last_index: 3,
        rows: Some(rows),
        entries: Some(entries),
        entries_from: 1,
        ..GroupPart::default()
    };
    let cluster = vec![5; 16].into();
    writer.finish(Manifest { cluster, groups: vec![part], ..Manifest::default() }).expect("ends");
    let name = BackupId([9; 16]).to_string();
    vec![(dtm_backup::read_manifest(target, &name).expect("reads").0, key(9))]
}

fn run(into: &Path, wanted: &Wanted, byte: u8) -> Result<Exported, Error> {
    let target = MemoryTarget::default();
    let links = backup(&target);
    let with = With {
        open_key: &|group, row| {
            assert_eq!((group, &row.key_id[..]), (GROUP, &[1; 16][..]));
            Ok(key(byte))
        },
        document: &|record| {
            let text = String::from_utf8_lossy(&record.payload).replace('\n', " ");
            format!("{} #{} {text}", record.source, record.sequence)
        },
    };
    export(OpenChain { target: &target, links: &links }, wanted, into, with, &mut |_| {})
}

fn notes() -> Wanted {
    Wanted { dataset: "notes".into(), ..Wanted::default() }
}

#[test]
fn stored_records_of_the_data_set_come_out_and_no_others() {
    let home = tempfile::tempdir().expect("a folder");
    let into = home.path().join("out");
    let done = run(&into, &notes(), 1).expect("exports");
    let sources = vec![("tinh-01".to_owned(), 2), ("tinh-02".to_owned(), 1)];
    assert_eq!(done, Exported { records: 3, unsendable: 1, sources });
    let read = |file: &str| fs::read_to_string(into.join(file)).expect("a file");
    assert_eq!(read("records/tinh-01.jsonl"), "tinh-01 #10 {\"n\":1}\ntinh-01 #30 two lines\n");
    assert_eq!(read("publish/tinh-01.jsonl"), "{\"n\":1}\n");
    assert_eq!(read("publish/tinh-02.jsonl"), "{\"n\":2}\n");
    let found = run(&into, &notes(), 1).expect_err("it is not empty");
    assert!(matches!(found, Error::NotEmpty(_)), "{found}");

    let into = home.path().join("of-one");
    let wanted = Wanted { source: Some("tinh-02".into()), ..notes() };
    assert_eq!(run(&into, &wanted, 1).expect("exports").records, 1);
    let none = Wanted { dataset: "nothing".into(), ..notes() };
    let into = home.path().join("of-none");
    assert_eq!(run(&into, &none, 1).expect("exports"), Exported::default());
}

#[test]
fn what_does_not_open_leaves_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let into = home.path().join("out");
    let found = run(&into, &notes(), 2).expect_err("another key opens nothing");
    assert!(matches!(found, Error::Batch { index: 1, ordinal: 0, .. }), "{found}");
    assert!(!into.exists(), "something was left");
    let late = Wanted { until_us: Some(1), ..notes() };
    let found = run(&into, &late, 1).expect_err("the backup has no anchor");
    assert!(matches!(found, Error::Backup(dtm_backup::Error::TooLate { .. })), "{found}");
    assert!(!into.exists(), "something was left");
}
