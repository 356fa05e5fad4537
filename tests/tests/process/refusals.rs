//! Whoever is not let in.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_client::admin::Admin;
use dtm_client::{
    Credential, Endpoint, Error, Publisher, PublisherConfig, Reader, RecordStream, TlsFiles,
};
use dtm_proto::admin::{ListSourcesRequest, PutSourceRequest, RevokeSourceKeyRequest};
use dtm_proto::records::ReadRequest;
use dtm_types::ErrorCode;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::https::metric_at;
use crate::load::{Load, Plan};
use crate::readback::judge;
use crate::sources::Source;
use crate::strangers;
use crate::wait::until;

/// A client's try, at one node.
struct Try<'a> {
    endpoint: Endpoint,
    source: &'a str,
    dataset: &'a str,
    schema_version: u32,
}

async fn try_open(endpoint: Endpoint, source: &str, dataset: &str) -> Result<Publisher, Error> {
    Try { endpoint, source, dataset, schema_version: 0 }.open().await
}

impl Try<'_> {
    async fn open(self) -> Result<Publisher, Error> {
        let mut config = PublisherConfig::new(self.source, "s", self.dataset);
        config.schema_version = self.schema_version;
        config.open_timeout = Some(Duration::from_secs(5));
        Publisher::open(self.endpoint, config).await
    }

    /// The error that it is refused with; its page is named, and is there.
    async fn refused(self) -> Result<Error> {
        let Err(error) = self.open().await else { anyhow::bail!("it was let in") };
        let code = error.code().with_context(|| error.to_string())?;
        let Error::Rejected { values, .. } = &error else { anyhow::bail!("{error}") };
        let page = values.get("page").with_context(|| format!("no page: {error}"))?;
        ensure!(*page == format!("docs/errors/{code}.md"), "{page}: {error}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        ensure!(file.is_file(), "there is no {page}");
        Ok(error)
    }
}

async fn refused_with(endpoint: Endpoint, source: &str, dataset: &str) -> Result<ErrorCode> {
    let refused = Try { endpoint, source, dataset, schema_version: 0 }.refused().await?;
    Ok(refused.code().expect("looked at"))
}

/// The tries of one node, and what each is refused with.
fn bad_credentials<'a>(
    cluster: &Cluster,
    (good, other): (&'a Source, &'a Source),
    at: usize,
) -> Result<Vec<(&'static str, Try<'a>, ErrorCode)>> {
    let keyed = cluster.endpoint_at(good, &[at])?;
    let bare = Endpoint::new(keyed.seeds().to_vec(), &cluster.source_files())?;
    let with =
        |key: &str| Ok::<_, Error>(bare.clone().with_credential(Credential::source_key(key)?));
    let (source, dataset, schema_version) = (good.code.as_str(), "notes", 0);
    let case = |endpoint| Try { endpoint, source, dataset, schema_version };
    let unknown = with(&good.key.replace("src-1", "src-9"))?;
    let unknown = Try { source: "src-9", ..case(unknown) };
    let others = case(cluster.endpoint_at(other, &[at])?);
    let altered = case(with(&altered(&good.key))?);
    let nothing = Try { dataset: "nothing", ..case(keyed.clone()) };
    let version = Try { schema_version: 9, ..case(keyed) };
    Ok(vec![
        ("no credential", case(bare.clone()), ErrorCode::Unauthenticated),
        ("key of another source", others, ErrorCode::PermissionDenied),
        ("key of an unknown source", unknown, ErrorCode::Unauthenticated),
        ("altered secret", altered, ErrorCode::Unauthenticated),
        ("unknown data set", nothing, ErrorCode::UnknownDataset),
        ("unknown schema version", version, ErrorCode::UnknownSchemaVersion),
    ])
}

/// What a node has counted by code: streams that were not opened, calls of who may not.
async fn counted(cluster: &Cluster, at: usize) -> Result<Vec<f64>> {
    let mut counted = Vec::new();
    for (code, ..) in COUNTED {
        for name in ["dtm_opens_refused_total", "dtm_refusals_total"] {
            let series = format!("{name}{{code=\"{code}\"}}");
            counted.push(metric_at(cluster, at, &series).await?);
        }
    }
    Ok(counted)
}

/// How often each code is counted as a stream that was not opened, and as a call of who may not, by
/// the tries at one node.
const COUNTED: [(ErrorCode, u32, u32); 4] = [
    (ErrorCode::Unauthenticated, 3, 3),
    (ErrorCode::PermissionDenied, 1, 1),
    (ErrorCode::UnknownDataset, 1, 0),
    (ErrorCode::UnknownSchemaVersion, 1, 0),
];

// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_are_refused_with_their_code() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let good = cluster.add_source("src-1", &["notes"]).await?;
    let other = cluster.add_source("src-2", &["notes"]).await?;
    for at in 0..NODES {
        let before = counted(&cluster, at).await?;
        for (what, case, wanted) in bad_credentials(&cluster, (&good, &other), at)? {
            let what = format!("n{}: {what}", at + 1);
            let error = case.refused().await.with_context(|| what.clone())?;
            ensure!(error.code() == Some(wanted), "{what}: {error}, not {wanted}");
            if wanted == ErrorCode::UnknownSchemaVersion {
                ensure!(error.to_string().contains("no version 9"), "{what}: {error}");
            }
        }
        let counted: Vec<_> = counted(&cluster, at)
            .await?
            .iter()
            .zip(&before)
            .map(|(now, then)| now - then)
            .collect();
        let wanted: Vec<_> = COUNTED.iter().flat_map(|(_, a, b)| [*a, *b].map(f64::from)).collect();
        ensure!(counted == wanted, "n{}: {counted:?} of {COUNTED:?}", at + 1);
        strangers::are_refused(&cluster, at).await?;
    }

    revoke(&cluster, &other).await?;
    for at in 0..NODES {
        // A node that does not lead meta may know it a moment later.
        until("the revoked key is refused", Duration::from_secs(10), async || {
            let code = refused_with(cluster.endpoint_at(&other, &[at])?, "src-2", "notes").await?;
            ensure!(code == ErrorCode::CredentialRevoked, "n{}: {code}", at + 1);
            Ok(())
        })
        .await?;
    }

    // None of it had an effect, and the good key still gets in.
    let load = Load::start(&cluster, vec![Plan::new(&good, "a")]).await?;
    load.moves(20).await?;
    let lines = load.finish().await?;
    let verdict = judge(&cluster, &lines).await?;
    ensure!(verdict.nodes.iter().all(|n| n.stored > 0), "{verdict}");
    cluster.passed();
    Ok(())
}

/// How long after a revocation what is open may go on.
const CUT_WITHIN: Duration = Duration::from_secs(5);

/// Opens a stream on the node that leads its group, where clients stay.
async fn stream_on(cluster: &Cluster, source: &Source, at: usize) -> Result<Publisher> {
    send_on(cluster, source, at, 1).await
}

/// The same, with another record.
async fn send_on(cluster: &Cluster, source: &Source, at: usize, number: u64) -> Result<Publisher> {
    let publisher = try_open(cluster.endpoint_at(source, &[at])?, &source.code, "notes").await?;
    let (record, _) = Plan::new(&std::sync::Arc::new(source.clone()), "s").record(number);
    publisher.send(record).await?;
    tokio::time::timeout(WITHIN, publisher.flush()).await.context("no ack in time")??;
    Ok(publisher)
}

// The node that is asked to revoke is not the node that the stream is open on.
//
// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_on_one_node_is_cut_on_another() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let (revoked, other) = (
        cluster.add_source("src-1", &["notes"]).await?,
        cluster.add_source("src-2", &["notes"]).await?,
    );
    for number in 0..NODES {
        let source = cluster.add_source(&format!("src-on-{number}"), &["notes"]).await?;
        let at = cluster.leader(source.group).await?;
        let stream = stream_on(&cluster, &source, at).await?;
        let home = cluster.leader(other.group).await?;
        let untouched = stream_on(&cluster, &other, home).await?;
        revoke_at(&cluster, &source, (at + 1) % NODES).await?;
        let asked = std::time::Instant::now();
        let error = tokio::time::timeout(CUT_WITHIN, stream.failure()).await;
        let error = error.with_context(|| format!("n{}: not cut in 5 s", at + 1))?;
        ensure!(error.code() == Some(ErrorCode::CredentialRevoked), "{error}");
        eprintln!("n{}: cut {:?} after the revocation", at + 1, asked.elapsed());
        ensure!(untouched.ended().is_none(), "another source was cut too");
        untouched.close(false).await?;
    }

    let at = cluster.leader(revoked.group).await?;
    let stream = stream_on(&cluster, &revoked, at).await?;
    suspend(&cluster, &revoked, (at + 1) % NODES).await?;
    let error = tokio::time::timeout(CUT_WITHIN, stream.failure()).await.context("not cut")?;
    let code = error.code();
    ensure!(
        matches!(code, Some(ErrorCode::CredentialRevoked | ErrorCode::PermissionDenied)),
        "{error}"
    );
    let code = refused_with(cluster.endpoint_at(&revoked, &[2])?, "src-1", "notes").await?;
    ensure!(code == ErrorCode::PermissionDenied, "suspended: {code}");
    cluster.passed();
    Ok(())
}

