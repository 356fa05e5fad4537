//! A refused record is sent again: as it was, corrected, and once more.

use anyhow::{Context, Result, ensure};
use dtm_client::Reader;
use dtm_proto::records::{QuarantineRequest, StoredRecord};

use crate::cluster::{Cluster, NODES};
use crate::load::{Load, Plan};
use crate::readback::{all_of, records};

/// The fortieth record of a line is a broken one.
const RECORDS: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_is_stored_once_after_correction() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let line = Load::line(Plan::new(&source, "a"));
    let publisher = line.open(cluster.endpoint(&source)?).await?;
    for _ in 0..RECORDS {
        ensure!(line.send(&publisher)?, "the window holds so few");
    }
    line.flush(&publisher).await?;
    let reader = Reader::new(cluster.endpoint(&source)?);
    let request = QuarantineRequest { source: source.code.clone(), ..Default::default() };
    let page = reader.quarantine(request).next().await?.context("one was refused")?;
    let refused = page.records.first().context("one was refused")?;
    ensure!(refused.sequence == RECORDS, "{refused:?}");

    let resend = ["-o", "json", "quarantine", "resend", "--source", "src-1"];
    let id = refused.id.as_str();
    // As broken as before.
    cluster.dtm_fails(&[&resend[..], &[id]].concat(), "some records were refused").await?;
    ensure!(state(&cluster, id).await?["refused"] == 1, "once refused again");
    let again = Reader::new(cluster.endpoint(&source)?);
    let stream = format!("resend.{id}");
    let request =
        QuarantineRequest { source: source.code.clone(), stream, ..QuarantineRequest::default() };
    let page = again.quarantine(request).next().await?.context("it was refused again")?;
    let again = page.records.first().context("it was refused again")?.clone();
    ensure!(again.resend_of == id && again.resent.is_none(), "{again:?}");
    let file = cluster.path("corrected.json");
    std::fs::write(&file, r#"{"code":"SRC-1-40","note":"as it was meant"}"#)?;
    let file = file.display().to_string();
    let corrected = [&resend[..], &["--file", &file, id]].concat();
    let stored = cluster.dtm(&corrected).await?;
    let stored: serde_json::Value = serde_json::from_str(&stored)?;
    ensure!(stored["stored"] == true && stored["sequence"] == 2, "{stored}");
    ensure!(stored["leaf_index"].as_u64().is_some_and(|leaf| leaf > 0), "{stored}");
    cluster.dtm_fails(&corrected, "[already-exists]").await?;
    let resent = state(&cluster, id).await?;
    ensure!(resent["sequence"] == 2 && resent["duplicate"] == false, "{resent}");
    // The entry of the second refusal is closed with it, and stores nothing more.
    ensure!(state(&cluster, &again.id).await?["sequence"] == 2, "closed with the first");
    let by_second = [&resend[..], &["--file", &file, &again.id]].concat();
    cluster.dtm_fails(&by_second, "[already-exists]").await?;
    let listed = cluster.dtm(&["quarantine", "list", "--source", "src-1"]).await?;
    let stored = format!("resent, stored as resend.{id} #2");
    ensure!(listed.contains(&stored), "{listed}");
    cluster.dtm_fails(&[&resend[..], &["1-1-0-0"]].concat(), "[not-found]").await?;

    let stream = format!("resend.{id}");
    for at in 0..NODES {
        let mut found = Vec::new();
        let tell = |record: StoredRecord| found.extend((record.stream == stream).then_some(record));
        records(cluster.endpoint_at(&source, &[at])?, all_of(&source), tell).await?;
        ensure!(found.len() == 1 && found[0].sequence == 2, "n{}: {found:?}", at + 1);
        let message_id = found[0].envelope.as_ref().map(|envelope| envelope.message_id.as_str());
        ensure!(message_id == Some("src-1/a/40"), "{message_id:?}");
    }
    cluster.passed();
    Ok(())
}

/// What `dtm quarantine show` says became of a refused record.
async fn state(cluster: &Cluster, id: &str) -> Result<serde_json::Value> {
    let show = ["-o", "json", "quarantine", "show", "--source", "src-1", id];
    let shown: serde_json::Value = serde_json::from_str(&cluster.dtm(&show).await?)?;
    Ok(shown["resent"].clone())
}
