//! Clocks that are wrong: who leads, and what group time becomes.

use std::time::Duration;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{Clock, Freshness, ReadView};
use dtm_types::GroupId;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{
    Admin, Command, JoinTokenRow, NodeRow, Outcome, UseJoinToken, admin, command::Op,
};
use prost::Message;

use crate::harness::{Cluster, command, propose, until};

const HOUR_US: i64 = 3_600_000_000;
/// What stamps may run ahead: the limit, and what passes between two readings of a clock here.
const AHEAD_US: i64 = 600_000;

/// Group time less the time of a clock that is right.
async fn ahead_us(cluster: &Cluster, group: GroupId, right: usize) -> i64 {
    let view = cluster.node(right).view(group, Freshness::Current).await.expect("a current view");
    let head = reads::head(view.state.as_ref()).expect("a head");
    head.group_time_us - cluster.disks[right].clock.now_us()
}

fn led_by(cluster: &Cluster, groups: u32, at: usize) -> usize {
    let leads =
        |group: &u32| cluster.node(at).leader(GroupId(*group)).is_some_and(|leader| leader.is_self);
    (0..=groups).filter(leads).count()
}

async fn write(cluster: &Cluster, at: usize, group: GroupId) {
    // A leader that is about to hand over may let a command wait too long: it is sent again.
    for _ in 0..5 {
        if propose(cluster.node(at), group, command("c")).await.is_ok() {
            return;
        }
    }
    panic!("group {group} takes nothing through node {at}");
}

async fn admin(cluster: &Cluster, at: usize, byte: u8, op: admin::Op) -> Outcome {
    let op = Op::Admin(Admin { op: Some(op), ..Admin::default() });
    let request_id = Bytes::from(vec![byte; 16]);
    let command = Command { request_id, op: Some(op), ..Command::default() }.encode_to_vec();
    propose(cluster.node(at), GroupId::META, command.into()).await.expect("applied")
}

// holds: LIVE-1
// fault: F20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_set_forward_leads_nothing_and_moves_no_time() {
    const GROUPS: u32 = 5;
    let cluster = Cluster::start(3).await;
    cluster.form(GROUPS).await;
    until("leaders on each node", || {
        (0..3).all(|at| led_by(&cluster, GROUPS, at) == 2).then_some(())
    })
    .await;
    let wrong = cluster.leader_of(GroupId::META).await;
    let right = (wrong + 1) % 3;
    cluster.disks[wrong].clock.move_by_us(HOUR_US);
    // Before anybody has weighed anything.
    write(&cluster, wrong, GroupId::META).await;
    let ahead = ahead_us(&cluster, GroupId::META, right).await;
    assert!(ahead < AHEAD_US, "meta is {ahead} us ahead");
    until("the node to lead nothing", || (led_by(&cluster, GROUPS, wrong) == 0).then_some(()))
        .await;
    assert!(cluster.node(wrong).clock_status().is_astray);
    assert!(!cluster.node(right).clock_status().is_astray);
    for group in (0..=GROUPS).map(GroupId) {
        write(&cluster, wrong, group).await;
        let ahead = ahead_us(&cluster, group, right).await;
        assert!(ahead < AHEAD_US, "group {group} is {ahead} us ahead");
    }
    join_with_a_token(&cluster, right).await;
    // Two rounds of the controller, which would bring leaders home.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(led_by(&cluster, GROUPS, wrong), 0);
    cluster.disks[wrong].clock.move_by_us(-HOUR_US);
    until("leaders to come home", || (led_by(&cluster, GROUPS, wrong) == 2).then_some(())).await;
    write(&cluster, wrong, GroupId::META).await;
}

