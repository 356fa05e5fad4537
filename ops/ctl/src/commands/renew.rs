//! `dtm cluster renew`.

use dtm_proto::admin::{
    ClusterStatusResponse, RenewCertificateResponse, RenewNodeCertificateRequest,
};
use serde_json::{Value, json};

use super::cluster::{fetch, node_name, node_of};
use super::text::{id, time};
use crate::args::{Globals, RenewArgs};
use crate::{Failure, Printer, Remote};

/// One node after the other; the first that is not renewed ends it, and what was renewed is told.
pub(crate) async fn run(
    args: &RenewArgs,
    globals: &Globals,
    printer: &Printer<'_>,
) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let status = fetch(&remote).await?;
    let nodes = if args.all {
        all(&status)
    } else {
        args.nodes.iter().map(|named| node_of(&status, named)).collect::<Result<_, _>>()?
    };
    let (mut renewed, mut failed) = (Vec::new(), None);
    for node in nodes {
        let name = node_name(&status, &node);
        match one(&remote, node.clone()).await {
            Ok(done) => {
                if !printer.is_json() {
                    say(printer, &name, &done);
                }
                renewed.push(to_json(&name, &node, &done));
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if printer.is_json() {
        printer.json(&json!({ "renewed": renewed }));
    }
    failed.map_or(Ok(()), Err)
}

async fn one(remote: &Remote, node: Vec<u8>) -> Result<RenewCertificateResponse, Failure> {
    let request = RenewNodeCertificateRequest { context: remote.why(), node: node.into() };
    let done = remote.admin().renew_node_certificate(remote.request(request)).await?;
    Ok(done.into_inner().renewed.unwrap_or_default())
}

/// The nodes of the cluster, by their names.
fn all(status: &ClusterStatusResponse) -> Vec<Vec<u8>> {
    let rows = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let mut rows: Vec<_> = rows.filter(|row| !row.removed).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows.into_iter().map(|row| row.node.to_vec()).collect()
}

fn say(printer: &Printer<'_>, name: &str, done: &RenewCertificateResponse) {
    let (serial, until) = (hex::encode(&done.serial), time(done.not_after_us));
    let former = hex::encode(&done.former_serial);
    let values = [("name", name), ("serial", &*serial), ("time", &*until), ("former", &*former)];
    printer.say("cli.certificate_renewed", &values);
}

fn to_json(name: &str, node: &[u8], done: &RenewCertificateResponse) -> Value {
    json!({
        "node": name, "id": id(node), "serial": hex::encode(&done.serial),
        "not_after": time(done.not_after_us), "former_serial": hex::encode(&done.former_serial),
        "former_not_after": time(done.former_not_after_us),
    })
}

#[cfg(test)]
mod tests {
    use dtm_proto::admin::NodeStatus;
    use dtm_types::command::NodeRow;

    use super::*;

    #[test]
    fn all_are_those_that_were_not_removed_in_the_order_of_their_names() {
        let node = |byte: u8, name: &str, removed| {
            let (node, name) = (vec![byte; 16].into(), name.to_owned());
            let row = NodeRow { node, name, removed, ..NodeRow::default() };
            NodeStatus { node: Some(row), ..NodeStatus::default() }
        };
        let nodes = vec![node(1, "n2", false), node(2, "n0", true), node(3, "n1", false)];
        let status = ClusterStatusResponse { nodes, ..ClusterStatusResponse::default() };
        assert_eq!(all(&status), [vec![3; 16], vec![1; 16]]);
    }

    #[test]
    fn what_was_renewed_is_told_with_both_serials() {
        let done = RenewCertificateResponse {
            serial: vec![0x41, 2].into(),
            not_after_us: 1_795_219_199_000_000,
            former_serial: vec![0x40, 1].into(),
            former_not_after_us: 0,
        };
        let told = to_json("n1", &[7; 16], &done);
        assert_eq!((&told["serial"], &told["former_serial"]), (&json!("4102"), &json!("4001")));
        assert_eq!(told["not_after"], "2026-11-21T06:59:59+07:00");
    }
}
