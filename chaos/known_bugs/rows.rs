//! Rows and records that are not what the committed commands make of them.

use std::sync::Arc;

use dtm_chaos::checker::Property;
use dtm_chaos::sandbox::{Court, Findings, Load, Sandbox, Seams, Settings, True};

use crate::faulty_log::{FaultyLogs, LogBug};
use crate::faulty_rows::{FaultyRows, RowBug};
use crate::{caught, clean};

async fn a_little_load(seams: Arc<dyn Seams>) -> Findings {
    let sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    load.write(&sandbox, 0, 5).await;
    // Whatever reaches meta: a second start of a node is told there.
    sandbox.note_boot(0).await;
    let findings = Court::default().judge(&sandbox, load).await;
    sandbox.stop().await;
    findings
}

// holds: ING-3, ING-4, RAFT-1, SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_what_the_commands_make_of_them() {
    clean(&a_little_load(Arc::new(True)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_writing_another_row_is_caught() {
    caught(&a_little_load(FaultyRows::on(RowBug::OtherRow, 2)).await, Property::Raft1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_behind_the_ledgers_back_is_caught() {
    caught(&a_little_load(FaultyRows::on_all(RowBug::UnaskedOperator)).await, Property::Sec2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_batches_in_each_others_place_are_caught() {
    // On every node alike: no comparison of replicas sees it.
    caught(&a_little_load(FaultyRows::on_all(RowBug::PlacesSwapped)).await, Property::Ing3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_under_a_stream_that_nobody_sent_are_caught() {
    caught(&a_little_load(FaultyRows::on_all(RowBug::GhostPlace)).await, Property::Ing4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_record_than_was_stored_is_caught() {
    caught(&a_little_load(FaultyLogs::on_all(LogBug::OtherRecord)).await, Property::Ing4);
}
