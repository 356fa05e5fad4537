//! What the hot path costs: processor time of the sending side alone.

use crate::fake::Fake;
use dtm_client::{Endpoint, Publisher, PublisherConfig, Record};
use std::fs;
use std::time::Duration;

const PUBLISHERS: u64 = 500;
const RECORDS: u64 = 800;

/// Nanoseconds that this thread spent on a processor.
fn thread_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

async fn one(address: String, number: u64) {
    let endpoint =
        Endpoint::plaintext([address]).unwrap().with_connect_timeout(Duration::from_secs(30));
    let config = PublisherConfig::new("tinh-01", format!("s{number}"), "payment");
    let publisher = Publisher::open(endpoint, config).await.unwrap();
    let record = Record { payload: vec![b'x'; 300].into(), ..Record::default() };
    for sent in 0..RECORDS {
        publisher.send(&record).await.unwrap();
        if sent % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    publisher.close(false).await.unwrap();
}

#[test]
#[ignore = "a measurement: run alone with --ignored --nocapture"]
fn one_core_sends_200_000_records_a_second() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start());
    let address = fake.address.clone();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let before = thread_cpu_ns();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..PUBLISHERS {
                tasks.spawn(one(address.clone(), number));
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
        thread_cpu_ns() - before
    });
    let spent = client.join().unwrap();
    let records = PUBLISHERS * RECORDS;
    let rate = records as f64 / (spent as f64 / 1e9);
    let frames = fake.world.lock().frames;
    println!("{records} records in {frames} frames: {rate:.0} records/s of one core");
    assert!(rate > 200_000.0, "{rate:.0}");
}
