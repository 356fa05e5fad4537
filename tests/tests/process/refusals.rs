//! Whoever is not let in.

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
use crate::load::{Load, Plan};
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::until;

async fn try_open(endpoint: Endpoint, source: &str, dataset: &str) -> Result<Publisher, Error> {
    let mut config = PublisherConfig::new(source, "s", dataset);
    config.open_timeout = Some(Duration::from_secs(5));
    Publisher::open(endpoint, config).await
}

async fn refused_with(endpoint: Endpoint, source: &str, dataset: &str) -> Result<ErrorCode> {
    match try_open(endpoint, source, dataset).await {
        Ok(_) => anyhow::bail!("it was let in"),
        Err(error) => error.code().with_context(|| error.to_string()),
    }
}

// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_are_refused_with_their_code() -> Result<()> {
    let cluster = Cluster::start().await?;
    let good = cluster.add_source("src-1", &["notes"]).await?;
    let other = cluster.add_source("src-2", &["notes"]).await?;
    for at in 0..NODES {
        let keyed = |source: &Source| cluster.endpoint_at(source, &[at]);
        let bare = Endpoint::new(keyed(&good)?.seeds().to_vec(), &cluster.source_files())?;
        let with =
            |key: &str| Ok::<_, Error>(bare.clone().with_credential(Credential::source_key(key)?));
        let cases = [
            ("no credential", bare.clone(), "src-1", "notes", ErrorCode::Unauthenticated),
            (
                "key of another source",
                keyed(&other)?,
                "src-1",
                "notes",
                ErrorCode::PermissionDenied,
            ),
            (
                "key of an unknown source",
                with(&good.key.replace("src-1", "src-9"))?,
                "src-9",
                "notes",
                ErrorCode::Unauthenticated,
            ),
            (
                "altered secret",
                with(&altered(&good.key))?,
                "src-1",
                "notes",
                ErrorCode::Unauthenticated,
            ),
            ("unknown data set", keyed(&good)?, "src-1", "nothing", ErrorCode::UnknownDataset),
        ];
        for (what, endpoint, source, dataset, wanted) in cases {
            let code = refused_with(endpoint, source, dataset).await;
            let code = code.with_context(|| format!("n{}: {what}", at + 1))?;
            ensure!(code == wanted, "n{}: {what}: {code}, not {wanted}", at + 1);
        }
        let files = TlsFiles { ca: wrong_ca(&cluster).await?, certificate: None, key: None };
        let stranger = Endpoint::new(keyed(&good)?.seeds().to_vec(), &files)?;
        // One attempt: a publisher would try again for as long as it may.
        let address = cluster.nodes[at].grpc.to_string();
        let error = stranger.channel(&address).await.expect_err("another CA");
        ensure!(matches!(error, Error::Connect { .. }), "wrong CA: {error}");
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
    let cluster = Cluster::start().await?;
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
    let cluster = Cluster::start().await?;
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
    let list = ListSourcesRequest { source: source.code.clone() };
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

/// The CA of another cluster.
async fn wrong_ca(cluster: &Cluster) -> Result<std::path::PathBuf> {
    let folder = cluster.path("stranger");
    let ca = folder.join("tls/ca.pem");
    if !ca.exists() {
        let folder = folder.display().to_string();
        let init = ["cluster", "init", "--folder", &folder, "--name", "stranger", "--no-context"];
        cluster.dtm(&init).await?;
    }
    Ok(ca)
}
