//! A node that an operator emptied stays empty until the operator takes it back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dtm_client::Endpoint;
use dtm_types::ErrorCode;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::bad_records::open_stream;
use crate::cluster::{Cluster, NODES};
use crate::https::page;
use crate::load::Load;
use crate::readback::finish_and_judge;
use crate::wait::until;

const WITHIN: Duration = Duration::from_secs(60);
/// How long it is watched after its restart.
const WATCHED: Duration = Duration::from_secs(4);
const AT: usize = 2;

// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_stays_drained_over_a_restart() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    cluster.spread().await?;
    let load = Load::usual(&cluster, 4).await?;
    load.moves(20).await?;
    let source = load.lines[0].plan.source.clone();
    cluster.dtm(&["cluster", "drain", "n3"]).await?;
    until("n3 is empty", WITHIN, async || is_empty(&cluster).await).await?;
    cluster.nodes[AT].stop().await?;
    load.moves(20).await?;
    cluster.start_node(AT)?;
    cluster.settled(NODES).await?;

    until("n3 is drained again", WITHIN, async || is_empty(&cluster).await).await?;
    let watched = Instant::now();
    while watched.elapsed() < WATCHED {
        let Err(error) = open_stream(&cluster, &source, "late", "notes", AT).await else {
            bail!("a drained node took a session");
        };
        ensure!(error.code() == Some(ErrorCode::Unavailable), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    until("n3 is still empty", WITHIN, async || is_empty(&cluster).await).await?;
    load.moves(20).await?;

    cluster.dtm(&["cluster", "drain", "n3", "--resume"]).await?;
    until("n3 is ready", WITHIN, async || page(&cluster, AT, "/readyz").await.map(drop)).await?;
    until("n3 is healthy", WITHIN, async || {
        ensure!(health(&cluster).await? == ServingStatus::Serving, "not yet");
        Ok(())
    })
    .await?;
    cluster.spread().await?;
    until("n3 takes sessions", WITHIN, async || {
        Ok(open_stream(&cluster, &source, "late", "notes", AT).await.map(drop)?)
    })
    .await?;
    load.moves(20).await?;
    finish_and_judge(cluster, load).await
}

/// What a client that asks for health before it connects is told of intake.
async fn health(cluster: &Cluster) -> Result<ServingStatus> {
    let address = cluster.nodes[AT].grpc.to_string();
    let endpoint = Endpoint::new([address.clone()], &cluster.source_files())?;
    let mut health = HealthClient::new(endpoint.channel(&address).await?);
    let service = "dtm.ingest.v1.IngestService".to_owned();
    Ok(health.check(HealthCheckRequest { service }).await?.into_inner().status())
}

/// Its page says that it is drained, and it leads nothing.
async fn is_empty(cluster: &Cluster) -> Result<()> {
    let Err(ready) = page(cluster, AT, "/readyz").await else { bail!("it says that it is ready") };
    ensure!(format!("{ready:?}").contains("503"), "{ready:?}");
    ensure!(health(cluster).await? == ServingStatus::NotServing, "its health says otherwise");
    let status = cluster.status().await?;
    let row = status.nodes.iter().find(|n| n.node.as_ref().is_some_and(|row| row.name == "n3"));
    let row = row.context("it is there")?;
    ensure!(row.node.as_ref().is_some_and(|row| row.draining), "its row says otherwise");
    ensure!(row.groups_led == 0 && row.sessions == 0, "{} led, {}", row.groups_led, row.sessions);
    Ok(())
}
