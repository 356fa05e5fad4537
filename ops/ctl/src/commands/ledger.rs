//! `dtm ledger checkpoint`.

use std::collections::BTreeMap;

use dtm_proto::admin::ClusterStatusResponse;
use serde_json::json;

use super::cluster::{fetch, node_name};
use crate::args::{Globals, LedgerCommand};
use crate::{Exit, Failure, Printer, Remote};

pub(crate) async fn run(command: &LedgerCommand, globals: &Globals) -> Result<(), Failure> {
    let LedgerCommand::Checkpoint = command;
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    let status = fetch(&remote).await?;
    let forks = forks(&status);
    let mut rows = Vec::new();
    let mut document = Vec::new();
    for group in &status.groups {
        for replica in group.replicas.iter().filter(|replica| !replica.ledger_root.is_empty()) {
            let node = node_name(&status, &replica.node);
            let root = hex::encode(&replica.ledger_root);
            let name = if group.group == 0 { "meta".to_owned() } else { group.group.to_string() };
            document.push(json!({ "group": group.group, "node": node, "size": replica.ledger_size, "root": root }));
            rows.push(vec![name, node, replica.ledger_size.to_string(), root]);
        }
    }
    let agree = forks.is_empty();
    printer.table(
        &["group", "node", "leaves", "root"],
        rows,
        &json!({ "ledgers": document, "agree": agree, "forked_groups": forks }),
    );
    if agree {
        printer.say("cli.roots_agree", &[]);
        return Ok(());
    }
    Err(Failure::Verdict { key: "cli.roots_differ", exit: Exit::Unverified })
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
    use dtm_proto::admin::{GroupStatus, ReplicaStatus};

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
    }
}
