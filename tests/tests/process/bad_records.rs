//! Records that cannot be taken, through the real port: each is refused alone, with place and
//! reason in two languages, and its neighbours are kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dtm_client::{Form, FrameBuilder, IdPolicy, Mode, Open, Record, Session, SessionEvent};
use dtm_proto::ingest::RefusedRecord;
use dtm_proto::records::{ReadRequest, StoredRecord};

use crate::cluster::Cluster;
use crate::readback::{all_of, quarantined, records};
use crate::sources::Source;

/// A list of bad records is judged in this time, or it is not bounded.
const JUDGED_WITHIN: Duration = Duration::from_secs(10);
/// Nearly as large as a record may be.
const LARGE_BYTES: usize = 7 << 20;
/// What a node holds at its peak above what it held before, while records of that size are judged.
const MEMORY_GROWTH_MAX_KIB: u64 = 256 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

const MEASURES: &str = r#"id = "measures"
version = 1
owner = "test"
category = "B3"
title = { vi = "Số đo", en = "Measures" }
key = ["code"]
priority = "normal"
security = "internal"

[[field]]
name = "code"
type = "Code"
label = { vi = "Mã", en = "Code" }
max_length = 64

[[field]]
name = "amount"
type = "Integer"
label = { vi = "Số lượng", en = "Amount" }
"#;

const DOSSIER: &str = r#"{"dossier_code":"H57.101.02-260125-220001","dossier_state":"in_processing","processed_at":"2026-01-25T08:30:05+07:00","processing_content":"Thẩm định","processing_end_date":null,"processing_start_date":"2026-01-25","processor":{"full_name":"Đặng Thị Hường"},"processor_agency":{"agency_code":"H57.101.02","agency_name":"Sở Khoa học và Công nghệ"}}"#;

/// What is sent and what must be said of it.
struct Case {
    payload: Vec<u8>,
    rule: &'static str,
    /// Pointer, or none where the record cannot be parsed.
    pointer: Option<&'static str>,
    byte_offset: Option<u64>,
}

impl Case {
    fn unreadable(payload: impl Into<Vec<u8>>, rule: &'static str, byte_offset: u64) -> Self {
        Self { payload: payload.into(), rule, pointer: None, byte_offset: Some(byte_offset) }
    }

    fn broken(payload: impl Into<Vec<u8>>, rule: &'static str, pointer: &'static str) -> Self {
        Self { payload: payload.into(), rule, pointer: Some(pointer), byte_offset: None }
    }

    fn at(self, byte_offset: u64) -> Self {
        Self { byte_offset: Some(byte_offset), ..self }
    }
}

fn measures() -> Vec<Case> {
    let member = |text: &str| format!("{{\"code\":\"A-1\",\"amount\":{text}}}");
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut latin1 = member("1").into_bytes();
    latin1[9] = 0xD0;
    vec![
        Case::unreadable(latin1, "not_utf8", 9),
        Case::unreadable("code;amount\nA-1;1\n", "not_json", 0),
        Case::unreadable(member("01"), "not_json", 23),
        Case::unreadable(member(&nested), "too_deep", 23 + 63),
        Case::unreadable(member(&"9".repeat(10_000)), "number_too_long", 23),
        Case::unreadable("{\"code\":\"A-1\",\"amount\":1,\"amount\":2}", "duplicate_key", 34),
        Case::broken(member("9007199254740993"), "integer_too_large", "/amount").at(23),
        Case::broken(member("-9007199254740993"), "integer_too_large", "/amount").at(23),
        Case::broken(member("\"many\""), "wrong_type", "/amount").at(23),
        Case::broken("{\"code\":\"A-1\"}", "missing", "/amount"),
        Case::broken("{\"code\":\"A-1\",\"amount\":1,\"more\":1}", "unknown_member", "/more"),
    ]
}

