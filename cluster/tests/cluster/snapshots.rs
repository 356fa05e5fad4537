//! Snapshots: what a follower held, what it got, what it lacks, cut off at each phase.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dtm_cluster::{ClusterNode, GroupStatus};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, Proposer, ReadView, RecordError};
use dtm_types::GroupId;
use dtm_types::command::{DatasetRow, admin};

use crate::harness::{Cluster, admin_command, command, propose, until};
use crate::storage::Faults;

pub(crate) const GROUP: GroupId = GroupId(1);

pub(crate) fn status(node: &ClusterNode) -> GroupStatus {
    node.status().into_iter().find(|status| status.group == GROUP).expect("a replica")
}

/// Every bundle through the applied index, read on one node.
pub(crate) async fn bundles(node: &ClusterNode) -> BTreeMap<u64, Bytes> {
    let view = node.view(GROUP, Freshness::Local).await.expect("a view");
    let applied = status(node).head.index;
    let read = move || -> BTreeMap<u64, Bytes> {
        (1..=applied)
            .filter_map(|index| match view.records.bundle(index) {
                Ok(bundle) => Some((index, bundle)),
                // Blank entries and memberships are no bundles.
                Err(RecordError::NotHeld(_)) => None,
                Err(error) => panic!("index {index} of {applied}: {error}"),
            })
            .collect()
    };
    tokio::task::spawn_blocking(read).await.expect("reads")
}

pub(crate) async fn write(cluster: &Cluster, at: usize, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let text = format!("c{number}");
        propose(cluster.node(at), GROUP, command(&text)).await.expect("an outcome");
    }
}

/// The leader, a follower that is down while the others go on so far that it needs a snapshot, and
/// the third.
async fn lagging(cluster: &mut Cluster) -> (usize, usize, usize) {
    write(cluster, 0, 0..60).await;
    let leader = cluster.leader_of(GROUP).await;
    let follower = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    let behind = status(cluster.node(leader)).head.index;
    until("the follower has everything", || {
        (status(cluster.node(follower)).head.index >= behind).then_some(())
    })
    .await;
    cluster.kill(follower).await;
    write(cluster, leader, 60..150).await;
    until("a purge on both", || {
        let purged = |at: usize| status(cluster.node(at)).purged_index;
        (purged(leader) > behind + 20 && purged(third) > behind + 20).then_some(())
    })
    .await;
    (leader, follower, third)
}

async fn whole(cluster: &Cluster, at: usize, like: usize) {
    caught_up(cluster, at, like).await;
    same(cluster, at, like, 150).await;
}

async fn caught_up(cluster: &Cluster, at: usize, like: usize) {
    let through = status(cluster.node(like)).head.index;
    until("a follower that lacks nothing", || {
        let found = cluster.nodes[at].as_ref()?.status();
        let own = found.into_iter().find(|status| status.group == GROUP)?;
        let is_whole = own.head.index >= through
            && own.missing_bundles == 0
            && own.recovering.is_none()
            && own.failure.is_none();
        is_whole.then_some(())
    })
    .await;
}

/// Every bundle of one node is also on the other, at least so many.
pub(crate) async fn same(cluster: &Cluster, at: usize, like: usize, at_least: usize) {
    let (theirs, own) = (bundles(cluster.node(like)).await, bundles(cluster.node(at)).await);
    assert!(theirs.len() >= at_least, "{} bundles", theirs.len());
    for (index, bundle) in theirs {
        assert_eq!(own.get(&index), Some(&bundle), "index {index}");
    }
}

// holds: ING-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_snapshot_a_follower_reads_every_index_alone() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let (leader, follower, third) = lagging(&mut cluster).await;
    cluster.restart(follower).await;
    whole(&cluster, follower, leader).await;
    let all = bundles(cluster.node(leader)).await;
    for at in [leader, third] {
        cluster.kill(at).await;
    }
    // Nobody is left to ask, and a restart holds it too.
    let own = bundles(cluster.node(follower)).await;
    assert!(all.iter().all(|(index, bundle)| own.get(index) == Some(bundle)));
    cluster.kill(follower).await;
    cluster.restart(follower).await;
    let own = bundles(cluster.node(follower)).await;
    assert!(all.iter().all(|(index, bundle)| own.get(index) == Some(bundle)));
}

