//! More nodes than replicas: every node takes commands for every group, and what was acknowledged
//! is in every current read that begins afterwards.

use std::sync::Arc;

use dtm_cluster::ClusterNode;
use dtm_machine::seams::{Freshness, ReadError, ReadView};
use dtm_types::{GroupId, NodeId};

use crate::harness::{Cluster, command, propose, until};
use crate::replication::held;

const NODES: u8 = 5;
const GROUPS: u32 = 4;
const GROUP: GroupId = GroupId(2);

fn outsiders(cluster: &Cluster, group: GroupId) -> Vec<usize> {
    (0..usize::from(NODES)).filter(|&at| !cluster.node(at).is_here(group)).collect()
}

fn holders(cluster: &Cluster, group: GroupId) -> Vec<Arc<ClusterNode>> {
    let running = cluster.nodes.iter().flatten();
    running.filter(|node| node.is_here(group)).cloned().collect()
}

// holds: READ-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_replica_writes_and_every_later_read_sees_it() {
    let cluster = Cluster::start(NODES).await;
    cluster.form(GROUPS).await;
    for node in cluster.nodes.iter().flatten() {
        assert!(node.is_here(GroupId::META), "meta is read on every node");
        assert_eq!(node.ingest_groups(), (1..=GROUPS).map(GroupId).collect::<Vec<_>>());
    }
    for group in (1..=GROUPS).map(GroupId) {
        let outside = outsiders(&cluster, group);
        assert_eq!(outside.len(), 2);
        for at in outside {
            let node = cluster.node(at);
            let text = format!("from{at}");
            propose(node, group, command(&text)).await.expect("an outcome");
            for holder in holders(&cluster, group) {
                let texts = held(&holder, group, 200).await;
                assert_eq!(texts.iter().filter(|held| **held == text).count(), 1);
            }
            let local = node.view(group, Freshness::Local).await;
            assert!(matches!(local, Err(ReadError::NotHere(_))), "it reads through a holder");
            let leader = cluster.leader_of(group).await;
            let leader_id = NodeId([leader as u8 + 1; 16]);
            until("the leader is known here", || {
                (node.holders(group).first()?.node == leader_id).then_some(())
            })
            .await;
            assert_eq!(node.leader(group).map(|hint| hint.node), Some(leader_id));
        }
    }
}

// holds: READ-1, ING-1, ING-2
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_stay_current_while_the_leader_dies_under_a_writer_elsewhere() {
    let mut cluster = Cluster::start(NODES).await;
    cluster.form(GROUPS).await;
    let dead = cluster.leader_of(GROUP).await;
    let writer = Arc::clone(cluster.node(outsiders(&cluster, GROUP)[0]));
    let readers: Vec<_> = holders(&cluster, GROUP)
        .into_iter()
        .filter(|node| !Arc::ptr_eq(node, cluster.node(dead)))
        .collect();
    let acked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let writing = tokio::spawn({
        let (acked, writer) = (Arc::clone(&acked), Arc::clone(&writer));
        async move {
            for number in 0..300 {
                let text = format!("w{number}");
                if propose(&writer, GROUP, command(&text)).await.is_ok() {
                    acked.lock().push(text);
                }
            }
        }
    });
    let reading = readers.iter().cloned().map(|reader| {
        let acked = Arc::clone(&acked);
        tokio::spawn(async move {
            let mut reads = 0;
            for _ in 0..60 {
                let before = acked.lock().clone();
                let Ok(view) = reader.view(GROUP, Freshness::Current).await else { continue };
                let through = dtm_machine::reads::head(&*view.state).expect("a head").applied_index;
                let texts = crate::replication::texts(&view, through);
                let lacks = before.iter().find(|text| !texts.contains(*text));
                assert_eq!(lacks, None, "acked before the read began, not in it");
                reads += 1;
            }
            reads
        })
    });
    let reading: Vec<_> = reading.collect();
    until("some are acked", || (acked.lock().len() > 50).then_some(())).await;
    cluster.kill(dead).await;
    writing.await.expect("writes");
    for reader in reading {
        assert!(reader.await.expect("reads") > 0);
    }
    assert!(acked.lock().len() > 100, "another leads");
    for reader in readers {
        let texts = held(&reader, GROUP, 2_000).await;
        for text in acked.lock().iter() {
            assert_eq!(texts.iter().filter(|held| *held == text).count(), 1, "{text}");
        }
    }
}
