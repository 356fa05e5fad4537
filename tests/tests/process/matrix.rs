//! Every call of every service against every kind of caller, on a real node.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_client::{Credential, Endpoint, TlsFiles};
use dtm_proto::{admin, ingest, records};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cluster::Cluster;

/// A call that streams is let in when nothing has refused it by then.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
const OPERATOR: &str = "operator";
const STAFF: &str = "operator approver auditor";
const NOBODY: &str = "";

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let left = prost::bytes::Buf::remaining(buffer);
        prost::bytes::Buf::advance(buffer, left);
        Ok(Some(()))
    }
}

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// A call, who may make it, and a request about the source `src-1`. What is let in and empty is
/// refused for its content, which is told apart from being kept out.
type Call = (String, &'static str, Vec<u8>);

fn declared() -> Vec<Call> {
    let mut calls = of_administration();
    calls.extend(of_nodes());
    calls.extend(of_intake());
    calls.extend(of_records());
    let all = "operator approver auditor source other node anonymous";
    calls.extend(each("grpc.health.v1.Health", &["Check"], all, &[]));
    let known = "operator approver auditor source other";
    let reflection = ["ServerReflectionInfo"];
    calls.extend(each("grpc.reflection.v1.ServerReflection", &reflection, known, &[]));
    calls
}

fn source() -> String {
    "src-1".to_owned()
}

/// Calls of one service that the same callers may make, with the same request.
fn each(service: &str, names: &[&str], who: &'static str, request: &[u8]) -> Vec<Call> {
    names.iter().map(|name| (format!("{service}/{name}"), who, request.to_vec())).collect()
}

fn of_administration() -> Vec<Call> {
    let service = "dtm.admin.v1.AdminService";
    let seen = [
        "ClusterStatus",
        "ListOperators",
        "ConsoleLink",
        "ListApprovals",
        "GetApproval",
        "ListAnchors",
        "ShowSettings",
        "SettingsHistory",
        "SiteStatus",
        "Primacy",
        "LeftBehind",
    ];
    let mut calls = each(service, &seen, STAFF, &[]);
    let changes = [
        "CreateJoinToken",
        "TransferLeader",
        "DrainNode",
        "RemoveNode",
        "RenewNodeCertificate",
        "UpgradeCluster",
        "PutSource",
        "IssueSourceKey",
        "RevokeSourceKey",
        "IssueSourceCertificate",
        "RevokeSourceCertificate",
        "PublishDataset",
        "AddOperator",
        "RevokeOperator",
        "RotateClusterKey",
        "RequestApproval",
        "PutSettings",
        "RollbackSettings",
        "PutLayout",
        "DetachSite",
        "PromoteSite",
        "HandOver",
        "SettleLeft",
        "ConfirmChannel",
    ];
    calls.extend(each(service, &changes, OPERATOR, &[]));
    calls.extend(each(service, &["GrantApproval", "DenyApproval"], "operator approver", &[]));
    let list = admin::ListSourcesRequest { source: source(), ..Default::default() }.encode_to_vec();
    calls.extend(each(service, &["ListSources"], "operator approver auditor source", &list));
    let readers = "operator approver auditor source other";
    calls.extend(each(service, &["ListDatasets"], readers, &[]));
    calls.extend(each("dtm.admin.v1.BackupService", &["CreateBackup"], OPERATOR, &[]));
    calls
}

fn of_nodes() -> Vec<Call> {
    let peers = [
        "LocalStatus",
        "AdoptClusterKey",
        "ClusterKey",
        "DrainLocal",
        "CheckSettings",
        "RenewCertificate",
        "ConfirmLines",
        "ReadGroup",
        "LookupInGroup",
        "QuarantineOfGroup",
        "Rows",
    ];
    let mut calls = each("dtm.admin.v1.NodeService", &peers, "node", &[]);
    // Whoever they are: without a token nobody joins.
    calls.extend(each("dtm.admin.v1.JoinService", &["Join"], NOBODY, &[]));
    calls
}

fn of_intake() -> Vec<Call> {
    let service = "dtm.ingest.v1.IngestService";
    let open = ingest::Open {
        source: source(),
        stream: "matrix".to_owned(),
        dataset: "notes".to_owned(),
        ..ingest::Open::default()
    };
    let request = Some(ingest::publish_request::Request::Open(open));
    let open = ingest::PublishRequest { request }.encode_to_vec();
    let mut calls = each(service, &["Publish"], "source", &open);
    let status = ingest::StatusRequest { source: source(), stream: "matrix".to_owned() };
    let who = "operator auditor source";
    calls.extend(each(service, &["Status"], who, &status.encode_to_vec()));
    calls
}

fn of_records() -> Vec<Call> {
    let service = "dtm.records.v1.RecordsService";
    let readers = "operator auditor source";
    let read = records::ReadRequest { source: source(), ..records::ReadRequest::default() };
    let mut calls = each(service, &["Read", "Tail"], readers, &read.encode_to_vec());
    let lookup = records::LookupRequest { source: source(), ..records::LookupRequest::default() };
    calls.extend(each(service, &["Lookup"], "source", &lookup.encode_to_vec()));
    let resend = records::ResendRequest { source: source(), ..records::ResendRequest::default() };
    calls.extend(each(service, &["Resend"], "operator source", &resend.encode_to_vec()));
    let held = records::QuarantineRequest { source: source(), ..Default::default() };
    calls.extend(each(service, &["Quarantine"], readers, &held.encode_to_vec()));
    calls
}

/// Calls of our contracts that clients' ports serve; those between peers have a port of their own.
fn contracts() -> Result<BTreeSet<String>> {
    let set = FileDescriptorSet::decode(dtm_proto::DESCRIPTORS)?;
    let mut found = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("dtm.")) {
        for service in file.service.iter().filter(|service| service.name() != "PeerService") {
            let methods = service.method.iter();
            found.extend(
                methods.map(|m| format!("{}.{}/{}", file.package(), service.name(), m.name())),
            );
        }
    }
    Ok(found)
}

