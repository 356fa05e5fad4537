//! Measures the node's log on a real disk: rounds, syncs and bytes with many groups.
//!
//! `log_rounds DIR [SECONDS] [PAYLOAD_BYTES] [GROUPS] [alloc|zero] [IN_FLIGHT_PER_GROUP]`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_storage::log::{LogConfig, LogEntry, LogIdentity, LogPosition, NodeLog, Prefill};
use dtm_storage::vfs::RealVfs;

/// Sectors written to all disks, from the kernel's own count.
fn device_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let line = text.lines().find(|line| line.split_whitespace().nth(2) == Some("vda"));
    let sectors = line.and_then(|line| line.split_whitespace().nth(9)?.parse::<u64>().ok());
    sectors.unwrap_or(0) * 512
}

#[expect(clippy::disallowed_methods, reason = "only measures")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| {
        args.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let dir = Path::new(args.get(1).map_or("log-bench", String::as_str));
    let (seconds, payload, groups) = (number(2, 5), number(3, 65_536), number(4, 12));
    let zero = args.get(5).is_some_and(|text| text == "zero");
    let in_flight = number(6, 8);
    let cfg = LogConfig {
        prefill: if zero { Prefill::Zero } else { Prefill::Allocate },
        ..LogConfig::default()
    };
    let id = LogIdentity { cluster: 1, node: 1 };
    let started = now();
    let (node, recovery) =
        NodeLog::open(Arc::new(RealVfs), dir, cfg, id).expect("the folder is ours");
    println!("open: {:?}, {recovery:?}", started.elapsed());
    let payload = Bytes::from(vec![0xA7u8; usize::try_from(payload).expect("small")]);
    let before = device_bytes();
    let started = now();
    let until = started + Duration::from_secs(seconds);
    let appended: u64 = std::thread::scope(|scope| {
        let run = |group: u64| {
            let (node, payload) = (&node, &payload);
            scope.spawn(move || run_group(node, group, payload, in_flight, until))
        };
        let threads: Vec<_> = (0..groups).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("ran")).sum()
    });
    let took = started.elapsed().as_secs_f64();
    let metrics = node.metrics();
    drop(node);
    let device = device_bytes().saturating_sub(before);
    let mib = metrics.payload_bytes as f64 / 1_048_576.0;
    println!(
        "{appended} entries, {:.0} entries/s, {:.0} MiB/s, {:.0} rounds/s, {:.2} MiB a round, \
         {:.2} syncs a round, idle syncs {}",
        appended as f64 / took,
        mib / took,
        metrics.rounds as f64 / took,
        mib / metrics.rounds as f64,
        metrics.round_syncs as f64 / metrics.rounds as f64,
        metrics.idle_syncs,
    );
    println!(
        "round p50 {} us, p99 {} us; written / payload {:.4}; device / payload {:.3}",
        metrics.round_us.quantile(0.5),
        metrics.round_us.quantile(0.99),
        metrics.written_bytes as f64 / metrics.payload_bytes as f64,
        device as f64 / metrics.payload_bytes as f64,
    );
}

fn run_group(node: &NodeLog, group: u64, payload: &Bytes, in_flight: u64, until: Instant) -> u64 {
    let log = node.group(u32::try_from(group).expect("small"), 1, 1).expect("open");
    let flushed = Arc::new(AtomicU64::new(0));
    let first = log.state().last.map_or(0, |last| last.index + 1);
    let mut next = 0;
    while now() < until {
        if next - flushed.load(SeqCst) >= in_flight {
            std::thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        let entry = LogEntry { index: first + next, term: 1, leader: 1, payload: payload.clone() };
        let (flushed, waiting) = (Arc::clone(&flushed), std::thread::current());
        let tell = move |result: Result<(), dtm_storage::log::Error>| {
            result.expect("written");
            flushed.fetch_add(1, SeqCst);
            waiting.unpark();
        };
        log.append(vec![entry], Box::new(tell)).expect("taken");
        next += 1;
        if next % 1024 == 0 {
            let index = first + next - 512;
            let position = LogPosition { index, term: 1, leader: 1 };
            log.purge_to(position, Box::new(|_| ())).expect("taken");
        }
    }
    next
}
