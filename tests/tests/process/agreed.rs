//! What source and managing agency agreed on holds at the edge, and an operator sees where it was
//! broken.

use anyhow::{Context, Result, ensure};
use dtm_client::{FrameBuilder, Record};
use dtm_doors::system::SystemClock;
use dtm_machine::seams::Clock;
use dtm_proto::ingest::RefusedRecord;
use dtm_proto::records::StoredRecord;
use dtm_types::command::Agreement;
use dtm_types::format::Form;
use dtm_types::local_day;

use crate::bad_records::{open_form, refused_until};
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::https::{metric, page};
use crate::readback::{all_of, quarantined, records};
use crate::secrecy::{CANARY, search};
use crate::sources::{Source, source_row};
use crate::wait::until;

const PERSONS: &str = r#"id = "persons"
version = 1
owner = "test"
category = "DD1"
title = { vi = "Người", en = "Persons" }
key = ["code"]
priority = "normal"
security = "internal"

[[field]]
name = "code"
type = "Code"
label = { vi = "Mã", en = "Code" }
max_length = 64

[[field]]
name = "full_name"
type = "Text"
label = { vi = "Họ tên", en = "Full name" }
personal = true
mask = "pseudonym"
"#;

/// A dossier whose code names another day than its day of receipt, 2026-01-25.
const DOSSIER: &str = r#"{"dossier_code":"CODE","dossier_info":{"n":3},"dossier_owner":{"full_name":"Nguyễn Văn An","id_number":"079090001234","party_kind":"citizen"},"due_date":"2026-02-10","fee_info":[],"payment_channel":null,"procedure_code":"1.000894","procedure_name":"Đăng ký kết hôn","processing_unit":{"agency_code":"H57.101.02","agency_name":"Sở"},"received_date":"2026-01-25","receiving_unit":{"agency_code":"H57.101.02","agency_name":"Sở"},"result_returned_date":null,"submission_method":"online","submitter":{"full_name":"Nguyễn Văn An","is_authorised_person":false,"party_kind":"citizen"},"supplement_info":[],"valid_result":null}"#;

/// Records of each source that hold a clear name; as many are masked already.
const CLEAR: u64 = 20;

// covers: C9.4.2
// holds: SEC-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_values_where_masked_ones_are_agreed_are_not_stored_and_raise_an_alarm() -> Result<()>
{
    let mut cluster = Cluster::beside().await?;
    cluster.publish_dataset(PERSONS).await?;
    for (code, refuse_raw) in [("src-masks", false), ("src-refuses", true)] {
        let source = masked_source(&cluster, code, refuse_raw).await?;
        let refused = send(&cluster, &source, "persons", Form::Masked, &persons()).await?;
        let stored = read_at(&cluster, &source, 0).await?;
        let (kept, told) = if refuse_raw { (CLEAR, CLEAR) } else { (2 * CLEAR, 0) };
        ensure!(stored.len() as u64 == kept && refused.len() as u64 == told, "{code}: {kept}");
        let held = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
        ensure!(!stored.iter().any(|record| held(&record.payload)), "{code}: given back in clear");
        for record in &refused {
            let broken = record.violations.first().context("a violation")?;
            ensure!(broken.rule == "not_masked" && broken.pointer == "/full_name", "{record:?}");
            ensure!(!format!("{record:?}").contains(CANARY), "{record:?}");
        }
        alarm(&cluster, code).await.with_context(|| code.to_owned())?;
        search(&cluster, &source).context("while they run")?;
    }
    let last = cluster.add_source("src-other", &["persons"]).await?;
    for node in &mut cluster.nodes {
        node.kill();
    }
    search(&cluster, &last).context("after the kill")?;
    cluster.passed();
    Ok(())
}

/// Clear and masked ones in turn.
fn persons() -> Vec<String> {
    let one = |n| {
        let masked = format!("PSN-{}", "A".repeat(26));
        let name = if n % 2 == 0 { format!("{CANARY} {n}") } else { masked };
        format!("{{\"code\":\"P-{n}\",\"full_name\":\"{name}\"}}")
    };
    (0..2 * CLEAR).map(one).collect()
}

async fn masked_source(cluster: &Cluster, code: &str, refuse_raw: bool) -> Result<Source> {
    let mut row = source_row(code, &["persons"]);
    for agreement in &mut row.agreements {
        *agreement = Agreement { form: Form::Masked.into(), refuse_raw, ..agreement.clone() };
    }
    cluster.register(row).await
}

