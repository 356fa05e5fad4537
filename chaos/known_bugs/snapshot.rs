//! A node that was away comes back by snapshot and leads: what it was not sent is missed then.

use std::sync::Arc;

use dtm_chaos::checker::Property;
use dtm_chaos::sandbox::{Court, Findings, GROUP, Load, Sandbox, Seams, Settings, True};

use crate::faulty_rows::{FaultyRows, RowBug};
use crate::{caught, clean};

/// The node that leads the group whenever it can: leaders go round over the nodes.
const AWAY: usize = 1;

async fn back_by_snapshot(seams: Arc<dyn Seams>) -> Findings {
    let mut sandbox = Sandbox::form(Settings::purging(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 5).await, 5);
    sandbox.cut_power(&[AWAY]).await;
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 15).await, 15);
    sandbox
        .until("the log no longer holds what the node lacks", |status| {
            let mut groups = status.iter().flatten().filter(|group| group.group == GROUP);
            groups.all(|group| group.purged_index >= 20)
        })
        .await;
    sandbox.restart(&[AWAY]).await;
    sandbox.until_led_by(GROUP, AWAY).await;
    load.open(&sandbox, AWAY).await;
    load.resend(&sandbox, AWAY).await;
    let findings = Court::default().judge(&sandbox, load).await;
    sandbox.stop().await;
    findings
}

// holds: ING-2
// fault: F2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_back_by_snapshot_goes_on_where_the_stream_stands() {
    clean(&back_by_snapshot(Arc::new(True)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursor_missing_from_a_snapshot_is_caught() {
    let seams = FaultyRows::on_all(RowBug::SnapshotWithoutCursors);
    caught(&back_by_snapshot(seams).await, Property::Ing2);
}
