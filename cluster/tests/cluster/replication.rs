//! Commands reach every replica, through leader and follower, over the loss of a node.

use std::time::Duration;

use dtm_cluster::{ClusterConfig, ClusterNode};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ProposeError, ReadView};
use dtm_types::command::command::Op;
use dtm_types::command::{Admin, Command, NodeRow, admin};
use dtm_types::{GroupId, bundle};
use futures::FutureExt;
use prost::Message;
use tokio::net::TcpListener;

use crate::harness::{Cluster, command, propose, until, until_async};
use crate::storage::Storage;

/// Texts of all commands that a node holds, in log order, from what it has confirmed as current.
pub(crate) async fn held(node: &ClusterNode, group: GroupId, through: u64) -> Vec<String> {
    let view = node.view(group, Freshness::Current).await.expect("a current view");
    assert!(view.current);
    texts(&view, through)
}

/// Texts of all commands up to an index.
pub(crate) fn texts(view: &GroupView, through: u64) -> Vec<String> {
    let mut texts = Vec::new();
    for index in 0..=through {
        let Ok(bytes) = view.records.bundle(index) else {
            continue;
        };
        for command in bundle::decode(&bytes).expect("a bundle").commands {
            if let Some(dtm_types::command::command::Op::CountRefusals(counts)) = command.op {
                texts.extend(counts.counts.into_iter().map(|count| count.prefix));
            }
        }
    }
    texts
}

// holds: RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_every_replica() {
    let cluster = Cluster::start(3).await;
    cluster.form(2).await;
    for number in 0..30 {
        let at = number % 3;
        let text = format!("c{number}");
        let group = GroupId(1 + number as u32 % 2);
        propose(cluster.node(at), group, command(&text)).await.expect("an outcome");
    }
    for group in [GroupId(1), GroupId(2)] {
        let first = held(cluster.node(0), group, 200).await;
        assert_eq!(first.len(), 15);
        for at in 1..3 {
            assert_eq!(
                held(cluster.node(at), group, 200).await,
                first,
                "node {at} of group {group}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_read_its_log_through_goes_on() {
    let off = |config: &mut ClusterConfig| config.scrub_bytes_per_second = 0;
    let cluster = Cluster::start_with(1, |_| Storage::memory(), off).await;
    cluster.form(1).await;
    propose(cluster.node(0), GroupId(1), command("c")).await.expect("an outcome");
    assert_eq!(cluster.node(0).part_ended().now_or_never(), None);
}

// holds: ING-1, ING-2
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_leader_dies_and_returns() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    let group = GroupId(1);
    let mut acked = Vec::new();
    for number in 0..20 {
        let text = format!("before{number}");
        propose(cluster.node(number % 3), group, command(&text)).await.expect("an outcome");
        acked.push(text);
    }
    let dead = cluster.leader_of(group).await;
    cluster.kill(dead).await;
    let survivor = (dead + 1) % 3;
    for number in 0..20 {
        let text = format!("without{number}");
        if propose(cluster.node(survivor), group, command(&text)).await.is_ok() {
            acked.push(text);
        }
    }
    assert!(acked.len() > 20, "the two that are left go on");
    cluster.restart(dead).await;
    for at in 0..3 {
        let texts = held(cluster.node(at), group, 500).await;
        for text in &acked {
            let copies = texts.iter().filter(|held| *held == text).count();
            assert_eq!(copies, 1, "{text} on node {at}");
        }
    }
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_spread_and_leave_a_draining_node() {
    let cluster = Cluster::start(3).await;
    cluster.form(5).await;
    until("two groups led by each node", || {
        let spread =
            (0..3).all(|at| (0..6).filter(|&id| is_led_by(&cluster, GroupId(id), at)).count() == 2);
        spread.then_some(())
    })
    .await;
    cluster.node(1).drain().await.expect("drains");
    assert!((0..6).all(|id| !is_led_by(&cluster, GroupId(id), 1)));
}

// The leaders of a node that is drained go to one that takes them, not to one that is drained itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_gets_no_leaders_of_another() {
    let cluster = Cluster::start(3).await;
    cluster.form(5).await;
    for at in [0, 1] {
        let row = NodeRow { draining: true, ..cluster.row(at) };
        let op = Op::Admin(Admin { op: Some(admin::Op::PutNode(row)), ..Admin::default() });
        let put = Command { op: Some(op), ..Command::default() }.encode_to_vec();
        propose(cluster.node(0), GroupId::META, put.into()).await.expect("put");
    }
    for at in 0..3 {
        until_async("every node knows both", async || {
            let view = cluster.node(at).view(GroupId::META, Freshness::Local).await.expect("meta");
            let rows = reads::nodes(view.state.as_ref()).expect("reads");
            (rows.iter().filter(|row| row.draining).count() == 2).then_some(())
        })
        .await;
    }
    for at in [0, 1] {
        cluster.node(at).drain().await.expect("drains");
        assert!((0..6).all(|id| !is_led_by(&cluster, GroupId(id), at)), "node {at} leads");
    }
    // Node 1 was drained second: what it gave up went past node 0.
    assert!((0..6).all(|id| !is_led_by(&cluster, GroupId(id), 0)), "node 0 got some back");
}

pub(crate) fn is_led_by(cluster: &Cluster, group: GroupId, at: usize) -> bool {
    cluster.node(at).leader(group).is_some_and(|hint| hint.is_self)
}

// A connection that is refused is told at once: without a pause a leader asks thousands of times a
// second, and says so in its log each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_is_asked_with_pauses() {
    const LOOK: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    let address = cluster.disks[2].config.node.peer_address.clone();
    cluster.kill(2).await;
    let mut listener = TcpListener::bind(&address).await;
    for _ in 0..100 {
        if listener.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        listener = TcpListener::bind(&address).await;
    }
    let listener = listener.expect("the killed node's port is free");
    let at = cluster.leader_of(GroupId(1)).await;
    propose(cluster.node(at), GroupId(1), command("c")).await.expect("an outcome");
    let mut asked = 0;
    let asking = async {
        loop {
            // Dropped at once: no handshake, no answer.
            listener.accept().await.expect("a connection");
            asked += 1;
        }
    };
    tokio::time::timeout(LOOK, asking).await.expect_err("it goes on asking");
    println!("asked {asked} times in {LOOK:?}");
    assert!((1..300).contains(&asked), "asked {asked} times in {LOOK:?}");
}

// What the leader's log does not take is told as that through a follower too: as an unknown outcome
// it would be sent again for ever.
//
// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_the_leader_does_not_take_is_refused_for_good_wherever_it_came_in() {
    let cluster = Cluster::start_on_disk(3).await;
    cluster.form(1).await;
    let leader = cluster.leader_of(GroupId(1)).await;
    // A log with segments of 1 MiB takes a quarter of that.
    let large = command(&"x".repeat(300_000));
    for at in [leader, (leader + 1) % 3] {
        let refused = propose(cluster.node(at), GroupId(1), large.clone()).await;
        let Err(ProposeError::TooLarge { bytes, bytes_max, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(bytes >= large.len() && bytes_max < 1 << 18, "{bytes} of {bytes_max}");
        propose(cluster.node(at), GroupId(1), command("next")).await.expect("its neighbours go on");
    }
}
