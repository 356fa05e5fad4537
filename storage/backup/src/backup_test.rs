#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use dtm_machine::seams::SeededEntropy;
use dtm_seal::{DataKey, Secret};
use dtm_types::format::{KeyPurpose, Leaf, WrappedKey};
use dtm_types::{BackupId, GroupId};

use super::*;
use crate::chunks::{CHUNK_BYTES, FRAME_BYTES, HEADER_BYTES};

const SECRET: &[u8] = b"what a row says in clear";
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/v1/backup.txt");

fn key(byte: u8) -> DataKey {
    DataKey::from_bytes(&mut [byte; 32])
}

fn id(number: u8) -> BackupId {
    BackupId([number; 16])
}

fn entry(index: u64) -> Entry {
    Entry { index, term: 2, leader: 1, payload: Bytes::copy_from_slice(SECRET) }
}

fn bytes(of: &[u8]) -> Bytes {
    Bytes::copy_from_slice(of)
}

fn part(writer: &Writer<'_>, group: u32, entries: std::ops::RangeInclusive<u64>) -> GroupPart {
    let (from, last_index) = (*entries.start(), *entries.end());
    let mut file = writer.file(GroupId(group), Kind::Rows).unwrap();
    for number in 0..3_u8 {
        file.row(&[number, 7], SECRET).unwrap();
    }
    let (rows, state) = file.finish().unwrap();
    let mut file = writer.file(GroupId(group), Kind::Entries).unwrap();
    entries.for_each(|index| file.entry(&entry(index)).unwrap());
    let (held, _) = file.finish().unwrap();
    GroupPart {
        group,
        last_index,
        last_term: 2,
        last_leader: 1,
        ledger_size: 9,
        ledger_root: bytes(&[8; 32]),
        rows: Some(rows),
        entries: Some(held),
        entries_from: from,
        state_digest: bytes(&state),
    }
}

/// Two groups and their entries from `from` on; continues `parent`.
fn write(target: &dyn Target, number: u8, from: u64, parent: Option<(u8, Digest)>) -> Digest {
    let entropy = SeededEntropy::new(u64::from(number));
    let writer = Writer::new(target, &entropy, id(number), &key(number));
    let groups = vec![part(&writer, 0, from..=from + 4), part(&writer, 1, from..=from + 1_000)];
    let groups = if from == 1 { groups } else { continued(groups) };
    let anchor = Leaf { group_time_us: 1_795_000_000_000_000, ..Leaf::default() };
    let manifest = Manifest {
        parent: parent.map(|(parent, _)| bytes(&id(parent).0)).unwrap_or_default(),
        parent_digest: parent.map(|(_, digest)| bytes(&digest)).unwrap_or_default(),
        cluster: bytes(&[5; 16]),
        cluster_name: "dtm".into(),
        incarnation: 1,
        began_us: 1_795_000_000_000_001,
        ended_us: 1_795_000_000_000_002,
        key: Some(WrappedKey {
            key_id: bytes(&id(number).0),
            purpose: KeyPurpose::Backup.into(),
            cluster_key_id: bytes(&[6; 16]),
            wrapped: bytes(&[7; 73]),
            ..WrappedKey::default()
        }),
        anchor_leaf: 8,
        anchor: Some(Box::new(anchor)),
        groups,
        roots: vec![bytes(b"certificate")],
        software: "0.1.0".into(),
        ..Manifest::default()
    };
    writer.finish(manifest).unwrap()
}

/// The first group of [`write`] ends at 5, the second at 1001; the next begins where both end.
fn continued(mut groups: Vec<GroupPart>) -> Vec<GroupPart> {
    groups[0].entries_from = 6;
    groups[1].entries_from = 1_002;
    groups
}

fn name(number: u8) -> String {
    id(number).to_string()
}

fn checked(target: &dyn Target, number: u8, key: Option<&DataKey>) -> Result<Manifest, Error> {
    verify(target, &name(number), key, &mut |_| {})
}

#[test]
fn what_is_written_is_read_back_and_lies_there_sealed() {
    let target = MemoryTarget::default();
    let digest = write(&target, 1, 1, None);
    let (manifest, found) = read_manifest(&target, &name(1)).unwrap();
    assert_eq!(found, digest);
    let mut seen = 0;
    verify(&target, &name(1), Some(&key(1)), &mut |bytes| seen += bytes).unwrap();
    assert_eq!(seen + 4 * HEADER_BYTES as u64, manifest.bytes(), "every byte was read");
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    let group = GroupId(1);
    read_rows(&target, &manifest, group, &key(1), &mut |read| {
        rows.extend(read);
        Ok(())
    })
    .unwrap();
    read_entries(&target, &manifest, group, &key(1), &mut |read| {
        entries.extend(read);
        Ok(())
    })
    .unwrap();
    let row = |number: u8| Row { key: bytes(&[number, 7]), value: bytes(SECRET) };
    assert_eq!(rows, (0..3).map(row).collect::<Vec<_>>());
    assert_eq!(entries, (1..=1_001).map(entry).collect::<Vec<_>>());
    for (file, content) in target.content(&name(1)) {
        let clear = content.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(!clear, "{file} holds content in clear");
    }
}