/// Follows a source's records at one node, and has read what is there.
async fn tail_at(endpoint: Endpoint, source: &Source) -> Result<RecordStream<ReadRequest>> {
    let request = ReadRequest { source: source.code.clone(), ..ReadRequest::default() };
    let mut tail = Reader::new(endpoint).tail(request);
    let first = tokio::time::timeout(WITHIN, tail.next()).await.context("nothing is there")??;
    ensure!(first.is_some_and(|answer| !answer.records.is_empty()), "an empty answer");
    Ok(tail)
}

/// Whoever follows is idle then: only the node can end it.
async fn is_cut(tail: &mut RecordStream<ReadRequest>, who: &str) -> Result<()> {
    let asked = std::time::Instant::now();
    let told = tokio::time::timeout(CUT_WITHIN, tail.next()).await;
    let told = told.with_context(|| format!("{who}: not cut in 5 s"))?;
    let error = told.err().with_context(|| format!("{who}: ended without an error"))?;
    ensure!(error.code() == Some(ErrorCode::CredentialRevoked), "{who}: {error}");
    eprintln!("{who}: cut {:?} after the revocation", asked.elapsed());
    Ok(())
}

// Nodes that hold no replica of the group relay what they read: they watch the rights themselves.
//
// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_while_it_reads_is_cut() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let other = cluster.add_source("src-2", &["notes"]).await?;
    for source in [&source, &other] {
        let at = cluster.leader(source.group).await?;
        stream_on(&cluster, source, at).await?.close(false).await?;
    }
    let out = cluster.path("people").display().to_string();
    std::fs::create_dir_all(&out)?;
    cluster.dtm(&["operator", "add", "lan", "--role", "auditor", "--out", &out]).await?;
    let auditor = TlsFiles {
        certificate: Some(format!("{out}/lan.pem").into()),
        key: Some(format!("{out}/lan.key").into()),
        ..cluster.source_files()
    };
    let seed = [cluster.nodes[2].grpc.to_string()];
    let mut audits = tail_at(Endpoint::new(seed, &auditor)?, &source).await?;
    let mut own = tail_at(cluster.endpoint_at(&source, &[1])?, &source).await?;
    let mut untouched = tail_at(cluster.endpoint_at(&other, &[1])?, &other).await?;

    revoke_at(&cluster, &source, 0).await?;
    is_cut(&mut own, "the source").await?;
    let more = tokio::time::timeout(Duration::from_secs(2), audits.next()).await;
    ensure!(more.is_err(), "the auditor was cut with the source: {more:?}");
    cluster.dtm(&["operator", "revoke", "lan", "--yes"]).await?;
    is_cut(&mut audits, "the auditor").await?;

    let at = cluster.leader(other.group).await?;
    send_on(&cluster, &other, at, 2).await?.close(false).await?;
    let more =
        tokio::time::timeout(WITHIN, untouched.next()).await.context("it stands still")??;
    ensure!(more.is_some(), "another source was cut too");
    cluster.passed();
    Ok(())
}

async fn suspend(cluster: &Cluster, source: &Source, at: usize) -> Result<()> {
    let admin = cluster.admin_at(&[at])?;
    let list = ListSourcesRequest { source: source.code.clone(), ..Default::default() };
    let found = admin.call(|mut client| {
        let request = list.clone();
        async move { client.list_sources(request).await }
    });
    let found = found.await?.sources.into_iter().next().and_then(|found| found.source);
    let mut row = found.context("the source")?;
    row.suspended = true;
    let put =
        PutSourceRequest { context: Some(Admin::context("test")), source: Some(row), update: true };
    let suspended = admin.call(|mut client| {
        let request = put.clone();
        async move { client.put_source(request).await }
    });
    suspended.await?;
    Ok(())
}

/// The key with another last-but-one character.
fn altered(key: &str) -> String {
    let mut bytes = key.trim().as_bytes().to_vec();
    let at = bytes.len() - 5;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).expect("it was ASCII")
}

async fn revoke(cluster: &Cluster, source: &Source) -> Result<()> {
    revoke_at(cluster, source, 0).await
}

async fn revoke_at(cluster: &Cluster, source: &Source, at: usize) -> Result<()> {
    let request = RevokeSourceKeyRequest {
        context: Some(Admin::context("test")),
        source: source.code.clone(),
        key_id: source.key_id.clone().into(),
    };
    let admin = cluster.admin_at(&[at])?;
    let revoked = admin.call(|mut client| {
        let request = request.clone();
        async move { client.revoke_source_key(request).await }
    });
    revoked.await?;
    Ok(())
}
