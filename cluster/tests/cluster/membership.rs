//! Who is a member: lost disks, old copies of a disk, removed nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dtm_cluster::{ClusterConfig, Error, LogProvider};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_types::command::{Admin, Command, GroupRow, RemoveNode, admin, command::Op};
use dtm_types::{GroupId, NodeId, ReplicaId};
use prost::Message;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{Cluster, command, propose, until, until_async};
use crate::storage::Storage;

const GROUP: GroupId = GroupId(1);

fn id(at: usize) -> NodeId {
    NodeId([u8::try_from(at).expect("few nodes") + 1; 16])
}

/// Voters of a group on a node, as any running node sees them.
fn voters_on(cluster: &Cluster, group: GroupId, at: usize) -> Vec<ReplicaId> {
    let leader = cluster.nodes.iter().flatten().find_map(|node| {
        let led = node.leader(group).is_some_and(|hint| hint.is_self);
        led.then(|| node.status().into_iter().find(|status| status.group == group)).flatten()
    });
    let replicas = leader.into_iter().flat_map(|status| status.replicas);
    replicas.filter(|r| r.node == id(at) && r.is_voter).map(|r| r.replica).collect()
}

async fn rows(cluster: &Cluster, at: usize) -> Vec<GroupRow> {
    let meta = cluster.node(at).view(GroupId::META, Freshness::Current).await.expect("meta");
    reads::groups(meta.state.as_ref()).expect("rows")
}

async fn admin(cluster: &Cluster, op: admin::Op) {
    let op = Op::Admin(Admin { op: Some(op), ..Admin::default() });
    let command = Command { op: Some(op), ..Command::default() }.encode_to_vec();
    propose(cluster.node(0), GroupId::META, command.into()).await.expect("applied");
}

// Rows, replicas and members change one step a round: with the usual pause before each step it took
// eight of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_takes_shape_without_a_pause_between_steps() {
    const PAUSE: Duration = Duration::from_secs(3);
    let slowly = |config: &mut ClusterConfig| config.control_interval_ms = 3_000;
    let cluster = Cluster::start_with(3, |_| Storage::memory(), slowly).await;
    let founded = Instant::now();
    cluster.form(6).await;
    println!("all voters after {:?}", founded.elapsed());
    assert!(founded.elapsed() < 4 * PAUSE, "all voters after {:?}", founded.elapsed());
}

// holds: ING-1
// fault: F22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_log_votes_only_under_new_ids() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    for number in 0..20 {
        propose(cluster.node(0), GROUP, command(&format!("c{number}"))).await.expect("an outcome");
    }
    let before: Vec<_> =
        [GroupId::META, GROUP].map(|group| voters_on(&cluster, group, 2)).into_iter().collect();
    cluster.kill(2).await;
    cluster.disks[2].storage.lose_log();
    cluster.restart(2).await;
    for (group, before) in [GroupId::META, GROUP].into_iter().zip(before) {
        let after = until("a voter under a new id", || {
            let voters = voters_on(&cluster, group, 2);
            (voters.len() == 1 && voters != before).then(|| voters[0])
        })
        .await;
        assert!(before.iter().all(|old| *old < after), "{after} of group {group}");
        assert!(
            cluster.disks[2].storage.logs().replicas().contains(&(group, after)),
            "the log holds the new one"
        );
        assert!(
            before.iter().all(|&old| !cluster.disks[2]
                .storage
                .logs()
                .replicas()
                .contains(&(group, old)))
        );
    }
    for row in rows(&cluster, 2).await {
        let of_node = row.replicas.iter().filter(|r| r.node == id(2).0[..]);
        let (gone, live): (Vec<_>, Vec<_>) = of_node.partition(|replica| replica.removed);
        assert_eq!((gone.len(), live.len()), (1, 1), "{row:?}");
        assert!(live[0].confirmed && live[0].replica > gone[0].replica);
    }
    let view = cluster.node(2).view(GROUP, Freshness::Current).await.expect("a current view");
    assert!(reads::head(view.state.as_ref()).expect("a head").applied_index >= 20);
}

