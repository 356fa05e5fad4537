//! Anchors of all ledgers in meta's: each second under load, each minute without, over the loss of
//! the leader of meta.

use std::collections::BTreeMap;
use std::time::Duration;

use dtm_cluster::Head;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_types::GroupId;
use dtm_types::format::Leaf;

use crate::harness::{Cluster, command, propose, until_async};

const SECOND_US: i64 = 1_000_000;
const GROUPS: u32 = 2;

/// The anchors that a node knows, newest first.
async fn anchors(cluster: &Cluster, at: usize) -> Vec<(u64, Leaf)> {
    let view = cluster.node(at).view(GroupId::META, Freshness::Current).await.expect("meta");
    reads::anchors(view.state.as_ref(), 1_000).expect("memory")
}

/// Size and root of a ledger, by group.
type Stand = BTreeMap<u32, (u64, Vec<u8>)>;

/// Where a node stands; meta left out.
fn stand(cluster: &Cluster, at: usize) -> Stand {
    let status = cluster.node(at).status();
    let ingest = status.into_iter().filter(|group| !group.group.is_meta());
    let said = |head: Head| (head.ledger_size, head.ledger_root.to_vec());
    ingest.map(|group| (group.group.0, said(group.head))).collect()
}

/// What an anchor says; meta left out.
fn anchored(leaf: &Leaf) -> Stand {
    let groups =
        leaf.anchor.iter().flat_map(|anchor| &anchor.groups).filter(|group| group.group > 0);
    groups.map(|group| (group.group, (group.ledger_size, group.ledger_root.to_vec()))).collect()
}

/// Commands to every group for a while; pauses let each second see some.
async fn load(cluster: &Cluster, at: usize, rounds: u32) {
    for number in 0..rounds {
        for group in 1..=GROUPS {
            let text = format!("c{number}");
            // While a group elects one may be refused.
            propose(cluster.node(at), GroupId(group), command(&text)).await.ok();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the newest anchor says of each group what a replica of each node says.
async fn settled(cluster: &Cluster, running: &[usize]) {
    until_async("an anchor that is what every replica says", async || {
        let (_, newest) = anchors(cluster, running[0]).await.into_iter().next()?;
        let said = anchored(&newest);
        running.iter().all(|&at| stand(cluster, at) == said).then_some(())
    })
    .await;
}

/// One a second at most, each of a later second, each naming the one before, none going back.
fn follow(found: &[(u64, Leaf)]) {
    for pair in found.windows(2) {
        let [(_, newer), (older_index, older)] = pair else { unreachable!("pairs") };
        let second = |leaf: &Leaf| leaf.group_time_us / SECOND_US;
        assert!(second(newer) > second(older), "two of one second");
        let (newer, older) =
            (newer.anchor.as_ref().expect("held"), older.anchor.as_ref().expect("held"));
        assert_eq!(newer.previous_leaf, Some(*older_index));
        for held in &older.groups {
            let next = newer.groups.iter().find(|next| next.group == held.group);
            let next = next.expect("no group is left out again");
            assert!(next.ledger_size >= held.ledger_size, "LED-1");
            assert!(next.ledger_size > held.ledger_size || next.ledger_root == held.ledger_root);
        }
    }
}

// holds: LED-1
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledgers_are_anchored_each_second_over_the_loss_of_the_leader_of_meta() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(GROUPS).await;
    settled(&cluster, &[0, 1, 2]).await;
    let before = anchors(&cluster, 0).await.len();
    load(&cluster, 0, 40).await;
    settled(&cluster, &[0, 1, 2]).await;
    let found = anchors(&cluster, 0).await;
    follow(&found);
    assert!(found.len() >= before + 3, "four seconds of load: {} after {before}", found.len());
    let own = &found[0].1.anchor.as_ref().expect("held").groups[0];
    assert_eq!((own.group, own.ledger_size), (0, found[0].0), "meta as it stood before the leaf");

    let dead = cluster.leader_of(GroupId::META).await;
    let before = found.len();
    cluster.kill(dead).await;
    let left: Vec<usize> = (0..3).filter(|at| *at != dead).collect();
    load(&cluster, left[0], 20).await;
    settled(&cluster, &left).await;
    let found = anchors(&cluster, left[0]).await;
    follow(&found);
    assert!(found.len() > before, "the next leader of meta goes on");
    cluster.restart(dead).await;
    settled(&cluster, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_is_anchored_once_a_minute() {
    let cluster = Cluster::start(3).await;
    cluster.form(GROUPS).await;
    settled(&cluster, &[0, 1, 2]).await;
    // What the founding still writes may move a ledger once more.
    let still = until_async("a cluster that stands still", async || {
        let before = anchors(&cluster, 0).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = anchors(&cluster, 0).await;
        (before[0].0 == after[0].0).then_some(after)
    })
    .await;
    let (newest, leaf) = &still[0];
    let age_us = || cluster.node(0).clock().now_us() - leaf.group_time_us;
    // Most of the minute passes at once, for all of them.
    let by_us = 53 * SECOND_US - age_us();
    cluster.disks.iter().for_each(|disk| disk.clock.move_by_us(by_us));
    while age_us() < 57 * SECOND_US {
        let found = anchors(&cluster, 0).await;
        let groups = |leaf: &Leaf| leaf.anchor.clone().expect("held").groups;
        let (was, is) = (groups(leaf), groups(&found[0].1));
        assert_eq!(found[0].0, *newest, "what moved? {was:?} {is:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    until_async("the anchor of the minute", async || {
        (anchors(&cluster, 0).await[0].0 > *newest).then_some(())
    })
    .await;
    follow(&anchors(&cluster, 0).await);
}
