//! `dtm cluster token|status|transfer|drain|remove|upgrade`.

use dtm_proto::admin::upgrade_obstacle::Reason as Obstacle;
use dtm_proto::admin::{
    ClusterStatusRequest, ClusterStatusResponse, CreateJoinTokenRequest, DrainNodeRequest,
    GroupStatus, NodeStatus, RemoveNodeRequest, TransferLeaderRequest, UpgradeClusterRequest,
};
use dtm_types::ApprovalId;
use dtm_types::text::is_held;
use serde_json::{Value, json};

use super::text::{group_name, id, time};
use crate::args::{ClusterCommand, Globals, UpgradeAction};
use crate::{Exit, Failure, Printer, Remote, confirm};

pub(crate) async fn run(command: &ClusterCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        ClusterCommand::Init(_) | ClusterCommand::Join(_) => {
            panic!("the binary carries out init and join itself")
        }
        ClusterCommand::Token { site, zone } => token(globals, &printer, site, zone).await,
        ClusterCommand::Status => status(globals, &printer).await,
        ClusterCommand::Transfer { group, from, to } => {
            transfer(globals, &printer, *group, from.as_deref(), to).await
        }
        ClusterCommand::Drain { node, resume } => drain(globals, &printer, node, *resume).await,
        ClusterCommand::Upgrade { action, check } => {
            let check = *check || *action == UpgradeAction::Status;
            upgrade(globals, &printer, check).await
        }
        ClusterCommand::Renew(args) => super::renew::run(args, globals, &printer).await,
        ClusterCommand::Remove { node, approval } => {
            remove(globals, &printer, node, *approval).await
        }
    }
}

/// The cluster's status.
pub(super) async fn fetch(remote: &Remote) -> Result<ClusterStatusResponse, Failure> {
    Ok(remote.admin().cluster_status(remote.request(ClusterStatusRequest {})).await?.into_inner())
}

async fn token(
    globals: &Globals,
    printer: &Printer<'_>,
    site: &str,
    zone: &str,
) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let request =
        CreateJoinTokenRequest { context: remote.why(), site: site.into(), zone: zone.into() };
    let made = remote.admin().create_join_token(remote.request(request)).await?.into_inner();
    if printer.is_json() {
        printer.json(&json!({ "token": made.token, "expires": time(made.expires_us) }));
    } else {
        eprintln!("{}", printer.text("cli.token_made", &[("time", &time(made.expires_us))]));
        printer.raw(&made.token);
    }
    Ok(())
}

/// A node by name or id.
async fn node_id(remote: &Remote, named: &str) -> Result<Vec<u8>, Failure> {
    match uuid::Uuid::parse_str(named) {
        Ok(id) => Ok(id.as_bytes().to_vec()),
        Err(_) => node_of(&fetch(remote).await?, named),
    }
}

/// The same, where the status is known.
pub(super) fn node_of(status: &ClusterStatusResponse, named: &str) -> Result<Vec<u8>, Failure> {
    if let Ok(id) = uuid::Uuid::parse_str(named) {
        return Ok(id.as_bytes().to_vec());
    }
    let rows = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let found: Vec<_> = rows.filter(|row| row.name == named && !row.removed).collect();
    match found[..] {
        [] => Err(Failure::usage("cli.unknown_node", &[("name", named)])),
        [row] => Ok(row.node.to_vec()),
        // Which of them is meant is not guessed: one of them may serve.
        _ => {
            let ids: Vec<_> = found.iter().map(|row| id(&row.node)).collect();
            let values = [("name", named), ("ids", &*ids.join(", "))];
            Err(Failure::usage("cli.ambiguous_node", &values))
        }
    }
}

/// Whether no node but this one takes sessions.
fn is_last_open(status: &ClusterStatusResponse, node: &[u8]) -> bool {
    !status.nodes.iter().any(|other| {
        let row = other.node.as_ref();
        other.reachable
            && other.stopped_reason.is_empty()
            && row.is_some_and(|row| row.node != node && !row.draining && !row.removed)
    })
}

async fn transfer(
    globals: &Globals,
    printer: &Printer<'_>,
    group: u32,
    from: Option<&str>,
    to: &str,
) -> Result<(), Failure> {
    if group == 0 && from.is_none() {
        return Err(Failure::usage("cli.transfer_what", &[]));
    }
    let remote = Remote::connect(globals).await?;
    let from_node = match from {
        Some(named) => node_id(&remote, named).await?.into(),
        None => Default::default(),
    };
    let to_node = node_id(&remote, to).await?.into();
    let request = TransferLeaderRequest { context: remote.why(), group, from_node, to_node };
    let moved = remote.admin().transfer_leader(remote.request(request)).await?.into_inner().moved;
    printer.done("cli.leaders_moved", &[("count", &moved.to_string())], &json!({ "moved": moved }));
    Ok(())
}

