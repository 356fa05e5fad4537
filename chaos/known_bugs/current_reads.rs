//! Reads that say they are current, from every node, after each ack.

use std::sync::Arc;

use dtm_chaos::checker::{Breach, Property, Reads};
use dtm_chaos::sandbox::{Load, Sandbox, Seams, Settings, True};

use crate::faulty_rows::{FaultyRows, RowBug};

const WRITES: usize = 5;
const NODES: usize = 3;

async fn read_after_each_ack(seams: Arc<dyn Seams>) -> Reads {
    let sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    let mut reads = Reads::default();
    for _ in 0..WRITES {
        assert_eq!(load.write(&sandbox, 0, 1).await, 1);
        reads.acked(&load.stream().to_string(), load.acked_through());
        sandbox.read_all(load.stream(), &mut reads).await;
    }
    sandbox.stop().await;
    reads
}

// holds: READ-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn current_reads_hold_what_was_acked() {
    let reads = read_after_each_ack(Arc::new(True)).await;
    assert_eq!((reads.judged(), reads.breaches()), (WRITES * NODES, &[][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_view_that_is_called_current_is_caught() {
    let reads = read_after_each_ack(FaultyRows::on(RowBug::StaleFreeze, 2)).await;
    let found: Vec<Property> = reads.breaches().iter().map(Breach::property).collect();
    assert!(!found.is_empty() && found.iter().all(|property| *property == Property::Read1));
}
