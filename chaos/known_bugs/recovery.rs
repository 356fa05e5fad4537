//! How a cluster comes back: what it queues while it has no majority, and when it takes commands
//! again.

use std::sync::Arc;
use std::time::Duration;

use dtm_chaos::checker::{Breach, Fault, Liveness, Property, WRITABLE_WITHIN};
use dtm_chaos::sandbox::{GROUP, Load, Meter, Sandbox, Seams, Settings, True, metered};

use crate::faulty_log::{FaultyLogs, LogBug};

const OTHERS: [usize; 2] = [1, 2];
/// A log that says nothing for so long says nothing for longer.
const MUTE_FOR: Duration = Duration::from_secs(8);

/// Two of three lose power under load and come back. `end` is called before the nodes are stopped.
async fn majority_away<T>(
    seams: Arc<dyn Seams>,
    within: Duration,
    end: impl FnOnce() -> T,
) -> (Liveness, T) {
    let mut sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 5).await, 5);
    let mut liveness = Liveness::default();
    sandbox.cut_power(&OTHERS).await;
    assert!(sandbox.flood(0, &mut liveness) > 0, "what cannot be committed waits");
    sandbox.restart(&OTHERS).await;
    sandbox.healed(&mut liveness, within).await;
    let ended = end();
    sandbox.stop().await;
    (liveness, ended)
}

// holds: LIVE-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_queues_are_bounded_and_with_it_groups_are_writable() {
    let (liveness, ()) = majority_away(Arc::new(True), WRITABLE_WITHIN, || {}).await;
    assert_eq!(liveness.breaches(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_goes_mute_after_a_restart_is_caught() {
    let seams = FaultyLogs::on_all(LogBug::MuteAfterRestart);
    let ended = || seams.unmute();
    let (liveness, untold) = majority_away(Arc::clone(&seams) as _, MUTE_FOR, ended).await;
    // Both nodes that came back wait for their logs; the one that stayed commits nothing alone.
    assert!(untold >= OTHERS.len(), "the logs kept {untold} answers to themselves");
    let found = liveness.breaches();
    let is_caught = |found: &Breach| matches!(found, Breach::NotWritable { group: GROUP, .. });
    assert!(found.iter().any(is_caught), "{found:?}");
    assert!(found.iter().all(|breach| breach.property() == Property::Live1), "{found:?}");
}

async fn leader_gone(meter: &Meter) -> Option<Breach> {
    let mut sandbox = Sandbox::form(Settings::default(), Arc::new(True)).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    let leader = sandbox.leader_of(GROUP).await;
    let before = meter.counts();
    sandbox.cut_power(&[leader]).await;
    load.open(&sandbox, (leader + 1) % 3).await;
    let unseen = Fault::LeaderGone.unseen(&before, &meter.counts());
    sandbox.stop().await;
    unseen
}

// holds: OBS-1
// fault: F1
#[test]
fn a_leader_that_is_gone_is_seen_in_a_metric() {
    assert_eq!(metered(leader_gone), None);
}
