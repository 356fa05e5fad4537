//! Where payloads lie after they are on disk in the log: measures the same bytes with each
//! candidate of docs/adr/0002.
//!
//! `payload_store DIR segments|files|rows|blobs [SECONDS] [GIB] [PAYLOAD_BYTES] [GROUPS]`
//!
//! Every candidate appends to the node's log, one fdatasync a round; what is on disk is applied: a
//! row with its place (RocksDB without WAL, as in the product), and then
//!
//! - `segments`: nothing more, the log's segments are the store;
//! - `files`: a copy in a file of the group, synced each 64 MiB;
//! - `rows`: a copy as a value of the row;
//! - `blobs`: the same with values in RocksDB's blob files.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_storage::log::{LogConfig, LogEntry, LogIdentity, LogPosition, NodeLog};
use dtm_storage::vfs::RealVfs;
use rocksdb::{DB, DBCompressionType, Options, WriteOptions};

/// Entries of a group between its append and its copy.
const IN_FLIGHT: u64 = 8;
const COPY_SYNC_BYTES: usize = 64 << 20;
const PLACE_BYTES: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Segments,
    Files,
    Rows,
    Blobs,
}

struct Run {
    store: Store,
    log: NodeLog,
    rows: DB,
    dir: std::path::PathBuf,
    /// Not compressible, as sealed batches are.
    payload: Bytes,
    start: Instant,
    until: Instant,
    entries_a_group_max: u64,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| {
        args.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let dir = Path::new(args.get(1).map_or("payload-store", String::as_str));
    let store = match args.get(2).map(String::as_str) {
        Some("files") => Store::Files,
        Some("rows") => Store::Rows,
        Some("blobs") => Store::Blobs,
        _ => Store::Segments,
    };
    let (seconds, gib, bytes) = (number(3, 60), number(4, 8), number(5, 65_536));
    let groups = number(6, 12);
    std::fs::create_dir_all(dir).expect("the folder is ours");
    let identity = LogIdentity { cluster: 1, node: 1 };
    let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::default() };
    let (log, _) = NodeLog::open(Arc::new(RealVfs), &dir.join("log"), config, identity)
        .expect("the folder is ours");
    let rows = DB::open(&options(store), dir.join("rows")).expect("the folder is ours");
    let (device, cpu, start) = (device_bytes(), cpu_s(), now());
    let run = Run {
        store,
        log,
        rows,
        dir: dir.to_owned(),
        payload: noise(usize::try_from(bytes).expect("small")),
        start,
        until: start + Duration::from_secs(seconds),
        entries_a_group_max: (gib << 30) / bytes / groups,
    };
    let mut waits: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..groups)
            .map(|group| {
                scope.spawn({
                    let run = &run;
                    move || one_group(run, group)
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("ran")).collect()
    });
    let took = run.start.elapsed().as_secs_f64();
    // What still lies in memory is written too: it belongs to the price.
    run.rows.flush().expect("flushed");
    drop(run);
    let (whole, device) = (start.elapsed().as_secs_f64(), device_bytes() - device);
    let payload = waits.len() as u64 * bytes;
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!(
        "{store:?}: {:.1} GiB in {took:.1} s ({whole:.1} s with the last flush), {:.0} MiB/s, \
         p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.0} ms, device / payload {:.2}, {:.2} CPU-s a GiB",
        payload as f64 / f64::from(1 << 30),
        payload as f64 / f64::from(1 << 20) / took,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        device as f64 / payload as f64,
        (cpu_s() - cpu) / (payload as f64 / f64::from(1 << 30)),
    );
}

fn options(store: Store) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // As the rows of the product.
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(4);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    if store == Store::Blobs {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(1024);
        options.set_blob_compression_type(DBCompressionType::None);
    }
    options
}

/// Appends, and copies what is on disk, until time or bytes are up. Returns how long each entry
/// took from its append to its copy, in µs.
fn one_group(run: &Run, group: u64) -> Vec<u64> {
    let log = run.log.group(u32::try_from(group).expect("small"), 1, 1).expect("open");
    let mut copy = (run.store == Store::Files)
        .then(|| File::create(run.dir.join(format!("copy-{group}"))).expect("created"));
    let mut unsynced = 0;
    let flushed = Arc::new(AtomicU64::new(0));
    let (mut begun, mut waits) = (Vec::new(), Vec::new());
    let mut next = 0_u64;
    loop {
        let is_open = now() < run.until && next < run.entries_a_group_max;
        let applied = waits.len() as u64;
        if !is_open && applied == next {
            return waits;
        }
        for index in applied..flushed.load(SeqCst) {
            apply(run, (group, index), copy.as_mut(), &mut unsynced);
            let begun: Instant = begun[usize::try_from(index).expect("small")];
            waits.push(u64::try_from(begun.elapsed().as_micros()).expect("short"));
            purge(&log, index);
        }
        if is_open && next - (waits.len() as u64) < IN_FLIGHT {
            let entry = LogEntry { index: next, term: 1, leader: 1, payload: run.payload.clone() };
            let (flushed, waiting) = (Arc::clone(&flushed), std::thread::current());
            let tell = move |result: Result<(), dtm_storage::log::Error>| {
                result.expect("written");
                flushed.fetch_add(1, SeqCst);
                waiting.unpark();
            };
            begun.push(now());
            log.append(vec![entry], Box::new(tell)).expect("taken");
            next += 1;
        } else if flushed.load(SeqCst) == waits.len() as u64 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn apply(run: &Run, (group, index): (u64, u64), copy: Option<&mut File>, unsynced: &mut usize) {
    let key = [group.to_be_bytes(), index.to_be_bytes()].concat();
    let mut without_wal = WriteOptions::default();
    without_wal.disable_wal(true);
    if let Some(file) = copy {
        file.write_all(&run.payload).expect("written");
        *unsynced += run.payload.len();
        if *unsynced >= COPY_SYNC_BYTES {
            file.sync_data().expect("synced");
            *unsynced = 0;
        }
    }
    let value: &[u8] = match run.store {
        Store::Rows | Store::Blobs => &run.payload,
        Store::Segments | Store::Files => &run.payload[..PLACE_BYTES],
    };
    run.rows.put_opt(key, value, &without_wal).expect("written");
}

/// The log lets go of what is copied, as behind a snapshot.
fn purge(log: &dtm_storage::log::GroupLog, index: u64) {
    if index % 1024 == 1023 {
        let position = LogPosition { index: index - 512, term: 1, leader: 1 };
        log.purge_to(position, Box::new(|_| ())).expect("taken");
    }
}

/// A fixed sequence without repetition (xorshift).
fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes).collect()
}

/// Sectors written to the disk, from the kernel's own count: of all processes.
fn device_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let line = text.lines().find(|line| line.split_whitespace().nth(2) == Some("vda"));
    let sectors = line.and_then(|line| line.split_whitespace().nth(9)?.parse::<u64>().ok());
    sectors.unwrap_or(0) * 512
}

/// Processor time of this process.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

#[expect(clippy::disallowed_methods, reason = "only measures")]
fn now() -> Instant {
    Instant::now()
}