/// What a call is answered with; `None` when it goes on.
async fn answer(channel: &Channel, key: Option<&str>, path: &str, body: Vec<u8>) -> Option<Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    if client.ready().await.is_err() {
        return Some(Status::unavailable("not ready"));
    }
    let mut request = tonic::Request::new(tokio_stream::iter([body]));
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().expect("ascii");
        request.metadata_mut().insert("authorization", value);
    }
    let path: PathAndQuery = format!("/{path}").parse().expect("a path");
    let call = async {
        match client.streaming(request, path, Raw).await {
            Err(status) => Some(status),
            Ok(response) => response.into_inner().message().await.err(),
        }
    };
    tokio::time::timeout(REFUSED_WITHIN, call).await.unwrap_or(None)
}

// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_open_to_whom_the_table_names() -> Result<()> {
    let calls = declared();
    let listed: BTreeSet<String> = calls.iter().map(|(path, ..)| path.clone()).collect();
    let missing: Vec<_> = contracts()?.difference(&listed).cloned().collect();
    ensure!(missing.is_empty(), "not in the table: {missing:?}");

    let cluster = Cluster::beside().await?;
    let (mine, other) = (
        cluster.add_source("src-1", &["notes"]).await?,
        cluster.add_source("src-2", &["notes"]).await?,
    );
    let out = cluster.path("people");
    std::fs::create_dir_all(&out)?;
    let folder = out.display().to_string();
    for role in ["approver", "auditor"] {
        cluster.dtm(&["operator", "add", role, "--role", role, "--out", &folder]).await?;
    }
    let with = |certificate: &str, key: &str| TlsFiles {
        certificate: Some(certificate.into()),
        key: Some(key.into()),
        ..cluster.source_files()
    };
    let home = cluster.nodes[0].folder.display().to_string();
    let person = |folder: &str, name: &str| {
        with(&format!("{folder}/{name}.pem"), &format!("{folder}/{name}.key"))
    };
    let bare = || cluster.source_files();
    let callers = [
        ("operator", person(&format!("{home}/operator"), "admin"), None),
        ("approver", person(&folder, "approver"), None),
        ("auditor", person(&folder, "auditor"), None),
        ("node", person(&format!("{home}/tls"), "node"), None),
        ("source", bare(), Some(mine.key.as_str())),
        ("other", bare(), Some(other.key.as_str())),
        ("anonymous", bare(), None),
    ];
    let address = cluster.nodes[0].grpc.to_string();
    let asked = callers.into_iter().map(async |(caller, files, key)| {
        let mut wrong = Vec::new();
        if let Some(key) = key {
            Credential::source_key(key)?;
        }
        let channel = Endpoint::new([address.clone()], &files)?.channel(&address).await;
        let channel = channel.with_context(|| format!("{caller} connects"))?;
        for (path, who, body) in &calls {
            let status = answer(&channel, key, path, body.clone()).await;
            let code = status.as_ref().map_or(Code::Ok, Status::code);
            let is_in = !matches!(code, Code::Unauthenticated | Code::PermissionDenied);
            if is_in != who.split(' ').any(|name| name == caller) || code == Code::Unimplemented {
                wrong.push(format!("{caller}: {path}: {status:?}"));
            }
        }
        anyhow::Ok(wrong)
    });
    let wrong = futures::future::try_join_all(asked).await?.concat();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.passed();
    Ok(())
}