/// Metric, log line with the place and without content, `dtm source show` and the live page.
async fn alarm(cluster: &Cluster, code: &str) -> Result<()> {
    let counted =
        metric(cluster, &format!("dtm_records_unmasked_total{{source=\"{code}\"}}")).await?;
    ensure!(counted == CLEAR as f64, "{counted} counted");
    let mut lines = Vec::new();
    for node in &cluster.nodes {
        let text = std::fs::read_to_string(&node.log)?;
        let said = text.lines().filter(|line| line.contains("agreed as masked"));
        lines.extend(said.filter(|line| line.contains(code)).map(str::to_owned));
    }
    let line = lines.first().context("a line in the log")?;
    for word in ["WARN", "\"persons\"", "\"/full_name\""] {
        ensure!(line.contains(word), "no {word} in {line}");
    }
    let shown = cluster.dtm(&["-o", "json", "source", "show", code]).await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    ensure!(shown["streams"][0]["unmasked"] == CLEAR, "{shown}");
    let page = page(cluster, 0, "/?lang=en").await?;
    let row = page.lines().find(|line| line.contains(code)).context("a row of the page")?;
    ensure!(row.contains(&format!("<td class=\"n bad\">{CLEAR}</td>")), "{row}");
    Ok(())
}

// covers: P-K2, P-K3, P-K9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dossier_code_has_a_real_day_and_another_one_is_marked_and_counted() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["dossier_sync"]).await?;
    let began = local_day(SystemClock::start().now_us());
    let days = ["260125", "260229", "280229", "260126", "260125"];
    let code = |(n, day): (usize, &&str)| format!("H57.101.02-{day}-22{n:04}");
    let mut codes: Vec<String> = days.iter().enumerate().map(code).collect();
    // A number with needless zeros is reported by the same way (P-K7).
    codes[4] = codes[4].replace("-22", "-220");
    let dossiers: Vec<_> = codes.iter().map(|code| DOSSIER.replace("CODE", code)).collect();
    let refused = send(&cluster, &source, "dossier_sync", Form::Raw, &dossiers).await?;
    ensure!(refused.len() == 1 && refused[0].sequence == 2, "{refused:?}");
    let broken = refused[0].violations.first().context("a violation")?;
    ensure!(broken.rule == "dossier_day" && broken.pointer == "/dossier_code", "{broken:?}");
    // Accepted, marked where they differ.
    let marks = marks(&cluster, &source).await?;
    let other = |day: &str| vec![format!("/received_date dossier_date_mismatch {day}")];
    let zeros = vec!["/dossier_code dossier_number 0004".to_owned()];
    let wanted = [(1, vec![]), (3, other("2028-02-29")), (4, other("2026-01-26")), (5, zeros)];
    ensure!(marks == wanted, "{marks:?}");
    let reports = [("dossier_date_mismatch", 2), ("dossier_number", 1)];
    counted(&cluster, "src-1", 4, &reports).await?;
    counted_today(&cluster, began).await?;
    let leader = cluster.leader(source.group).await?;
    cluster.nodes[leader].kill();
    cluster.start_node(leader)?;
    cluster.settled(NODES).await?;
    counted_today(&cluster, began).await.context("after a kill of the leader")?;
    owners_and_procedures_are_registered(&cluster).await?;
    cluster.passed();
    Ok(())
}

