//! A source that signs in by certificate: issued, used for sending and reading, revoked.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_client::{Endpoint, Publisher, PublisherConfig, TlsFiles};
use dtm_proto::records::StoredRecord;
use dtm_types::ErrorCode;
use serde_json::Value;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::Plan;
use crate::readback::{all_of, records};
use crate::sources::Source;
use crate::wait::until;

const CUT_WITHIN: Duration = Duration::from_secs(5);
const RECORDS: u64 = 5;

/// What the command made: a node with the source's certificate and without its key.
fn endpoint_at(cluster: &Cluster, made: &Value, at: usize) -> Result<Endpoint> {
    let file = |name: &str| made[name].as_str().map(Into::into);
    let files =
        TlsFiles { certificate: file("certificate"), key: file("key"), ..cluster.source_files() };
    Ok(Endpoint::new([cluster.nodes[at].grpc.to_string()], &files)?)
}

async fn open(endpoint: Endpoint, source: &str) -> Result<Publisher, dtm_client::Error> {
    let mut config = PublisherConfig::new(source, "s", "notes");
    config.open_timeout = Some(Duration::from_secs(5));
    Publisher::open(endpoint, config).await
}

/// Its certificates as `dtm source show` tells them.
async fn certificates(cluster: &Cluster, source: &Source) -> Result<Vec<Value>> {
    let shown = cluster.dtm(&["-o", "json", "source", "show", &source.code]).await?;
    let mut shown: Value = serde_json::from_str(&shown)?;
    Ok(shown["certificates"].as_array_mut().context("certificates")?.split_off(0))
}

// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_a_certificate_sends_and_reads_until_it_is_revoked() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let other = cluster.add_source("src-2", &["notes"]).await?;
    let out = cluster.path("certificate").display().to_string();
    std::fs::create_dir_all(&out)?;
    let issue = ["-o", "json", "source", "certificate", "src-1", "--out", &out];
    let made: Value = serde_json::from_str(&cluster.dtm(&issue).await?)?;

    let at = cluster.leader(source.group).await?;
    let publisher = open(endpoint_at(&cluster, &made, at)?, "src-1").await?;
    let plan = Plan::new(&source, "s");
    let mut sent = Vec::new();
    for sequence in 1..=RECORDS {
        let (record, _) = plan.record(sequence);
        sent.push((sequence, record.payload.to_vec()));
        publisher.send(record).await?;
    }
    tokio::time::timeout(WITHIN, publisher.flush()).await.context("no ack in time")??;
    for at in 0..NODES {
        let (mut found, endpoint) = (Vec::new(), endpoint_at(&cluster, &made, at)?);
        let tell = |record: StoredRecord| found.push((record.sequence, record.payload.to_vec()));
        records(endpoint.clone(), all_of(&source), tell).await?;
        ensure!(found == sent, "n{}: {found:?}", at + 1);
        // It speaks for its source only.
        is_refused(endpoint.clone(), "src-2", ErrorCode::PermissionDenied).await?;
        let read = records(endpoint, all_of(&other), drop).await;
        let error = read.expect_err("another source's records");
        let error = error.downcast::<dtm_client::Error>()?;
        ensure!(error.code() == Some(ErrorCode::PermissionDenied), "{error}");
    }

    let own = certificates(&cluster, &source).await?;
    ensure!(own.len() == 1 && own[0]["revoked"] == false, "{own:?}");
    let digest = own[0]["digest"].as_str().context("a digest")?;
    cluster.dtm(&["source", "key", "revoke", "src-1", digest, "--yes"]).await?;
    let error = tokio::time::timeout(CUT_WITHIN, publisher.failure()).await;
    let error = error.context("the open stream was not cut in 5 s")?;
    ensure!(error.code() == Some(ErrorCode::CredentialRevoked), "{error}");
    ensure!(certificates(&cluster, &source).await?[0]["revoked"] == true, "it is not shown");
    for at in 0..NODES {
        // A node that does not lead meta may know it a moment later.
        until("the revoked certificate is refused", CUT_WITHIN, async || {
            let endpoint = endpoint_at(&cluster, &made, at)?;
            is_refused(endpoint, "src-1", ErrorCode::CredentialRevoked).await
        })
        .await?;
    }
    // Its key is another credential.
    let publisher = open(cluster.endpoint_at(&source, &[at])?, "src-1").await?;
    ensure!(publisher.next_sequence() == RECORDS + 1, "what was acked is held");
    cluster.passed();
    Ok(())
}

async fn is_refused(endpoint: Endpoint, source: &str, wanted: ErrorCode) -> Result<()> {
    match open(endpoint, source).await {
        Ok(_) => bail!("{source}: it was let in"),
        Err(error) => {
            ensure!(error.code() == Some(wanted), "{source}: {error}");
            Ok(())
        }
    }
}
