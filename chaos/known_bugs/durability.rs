//! What must be on disk before anybody is told: entries, votes, rows before a purge.

use std::sync::Arc;

use dtm_chaos::checker::Property;
use dtm_chaos::sandbox::{Court, Findings, GROUP, Load, Sandbox, Seams, Settings, True};

use crate::faulty_disk::LyingSync;
use crate::faulty_log::{FaultyLogs, LogBug};
use crate::faulty_rows::{FaultyRows, RowBug};
use crate::{caught, clean};

const ALL: [usize; 3] = [0, 1, 2];

/// Load, power cut of the whole cluster, restart, read back, write on, read back.
async fn power_cut_of_all(seams: Arc<dyn Seams>) -> Findings {
    let mut sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 20).await, 20);
    let mut court = Court::default();
    court.look(&sandbox).await;
    sandbox.cut_power(&ALL).await;
    sandbox.restart(&ALL).await;
    let findings = court.judge(&sandbox, load).await;
    sandbox.stop().await;
    findings
}

// holds: ING-1
// fault: F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_of_all_loses_nothing() {
    clean(&power_cut_of_all(Arc::new(True)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ack_before_fsync_is_caught() {
    caught(&power_cut_of_all(Arc::new(LyingSync::default())).await, Property::Ing1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_cut_past_commit_is_caught() {
    let seams = FaultyLogs::on_all(LogBug::TailCutPastCommit);
    caught(&power_cut_of_all(seams).await, Property::Ing1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misdirected_read_is_caught() {
    let seams = FaultyLogs::on(LogBug::MisdirectedRead, 2);
    caught(&power_cut_of_all(seams).await, Property::Raft1);
}

/// The leader loses power, another is elected, then that one does: votes are given in each round.
async fn power_cuts_of_leaders(seams: Arc<dyn Seams>) -> Findings {
    let mut sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    load.write(&sandbox, 0, 5).await;
    for _ in 0..2 {
        let leader = sandbox.leader_of(GROUP).await;
        let other = (leader + 1) % ALL.len();
        sandbox.cut_power(&[leader]).await;
        load.open(&sandbox, other).await;
        load.write(&sandbox, other, 5).await;
        sandbox.restart(&[leader]).await;
    }
    sandbox.cut_power(&ALL).await;
    sandbox.restart(&ALL).await;
    let findings = Court::default().judge(&sandbox, load).await;
    sandbox.stop().await;
    findings
}

// holds: ING-1, RAFT-1
// fault: F4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_of_leaders_take_no_vote_back() {
    clean(&power_cuts_of_leaders(Arc::new(True)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vote_not_synced_is_caught() {
    let seams = FaultyLogs::on_all(LogBug::VoteNotSynced);
    caught(&power_cuts_of_leaders(seams).await, Property::Raft1);
}

/// Rows are flushed and the log purged behind them, then the power goes everywhere.
async fn power_cut_after_a_purge(seams: Arc<dyn Seams>) -> Findings {
    let mut sandbox = Sandbox::form(Settings::purging(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    load.write(&sandbox, 0, 20).await;
    let mut court = Court::default();
    court.look(&sandbox).await;
    sandbox
        .until("logs are purged behind the load", |status| {
            let mut groups = status.iter().flatten().filter(|group| group.group == GROUP);
            groups.all(|group| group.purged_index >= 20)
        })
        .await;
    // A purge is on disk with the next entry: without it the whole log is there after the cut.
    load.write(&sandbox, 0, 3).await;
    sandbox.cut_power(&ALL).await;
    sandbox.restart(&ALL).await;
    if sandbox.is_served(GROUP, std::time::Duration::from_secs(8)).await {
        load.open(&sandbox, 0).await;
        load.write(&sandbox, 0, 5).await;
    }
    let findings = court.judge(&sandbox, load).await;
    sandbox.stop().await;
    findings
}

// holds: ING-1, LED-1
// fault: F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_after_a_purge_loses_nothing() {
    clean(&power_cut_after_a_purge(Arc::new(True)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_ahead_of_flush_is_caught() {
    // On one node the others make it good; on all of them nobody holds the rows.
    let seams = FaultyRows::on_all(RowBug::FlushIsALie);
    caught(&power_cut_after_a_purge(seams).await, Property::Ing1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledger_head_not_persisted_is_caught() {
    let seams = FaultyRows::on_all(RowBug::HeadNotPersisted);
    caught(&power_cut_after_a_purge(seams).await, Property::Led1);
}