async fn drain(
    globals: &Globals,
    printer: &Printer<'_>,
    named: &str,
    resume: bool,
) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let status = fetch(&remote).await?;
    let node: Vec<u8> = node_of(&status, named)?;
    if !resume && is_last_open(&status, &node) {
        confirm(globals, "cli.confirm_drain_last", &[("name", named)])?;
    }
    let node = node.into();
    let request = DrainNodeRequest { context: remote.why(), node, resume };
    let done = remote.admin().drain_node(remote.request(request)).await?.into_inner();
    let (leaders, sessions) = (done.leaders_moved.to_string(), done.sessions_told.to_string());
    let key = if resume { "cli.node_resumed" } else { "cli.node_drained" };
    printer.done(
        key,
        &[("name", named), ("leaders", &leaders), ("sessions", &sessions)],
        &json!({ "node": named, "leaders_moved": done.leaders_moved, "sessions_told": done.sessions_told }),
    );
    Ok(())
}

async fn upgrade(globals: &Globals, printer: &Printer<'_>, check: bool) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let request = UpgradeClusterRequest { context: remote.why(), check };
    let plan = remote.admin().upgrade_cluster(remote.request(request)).await?.into_inner();
    let nodes = plan.nodes.iter().map(|node| {
        json!({ "node": node.name, "software_version": node.software_version,
            "version_max": node.version_max, "reachable": node.reachable })
    });
    let groups =
        plan.groups.iter().map(|group| json!({ "group": group.group, "version": group.version }));
    let obstacles: Vec<_> = plan.obstacles.iter().filter_map(|o| o.reason.as_ref()).collect();
    let document = json!({ "version": plan.version, "raised": plan.raised,
        "obstacles": obstacles.iter().map(|reason| obstacle_json(reason)).collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>() });
    let behind = plan.groups.iter().filter(|group| group.version < plan.version).count();
    let (version, behind, raised) =
        (plan.version.to_string(), behind.to_string(), plan.raised.to_string());
    let is_plan = check || !plan.obstacles.is_empty();
    let key = if is_plan { "cli.upgrade_check" } else { "cli.upgraded" };
    let values = [("version", &*version), ("behind", &*behind), ("raised", &*raised)];
    printer.done(key, &values, &document);
    if plan.obstacles.is_empty() {
        return Ok(());
    }
    for reason in obstacles {
        printer.say("cli.upgrade_obstacle", &[("what", &obstacle_text(reason, printer))]);
    }
    Err(Failure::Verdict { key: "cli.upgrade_blocked", exit: Exit::Unhealthy })
}

async fn remove(
    globals: &Globals,
    printer: &Printer<'_>,
    named: &str,
    approval: Option<ApprovalId>,
) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let node = node_id(&remote, named).await?.into();
    confirm(globals, "cli.confirm_remove_node", &[("name", named)])?;
    let approval = approval.map(|id| id.0.to_vec()).unwrap_or_default().into();
    let request = RemoveNodeRequest { context: remote.why(), node, approval };
    remote.admin().remove_node(remote.request(request)).await?;
    printer.done("cli.node_removed", &[("name", named)], &json!({ "removed": named }));
    Ok(())
}

/// What stands against an upgrade, in words.
fn obstacle_text(reason: &Obstacle, printer: &Printer<'_>) -> String {
    match reason {
        Obstacle::Silent(node) => printer.text("cli.upgrade.silent", &[("name", &node.name)]),
        Obstacle::Older(node) => printer.text(
            "cli.upgrade.older",
            &[
                ("name", &node.name),
                ("software", &node.software_version),
                ("version", &node.version_max.to_string()),
            ],
        ),
        Obstacle::GroupElsewhere(group) => {
            printer.text("cli.upgrade.group_elsewhere", &[("group", &group.to_string())])
        }
    }
}

/// The same for programs.
fn obstacle_json(reason: &Obstacle) -> Value {
    match reason {
        Obstacle::Silent(node) => json!({ "reason": "silent", "node": node.name }),
        Obstacle::Older(node) => json!({ "reason": "older", "node": node.name,
            "software_version": node.software_version, "version_max": node.version_max }),
        Obstacle::GroupElsewhere(group) => json!({ "reason": "group_elsewhere", "group": group }),
    }
}