#[test]
fn a_flipped_byte_is_found_in_every_file_at_every_place_and_named() {
    let target = MemoryTarget::default();
    write(&target, 1, 1, None);
    for (file, content) in target.content(&name(1)) {
        let step = (content.len() / 97).max(1);
        let head = HEADER_BYTES + FRAME_BYTES + 2;
        let places = (0..head.min(content.len())).chain((head..content.len()).step_by(step));
        for at in places.chain([content.len() - 1]) {
            let mut spoiled = content.clone();
            spoiled[at] ^= 1 << (at % 8);
            target.spoil(&name(1), &file, Some(spoiled));
            for key in [None, Some(&key(1))] {
                match checked(&target, 1, key).expect_err("it is found") {
                    Error::Damaged { backup, file: named, from, to, .. } => {
                        assert_eq!((backup, &named), (name(1), &file));
                        assert!((from..to).contains(&(at as u64)), "{file} {at}: {from} to {to}");
                    }
                    other => panic!("{file} {at}: {other}"),
                }
            }
        }
        target.spoil(&name(1), &file, Some(content));
    }
    checked(&target, 1, Some(&key(1))).expect("whole again");
}

#[test]
fn what_was_cut_lengthened_exchanged_or_lost_is_found() {
    let target = MemoryTarget::default();
    write(&target, 1, 1, None);
    let files = target.content(&name(1));
    for (file, content) in &files {
        let mut longer = content.clone();
        longer.push(0);
        let cut = content[..content.len() - 1].to_vec();
        for spoiled in [Vec::new(), cut, longer] {
            target.spoil(&name(1), file, Some(spoiled));
            let found = checked(&target, 1, None).expect_err("found");
            assert!(found.is_of_backup() && found.to_string().contains(file), "{found}");
        }
        target.spoil(&name(1), file, None);
        match checked(&target, 1, None).expect_err("found") {
            Error::FileMissing { file: named, .. } => assert_eq!(&named, file),
            Error::Unfinished { .. } => assert_eq!(file, MANIFEST),
            other => panic!("{other}"),
        }
        target.spoil(&name(1), file, Some(content.clone()));
    }
    // A file of another group, whole by itself.
    target.spoil(&name(1), "g000.rows", Some(files[3].1.clone()));
    assert!(matches!(checked(&target, 1, None), Err(Error::Damaged { .. })));
}

#[test]
fn chunks_have_their_place() {
    let target = MemoryTarget::default();
    let entropy = SeededEntropy::new(1);
    let writer = Writer::new(&target, &entropy, id(1), &key(1));
    let mut file = writer.file(GroupId(0), Kind::Rows).unwrap();
    for number in 0..3_u8 {
        file.row(&[number], &vec![number; CHUNK_BYTES]).unwrap();
    }
    let (part, _) = file.finish().unwrap();
    assert_eq!((part.chunks, part.items), (3, 3));
    let content = target.content(&name(1)).remove(0).1;
    let chunk = (content.len() - HEADER_BYTES) / 3;
    let (header, chunks) = content.split_at(HEADER_BYTES);
    let chunks: Vec<&[u8]> = chunks.chunks(chunk).collect();
    let exchanged = [header, chunks[1], chunks[0], chunks[2]].concat();
    let manifest = |digest: Bytes| Manifest {
        cluster: bytes(&[5; 16]),
        groups: vec![GroupPart {
            rows: Some(FilePart { digest, ..part.clone() }),
            ..GroupPart::default()
        }],
        ..Manifest::default()
    };
    target.spoil(&name(1), "g000.rows", Some(exchanged.clone()));
    writer.finish(manifest(part.digest.clone())).unwrap();
    let found = checked(&target, 1, None).expect_err("every chunk holds by itself");
    assert!(found.to_string().contains("not the file that the manifest names"), "{found}");
    // Whoever changes the manifest too has no key.
    target.spoil(&name(1), MANIFEST, None);
    let writer = Writer::new(&target, &entropy, id(1), &key(9));
    use sha2::Digest as _;
    let digest = bytes(&sha2::Sha256::digest(&exchanged));
    writer.finish(manifest(digest)).unwrap();
    checked(&target, 1, None).expect("checksums can be made by anybody");
    let found = checked(&target, 1, Some(&key(1))).expect_err("seals cannot");
    assert!(matches!(&found, Error::WrongKey { file, .. } if file == MANIFEST), "{found}");
    let found = checked(&target, 1, Some(&key(9))).expect_err("nor can a chunk be moved");
    assert!(matches!(&found, Error::WrongKey { file, .. } if file == "g000.rows"), "{found}");
}

