//! What is replicated and stored: bundles, headers, leaves, rows, snapshots.

use std::fmt::Debug;

use bytes::Bytes;
use dtm_chaos::sandbox::commands;
use dtm_ledger::Frontier;
use dtm_machine::keys;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use dtm_machine::{ApplyError, Committed, Machine, reads};
use dtm_proto::cluster::{Row, Rows, SnapshotChunk, snapshot_chunk};
use dtm_types::command::Bundle;
use dtm_types::format::{
    Cursor, EntryBody, Genesis, GroupHead, HeaderA, HeaderB, Leaf, Place, ResealHeader,
};
use dtm_types::{GroupId, StreamKey, bundle};
use prost::Message;

fn stream() -> StreamKey {
    StreamKey::parse("tinh-01", "main").expect("allowed names")
}

/// A bundle whose checksum is right and whose content is the input.
fn checked(content: &[u8]) -> Bytes {
    let crc = crc32c::crc32c(content).to_le_bytes();
    Bytes::from([&[bundle::VERSION], &crc[..], content].concat())
}

/// Apply is total and deterministic: any content yields outcomes or stops the group in good order,
/// the same on two replicas.
pub(super) fn bundle(input: &[u8]) {
    // Without the right checksum nothing is read at all.
    let _ = bundle::decode(&Bytes::copy_from_slice(input));
    for group in [GroupId::META, GroupId(1)] {
        assert_eq!(applied(group, input), applied(group, input), "two replicas part ways");
    }
}

type StoredRows = Vec<(Bytes, Bytes)>;

fn applied(group: GroupId, input: &[u8]) -> Option<StoredRows> {
    let store = MemoryStateStore::new(group);
    let mut machine = Machine::load(group, &store).expect("empty rows load");
    let prepared = [commands::put_key(&stream()), commands::open(&stream(), 1)];
    let mut builder = bundle::Builder::new(commands::TIME_US, &[1; 16], 0);
    prepared.iter().for_each(|command| builder.push(command));
    for (index, bytes) in (1..).zip([builder.finish(), checked(input), checked(input)]) {
        let mut batch = StateBatch::default();
        let entry = Committed { index, bundle: Some(bytes) };
        match machine.apply(&store, &[entry], &mut batch) {
            Ok(_) => store.write(&batch).expect("memory"),
            Err(
                ApplyError::Bundle { .. }
                | ApplyError::Version { .. }
                | ApplyError::UnknownOperation { .. },
            ) => return None,
            Err(error) => panic!("rows of our own are read back: {error}"),
        }
    }
    let (size, _) = machine.ledger_head();
    let leaves = store.scan(&keys::leaf(0), &keys::leaf(u64::MAX), usize::MAX).expect("memory");
    assert_eq!(leaves.len() as u64, size, "LED-1: a leaf for each that was counted");
    Some(store.scan(&[], &[0xff; 64], usize::MAX).expect("memory"))
}

pub(super) fn bundle_seeds() -> Vec<Vec<u8>> {
    let batch = |first| commands::batch(&stream(), 1, first, 2);
    let all = [batch(1), batch(3), commands::open(&stream(), 2), commands::put_key(&stream())];
    let seed = |commands: &[Bytes]| {
        let mut builder = bundle::Builder::new(commands::TIME_US, &[1; 16], 0);
        commands.iter().for_each(|command| builder.push(command));
        builder.finish()[bundle::PREFIX_BYTES..].to_vec()
    };
    vec![seed(&all), seed(&all[..1]), seed(&all[2..])]
}

/// What decodes is encoded to something that decodes to the same.
pub(super) fn header(input: &[u8]) {
    same::<HeaderA>(input);
    same::<HeaderB>(input);
    same::<EntryBody>(input);
    same::<Leaf>(input);
    same::<ResealHeader>(input);
    same::<Genesis>(input);
    same::<Place>(input);
    same::<Cursor>(input);
    same::<GroupHead>(input);
    if let Ok(edge) = Frontier::decode(input) {
        assert_eq!(edge.encode(), input, "one form for one frontier");
        let _ = edge.root();
    }
}

fn same<M: Message + Default + PartialEq + Debug>(input: &[u8]) {
    if let Ok(message) = M::decode(input) {
        let again = M::decode(&*message.encode_to_vec());
        assert_eq!(again.as_ref(), Ok(&message));
    }
}

pub(super) fn header_seeds() -> Vec<Vec<u8>> {
    let bytes = bundle_seeds().remove(1);
    let bundle = Bundle::decode(&*bytes).expect("a seed");
    let Some(dtm_types::command::command::Op::AppendBatch(append)) = &bundle.commands[0].op else {
        panic!("the seed is a batch");
    };
    let body = append.body.clone().expect("with a body");
    let leaf = Leaf {
        version: 1,
        kind: 1,
        header_a: body.header_a.clone(),
        header_b: body.header_b.clone(),
        ..Leaf::default()
    };
    let mut edge = Frontier::new();
    (0..7).for_each(|leaf| {
        edge.append([leaf; 32]);
    });
    vec![
        body.header_a.to_vec(),
        body.header_b.to_vec(),
        body.encode_to_vec(),
        leaf.encode_to_vec(),
        edge.encode(),
    ]
}

/// A snapshot's rows, however damaged, are read or refused.
pub(super) fn snapshot(input: &[u8]) {
    let Ok(chunk) = SnapshotChunk::decode(input) else {
        return;
    };
    let Some(snapshot_chunk::Part::Rows(rows)) = chunk.part else {
        return;
    };
    for group in [GroupId::META, GroupId(1)] {
        let store = MemoryStateStore::new(group);
        let mut batch = StateBatch::default();
        rows.rows.iter().for_each(|row| batch.put(row.key.clone(), row.value.clone()));
        store.write(&batch).expect("memory");
        read_all(&store);
        let head = reads::head(&store).unwrap_or_default();
        // A head that disagrees with its own edge ends the process on purpose (LED-1).
        let edge = Frontier::decode(&head.frontier).map_or(0, |edge| edge.size());
        if edge == head.ledger_size {
            let _ = Machine::load(group, &store);
        }
    }
}

fn read_all(store: &MemoryStateStore) {
    let _ = reads::sources(store, None, 100);
    let _ = reads::source_keys(store, "tinh-01");
    let _ = reads::dataset_versions(store, "dossier_sync");
    let _ = reads::datasets_after(store, "", &[], usize::MAX);
    let _ = reads::operators(store);
    let _ = reads::nodes(store);
    let _ = reads::groups(store);
    let _ = reads::streams(store, "tinh-01", 100);
    let _ = reads::places_after(store, None, 100);
    let _ = reads::stream_places(store, &stream(), 1, 100);
    let _ = reads::quarantined(store, "tinh-01", None, 100);
    let _ = reads::keys_after(store, None, 100);
}

pub(super) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let rows = applied(GroupId(1), &bundle_seeds()[0]).expect("the seed is applied");
    let rows: Vec<Row> = rows.into_iter().map(|(key, value)| Row { key, value }).collect();
    let seed = |rows: &[Row]| {
        let part = snapshot_chunk::Part::Rows(Rows { rows: rows.to_vec() });
        SnapshotChunk { part: Some(part) }.encode_to_vec()
    };
    vec![seed(&rows), seed(&rows[rows.len() / 2..]), seed(&[])]
}
