//! Damage on one node: its log, its rows. The others go on, the replica is mended by them.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use dtm_types::GroupId;

use crate::harness::{Cluster, command, propose, until};
use crate::snapshots::{GROUP, same, status, write};

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).expect("a folder");
    let paths = listed.map(|entry| entry.expect("listed").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

/// Flips a bit of the payload of each `step`-th block of the group's entries from the last ones.
fn damage_log(dir: &Path, step: usize, count: usize) -> usize {
    let mut hit = 0;
    for path in files(&dir.join("log"), ".log").iter().rev() {
        let mut bytes = std::fs::read(path).expect("reads");
        let is_entry = |at: &usize| {
            let kind = bytes[at + 5];
            let group = u32::from_le_bytes(bytes[at + 64..at + 68].try_into().expect("4"));
            let len = u32::from_le_bytes(bytes[at + 68..at + 72].try_into().expect("4"));
            bytes[*at..].starts_with(b"DTMB") && kind == 1 && group == GROUP.0 && len > 20
        };
        let ends = bytes.len().saturating_sub(256);
        let blocks: Vec<usize> = (0..ends).step_by(8).filter(is_entry).collect();
        for at in blocks.iter().rev().step_by(step).take(count - hit) {
            bytes[at + 136 + 9] ^= 4;
            hit += 1;
        }
        std::fs::write(path, bytes).expect("written");
    }
    hit
}

/// Breaks the headers of two neighbouring blocks of the group near the end of the newest segment,
/// as one bad page does, and of every checkpoint behind them: under a load without a pause there is
/// none.
fn damage_page(dir: &Path) {
    let mut segments = files(&dir.join("log"), ".log");
    let is_written =
        |path: &PathBuf| std::fs::read(path).expect("reads")[512..].starts_with(b"DTMB");
    segments.retain(is_written);
    let path = segments.last().expect("a segment");
    let mut bytes = std::fs::read(path).expect("reads");
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
    let (mut blocks, mut at) = (Vec::new(), 512);
    while bytes[at..].starts_with(b"DTMB") {
        blocks.push((at, bytes[at + 5], u32_at(at + 64)));
        at += 136 + (u32_at(at + 68) + u32_at(at + 120)) as usize;
    }
    // Entries and committed positions; a synced round of some blocks stays behind them.
    let own = |&(_, kind, group): &(usize, u8, u32)| group == GROUP.0 && matches!(kind, 1 | 4);
    let pairs = blocks.windows(2).take(blocks.len() - 8);
    let first = pairs.enumerate().rfind(|(_, pair)| pair.iter().all(own)).expect("two").0;
    for (nth, (at, kind, _)) in blocks.iter().enumerate().skip(first) {
        if nth < first + 2 || *kind == 9 {
            bytes[*at..at + 136].fill(0);
        }
    }
    std::fs::write(path, bytes).expect("written");
}

async fn is_whole_again(cluster: &Cluster, at: usize, like: usize) {
    let through = status(cluster.node(like)).head.index;
    until("every replica is mended", || {
        let groups = cluster.node(at).status();
        let own = groups.iter().find(|status| status.group == GROUP)?;
        let is_well = |group: &dtm_cluster::GroupStatus| {
            group.recovering.is_none() && group.failure.is_none() && group.missing_bundles == 0
        };
        (groups.iter().all(is_well) && own.head.index >= through).then_some(())
    })
    .await;
    same(cluster, at, like, 0).await;
    let heads = until("both at the same index", || {
        let heads = (status(cluster.node(like)).head, status(cluster.node(at)).head);
        (heads.0.index == heads.1.index).then_some(heads)
    })
    .await;
    assert_eq!(heads.0, heads.1, "RAFT-1: the same ledger at the same index");
}

// holds: ING-1, RAFT-1
// fault: F6, F8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_entries_on_two_of_three_are_fetched() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(2).await;
    write(&cluster, 0, 0..80).await;
    let leader = cluster.leader_of(GROUP).await;
    let other = (leader + 1) % 3;
    // All three stop, two of them damaged at different places: none can lead before it is mended.
    for at in 0..3 {
        cluster.kill(at).await;
    }
    assert_eq!(damage_log(&cluster.disks[leader].storage.dir(), 3, 8), 8);
    assert_eq!(damage_log(&cluster.disks[other].storage.dir(), 5, 4), 4);
    for at in 0..3 {
        cluster.restart(at).await;
    }
    write(&cluster, 0, 80..90).await;
    for at in [leader, other] {
        is_whole_again(&cluster, at, 3 - leader - other).await;
    }
}

