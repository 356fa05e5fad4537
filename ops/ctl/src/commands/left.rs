//! `dtm site left`: what nodes held of a life that is over.

use std::time::Duration;

use dtm_client::Endpoint;
use dtm_proto::admin::admin_service_client::AdminServiceClient;
use dtm_proto::admin::{LeftBehindRequest, LeftBehindResponse, LeftStream, SettleLeftRequest};
use dtm_types::command::LeftAction;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::text::group_name;
use crate::args::{Globals, LeftArgs, LeftCommand};
use crate::{Exit, Failure, Printer, Remote, confirm};

/// A node reads its files and its groups within that.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn run(
    globals: &Globals,
    printer: &Printer<'_>,
    args: &LeftArgs,
) -> Result<(), Failure> {
    let (endpoint, _) = Remote::endpoint(globals)?;
    match &args.command {
        LeftCommand::List => list(&endpoint, printer).await,
        LeftCommand::Resend => settle(globals, &endpoint, printer, LeftAction::Resent).await,
        LeftCommand::Discard => settle(globals, &endpoint, printer, LeftAction::Discarded).await,
    }
}

type Node = (AdminServiceClient<Channel>, LeftBehindResponse);

/// Every node that answers under the addresses of the context; and those addresses that do not.
async fn nodes(endpoint: &Endpoint) -> (Vec<Node>, Vec<String>) {
    let (mut nodes, mut silent) = (Vec::new(), Vec::new());
    for address in endpoint.seeds() {
        let asked = async {
            let mut client = AdminServiceClient::new(endpoint.channel(address).await.ok()?);
            let told = client.left_behind(endpoint.request(LeftBehindRequest {})).await.ok()?;
            Some((client, told.into_inner()))
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Some(node)) => nodes.push(node),
            _ => silent.push(address.to_string()),
        }
    }
    (nodes, silent)
}

/// Exit code 10 where something is left behind, or a node does not say.
async fn list(endpoint: &Endpoint, printer: &Printer<'_>) -> Result<(), Failure> {
    let (nodes, silent) = nodes(endpoint).await;
    let told: Vec<_> = nodes.iter().map(|(_, told)| told).collect();
    let rows = told.iter().flat_map(|told| rows(told)).collect();
    let document = json!({ "nodes": told.iter().map(|told| document(told)).collect::<Vec<_>>(),
        "silent": silent });
    let columns = ["node", "group", "source", "stream", "sequences", "records", "lacking"];
    printer.table(&columns, rows, &document);
    if !printer.is_json() {
        for told in &told {
            let changes: usize = told.replicas.iter().map(|of| of.changes.len()).sum();
            if changes > 0 {
                let changes = changes.to_string();
                printer.say("cli.left_changes", &[("node", &*told.node), ("count", &changes)]);
            }
        }
        silent.iter().for_each(|address| printer.say("cli.left_silent", &[("address", address)]));
    }
    if silent.is_empty() && told.iter().all(|told| told.replicas.is_empty()) {
        return Ok(());
    }
    Err(Failure::Verdict { key: "cli.left_unsettled", exit: Exit::Unhealthy })
}

fn rows(told: &LeftBehindResponse) -> Vec<Vec<String>> {
    let of_replica = |replica: &dtm_proto::admin::LeftReplica| {
        let group = group_name(replica.group);
        let row = |stream: &LeftStream| {
            vec![
                told.node.clone(),
                group.clone(),
                stream.source.clone(),
                stream.stream.clone(),
                sequences(stream),
                stream.records.to_string(),
                stream.lacking.to_string(),
            ]
        };
        replica.streams.iter().map(row).collect::<Vec<_>>()
    };
    told.replicas.iter().flat_map(of_replica).collect()
}

fn sequences(stream: &LeftStream) -> String {
    let ranges = stream.ranges.iter().map(|range| format!("{}-{}", range.from, range.to));
    ranges.collect::<Vec<_>>().join(", ")
}

fn document(told: &LeftBehindResponse) -> Value {
    let replicas = told.replicas.iter().map(|replica| {
        let changes = replica.changes.iter().map(
            |change| json!({ "index": change.index, "time_us": change.time_us, "kind": change.kind }),
        );
        json!({ "group": replica.group, "life": replica.incarnation, "agreed": replica.agreed,
            "applied": replica.applied, "entries": replica.entries, "unread": replica.unread,
            "streams": replica.streams.iter().map(stream_document).collect::<Vec<_>>(),
            "changes": changes.collect::<Vec<_>>() })
    });
    json!({ "node": told.node, "site": told.site, "replicas": replicas.collect::<Vec<_>>() })
}

fn stream_document(stream: &LeftStream) -> Value {
    let ranges = stream.ranges.iter().map(|range| json!([range.from, range.to]));
    json!({ "source": stream.source, "stream": stream.stream,
        "ranges": ranges.collect::<Vec<_>>(), "records": stream.records, "bytes": stream.bytes,
        "first_us": stream.first_us, "last_us": stream.last_us, "lacking": stream.lacking })
}

async fn settle(
    globals: &Globals,
    endpoint: &Endpoint,
    printer: &Printer<'_>,
    action: LeftAction,
) -> Result<(), Failure> {
    if globals.reason.trim().is_empty() {
        return Err(Failure::usage("cli.left_reason", &[]));
    }
    let (nodes, silent) = nodes(endpoint).await;
    let nodes: Vec<_> = nodes.into_iter().filter(|(_, told)| !told.replicas.is_empty()).collect();
    if action == LeftAction::Discarded {
        let lacking = nodes.iter().flat_map(|(_, told)| &told.replicas);
        let lacking: u64 = lacking.flat_map(|of| &of.streams).map(|stream| stream.lacking).sum();
        confirm(globals, "cli.confirm_left_discard", &[("lacking", &lacking.to_string())])?;
    }
    let (mut settled, mut is_whole) = (Vec::new(), true);
    for (mut client, told) in nodes {
        let context = Some(dtm_proto::admin::Context {
            reason: globals.reason.clone(),
            request_id: uuid::Uuid::now_v7().as_bytes().to_vec().into(),
            second_factor: String::new(),
        });
        let request = SettleLeftRequest { context, action: action.into() };
        let done = client.settle_left(endpoint.request(request)).await?.into_inner();
        is_whole &= done.lacking.is_empty() || action == LeftAction::Discarded;
        let (records, present) = (done.records.to_string(), done.present.to_string());
        if !printer.is_json() {
            let values = [("node", &*told.node), ("records", &*records), ("present", &*present)];
            printer.say("cli.left_settled", &values);
        }
        settled.push(json!({ "node": told.node, "records": done.records, "present": done.present,
            "lacking": done.lacking.iter().map(stream_document).collect::<Vec<_>>() }));
    }
    let document = json!({ "nodes": settled, "silent": silent });
    if printer.is_json() {
        printer.json(&document);
    }
    silent.iter().filter(|_| !printer.is_json()).for_each(|address| {
        printer.say("cli.left_silent", &[("address", address)]);
    });
    if is_whole && silent.is_empty() {
        return Ok(());
    }
    Err(Failure::Verdict { key: "cli.left_unsettled", exit: Exit::Unhealthy })
}
