//! A site goes over to the next life of the cluster without the one that was primary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{
    Agreement, ClusterConfig, ClusterNode, Deps, Followed, LeftFile, Lineage, NodeLogs, Order,
    Over, Rejoined, follow, read_plan, rejoin, write_plan,
};
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_testkit::bind;
use dtm_types::command::command::Op;
use dtm_types::command::{Admin, Command, LayoutKind, LayoutRow, NodeRow, admin};
use dtm_types::{GroupId, Incarnation, NodeId};
use prost::Message;

use crate::harness::{
    Cluster, Disk, PATIENCE, admin_command, command, propose, until, until_async,
};
use crate::replication::texts;
use crate::storage::Storage;

const GROUPS: u32 = 2;
/// Nodes of the site that goes over.
const STANDBY: [usize; 2] = [1, 2];

fn plan_of(disk: &Disk) -> PathBuf {
    disk.storage.dir().join("plan")
}

fn lineage_of(disk: &Disk) -> PathBuf {
    disk.storage.dir().join("lineage")
}

/// What a node of the standby does between two starts: it takes part until it keeps the plan.
async fn goes_over(disk: &Disk, order: Order) {
    let node = disk.config.node.node;
    let (logs, states) = disk.storage.open(node).await;
    let clock = Arc::clone(&disk.clock) as _;
    let deps =
        Deps { logs, states, tls: Arc::clone(&disk.tls), clock, sites: None, acceptor: None };
    let listener = bind(&disk.config.node.peer_address).await;
    let mut config = disk.config.clone();
    config.plan = Some(plan_of(disk));
    let starting = ClusterNode::listen(config, deps, listener).expect("listens");
    let path = plan_of(disk);
    let keep = Arc::new(move |plan: &_| write_plan(&path, plan));
    let over = tokio::time::timeout(PATIENCE, starting.go_over(order, keep)).await;
    assert_eq!(over.expect("in time").expect("keeps a plan"), Over::Planned);
    // The one that drew it up is asked for it by the others.
    tokio::time::sleep(Duration::from_secs(2)).await;
    starting.stop().await;
}

/// Follows the plan; twice, as after a crash.
async fn follows(disk: &Disk) -> Followed {
    let node = disk.config.node.node;
    let plan = read_plan(&plan_of(disk)).expect("reads").expect("kept");
    assert_eq!((plan.incarnation, plan.previous), (2, 1));
    let mut followed = Followed::default();
    for _ in 0..2 {
        let (log, states) = disk.storage.open_files(node).await;
        let done = follow(&plan, node, &log, &states, &lineage_of(disk)).await;
        followed = done.expect("follows");
    }
    followed
}

async fn starts_in_the_next_life(cluster: &mut Cluster, at: usize) {
    let disk = &mut cluster.disks[at];
    disk.config.incarnation = Incarnation(2);
    disk.config.boot_counter += 1;
    let (log, states) = disk.storage.open_files(disk.config.node.node).await;
    let lineage = Lineage::read(&lineage_of(disk)).expect("reads");
    let logs = NodeLogs::new(log, Incarnation(2)).with_lineage(lineage);
    let clock = Arc::clone(&disk.clock) as _;
    let (logs, states) = (Arc::new(logs), Arc::new(states));
    let deps =
        Deps { logs, states, tls: Arc::clone(&disk.tls), clock, sites: None, acceptor: None };
    let listener = bind(&disk.config.node.peer_address).await;
    let started = ClusterNode::start(disk.config.clone(), deps, listener).await;
    cluster.nodes[at] = Some(started.expect("starts"));
}

/// All texts of a group, as a node has confirmed them.
async fn all(node: &ClusterNode, group: GroupId) -> Vec<String> {
    until_async("a current view", async || {
        let view = node.view(group, Freshness::Current).await.ok()?;
        Some(texts(&view, 1_000))
    })
    .await
}