/// Where no majority confirms it, this is what the asked node knows, and says so.
async fn status(globals: &Globals, printer: &Printer<'_>) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let status = fetch(&remote).await?;
    let rows = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let addresses: Vec<_> = rows.map(|row| row.grpc_address.clone()).collect();
    Remote::learn(globals, &addresses);
    let troubles = troubles(&status, printer);
    let document = to_json(&status, &troubles);
    if printer.is_json() {
        printer.json(&document);
    } else {
        let cluster = status.cluster.clone().unwrap_or_default();
        printer.say(
            "cli.cluster_line",
            &[
                ("name", &cluster.name),
                ("id", &id(&cluster.cluster_id)),
                ("incarnation", &cluster.incarnation.to_string()),
            ],
        );
        if !status.meta_current {
            let node = node_name(&status, &status.answering_node);
            printer.say("cli.cluster_stale", &[("name", &node)]);
        }
        printer.raw("");
        let columns = ["node", "place", "grpc", "state", "groups_led", "streams", "version"];
        printer.table(
            &columns,
            status.nodes.iter().map(|node| node_row(node, printer)).collect(),
            &Value::Null,
        );
        printer.raw("");
        let columns = ["group", "leader", "term", "committed", "replicas", "records", "refused"];
        printer.table(
            &columns,
            status.groups.iter().map(|g| group_row(g, &status)).collect(),
            &Value::Null,
        );
        for trouble in &troubles {
            printer.raw(&format!("! {trouble}"));
        }
    }
    if troubles.is_empty() {
        Ok(())
    } else {
        Err(Failure::Verdict { key: "cli.unhealthy", exit: Exit::Unhealthy })
    }
}

/// Name of a node by its id.
pub(super) fn node_name(status: &ClusterStatusResponse, node: &[u8]) -> String {
    let mut rows = status.nodes.iter().filter_map(|n| n.node.as_ref());
    let found = rows.find(|row| row.node == node).map(|row| row.name.clone());
    found.unwrap_or_else(|| if node.is_empty() { "-".into() } else { id(node) })
}

fn node_row(node: &NodeStatus, printer: &Printer<'_>) -> Vec<String> {
    let row = node.node.clone().unwrap_or_default();
    let state = match node {
        _ if !node.stopped_reason.is_empty() => "cli.state.stopped",
        _ if !node.reachable => "cli.state.unreachable",
        _ if row.draining => "cli.state.draining",
        _ => "cli.state.running",
    };
    vec![
        row.name,
        format!("{}/{}", row.site, row.zone),
        row.grpc_address,
        printer.text(state, &[]),
        node.groups_led.to_string(),
        node.sessions.to_string(),
        row.software_version,
    ]
}

fn group_row(group: &GroupStatus, status: &ClusterStatusResponse) -> Vec<String> {
    let name = group_name(group.group);
    let healthy = group.replicas.iter().filter(|r| r.health == "healthy").count();
    let most = |of: fn(&dtm_proto::admin::ReplicaStatus) -> u64| {
        group.replicas.iter().map(of).max().unwrap_or(0).to_string()
    };
    vec![
        name,
        node_name(status, &group.leader_node),
        group.term.to_string(),
        group.committed_index.to_string(),
        format!("{healthy}/{}", group.replicas.len()),
        most(|r| r.records),
        most(|r| r.refused),
    ]
}

/// What is not as it should be, in words.
fn troubles(status: &ClusterStatusResponse, printer: &Printer<'_>) -> Vec<String> {
    let mut found = Vec::new();
    if !status.meta_current {
        found.push(printer.text("cli.trouble.meta", &[]));
    }
    for node in &status.nodes {
        let row = node.node.clone().unwrap_or_default();
        if row.removed {
            continue;
        }
        if !node.stopped_reason.is_empty() {
            found.push(printer.text(
                "cli.trouble.stopped",
                &[("name", &row.name), ("reason", &node.stopped_reason)],
            ));
        } else if !node.reachable {
            found.push(printer.text("cli.trouble.unreachable", &[("name", &row.name)]));
        } else if node.clock_astray {
            let offset_ms = (node.clock_offset_us / 1_000).to_string();
            let values = [("name", &*row.name), ("offset", &*offset_ms)];
            found.push(printer.text("cli.trouble.clock", &values));
        }
    }
    for group in &status.groups {
        let number = group.group.to_string();
        if group.leader_node.is_empty() {
            found.push(printer.text("cli.trouble.no_leader", &[("group", &number)]));
        }
        for replica in
            group.replicas.iter().filter(|r| r.health != "healthy" && r.health != "unreachable")
        {
            let node = node_name(status, &replica.node);
            let state = health(&replica.health, printer);
            found.push(printer.text(
                "cli.trouble.replica",
                &[("group", &number), ("name", &node), ("state", &state)],
            ));
        }
    }
    found
}

/// A replica's health in words, its stable name behind them; of a newer node that name alone.
fn health(name: &str, printer: &Printer<'_>) -> String {
    let key = format!("cli.health.{name}");
    if is_held(&key) { printer.text(&key, &[]) } else { name.to_owned() }
}