// A joiner that was not there when its replicas were allocated, and then is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allocated_replica_waits_for_its_node() {
    let mut cluster = Cluster::start(2).await;
    cluster.kill(1).await;
    let cluster_row = dtm_types::command::ClusterRow {
        cluster_id: vec![7; 16].into(),
        incarnation: 1,
        ingest_groups: 1,
        ..Default::default()
    };
    cluster.node(0).bootstrap_single(cluster_row, cluster.row(0)).await.expect("bootstraps");
    admin(&cluster, admin::Op::PutNode(cluster.row(1))).await;
    until_async("replica on the second node, not confirmed", async || {
        let is_allocated =
            |row: &GroupRow| row.replicas.iter().any(|r| r.node == id(1).0[..] && !r.confirmed);
        rows(&cluster, 0).await.iter().all(is_allocated).then_some(())
    })
    .await;
    assert!(voters_on(&cluster, GROUP, 1).is_empty(), "an unconfirmed replica is no member");
    cluster.restart(1).await;
    until("two voters", || (voters_on(&cluster, GROUP, 1).len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_does_not_start() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    for start in [2, 3] {
        cluster.kill(2).await;
        cluster.start_as(2, start).await.expect("a later start");
        until_async("later start in meta", async || {
            let meta = cluster.node(0).view(GroupId::META, Freshness::Local).await.expect("meta");
            let row = reads::node(meta.state.as_ref(), id(2)).expect("reads").expect("a row");
            (row.boot_counter == start).then_some(())
        })
        .await;
    }
    cluster.kill(2).await;
    let votes = |cluster: &Cluster| {
        let logs = cluster.disks[2].storage.logs();
        let opened = logs.replicas().into_iter().map(|(group, replica)| logs.open(group, replica));
        opened.map(|log| log.expect("opens").marks()).collect::<Vec<_>>()
    };
    let before = votes(&cluster);
    for old in [2, 3] {
        match cluster.start_as(2, old).await {
            Err(Error::OldCopy { known: 3, own, .. }) => assert_eq!(own, old),
            other => panic!("start {old}: {other:?}"),
        }
    }
    assert_eq!(votes(&cluster), before, "nothing was voted or written");
    cluster.start_as(2, 4).await.expect("the newest disk starts");
}

// A log is put back shorter than it was told. The leader that it was told to leads no more, the one
// after it has forgotten everything, and the vote on the copy is of its term: what was committed under
// the first one tells.
//
// holds: ING-1, RAFT-1
// fault: F22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_from_before_an_election_does_not_start() {
    const WRITTEN: u64 = 20;
    let slowly = |config: &mut ClusterConfig| config.control_interval_ms = 3_000;
    let mut cluster = Cluster::start_with(3, |_| Storage::memory(), slowly).await;
    cluster.form(1).await;
    let of_group = |cluster: &Cluster, at: usize| {
        cluster.node(at).status().into_iter().find(|status| status.group == GROUP)
    };
    // The second node is the one that leaders go home to.
    let (first, second, copied) = (0, 1, 2);
    until_async("the first leader", async || {
        let leader = cluster.leader_of(GROUP).await;
        cluster.node(leader).transfer(GROUP, id(first)).await.ok();
        cluster.node(first).leader(GROUP).filter(|hint| hint.is_self)
    })
    .await;
    for number in 0..WRITTEN {
        let command = command(&format!("c{number}"));
        propose(cluster.node(first), GROUP, command).await.expect("an outcome");
    }
    until("all of it on the third node", || {
        let applied = of_group(&cluster, copied)?.head.index;
        (applied >= WRITTEN).then_some(())
    })
    .await;
    until_async("the second leader, followed by the third node", async || {
        cluster.node(first).transfer(GROUP, id(second)).await.ok();
        let leader = of_group(&cluster, copied)?.leader?;
        (leader == id(second)).then_some(())
    })
    .await;
    cluster.kill(copied).await;
    cluster.kill(second).await;
    cluster.restart(second).await;
    propose(cluster.node(first), GROUP, command("two go on")).await.expect("an outcome");

    let logs = Arc::clone(cluster.disks[copied].storage.logs());
    let (_, replica) = logs.replicas().into_iter().find(|(group, _)| *group == GROUP).expect("one");
    let log = logs.open(GROUP, replica).expect("opens");
    log.truncate_after(Some(WRITTEN / 2), Box::new(|_| {})).expect("cuts");
    let next = cluster.disks[copied].config.boot_counter + 1;
    match cluster.start_as(copied, next).await {
        Err(Error::WentBack { by, group, through }) => {
            assert_eq!((by, group), (id(first), GROUP));
            assert!(through >= WRITTEN, "{through}");
        }
        other => panic!("it started: {:?}", other.err()),
    }
}

// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_not_heard() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    cluster.node(2).view(GROUP, Freshness::Current).await.expect("heard before");
    admin(
        &cluster,
        admin::Op::RemoveNode(RemoveNode { node: id(2).0.to_vec().into(), ..Default::default() }),
    )
    .await;
    until("the removed one votes no more", || {
        [GroupId::META, GROUP]
            .iter()
            .all(|&group| {
                voters_on(&cluster, group, 2).is_empty()
                    && (0..2).all(|at| voters_on(&cluster, group, at).len() == 1)
            })
            .then_some(())
    })
    .await;
    let asked = cluster.node(2).view(GROUP, Freshness::Current).await;
    assert!(asked.is_err(), "it gets no current answer");
    let proposed = tokio::time::timeout(
        Duration::from_secs(20),
        propose(cluster.node(2), GROUP, command("from outside")),
    );
    assert!(!matches!(proposed.await, Ok(Ok(_))), "it gets nothing committed");
    propose(cluster.node(0), GROUP, command("from inside")).await.expect("the others go on");
    cluster.kill(2).await;
    match cluster.start_as(2, 9).await {
        Err(Error::NodeRemoved { .. }) => {}
        other => panic!("a removed node started: {other:?}"),
    }
}

// A release that knows the next version beside one that does not.
//
// holds: RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_group_stops_on_the_node_that_does_not_know_the_version() {
    const NEXT: u8 = dtm_types::bundle::VERSION_MAX + 1;
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    let versions: Vec<u8> = cluster.node(0).status().iter().map(|group| group.version).collect();
    assert!(versions.iter().all(|version| version + 1 == NEXT), "a new cluster: {versions:?}");
    for at in 0..2 {
        cluster.kill(at).await;
        cluster.disks[at].config.version_max = NEXT;
        cluster.restart(at).await;
    }
    let version = u32::from(NEXT);
    let raise = Op::RaiseVersion(dtm_types::command::RaiseVersion { version });
    let raise = Command { op: Some(raise), ..Command::default() }.encode_to_vec();
    let of_group = |cluster: &Cluster, at: usize| {
        cluster.node(at).status().into_iter().find(|status| status.group == GROUP)
    };
    until_async("raised group on two nodes", async || {
        propose(cluster.node(0), GROUP, raise.clone().into()).await.ok();
        let is_raised = |at| of_group(&cluster, at).is_some_and(|group| group.version == NEXT);
        (0..2).all(is_raised).then_some(())
    })
    .await;
    // Stopped, and a moment later taken down.
    let why = |group: dtm_cluster::GroupStatus| group.failure.or(group.recovering);
    let reason = until("it stops on the third", || of_group(&cluster, 2).and_then(why)).await;
    assert!(reason.contains(&format!("version {NEXT}")), "{reason}");
    assert!(of_group(&cluster, 2).is_none_or(|group| group.version < NEXT));
    until("the two go on", || {
        let led = (0..2).any(|at| cluster.node(at).leader(GROUP).is_some_and(|hint| hint.is_self));
        led.then_some(())
    })
    .await;
    let outcome = propose(cluster.node(0), GROUP, command("in the next version")).await;
    outcome.expect("the two go on");
    let meta = cluster.node(2).view(GroupId::META, Freshness::Current).await;
    meta.expect("its other groups go on");

    let unknown = Command::default().encode_to_vec();
    assert!(propose(cluster.node(0), GROUP, unknown.into()).await.is_err(), "never enters a log");

    cluster.kill(2).await;
    cluster.disks[2].config.version_max = NEXT;
    cluster.restart(2).await;
    until("it goes on under the later release", || {
        let status = of_group(&cluster, 2)?;
        (status.version == NEXT && status.failure.is_none()).then_some(())
    })
    .await;
}

