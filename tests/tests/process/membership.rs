//! Which node may take part: old copies of a disk, lost disks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bad_config::{contents, copy};
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::Load;
use crate::readback::{finish_and_judge, judge};
use crate::wait::until;

/// Exit code of what an operator must mend.
const EXIT_CONFIG: i32 = 78;
const ALIVE: u64 = 20;

/// Waits until meta knows this start of a node.
async fn start_is_known(cluster: &Cluster, name: &str, start: u64) -> Result<()> {
    until("the start in meta", WITHIN, async || {
        let status = cluster.status().await?;
        let row = status.nodes.iter().filter_map(|n| n.node.as_ref()).find(|n| n.name == name);
        let known = row.context("no row")?.boot_counter;
        ensure!(known >= start, "{name} is known with start {known}");
        Ok(())
    })
    .await
}

/// The node whose disk is copied, beside two that know it.
const COPIED: usize = NODES - 1;

/// A cluster under load, and a disk of which one copy is put in the place of another.
struct Copies {
    cluster: Cluster,
    load: Load,
    data: PathBuf,
    kept: PathBuf,
    newest: PathBuf,
}

impl Copies {
    async fn start() -> Result<Self> {
        let cluster = Cluster::beside().await?;
        let load = Load::usual(&cluster, 4).await?;
        load.moves(ALIVE).await?;
        let data = cluster.nodes[COPIED].folder.join("data");
        let (kept, newest) = (cluster.path("kept"), cluster.path("newest"));
        Ok(Self { cluster, load, data, kept, newest })
    }

    /// The node ends, and finds the copy where its disk was.
    fn put_back(&mut self) -> Result<()> {
        self.cluster.nodes[COPIED].kill();
        std::fs::rename(&self.data, &self.newest)?;
        copy(&self.kept, &self.data)
    }

    /// Starts the node on the copy: it ends with 78 and says how that is known.
    async fn is_refused(&mut self, known: &str) -> Result<()> {
        let cluster = &mut self.cluster;
        cluster.start_node(COPIED)?;
        let code = cluster.nodes[COPIED].ended(WITHIN).await?;
        ensure!(code == EXIT_CONFIG, "ended with {code}");
        let log = std::fs::read_to_string(&cluster.nodes[COPIED].log)?;
        ensure!(log.contains("this disk is an old copy") && log.contains(known), "no clear text");
        Ok(())
    }

    /// Puts the right disk back: the node starts, and nothing was lost.
    async fn newest_is_taken(self) -> Result<()> {
        let Self { mut cluster, load, data, newest, .. } = self;
        std::fs::remove_dir_all(&data)?;
        std::fs::rename(newest, &data)?;
        cluster.start_node(COPIED)?;
        cluster.settled(NODES).await?;
        load.moves(ALIVE).await?;
        finish_and_judge(cluster, load).await
    }
}

// A data folder is copied, its node is started twice more, the old copy is put back. It is refused
// before anything of it is opened: not a byte of it changes, its times neither.
//
// holds: ING-1, RAFT-1
// fault: F22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_disk_is_refused() -> Result<()> {
    let mut copies = Copies::start().await?;
    let Copies { cluster, load, data, kept, .. } = &mut copies;
    until("the note of the other nodes", WITHIN, async || {
        ensure!(data.join("state.peers").exists(), "no note yet");
        Ok(())
    })
    .await?;
    cluster.nodes[COPIED].kill();
    copy(data, kept)?;
    for start in [2, 3] {
        cluster.nodes[COPIED].kill();
        cluster.start_node(COPIED)?;
        cluster.settled(NODES).await?;
        start_is_known(cluster, "n3", start).await?;
        load.moves(ALIVE).await?;
    }
    copies.put_back()?;
    let before = contents(&copies.data)?;
    copies.is_refused("knows start").await?;
    let after = contents(&copies.data)?;
    let changed: Vec<_> = after.keys().chain(before.keys()).collect();
    let changed = changed.into_iter().filter(|path| after.get(*path) != before.get(*path));
    let changed: Vec<_> = changed.collect();
    ensure!(changed.is_empty() && before.len() > 5, "something was written: {changed:?}");

    copies.newest_is_taken().await
}

