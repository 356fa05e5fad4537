//! Seeds of the simulation: they repeat, they hold, and a disk that lies is caught.

use std::sync::atomic::{AtomicU64, Ordering};

use dtm_chaos::checker::Property;
use dtm_sim::{DiskBug, Faults, Run, STEPS, run};

/// In the short form; `DTM_LONG=1` makes 2,000.
const SEEDS: u64 = 100;
const SEEDS_LONG: u64 = 2_000;
/// A bug that does not show in so many seeds would not be found.
const SEEDS_OF_A_BUG: u64 = 20;

fn runs(from: u64, count: u64, bug: Option<DiskBug>) -> Vec<Run> {
    let next = AtomicU64::new(from);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return done;
            }
            done.push(run(seed, STEPS, bug));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no assertion fails")).collect()
    })
}

#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in 1..=4 {
        let (one, other) = (run(seed, STEPS, None), run(seed, STEPS, None));
        assert_eq!((one.steps, one.digest), (other.steps, other.digest), "seed {seed}");
        assert_eq!((one.faults, one.acked), (other.faults, other.acked), "seed {seed}");
    }
}

// holds: ING-1, ING-2, ING-3, ING-4, RAFT-1, READ-1, LED-1, LIVE-1
// fault: F2, F3, F4, F13, F16, F17, F18, F20, F21, F22
#[test]
fn no_seed_breaks_a_property() {
    let is_long = std::env::var_os("DTM_LONG").is_some_and(|value| value == "1");
    let all = runs(1, if is_long { SEEDS_LONG } else { SEEDS }, None);
    let broken: Vec<String> = all.iter().filter(|run| !run.holds()).map(Run::to_string).collect();
    assert!(broken.is_empty(), "{}", broken.concat());
    // Each class of fault came, and work was done under them.
    let sum = |of: fn(&Faults) -> u64| all.iter().map(|run| of(&run.faults)).sum::<u64>();
    let classes: [fn(&Faults) -> u64; 7] = [
        |faults| faults.power_of_one,
        |faults| faults.power_of_all,
        |faults| faults.partitions,
        |faults| faults.weather,
        |faults| faults.slow_disks,
        |faults| faults.clocks,
        |faults| faults.changes,
    ];
    for (at, class) in classes.into_iter().enumerate() {
        assert!(sum(class) > 0, "class {at}");
    }
    assert!(all.iter().map(|run| run.reads).sum::<usize>() > 0);
    assert!(all.iter().map(|run| run.snapshots).sum::<u64>() > SEEDS, "logs were purged");
    let idle = all.iter().filter(|run| run.acked == 0).count();
    assert_eq!(idle, 0, "runs in which nothing was acked");
}

#[test]
fn a_disk_that_says_synced_and_is_not_is_caught() {
    let all = runs(1, SEEDS_OF_A_BUG, Some(DiskBug::SyncsNothing));
    let broken = all.iter().flat_map(|run| run.verdict.broken());
    assert!(broken.into_iter().any(|property| property == Property::Ing1));
}

#[test]
fn a_disk_that_forgets_votes_is_caught() {
    let all = runs(1, SEEDS_OF_A_BUG, Some(DiskBug::SyncsNoVotes));
    assert!(all.iter().any(|run| !run.holds()));
}