/// Each node's page has four records of today and one refused, unless midnight has passed.
async fn counted_today(cluster: &Cluster, began: u32) -> Result<()> {
    let tiles = ["Records today</dt><dd>4<", "Refused today</dt><dd>1<"];
    for at in 0..NODES {
        until("the day on the page", WITHIN, async || {
            let page = page(cluster, at, "/?lang=en").await?;
            let is_over = local_day(SystemClock::start().now_us()) != began;
            ensure!(is_over || tiles.iter().all(|tile| page.contains(tile)), "{page}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Who owns a centralised system, and which procedures go through one, stand in a new version of
/// the built-in data set, made as docs/datasets.md says.
async fn owners_and_procedures_are_registered(cluster: &Cluster) -> Result<()> {
    let built_in = cluster.dtm(&["dataset", "show", "dossier_sync"]).await?;
    let registers = "owners = [\"G22.001.00\"]\ncentralised_procedures = [\"1.000894\"]\n";
    let text = built_in.replacen("version = 1", "version = 2", 1);
    let file = cluster.path("dossier_sync.toml");
    std::fs::write(&file, format!("{text}\n[dossier_codes]\n{registers}"))?;
    cluster.dtm(&["dataset", "publish", &file.display().to_string()]).await?;
    let source = cluster.add_source("src-2", &["dossier_sync"]).await?;
    let (central, other) = ("1.000894", "2.000111");
    let cases = [
        // The owner's digits: registered, not registered, no digits.
        ("H57.101.02-260125-220001", central, "2026-01-25"),
        ("H57.101.02-260125-230001", central, "2026-01-25"),
        ("H57.101.02-260125-A20001", central, "2026-01-25"),
        // The older form: of a centralised procedure up to the day before, of another one always.
        ("000.00.00.H29-260125-0001", central, "2026-01-25"),
        ("000.00.00.H29-260120-0001", central, "2026-01-20"),
        ("000.00.00.H29-260125-0002", other, "2026-01-25"),
    ];
    let dossiers = cases.map(|(code, procedure, day)| {
        let dossier = DOSSIER.replace("CODE", code).replace("2026-01-25", day);
        dossier.replace(central, procedure)
    });
    let refused = send(cluster, &source, "dossier_sync", Form::Raw, &dossiers).await?;
    let refused: Vec<_> = refused.iter().map(|r| (r.sequence, &*r.violations[0].rule)).collect();
    ensure!(refused == [(3, "dossier_code"), (4, "dossier_code")], "{refused:?}");
    let marks = marks(cluster, &source).await?;
    let wanted = vec!["/dossier_code dossier_owner ".to_owned()];
    ensure!(marks == [(1, vec![]), (2, wanted), (5, vec![]), (6, vec![])], "{marks:?}");
    counted(cluster, "src-2", 4, &[("dossier_owner", 1)]).await
}

/// What the stored records of a source are marked with, by sequence.
async fn marks(cluster: &Cluster, source: &Source) -> Result<Vec<(u64, Vec<String>)>> {
    let stored = read_at(cluster, source, 0).await?;
    let marks = stored.into_iter().map(|record| {
        let warnings = record.envelope.unwrap_or_default().warnings;
        let said = warnings.into_iter().map(|w| format!("{} {} {}", w.pointer, w.rule, w.expected));
        (record.sequence, said.collect())
    });
    Ok(marks.collect())
}

/// The only stream of a source has so many records, and these marks are counted, each of another
/// record.
async fn counted(
    cluster: &Cluster,
    code: &str,
    records: u64,
    reports: &[(&str, u32)],
) -> Result<()> {
    for (rule, count) in reports {
        let series = format!("dtm_records_reported_total{{source=\"{code}\",rule=\"{rule}\"}}");
        let counted = metric(cluster, &series).await?;
        ensure!(counted == f64::from(*count), "{rule}: {counted}");
    }
    let shown = cluster.dtm(&["-o", "json", "source", "show", code]).await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let reported: u32 = reports.iter().map(|(_, count)| count).sum();
    ensure!(shown["streams"][0]["reported"] == reported, "{shown}");
    ensure!(shown["streams"][0]["records"] == records, "{shown}");
    Ok(())
}

/// Sends all in one frame; the refusals.
pub(crate) async fn send(
    cluster: &Cluster,
    source: &Source,
    dataset: &str,
    form: Form,
    payloads: &[String],
) -> Result<Vec<RefusedRecord>> {
    let mut frame = FrameBuilder::new(1);
    for payload in payloads {
        frame.push(&Record { payload: payload.clone().into(), ..Record::default() });
    }
    let last = u64::from(frame.count());
    let mut session = open_form(cluster, source, dataset, (dataset, form), 0).await?;
    session.send_frame(frame.finish().context("records")?).await?;
    let refused = refused_until(&mut session, last).await?;
    let kept = quarantined(cluster.endpoint(source)?, source).await?.len();
    ensure!(kept == refused.len(), "{kept} in quarantine, {} were told", refused.len());
    Ok(refused)
}

/// All that is stored of a source, by one node.
pub(crate) async fn read_at(
    cluster: &Cluster,
    source: &Source,
    at: usize,
) -> Result<Vec<StoredRecord>> {
    let mut stored = Vec::new();
    let tell = |record| stored.push(record);
    records(cluster.endpoint_at(source, &[at])?, all_of(source), tell).await?;
    Ok(stored)
}
