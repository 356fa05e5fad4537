//! A source with limits of its own beside one without.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dtm_client::{Error, Session};
use dtm_types::ErrorCode;
use dtm_types::command::SourceLimits;
use serde_json::{Value, json};

use crate::bad_frames::{end_of, next, send, told};
use crate::bad_records::{open_stream, refused_until};
use crate::cluster::Cluster;
use crate::readback::quarantined;
use crate::sources::{Source, source_row};
use crate::wait::until;

const WITHIN: Duration = Duration::from_secs(30);
/// Records of `src-1`, then as they are after the change.
const RECORD_BYTES: usize = 4_096;
const RAISED_BYTES: usize = 8_192;
const STREAMS: usize = 2;
const KEPT: usize = 3;

// holds: LIVE-1
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_held_to_limits_of_its_own_and_no_other_is() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut row = source_row("src-1", &["notes"]);
    row.limits = Some(SourceLimits {
        record_bytes_max: RECORD_BYTES as u64,
        streams_open_max: STREAMS as u32,
        quarantine_records_max: KEPT as u64,
        ..SourceLimits::default()
    });
    let source = cluster.register(row).await?;
    let other = cluster.register(source_row("src-2", &["notes"])).await?;
    what_no_node_takes_is_not_set(&cluster).await?;

    let session = opened(&cluster, &source, "a").await?;
    ensure!(record_bytes(&session) == RECORD_BYTES as u64, "told: {:?}", session.opened());
    send(&session, 1, &[RECORD_BYTES + 1]).await?;
    let error = end_of(session).await?;
    told(&error, ErrorCode::TooLarge, "record_bytes_max", RECORD_BYTES)?;
    ensure!(error.to_string().contains("of the source"), "whose it is: {error}");
    let mut beside = opened(&cluster, &other, "a").await?;
    ensure!(record_bytes(&beside) == 8 << 20, "told: {:?}", beside.opened());
    send(&beside, 1, &[RECORD_BYTES + 1]).await?;
    next(&mut beside).await?;

    let mut held = [opened(&cluster, &source, "a").await?, opened(&cluster, &source, "b").await?];
    let at = cluster.leader(source.group).await?;
    let Err(error) = open_stream(&cluster, &source, "c", "notes", at).await else {
        bail!("a third stream was let in");
    };
    told(&error, ErrorCode::TooManyStreams, "streams_open_max", STREAMS)?;
    ensure!(error.to_string().contains("of the source"), "whose it is: {error}");
    for name in ["b", "c"] {
        opened(&cluster, &other, name).await?;
    }

    // The streams share what the source may keep of refused records.
    for session in &mut held {
        send(session, 1, &[10; KEPT + 1]).await?;
        refused_until(session, KEPT as u64 + 1).await?;
    }
    send(&beside, 2, &[10; KEPT + 1]).await?;
    refused_until(&mut beside, KEPT as u64 + 2).await?;
    let (kept, of_other) = (kept(&cluster, &source).await?, kept(&cluster, &other).await?);
    ensure!((kept, of_other) == (KEPT, KEPT + 2), "kept {kept} and {of_other}");

    raised(&cluster, &source, held).await?;
    cluster.passed();
    Ok(())
}

/// Refused with the name and with what is possible; the agreement stays as it was.
async fn what_no_node_takes_is_not_set(cluster: &Cluster) -> Result<()> {
    let set = |limit| ["source", "add", "src-2", "--update", "--limit", limit];
    let over = set("record_bytes_max=8_388_609");
    cluster.dtm_fails(&over, "record_bytes_max = 8388609").await?;
    cluster.dtm_fails(&over, "1024 to 8388608").await?;
    cluster.dtm_fails(&set("streams_open_max=5000"), "1 to 4096").await?;
    cluster.dtm_fails(&set("frame_bytes_max=1048576"), "lower record_bytes_max").await?;
    let shown = shown(cluster, "src-2").await?;
    ensure!(shown["limits"] == json!({}) && shown["version"] == 1, "{shown}");
    Ok(())
}

/// What is not named stays, and so do the bounds of a stream that is open.
async fn raised(cluster: &Cluster, source: &Source, held: [Session; STREAMS]) -> Result<()> {
    let record = format!("record_bytes_max={RAISED_BYTES}");
    let raise = ["--limit", &record, "--limit", "streams_open_max=3"];
    cluster.dtm(&[&["source", "add", "src-1", "--update"][..], &raise].concat()).await?;
    let limits = shown(cluster, "src-1").await?["limits"].clone();
    let wanted = json!({"record_bytes_max": RAISED_BYTES, "streams_open_max": 3,
                        "quarantine_records_max": KEPT});
    ensure!(limits == wanted, "{limits}");
    let listed = cluster.dtm(&["source", "list"]).await?;
    ensure!(listed.contains("streams_open_max=3"), "{listed}");
    let mut third = opened(cluster, source, "c").await?;
    ensure!(record_bytes(&third) == RAISED_BYTES as u64, "told: {:?}", third.opened());
    send(&third, 1, &[RECORD_BYTES + 1]).await?;
    next(&mut third).await?;
    let [first, _second] = held;
    send(&first, KEPT as u64 + 2, &[RECORD_BYTES + 1]).await?;
    told(&end_of(first).await?, ErrorCode::TooLarge, "record_bytes_max", RECORD_BYTES)
}

/// Refused records with their reasons: of one beyond what is kept only its place is.
async fn kept(cluster: &Cluster, source: &Source) -> Result<usize> {
    let refused = quarantined(cluster.endpoint(source)?, source).await?;
    Ok(refused.iter().filter(|record| !record.violations.is_empty()).count())
}

async fn shown(cluster: &Cluster, source: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.dtm(&["-o", "json", "source", "show", source]).await?)?)
}

fn record_bytes(session: &Session) -> u64 {
    session.opened().window.map_or(0, |window| window.record_bytes_max)
}

/// On the node that leads its group, once that node knows the row and has a place.
async fn opened(cluster: &Cluster, source: &Source, stream: &str) -> Result<Session> {
    until("a stream opens", WITHIN, async || {
        let at = cluster.leader(source.group).await?;
        let opened: Result<_, Error> = open_stream(cluster, source, stream, "notes", at).await;
        Ok(opened?)
    })
    .await
}