fn dossiers() -> Vec<Case> {
    let day = DOSSIER.replacen("260125", "260230", 1);
    vec![Case::broken(day, "dossier_day", "/dossier_code")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_is_refused_alone_with_place_and_reason() -> Result<()> {
    let cluster = Cluster::beside().await?;
    cluster.publish_dataset(MEASURES).await?;
    let source = cluster.add_source("src-1", &["measures", "dossier_progress"]).await?;
    let good = |n: usize| format!("{{\"amount\":{n},\"code\":\"GOOD-{n}\"}}").into_bytes();
    show(&cluster, &source, "measures", measures(), good).await?;
    let good = |n: usize| DOSSIER.replacen("220001", &format!("22{:04}", n + 1), 1).into_bytes();
    show(&cluster, &source, "dossier_progress", dossiers(), good).await?;
    let kept = quarantined(cluster.endpoint(&source)?, &source).await?.len();
    ensure!(kept == measures().len() + dossiers().len(), "{kept} in quarantine");
    large_ones_are_bounded(&cluster, &source).await?;
    cluster.passed();
    Ok(())
}

/// As bad and nearly as large as a record may be: each is told with its place, in bounded time, and
/// the node holds no more than some times its bytes.
async fn large_ones_are_bounded(cluster: &Cluster, source: &Source) -> Result<()> {
    let at = cluster.leader(source.group).await?;
    let before = cluster.nodes[at].resident_kib()?;
    let mut session = open_stream(cluster, source, "large", "measures", at).await?;
    for (n, case) in (1..).zip(large()) {
        let mut frame = FrameBuilder::new(n);
        frame.push(&record(case.payload.clone()));
        let started = Instant::now();
        session.send_frame(frame.finish().context("a record")?).await?;
        let refused = refused_until(&mut session, n).await.with_context(|| case.rule)?;
        let (took, peak) = (started.elapsed(), cluster.nodes[at].peak_resident_kib()?);
        println!("{}: {took:?}, {} KiB", case.rule, peak.saturating_sub(before));
        ensure!(took < JUDGED_WITHIN, "{} took {took:?}", case.rule);
        let told = refused.first().context("it is refused")?;
        judge(&case, told).with_context(|| format!("{}: {told:?}", case.rule))?;
        let grown = peak.saturating_sub(before);
        ensure!(grown < MEMORY_GROWTH_MAX_KIB, "{}: memory grew by {grown} KiB", case.rule);
    }
    Ok(())
}

fn large() -> Vec<Case> {
    let member = |text: &str| format!("{{\"code\":\"A-1\",\"amount\":{text}}}");
    let mut latin1 = member(&format!("\"{}\"", "a".repeat(LARGE_BYTES))).into_bytes();
    latin1[24 + LARGE_BYTES - 1] = 0xD0;
    let nested = format!("{}{}", "[".repeat(LARGE_BYTES / 2), "]".repeat(LARGE_BYTES / 2));
    let twice = format!("1{}", ",\"amount\":2".repeat(LARGE_BYTES / 11));
    // Values are counted before their names are compared: 262,144 are allowed.
    let one_too_many = 12 + 11 * 262_143;
    vec![
        Case::unreadable(latin1, "not_utf8", 24 + LARGE_BYTES as u64 - 1),
        Case::unreadable(";".repeat(LARGE_BYTES), "not_json", 0),
        Case::unreadable(member(&nested), "too_deep", 23 + 63),
        Case::unreadable(member(&"9".repeat(LARGE_BYTES)), "number_too_long", 23),
        Case::unreadable(member(&twice), "too_many_values", one_too_many),
    ]
}

/// Sends good and bad ones in turn, in one frame.
async fn show(
    cluster: &Cluster,
    source: &Source,
    dataset: &str,
    cases: Vec<Case>,
    good: impl Fn(usize) -> Vec<u8>,
) -> Result<()> {
    let mut frame = FrameBuilder::new(1);
    for (at, case) in cases.iter().enumerate() {
        frame.push(&record(good(at)));
        frame.push(&record(case.payload.clone()));
    }
    let last = u64::from(frame.count());
    let mut session = open(cluster, source, dataset, 0).await?;
    let started = Instant::now();
    session.send_frame(frame.finish().context("records")?).await?;
    let refused = refused_until(&mut session, last).await?;
    ensure!(started.elapsed() < JUDGED_WITHIN, "it took {:?}", started.elapsed());
    ensure!(refused.len() == cases.len(), "{} refused", refused.len());
    for (at, (case, told)) in cases.iter().zip(&refused).enumerate() {
        ensure!(told.sequence == 2 * at as u64 + 2, "{told:?}");
        judge(case, told).with_context(|| format!("{}: {told:?}", case.rule))?;
    }
    let mut stored = Vec::new();
    let request = ReadRequest { dataset: dataset.to_owned(), ..all_of(source) };
    let tell = |record: StoredRecord| stored.push((record.sequence, record.payload.to_vec()));
    records(cluster.endpoint(source)?, request, tell).await?;
    let wanted: Vec<_> = (0..cases.len()).map(|at| (2 * at as u64 + 1, good(at))).collect();
    ensure!(stored == wanted, "{dataset}: the neighbours are kept as they were");
    Ok(())
}

fn judge(case: &Case, told: &RefusedRecord) -> Result<()> {
    let said = told.violations.first().context("a violation")?;
    ensure!(said.rule == case.rule, "another rule");
    ensure!(case.pointer.is_none_or(|pointer| said.pointer == pointer), "another pointer");
    ensure!(case.byte_offset.is_none() || said.byte_offset == case.byte_offset, "another offset");
    ensure!(!said.expected.is_empty(), "expected what?");
    ensure!(said.found.chars().count() <= 64, "the excerpt is bounded");
    let texts = [&told.messages_vi, &told.messages_en];
    ensure!(texts.iter().all(|texts| texts.len() == told.violations.len()), "a text each");
    ensure!(told.messages_vi != told.messages_en, "two languages");
    Ok(())
}

fn record(payload: Vec<u8>) -> Record {
    Record { payload: payload.into(), ..Record::default() }
}

/// A session at one node.
pub(crate) async fn open(
    cluster: &Cluster,
    source: &Source,
    dataset: &str,
    at: usize,
) -> Result<Session, dtm_client::Error> {
    open_stream(cluster, source, dataset, dataset, at).await
}

/// A session of a named stream at one node.
pub(crate) async fn open_stream(
    cluster: &Cluster,
    source: &Source,
    stream: &str,
    dataset: &str,
    at: usize,
) -> Result<Session, dtm_client::Error> {
    open_form(cluster, source, stream, (dataset, Form::Raw), at).await
}

/// A session of a named stream at one node, in the form that is agreed.
pub(crate) async fn open_form(
    cluster: &Cluster,
    source: &Source,
    stream: &str,
    (dataset, form): (&str, Form),
    at: usize,
) -> Result<Session, dtm_client::Error> {
    let endpoint = cluster.endpoint_at(source, &[at]).expect("the key parses");
    let open = Open {
        source: source.code.clone(),
        stream: stream.to_owned(),
        dataset: dataset.to_owned(),
        mode: Mode::Realtime.into(),
        form: form.into(),
        ids: IdPolicy::Sequence.into(),
        ..Open::default()
    };
    let address = cluster.nodes[at].grpc.to_string();
    Session::open(&endpoint.with_connect_timeout(Duration::from_secs(10)), &address, open).await
}

/// What is refused on a session until this sequence is acked.
pub(crate) async fn refused_until(
    session: &mut Session,
    acked_through: u64,
) -> Result<Vec<RefusedRecord>> {
    let mut refused = Vec::new();
    loop {
        match answer(session).await? {
            SessionEvent::Refused(more) => refused.extend(more.records),
            SessionEvent::Ack(ack) if ack.acked_through == acked_through => return Ok(refused),
            _ => {}
        }
    }
}

/// The next answer of a session, in bounded time.
pub(crate) async fn answer(session: &mut Session) -> Result<SessionEvent> {
    match tokio::time::timeout(ANSWER_WITHIN, session.next_event()).await {
        Ok(Ok(Some(event))) => Ok(event),
        Ok(Ok(None)) => bail!("the session ended"),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("no answer in time"),
    }
}
