//! Clusters of three and of five: the leader is killed, cut off, loses its disk. What was acked is
//! there, and the service is back within 30 s.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bad_config::copy;
use crate::cluster::{Cluster, WITHIN};
use crate::load::Load;
use crate::readback::judge;
use crate::wait::{did_not_run, is_long, until};

const ALIVE: u64 = 20;
const BACK_WITHIN: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
const POOL_MIB: u64 = 520;
const IMAGE_MIB: u64 = 500;
/// What a stopped disk still takes.
const LEFT_BYTES: u64 = 64 << 10;

// Five nodes in the long form only.
//
// covers: F-5.6.7
// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1
// fault: F1, F10, F16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_and_five_nodes_survive_a_kill_a_cut_and_a_dead_disk() -> Result<()> {
    let sizes: &[usize] = if is_long() { &[3, 5] } else { &[3] };
    for count in sizes.iter().copied() {
        let mut cluster = Cluster::wired(count).await?;
        let load = Load::usual(&cluster, 3).await?;
        load.moves(ALIVE).await?;
        let group = load.lines[0].plan.source.group;

        let at = cluster.leader(group).await?;
        cluster.nodes[at].kill();
        back(&load).await.with_context(|| format!("{count}: n{} was killed", at + 1))?;
        cluster.start_node(at)?;
        cluster.settled(count).await?;

        let at = cluster.leader(group).await?;
        cluster.wires().cut_off(at);
        back(&load).await.with_context(|| format!("{count}: n{} was cut off", at + 1))?;
        cluster.wires().heal();
        cluster.settled(count).await?;

        load.moves(ALIVE).await?;
        // RAFT-1 while all are there: of two replicas the third tells no roots any more.
        cluster.roots_agree().await?;

        let disk = StoppableDisk::under(&mut cluster, count - 1).await?;
        if let Some(disk) = &disk {
            disk.stop()?;
            back(&load).await.with_context(|| format!("{count}: a disk stopped"))?;
            says_that_its_disk_failed(&cluster, count - 1).await?;
            let lost = &mut cluster.nodes[count - 1];
            lost.kill();
            lost.lost = true;
        }
        load.moves(ALIVE).await?;
        let lines = load.finish().await?;
        judge(&cluster, &lines).await?;
        drop(disk);
        cluster.passed();
    }
    Ok(())
}

/// The node stopped by itself what it may not do any more, and tells why.
async fn says_that_its_disk_failed(cluster: &Cluster, at: usize) -> Result<()> {
    let name = &cluster.nodes[at].name;
    until("the node says that its disk failed", WITHIN, async || {
        let status = cluster.status().await?;
        let mut rows = status.nodes.iter();
        let row = rows.find(|n| n.node.as_ref().is_some_and(|n| n.name == *name));
        let said = &row.context("its row")?.stopped_reason;
        ensure!(!said.is_empty(), "{name} says nothing");
        println!("{name}: {said}");
        Ok(())
    })
    .await
}

/// Acks on every stream, soon.
async fn back(load: &Load) -> Result<()> {
    tokio::time::timeout(BACK_WITHIN, load.moves(ALIVE)).await.context("30 s have passed")?
}

/// A file system on an image in a small tmpfs: when the tmpfs is full, its writes fail.
struct StoppableDisk {
    pool: PathBuf,
    data: PathBuf,
}

impl StoppableDisk {
    /// Moves a node's data there. None where mounting is not allowed: then the test says that this
    /// part did not run, and the node goes on as before. Under CI that is a failure.
    async fn under(cluster: &mut Cluster, at: usize) -> Result<Option<Self>> {
        cluster.nodes[at].stop().await?;
        let data = cluster.nodes[at].folder.join("data");
        let kept = data.with_extension("kept");
        let disk = Self { pool: data.with_extension("pool"), data };
        std::fs::rename(&disk.data, &kept)?;
        for folder in [&disk.data, &disk.pool] {
            std::fs::create_dir(folder)?;
        }
        if let Err(why) = disk.mount() {
            did_not_run(&format!("no mount: {why}"))?;
            disk.unmount();
            std::fs::remove_dir(&disk.data)?;
            std::fs::rename(&kept, &disk.data)?;
            cluster.start_node(at)?;
            cluster.settled(cluster.nodes.len()).await?;
            return Ok(None);
        }
        copy(&kept, &disk.data)?;
        for (key, bytes) in [
            ("DTM__LIMITS__DISK_RESERVED_BYTES", 64 * MIB),
            ("DTM__LIMITS__RECORD_BYTES_MAX", MIB / 2),
        ] {
            cluster.nodes[at].environment.push((key.to_owned(), bytes.to_string()));
        }
        cluster.start_node(at)?;
        cluster.settled(cluster.nodes.len()).await?;
        Ok(Some(disk))
    }

    fn mount(&self) -> Result<()> {
        let image = self.pool.join("image");
        run("mount", &["-t", "tmpfs", "-o", &format!("size={POOL_MIB}m"), "tmpfs"], &self.pool)?;
        std::fs::File::create(&image)?.set_len(IMAGE_MIB * MIB)?;
        run("mkfs.ext4", &["-q", "-F"], &image)?;
        run("mount", &["-o", "loop", &image.display().to_string()], &self.data)
    }

    /// Also what was mounted in part.
    fn unmount(&self) {
        for folder in [&self.data, &self.pool] {
            let _ = run("umount", &["-l"], folder);
        }
    }

    /// From now on what is written anew does not arrive.
    fn stop(&self) -> Result<()> {
        let filler = std::fs::File::create(self.pool.join("filler"))?;
        let step = i64::try_from(MIB)?;
        // By steps: the node goes on writing meanwhile.
        for at in 0..i64::try_from(POOL_MIB)? {
            let disk = nix::sys::statvfs::statvfs(&self.pool)?;
            let free = disk.blocks_available() * disk.fragment_size();
            let is_full = free <= LEFT_BYTES + MIB;
            if is_full || nix::fcntl::posix_fallocate(&filler, at * step, step).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for StoppableDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

pub(crate) fn run(program: &str, arguments: &[&str], last: &Path) -> Result<()> {
    let done = Command::new(program).args(arguments).arg(last).output().context("it starts")?;
    ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
