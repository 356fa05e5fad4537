//! Nodes of two sites: what they tell each other goes over lines, and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dtm_cluster::ClusterConfig;
use dtm_machine::seams::ReadView;
use dtm_types::GroupId;

use crate::harness::{Cluster, command, propose, until};
use crate::proxy::Weather;
use crate::replication::held;
use crate::snapshots::{GROUP, same, status, write};
use crate::storage::Storage;

/// Two nodes here, one over there; the line has a round trip of 10 ms.
async fn two_sites(storage: impl Fn(u8) -> Storage) -> (Cluster, Arc<Weather>) {
    let weather = Arc::new(Weather::default());
    weather.delay_us.store(5_000, Ordering::Relaxed);
    let soon = |config: &mut ClusterConfig| {
        config.flush_interval_ms = 200;
        config.log_entries_kept = 8;
    };
    let cluster =
        Cluster::start_in_sites(&["here", "here", "there"], &weather, storage, soon).await;
    cluster.form(2).await;
    until("lines in both directions", || {
        let reaches = |from: usize, to: usize| {
            let node = cluster.disks[to].config.node.node;
            cluster.disks[from].outside.as_ref().is_some_and(|outside| outside.reaches(node))
        };
        let ways = [(0, 2), (1, 2), (2, 0), (2, 1)];
        ways.into_iter().all(|(from, to)| reaches(from, to)).then_some(())
    })
    .await;
    (cluster, weather)
}

fn applied(cluster: &Cluster, at: usize) -> u64 {
    status(cluster.node(at)).head.index
}

// holds: RAFT-1, ING-1
// fault: F8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_two_sites_replicates_and_gets_over_a_cut() {
    let (cluster, weather) = two_sites(|_| Storage::memory()).await;
    for number in 0..30 {
        let group = GroupId(1 + number % 2);
        let (at, text) = (number as usize % 3, format!("c{number}"));
        propose(cluster.node(at), group, command(&text)).await.expect("an outcome");
    }
    for group in [GroupId(1), GroupId(2)] {
        let first = held(cluster.node(0), group, 200).await;
        assert_eq!(first.len(), 15);
        assert_eq!(held(cluster.node(2), group, 200).await, first, "over the line");
    }

    weather.cut(true);
    // The two on this side go on, whoever led; the one over there hears nothing, though its TCP
    // port is open as ever.
    until("a leader on this side", || {
        let leads = |at: usize| cluster.node(at).leader(GROUP).is_some_and(|hint| hint.is_self);
        (leads(0) || leads(1)).then_some(())
    })
    .await;
    let before = applied(&cluster, 2);
    for number in 30..50 {
        let text = format!("c{number}");
        propose(cluster.node(0), GROUP, command(&text)).await.expect("a majority is here");
    }
    assert!(applied(&cluster, 0) >= before + 20 && applied(&cluster, 2) <= before + 1);

    weather.cut(false);
    let through = applied(&cluster, 0);
    until("the other site has everything", || (applied(&cluster, 2) >= through).then_some(()))
        .await;
    assert_eq!(held(cluster.node(2), GROUP, 200).await, held(cluster.node(0), GROUP, 200).await);
}

// holds: ING-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_was_cut_off_for_long_gets_a_snapshot_over_the_line() {
    let (mut cluster, weather) = two_sites(|_| Storage::disk()).await;
    write(&cluster, 0, 0..60).await;
    cluster.kill(2).await;
    write(&cluster, 0, 60..150).await;
    let behind = 60;
    until("a purge on both", || {
        let purged = |at: usize| status(cluster.node(at)).purged_index;
        (purged(0) > behind + 20 && purged(1) > behind + 20).then_some(())
    })
    .await;
    weather.lost_per_million.store(5_000, Ordering::Relaxed);
    cluster.restart(2).await;
    let through = applied(&cluster, 0);
    until("the other site is whole", || {
        let found = cluster.node(2).status();
        let own = found.into_iter().find(|status| status.group == GROUP)?;
        let is_whole = own.head.index >= through && own.missing_bundles == 0;
        (is_whole && own.failure.is_none()).then_some(())
    })
    .await;
    same(&cluster, 2, 0, 150).await;
}
