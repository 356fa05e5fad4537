//! The standby data set (P-20.1): its lag is measured all the time, and that there is one is an
//! invariant whose breach is told.

use std::time::{Duration, Instant};

use dtm_cluster::{ClusterConfig, GroupStatus};
use dtm_types::command::command::Op;
use dtm_types::command::{Admin, Command, LayoutKind, LayoutRow, admin};
use dtm_types::{GroupId, NodeId};
use prost::Message;

use crate::harness::{Cluster, command, propose, until};
use crate::snapshots::GROUP;
use crate::storage::Storage;

/// The fourth node is the other site.
const STANDBY: usize = 3;

/// What the group's leader says of it.
fn led(cluster: &Cluster, group: GroupId) -> Option<GroupStatus> {
    cluster.nodes.iter().zip(&cluster.disks).find_map(|(node, disk)| {
        let status = node.as_ref()?.status();
        let leads = |status: &GroupStatus| status.leader == Some(disk.config.node.node);
        status.into_iter().find(|status| status.group == group && leads(status))
    })
}

/// The node of the other site only follows, in each group.
async fn is_laid_out(cluster: &Cluster) {
    let own = cluster.disks[STANDBY].config.node.node;
    until("the node of the standby only follows", || {
        let follows = |group: u32| {
            let group = led(cluster, GroupId(group))?;
            let mut there = group.replicas.iter().filter(|replica| replica.node == own);
            let voters = group.replicas.iter().filter(|replica| replica.is_voter).count();
            (!there.next()?.is_voter && there.next().is_none() && voters == 3).then_some(())
        };
        (0..=1).all(|group| follows(group).is_some()).then_some(())
    })
    .await;
}

async fn put_layout(cluster: &Cluster) {
    let [primary, other] = ["a", "b"].map(str::to_owned);
    let kind = LayoutKind::Standby.into();
    let layout = LayoutRow { kind, primary, other, ..LayoutRow::default() };
    let put = Admin {
        expected_version: Some(0),
        op: Some(admin::Op::PutLayout(layout)),
        ..Admin::default()
    };
    let put = Command { op: Some(Op::Admin(put)), ..Command::default() }.encode_to_vec();
    propose(cluster.node(0), GroupId::META, put.into()).await.expect("an outcome");
}

async fn sets(cluster: &Cluster, what: &str, wanted: usize) {
    until(what, || {
        let of = |group| led(cluster, GroupId(group))?.standby_sets;
        (0..=1).all(|group| of(group) == Some(wanted)).then_some(())
    })
    .await;
}

// covers: P-20.1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standbys_lag_is_measured_and_a_standby_that_is_gone_is_told() {
    let in_sites = |config: &mut ClusterConfig| {
        let site = if config.node.node == NodeId([4; 16]) { "b" } else { "a" };
        site.clone_into(&mut config.node.site);
    };
    let defaults = ClusterConfig::new(Default::default(), Default::default());
    assert_eq!(defaults.lag_alarm_ms, 5_000, "the target");
    let mut cluster = Cluster::start_with(4, |_| Storage::memory(), in_sites).await;
    cluster.form(1).await;
    assert_eq!(led(&cluster, GROUP).and_then(|group| group.standby_sets), None, "no such layout");
    put_layout(&cluster).await;
    is_laid_out(&cluster).await;
    sets(&cluster, "a standby set of each group", 1).await;

    // Under load: measured at every look, and never above the target.
    let (mut number, mut looks) = (0, 0);
    let load_until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < load_until {
        for _ in 0..50 {
            number += 1;
            let text = format!("c{number}");
            propose(cluster.node(0), GROUP, command(&text)).await.expect("an outcome");
        }
        // Who has just begun to lead measures within a moment.
        let (lag, sets) = until("a measurement", || {
            let group = led(&cluster, GROUP)?;
            let lag = group.lags.into_iter().find(|lag| lag.site == "b")?;
            Some((lag, group.standby_sets?))
        })
        .await;
        assert!(lag.behind <= Duration::from_secs(5) && !lag.is_late, "{lag:?}");
        assert_eq!(sets, 1, "the invariant holds");
        looks += 1;
    }
    assert!(looks > 5, "{looks} looks while {number} entries came");

    // Nothing is written to the groups from here on: what is silent is no standby all the same.
    cluster.kill(STANDBY).await;
    sets(&cluster, "the alarm that no standby is in time", 0).await;
    let text = format!("c{}", number + 1);
    propose(cluster.node(0), GROUP, command(&text)).await.expect("the primary goes on");
    until("the alarm that it is behind", || {
        let group = led(&cluster, GROUP)?;
        group.lags.iter().any(|lag| lag.site == "b" && lag.is_late && lag.entries > 0).then_some(())
    })
    .await;
    cluster.restart(STANDBY).await;
    sets(&cluster, "the alarm ends", 1).await;
}
