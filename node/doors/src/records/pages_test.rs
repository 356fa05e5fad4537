//! Page after page yields each record once, whatever the size of a page.

use dtm_machine::keys;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
use dtm_proto::records::{Position, QuarantinedRecord, StoredRecord};
use dtm_types::format::{Place, QuarantineRow};
use dtm_types::{GroupId, StreamKey};
use proptest::prelude::*;
use prost::Message;
use tonic::Status;

use super::pages::{Batches, Item, Refused, Selection, Stored, Wanted, read};

const GROUP: GroupId = GroupId(3);
const SOURCE: &str = "tinh-01";

/// A batch: which stream, which of its records were refused, how large a payload is.
type Shape = (usize, Vec<bool>, usize);

/// Batches that say what their place says.
struct Twin {
    payload_bytes: usize,
}

impl Twin {
    fn sequences(place: &Place, wanted: Wanted, refused: bool) -> impl Iterator<Item = u64> {
        let bitmap = place.refusal_bitmap.clone();
        (place.first_sequence..=place.last_sequence)
            .enumerate()
            .filter(move |(n, _)| (bitmap[*n] == 1) == refused)
            .map(|(_, sequence)| sequence)
            .filter(move |sequence| *sequence >= wanted.from)
            .take(wanted.records_max)
    }
}

impl Batches for Twin {
    fn stored(
        &mut self,
        place: &Place,
        wanted: Wanted,
        _: bool,
    ) -> Result<Vec<StoredRecord>, Status> {
        let payload = bytes::Bytes::from(vec![0; self.payload_bytes]);
        let record = |sequence| StoredRecord {
            stream: place.stream.clone(),
            sequence,
            payload: payload.clone(),
            ..StoredRecord::default()
        };
        Ok(Self::sequences(place, wanted, false).map(record).collect())
    }

    fn refused(
        &mut self,
        place: &Place,
        wanted: Wanted,
        _: bool,
    ) -> Result<Vec<QuarantinedRecord>, Status> {
        let record = |sequence| QuarantinedRecord {
            stream: place.stream.clone(),
            sequence,
            ..QuarantinedRecord::default()
        };
        Ok(Self::sequences(place, wanted, true).map(record).collect())
    }
}

fn stream(at: usize) -> StreamKey {
    StreamKey::parse(SOURCE, ["a", "b"][at]).expect("a name")
}

/// Rows of these batches, as apply writes them.
fn rows(shapes: &[Shape]) -> MemoryStateStore {
    let store = MemoryStateStore::new(GROUP);
    let mut batch = StateBatch::default();
    let mut next = [1_u64; 2];
    for (n, (at, refused, _)) in shapes.iter().enumerate() {
        let (index, ordinal) = (n as u64 / 3, n as u32 % 3);
        let place = Place {
            index,
            ordinal,
            source: SOURCE.into(),
            stream: stream(*at).stream.to_string(),
            dataset: "numbers".into(),
            first_sequence: next[*at],
            last_sequence: next[*at] + refused.len() as u64 - 1,
            refusal_bitmap: refused.iter().map(|r| u8::from(*r)).collect::<Vec<_>>().into(),
            ..Place::default()
        };
        next[*at] = place.last_sequence + 1;
        let mut pointer = index.to_be_bytes().to_vec();
        pointer.extend(ordinal.to_be_bytes());
        batch.put(keys::place(index, ordinal), place.encode_to_vec());
        batch.put(keys::stream_place(&stream(*at), place.last_sequence), pointer);
        if refused.contains(&true) {
            let row = QuarantineRow::default().encode_to_vec();
            batch.put(keys::quarantine(SOURCE, index, ordinal), row);
        }
    }
    store.write(&batch).expect("written");
    store
}

/// Everything, `page` records at a time, the position taken over as bytes as a client does.
fn by_pages<S: Selection>(
    selection: &mut S,
    store: &MemoryStateStore,
    page: u64,
    key: impl Fn(&S::Item) -> (String, u64),
) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let mut position = Position::decode(bytes.as_slice()).expect("decodes");
        let mut answered = 0;
        let state = store.freeze();
        let mut answer = |items: Vec<S::Item>, at: &Position| {
            answered += items.len() as u64;
            found.extend(items.iter().map(&key));
            bytes = at.encode_to_vec();
            true
        };
        let given = read(selection, (GROUP, &*state), &mut position, page, &mut answer);
        assert_eq!(given.expect("reads"), answered);
        assert!(answered <= page);
        if answered < page {
            return found;
        }
    }
    panic!("reading does not end");
}

fn expected(shapes: &[Shape], refused: bool, only: Option<usize>) -> Vec<(String, u64)> {
    let mut next = [1_u64; 2];
    let mut all = Vec::new();
    for (at, marks, _) in shapes {
        for mark in marks {
            if *mark == refused && only.is_none_or(|only| only == *at) {
                all.push((stream(*at).stream.to_string(), next[*at]));
            }
            next[*at] += 1;
        }
    }
    all
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let size = prop_oneof![Just(1_usize), Just(400_000)];
    let shape = (0..2_usize, proptest::collection::vec(any::<bool>(), 1..6), size);
    proptest::collection::vec(shape, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_record_once_and_in_order(shapes in shapes(), page in 1_u64..12) {
        let store = rows(&shapes);
        let payload_bytes = shapes.first().map_or(1, |shape| shape.2);
        for only in [None, Some(0), Some(1)] {
            let stream = only.map(stream);
            let mut stored = Stored {
                dataset: "numbers",
                source: SOURCE,
                stream: stream.as_ref(),
                digests_only: false,
                batches: Twin { payload_bytes },
            };
            let found = by_pages(&mut stored, &store, page, |r| (r.stream.clone(), r.sequence()));
            prop_assert_eq!(found, expected(&shapes, false, only));
            let name = stream.as_ref().map(|s| s.stream.to_string()).unwrap_or_default();
            let mut refused = Refused {
                source: SOURCE,
                stream: &name,
                from_sequence: 0,
                with_payload: false,
                batches: Twin { payload_bytes },
            };
            let found = by_pages(&mut refused, &store, page, |r| (r.stream.clone(), r.sequence()));
            prop_assert_eq!(found, expected(&shapes, true, only));
        }
    }
}
