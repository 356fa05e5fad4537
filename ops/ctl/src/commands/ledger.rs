//! `dtm ledger checkpoint|anchors`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dtm_proto::admin::{AnchorDetail, ClusterStatusResponse, GroupStatus, ListAnchorsRequest};
use serde_json::json;

use super::cluster::{fetch, node_name};
use super::text::{group_name, time};
use crate::args::{Globals, LedgerCommand};
use crate::{Exit, Failure, Printer, Remote};

/// Looks until two replicas of each group were seen at one size, at most, and the time between.
const LOOKS_MAX: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

pub(crate) async fn run(command: &LedgerCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    match command {
        LedgerCommand::Checkpoint => checkpoint(&remote, &printer).await,
        LedgerCommand::Anchors { limit } => anchors(&remote, &printer, *limit).await,
    }
}

async fn anchors(remote: &Remote, printer: &Printer<'_>, limit: u32) -> Result<(), Failure> {
    let request = remote.request(ListAnchorsRequest { limit });
    let found = remote.admin().list_anchors(request).await?.into_inner().anchors;
    let rows = found.iter().flat_map(|anchor| {
        anchor.groups.iter().map(|group| {
            vec![
                anchor.leaf_index.to_string(),
                time(anchor.time_us),
                group_name(group.group),
                group.ledger_size.to_string(),
                hex::encode(&group.ledger_root),
            ]
        })
    });
    let document: Vec<_> = found.iter().map(anchor_json).collect();
    printer.table(&["leaf", "time", "group", "leaves", "root"], rows.collect(), &json!(document));
    Ok(())
}

fn anchor_json(anchor: &AnchorDetail) -> serde_json::Value {
    let groups = anchor.groups.iter().map(|group| {
        json!({
            "group": group.group, "incarnation": group.incarnation, "size": group.ledger_size,
            "root": hex::encode(&group.ledger_root), "applied_index": group.applied_index,
            "group_time_us": group.group_time_us,
        })
    });
    json!({ "leaf": anchor.leaf_index, "time": time(anchor.time_us), "time_us": anchor.time_us,
        "groups": groups.collect::<Vec<_>>() })
}

async fn checkpoint(remote: &Remote, printer: &Printer<'_>) -> Result<(), Failure> {
    let mut status = fetch(remote).await?;
    let (mut forks, mut alone) = (forks(&status), not_compared(&status));
    for _ in 1..LOOKS_MAX {
        if alone.is_empty() || !forks.is_empty() || !silent(&status).is_empty() {
            break;
        }
        // While records come in, replicas are seldom at one size.
        tokio::time::sleep(BETWEEN_LOOKS).await;
        status = fetch(remote).await?;
        forks = self::forks(&status);
        let now = not_compared(&status);
        alone.retain(|group| now.contains(group));
    }
    let silent = silent(&status);
    let mut rows = Vec::new();
    let mut document = Vec::new();
    for group in &status.groups {
        for replica in group.replicas.iter().filter(|replica| !replica.ledger_root.is_empty()) {
            let node = node_name(&status, &replica.node);
            let root = hex::encode(&replica.ledger_root);
            let name = group_name(group.group);
            document.push(json!({ "group": group.group, "node": node, "size": replica.ledger_size, "root": root }));
            rows.push(vec![name, node, replica.ledger_size.to_string(), root]);
        }
    }
    printer.table(
        &["group", "node", "leaves", "root"],
        rows,
        &json!({ "ledgers": document, "agree": forks.is_empty(), "forked_groups": forks,
                 "silent_nodes": silent, "groups_not_compared": alone }),
    );
    if !forks.is_empty() {
        return Err(Failure::Verdict { key: "cli.roots_differ", exit: Exit::Unverified });
    }
    if !silent.is_empty() {
        printer.say("cli.roots_silent", &[("names", &silent.join(", "))]);
    }
    if !alone.is_empty() {
        let groups: Vec<_> = alone.iter().map(u32::to_string).collect();
        printer.say("cli.roots_alone", &[("groups", &groups.join(", "))]);
    }
    if silent.is_empty() && alone.is_empty() {
        printer.say("cli.roots_agree", &[]);
        return Ok(());
    }
    Err(Failure::Verdict { key: "cli.roots_not_all", exit: Exit::Unhealthy })
}

/// Nodes of which a replica's root was not told, by name.
fn silent(status: &ClusterStatusResponse) -> Vec<String> {
    let replicas = status.groups.iter().flat_map(|group| &group.replicas);
    let without = replicas.filter(|replica| replica.ledger_root.is_empty());
    let names: BTreeSet<_> = without.map(|replica| node_name(status, &replica.node)).collect();
    names.into_iter().collect()
}

/// Groups of several replicas of which no two told a root at one size: nothing was compared there.
fn not_compared(status: &ClusterStatusResponse) -> Vec<u32> {
    let is_alone = |group: &&GroupStatus| {
        let told = group.replicas.iter().filter(|replica| !replica.ledger_root.is_empty());
        let mut sizes = BTreeSet::new();
        group.replicas.len() > 1 && told.into_iter().all(|r| sizes.insert(r.ledger_size))
    };
    status.groups.iter().filter(is_alone).map(|group| group.group).collect()
}

/// Groups of which two replicas show different roots at one size.
fn forks(status: &ClusterStatusResponse) -> Vec<u32> {
    let mut forked = Vec::new();
    for group in &status.groups {
        let mut by_size: BTreeMap<u64, &[u8]> = BTreeMap::new();
        let known = group.replicas.iter().filter(|replica| !replica.ledger_root.is_empty());
        let differs = known
            .into_iter()
            .any(|r| *by_size.entry(r.ledger_size).or_insert(&r.ledger_root) != r.ledger_root);
        if differs {
            forked.push(group.group);
        }
    }
    forked
}

#[cfg(test)]
mod tests {
    use dtm_proto::admin::ReplicaStatus;

    use super::*;

    #[test]
    fn a_fork_is_two_roots_at_one_size() {
        let replica = |size, root: &[u8]| ReplicaStatus {
            ledger_size: size,
            ledger_root: root.to_vec().into(),
            ..Default::default()
        };
        let group = |group, replicas| GroupStatus { group, replicas, ..Default::default() };
        let status = ClusterStatusResponse {
            groups: vec![
                group(0, vec![replica(5, b"a"), replica(5, b"a"), replica(4, b"x")]),
                group(1, vec![replica(5, b"a"), replica(4, b"x"), replica(5, b"b")]),
                group(2, vec![replica(5, b"a"), replica(5, b"")]),
            ],
            ..Default::default()
        };
        assert_eq!(forks(&status), [1]);
        assert_eq!(not_compared(&status), [2]);
        assert_eq!(silent(&status), ["-"]);
        let alone = |replicas| ClusterStatusResponse {
            groups: vec![group(1, replicas)],
            ..Default::default()
        };
        assert!(not_compared(&alone(vec![replica(5, b"a")])).is_empty(), "a cluster of one node");
        let late = alone(vec![replica(5, b"a"), replica(4, b"x"), replica(3, b"y")]);
        assert_eq!((silent(&late).len(), not_compared(&late)), (0, vec![1]));
    }
}