/// A token that is good for a minute is good.
async fn join_with_a_token(cluster: &Cluster, at: usize) {
    let token_hash = Bytes::from(vec![9; 32]);
    let expires_us = cluster.disks[at].clock.now_us() + 60_000_000;
    let row =
        JoinTokenRow { token_hash: token_hash.clone(), expires_us, ..JoinTokenRow::default() };
    let made = admin(cluster, at, 2, admin::Op::PutJoinToken(row)).await;
    assert!(matches!(made.result, Some(Answer::Done(_))), "{made:?}");
    // Under an address of nobody, removed at once: the cluster must not wait for it.
    let node = Bytes::from(vec![0xee; 16]);
    let row = NodeRow {
        node: node.clone(),
        version_max: u32::from(dtm_types::bundle::VERSION_MAX),
        ..NodeRow::default()
    };
    let join = UseJoinToken { token_hash, node: Some(row) };
    let joined = admin(cluster, at, 3, admin::Op::UseJoinToken(join)).await;
    assert!(matches!(joined.result, Some(Answer::Done(_))), "{joined:?}");
    let remove =
        admin::Op::RemoveNode(dtm_types::command::RemoveNode { node, ..Default::default() });
    admin(cluster, at, 4, remove).await;
}

// holds: LIVE-1
// fault: F20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_both_go_on_and_time_follows_the_slower_clock() {
    let mut cluster = Cluster::start(2).await;
    cluster.form(1).await;
    let group = GroupId(1);
    write(&cluster, 0, group).await;
    let wrong = cluster.leader_of(group).await;
    let right = 1 - wrong;
    // Also as it starts, when nothing is known of what was before.
    cluster.kill(wrong).await;
    cluster.disks[wrong].clock.move_by_us(HOUR_US);
    cluster.restart(wrong).await;
    write(&cluster, wrong, group).await;
    write(&cluster, right, group).await;
    until("the difference to be told", || {
        (cluster.node(wrong).clock_status().spread_us > HOUR_US / 2).then_some(())
    })
    .await;
    assert!(!cluster.node(wrong).clock_status().is_astray, "nobody can say which is wrong");
    cluster.node(right).transfer(group, cluster.disks[wrong].config.node.node).await.ok();
    until("the wrong one to lead", || {
        cluster.node(wrong).leader(group).is_some_and(|leader| leader.is_self).then_some(())
    })
    .await;
    write(&cluster, wrong, group).await;
    let ahead = ahead_us(&cluster, group, right).await;
    assert!(ahead < AHEAD_US, "group {group} is {ahead} us ahead");
}

// fault: F20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_with_a_wrong_clock_takes_no_leadership() {
    const GROUPS: u32 = 2;
    let mut cluster = Cluster::start(3).await;
    cluster.form(GROUPS).await;
    until("leaders on each node", || {
        (0..3).all(|at| led_by(&cluster, GROUPS, at) == 1).then_some(())
    })
    .await;
    cluster.kill(2).await;
    for off_us in [-HOUR_US, 2 * HOUR_US] {
        cluster.disks[2].clock.move_by_us(off_us);
        cluster.restart(2).await;
        until("the node to know", || cluster.node(2).clock_status().is_astray.then_some(())).await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(led_by(&cluster, GROUPS, 2), 0, "{off_us}");
        for group in (0..=GROUPS).map(GroupId) {
            write(&cluster, 2, group).await;
            let ahead = ahead_us(&cluster, group, 0).await;
            assert!(ahead < AHEAD_US, "group {group} is {ahead} us ahead");
        }
        cluster.kill(2).await;
    }
}

// A single node has nothing to hold its clock against: it goes on, and gains a second a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_goes_on_when_its_clock_is_set() {
    let cluster = Cluster::start(1).await;
    cluster.form(1).await;
    // The first comparison.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for off_us in [HOUR_US, -2 * HOUR_US, HOUR_US] {
        let before = std::time::Instant::now();
        cluster.disks[0].clock.move_by_us(off_us);
        write(&cluster, 0, GroupId(1)).await;
        assert!(before.elapsed() < Duration::from_secs(2), "it does not wait");
    }
    let ahead = ahead_us(&cluster, GroupId(1), 0).await;
    assert!(ahead < 30_000_000, "{ahead} us ahead");
}