/// Commands of a group that are committed, one after the other, through a node that stays.
struct Writing {
    committed: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Writing {
    fn through(cluster: &Cluster, at: usize) -> Self {
        const TRY: Duration = Duration::from_secs(5);
        let (node, committed) = (Arc::clone(cluster.node(at)), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&committed);
        let task = tokio::spawn(async move {
            for number in 0_u64.. {
                let proposed = propose(&node, GROUP, command(&format!("w{number}")));
                match tokio::time::timeout(TRY, proposed).await {
                    Ok(Ok(_)) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Self { committed, _task: AbortOnDropHandle::new(task) }
    }

    /// Waits for so many more; how long that took.
    async fn goes_on(&self) -> Duration {
        let (begun, before) = (Instant::now(), self.committed.load(Ordering::Relaxed));
        let more = || self.committed.load(Ordering::Relaxed) - before;
        until("the group goes on", || (more() >= 50).then_some(())).await;
        begun.elapsed()
    }
}

/// The leader, which is not the first node: rows are changed through that one, and it stays.
async fn led_by_another(cluster: &Cluster) -> usize {
    until_async("another leader", async || match cluster.leader_of(GROUP).await {
        0 => {
            cluster.node(0).transfer(GROUP, id(1)).await.ok();
            None
        }
        other => Some(other),
    })
    .await
}

/// Groups that are held up without a node, and who is silent in each, once a node says so.
async fn held_up(cluster: &Cluster, asked: usize, without: usize, wanted: &[NodeId]) {
    until_async("the groups that are held up", async || {
        let held = cluster.node(asked).held_up_without(id(without)).await.ok()?;
        let groups: Vec<_> = held.iter().map(|held| held.group).collect();
        let is_as_wanted = match wanted {
            [] => held.is_empty(),
            silent => {
                groups == [GroupId::META, GROUP] && held.iter().all(|held| held.silent == silent)
            }
        };
        is_as_wanted.then_some(())
    })
    .await;
}

async fn has_left(cluster: &Cluster, at: usize) {
    until("it votes no more", || {
        let is_out = |group| {
            let left = (0..3).filter(|other| *other != at);
            voters_on(cluster, group, at).is_empty()
                && left.into_iter().all(|other| voters_on(cluster, group, other).len() == 1)
        };
        [GroupId::META, GROUP].into_iter().all(is_out).then_some(())
    })
    .await;
}

// Two of three are there and one of them leads: it cannot be done without. Where its row says removed
// all the same, it goes on leading and voting until the third is back; then the group leaves it.
//
// holds: LIVE-1
// fault: F21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_leader_is_heard_until_the_group_can_do_without_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    let leader = led_by_another(&cluster).await;
    let silent = 3 - leader;
    let writing = Writing::through(&cluster, 0);
    writing.goes_on().await;
    held_up(&cluster, 0, leader, &[]).await;
    cluster.kill(silent).await;
    held_up(&cluster, 0, leader, &[id(silent)]).await;
    held_up(&cluster, 0, silent, &[]).await;

    let row = RemoveNode { node: id(leader).0.to_vec().into(), ..Default::default() };
    admin(&cluster, admin::Op::RemoveNode(row)).await;
    // Longer than the lease, the election timeout and a round of the roster and the controller.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let took = writing.goes_on().await;
    assert!(took < Duration::from_secs(30), "with a removed leader after {took:?}");
    assert_eq!(voters_on(&cluster, GROUP, leader).len(), 1, "still needed");

    cluster.restart(silent).await;
    has_left(&cluster, leader).await;
    let took = writing.goes_on().await;
    assert!(took < Duration::from_secs(30), "without it after {took:?}");
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_removed_under_load_while_all_are_there() {
    let cluster = Cluster::start(3).await;
    cluster.form(1).await;
    let leader = led_by_another(&cluster).await;
    let writing = Writing::through(&cluster, 0);
    writing.goes_on().await;
    held_up(&cluster, 0, leader, &[]).await;
    let row = RemoveNode { node: id(leader).0.to_vec().into(), ..Default::default() };
    admin(&cluster, admin::Op::RemoveNode(row)).await;
    let took = writing.goes_on().await;
    assert!(took < Duration::from_secs(30), "after {took:?}");
    has_left(&cluster, leader).await;
    writing.goes_on().await;
}