// Group 1 goes on while one node of the standby is away, so that the other has more; nothing of it
// had reached the machine's rows on either when their groups are cut off.
//
// holds: ING-1, ING-2, RAFT-1, LED-1
// fault: F27
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_goes_on_in_the_next_life_with_all_that_it_holds() {
    let mut cluster = Cluster::start_with(3, |_| Storage::disk(), in_sites).await;
    cluster.form(GROUPS).await;
    for number in 0..60 {
        let group = GroupId(1 + number % GROUPS);
        propose(cluster.node(0), group, command(&format!("c{number}"))).await.expect("an outcome");
    }
    cluster.kill(2).await;
    for number in 60..80 {
        propose(cluster.node(0), GroupId(1), command(&format!("c{number}"))).await.expect("one");
    }
    // One group is led by the site that will be lost, which goes on writing alone.
    let alone = GroupId(2);
    until_async("a leader at the site", async || {
        if cluster.leader_of(alone).await == 0 {
            return Some(());
        }
        cluster.node(1).transfer(alone, cluster.disks[0].config.node.node).await.ok();
        None
    })
    .await;
    let mut expected = Vec::new();
    for group in (1..=GROUPS).map(GroupId) {
        expected.push(all(cluster.node(0), group).await);
    }
    assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), [50, 30]);
    let ledgers: Vec<_> = cluster.node(1).status().into_iter().map(|group| group.group).collect();
    assert_eq!(ledgers.len() as u32, GROUPS + 1);
    cluster.kill(1).await;
    for number in 0..3 {
        let late = propose(cluster.node(0), alone, command(&format!("late {number}")));
        let outcome = tokio::time::timeout(Duration::from_millis(500), late).await;
        assert!(!matches!(outcome, Ok(Ok(_))), "nobody has it but its leader: {outcome:?}");
    }
    cluster.kill(0).await;

    goes_over_as_a_whole(&cluster).await;
    for at in STANDBY {
        starts_in_the_next_life(&mut cluster, at).await;
    }
    for at in STANDBY {
        for group in (1..=GROUPS).map(GroupId) {
            let held = all(cluster.node(at), group).await;
            assert_eq!(held, expected[group.0 as usize - 1], "node {at} of group {group}");
        }
    }
    has_its_rows(&cluster).await;
    for number in 80..90 {
        let at = STANDBY[number as usize % 2];
        let group = GroupId(1 + number % GROUPS);
        propose(cluster.node(at), group, command(&format!("c{number}"))).await.expect("goes on");
    }
    until("both nodes at one root", || {
        let heads = |at: usize| {
            let groups = cluster.node(at).status().into_iter();
            groups.map(|group| (group.group, group.head)).collect::<Vec<_>>()
        };
        (heads(1) == heads(2)).then_some(())
    })
    .await;

    comes_back(cluster).await;
}

/// Meta of the next life: its number, and who holds what.
async fn has_its_rows(cluster: &Cluster) {
    let view = cluster.node(2).view(GroupId::META, Freshness::Current).await.expect("confirmed");
    let row = reads::cluster(&*view.state).expect("reads").expect("a row");
    assert_eq!(row.incarnation, 2);
    for group in reads::groups(&*view.state).expect("reads") {
        // The site that is over may be given another replica by now: it is not there to take it.
        let live = group.replicas.iter().filter(|of| !of.removed && of.confirmed).count();
        assert_eq!(live, 2, "{group:?}");
        assert!(group.next_replica_id >= 6, "{group:?}");
    }
}

// Who did not go over stays in the life that is over, and is heard by nobody, until it rejoins.
async fn comes_back(mut cluster: Cluster) {
    cluster.restart(0).await;
    let refused = propose(cluster.node(0), GroupId(1), command("late")).await;
    assert!(refused.is_err(), "the site that is over has no majority: {refused:?}");
    let later = cluster.node(0).later_life().await;
    assert_eq!(later, Some(Incarnation(2)));
    cluster.kill(0).await;

    rejoins(&cluster.disks[0]).await;
    starts_in_the_next_life(&mut cluster, 0).await;
    for group in (1..=GROUPS).map(GroupId) {
        let expected = all(cluster.node(1), group).await;
        let held = until_async("a replica of the life in force", async || {
            let view = cluster.node(0).view(group, Freshness::Current).await.ok()?;
            let held = texts(&view, 1_000);
            (held.len() == expected.len()).then_some(held)
        });
        assert_eq!(held.await, expected, "group {group}");
    }
}

