//! A group in simulation: the product's log adapter, state machine, snapshots and messages over
//! openraft, on one thread, with time that passes at once and faults that follow from a seed. The
//! same seed makes the same run, to the last letter ([`Run::digest`]).
//!
//! ```text
//!  Stream ──▶ Replica (dtm_cluster::sim) ──▶ Disk: there at once, synced later, cut from power
//!  read_on ─▶    │  ▲
//!                ▼  │ Wires: delay, loss, doubles, one-way cuts
//!             other replicas                 rage: the faults          judge: the checkers
//! ```
//!
//! What it does not have: sealing, sessions above the commands, the damage of single bits (the
//! log's own crash and damage tests do), more than one group.

mod disk;
mod hosts;
mod nemesis;
mod streams;
mod world;

use std::sync::Arc;
use std::time::Duration;

use dtm_chaos::checker::{Breach, Image, Liveness, Origins, Verdict, WRITABLE_WITHIN, compare};
use parking_lot::Mutex;

use dtm_cluster::sim::Replica;
use hosts::{GROUP, Hosts};
use streams::{History, Stream, read_on};
use world::World;

pub use disk::DiskBug;
pub use nemesis::Faults;

/// Steps of a run: letters that arrive, syncs, commands, faults.
pub const STEPS: u64 = 10_000;
const STREAMS: [&str; 3] = ["a", "b", "c"];
const VIEW_WITHIN: Duration = Duration::from_secs(5);

/// What one seed made.
#[derive(Debug)]
pub struct Run {
    /// Of the dice.
    pub seed: u64,
    /// Of everything that happened, in its order.
    pub digest: u64,
    /// How much that was.
    pub steps: u64,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// Batches that were acked.
    pub acked: u64,
    /// Reads that said they were current.
    pub reads: usize,
    /// Snapshots that arrived: logs were purged before them.
    pub snapshots: u64,
    /// Virtual time that passed.
    pub took: Duration,
    /// ING-1 to ING-4.
    pub verdict: Verdict,
    /// The other properties.
    pub breaches: Vec<Breach>,
    /// Starts that failed; must be none.
    pub refused: Vec<String>,
    /// The last events.
    pub tail: String,
}

impl Run {
    /// No property is broken.
    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.breaches.is_empty() && self.refused.is_empty()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, steps, acked, reads, took, .. } = self;
        writeln!(f, "seed {seed}: {steps} steps, {took:.1?}, {acked} acked, {reads} reads")?;
        if self.holds() {
            return Ok(());
        }
        write!(f, "{}{}", self.tail, self.verdict)?;
        self.breaches.iter().try_for_each(|breach| writeln!(f, "{breach}"))?;
        self.refused.iter().try_for_each(|start| writeln!(f, "not started: {start}"))
    }
}

/// Makes one run, on this thread.
///
/// # Panics
/// When the product does what it must not, such as an assertion of openraft's.
pub fn run(seed: u64, steps: u64, bug: Option<DiskBug>) -> Run {
    dtm_cluster::sim::seed(Some(seed));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime without a driver of I/O");
    let run = runtime.block_on(play(seed, steps, bug));
    drop(runtime);
    dtm_cluster::sim::seed(None);
    run
}

async fn play(seed: u64, steps: u64, bug: Option<DiskBug>) -> Run {
    let world = World::new(seed, steps);
    let history = Arc::new(Mutex::new(History::default()));
    let mut hosts = Hosts::found(&world, bug).await;
    let writers = STREAMS.map(|name| {
        let mut stream = Stream::new(name, &world, &history);
        tokio::spawn(async move {
            stream.run().await;
            stream
        })
    });
    let names = STREAMS.map(str::to_owned).to_vec();
    let reader = tokio::spawn(read_on(Arc::clone(&world), Arc::clone(&history), names));
    let faults = nemesis::rage(&world, &mut hosts).await;
    hosts.heal().await;
    let healed = world.elapsed();
    let (mut liveness, mut streams) = (Liveness::default(), Vec::new());
    for writer in writers {
        streams.push(writer.await.expect("a source does not panic"));
    }
    reader.await.expect("a reader does not panic");
    let mut written = true;
    for stream in &mut streams {
        let left = (healed + WRITABLE_WITHIN).saturating_sub(world.elapsed());
        written &= stream.finish(left).await;
    }
    let took = written.then(|| world.elapsed() - healed);
    liveness.recovered(GROUP, took, WRITABLE_WITHIN);
    let images = images(&world, &mut hosts, &mut liveness).await;
    let (steps, digest) = world.trace();
    let mut history = std::mem::take(&mut *history.lock());
    let verdict = read_back(&mut history, &images);
    let mut origins = Origins::default();
    images.iter().for_each(|image| origins.ledger(image));
    let mut breaches = compare(&images);
    breaches.extend_from_slice(origins.breaches());
    breaches.extend_from_slice(history.reads.breaches());
    breaches.extend_from_slice(liveness.breaches());
    let snapshots = world.snapshots();
    let (acked, reads, took) = (history.acked, history.reads.judged(), world.elapsed());
    let refused = std::mem::take(&mut hosts.refused);
    let stand =
        |(id, replica): (u64, Arc<Replica>)| format!("replica {id}: {}\n", replica.status());
    let tail = world.tail() + &world.running().into_iter().map(stand).collect::<String>();
    Run {
        seed,
        digest,
        steps,
        faults,
        acked,
        reads,
        snapshots,
        took,
        verdict,
        breaches,
        refused,
        tail,
    }
}

/// What every voter holds, each with everything that was committed.
async fn images(world: &World, hosts: &mut Hosts, liveness: &mut Liveness) -> Vec<Image> {
    let begun = world.elapsed();
    let mut images = Vec::new();
    while world.elapsed() - begun < WRITABLE_WITHIN {
        hosts.fill().await;
        let Some((_, leader)) = hosts.leader() else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let level = leader.view(VIEW_WITHIN).await.is_ok().then(|| leader.head());
        let voters: Vec<_> =
            leader.voters().into_iter().filter_map(|id| Some((id, world.replica(id)?))).collect();
        let is_level = |head| voters.iter().all(|(_, r)| r.head() == head && !r.lacks());
        if level.is_some_and(is_level) && voters.len() == leader.voters().len() {
            for (id, replica) in voters {
                let view = replica.view_here();
                let image = Image::read(&format!("replica {id}"), &view);
                images.push(Image { is_current: true, ..image.expect("memory reads") });
            }
            return images;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    liveness.recovered(GROUP, None, WRITABLE_WITHIN);
    images
}

fn read_back(history: &mut History, images: &[Image]) -> Verdict {
    let checker = &mut history.checker;
    if images.is_empty() {
        checker.node("nobody");
    }
    for image in images {
        let node = checker.node(&image.node);
        for record in image.records() {
            let stream = checker.stream(&record.source, &record.stream);
            checker.observed(node, stream, record.sequence, record.digest);
        }
    }
    checker.verdict()
}