// holds: ING-1, RAFT-1, LIVE-1
// fault: F6, F8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_page_on_two_of_three_stops_no_idle_group() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(2).await;
    let idle = GroupId(2);
    propose(cluster.node(0), idle, command("first")).await.expect("an outcome");
    write(&cluster, 0, 0..80).await;
    for at in 0..3 {
        cluster.kill(at).await;
    }
    damage_page(&cluster.disks[0].storage.dir());
    damage_page(&cluster.disks[1].storage.dir());
    for at in 0..3 {
        cluster.restart(at).await;
    }
    let asked = tokio::time::Instant::now();
    propose(cluster.node(2), idle, command("second")).await.expect("an outcome");
    write(&cluster, 2, 80..90).await;
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    for at in [0, 1] {
        is_whole_again(&cluster, at, 2).await;
        let own = cluster.node(at).status();
        assert!(own.iter().all(|group| group.recovering.is_none()), "the idle ones too");
    }
}

// holds: ING-1, RAFT-1
// fault: F7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_rows_are_rebuilt_from_a_peer() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(2).await;
    write(&cluster, 0, 0..80).await;
    let leader = cluster.leader_of(GROUP).await;
    until("a purge", || (status(cluster.node(leader)).purged_index > 20).then_some(())).await;
    cluster.kill(leader).await;
    let state = cluster.disks[leader].storage.dir().join("state");
    let tables = files(&state, ".sst");
    assert!(!tables.is_empty());
    for table in &tables {
        let mut bytes = std::fs::read(table).expect("reads");
        (0..bytes.len()).step_by(64).for_each(|at| bytes[at] ^= 1);
        std::fs::write(table, bytes).expect("written");
    }
    cluster.restart(leader).await;
    let like = (leader + 1) % 3;
    write(&cluster, like, 80..90).await;
    is_whole_again(&cluster, leader, like).await;
}

/// All of it: what is being written while the folder is emptied would keep it.
async fn lose_rows(cluster: &Cluster, victim: usize) {
    let rows = cluster.disks[victim].storage.dir().join("state");
    until("rows that are gone", || {
        std::fs::remove_dir_all(&rows).ok();
        (!rows.exists()).then_some(())
    })
    .await;
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_rebuild_holds_up_no_other() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(2).await;
    write(&cluster, 0, 0..80).await;
    let victim = 1;
    until("a purge", || (status(cluster.node(victim)).purged_index > 20).then_some(())).await;
    cluster.kill(victim).await;
    lose_rows(&cluster, victim).await;
    let stall = |cluster: &Cluster, ms| {
        let all = cluster.disks.iter();
        all.for_each(|disk| disk.faults.scan_stall_ms.store(ms, Ordering::SeqCst));
    };
    stall(&cluster, 15_000);
    cluster.restart(victim).await;
    let of = |group| {
        let all = cluster.node(victim).status();
        all.into_iter().find(|status| status.group == group).map(|status| status.recovering)
    };
    until("the second group is mended", || of(GroupId(2))?.is_none().then_some(())).await;
    assert!(of(GROUP).is_some_and(|recovering| recovering.is_some()), "the first is rebuilt still");
    stall(&cluster, 0);
    is_whole_again(&cluster, victim, 0).await;
}

// holds: LIVE-1
// fault: F7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_can_no_longer_be_written_end_the_node() {
    let cluster = Cluster::start(1).await;
    cluster.form(1).await;
    let ended = |within| tokio::time::timeout(within, cluster.node(0).part_ended());
    assert!(ended(Duration::from_secs(1)).await.is_err(), "it goes on");
    cluster.disks[0].faults.rows_fault.store(1, Ordering::SeqCst);
    assert_eq!(ended(Duration::from_secs(20)).await, Ok("the rows"));
}

// holds: ING-1, RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_rows_are_rebuilt_and_meta_is_no_exception() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(2).await;
    write(&cluster, 0, 0..80).await;
    let victim = 1;
    until("a purge", || (status(cluster.node(victim)).purged_index > 20).then_some(())).await;
    cluster.kill(victim).await;
    lose_rows(&cluster, victim).await;
    cluster.restart(victim).await;
    write(&cluster, 0, 80..90).await;
    is_whole_again(&cluster, victim, 0).await;
    let meta = cluster.node(victim).status().into_iter().find(|group| group.group == GroupId::META);
    assert!(meta.is_some_and(|meta| meta.recovering.is_none()));
}
