//! A node's disk is full: a small file system under its data, filled by the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_client::stream_status;
use dtm_proto::ingest::StatusResponse;
use dtm_types::ErrorCode;

use crate::bad_config::copy;
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::clustering::run;
use crate::load::{Line, Load, Plan};
use crate::readback::finish_and_judge;
use crate::sources::Source;
use crate::wait::{did_not_run, until};

const MIB: u64 = 1 << 20;
const DISK_MIB: u64 = 768;
const RESERVED_MIB: u64 = 64;
/// So much of a segment or less is free above the reserve: no other one is made.
const LEFT_MIB: u64 = 2;
/// The smallest that the settings allow, from the first start on: what is made stays as it is.
const SETTINGS: [(&str, u64); 2] = [
    ("DTM__LIMITS__DISK_RESERVED_BYTES", RESERVED_MIB * MIB),
    ("DTM__LIMITS__RECORD_BYTES_MAX", MIB / 2),
];
/// One a group.
const SOURCES: usize = 6;
const ALIVE: u64 = 20;
const NOTE_BYTES: usize = 3_000;
/// Records that together are more than the segments which stand ready take.
const BULK: u64 = 10_000;
const BULK_PER_TICK: u64 = 16;

/// A mounted tmpfs; goes away when dropped.
struct SmallDisk {
    data: PathBuf,
}

impl SmallDisk {
    /// Moves a node's data there. None where mounting is not allowed: then the test says that it did
    /// not run. Under CI that is a failure.
    async fn under(cluster: &mut Cluster, at: usize) -> Result<Option<Self>> {
        cluster.nodes[at].stop().await?;
        let data = cluster.nodes[at].folder.join("data");
        let kept = data.with_extension("kept");
        std::fs::rename(&data, &kept)?;
        std::fs::create_dir(&data)?;
        let size = format!("size={DISK_MIB}m");
        if let Err(why) = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"], &data) {
            did_not_run(&format!("no mount: {why}"))?;
            return Ok(None);
        }
        let disk = Self { data };
        copy(&kept, &disk.data)?;
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        Ok(Some(disk))
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }

    fn free_bytes(&self) -> Result<u64> {
        free_bytes(&self.data)
    }

    /// Takes all but so much.
    fn fill(&self, left_bytes: u64) -> Result<()> {
        let free = self.free_bytes()?;
        ensure!(free > left_bytes, "{free} bytes are free already");
        let file = File::create(self.filler())?;
        let bytes = i64::try_from(free - left_bytes)?;
        nix::fcntl::posix_fallocate(&file, 0, bytes).context("filler")
    }

    fn clear(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l"], &self.data);
    }
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let disk = nix::sys::statvfs::statvfs(folder)?;
    Ok(disk.blocks_available() * disk.fragment_size())
}

/// Groups that a node leads.
async fn led_by(cluster: &Cluster, at: usize) -> Result<Vec<u32>> {
    let status = cluster.status().await?;
    let name = &cluster.nodes[at].name;
    let mut rows = status.nodes.iter().filter_map(|n| n.node.as_ref());
    let row = rows.find(|row| row.name == *name).context("its row")?;
    let groups = status.groups.iter().filter(|group| group.leader_node == row.node);
    Ok(groups.map(|group| group.group).collect())
}

/// Waits until these streams have so many new acks.
async fn move_on(lines: &[Arc<Line>], by: u64) -> Result<()> {
    let before: Vec<u64> = lines.iter().map(|line| line.acked()).collect();
    until("acks on these streams", WITHIN, async || {
        for (line, before) in lines.iter().zip(&before) {
            ensure!(line.acked() >= before + by, "{}: {}", line.name(), line.acked());
        }
        Ok(())
    })
    .await
}

/// What the full node says of a stream. Meta moves on (it anchors the ledgers): a node that cannot take
/// its entries cannot confirm who asks, and says so; then the others answer.
async fn where_it_stands(cluster: &Cluster, source: &Source, at: usize) -> Result<StatusResponse> {
    let others: Vec<usize> = (0..NODES).filter(|other| *other != at).collect();
    let asked = async |nodes: &[usize]| {
        let endpoint = cluster.endpoint_at(source, nodes)?;
        anyhow::Ok(stream_status(&endpoint, &source.code, "a").await)
    };
    let told = match asked(&[at]).await? {
        Err(error) if error.code() == Some(ErrorCode::Unavailable) => asked(&others).await?,
        told => told,
    };
    told.context("the cluster says where its streams stand")
}

// The node that is full refuses what it leads as disk-full and still says where its streams stand;
// groups that others lead go on; with room again it goes on by itself, and nothing acked is lost.
//
// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_clearly_and_goes_on_when_there_is_room() -> Result<()> {
    let begun = Instant::now();
    let say = |what: &str| println!("{what} after {:.1?}", begun.elapsed());
    let at = NODES - 1;
    let mut cluster = Cluster::beside_with(&SETTINGS).await?;
    let Some(disk) = SmallDisk::under(&mut cluster, at).await? else {
        cluster.passed();
        return Ok(());
    };
    let (mut plans, mut bulk) = (Vec::new(), Vec::new());
    for number in 1..=SOURCES {
        let source = cluster.add_source(&format!("src-{number}"), &["notes"]).await?;
        plans.push(Plan::new(&source, "a"));
        let (count_max, per_tick) = (Some(BULK), BULK_PER_TICK);
        let plan = Plan::new(&source, "bulk");
        bulk.push(Plan { note_bytes: NOTE_BYTES, is_dense: true, count_max, per_tick, ..plan });
    }
    let mut load = Load::start(&cluster, plans).await?;
    load.moves(ALIVE).await?;
    cluster.spread().await?;
    let led = led_by(&cluster, at).await?;
    let steady = load.lines.iter().cloned();
    let (held, free): (Vec<_>, Vec<_>) =
        steady.partition(|line| led.contains(&line.plan.source.group));
    ensure!(!held.is_empty() && !free.is_empty(), "it leads {led:?}");

    disk.fill((RESERVED_MIB + LEFT_MIB) * MIB)?;
    for plan in bulk {
        load.add(&cluster, plan).await?;
    }
    until("a clear refusal", 2 * WITHIN, async || {
        for line in &held {
            let reasons = line.reasons.lock();
            let is_clear = reasons.iter().any(|reason| reason.contains("disk is full"));
            ensure!(is_clear, "{}: {:?}", line.name(), *reasons);
        }
        Ok(())
    })
    .await?;
    say("refused");
    move_on(&free, ALIVE).await.context("the groups that others lead go on")?;
    let stopped: Vec<u64> = held.iter().map(|line| line.acked()).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (line, acked) in held.iter().zip(stopped) {
        ensure!(line.acked() == acked, "{} is acked by a full node", line.name());
        let status = where_it_stands(&cluster, &line.plan.source, at).await?;
        ensure!(status.acked_through >= acked, "{}: {status:?}", line.name());
    }
    // Rows and what runs beside the log use the reserve; the log itself leaves it alone.
    ensure!(disk.free_bytes()? >= RESERVED_MIB * MIB / 2, "half of the reserve is gone");

    disk.clear()?;
    move_on(&[held, free].concat(), ALIVE).await.context("there is room again")?;
    say("all go on");
    load.reach_ends().await?;
    cluster.settled(NODES).await?;
    finish_and_judge(cluster, load).await?;
    say("read back");
    drop(disk);
    Ok(())
}
