//! Power loss of the whole cluster, again and again, in the middle of writing: what was acknowledged is
//! there after each, and no vote or ledger goes back.

use std::sync::Arc;
use std::time::Duration;

use dtm_chaos::sandbox::{Court, GROUP, Load, Sandbox, Settings, True};

use crate::clean;

const ALL: [usize; 3] = [0, 1, 2];
/// Cycles of R4: here, and in `make test-long`.
const CYCLES: u64 = 10;
const CYCLES_LONG: u64 = 500;
/// More batches than one cycle gets through.
const BATCHES: usize = 10_000;

// target: R4
// holds: ING-1
// fault: F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_losses_in_the_middle_of_writing_lose_nothing() {
    let cycles = if std::env::var_os("DTM_LONG").is_some() { CYCLES_LONG } else { CYCLES };
    let mut sandbox = Sandbox::form(Settings::default(), Arc::new(True)).await;
    let mut load = Load::new("tinh-01", "main");
    let mut court = Court::default();
    for cycle in 0..cycles {
        let leader = sandbox.leader_of(GROUP).await;
        load.open(&sandbox, leader).await;
        load.resend(&sandbox, leader).await;
        let before = load.acked_through();
        // Another moment each time: between two acks as well as in the middle of a batch.
        let until = Duration::from_millis(40 + cycle * 37 % 160);
        let _ = tokio::time::timeout(until, load.write(&sandbox, leader, BATCHES)).await;
        assert!(load.acked_through() > before, "cycle {cycle} acknowledged nothing: no test");
        court.look(&sandbox).await;
        sandbox.cut_power(&ALL).await;
        sandbox.restart(&ALL).await;
    }
    clean(&court.judge(&sandbox, load).await);
    sandbox.stop().await;
}
