//! Rows of replicas are held against each other: what is planted is found, named and mended.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_cluster::{ClusterConfig, GroupStatus, RowsCompared, StateProvider};
use dtm_machine::keys;
use dtm_machine::seams::StateBatch;
use dtm_types::GroupId;

use crate::harness::{Cluster, PATIENCE, command, propose, until};
use crate::snapshots::{GROUP, write};
use crate::storage::Storage;

/// Far more often than by default, so that a test need not wait; snapshots and purges come soon.
fn often(config: &mut ClusterConfig) {
    config.compare_every_ms = 500;
    config.flush_interval_ms = 200;
    config.log_entries_kept = 8;
}

fn states(cluster: &Cluster, at: usize) -> &dyn StateProvider {
    match &cluster.disks[at].storage {
        Storage::Memory(_, states) => &**states,
        Storage::Disk(_) => panic!("rows are planted in memory"),
    }
}

fn row(cluster: &Cluster, at: usize, group: GroupId, key: &[u8]) -> Option<Bytes> {
    states(cluster, at).open(group).expect("opens").get(key).expect("memory")
}

/// Writes past apply, in one write: no comparison sees a part of it.
fn plant(cluster: &Cluster, at: usize, group: GroupId, rows: &[(&[u8], &str)]) {
    let mut batch = StateBatch::default();
    rows.iter().for_each(|(key, value)| batch.put(*key, *value));
    states(cluster, at).open(group).expect("opens").write(&batch).expect("memory");
}

fn status(cluster: &Cluster, at: usize, group: GroupId) -> Option<GroupStatus> {
    let status = cluster.nodes[at].as_ref()?.status();
    status.into_iter().find(|status| status.group == group)
}

/// What whoever leads the group found last, where `is_it` holds of it.
async fn compared(
    cluster: &Cluster,
    group: GroupId,
    what: &str,
    is_it: impl Fn(&RowsCompared) -> bool,
) -> RowsCompared {
    until(what, || {
        let all = (0..cluster.nodes.len()).filter_map(|at| status(cluster, at, group)?.compared);
        all.into_iter().find(&is_it)
    })
    .await
}

/// A comparison of so many replicas that began after now finds them equal.
async fn agree(cluster: &Cluster, group: GroupId, replicas: usize) {
    let now = Instant::now();
    let is_clean = |found: &RowsCompared| {
        found.differing == 0 && found.replicas == replicas && found.age < now.elapsed()
    };
    let found = compared(cluster, group, "comparison in which all agree", is_clean).await;
    assert!(found.rows > 0 && found.absent == 0, "{found:?}");
}

/// Plants something on a node that is found, named in words, told of that replica alone, and mended:
/// the row is what it was, and all replicas agree again.
async fn planted_is_mended(cluster: &Cluster, at: usize, group: GroupId, replicas: usize) {
    agree(cluster, group, replicas).await;
    let key = keys::leaf(0);
    let right = row(cluster, at, group, &key).expect("the genesis");
    let only_here = keys::place(1 << 40, 7);
    let planted = tokio::time::Instant::now();
    let rows = [(&key[..], "an edit by hand"), (&only_here, "nobody else has this")];
    plant(cluster, at, group, &rows);
    let named = ["batch at index 1099511627776, command 7", "leaf 0 of the ledger"];
    until("the difference, located to the row", || {
        // A leader that is off tells it, hands over and goes down for the same reason.
        let tells = |found: &RowsCompared| {
            (found.differing, found.undecided) == (2, 0) && found.named == named
        };
        let is_named = |cause: &String| named.iter().all(|name| cause.contains(name));
        let all = (0..cluster.nodes.len()).filter_map(|at| Some((at, status(cluster, at, group)?)));
        all.into_iter()
            .any(|(of, status)| {
                status.compared.as_ref().is_some_and(tells)
                    || (of == at && status.recovering.as_ref().is_some_and(is_named))
            })
            .then_some(())
    })
    .await;
    until("the rows are what they were", || {
        let is_mended = row(cluster, at, group, &key).as_ref() == Some(&right)
            && row(cluster, at, group, &only_here).is_none();
        is_mended.then_some(())
    })
    .await;
    until("the replica runs again", || {
        let own = status(cluster, at, group)?;
        (own.recovering.is_none() && own.failure.is_none() && own.missing_bundles == 0)
            .then_some(())
    })
    .await;
    agree(cluster, group, replicas).await;
    assert!(planted.elapsed() < 3 * PATIENCE, "{:?}", planted.elapsed());
}

