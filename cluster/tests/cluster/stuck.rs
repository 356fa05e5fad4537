//! A group whose followers do not answer: it holds up no other group of the same leader, and gives
//! its commands back in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ProposeError, Proposer, ReadView};
use dtm_types::GroupId;
use dtm_types::command::Outcome;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::harness::{Cluster, PATIENCE, command, propose, until};
use crate::replication::{is_led_by, texts};
use crate::storage::Storage;

const INGEST_GROUPS: u32 = 4;
/// 17 MiB in commands of 128 KiB: more than a link holds.
const LARGE: (usize, usize) = (136, 128 << 10);
/// More small commands than there are places for answers.
const SMALL: (usize, usize) = (20_000, 8);
/// What a leader has in Raft at once: four bundles of 1 MiB.
const IN_RAFT_BYTES: usize = 4 << 20;
/// For a machine that has much else to do.
const SLACK: Duration = Duration::from_secs(2);

/// Three nodes, one of which leads two groups; the followers of one of them do not answer.
struct Scene {
    cluster: Cluster,
    stuck: GroupId,
    healthy: GroupId,
    leader: usize,
    other: usize,
}

struct Answer {
    name: String,
    result: Result<Outcome, ProposeError>,
    after: Duration,
}

fn text(name: &str, bytes: usize) -> String {
    format!("{name}:{}", "x".repeat(bytes))
}

impl Scene {
    async fn new(leader_wait: Duration) -> Self {
        let leader_wait_ms = u64::try_from(leader_wait.as_millis()).expect("short");
        let wait = |config: &mut dtm_cluster::ClusterConfig| config.leader_wait_ms = leader_wait_ms;
        let cluster = Cluster::start_with(3, |_| Storage::memory(), wait).await;
        cluster.form(INGEST_GROUPS).await;
        let (leader, stuck, healthy) = until("leaders that stay", || led_together(&cluster)).await;
        let other = (leader + 1) % 3;
        (0..3)
            .filter(|at| *at != leader)
            .for_each(|at| cluster.disks[at].faults.hold_flushes(stuck));
        Self { cluster, stuck, healthy, leader, other }
    }

    fn heal(&self) {
        self.cluster.disks.iter().for_each(|disk| disk.faults.release_flushes());
    }

    /// Commands for the stuck group, of so many bytes and a little more each.
    fn send(&self, at: usize, (commands, bytes): (usize, usize)) -> mpsc::Receiver<Answer> {
        let (told, answers) = mpsc::channel(commands);
        let sent = Instant::now();
        for number in 0..commands {
            let (told, name) = (told.clone(), format!("{at}-{number}"));
            let command = command(&text(&name, bytes));
            let reply = Box::new(move |result| {
                told.try_send(Answer { name, result, after: sent.elapsed() }).ok();
            });
            self.cluster.node(at).propose(self.stuck, command, reply);
        }
        answers
    }

    /// Bytes that wait at a node for the stuck group.
    fn queued(&self, at: usize) -> usize {
        let status = self.cluster.node(at).status();
        status.iter().find(|group| group.group == self.stuck).map_or(0, |group| group.queued_bytes)
    }
}

/// `None` once all are told.
async fn next(answers: &mut mpsc::Receiver<Answer>) -> Option<Answer> {
    tokio::time::timeout(PATIENCE, answers.recv()).await.expect("answered in time")
}

/// A node that leads two groups, and these, once leaders are spread and none moves any more.
fn led_together(cluster: &Cluster) -> Option<(usize, GroupId, GroupId)> {
    let led = |at: usize| {
        let groups = (0..=INGEST_GROUPS).map(GroupId);
        groups.filter(|group| is_led_by(cluster, *group, at)).collect::<Vec<_>>()
    };
    let led: Vec<_> = (0..3).map(led).collect();
    let is_spread =
        led.iter().map(Vec::len).sum::<usize>() == 5 && led.iter().all(|of| of.len() < 3);
    let pair = led.iter().enumerate().find_map(|(at, groups)| match groups[..] {
        [first, second] if !first.is_meta() => Some((at, first, second)),
        _ => None,
    });
    pair.filter(|_| is_spread)
}

