//! A port for other nodes that is crowded with connections which say nothing.

use std::time::Duration;

use dtm_cluster::GroupStatus;
use dtm_types::GroupId;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::harness::{Cluster, command, propose};
use crate::snapshots::status;

const GROUP: GroupId = GroupId(1);
/// Three times as many as handshakes are waited for at a time.
const CROWD: usize = 200;
const BACK_WITHIN: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(20);

/// Keeps up connections from one address that never say a word; until it is dropped.
fn crowd(address: &str) -> JoinSet<()> {
    let address = address.parse().expect("an address");
    (0..CROWD)
        .map(|_| async move {
            loop {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.bind("127.0.77.77:0".parse().expect("an address")).expect("a port");
                if let Ok(mut stream) = socket.connect(address).await {
                    // Until the node has had enough of it.
                    stream.read_u8().await.ok();
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
        .collect()
}

// holds: LIVE-1
// fault: F2, F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_where_somebody_holds_every_port_busy() {
    let mut cluster = Cluster::start(3).await;
    cluster.form(1).await;
    let leader = cluster.leader_of(GROUP).await;
    let follower = (leader + 1) % 3;
    let addresses = cluster.disks.iter().map(|disk| disk.config.node.peer_address.clone());
    let crowds: Vec<JoinSet<()>> = addresses.map(|address| crowd(&address)).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill(follower).await;
    for number in 0..5 {
        let text = format!("c{number}");
        propose(cluster.node(leader), GROUP, command(&text)).await.expect("an outcome");
    }
    cluster.restart(follower).await;
    let caught_up = async {
        let through = status(cluster.node(leader)).head.index;
        let is_there = |status: &GroupStatus| status.group == GROUP && status.head.index >= through;
        while !cluster.node(follower).status().iter().any(is_there) {
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::time::timeout(BACK_WITHIN, caught_up).await.expect("caught up in time");
    drop(crowds);
}