// holds: ING-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_at_any_phase_is_resumed() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let (leader, follower, third) = lagging(&mut cluster).await;
    for at in [leader, third] {
        let faults = &cluster.disks[at].faults;
        faults.scan.store(1, Ordering::SeqCst);
        faults.read_record.store(20, Ordering::SeqCst);
    }
    let faults = std::sync::Arc::clone(&cluster.disks[follower].faults);
    faults.stage_put.store(1, Ordering::SeqCst);
    faults.store_records.store(1, Ordering::SeqCst);
    cluster.restart(follower).await;
    caught_up(&cluster, follower, leader).await;
    let senders = [leader, third].map(|at| std::sync::Arc::clone(&cluster.disks[at].faults));
    let was_cut = |fault: &dyn Fn(&Faults) -> i64| senders.iter().any(|faults| fault(faults) <= 0);
    assert!(was_cut(&|faults| faults.scan.load(Ordering::SeqCst)), "rows, at the sender");
    assert!(was_cut(&|faults| faults.read_record.load(Ordering::SeqCst)), "bundles, at the sender");
    // Of the two only one sends: the other's faults must not strike the comparison.
    senders.iter().for_each(|faults| faults.read_record.store(0, Ordering::SeqCst));
    same(&cluster, follower, leader, 150).await;
    assert!(faults.stage_put.load(Ordering::SeqCst) <= 0, "the rows were cut once");
    assert!(faults.store_records.load(Ordering::SeqCst) <= 0, "the bundles were cut once");
}

// holds: ING-1
// fault: F2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_rows_and_log_of_a_snapshot_loses_nothing() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let (leader, follower, _) = lagging(&mut cluster).await;
    let faults = std::sync::Arc::clone(&cluster.disks[follower].faults);
    faults.switched.store(1, Ordering::SeqCst);
    cluster.restart(follower).await;
    until("the switch", || (faults.switched.load(Ordering::SeqCst) <= 0).then_some(())).await;
    cluster.kill(follower).await;
    cluster.restart(follower).await;
    whole(&cluster, follower, leader).await;
}

// holds: LIVE-1
// fault: F12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_behind_the_switch_of_rows_is_waited_out() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let (leader, follower, _) = lagging(&mut cluster).await;
    let faults = std::sync::Arc::clone(&cluster.disks[follower].faults);
    faults.full_after_switch.store(5, Ordering::SeqCst);
    cluster.restart(follower).await;
    whole(&cluster, follower, leader).await;
    assert_eq!(faults.full_after_switch.load(Ordering::SeqCst), 0, "there was a switch");
    assert!(faults.flushes_full.load(Ordering::SeqCst) <= 0, "the disk was full behind it");
}

/// A leader that is left alone with an entry that is never committed; the two others go on without
/// it so far that it needs a snapshot. Answers who it is and one of the others.
async fn deposed(cluster: &mut Cluster) -> (usize, usize) {
    write(cluster, 0, 0..60).await;
    let old = cluster.leader_of(GROUP).await;
    let others = [(old + 1) % 3, (old + 2) % 3];
    let committed = status(cluster.node(old)).head.index;
    for at in others {
        until("the others have everything", || {
            (status(cluster.node(at)).head.index >= committed).then_some(())
        })
        .await;
        cluster.kill(at).await;
    }
    let before = status(cluster.node(old)).last_index;
    cluster.node(old).propose(GROUP, command("never"), Box::new(|_| {}));
    until("an entry that nobody else has", || {
        (status(cluster.node(old)).last_index > before).then_some(())
    })
    .await;
    cluster.kill(old).await;
    for at in others {
        cluster.restart(at).await;
    }
    write(cluster, others[0], 60..150).await;
    until("a purge on both", || {
        let purged = |at: usize| status(cluster.node(at)).purged_index;
        others.iter().all(|&at| purged(at) > committed + 30).then_some(())
    })
    .await;
    (old, others[0])
}