/// What a node of the life that is over does between two starts, and what it leaves behind.
async fn rejoins(disk: &Disk) {
    let node = disk.config.node.node;
    let (logs, states) = disk.storage.open(node).await;
    let clock = Arc::clone(&disk.clock) as _;
    let deps =
        Deps { logs, states, tls: Arc::clone(&disk.tls), clock, sites: None, acceptor: None };
    let listener = bind(&disk.config.node.peer_address).await;
    let starting = ClusterNode::listen(disk.config.clone(), deps, listener).expect("listens");
    assert_eq!(starting.later_life().await, Some(Incarnation(2)));
    let agreed = tokio::time::timeout(PATIENCE, starting.agree(Incarnation(2))).await;
    let agreed = agreed.expect("in time").expect("agrees");
    starting.stop().await;
    drop(starting);
    let path = disk.storage.dir().join("rejoin");
    agreed.write(&path).expect("writes");
    let agreement = Agreement::read(&path).expect("reads").expect("written");
    assert_eq!(agreement, agreed);
    assert_eq!(agreement.replicas.len() as u32, GROUPS + 1);
    let left = disk.storage.dir().join("left");
    let mut ended = Rejoined::default();
    for round in 0..2 {
        let (log, states) = disk.storage.open_files(node).await;
        let done = rejoin(&agreement, &log, &states, &lineage_of(disk), &left).await;
        let done = done.expect("rejoins");
        assert_eq!(done.replicas as u32, GROUPS + 1);
        // What is kept is kept once.
        assert_eq!(done.entries > 0, round == 0, "{done:?}");
        ended = done;
    }
    assert_eq!(ended.left_behind, 0);
    let files = LeftFile::all(&left).expect("reads");
    let groups: Vec<u32> = files.iter().map(|file| file.head.group.0).collect();
    assert!(groups.contains(&2), "{groups:?}");
    for file in files.into_iter().filter(|file| file.head.group == GroupId(2)) {
        let (agreed, applied) = (file.head.agreed, file.head.applied);
        assert!(applied <= agreed, "nothing of it was committed: {applied} of {agreed}");
        let entries: Vec<_> = file.map(|entry| entry.expect("whole")).collect();
        assert_eq!(entries.first().map(|entry| entry.index), Some(agreed + 1));
        let payloads = entries.iter().map(|entry| &entry.payload[..]);
        let late = payloads.filter(|bytes| bytes.windows(4).any(|of| of == b"late")).count();
        assert!((1..=3).contains(&late), "{late} entries of what was written alone");
    }
}

fn order(cluster: &Cluster) -> Order {
    Order {
        next: Incarnation(2),
        site: "b".to_owned(),
        coordinator: cluster.disks[1].config.node.node,
        cause: "promotion: site a is lost".to_owned(),
        stamp_us: crate::harness::START_US + 1_000_000,
        is_split: false,
    }
}

/// Both nodes of the standby take part and follow the plan.
async fn goes_over_as_a_whole(cluster: &Cluster) {
    let [one, other] = STANDBY.map(|at| goes_over(&cluster.disks[at], order(cluster)));
    tokio::join!(one, other);
    for at in STANDBY {
        let followed = follows(&cluster.disks[at]).await;
        assert_eq!((followed.members.len(), followed.left.len()), (3, 0), "{followed:?}");
    }
}

fn in_sites(config: &mut ClusterConfig) {
    let site = if config.node.node == NodeId([1; 16]) { "a" } else { "b" };
    site.clone_into(&mut config.node.site);
    (config.flush_interval_ms, config.log_entries_kept) = (200, 8);
}

// The node that drew the plan up loses it when the other one keeps it already.
//
// holds: RAFT-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_plan_of_a_life_though_its_author_loses_it() {
    let mut cluster = Cluster::start_with(3, |_| Storage::disk(), in_sites).await;
    cluster.form(GROUPS).await;
    for at in [0, 1, 2] {
        cluster.kill(at).await;
    }
    let plan = |at: usize| read_plan(&plan_of(&cluster.disks[at])).expect("reads");
    let [one, other] = STANDBY.map(|at| goes_over(&cluster.disks[at], order(&cluster)));
    tokio::join!(one, other);
    let first = plan(1).expect("kept");
    assert_eq!(plan(2).as_ref(), Some(&first));

    std::fs::remove_file(plan_of(&cluster.disks[1])).expect("lost");
    let later = || Order { stamp_us: order(&cluster).stamp_us + 7, ..order(&cluster) };
    let [one, other] = STANDBY.map(|at| goes_over(&cluster.disks[at], later()));
    tokio::join!(one, other);
    assert_eq!(plan(1), Some(first), "not drawn up anew");
}

