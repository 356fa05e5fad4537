//! Lanes do not wait for each other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dtm_sites::{Lane, LaneIo, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::harness::{A, Pair, pair, ping, quick};

/// Writes until the lane is full or `bytes` have left.
fn flood(mut here: LaneIo, bytes: usize) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let (block, mut sent) = (vec![7; 64 << 10], 0);
        while sent < bytes && here.write_all(&block).await.is_ok() {
            sent += block.len();
        }
        here.shutdown().await.ok();
        // Held until the other end has it all.
        here.read_u8().await.ok();
        sent
    })
}

#[tokio::test]
async fn both_sides_open_lanes_on_one_connection() {
    let Pair { mut a, mut b, .. } = pair(quick()).await;
    let mut here = a.lines.open(crate::harness::B, Lane::Control).await.expect("a line");
    let mut there = b.arrived.recv().await.expect("arrives");
    ping(&mut here, &mut there.io).await.expect("bytes");
    let mut here = b.lines.open(A, Lane::Log(9)).await.expect("the same line");
    let mut there = a.arrived.recv().await.expect("arrives");
    assert_eq!((there.node, there.lane), (crate::harness::B, Lane::Log(9)));
    ping(&mut here, &mut there.io).await.expect("bytes");
}

/// A reader that does not read fills its own window, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_not_read_holds_no_other_lane_up() {
    let settings = Settings { lane_window_bytes: 256 << 10, line_window_bytes: 2 << 20, ..quick() };
    let mut pair = pair(settings).await;
    let mut stalled = Vec::new();
    for group in 1..=3 {
        let (here, there) = pair.lane(Lane::Log(group)).await;
        stalled.push((flood(here, 1 << 30), there));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut here, mut there) = pair.lane(Lane::Log(7)).await;
    for _ in 0..200 {
        let took = timeout(Duration::from_secs(5), ping(&mut here, &mut there)).await;
        took.expect("no lane waits for another").expect("bytes");
    }
    let reader = tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        let mut read = 0;
        while read < 8 << 20 {
            read += there.read(&mut bytes).await.expect("bytes");
        }
        read
    });
    flood(here, 8 << 20);
    let read = timeout(Duration::from_secs(20), reader).await.expect("eight MiB pass");
    assert!(read.expect("reads") >= 8 << 20);
    assert!(stalled.iter().all(|(writer, _)| !writer.is_finished()), "they do stall");
    stalled.iter().for_each(|(writer, _)| writer.abort());
}

async fn pings(here: &mut LaneIo, there: &mut LaneIo) -> Duration {
    let mut took = Vec::new();
    for _ in 0..60 {
        took.push(ping(here, there).await.expect("bytes"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort();
    took[took.len() * 9 / 10]
}

/// Copies take what they may of a narrow line, and the log on it does not feel them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_keep_to_their_rate_and_leave_the_log_alone() {
    let rate = 1 << 20;
    let mut pair = pair(Settings { copies_bytes_per_second: rate, ..quick() }).await;
    for weather in &pair.weather {
        weather.delay_us.store(5_000, Ordering::Relaxed);
        weather.bits_per_second.store(20_000_000, Ordering::Relaxed);
    }
    let (mut here, mut there) = pair.lane(Lane::Log(1)).await;
    let alone = pings(&mut here, &mut there).await;
    let (copies, mut from) = pair.lane(Lane::Copies(1)).await;
    let begun = Instant::now();
    let copying = flood(copies, 3 << 20);
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.expect("bytes");
        (all.len(), begun.elapsed())
    });
    let beside = pings(&mut here, &mut there).await;
    let (read, took) =
        timeout(Duration::from_secs(30), reader).await.expect("ends").expect("reads");
    copying.abort();
    assert_eq!(read, 3 << 20);
    assert!(took > Duration::from_millis(2_700), "3 MiB at 1 MiB/s took {took:?}");
    assert!(took < Duration::from_secs(8), "3 MiB at 1 MiB/s took {took:?}");
    assert!(beside < alone + Duration::from_millis(40), "{beside:?} beside, {alone:?} alone");
}