// holds: RAFT-1 ING-1 ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_committed_is_not_taken_for_a_bundle_of_a_snapshot() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let (old, like) = deposed(&mut cluster).await;
    // Its log follows the rows of the snapshot late: fetching goes over the note meanwhile.
    let faults = std::sync::Arc::clone(&cluster.disks[old].faults);
    faults.full_after_switch.store(25, Ordering::SeqCst);
    cluster.restart(old).await;
    whole(&cluster, old, like).await;
    assert_eq!(faults.full_after_switch.load(Ordering::SeqCst), 0, "there was a switch");
    let (of_old, of_like) = (bundles(cluster.node(old)).await, bundles(cluster.node(like)).await);
    assert!(of_old.iter().all(|(index, bundle)| of_like.get(index) == Some(bundle)), "ING-4");
}

// holds: ING-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sender_lacks_comes_from_another_peer_and_a_reader_is_told() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let (leader, follower, third) = lagging(&mut cluster).await;
    let purged = [leader, third].map(|at| status(cluster.node(at)).purged_index);
    let from = i64::try_from(purged[0].min(purged[1])).expect("small") - 15;
    let all = bundles(cluster.node(leader)).await;
    for at in [leader, third] {
        cluster.disks[at].faults.lose(from, from + 4);
    }
    cluster.restart(follower).await;
    let through = status(cluster.node(leader)).head.index;
    until("a snapshot with a hole", || {
        let own = status(cluster.node(follower));
        (own.head.index >= through && (1..=5).contains(&own.missing_bundles)).then_some(())
    })
    .await;
    let view = cluster.node(follower).view(GROUP, Freshness::Local).await.expect("a view");
    let index = u64::try_from(from).expect("positive");
    let records = view.records;
    // The frozen rows would hold the folder open over the restart.
    drop(view.state);
    let read = move || records.bundle(index);
    let read = tokio::task::spawn_blocking(read).await.expect("reads");
    assert_eq!(read, Err(RecordError::Missing(index)), "never silently skipped");
    // The note outlives a restart, and empties once one peer has it.
    cluster.kill(follower).await;
    cluster.restart(follower).await;
    assert!(status(cluster.node(follower)).missing_bundles > 0);
    cluster.disks[third].faults.lose(0, 0);
    until("the hole is filled", || {
        (status(cluster.node(follower)).missing_bundles == 0).then_some(())
    })
    .await;
    let own = bundles(cluster.node(follower)).await;
    assert!(all.iter().all(|(index, bundle)| own.get(index) == Some(bundle)));
}

fn meta(node: &ClusterNode) -> GroupStatus {
    node.status().into_iter().find(|status| status.group.is_meta()).expect("a replica")
}

/// A definition of 200 KB as one of many.
fn definition(version: u32) -> Bytes {
    admin_command(admin::Op::PutDataset(DatasetRow {
        dataset: "large".into(),
        schema_version: version,
        definition: "x".repeat(200_000),
        digest: vec![1; 32].into(),
        published_us: 0,
    }))
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_lie_together_and_are_larger_than_a_message_are_copied() {
    let mut cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let leader = cluster.leader_of(GroupId::META).await;
    let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let behind = meta(cluster.node(leader)).head.index;
    cluster.kill(follower).await;
    // 18 MB of neighbours: a message between nodes is at most 16 MiB.
    for version in 1..=90 {
        let node = cluster.node(leader);
        propose(node, GroupId::META, definition(version)).await.expect("published");
    }
    until("a purge on both", || {
        let purged = |at: usize| meta(cluster.node(at)).purged_index;
        (purged(leader) > behind + 20 && purged(third) > behind + 20).then_some(())
    })
    .await;
    cluster.restart(follower).await;
    let through = meta(cluster.node(leader)).head.index;
    until("meta is copied", || {
        let found = cluster.node(follower).status();
        let own = found.into_iter().find(|status| status.group.is_meta())?;
        (own.head.index >= through && own.failure.is_none()).then_some(())
    })
    .await;
    let view = cluster.node(follower).view(GroupId::META, Freshness::Local).await.expect("a view");
    let rows = reads::dataset_versions(&*view.state, "large").expect("rows");
    assert_eq!(rows.len(), 90);
}