// What opens the life would be refused at every start of every node: it is found while there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_plan_is_kept_that_cannot_be_followed() {
    let mut cluster = Cluster::start_with(3, |_| Storage::disk(), in_sites).await;
    cluster.form(GROUPS).await;
    let [primary, other] = ["a", "c"].map(str::to_owned);
    let third = NodeRow {
        node: vec![9; 16].into(),
        name: "n9".to_owned(),
        site: "c".to_owned(),
        ..NodeRow::default()
    };
    let layout =
        LayoutRow { kind: LayoutKind::Standby.into(), primary, other, ..LayoutRow::default() };
    let put = Admin {
        expected_version: Some(0),
        op: Some(admin::Op::PutLayout(layout)),
        ..Default::default()
    };
    let put = Command { op: Some(Op::Admin(put)), ..Command::default() }.encode_to_vec();
    for command in [admin_command(admin::Op::PutNode(third)), put.into()] {
        propose(cluster.node(0), GroupId::META, command).await.expect("an outcome");
    }
    until_async("the layout is known at the standby", async || {
        let view = cluster.node(1).view(GroupId::META, Freshness::Current).await.ok()?;
        (reads::layout(&*view.state).ok()?.version == 1).then_some(())
    })
    .await;
    for at in [0, 1, 2] {
        cluster.kill(at).await;
    }
    let [one, other] = STANDBY.map(|at| goes_over(&cluster.disks[at], order(&cluster)));
    let over = async { tokio::join!(one, other) };
    let over = tokio::time::timeout(std::time::Duration::from_secs(6), over).await;
    assert!(over.is_err(), "site b is in no layout");
    for at in STANDBY {
        assert_eq!(read_plan(&plan_of(&cluster.disks[at])).expect("reads"), None);
    }
}

// A standby whose disks were off for long starts although every voter is gone with the other site; one
// whose vote may count waits for them.
//
// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_follows_waits_for_nobody() {
    let sites = |config: &mut ClusterConfig| {
        let site = if config.node.node == NodeId([4; 16]) { "b" } else { "a" };
        site.clone_into(&mut config.node.site);
        config.flush_interval_ms = 100;
    };
    let mut cluster = Cluster::start_with(4, |_| Storage::memory(), sites).await;
    cluster.form(GROUPS).await;
    let [primary, other] = ["a", "b"].map(str::to_owned);
    let kind = LayoutKind::Standby.into();
    let layout = LayoutRow { kind, primary, other, ..LayoutRow::default() };
    let put = Admin {
        expected_version: Some(0),
        op: Some(admin::Op::PutLayout(layout)),
        ..Default::default()
    };
    let put = Command { op: Some(Op::Admin(put)), ..Command::default() }.encode_to_vec();
    propose(cluster.node(0), GroupId::META, put.into()).await.expect("an outcome");
    until("the node of the standby only follows", || {
        let status = cluster.node(3).status();
        let own = NodeId([4; 16]);
        let follows = |group: &dtm_cluster::GroupStatus| {
            let mut own = group.replicas.iter().filter(|replica| replica.node == own);
            own.next().is_some_and(|replica| !replica.is_voter)
        };
        (status.len() as u32 == GROUPS + 1 && status.iter().all(follows)).then_some(())
    })
    .await;
    // Rows that were on no disk yet would say nothing of members.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for at in 0..4 {
        cluster.kill(at).await;
    }
    for (at, waits) in [(3, false), (0, true)] {
        let disk = &cluster.disks[at];
        let (logs, states) = disk.storage.open(disk.config.node.node).await;
        let clock = Arc::clone(&disk.clock) as _;
        let tls = Arc::clone(&disk.tls);
        let deps = Deps { logs, states, tls, clock, sites: None, acceptor: None };
        let listener = bind(&disk.config.node.peer_address).await;
        let starting = ClusterNode::listen(disk.config.clone(), deps, listener).expect("listens");
        let vetted = tokio::time::timeout(std::time::Duration::from_secs(8), starting.vet(None));
        assert_eq!(vetted.await.is_err(), waits, "node {at}");
        starting.stop().await;
    }
}