#[test]
fn another_key_opens_nothing() {
    let target = MemoryTarget::default();
    write(&target, 1, 1, None);
    let (manifest, _) = read_manifest(&target, &name(1)).unwrap();
    assert!(matches!(checked(&target, 1, Some(&key(2))), Err(Error::WrongKey { .. })));
    let mut none = |_| panic!("nothing is opened");
    let read = read_rows(&target, &manifest, GroupId(1), &key(2), &mut none);
    assert!(matches!(read, Err(Error::WrongKey { .. })));
}

#[test]
fn a_chain_is_whole_or_says_where_it_is_not() {
    let target = MemoryTarget::default();
    let first = write(&target, 1, 1, None);
    let second = write(&target, 2, 6, Some((1, first)));
    let ids = |chain: Vec<Manifest>| chain.iter().map(Manifest::id).collect::<Vec<_>>();
    assert_eq!(ids(chain(&target, &name(2)).unwrap()), [id(1), id(2)]);
    assert_eq!(ids(chain(&target, &name(1)).unwrap()), [id(1)]);
    assert_eq!(find(&target, None).unwrap(), name(2), "the newest");
    assert!(matches!(find(&target, Some("x")), Err(Error::Unknown(_))));
    assert!(matches!(find(&MemoryTarget::default(), None), Err(Error::Empty)));

    // One that names another parent by the same name, and one that leaves a hole.
    write(&target, 3, 6, Some((1, second)));
    let found = chain(&target, &name(3)).expect_err("its parent is another one");
    assert!(found.to_string().contains("another one"), "{found}");
    write(&target, 4, 6, Some((2, second)));
    let found = chain(&target, &name(4)).expect_err("it begins again where the second did");
    assert!(matches!(found, Error::Gap { found: 6, expected: 10, .. }), "{found}");

    // The first is gone: the second is of no use, and the third is a full one.
    target.spoil(&name(1), MANIFEST, None);
    let found = chain(&target, &name(2)).expect_err("its parent is gone");
    assert!(found.to_string().contains("which is not here"), "{found}");
    let unfinished = list(&target).unwrap().remove(0);
    assert_eq!(unfinished.name, name(1));
    assert!(matches!(unfinished.manifest, Err(Error::Unfinished { .. })));
}

#[test]
fn the_bytes_of_version_1_do_not_change_and_open_for_ever() {
    let target = MemoryTarget::default();
    let entropy = SeededEntropy::new(1);
    let first = {
        let writer = Writer::new(&target, &entropy, id(1), &key(1));
        let groups = vec![part(&writer, 0, 1..=2)];
        let cluster = bytes(&[5; 16]);
        writer.finish(Manifest { cluster, groups, ..Manifest::default() }).unwrap()
    };
    let _ = write(&target, 2, 1, None);
    let mut made: Vec<(String, Vec<u8>)> = target.content(&name(1));
    let manifest = target.content(&name(2)).into_iter().find(|(file, _)| file == MANIFEST).unwrap();
    made.push(("manifest-of-every-field".into(), manifest.1));
    let lines = made.iter().map(|(name, bytes)| format!("{name} {}\n", hex::encode(bytes)));
    // The head of a file of goldens that holds no messages.
    let text: String = std::iter::once("# bytes\n".to_owned()).chain(lines).collect();
    if std::env::var_os("DTM_WRITE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, text).unwrap();
        panic!("{GOLDEN} is written, which proves nothing: run again without DTM_WRITE_GOLDEN");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden file is committed");
    assert!(golden == text, "the format changed: that needs a new version, not a new file");
    let old = MemoryTarget::default();
    for (file, digits) in golden.lines().skip(1).filter_map(|line| line.split_once(' ')).take(3) {
        old.spoil(&name(1), file, Some(hex::decode(digits).unwrap()));
    }
    checked(&old, 1, Some(&key(1))).expect("it opens");
    assert_eq!(read_manifest(&old, &name(1)).unwrap().1, first);
}