// The disk of a running node is copied (a snapshot of its machine), the node acks more, and the copy
// is put back: its start counter is the present one, only its logs tell. It is refused with exit code
// 78, no other node ends, and the right disk is taken again.
//
// holds: ING-1, RAFT-1
// fault: F22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_node_is_refused() -> Result<()> {
    let mut copies = Copies::start().await?;
    let Copies { cluster, load, data, kept, .. } = &mut copies;
    cluster.nodes[COPIED].pause()?;
    copy(data, kept)?;
    cluster.nodes[COPIED].resume()?;
    cluster.settled(NODES).await?;
    for _ in 0..3 {
        load.moves(ALIVE).await?;
    }
    copies.put_back()?;
    copies.is_refused("knows that this node held index").await?;
    copies.load.moves(ALIVE).await?;

    copies.newest_is_taken().await
}

// The log of a joined node is lost while its rows and its start counter stay.
//
// holds: ING-1, RAFT-1
// fault: F22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_disk_comes_back_under_new_replica_ids() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(ALIVE).await?;
    let at = NODES - 1;
    let replicas = async |cluster: &Cluster| -> Result<Vec<(u32, u64)>> {
        let status = cluster.status().await?;
        let rows = status.nodes.iter().filter_map(|n| n.node.as_ref());
        let node = rows.into_iter().find(|n| n.name == "n3").context("n3")?.node.clone();
        let groups = status.groups.iter();
        Ok(groups
            .flat_map(|group| group.replicas.iter().map(move |r| (group.group, r)))
            .filter(|(_, replica)| replica.node == node && replica.voter)
            .map(|(group, replica)| (group, replica.replica))
            .collect())
    };
    let before = replicas(&cluster).await?;
    ensure!(before.len() > 1, "{before:?}");
    cluster.nodes[at].kill();
    std::fs::remove_dir_all(cluster.nodes[at].folder.join("data/log"))?;
    cluster.start_node(at)?;
    until("voters under new ids", 2 * WITHIN, async || {
        let after = replicas(&cluster).await?;
        ensure!(after.len() == before.len(), "{after:?}");
        for (old, new) in before.iter().zip(&after) {
            ensure!(old.0 == new.0 && new.1 > old.1, "{old:?} became {new:?}");
        }
        Ok(())
    })
    .await?;
    cluster.settled(NODES).await?;
    load.moves(ALIVE).await?;
    finish_and_judge(cluster, load).await
}

// A node that the others cannot do without stays; with all of them there it leaves under load, empty,
// and its streams go on elsewhere.
//
// holds: ING-1, ING-2, ING-3, ING-4, LIVE-1
// fault: F21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_removed_only_where_the_others_can_go_on() -> Result<()> {
    const GO_ON_WITHIN: Duration = Duration::from_secs(30);
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(ALIVE).await?;
    let (silent, leaving) = (1, 2);
    let remove = ["cluster", "remove", "n3", "--yes", "--reason", "test"];
    cluster.nodes[silent].kill();
    load.moves(ALIVE).await?;
    cluster.dtm_fails(&remove, "not answering: n2").await?;
    let status = cluster.status().await?;
    let rows = status.nodes.iter().filter_map(|n| n.node.as_ref());
    let row = rows.into_iter().find(|row| row.name == "n3").context("it is still there")?;
    ensure!(!row.draining, "it was not emptied before it was refused");
    load.moves(ALIVE).await?;

    cluster.start_node(silent)?;
    cluster.settled(NODES).await?;
    cluster.spread().await?;
    cluster.dtm(&remove).await?;
    let went_on = tokio::time::timeout(GO_ON_WITHIN, load.moves(ALIVE)).await;
    went_on.context("the groups go on within 30 s")??;
    until("groups without it", WITHIN, async || {
        let status = cluster.status().await?;
        ensure!(status.nodes.len() == NODES - 1, "{} nodes", status.nodes.len());
        for group in &status.groups {
            let voters = group.replicas.iter().filter(|replica| replica.voter).count();
            ensure!(voters == NODES - 1, "{}: {voters} voters", group.group);
        }
        Ok(())
    })
    .await?;
    load.moves(ALIVE).await?;
    cluster.nodes[leaving].kill();
    cluster.nodes[leaving].lost = true;
    load.moves(ALIVE).await?;
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}