fn to_json(status: &ClusterStatusResponse, troubles: &[String]) -> Value {
    let cluster = status.cluster.clone().unwrap_or_default();
    let nodes = status.nodes.iter().map(|node| {
        let row = node.node.clone().unwrap_or_default();
        json!({
            "id": id(&row.node), "name": row.name, "site": row.site, "zone": row.zone,
            "grpc_address": row.grpc_address, "peer_address": row.peer_address, "https_address": row.https_address,
            "reachable": node.reachable, "draining": row.draining, "removed": row.removed,
            "groups_led": node.groups_led, "sessions": node.sessions, "stopped_reason": node.stopped_reason,
            "disk_free_bytes": node.disk_free_bytes, "clock_offset_us": node.clock_offset_us,
            "clock_astray": node.clock_astray, "clock_spread_us": node.clock_spread_us,
            "certificate_serial": hex::encode(&node.certificate_serial),
            "certificate_until": time(node.certificate_not_after_us),
            "software_version": row.software_version, "boot_counter": row.boot_counter,
        })
    });
    let groups = status.groups.iter().map(|group| {
        let replicas = group.replicas.iter().map(|replica| {
            json!({
                "replica": replica.replica, "node": id(&replica.node), "voter": replica.voter,
                "last_index": replica.last_index, "applied_index": replica.applied_index,
                "ledger_size": replica.ledger_size, "ledger_root": hex::encode(&replica.ledger_root),
                "health": replica.health, "records": replica.records, "refused": replica.refused,
            })
        });
        json!({
            "group": group.group, "term": group.term, "leader": id(&group.leader_node),
            "committed_index": group.committed_index, "replicas": replicas.collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster": { "id": id(&cluster.cluster_id), "name": cluster.name, "incarnation": cluster.incarnation,
                     "ingest_groups": cluster.ingest_groups },
        "nodes": nodes.collect::<Vec<_>>(), "groups": groups.collect::<Vec<_>>(),
        "answering_node": id(&status.answering_node), "meta_current": status.meta_current,
        "healthy": troubles.is_empty(), "troubles": troubles,
    })
}

#[cfg(test)]
mod tests {
    use dtm_proto::admin::ReplicaStatus;
    use dtm_types::command::NodeRow;

    use super::*;

    fn node(id: u8, reachable: bool, draining: bool) -> NodeStatus {
        let row = NodeRow { node: vec![id; 16].into(), draining, ..NodeRow::default() };
        NodeStatus { node: Some(row), reachable, ..NodeStatus::default() }
    }

    #[test]
    fn a_replica_that_does_not_answer_is_counted_as_one_of_them() {
        let replica = |health: &str| ReplicaStatus { health: health.into(), ..Default::default() };
        let replicas = vec![replica("healthy"), replica("healthy"), replica("unreachable")];
        let group = GroupStatus { group: 1, replicas, ..Default::default() };
        let row = group_row(&group, &ClusterStatusResponse::default());
        assert_eq!((row[1].as_str(), row[4].as_str()), ("-", "2/3"));
    }

    #[test]
    fn a_name_of_two_nodes_is_refused_with_their_ids() {
        let named = |byte: u8, removed| {
            let (node, name) = (vec![byte; 16].into(), "n3".into());
            let row = NodeRow { node, name, removed, ..NodeRow::default() };
            NodeStatus { node: Some(row), ..NodeStatus::default() }
        };
        let status = |nodes: Vec<NodeStatus>| ClusterStatusResponse { nodes, ..Default::default() };
        let one = status(vec![named(1, true), named(2, false)]);
        assert_eq!(node_of(&one, "n3").expect("one is left"), [2; 16]);
        let two = status(vec![named(1, false), named(2, false)]);
        let told = node_of(&two, "n3").expect_err("two").tell(dtm_types::text::Lang::En);
        for byte in [1, 2] {
            let id = id(&[byte; 16]);
            assert!(told.contains(&id), "{told}");
            assert_eq!(node_of(&two, &id).expect("by its id"), [byte; 16]);
        }
    }

    #[test]
    fn the_last_node_that_takes_sessions_is_known() {
        let status = |nodes: [NodeStatus; 3]| ClusterStatusResponse {
            nodes: nodes.into(),
            ..Default::default()
        };
        let all = status([node(1, true, false), node(2, true, false), node(3, true, false)]);
        assert!(!is_last_open(&all, &[1; 16]));
        let last = status([node(1, true, false), node(2, false, false), node(3, true, true)]);
        assert!(is_last_open(&last, &[1; 16]));
        assert!(!is_last_open(&last, &[3; 16]), "it is drained already, the first one stays");
    }
}