// The replica of meta on the fourth node learns, as one of a standby does; it is found like a voter.
//
// covers: P-20.3
// fault: F7
// holds: RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_difference_is_found_located_and_repaired_from_the_original() {
    let cluster = Cluster::start_with(4, |_| Storage::memory(), often).await;
    let defaults = ClusterConfig::new(Default::default(), Default::default());
    assert!(defaults.compare_every_ms <= 900_000, "four times within the hour");
    assert!(defaults.compare_bytes_per_second > 0, "turned on");
    cluster.form(1).await;
    write(&cluster, 0, 0..120).await;
    let learns = |status: &GroupStatus| {
        let own = status.replicas.iter().find(|replica| replica.replica == status.replica);
        own.is_some_and(|own| !own.is_voter)
    };
    let learner = until("a replica that learns", || {
        (0..4).find(|at| status(&cluster, *at, GroupId::META).as_ref().is_some_and(learns))
    })
    .await;
    planted_is_mended(&cluster, learner, GroupId::META, 4).await;

    let leader = cluster.leader_of(GROUP).await;
    let holds = |at: &usize| status(&cluster, *at, GROUP).is_some();
    let follower = (0..4).filter(holds).find(|at| *at != leader).expect("three hold it");
    planted_is_mended(&cluster, follower, GROUP, 3).await;

    // Who leads is not right because it leads.
    let leader = cluster.leader_of(GROUP).await;
    planted_is_mended(&cluster, leader, GROUP, 3).await;
    for number in 120..140 {
        let text = format!("c{number}");
        propose(cluster.node(leader), GROUP, command(&text)).await.expect("the group goes on");
    }
    agree(&cluster, GROUP, 3).await;
}

// holds: RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_differs_and_comparisons_come_to_their_end() {
    let cluster = Cluster::start_with(3, |_| Storage::memory(), often).await;
    cluster.form(2).await;
    let until_then = Instant::now() + Duration::from_secs(8);
    let mut number = 0;
    let mut indexes = std::collections::BTreeSet::new();
    while Instant::now() < until_then {
        for _ in 0..20 {
            number += 1;
            let group = GroupId(1 + number % 2);
            propose(cluster.node(0), group, command(&format!("c{number}"))).await.expect("one");
        }
        for found in (0..3).filter_map(|at| status(&cluster, at, GROUP)?.compared) {
            assert_eq!((found.differing, &found.named[..]), (0, &[][..]), "{found:?}");
            indexes.insert(found.index);
        }
    }
    assert!(indexes.len() > 2, "compared at {indexes:?}, while {number} entries came");
    agree(&cluster, GROUP, 3).await;
}

// Of two voters neither is more than half: nobody knows which is right, and nothing is repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_repaired() {
    let cluster = Cluster::start_with(2, |_| Storage::memory(), often).await;
    cluster.form(1).await;
    write(&cluster, 0, 0..40).await;
    agree(&cluster, GROUP, 2).await;
    let key = keys::leaf(0);
    plant(&cluster, 1, GROUP, &[(&key, "an edit by hand")]);
    let found = compared(&cluster, GROUP, "the difference", |found| found.undecided == 1).await;
    assert_eq!((found.differing, &*found.named[0]), (1, "leaf 0 of the ledger"));
    // Time for more comparisons, none of which may touch anything.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(row(&cluster, 1, GROUP, &key), Some(Bytes::from_static(b"an edit by hand")));
    for at in 0..2 {
        let own = status(&cluster, at, GROUP).expect("a replica");
        assert_eq!((own.recovering, own.failure), (None, None));
    }
}
