//! One node's disk is damaged or lost while another is down: the two that are left must not make a
//! majority of what they do not hold.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtm_chaos::checker::{Breach, Fault, Property};
use dtm_chaos::sandbox::{
    Court, Findings, GROUP, Load, Meter, Sandbox, Seams, Settings, True, commands, metered,
};
use dtm_storage::vfs::{MemVfs, Vfs};
use dtm_types::StreamKey;

use crate::faulty_log::{FaultyLogs, LogBug};
use crate::{caught, clean};

/// Several elections, where none may succeed.
const ELECTIONS: Duration = Duration::from_secs(4);
/// More than enough for one that will.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// A bit in an early entry of the stream.
    FlippedBit,
    /// The whole disk.
    LostDisk,
}

/// Nodes 0 and 1 commit without node 2; then node 1 is harmed and comes back with node 2 alone.
/// `alone` bounds how long the two are left to make a majority of what they hold.
async fn two_of_three(seams: Arc<dyn Seams>, harm: Harm, alone: Duration) -> Findings {
    let mut sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 3).await, 3);
    sandbox.cut_power(&[2]).await;
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 10).await, 10, "two of three are a majority");
    sandbox.cut_power(&[0, 1]).await;
    match harm {
        Harm::FlippedBit => assert!(flip_a_record(sandbox.disk(1)), "it is on the disk"),
        Harm::LostDisk => sandbox.replace_disk(1),
    }
    sandbox.restart(&[1, 2]).await;
    let _ = sandbox.is_served(GROUP, alone).await;
    sandbox.restart(&[0]).await;
    let findings = Court::default().judge(&sandbox, load).await;
    sandbox.stop().await;
    findings
}

/// Flips one bit of the first record of the stream, wherever it lies in the log; false where the disk
/// does not hold it.
fn flip_a_record(disk: &MemVfs) -> bool {
    let folder = Path::new("/log");
    let stream = StreamKey::parse("tinh-01", "main").unwrap();
    let needle = commands::record(&stream, 1);
    for name in disk.list(folder).unwrap() {
        let path = folder.join(name);
        let bytes = disk.bytes(&path).unwrap_or_default();
        let at = bytes.windows(needle.len()).position(|window| window == needle);
        if let Some(at) = at {
            assert!(disk.flip_bit(&path, at as u64 + 3, 1));
            return true;
        }
    }
    false
}

// holds: ING-1
// fault: F6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_makes_no_majority() {
    clean(&two_of_three(Arc::new(True), Harm::FlippedBit, ELECTIONS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_middle_taken_for_a_torn_tail_is_caught() {
    let seams = FaultyLogs::on_all(LogBug::MiddleTakenForTail);
    caught(&two_of_three(seams, Harm::FlippedBit, PATIENCE).await, Property::Ing1);
}

// holds: ING-1
// fault: F22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_disk_makes_no_majority() {
    clean(&two_of_three(Arc::new(True), Harm::LostDisk, ELECTIONS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_id_used_again_is_caught() {
    let seams = FaultyLogs::on(LogBug::ReplicaIdReused, 1);
    // Whether records go too depends on who is elected; the vote that is taken back does not.
    caught(&two_of_three(seams, Harm::LostDisk, ELECTIONS).await, Property::Raft1);
}

/// A record on one disk is damaged while its node is down: what the metrics say after its restart.
async fn damage_is_seen(meter: &Meter, seams: Arc<dyn Seams>) -> Option<Breach> {
    let mut sandbox = Sandbox::form(Settings::default(), seams).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 10).await, 10);
    let mut at = 1;
    sandbox.cut_power(&[at]).await;
    if !flip_a_record(sandbox.disk(at)) {
        // Acknowledged is what two of three hold: then the others do.
        sandbox.restart(&[at]).await;
        at = 2;
        sandbox.cut_power(&[at]).await;
        assert!(flip_a_record(sandbox.disk(at)), "a majority holds it");
    }
    let before = meter.counts();
    sandbox.restart(&[at]).await;
    assert!(sandbox.is_served(GROUP, PATIENCE).await, "two of three are whole");
    let unseen = Fault::DamagedEntry.unseen(&before, &meter.counts());
    sandbox.stop().await;
    unseen
}

// holds: OBS-1
// fault: F6
#[test]
fn damage_on_a_disk_is_seen_in_a_metric() {
    let unseen = metered(async |meter| damage_is_seen(meter, Arc::new(True)).await);
    assert_eq!(unseen, None);
}

#[test]
fn damage_that_is_passed_over_in_silence_is_caught() {
    let seams = FaultyLogs::on_all(LogBug::MiddleTakenForTail);
    let unseen = metered(async |meter| damage_is_seen(meter, seams).await);
    assert_eq!(unseen.map(|breach| breach.property()), Some(Property::Obs1));
}
