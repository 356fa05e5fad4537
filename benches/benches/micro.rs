//! Micro benches of the steps that every record passes: check, canonical form, seal, log, apply, leaf.
//!
//! `cargo bench --profile release --workspace --bench micro -- [NAME]`; with `--test` each step runs
//! once. Figures are of one thread of this machine: compare two commits, not two machines.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use dtm_catalog::{Accepted, CompiledSchema, Definition, Outcome, Scratch};
use dtm_chaos::sandbox::commands;
use dtm_ledger::{Frontier, leaf_hash};
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_seal::{BatchCipher, DataKey, Secret};
use dtm_storage::log::{LogConfig, LogEntry, LogIdentity, NodeLog};
use dtm_storage::vfs::RealVfs;
use dtm_types::format::{Leaf, LeafKind};
use dtm_types::{GroupId, StreamKey, bundle};
use prost::Message as _;

const CANONICAL: &str = concat!(
    r#"{"dossier_code":"H57.101.02-260125-220001","dossier_state":"in_processing","#,
    r#""processed_at":"2026-01-25T08:30:05+07:00","processing_content":"CONTENT","#,
    r#""processing_end_date":null,"processing_start_date":"2026-01-25","#,
    r#""processor":{"full_name":"Đặng Thị Hường","officer_code":"CB0012","#,
    r#""position":"Chuyên viên"},"processor_agency":{"agency_code":"H57.101.02","#,
    r#""agency_name":"Sở Khoa học và Công nghệ"}}"#
);
const AS_SENT: &str = concat!(
    r#"{"processor_agency": {"agency_name": "Sở Khoa học và Công nghệ", "#,
    r#""agency_code": "H57.101.02"}, "dossier_code": "H57.101.02-260125-220001", "#,
    r#""processor": {"full_name": "Đặng Thị Hường", "officer_code": "CB0012", "#,
    r#""position": "Chuyên viên"}, "processed_at": "2026-01-25T01:30:05Z", "#,
    r#""processing_content": "CONTENT", "dossier_state": "in_processing", "#,
    r#""processing_start_date": "2026-01-25", "processing_end_date": null}"#
);
const GROUP: GroupId = GroupId(1);

/// A record of about 1 KiB.
fn record(shape: &str) -> Vec<u8> {
    let sentence = "Đã thẩm định hồ sơ, chuyển lãnh đạo phê duyệt. ";
    let content: String = sentence.chars().cycle().take(430).collect();
    shape.replace("CONTENT", &content).into_bytes()
}

fn check(criterion: &mut Criterion) {
    let definition = Definition::built_in("dossier_progress").expect("built in");
    let schema = CompiledSchema::compile(&definition).expect("it compiles");
    let mut group = criterion.benchmark_group("check");
    for (name, shape, is_same) in
        [("validation", CANONICAL, true), ("canonical_form", AS_SENT, false)]
    {
        let payload = record(shape);
        let mut scratch = Scratch::default();
        let Outcome::Accepted { form, .. } = schema.check(&payload, &mut scratch) else {
            panic!("the record is a good one");
        };
        assert_eq!(form == Accepted::Same, is_same);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| schema.check(black_box(&payload), &mut scratch));
        });
    }
    group.finish();
}

fn seal(criterion: &mut Criterion) {
    let cipher = DataKey::from_bytes(&mut [7; 32]).cipher();
    let mut group = criterion.benchmark_group("seal");
    for bytes in [1_usize << 10, 64 << 10, 256 << 10] {
        let mut text = vec![5_u8; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{}_kib", bytes >> 10), |bench| {
            bench.iter(|| cipher.seal_batch(&[3; 24], &[1; 200], black_box(&mut text)));
        });
    }
    group.finish();
}

/// One entry, written and synced before the next: mostly what the disk takes for one sync.
fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::default() };
    let identity = LogIdentity { cluster: 1, node: 1 };
    let (log, _) = NodeLog::open(Arc::new(RealVfs), folder.path(), config, identity)
        .expect("an empty folder opens");
    let replica = log.group(1, 1, 1).expect("a new replica");
    let mut index = 0;
    let mut group = criterion.benchmark_group("log_append");
    for bytes in [1_usize << 10, 64 << 10] {
        let payload = Bytes::from(vec![9_u8; bytes]);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{}_kib", bytes >> 10), |bench| {
            bench.iter(|| {
                let entry = LogEntry { index, term: 1, leader: 1, payload: payload.clone() };
                let (sender, flushed) = sync_channel(1);
                let tell = move |done| sender.send(done).expect("it is waited for");
                replica.append(vec![entry], Box::new(tell)).expect("there is room");
                flushed.recv().expect("the log answers").expect("on disk");
                // As when it is applied and replicated.
                replica.release(index);
                index += 1;
            });
        });
    }
    group.finish();
}

/// One bundle with one batch of 64 records, from decoding to rows in memory.
fn apply(criterion: &mut Criterion) {
    const RECORDS: u32 = 64;
    let stream = StreamKey::parse("tinh-01", "main").expect("allowed names");
    let entry = |index: u64, command: &Bytes| {
        let mut builder = bundle::Builder::new(commands::TIME_US, &[1; 16], command.len());
        builder.push(command);
        Committed { index, bundle: Some(builder.finish()) }
    };
    let first = [commands::put_key(&stream), commands::open(&stream, 1)];
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));
    group.bench_function("batch_of_64", |bench| {
        let store = MemoryStateStore::new(GROUP);
        let mut machine = Machine::load(GROUP, &store).expect("empty rows");
        let mut index = 0;
        let mut step = |machine: &mut Machine, command: &Bytes| {
            index += 1;
            let mut batch = StateBatch::default();
            let outcomes = machine.apply(&store, &[entry(index, command)], &mut batch);
            black_box(outcomes.expect("apply is total"));
            store.write(&batch).expect("memory");
        };
        first.iter().for_each(|command| step(&mut machine, command));
        let mut next = 1;
        bench.iter_batched(
            || {
                let command = commands::batch(&stream, 1, next, RECORDS);
                next += u64::from(RECORDS);
                command
            },
            |command| step(&mut machine, &command),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// What the leaf of one batch costs apply, beside its two rows: encoding, hash, place in the tree.
/// It is part of `apply` too; no arm of the comparison leaves it out.
fn leaf(criterion: &mut Criterion) {
    let leaf = Leaf {
        version: 1,
        kind: LeafKind::Batch.into(),
        group_time_us: commands::TIME_US,
        actor_id: Bytes::from_static(&[1; 16]),
        request_id: Bytes::from_static(&[2; 16]),
        // About what a batch of 64 records of one source has.
        header_a: Bytes::from_static(&[3; 320]),
        header_b: Bytes::from_static(&[4; 48]),
        ..Leaf::default()
    };
    let mut frontier = Frontier::new();
    let mut group = criterion.benchmark_group("leaf");
    group.bench_function("of_a_batch", |bench| {
        bench.iter(|| {
            let bytes = black_box(&leaf).encode_to_vec();
            frontier.append_with(leaf_hash(&bytes), |node| {
                black_box(node);
            })
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    check(&mut criterion);
    seal(&mut criterion);
    append(&mut criterion);
    apply(&mut criterion);
    leaf(&mut criterion);
    criterion.final_summary();
}