/// Fills a link with commands of a stuck group, then sends one of another group over it.
async fn the_link_stays_open(many: (usize, usize)) {
    let scene = Scene::new(Duration::from_secs(30)).await;
    let one = command(&text("1-10000", many.1)).len();
    let mut answers = scene.send(scene.other, many);
    // Half of what all groups share has come over.
    let come = (8 << 20).min(7_000 * one);
    until("commands at the leader", || (scene.queued(scene.leader) >= come).then_some(())).await;
    let node = scene.cluster.node(scene.other);
    let healthy = propose(node, scene.healthy, command("healthy"));
    let answer = tokio::time::timeout(Duration::from_secs(1), healthy).await;
    answer.expect("one group leaves room to another").expect("an outcome");
    assert!(answers.try_recv().is_err(), "the group is stuck");
    scene.heal();
    let mut answered = 0;
    while let Some(answer) = next(&mut answers).await {
        answer.result.expect("an outcome");
        answered += 1;
    }
    assert_eq!(answered, many.0);
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_answers_does_not_fill_the_link_with_bytes() {
    the_link_stays_open(LARGE).await;
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_answers_does_not_take_every_place_for_an_answer() {
    the_link_stays_open(SMALL).await;
}

// holds: LIVE-1, ING-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_answers_gives_back_what_it_has_not_proposed() {
    let leader_wait = Duration::from_secs(2);
    let scene = Scene::new(leader_wait).await;
    let mut answers = [scene.send(scene.leader, LARGE), scene.send(scene.other, LARGE)];
    let mut given_back = BTreeMap::new();
    let end = Instant::now() + leader_wait + SLACK;
    for answers in &mut answers {
        while let Ok(Some(answer)) = tokio::time::timeout_at(end, answers.recv()).await {
            let Err(ProposeError::Unavailable { cause, .. }) = answer.result else {
                panic!("{}: {:?}", answer.name, answer.result);
            };
            assert!(answer.after < leader_wait + SLACK, "{} after {:?}", answer.name, answer.after);
            given_back.insert(answer.name, cause);
        }
    }
    let kept = 2 * LARGE.0 - given_back.len();
    assert!(kept > 0 && kept * LARGE.1 <= IN_RAFT_BYTES, "{kept} are in Raft");

    scene.heal();
    let mut done = Vec::new();
    for answers in &mut answers {
        while let Some(answer) = next(answers).await {
            answer.result.expect("an outcome");
            done.push(answer.name);
        }
    }
    assert_eq!(done.len(), kept);
    let node = scene.cluster.node(scene.other);
    propose(node, scene.stuck, command("after:")).await.expect("an outcome");
    let view = node.view(scene.stuck, Freshness::Current).await.expect("a current view");
    let through = reads::head(&*view.state).expect("a head").applied_index;
    let held = texts(&view, through);
    let held: Vec<_> = held.iter().filter_map(|text| Some(text.split_once(':')?.0)).collect();
    assert_eq!(held.last(), Some(&"after"));
    for name in &done {
        assert_eq!(held.iter().filter(|held| *held == name).count(), 1, "{name}");
    }
    let late = given_back.iter().find(|(name, _)| held.contains(&name.as_str()));
    assert_eq!(late, None, "given back, then written after all");
}

// holds: LIVE-1, ING-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_room_gives_back_what_waits_for_it() {
    let leader_wait = Duration::from_millis(500);
    let wait = |config: &mut dtm_cluster::ClusterConfig| config.leader_wait_ms = 500;
    let cluster = Cluster::start_with(1, |_| Storage::memory(), wait).await;
    cluster.form(1).await;
    let (node, group) = (cluster.node(0), GroupId(1));
    propose(node, group, command("before")).await.expect("an outcome");
    let room = &cluster.disks[0].faults.log_without_room;
    room.store(1, Ordering::SeqCst);
    for text in ["first", "second"] {
        let sent = Instant::now();
        let waiting = tokio::spawn({
            let node = Arc::clone(node);
            async move { propose(&node, group, command(text)).await }
        });
        let given_back = tokio::time::timeout(leader_wait + SLACK, waiting).await;
        let result = given_back.expect("in time").expect("runs");
        assert!(matches!(result, Err(ProposeError::Unavailable { .. })), "{result:?}");
        assert!(sent.elapsed() >= leader_wait, "it waits as long as for a leader");
    }
    room.store(0, Ordering::SeqCst);
    propose(node, group, command("after")).await.expect("an outcome");
    assert_eq!(crate::replication::held(node, group, 100).await, ["before", "after"]);
}
